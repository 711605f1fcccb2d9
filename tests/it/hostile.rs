//! Daemons that answer with too much, too slowly or with nonsense, of every source at once: each has
//! its reason, none makes a row of zeros, the others go on, and memory stays small.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use periscope::base::tasks::spawn_detached;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio_tungstenite::tungstenite::Message;

use super::support::daemon::Daemon;
use super::support::periscope::{Periscope, VERSIONS};
use super::support::questdb::QuestDb;
use super::support::wait::until;

/// Most memory that periscope may take, bytes.
const RESIDENT: u64 = 64 << 20;

/// Answers one request without an end, as fast as it is read or a byte a second.
async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    fast: bool,
) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let _read = stream.read(&mut request).await?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
    let chunk = format!("10000\r\n{}\r\n", "[".repeat(0x1_0000));
    loop {
        if fast {
            stream.write_all(chunk.as_bytes()).await?;
        } else {
            stream.write_all(b"1\r\n[\r\n").await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn over_http(fast: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/status", listener.local_addr().unwrap());
    spawn_detached(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_detached(answer(stream, fast));
        }
    });
    format!("source = \"http\"\nurl = \"{url}\"\n")
}

fn over_socket(path: &Path, fast: bool) -> String {
    let listener = UnixListener::bind(path).unwrap();
    spawn_detached(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_detached(answer(stream, fast));
        }
    });
    format!("source = \"socket\"\npath = \"{}\"\n", path.display())
}

/// Sends messages of 8 MiB without a pause, or none at all.
async fn over_websocket(fast: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    spawn_detached(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_detached(async move {
                let Ok(mut stream) = tokio_tungstenite::accept_async(stream).await else { return };
                let message = Message::text("[".repeat(8 << 20));
                while fast && stream.send(message.clone()).await.is_ok() {}
                while stream.next().await.is_some_and(|message| message.is_ok()) {}
            });
        }
    });
    format!("source = \"websocket\"\nurl = \"{url}\"\n")
}

fn of_file(path: &Path, content: &[u8]) -> String {
    fs::write(path, content).unwrap();
    format!("source = \"file\"\npath = \"{}\"\nstale_after = \"1h\"\n", path.display())
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_documents_of_every_source_have_their_reason_and_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let huge = of_file(&at("huge.json"), b"[");
    fs::File::options().write(true).open(at("huge.json")).unwrap().set_len(1 << 30).unwrap();
    let exec = |command: &str| format!("source = \"exec\"\ncommand = {command}\n");
    let bad = [
        ("http-endless", over_http(true).await, "too_large"),
        ("http-slow", over_http(false).await, "timeout"),
        ("socket-endless", over_socket(&at("endless.sock"), true), "too_large"),
        ("socket-slow", over_socket(&at("slow.sock"), false), "timeout"),
        ("websocket-endless", over_websocket(true).await, "too_large"),
        ("websocket-silent", over_websocket(false).await, "silent"),
        ("exec-endless", exec("[\"/usr/bin/yes\"]"), "too_large"),
        ("exec-slow", exec("[\"/bin/sleep\", \"60\"]"), "timeout"),
        ("exec-fails", exec("[\"/bin/false\"]"), "exit_status"),
        ("file-huge", huge, "too_large"),
        ("file-deep", of_file(&at("deep.json"), "[".repeat(100_000).as_bytes()), "too_deep"),
        ("file-page", of_file(&at("page.json"), b"<!DOCTYPE html><html></html>"), "html"),
        ("file-half", of_file(&at("half.json"), b"{\"running\": tr"), "not_json"),
        ("file-empty", of_file(&at("empty.json"), b""), "empty"),
        ("file-list", of_file(&at("list.json"), b"[1, 2]"), "bad_document"),
    ];
    let (questdb, good) = (QuestDb::start(VERSIONS[0]).await, Daemon::counting().await);
    let entries: String = bad
        .iter()
        .map(|(name, source, _)| {
            format!("[[daemon]]\nname = \"{name}\"\ntimeout = \"400ms\"\n{source}")
        })
        .collect();
    let config = format!(
        "{}[collect]\ninterval = \"500ms\"\n[writer]\nflush_interval = \"200ms\"\n\
         [[daemon]]\nname = \"good\"\nsource = \"http\"\nurl = \"{}\"\n{entries}",
        questdb.remote_config(),
        good.url
    );
    let periscope = Periscope::up_remote(&config);
    periscope.ready().await;
    periscope.well("schema").await;
    for (name, _, reason) in &bad {
        let sql = format!(
            "select count() from daemon_metrics where daemon = '{name}' and poll_error = '{reason}'"
        );
        until(&format!("{name} to be {reason}"), Duration::from_secs(60), || async {
            let rows = questdb.number(&sql).await;
            let told = periscope.status().await?["daemons"].to_string();
            if rows > 3 { Ok(()) } else { Err(format!("{rows} rows; {told}")) }
        })
        .await;
    }
    let zeros = "select count() from daemon_metrics where daemon <> 'good' and (reachable or running \
                 or fetch_count is not null or error_count is not null or uptime_seconds is not null)";
    assert_eq!(questdb.number(zeros).await, 0, "rows were made up");
    let polls = "select count() from daemon_metrics where daemon = 'good' and reachable";
    let before = questdb.number(polls).await;
    until("the good one to go on", Duration::from_secs(30), || async {
        let now = questdb.number(polls).await;
        if now >= before + 5 { Ok(()) } else { Err(now) }
    })
    .await;
    let resident = resident(periscope.pid());
    println!("most memory with {} bad daemons: {} KiB", bad.len(), resident >> 10);
    assert!(resident <= RESIDENT, "{resident} bytes");
}

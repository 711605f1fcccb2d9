//! Every source against every bad document: the same reason everywhere, and nothing but a reason.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::directory::Directory;
use super::exec::Program;
use super::fetch::SocketEndpoint;
use super::file::Watched;
use super::mapping::Mapper;
use super::parts::Endpoints;
use super::poll::{self, Asked, Pace, PolledDaemon};
use super::record::Sink;
use super::rows::Tags;
use super::websocket::{self, WebSocketDaemon};
use crate::base::http::{Client, Limits};
use crate::base::metrics::Metrics;
use crate::base::tasks::spawn_detached;
use crate::base::time::Clock;
use crate::config::Node;
use crate::config::parts::Ask;
use crate::model::row::{Row, Value};
use crate::store::queue::{self, Next, RowStream};

const INTERVAL: Duration = Duration::from_millis(100);
/// Longer than any document here takes: the machine may be busy.
const LIMITS: Limits = Limits { time: Duration::from_secs(20), body: 4096 };
const PACE: Pace =
    Pace { first: Duration::ZERO, interval: INTERVAL, trading: INTERVAL, limits: LIMITS };
const WAIT: Duration = Duration::from_secs(60);

/// The name of a document, what stands in it, and `poll_error`; `None`: it is good.
fn documents() -> Vec<(&'static str, String, Option<&'static str>)> {
    let deep = format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000));
    let large = format!("{{\"last_error\": \"{}\"}}", "x".repeat(5_000));
    vec![
        ("good", "{\"running\": true, \"fetch_count\": 7}".to_owned(), None),
        ("empty", " \n".to_owned(), Some("empty")),
        ("html", "<html><body>login</body></html>".to_owned(), Some("html")),
        ("cut", "{\"running\": true, \"fetch".to_owned(), Some("not_json")),
        ("deep", deep, Some("too_deep")),
        ("large", large, Some("too_large")),
        ("list", "[1, 2]".to_owned(), Some("bad_document")),
        ("foreign", "{\"weather\": \"fine\"}".to_owned(), Some("bad_document")),
    ]
}

fn sink() -> (Sink, RowStream) {
    let metrics = Metrics::new();
    let (queue, stream) = queue::channel(10_000, &metrics);
    let sink = Sink {
        clock: Clock::system(),
        directory: Directory::default(),
        metrics,
        queue,
        tags: Tags::of(&Node { host: "vps-1".into(), env: "dev".into() }),
        peaks: crate::collect::peaks::Peaks::default(),
    };
    (sink, stream)
}

/// Runs the loop of a daemon until its first row in `daemon_metrics`.
async fn first_row<F>(start: impl FnOnce(Sink, CancellationToken) -> F) -> Row
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sink, stream) = sink();
    sink.directory.expect(&Arc::from("d"), "test", INTERVAL);
    let stop = CancellationToken::new();
    let task = spawn_detached(start(sink, stop.clone()));
    let row = tokio::task::spawn_blocking(move || {
        let started = std::time::Instant::now();
        while started.elapsed() < WAIT {
            let Next::Rows(entries) = stream.next(Duration::from_millis(100)) else { continue };
            let mut rows = entries.into_iter().flat_map(|entry| entry.rows);
            if let Some(row) = rows.find(|row| row.table.name == "daemon_metrics") {
                return row;
            }
        }
        panic!("no row");
    });
    let row = row.await.unwrap();
    stop.cancel();
    task.await.unwrap();
    row
}

async fn polled(asked: Asked) -> Row {
    let daemon = PolledDaemon { name: "d".into(), asked, pace: PACE, mapper: Mapper::default() };
    first_row(|sink, stop| poll::run(daemon, sink, stop)).await
}

fn answer(document: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", document.len());
    [head.as_bytes(), document.as_bytes()].concat()
}

async fn over_http(document: String) -> Row {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/status", listener.local_addr().unwrap());
    spawn_detached(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _request = stream.read(&mut [0; 4096]).await;
            let _sent = stream.write_all(&answer(&document)).await;
        }
    });
    let endpoints = Endpoints::new(&url, None, &Ask::default(), &[]);
    polled(Asked::Http(Client::new().unwrap(), endpoints)).await
}

async fn over_a_socket(document: String, folder: PathBuf) -> Row {
    let path = folder.join("status.sock");
    let listener = UnixListener::bind(&path).unwrap();
    spawn_detached(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _request = stream.read(&mut [0; 4096]).await;
            let _sent = stream.write_all(&answer(&document)).await;
        }
    });
    let request = hyper::Uri::from_static("/status");
    polled(Asked::Socket(SocketEndpoint { path, request })).await
}

async fn from_a_file(document: String, folder: PathBuf) -> Row {
    let path = folder.join("status.json");
    std::fs::write(&path, document).unwrap();
    polled(Asked::File(Watched { path, stale_after: Duration::from_secs(600) })).await
}

async fn from_a_program(document: String, folder: PathBuf) -> Row {
    let path = folder.join("printed.json");
    std::fs::write(&path, document).unwrap();
    let arguments = vec![path.display().to_string()];
    polled(Asked::Exec(Program { path: "/bin/cat".into(), arguments })).await
}

async fn over_a_websocket(document: String) -> Row {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/status", listener.local_addr().unwrap());
    spawn_detached(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = tokio_tungstenite::accept_async(stream).await.unwrap();
            let asked = stream.next().await.unwrap().unwrap();
            assert_eq!(asked.to_text().unwrap(), "hello");
            let _sent = stream.send(Message::text(document.clone())).await;
            // Until the other side closes.
            while let Some(Ok(_frame)) = stream.next().await {}
        }
    });
    let daemon = WebSocketDaemon {
        name: "d".into(),
        url,
        authorization: None,
        subscribe: Some("hello".to_owned()),
        // A tick before the message would be a row about nothing.
        pace: Pace { first: Duration::from_secs(2), ..PACE },
        mapper: Mapper::default(),
        seed: 1,
    };
    first_row(|sink, stop| websocket::run(daemon, sink, stop)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_source_gives_the_same_reason_for_a_bad_document() {
    for (name, document, reason) in documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = || folder.path().to_owned();
        let rows = [
            ("http", over_http(document.clone()).await),
            ("socket", over_a_socket(document.clone(), path()).await),
            ("file", from_a_file(document.clone(), path()).await),
            ("exec", from_a_program(document.clone(), path()).await),
            ("websocket", over_a_websocket(document.clone()).await),
        ];
        for (source, row) in rows {
            let found = row.get("poll_error").clone();
            match reason {
                Some(reason) => {
                    assert_eq!(found, Value::from(reason), "{source} {name}: {row:?}");
                    // No zeros: what is not known is null.
                    assert_eq!(*row.get("fetch_count"), Value::Null, "{source} {name}");
                    assert_eq!(*row.get("reachable"), Value::Bool(false), "{source} {name}");
                }
                None => {
                    assert_eq!(found, Value::Null, "{source} {name}: {row:?}");
                    assert_eq!(*row.get("fetch_count"), Value::Long(7), "{source} {name}");
                    assert_eq!(*row.get("reachable"), Value::Bool(true), "{source} {name}");
                }
            }
        }
    }
}

/// Connected and silent is what hurts: it is told apart from a connection that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_is_silent_and_one_that_is_gone_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/status?key=canary", listener.local_addr().unwrap());
    spawn_detached(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(_frame)) = stream.next().await {}
        }
    });
    let daemon = |url: &str| WebSocketDaemon {
        name: "d".into(),
        url: url.to_owned(),
        authorization: None,
        subscribe: None,
        pace: PACE,
        mapper: Mapper::default(),
        seed: 1,
    };
    let (silent, gone) = (daemon(&url), daemon("ws://127.0.0.1:1/?key=canary"));
    let row = first_row(|sink, stop| websocket::run(silent, sink, stop)).await;
    assert_eq!(*row.get("poll_error"), Value::from("silent"), "{row:?}");
    let row = first_row(|sink, stop| websocket::run(gone, sink, stop)).await;
    assert_eq!(*row.get("poll_error"), Value::from("refused"), "{row:?}");
    assert!(!format!("{row:?}").contains("canary"), "{row:?}");
}

//! `periscope doctor`: things that are broken on purpose, one at a time, and what it says of each.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use periscope::base::time::Timestamp;
use periscope::store::dead_letter::{self, Letter};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::daemon::{Daemon, ok_json};
use super::support::grafana_api::GrafanaApi;
use super::support::periscope::{Periscope, VERSIONS, questdb_home};
use super::support::questdb::{PASSWORD, QuestDb, free_port};
use super::support::receiver::Receiver;
use super::support::telegram::{CHAT, TOKEN, Telegram};
use super::support::wait::until;

/// A machine of its own: configuration, data folder, unit.
struct Rig {
    folder: tempfile::TempDir,
    /// What the configuration says.
    config: String,
}

impl Rig {
    fn new(config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("periscope-doctor-").tempdir().unwrap();
        Self { folder, config: config.to_owned() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Makes a file in the data folder.
    fn data(&self, path: &str, content: &str, mode: u32) {
        let path = self.at("data").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn doctor(&self) -> (i32, Vec<Value>) {
        let config = self.at("periscope.toml");
        if !config.exists() {
            fs::write(&config, &self.config).unwrap();
            fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_periscope"));
        command.args(["doctor", "--json", "--data-dir"]).arg(self.at("data"));
        command.arg("--config").arg(config).arg("--unit").arg(self.at("periscope.service"));
        findings(command)
    }

    /// Asserts what is found: the words stand in what was seen or its cause, and in the remedy.
    #[track_caller]
    fn finds(&self, level: &str, check: &str, words: &str, remedy: &str) {
        let (code, found) = self.doctor();
        assert_found(&found, level, check, words, remedy);
        let problems = found.iter().any(|finding| finding["level"] == "problem");
        let expected = match check {
            "configuration" if level == "problem" && !words.contains("mode") => 78,
            _ => i32::from(problems),
        };
        assert_eq!(code, expected, "{found:#?}");
    }
}

fn findings(mut command: Command) -> (i32, Vec<Value>) {
    command.env_remove("PERISCOPE_CONFIG");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let found = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    for secret in [PASSWORD, TOKEN, "canary-secret"] {
        assert!(!text.contains(secret), "a secret is shown: {text}");
    }
    (output.status.code().unwrap(), found)
}

#[track_caller]
fn assert_found(found: &[Value], level: &str, check: &str, words: &str, remedy: &str) {
    let is_it = |finding: &&Value| {
        let seen = format!("{} {}", finding["seen"], finding["cause"]);
        finding["check"] == check
            && finding["level"] == level
            && seen.contains(words)
            && finding["remedy"].as_str().unwrap().contains(remedy)
    };
    assert!(found.iter().any(|finding| is_it(&finding)), "{check}: {words}: {remedy}\n{found:#?}");
}

/// Servers on free ports that nobody starts.
fn managed() -> String {
    format!(
        "[listen]\naddress = \"127.0.0.1:{}\"\n[grafana]\nmode = \"off\"\n[questdb]\n\
         home = \"{}\"\nhttp = \"127.0.0.1:{}\"\npg = \"127.0.0.1:{}\"\n",
        free_port(),
        questdb_home(VERSIONS[0]).display(),
        free_port(),
        free_port()
    )
}

#[test]
fn what_is_written_wrong_is_named() {
    Rig::new("[questdb]\nmemorry = \"1GB\"\n").finds(
        "problem",
        "configuration",
        "memorry",
        "memory",
    );
    Rig::new("[collect]\ninterval = \"5\"\n").finds("problem", "configuration", "interval", "5s");
    Rig::new("[listen]\ntoken = { file = \"/nowhere/token\" }\n").finds(
        "problem",
        "configuration",
        "/nowhere/token",
        "",
    );
    let rig = Rig::new(&format!(
        "{}[notify.telegram]\ntoken = \"1:canary-secret\"\nchat_id = 1\napi_url = \"http://127.0.0.1:1\"\n",
        managed()
    ));
    let file = rig.at("periscope.toml");
    fs::write(&file, &rig.config).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    rig.finds("problem", "configuration", "mode 644", "chmod 600");
}

#[test]
fn what_lies_wrong_on_disk_is_named() {
    let rig = Rig::new(&managed());
    fs::write(rig.at("data"), "").unwrap();
    rig.finds("problem", "data folder", "is no folder", "mv ");
    let rig = Rig::new(&managed());
    rig.data("journal", "", 0o600);
    rig.finds("problem", "data folder", "journal is no folder", "mv ");
    let rig = Rig::new(&managed());
    rig.data("secrets/questdb-http-password", "x", 0o644);
    rig.finds("problem", "secrets", "mode 644", "chmod 600");
    let rig = Rig::new(&managed());
    rig.data("secrets/questdb-http-password", "", 0o600);
    rig.finds("problem", "secrets", "is empty", "rm ");
    let rig = Rig::new(&managed());
    let letter = Letter {
        time: Timestamp::from_millis(0),
        table: "trading_metrics".to_owned(),
        reason: "cast error".to_owned(),
        line: "trading_metrics pnl=1".to_owned(),
    };
    fs::create_dir_all(rig.at("data/dead-letter")).unwrap();
    dead_letter::keep(&rig.at("data/dead-letter"), &letter).unwrap();
    rig.finds("warning", "refused rows", "cast error", "dead-letter");
    let rig = Rig::new(&format!("{}[spool]\nmin_free = \"900TiB\"\n", managed()));
    rig.finds("problem", "disk", "new rows are dropped", "retention");
    let rig = Rig::new(&managed());
    rig.data("run/gone-999999999.sock", "", 0o600);
    rig.finds("warning", "shim", "gone was killed", "rm ");
    let rig = Rig::new(&managed());
    fs::write(
        rig.at("periscope.service"),
        "[Service]\nType=notify\nExecStart=/nowhere/periscope up\n",
    )
    .unwrap();
    rig.finds("problem", "service", "/nowhere/periscope", "service install");
    let rig = Rig::new(&managed());
    fs::write(rig.at("periscope.service"), "[Service]\nExecStart=/bin/sh -c x\n").unwrap();
    rig.finds("warning", "service", "no watchdog", "service install");
}

/// A spool that was written by the program itself and damaged behind its back.
#[tokio::test]
async fn a_damaged_spool_is_named() {
    let daemon = Daemon::counting().await;
    let nobody =
        "[questdb]\nmode = \"remote\"\nhttp = \"http://127.0.0.1:1\"\npg = \"127.0.0.1:1\"\n";
    let config = format!(
        "{nobody}[[daemon]]\nname = \"counter\"\nsource = \"http\"\nurl = \"{}\"\ninterval = \"200ms\"\n",
        daemon.url
    );
    let mut periscope = Periscope::up_remote(&config);
    until("rows on disk", Duration::from_secs(60), || async {
        let status = periscope.status().await?;
        let rows = status["spool"]["rows"].as_u64().unwrap();
        if rows > 50 { Ok(()) } else { Err(rows.to_string()) }
    })
    .await;
    periscope.kill();
    let segment = fs::read_dir(periscope.data().join("spool"))
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    for byte in &mut bytes[600..640] {
        *byte ^= 0x5a;
    }
    fs::write(&segment, bytes).unwrap();
    let (_, found) = findings(periscope.command(&["doctor", "--json"]));
    assert_found(&found, "problem", "spool", "is damaged", "spool verify");
}

#[test]
fn programs_and_ports_that_are_not_there_are_named() {
    let rig = Rig::new(&managed());
    let java = rig.at("java");
    fs::write(&java, "#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n").unwrap();
    fs::set_permissions(&java, fs::Permissions::from_mode(0o755)).unwrap();
    let rig = Rig { config: format!("{}java = \"{}\"\n", managed(), java.display()), ..rig };
    rig.finds("problem", "java", "too old", "openjdk-17");
    let empty = tempfile::tempdir().unwrap();
    let home = |server: &str| {
        let text = managed().replace("mode = \"off\"\n", "");
        let line = format!("home = \"{}\"\n", empty.path().display());
        if server == "grafana" {
            text.replace("[questdb]\n", &format!("{line}[questdb]\n"))
        } else {
            let old = format!("home = \"{}\"\n", questdb_home(VERSIONS[0]).display());
            text.replace(&old, &line)
        }
    };
    Rig::new(&home("questdb")).finds("problem", "questdb files", "questdb.home", "questdb.home");
    Rig::new(&home("grafana")).finds("problem", "grafana files", "grafana.home", "grafana.home");
    let rig = Rig::new(&managed().replace("mode = \"off\"\n", ""));
    rig.finds("warning", "grafana files", "take", "periscope fetch");
    for key in ["listen.address", "questdb.http", "questdb.pg"] {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let (section, name) = key.split_once('.').unwrap();
        let config: Vec<String> = managed()
            .lines()
            .scan(String::new(), |inside, line| {
                if line.starts_with('[') {
                    line.clone_into(inside);
                }
                let is_it =
                    *inside == format!("[{section}]") && line.starts_with(&format!("{name} ="));
                Some(if is_it { format!("{name} = \"{address}\"") } else { line.to_owned() })
            })
            .collect();
        let rig = Rig::new(&(config.join("\n") + "\n"));
        rig.finds("problem", "port", &format!("{address} ({key}) is taken"), "kill ");
    }
    Rig::new(&managed()).finds("warning", "instance", "none runs", "periscope up");
}

#[tokio::test]
async fn ways_to_people_that_do_not_work_are_named() {
    let rig = Rig::new(&managed());
    rig.finds("problem", "channels", "nobody is told", "notify telegram");
    rig.finds("warning", "heartbeat", "nobody is left", "[heartbeat]");
    let telegram = Telegram::start().await;
    let named = |token: &str, url: &str| {
        format!(
            "{}[notify.telegram]\ntoken = \"{token}\"\nchat_id = {CHAT}\napi_url = \"{url}\"\n",
            managed()
        )
    };
    // The command runs beside the servers of the test.
    let find = |config: String, words: &'static str, remedy: &'static str| async move {
        tokio::task::spawn_blocking(move || {
            Rig::new(&config).finds("problem", "channels", words, remedy);
        })
        .await
        .unwrap();
    };
    find(named("1:canary-secret", telegram.url()), "telegram would refuse", "").await;
    find(named(TOKEN, "http://127.0.0.1:1"), "telegram cannot be asked", "network").await;
    let mail = "[notify.email]\nserver = \"smtp://127.0.0.1:1\"\nfrom = \"a@example.org\"\n\
                to = [\"b@example.org\"]\n";
    find(format!("{}{mail}", managed()), "email cannot be asked", "network").await;
    let discord =
        "[notify.discord]\nwebhook_url = \"http://127.0.0.1:1/api/webhooks/1/canary-secret\"\n";
    find(format!("{}{discord}", managed()), "discord cannot be asked", "network").await;
    let hook = "[notify.webhook]\nurl = \"https://no-such-host.invalid/canary-secret\"\n";
    let rig = Rig::new(&format!("{}{hook}", managed()));
    tokio::task::spawn_blocking(move || {
        rig.finds("problem", "names", "no-such-host.invalid", "getent hosts");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn daemons_that_give_no_status_are_named() {
    let page = Daemon::serving(|_| {
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>".to_vec()
    })
    .await;
    let other = Daemon::serving(|_| ok_json("{\"colour\": \"blue\"}")).await;
    let odd = Daemon::serving(|_| ok_json("{\"running\": true, \"fetch_count\": \"many\"}")).await;
    let http = |url: &str| format!("source = \"http\"\nurl = \"{url}\"\n");
    let cases = [
        (http("http://127.0.0.1:1/status"), "problem", "refused", "start it"),
        (http(&page.url), "problem", "page", "source test"),
        (http(&other.url), "problem", "no status", "[daemon.map]"),
        (http(&odd.url), "warning", "fetch_count", "source test"),
        (
            "source = \"file\"\npath = \"/nowhere/status.json\"\n".to_owned(),
            "problem",
            "/nowhere",
            "start it",
        ),
        (
            "source = \"exec\"\ncommand = [\"/nowhere/program\"]\n".to_owned(),
            "problem",
            "/nowhere",
            "start it",
        ),
        ("source = \"shim\"\n".to_owned(), "problem", "no socket", "source test"),
    ];
    tokio::task::spawn_blocking(move || {
        for (source, level, words, remedy) in cases {
            let config = format!("{}[[daemon]]\nname = \"bot\"\n{source}", managed());
            Rig::new(&config).finds(level, "daemon", words, remedy);
        }
        Rig::new(&managed()).finds("warning", "daemon", "no daemon is known", "periscope run");
    })
    .await
    .unwrap();
}

/// A real QuestDB that is configured wrongly, or not well.
#[tokio::test]
async fn a_database_that_does_not_work_is_named() {
    let questdb = QuestDb::start_set(VERSIONS[0], &[("QDB_PG_PASSWORD", "quest")]).await;
    let remote = |http: &str, pg: &str, password: &str| {
        format!(
            "[grafana]\nmode = \"off\"\n[questdb]\nmode = \"remote\"\nhttp = \"{http}\"\npg = \"{pg}\"\n\
             user = \"admin\"\npassword = \"{password}\"\n"
        )
    };
    let (http, pg) = (questdb.http(), format!("127.0.0.1:{}", questdb.pg_port));
    let other = Daemon::serving(|_| ok_json("{}")).await;
    let other = other.url.replace("/status", "");
    let sql = "create table daemon_metrics (timestamp timestamp, x int) timestamp(timestamp) \
               partition by day wal";
    questdb.sql(sql).await.unwrap();
    questdb.sql("alter table daemon_metrics suspend wal").await.unwrap();
    tokio::task::spawn_blocking(move || {
        let nobody = remote("http://127.0.0.1:1", "127.0.0.1:1", PASSWORD);
        Rig::new(&nobody).finds("problem", "questdb", "nobody listens", "questdb.http");
        let wrong = remote(&http, &pg, "canary-secret");
        Rig::new(&wrong).finds("problem", "questdb", "refuses user and password", "questdb.user");
        let foreign = remote(&other, &pg, PASSWORD);
        Rig::new(&foreign).finds("problem", "questdb", "no QuestDB", "questdb.http");
        // Its PG wire has the password of every fresh server.
        let rig = Rig::new(&remote(&http, &pg, PASSWORD));
        rig.finds("problem", "questdb login", "password quest", "pg.password");
        rig.finds("problem", "questdb", "PostgreSQL wire", "questdb.pg");
        rig.finds("problem", "questdb", "daemon_metrics is suspended", "RESUME WAL");
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_grafana_that_does_not_work_is_named() {
    let api = GrafanaApi::start().await;
    let config = |url: &str| {
        managed().replace(
            "mode = \"off\"\n",
            &format!("mode = \"remote\"\nurl = \"{url}\"\ntoken = \"canary-secret\"\n"),
        )
    };
    let find = |url: String, check: &'static str, words: &'static str, remedy: &'static str| {
        let rig = Rig::new(&config(&url));
        async move {
            tokio::task::spawn_blocking(move || rig.finds("problem", check, words, remedy))
                .await
                .unwrap();
        }
    };
    find("http://127.0.0.1:1".to_owned(), "grafana", "nobody answers", "grafana.url").await;
    api.refuse(Some(401));
    find(api.url.clone(), "grafana", "refuses the login", "service account").await;
    api.refuse(None);
    api.put("/api/org", json!({"id": 1}));
    find(api.url.clone(), "grafana content", "no data source", "grafana apply").await;
    find(api.url.clone(), "grafana content", "no dashboards", "grafana apply").await;
    find(api.url.clone(), "grafana login", "password admin", "reset-admin-password").await;
    api.put("/api/datasources/uid/periscope-questdb", json!({"uid": "periscope-questdb"}));
    let away = json!({"status": "ERROR", "message": "dial tcp: connection refused"});
    api.put("/api/datasources/uid/periscope-questdb/health", away);
    find(api.url.clone(), "grafana content", "connection refused", "password of QuestDB").await;
}

/// A running instance: all well, then stopped by a signal, then without its database.
#[tokio::test]
async fn a_running_instance_is_asked() {
    let (daemon, receiver) = (Daemon::counting().await, Receiver::start().await);
    let mut questdb = QuestDb::start(VERSIONS[0]).await;
    let config = format!(
        "{}[[daemon]]\nname = \"counter\"\nsource = \"http\"\nurl = \"{}\"\n[notify.webhook]\n\
         url = \"{}\"\n[[daemon]]\nname = \"pusher\"\nsource = \"push\"\n",
        questdb.remote_config(),
        daemon.url,
        receiver.url
    );
    let periscope = Periscope::up_remote(&config);
    periscope.ready().await;
    periscope.well("schema").await;
    periscope.well("alerts").await;
    let doctor = || {
        let mut command = periscope.command(&["doctor", "--json", "--set", "grafana.mode=\"off\""]);
        command.arg("--unit").arg("/nowhere");
        async { tokio::task::spawn_blocking(move || findings(command)).await.unwrap() }
    };
    let (_, found) = doctor().await;
    // Nothing but what is missing on purpose.
    let bad: Vec<_> = found.iter().filter(|finding| finding["level"] == "problem").collect();
    let on_purpose = ["daemon", "configuration"];
    assert!(
        bad.iter().all(|finding| on_purpose.contains(&finding["check"].as_str().unwrap())),
        "{bad:#?}"
    );
    assert_found(&found, "problem", "daemon", "pusher", "/api/v1/push/pusher");
    for (check, words) in [
        ("instance", "version"),
        ("questdb", "answers"),
        ("channels", "webhook would take"),
        ("daemon", "counter answers"),
    ] {
        assert_found(&found, "ok", check, words, "");
    }
    periscope.signal(Signal::STOP);
    let (code, found) = doctor().await;
    periscope.signal(Signal::CONT);
    assert_eq!(code, 1);
    assert_found(&found, "problem", "instance", "does not answer", "kill -CONT");
    questdb.kill();
    periscope.told("questdb", "refused").await;
    let (code, found) = doctor().await;
    assert_eq!(code, 1);
    assert_found(&found, "problem", "part", "questdb is not well", "");
    assert_found(&found, "problem", "questdb", "nobody listens", "start it");
}

/// What people read without `--json`.
#[test]
fn the_text_has_cause_and_remedy() {
    let rig = Rig::new(&managed());
    fs::write(rig.at("periscope.toml"), &rig.config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_periscope"))
        .args(["doctor", "--data-dir"])
        .arg(rig.at("data"))
        .arg("--config")
        .arg(rig.at("periscope.toml"))
        .arg("--unit")
        .arg(Path::new("/nowhere"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("PROBLEM  channels        no channel is configured"), "{text}");
    assert!(text.contains("cause: alerts are evaluated and nobody is told"), "{text}");
    assert!(text.contains("to mend it: periscope notify telegram"), "{text}");
    assert!(text.trim_end().ends_with("1 problems"), "{text}");
}

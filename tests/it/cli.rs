//! Commands of the built binary: what they print, and how they end.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::support::periscope::{Periscope, VERSIONS, questdb_home};
use super::support::wait::until;

fn periscope(arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_periscope"))
        .args(arguments)
        .current_dir(folder.path())
        .env("XDG_DATA_HOME", folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .env_remove("PERISCOPE_CONFIG")
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn wrong_use_ends_with_64_and_help_with_0() {
    assert_eq!(periscope(&["upp"]).0, 64);
    assert_eq!(periscope(&["run", "--target", "x:Y"]).0, 64);
    let (code, out, _) = periscope(&["--help"]);
    assert_eq!(code, 0);
    for command in
        ["up", "dev", "run", "check", "status", "query", "send", "render", "schema", "completions"]
    {
        assert!(
            out.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))),
            "{command}\n{out}"
        );
    }
    assert!(out.contains("73  cannot create"), "{out}");
}

#[test]
fn without_an_instance_the_answer_says_how_to_start_one() {
    for command in
        [&["status"][..], &["query", "select 1"], &["send", "daemon_metrics", "daemon=d"]]
    {
        let (code, out, err) = periscope(command);
        assert_eq!((code, out.as_str()), (69, ""), "{command:?}: {err}");
        assert!(err.contains("no periscope runs on") && err.contains("periscope up"), "{err}");
    }
}

#[test]
fn schema_completions_and_manual_are_printed_without_an_instance() {
    let (code, out, _) = periscope(&["schema"]);
    assert_eq!(code, 0);
    assert!(out.contains("CREATE TABLE IF NOT EXISTS daemon_metrics ("), "{out}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = periscope(&["completions", shell]);
        assert!(code == 0 && out.contains("periscope"), "{shell}");
    }
    let (code, out, _) = periscope(&["man"]);
    assert!(code == 0 && out.contains(".TH periscope"), "{out}");
}

#[test]
fn a_source_is_shown_with_its_rows_and_what_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let document = r#"{"running": true, "fetch_count": "7", "weather": "fine",
        "exchange_status": {"okx": {"connected": true}}}"#;
    std::fs::write(path("status.json"), document).unwrap();
    let config = format!(
        "[[daemon]]\nname = \"bot\"\nsource = \"file\"\npath = \"{}\"\n\
         [[daemon]]\nname = \"gone\"\nsource = \"http\"\nurl = \"http://127.0.0.1:1/\"\n",
        path("status.json")
    );
    std::fs::write(path("periscope.toml"), config).unwrap();
    let (config, data) = (path("periscope.toml"), path("data"));
    let test =
        |name| periscope(&["--config", &config, "--data-dir", &data, "source", "test", name]);
    let (code, out, err) = test("bot");
    assert_eq!(code, 0, "{err}");
    for line in [
        "\"weather\": \"fine\"",
        "daemon_metrics\n",
        "  running = true\n",
        "exchange_status\n",
        "  exchange = okx\n",
        "null because of their type or value: fetch_count\n",
        "ignored: weather\n",
    ] {
        assert!(out.contains(line), "{line:?} is not in\n{out}");
    }
    assert!(!out.contains("fetch_count = "), "{out}");
    let (code, _, err) = test("gone");
    assert!(code == 1 && err.contains("refused: ") && err.contains("bot, gone"), "{err}");
    let (code, _, err) = test("nobody");
    assert!(code == 1 && err.contains("socket_missing: "), "{err}");
    std::fs::write(path("status.json"), "{\"weather\": \"fine\"}").unwrap();
    let (code, out, _) = test("bot");
    assert!(code == 1 && out.contains("no rows"), "{out}");
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_periscope"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_wrong_row_is_refused_with_every_problem_before_it_is_sent() {
    let (code, _, err) = periscope(&["send", "daemon_metric", "daemon=d"]);
    assert_eq!(code, 64);
    assert!(err.contains("did you mean \"daemon_metrics\""), "{err}");
    let (code, _, err) = periscope(&[
        "send",
        "daemon_metrics",
        "fetch_cuont=1",
        "running=yes",
        "uptime_seconds=inf",
    ]);
    assert_eq!(code, 64);
    for part in [
        "did you mean \"fetch_count\"",
        "running: \"yes\"",
        "uptime_seconds: \"inf\"",
        "daemon is missing",
    ] {
        assert!(err.contains(part), "{part}\n{err}");
    }
}

#[test]
fn a_wrong_configuration_ends_up_with_78_and_names_the_place() {
    let (code, _, err) = periscope(&["up", "--set", "questdb.memmory=\"1GB\""]);
    assert_eq!(code, 78);
    assert!(err.contains("questdb.memmory") && err.contains("memory"), "{err}");
}

#[test]
fn render_writes_the_configuration_of_questdb() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("out");
    let (code, _, err) = periscope(&["render", into.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    let text = std::fs::read_to_string(into.join("questdb/server.conf")).unwrap();
    for line in [
        "http.bind.to=127.0.0.1:9000",
        "line.tcp.enabled=false",
        "line.auto.create.new.tables=false",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let again = folder.path().join("again");
    periscope(&["render", again.to_str().unwrap()]);
    assert_eq!(text, std::fs::read_to_string(again.join("questdb/server.conf")).unwrap());
}

#[tokio::test]
async fn a_row_sent_by_hand_is_found_by_a_query_in_every_format() {
    let periscope = Periscope::up("[node]\nenv = \"staging\"\nhost = \"it\"\n");
    periscope.ready().await;
    let (code, out, err) = periscope.run(&[
        "send",
        "daemon_metrics",
        "daemon=hand, made",
        "fetch_count=5",
        "last_error=a \"quoted\" = text",
        "timestamp=2026-11-24T00:00:00Z",
    ]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("durable: daemon_metrics"), "{out}");
    let count = "select count() from daemon_metrics where daemon = 'hand, made'";
    periscope.until_count(count, |count| count == 1).await;
    let query =
        "select daemon, host, env, fetch_count, last_error, memory_bytes from daemon_metrics";
    let (code, out, err) = periscope.run(&["query", query, "--format", "csv"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        out,
        "daemon,host,env,fetch_count,last_error,memory_bytes\n\
         \"hand, made\",it,staging,5,\"a \"\"quoted\"\" = text\",\n"
    );
    let (_, out, _) = periscope.run(&["query", query, "--format", "json"]);
    let rows: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(rows[0]["fetch_count"], "5");
    assert_eq!(rows[0]["memory_bytes"], Value::Null);
    let (_, out, _) = periscope.run(&["query", query]);
    assert!(out.lines().next().unwrap().starts_with("daemon "), "{out}");

    // Read-only means read-only.
    for statement in
        ["drop table daemon_metrics", "insert into daemon_metrics(timestamp) values(now())"]
    {
        let (code, _, err) = periscope.run(&["query", statement]);
        assert_eq!(code, 1, "{statement}: {err}");
    }
    let (code, _, err) = periscope.run(&["query", "select nothing from nowhere"]);
    assert!(code == 1 && err.contains("nowhere"), "{err}");
}

#[tokio::test]
async fn status_is_a_table_for_people_and_json_for_programs() {
    let config =
        "[[daemon]]\nname = \"nobody\"\nsource = \"http\"\nurl = \"http://127.0.0.1:1/\"\n";
    let periscope = Periscope::up(config);
    periscope.ready().await;
    until("the daemon to be polled", Duration::from_secs(20), || {
        let (code, out, err) = periscope.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(&out).unwrap_or_default();
        let found = status["daemons"][0]["state"] == "unreachable" && code == 0;
        std::future::ready(if found { Ok(()) } else { Err(format!("{out}{err}")) })
    })
    .await;
    let (code, out, _) = periscope.run(&["status", "--exit-code"]);
    assert_eq!(code, 3, "a daemon is unreachable");
    assert!(
        out.contains("nobody") && out.contains("unreachable") && out.contains("questdb"),
        "{out}"
    );
    assert!(!out.contains('\u{1b}'), "no colour codes without a terminal");
    let (_, out, _) = periscope.run(&["credentials"]);
    let password =
        std::fs::read_to_string(periscope.data().join("secrets/questdb-http-password")).unwrap();
    assert!(out.contains(password.trim()));
    for text in [periscope.log(), periscope.status().await.unwrap().to_string()] {
        assert!(!text.contains(password.trim()), "a password in the log or the report");
    }
}

#[tokio::test]
async fn a_second_periscope_on_one_folder_ends_with_73_and_names_the_first() {
    let periscope = Periscope::up("");
    until("the first to hold the lock", Duration::from_secs(20), || {
        std::future::ready(periscope.listener())
    })
    .await;
    let (code, _, err) = periscope.run(&["up"]);
    assert_eq!(code, 73, "{err}");
    assert!(err.contains(&format!("in use by process {}", periscope.pid())), "{err}");
}

#[tokio::test]
async fn a_read_only_data_folder_ends_with_73() {
    let (code, _, err) = periscope(&["up", "--data-dir", "/proc/periscope"]);
    assert_eq!(code, 73, "{err}");
    assert!(err.contains("/proc/periscope") && err.contains("--data-dir"), "{err}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_holder() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let own = format!("pid {}", std::process::id());
    let (code, _, err) = periscope(&["up", "--set", &format!("listen.address=\"{address}\"")]);
    assert_eq!(code, 73, "{err}");
    assert!(err.contains(&address.to_string()) && err.contains(&own), "{err}");

    let periscope = Periscope::up_set("", &[&format!("questdb.http=\"{address}\"")]);
    until("the holder of the port to be named", Duration::from_secs(30), || async {
        let reason = periscope.status().await?["questdb"]["reason"].to_string();
        if reason.contains(&own) && reason.contains(&address.port().to_string()) {
            Ok(())
        } else {
            Err(reason)
        }
    })
    .await;
    drop(taken);
    periscope.ready().await;
}

#[tokio::test]
async fn a_corrupt_jar_is_said_and_everything_else_goes_on() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("questdb.jar"), b"PK\x03\x04 not a jar").unwrap();
    let mut periscope = Periscope::up_at("", home.path());
    until("the jar to be named", Duration::from_secs(40), || async {
        let status = periscope.status().await?;
        let reason = status["questdb"]["reason"].to_string();
        if reason.contains("questdb.jar") { Ok(()) } else { Err(reason) }
    })
    .await;
    let (code, _, err) = periscope.run(&["send", "daemon_metrics", "daemon=d", "fetch_count=1"]);
    assert_eq!(code, 0, "rows are taken without a database: {err}");
    periscope.signal(Signal::TERM);
    assert_eq!(periscope.ended(Duration::from_secs(60)).await.code(), Some(0));
}

#[tokio::test]
async fn logs_are_json_when_asked_and_never_coloured_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let home = questdb_home(VERSIONS[0]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_periscope"))
        .args(["up", "--log-format", "json", "--data-dir"])
        .arg(folder.path().join("data"))
        .args(["--set", "listen.address=\"127.0.0.1:0\"", "--set", "questdb.http=\"127.0.0.1:0\""])
        .args(["--set", "questdb.pg=\"127.0.0.1:0\"", "--set"])
        .arg(format!("questdb.home=\"{}\"", home.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the instance to be there", Duration::from_secs(20), || {
        std::future::ready(std::fs::read(folder.path().join("data/run/instance.json")))
    })
    .await;
    super::support::periscope::send_signal(child.id(), Signal::INT);
    let mut text = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(lines.iter().any(|line| line["message"] == "stopped"), "{text}");
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()));
}

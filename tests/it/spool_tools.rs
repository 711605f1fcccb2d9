//! `periscope spool`: looking into the queue on disk and sending from it again.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use periscope::base::http::{Client, Limits};
use periscope::base::time::Clock;
use serde_json::Value;

use super::support::periscope::{Periscope, VERSIONS};
use super::support::questdb::QuestDb;
use super::support::wait::until;

const LIMITS: Limits = Limits { time: Duration::from_secs(20), body: 1 << 20 };

/// Pushes `body`, which must be taken.
async fn push(periscope: &Periscope, body: String) {
    let url = format!("{}/write", periscope.listener().unwrap());
    let request = hyper::Request::post(url).body(http_body_util::Full::from(body)).unwrap();
    let answer = Client::new().unwrap().send(request, LIMITS).await.unwrap();
    assert_eq!(answer.status, 204, "{:?}", answer.body);
}

/// Runs `spool …`; returns exit code, stdout and stderr.
fn spool(periscope: &Periscope, arguments: &[&str]) -> (i32, String, String) {
    let config = periscope.data().with_file_name("periscope.toml").display().to_string();
    let all: Vec<&str> =
        ["--config", &config, "spool"].into_iter().chain(arguments.iter().copied()).collect();
    periscope.run(&all)
}

fn json(answer: &(i32, String, String)) -> Value {
    serde_json::from_str(&answer.1).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// A server whose receive buffer is small refuses one line of a thousand, though it is valid: 999 are
/// stored, one is kept with the reason, and goes in once the server is mended.
#[tokio::test]
async fn one_poison_line_of_a_thousand_waits_in_dead_letter_for_the_mend() {
    let small = [
        ("QDB_HTTP_RECV_BUFFER_SIZE", "2k"),
        ("QDB_HTTP_RECEIVE_BUFFER_SIZE", "2k"),
        ("QDB_LINE_HTTP_MAX_RECV_BUFFER_SIZE", "2k"),
    ];
    let mut questdb = QuestDb::start_set(VERSIONS[0], &small).await;
    let periscope = Periscope::up_remote(&format!(
        "[node]\nhost = \"it\"\nenv = \"dev\"\n{}",
        questdb.remote_config()
    ));
    periscope.ready().await;
    let now = Clock::system().now().nanos();
    let mut body = String::new();
    for number in 0..1_000 {
        let error = if number == 617 { "poison".repeat(600) } else { "fine".to_owned() };
        body.push_str(&format!(
            "daemon_metrics,daemon=d fetch_count={number}i,last_error=\"{error}\" {}\n",
            now + number * 1_000
        ));
    }
    push(&periscope, body).await;
    let count = "select count() from daemon_metrics where daemon = 'd'";
    until("999 rows", Duration::from_secs(60), || async {
        let rows = questdb.sql(count).await?;
        if rows[0][0] == 999 { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let letters = until("the letter", Duration::from_secs(60), || async {
        let letters = json(&spool(&periscope, &["dead-letter", "list", "--json"]));
        if letters.as_array().unwrap().len() == 1 { Ok(letters) } else { Err(letters.to_string()) }
    })
    .await;
    let (id, line) = (letters[0]["id"].as_str().unwrap(), letters[0]["line"].as_str().unwrap());
    assert!(line.contains("fetch_count=617i"), "{line}");
    assert!(letters[0]["reason"].as_str().unwrap().contains("too large"), "{letters}");
    let status = periscope.status().await.unwrap();
    assert_eq!(status["writer"]["refused_total"], 1, "{status}");
    assert!(status["parts"]["writer"].to_string().contains("1 rows refused"), "{status}");
    let (code, shown, _) = spool(&periscope, &["dead-letter", "show", id]);
    assert_eq!(code, 0);
    assert!(shown.contains("fetch_count=617i"), "{shown}");
    let (code, _, err) = spool(&periscope, &["dead-letter", "show", "none"]);
    assert_eq!(code, 64, "{err}");

    // One more that no mend helps: the server names its line in a 400.
    let never = serde_json::json!({
        "time": "2026-01-01T00:00:00Z", "table": "daemon_metrics", "reason": "before",
        "line": format!("daemon_metrics,daemon=d,host=it,env=dev fetch_count=\"x\" {now}"),
    });
    let file = periscope.data().join("dead-letter/daemon_metrics.jsonl");
    let mut file = fs::File::options().append(true).open(file).unwrap();
    writeln!(file, "{never}").unwrap();
    let answer = spool(&periscope, &["dead-letter", "retry", "--json"]);
    assert_eq!(answer.0, 1, "{answer:?}");
    let outcome = json(&answer);
    assert_eq!(outcome["accepted"], 0, "{outcome}");
    assert!(outcome["refused"].to_string().contains("cast error"), "{outcome}");

    questdb.settings.clear();
    questdb.kill();
    questdb.restart().await;
    let answer = spool(&periscope, &["dead-letter", "retry", "--json"]);
    assert_eq!((answer.0, json(&answer)["accepted"].as_u64()), (1, Some(1)), "{answer:?}");
    until("all rows", Duration::from_secs(60), || async {
        let rows = questdb.sql(count).await?;
        if rows[0][0] == 1_000 { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let (code, _, err) = spool(&periscope, &["dead-letter", "drop"]);
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("1 refused rows would be removed for good: add --yes"), "{err}");
    let (code, out, err) = spool(&periscope, &["dead-letter", "drop", "--yes"]);
    assert_eq!((code, out.as_str()), (0, "1 refused rows removed\n"), "{err}");
    let (_, out, _) = spool(&periscope, &["dead-letter", "list"]);
    assert_eq!(out, "no row was refused\n");
}

/// Rows that the database has lost come back from disk, exactly once.
#[tokio::test]
async fn delivered_rows_are_listed_verified_and_replayed() {
    let mut periscope = Periscope::up("[node]\nhost = \"it\"\n");
    periscope.ready().await;
    let now = Clock::system().now().nanos();
    for batch in 0..5 {
        let lines = (0..100).map(|number| {
            let number = batch * 100 + number;
            format!(
                "pipeline_metrics,exchange=x,symbol=s,data_type=d,daemon=p records_count={number}i {}\n",
                now + number * 1_000
            )
        });
        push(&periscope, lines.collect()).await;
    }
    let count = "select count() from pipeline_metrics";
    periscope.until_count(count, |rows| rows == 500).await;
    let list = until("the cursor to follow", Duration::from_secs(30), || async {
        let list = json(&spool(&periscope, &["list", "--json"]));
        let delivered: u64 = list["segments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|segment| segment["delivered_rows"].as_u64().unwrap())
            .sum();
        if delivered >= 500 { Ok(list) } else { Err(list.to_string()) }
    })
    .await;
    assert_eq!(list["segments"][0]["tables"]["pipeline_metrics"], 500, "{list}");
    let (code, out, err) = spool(&periscope, &["verify"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.lines().last().unwrap().starts_with("sound: "), "{out}");

    let _ddl = periscope.sql("truncate table pipeline_metrics").await;
    periscope.until_count("select 1 - count() from pipeline_metrics", |rows| rows == 1).await;
    let answer =
        spool(&periscope, &["replay", "--table", "pipeline_metrics", "--dry-run", "--json"]);
    assert_eq!(json(&answer)["tables"]["pipeline_metrics"]["rows"], 500, "{answer:?}");
    let answer = spool(&periscope, &["replay", "--to", "0"]);
    assert!(answer.1.contains("nothing on disk is within this range"), "{answer:?}");
    for _ in 0..2 {
        let answer = spool(&periscope, &["replay", "--table", "pipeline_metrics", "--json"]);
        let counts = json(&answer)["tables"]["pipeline_metrics"].clone();
        assert_eq!((answer.0, counts["written"].as_u64()), (0, Some(500)), "{answer:?}");
        assert_eq!(counts["refused"], 0);
        periscope.until_count(count, |rows| rows == 500).await;
    }
    // All that is on disk, of every table, changes nothing either.
    let answer = spool(&periscope, &["replay", "--from", "1"]);
    assert_eq!(answer.0, 0, "{answer:?}");
    periscope.until_count(count, |rows| rows == 500).await;
    let distinct = "select count_distinct(records_count) from pipeline_metrics";
    periscope.until_count(distinct, |rows| rows == 500).await;

    periscope.kill();
    let (code, out, _) = spool(&periscope, &["verify"]);
    assert_eq!(code, 0, "{out}");
    let (code, _, err) = spool(&periscope, &["replay"]);
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("periscope up"), "{err}");
    let file = list["segments"][0]["file"].as_str().unwrap();
    let segment = periscope.data().join("spool").join(file);
    let sound = fs::read(&segment).unwrap();
    let mut damaged = sound.clone();
    damaged[64 + 45] ^= 1;
    fs::write(&segment, damaged).unwrap();
    let answer = spool(&periscope, &["verify", "--json"]);
    let findings = json(&answer);
    assert_eq!((answer.0, &findings["sound"]), (1, &Value::Bool(false)), "{findings}");
    assert_eq!(findings["damage"][0]["first_seq"], 1, "{findings}");
    let quarantine = periscope.data().join("spool/quarantine");
    fs::create_dir_all(&quarantine).unwrap();
    fs::write(quarantine.join(file), sound).unwrap();
    let answer = spool(&periscope, &["replay", "--to", "1", "--dry-run", "--json"]);
    let tables = json(&answer)["tables"].as_object().unwrap().clone();
    let records: u64 = tables.values().map(|counts| counts["records"].as_u64().unwrap()).sum();
    assert_eq!(records, 1, "what is damaged in the spool is read from quarantine: {answer:?}");
}

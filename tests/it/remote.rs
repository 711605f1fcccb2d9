//! An existing `QuestDB`: no child, the same tables, the same promise.

use std::time::Duration;

use super::support::daemon::Daemon;
use super::support::periscope::{Periscope, VERSIONS};
use super::support::questdb::QuestDb;
use super::support::wait::until;

async fn rows_reach(version: &str) {
    let mut questdb = QuestDb::start(version).await;
    let daemon = Daemon::counting().await;
    let periscope = Periscope::up_remote(&format!(
        "{}[writer]\nflush_interval = \"200ms\"\n[[daemon]]\nname = \"counter\"\nsource = \"http\"\n\
         url = \"{}\"\ninterval = \"200ms\"\n",
        questdb.remote_config(),
        daemon.url
    ));
    let status = periscope.ready().await;
    assert_eq!(status["mode"], "remote");
    assert_eq!(status["questdb"]["version"], version);
    assert!(periscope.questdb_pids().is_empty(), "no child in remote mode");
    let (code, out, err) = periscope.run(&["query", "select 1 as one", "--format", "csv"]);
    assert_eq!((code, out.as_str()), (0, "one\n1\n"), "{err}");

    questdb.kill();
    let before = daemon.answered();
    until("polls to go on", Duration::from_secs(20), || {
        let now = daemon.answered();
        std::future::ready(if now > before + 10 { Ok(()) } else { Err(now) })
    })
    .await;
    questdb.restart().await;
    periscope.ready().await;
    let wanted = i64::try_from(daemon.answered()).unwrap();
    until("every poll to be stored once", Duration::from_secs(60), || async {
        let rows = questdb
            .sql(
                "select min(fetch_count), max(fetch_count), count(fetch_count),                  count_distinct(fetch_count), count() from daemon_metrics",
            )
            .await?;
        let number = |index: usize| rows[0][index].as_i64().unwrap_or(0);
        // A poll that was answered too late is a row without values: its number is missing.
        let late = number(4) - number(2);
        let missing = number(1) - number(0) + 1 - number(2);
        let once = number(2) == number(3) && (0..=late).contains(&missing);
        if once && number(1) + late >= wanted { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
}

#[tokio::test]
async fn rows_reach_a_remote_server_through_its_restart() {
    rows_reach(VERSIONS[0]).await;
}

#[tokio::test]
async fn rows_reach_the_oldest_supported_server() {
    rows_reach(VERSIONS[1]).await;
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_tried_in_a_hot_loop() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let config = questdb.remote_config().replace("only-for-tests", "wrong");
    let periscope = Periscope::up_remote(&config);
    until("the reason to be told", Duration::from_secs(20), || async {
        let reason = periscope.status().await?["questdb"]["reason"].to_string();
        if reason.contains("password") { Ok(()) } else { Err(reason) }
    })
    .await;
    assert!(!periscope.log().contains("wrong\""), "{}", periscope.log());
}

#[tokio::test]
async fn an_unreachable_server_is_named_and_rows_wait() {
    let periscope = Periscope::up_remote(
        "[questdb]\nmode = \"remote\"\nhttp = \"http://127.0.0.1:1\"\npg = \"127.0.0.1:1\"\n",
    );
    until("the address to be named", Duration::from_secs(20), || async {
        let reason = periscope.status().await?["questdb"]["reason"].to_string();
        if reason.contains("127.0.0.1:1") { Ok(()) } else { Err(reason) }
    })
    .await;
    let (code, _, err) = periscope.run(&["send", "daemon_metrics", "daemon=d", "fetch_count=1"]);
    assert_eq!(code, 0, "{err}");
    // The figures follow the answer by a moment.
    until("the row to be shown as waiting", Duration::from_secs(20), || async {
        let status = periscope.status().await?;
        if status["spool"]["rows"].as_u64().unwrap() >= 1 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
}

//! Delivery against a real server behind things that get in the way.

use std::process::Command;
use std::time::Duration;

use hyper::Response;
use periscope::base::health::Part;
use periscope::model::row::Row;
use periscope::model::table::PIPELINE_METRICS;

use crate::support::gateway::{Gateway, answered};
use crate::support::periscope::VERSIONS;
use crate::support::questdb::QuestDb;
use crate::support::store::{
    LONG, Running, endpoint, exactly_once, ready, rows, start, wait_for_rows,
};
use crate::support::wait::until;

/// A store that reaches its server through a gateway, with 10 rows stored.
async fn behind_a_gateway() -> (QuestDb, Gateway, Running) {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let gateway = Gateway::to(questdb.http_port).await;
    let running = Running::start();
    running.server.send(ready(endpoint(&questdb, gateway.port), 1)).unwrap();
    running.push(rows(0..10));
    wait_for_rows(&questdb, 10).await;
    (questdb, gateway, running)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_may_work_later_is_sent_again_and_retry_after_is_obeyed() {
    let (questdb, gateway, running) = behind_a_gateway().await;
    gateway.answer_next(&[
        |_| Some(answered(429, "")),
        |_| Some(answered(502, "<html>bad gateway</html>")),
        |_| Some(answered(408, "")),
        |_| {
            let mut answer = answered(503, "");
            answer.headers_mut().insert("retry-after", "2".parse().unwrap());
            Some(answer)
        },
    ]);
    running.push(rows(10..20));
    exactly_once(&questdb, 20).await;
    let writes = gateway.writes();
    let last = writes.len() - 1;
    assert!(writes[last].duration_since(writes[last - 1]) >= Duration::from_secs(2));
    let text = running.metrics.render().unwrap();
    for reason in ["http_429", "http_5xx", "http_408"] {
        let metric = format!("periscope_write_retries_total{{reason=\"{reason}\"}}");
        assert!(text.contains(&metric), "{metric}: {text}");
    }
    running.health_ok(Part::Writer).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_too_large_is_split() {
    let (questdb, gateway, running) = behind_a_gateway().await;
    let limit: fn(&[u8]) -> Option<Response<_>> =
        |body| (body.len() > 2000).then(|| answered(413, ""));
    gateway.answer_next(&[limit; 200]);
    running.push(rows(10..500));
    exactly_once(&questdb, 500).await;
    assert!(gateway.writes().len() > 20, "{} writes", gateway.writes().len());
    assert_eq!(running.stats.writer().refused_total, 0);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_that_names_no_line_is_narrowed_down() {
    let (questdb, gateway, running) = behind_a_gateway().await;
    let refuse: fn(&[u8]) -> Option<Response<_>> = |body| {
        String::from_utf8_lossy(body).contains("fetch_count=77i").then(|| answered(400, "no"))
    };
    gateway.answer_next(&[refuse; 200]);
    running.push(rows(10..210));
    wait_for_rows(&questdb, 209).await;
    let refused = "select count() from daemon_metrics where fetch_count = 77";
    assert_eq!(questdb.number(refused).await, 0);
    let stats = running.stats.clone();
    let folder = running.end().await;
    assert_eq!(stats.writer().refused_total, 1);
    let letters = std::fs::read_to_string(folder.path().join("dead-letter/daemon_metrics.jsonl"));
    let letters = letters.unwrap();
    assert!(letters.lines().count() == 1 && letters.contains("fetch_count=77i"), "{letters}");
}

/// Everything waited behind the rows of one table that the server could not store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_table_that_cannot_be_stored_does_not_hold_up_the_others() {
    let (questdb, gateway, running) = behind_a_gateway().await;
    let fails: fn(&[u8]) -> Option<Response<_>> =
        |body| body.starts_with(b"pipeline_metrics").then(|| answered(500, "disk error"));
    gateway.answer_always(fails);
    let other = |number: i64| {
        Row::new(&PIPELINE_METRICS, start().plus(Duration::from_secs(number.unsigned_abs())))
            .with("exchange", "okx")
            .with("symbol", "BTC")
            .with("data_type", "oi")
            .with("daemon", "d")
            .with("host", "machine")
            .with("env", "dev")
            .with("records_count", number)
    };
    running.push((0..3).map(other).collect());
    running.push(rows(10..20));
    exactly_once(&questdb, 20).await;
    let told = running.health(Part::Schema, "pipeline_metrics cannot be written to now").await;
    assert!(told.contains("disk error") && told.contains("wait in the spool"), "{told}");
    running.push(rows(20..30));
    exactly_once(&questdb, 30).await;
    gateway.answer_always(|_| None);
    until("the rows of the table", LONG, || async {
        let rows = questdb.number("select count() from pipeline_metrics").await;
        if rows == 3 { Ok(()) } else { Err(rows) }
    })
    .await;
    running.health_ok(Part::Schema).await;
    running.end().await;
}

/// QuestDB knows the columns of a table for each connection that has written to it: a column that
/// was changed and changed back is refused for ever on connections that are as old. Rows waited for
/// ever, and were sent ten times a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_still_sees_an_old_column_is_left() {
    let (questdb, gateway, running) = behind_a_gateway().await;
    // The first connections are left after the replay that follows the start of a server.
    running.push(rows(10..20));
    wait_for_rows(&questdb, 20).await;
    let before = gateway.writes().len();
    gateway.answer_on_open_connections(|_| {
        Some(answered(
            400,
            "error in line 1: table: daemon_metrics, column: fetch_count; cast error from \
             protocol type: INTEGER to column type: VARCHAR",
        ))
    });
    running.push(rows(20..30));
    exactly_once(&questdb, 30).await;
    let tries = gateway.writes().len() - before;
    assert!((2..10).contains(&tries), "{tries} tries");
    assert_eq!(running.stats.writer().refused_total, 0);
    running.health_ok(Part::Writer).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_person_can_mend_is_tried_slowly() {
    let (questdb, gateway, running) = behind_a_gateway().await;
    let before = gateway.writes().len();
    gateway.answer_next(&[|_| Some(answered(421, "read-only")), |_| Some(answered(403, ""))]);
    running.push(rows(10..20));
    let reason = running.health(Part::Writer, "does not take writes (421)").await;
    assert!(reason.contains("rows wait in the spool"), "{reason}");
    exactly_once(&questdb, 20).await;
    let tries = gateway.writes()[before..].to_vec();
    assert_eq!(tries.len(), 3);
    let pauses: Vec<Duration> = tries.windows(2).map(|w| w[1].duration_since(w[0])).collect();
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_millis(4900)), "{pauses:?}");
    running.health_ok(Part::Writer).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_costs_delay_only() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let running = Running::start();
    running.ready(&questdb, 1);
    running.push(rows(0..10));
    wait_for_rows(&questdb, 10).await;
    let signal = |name: &str| {
        let pid = questdb.pid().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    };
    signal("-STOP");
    running.push(rows(10..500));
    // Rows are acknowledged while the server is silent, and the request is given up in time.
    until("the rows to be durable", LONG, || async {
        let rows = running.stats.spool().durable_rows;
        if rows >= 500 { Ok(()) } else { Err(rows) }
    })
    .await;
    running.health(Part::Writer, "no whole answer").await;
    signal("-CONT");
    exactly_once(&questdb, 500).await;
    running.health_ok(Part::Writer).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_rows_do_not_wait_for_a_large_backlog() {
    const BACKLOG: i64 = 150_000;
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let gateway = Gateway::to(questdb.http_port).await;
    let running = Running::start();
    // More bytes than are sent before anything newer, and than are held in memory.
    for start in (0..BACKLOG).step_by(1000) {
        running.push(rows(start..start + 1000));
        // On a busy machine the disk is slower than this loop, and the queue is bounded.
        until("room in the queue", LONG, || async {
            let waiting = start - i64::try_from(running.stats.spool().rows).unwrap();
            if waiting < 50_000 { Ok(()) } else { Err(waiting) }
        })
        .await;
    }
    until("the backlog to be on disk", LONG, || async {
        let rows = running.stats.spool().rows;
        if rows == u64::try_from(BACKLOG).unwrap() { Ok(()) } else { Err(rows) }
    })
    .await;
    assert!(running.stats.spool().bytes > 16 << 20, "{:?}", running.stats.spool());
    // The oldest rows are held up, as by a slow drain.
    let hold: fn(&[u8]) -> Option<Response<_>> =
        |body| String::from_utf8_lossy(body).contains("fetch_count=7i,").then(|| answered(503, ""));
    gateway.answer_next(&[hold; 16]);
    running.server.send(ready(endpoint(&questdb, gateway.port), 1)).unwrap();
    running.health(Part::Writer, "503").await;
    running.push(rows(BACKLOG..BACKLOG + 1));
    let sql = "select count(), max(fetch_count) from daemon_metrics";
    let seen = until("the new row", LONG, || async {
        match questdb.sql(sql).await {
            Ok(found) if found[0][1].as_i64() == Some(BACKLOG) => Ok(found[0][0].as_i64().unwrap()),
            other => Err(other),
        }
    })
    .await;
    assert!(seen < BACKLOG, "the whole backlog came first");
    let first = "select count() from daemon_metrics where fetch_count = 7";
    assert_eq!(questdb.number(first).await, 0);
    exactly_once(&questdb, BACKLOG + 1).await;
    running.end().await;
}

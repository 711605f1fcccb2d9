//! What people do to tables: named with the way out, other tables go on, and after the mend
//! everything arrives. What daemons do to columns: bounded, and said.

use std::collections::BTreeSet;
use std::time::Duration;

use super::rig::Rig;
use crate::support::daemon::{Daemon, ok_json};
use crate::support::periscope::{Periscope, VERSIONS};
use crate::support::pusher::{Load, Pusher};
use crate::support::questdb::QuestDb;
use crate::support::scale::seed;
use crate::support::wait::until;

/// A polled daemon for one table, and pushes for another.
async fn rig() -> (Rig, Daemon, Pusher) {
    rig_with(QuestDb::start(VERSIONS[0]).await).await
}

async fn rig_with(questdb: QuestDb) -> (Rig, Daemon, Pusher) {
    let daemon = Daemon::counting().await;
    let config = format!(
        "{}[[daemon]]\nname = \"counter\"\nsource = \"http\"\nurl = \"{}\"\ninterval = \"200ms\"\n",
        questdb.remote_config(),
        daemon.url
    );
    let rig = Rig::remote(Periscope::up_remote(&config), questdb);
    rig.periscope.ready().await;
    let pusher = rig.push(Load::usual(seed())).await;
    until("rows of both tables", Duration::from_secs(30), || async {
        let both = "select count() from pipeline_metrics union all \
                    select count() from daemon_metrics";
        let rows = rig.sql(both).await?;
        let is_there = rows.iter().all(|row| row[0].as_u64().unwrap_or(0) > 0);
        if is_there { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    (rig, daemon, pusher)
}

/// Waits until `more` further rows of the polled daemon are visible.
async fn other_tables_go_on(rig: &Rig, more: u64) {
    let count = "select count() from daemon_metrics";
    let before = rig.number(count).await;
    until("rows of another table", Duration::from_secs(30), || async {
        let now = rig.number(count).await;
        if now >= before + more { Ok(()) } else { Err(now - before) }
    })
    .await;
}

/// Nothing may have been given up as a bad line.
async fn assert_nothing_refused(rig: &Rig) {
    let status = rig.periscope.ready().await;
    let letters = rig.periscope.data().join("dead-letter/pipeline_metrics.json");
    let letters = std::fs::read_to_string(letters).unwrap_or_default();
    assert_eq!(status["writer"]["refused_total"], 0, "{letters}");
    assert_eq!(status["spool"]["lost_rows"], 0, "{status}");
}

async fn a_changed_column(kind: &str) {
    let (rig, _daemon, pusher) = rig().await;
    let alter =
        |kind: &str| format!("ALTER TABLE pipeline_metrics ALTER COLUMN records_count TYPE {kind}");
    rig.sql(&alter(kind)).await.unwrap();
    let told = rig.periscope.told("schema", "pipeline_metrics").await;
    assert!(told.contains(&format!("column records_count is {kind}, not LONG")), "{told}");
    assert!(told.contains("RENAME TABLE pipeline_metrics TO pipeline_metrics_old"), "{told}");
    let (_, out, _) = rig.periscope.run(&["status"]);
    assert!(out.contains("RENAME TABLE pipeline_metrics TO"), "{out}");
    other_tables_go_on(&rig, 10).await;
    rig.sql(&alter("LONG")).await.unwrap();
    rig.periscope.well("schema").await;
    let pushed = pusher.stop().await;
    assert_nothing_refused(&rig).await;
    rig.assert_exactly_once(&pushed).await;
}

/// The server refuses rows for it.
#[tokio::test]
async fn a_column_of_a_refusing_type_is_named_and_its_rows_wait() {
    a_changed_column("VARCHAR").await;
}

/// The server takes rows in spite of it, and would cut values without a word.
#[tokio::test]
async fn a_column_of_an_accepting_type_is_named_and_its_rows_wait() {
    a_changed_column("INT").await;
}

/// The server acknowledges one more request on every connection into a table that is gone.
#[tokio::test]
async fn a_dropped_table_is_made_again_and_takes_every_row_from_then_on() {
    let (rig, _daemon, pusher) = rig().await;
    for _ in 0..2 {
        rig.sql("DROP TABLE pipeline_metrics").await.unwrap();
        let first = pusher.begun() + 1;
        other_tables_go_on(&rig, 5).await;
        let count = format!("select count() from pipeline_metrics where records_count >= {first}");
        until("rows in the new table", Duration::from_secs(60), || async {
            let rows = rig.sql(&count).await?;
            if rows[0][0].as_u64() > Some(1_000) { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
    }
    rig.sql("DROP TABLE pipeline_metrics").await.unwrap();
    let first = pusher.begun() + 1;
    let acknowledged = pusher.acknowledged();
    until("rows after the drop", Duration::from_secs(30), || {
        let now = pusher.acknowledged() - acknowledged;
        std::future::ready(if now > 2_000 { Ok(()) } else { Err(now) })
    })
    .await;
    let mut pushed = pusher.stop().await;
    // What was stored before was dropped by a person.
    pushed.acknowledged = pushed.acknowledged.split_off(&first);
    assert_nothing_refused(&rig).await;
    rig.assert_exactly_once(&pushed).await;
}

/// A server with its own defaults makes a table by itself, without DEDUP and with other types.
#[tokio::test]
async fn a_table_that_the_server_made_itself_is_named() {
    let questdb = QuestDb::start_making_tables(VERSIONS[0]).await;
    let (rig, _daemon, pusher) = rig_with(questdb).await;
    rig.sql("DROP TABLE pipeline_metrics").await.unwrap();
    let first = pusher.begun() + 1;
    // In between it may tell that there is no table for the view.
    let told = rig.periscope.told("schema", "DEDUP").await;
    assert!(told.contains("pipeline_metrics"), "{told}");
    other_tables_go_on(&rig, 10).await;
    rig.sql("RENAME TABLE pipeline_metrics TO pipeline_metrics_old").await.unwrap();
    rig.periscope.well("schema").await;
    let pushed = pusher.stop().await;
    rig.settled().await;
    let mut all: BTreeSet<u64> = rig.stored().await.into_iter().collect();
    let old = "select records_count from pipeline_metrics_old";
    all.extend(rig.sql(old).await.unwrap().iter().map(|row| row[0].as_u64().unwrap()));
    let missing: Vec<u64> =
        pushed.acknowledged.range(first..).filter(|seq| !all.contains(seq)).copied().collect();
    assert!(missing.is_empty(), "{} missing: {missing:?}", missing.len());
    assert_nothing_refused(&rig).await;
}

#[tokio::test]
async fn a_suspended_table_is_named_with_the_command_that_mends_it() {
    let (rig, _daemon, pusher) = rig().await;
    until("the table to stay suspended", Duration::from_secs(30), || async {
        // The server forgets it when it is just applying rows to the table.
        rig.sql("ALTER TABLE pipeline_metrics SUSPEND WAL").await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let state = "select suspended from wal_tables() where name = 'pipeline_metrics'";
        let rows = rig.sql(state).await?;
        if rows[0][0] == true { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let told = rig.periscope.told("writer", "pipeline_metrics is suspended").await;
    assert!(told.contains("ALTER TABLE pipeline_metrics RESUME WAL"), "{told}");
    assert!(told.contains("not visible since"), "{told}");
    let (_, out, _) = rig.periscope.run(&["status"]);
    assert!(out.contains("ALTER TABLE pipeline_metrics RESUME WAL"), "{out}");
    let suspended = "periscope_wal_suspended{table=\"pipeline_metrics\"}";
    assert_eq!(rig.periscope.metric(suspended).await, Ok(1.0));
    other_tables_go_on(&rig, 10).await;
    rig.sql("ALTER TABLE pipeline_metrics RESUME WAL").await.unwrap();
    rig.periscope.well("writer").await;
    let pushed = pusher.stop().await;
    assert_nothing_refused(&rig).await;
    rig.assert_exactly_once(&pushed).await;
}

/// 10,000 instruments of a confused daemon: 1,000 are kept apart, the others share one name, and
/// not a single row is lost for that.
#[tokio::test]
async fn ten_thousand_symbols_are_capped_and_told() {
    const POLLS: u64 = 20;
    const EACH: u64 = 500;
    // Every document is served a few times: on a busy machine a poll may be given up.
    const TIMES: u64 = 3;
    let daemon = Daemon::serving(|n| {
        let first = n.div_ceil(TIMES).min(POLLS).saturating_sub(1) * EACH;
        let pipelines: Vec<String> = (first..first + EACH)
            .map(|number| {
                format!(
                    "{{\"exchange\":\"x\",\"symbol\":\"S{number}\",\"data_type\":\"oi\",\
                     \"records\":{number}}}"
                )
            })
            .collect();
        // The last document of its own says which poll it was.
        ok_json(&format!(
            "{{\"running\":true,\"fetch_count\":{n},\"pipeline\":[{}]}}",
            pipelines.join(",")
        ))
    })
    .await;
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let config = format!(
        "{}[[daemon]]\nname = \"confused\"\nsource = \"http\"\nurl = \"{}\"\ninterval = \"500ms\"\n",
        questdb.remote_config(),
        daemon.url
    );
    let rig = Rig::remote(Periscope::up_remote(&config), questdb);
    rig.periscope.ready().await;
    let told = rig.periscope.told("writer", "more than 1000 different values").await;
    assert!(told.contains("pipeline_metrics.symbol") && told.contains("__other__"), "{told}");
    until("every value to be stored", Duration::from_secs(180), || async {
        let rows = rig
            .sql(
                "select count_distinct(symbol), count_distinct(records_count) \
                 from pipeline_metrics",
            )
            .await?;
        let numbers = (rows[0][0].as_u64(), rows[0][1].as_u64());
        if numbers == (Some(1_001), Some(POLLS * EACH)) { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let wrong = "select count() from pipeline_metrics where symbol != '__other__' and \
                 symbol != concat('S', records_count)";
    assert_eq!(rig.number(wrong).await, 0);
    let repaired = "periscope_rows_invalid_total{reason=\"repaired_distinct\"}";
    assert!(rig.periscope.metric(repaired).await.unwrap() >= 9_000.0);
    assert_nothing_refused(&rig).await;
}

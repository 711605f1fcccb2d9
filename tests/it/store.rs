//! The store in-process against real servers: whatever goes wrong, every row is there once.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use periscope::base::files::real::RealFiles;
use periscope::base::health::{Health, Part};
use periscope::base::time::{Clock, Timestamp};
use periscope::model::row::Row;
use periscope::model::server::ServerState;
use periscope::model::table::{self, DAEMON_METRICS, EXCHANGE_STATUS, TABLES, TRADING_METRICS};
use periscope::store::queue;
use periscope::store::read;
use periscope::store::spool::disk::{Draft, Options, Spool};
use serde_json::Value;

use crate::support::periscope::VERSIONS;
use crate::support::proxy::Proxy;
use crate::support::questdb::QuestDb;
use crate::support::store::{
    LONG, Running, endpoint, exactly_once, login, ready, row, rows, start, wait_for_rows,
};
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_every_table_arrive_with_their_values_on_both_versions() {
    for version in VERSIONS {
        let questdb = QuestDb::start(version).await;
        let running = Running::start();
        running.ready(&questdb, 1);
        let at = start();
        let status = Row::new(&EXCHANGE_STATUS, at)
            .with("exchange", "a b,c=d\\e ü🚀")
            .with("connected", false)
            .with("latency_ms", f64::MIN_POSITIVE)
            .with("reconnect_count", i64::MAX)
            .with("last_message_at", at);
        running.push(vec![status]);
        running.push(rows(0..2500));
        for table in TABLES {
            let key = table.columns[0].name;
            running.push(vec![Row::new(table, at).with(key, "every table")]);
        }
        wait_for_rows(&questdb, 2501).await;
        let sql = "select exchange, connected, latency_ms, reconnect_count, last_message_at \
                   from exchange_status where exchange <> 'every table'";
        let found = questdb.sql(sql).await.unwrap();
        let expected = serde_json::json!([
            "a b,c=d\\e ü🚀",
            false,
            f64::MIN_POSITIVE,
            i64::MAX,
            "2025-11-24T16:00:00.000000Z"
        ]);
        assert_eq!(Value::Array(found[0].clone()), expected, "{version}");
        let text = questdb.sql("select distinct last_error from daemon_metrics").await.unwrap();
        assert!(text.iter().any(|row| row[0] == "a \"quoted\" text, with = and \\"), "{text:?}");
        for table in TABLES {
            let sql = format!("select count() from {}", table.name);
            until(table.name, LONG, || async {
                let count = questdb.number(&sql).await;
                if count > 0 { Ok(()) } else { Err(count) }
            })
            .await;
        }
        running.health_ok(Part::Writer).await;
        running.health_ok(Part::Schema).await;
        running.health_ok(Part::Spool).await;
        assert_eq!(running.stats.durable_at("d"), Some(row(2499).at));
        assert_eq!(running.stats.writer().rows_total, 2508);
        let reader = endpoint(&questdb, questdb.http_port);
        let sql = "select fetch_count, running, last_fetch_time from daemon_metrics limit 1";
        let answer = read::query(&reader, sql, LONG).await.unwrap();
        assert_eq!(answer.columns, ["fetch_count", "running", "last_fetch_time"]);
        assert_eq!(answer.rows.len(), 1);
        let error = read::query(&reader, "drop table daemon_metrics", LONG).await.unwrap_err();
        assert!(error.to_string().contains("denied"), "{error}");
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushed_rows_are_on_disk_when_that_is_said_and_the_server_may_be_away() {
    let running = Running::start();
    let queue = running.queue.clone().unwrap();
    queue.push_durable(rows(0..10)).await.unwrap();
    let spool = running.folder.path().join("spool");
    let mut text = String::new();
    for entry in std::fs::read_dir(&spool).unwrap() {
        let content = std::fs::read(entry.unwrap().path()).unwrap();
        text.push_str(&String::from_utf8_lossy(&content));
    }
    assert_eq!(text.matches("daemon_metrics,daemon=d").count(), 10);
    let late = Row::new(&DAEMON_METRICS, Timestamp::from_nanos(5)).with("daemon", "d");
    let error = queue.push_durable(vec![row(10), late]).await.unwrap_err();
    assert!(matches!(error, queue::PushError::Invalid(bad) if bad.len() == 1 && bad[0].0 == 1));
    drop(queue);
    let folder = running.stop().await;
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let running = Running::start_in(folder);
    running.ready(&questdb, 1);
    exactly_once(&questdb, 10).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_line_costs_itself_and_nothing_else() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let folder = tempfile::Builder::new().prefix("periscope-store-").tempdir().unwrap();
    // Validation lets no such line through: it is put into the spool past it.
    let mut body = String::new();
    for number in 0..1000 {
        let at = row(number).at.nanos();
        let value = if number == 500 { "\"poison\"".to_owned() } else { format!("{number}i") };
        body.push_str(&format!("daemon_metrics,daemon=d fetch_count={value} {at}\n"));
    }
    plant(folder.path().join("spool"), vec![Draft::new(0, 1000, body.as_bytes())]);
    let running = Running::start_in(folder);
    running.ready(&questdb, 1);
    wait_for_rows(&questdb, 999).await;
    running.health(Part::Writer, "1 rows refused").await;
    let text = running.metrics.render().unwrap();
    assert!(text.contains("periscope_rows_refused_total{table=\"daemon_metrics\"} 1"), "{text}");
    assert_eq!(running.stats.writer().refused_total, 1);
    let folder = running.end().await;
    let letters = std::fs::read_to_string(folder.path().join("dead-letter/daemon_metrics.jsonl"));
    let letters = letters.unwrap();
    let letter: Value = serde_json::from_str(letters.trim()).unwrap();
    assert!(letter["line"].as_str().unwrap().contains("fetch_count=\"poison\""), "{letter}");
    assert!(letter["reason"].as_str().unwrap().contains("cast error"), "{letter}");
}

fn plant(folder: PathBuf, drafts: Vec<Draft>) {
    let options = Options {
        max_bytes: 1 << 30,
        min_free: 0,
        replay_window: LONG,
        replay_bytes: 1 << 20,
        segment_bytes: 4 << 20,
        ring_bytes: 1 << 20,
        boot: [0; 16],
        instance: 1,
        clock: Clock::system(),
    };
    let (mut spool, _) = Spool::open(Arc::new(RealFiles), &folder, options);
    spool.append(drafts);
    spool.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_and_doubles_nothing() {
    let mut questdb = QuestDb::start(VERSIONS[0]).await;
    let running = Running::start();
    running.ready(&questdb, 1);
    let mut next = 0;
    for generation in 2..5 {
        for _ in 0..40 {
            running.push(rows(next..next + 50));
            next += 50;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        questdb.kill();
        running.push(rows(next..next + 50));
        next += 50;
        running.server.send(ServerState::absent()).unwrap();
        questdb.restart().await;
        running.ready(&questdb, generation);
    }
    exactly_once(&questdb, next).await;
    running.health_ok(Part::Writer).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_after_the_commit_double_nothing() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let proxy = Proxy::to(questdb.http_port).await;
    let running = Running::start();
    running.server.send(ready(endpoint(&questdb, proxy.port), 1)).unwrap();
    running.push(rows(0..100));
    wait_for_rows(&questdb, 100).await;
    let mut next = 100;
    for cut in 1..=20 {
        proxy.faults.cut_answers.store(1, Ordering::SeqCst);
        running.push(rows(next..next + 100));
        next += 100;
        until("an answer to be cut", LONG, || async {
            let sofar = proxy.faults.answers_cut.load(Ordering::SeqCst);
            if sofar >= cut { Ok(()) } else { Err(sofar) }
        })
        .await;
        exactly_once(&questdb, next).await;
    }
    let text = running.metrics.render().unwrap();
    assert!(text.contains("periscope_write_retries_total{reason=\"connection_lost\"}"), "{text}");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_named_and_nothing_is_lost() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let running = Running::start();
    let mut wrong = endpoint(&questdb, questdb.http_port);
    wrong.admin = login("admin", "wrong");
    running.server.send(ready(wrong, 1)).unwrap();
    running.push(rows(0..100));
    until("the fault to be named", LONG, || async {
        match running.board.get(Part::Writer) {
            Some(Health::Starting { doing }) if doing.contains("401: check user") => Ok(()),
            other => Err(other),
        }
    })
    .await;
    running.ready(&questdb, 2);
    exactly_once(&questdb, 100).await;
    running.health_ok(Part::Writer).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_table_is_named_with_the_command_that_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("conf")).unwrap();
    // Only in this mode can a table be suspended on purpose.
    std::fs::write(root.join("conf/server.conf"), "dev.mode.enabled=true\n").unwrap();
    let questdb = QuestDb::start_at(VERSIONS[0], root, Some(folder)).await;
    let running = Running::start();
    running.ready(&questdb, 1);
    running.push(rows(0..10));
    wait_for_rows(&questdb, 10).await;
    questdb.sql("alter table daemon_metrics suspend wal").await.unwrap();
    running.push(rows(10..20));
    let reason = running.health(Part::Writer, "not visible since").await;
    assert!(reason.contains("\"ALTER TABLE daemon_metrics RESUME WAL\""), "{reason}");
    let text = running.metrics.render().unwrap();
    assert!(text.contains("periscope_wal_suspended{table=\"daemon_metrics\"} 1"), "{text}");
    questdb.sql("ALTER TABLE daemon_metrics RESUME WAL").await.unwrap();
    exactly_once(&questdb, 20).await;
    running.health_ok(Part::Writer).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_somebody_else_waits_and_the_others_do_not() {
    for version in VERSIONS {
        let questdb = QuestDb::start(version).await;
        let foreign = "create table daemon_metrics (ts timestamp, daemon symbol, fetch_count int) \
                       timestamp(ts) partition by day wal";
        questdb.sql(foreign).await.unwrap();
        // An older version of ours: one column and the time to live are missing.
        let older = table::find("trading_metrics").unwrap().ddl(7);
        let older = older.replace(",\n    orders_open LONG", "");
        questdb.sql(&older).await.unwrap();
        let running = Running::start();
        running.ready(&questdb, 1);
        running.push(rows(0..50));
        let trade = Row::new(&TRADING_METRICS, start()).with("strategy", "s");
        running.push(vec![trade.with("orders_open", 3_i64)]);
        until("the row of the other table", LONG, || async {
            match questdb.sql("select orders_open from trading_metrics").await {
                Ok(rows) if rows.first().is_some_and(|row| row[0] == 3) => Ok(()),
                other => Err(other),
            }
        })
        .await;
        let ttl = "select ttlValue from tables() where table_name = 'trading_metrics'";
        assert_eq!(questdb.number(ttl).await, 365);
        let reason = running.health(Part::Schema, "daemon_metrics").await;
        for part in ["designated timestamp is ts", "fetch_count is INT, not LONG", "no DEDUP"] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        assert_eq!(running.stats.spool().rows, 50);
        questdb.sql("rename table daemon_metrics to daemon_metrics_old").await.unwrap();
        exactly_once(&questdb, 50).await;
        running.health_ok(Part::Schema).await;
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_dropped_while_running_is_made_again() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let running = Running::start();
    running.ready(&questdb, 1);
    running.push(rows(0..10));
    wait_for_rows(&questdb, 10).await;
    questdb.sql("drop table daemon_metrics").await.unwrap();
    // The server answers 204 to this first request although the table is gone.
    running.push(rows(10..20));
    until("the table and all of its recent rows to be back", LONG, || async {
        running.push(rows(20..21));
        match questdb.sql("select count_distinct(fetch_count) from daemon_metrics").await {
            Ok(rows) if rows[0][0] == 21 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(running.stats.writer().refused_total, 0);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_delay_and_rows_appear_in_order() {
    let mut questdb = QuestDb::start(VERSIONS[0]).await;
    let running = Running::start();
    running.ready(&questdb, 1);
    running.push(rows(0..100));
    wait_for_rows(&questdb, 100).await;
    questdb.kill();
    running.server.send(ServerState::absent()).unwrap();
    let mut next = 100;
    for _ in 0..100 {
        running.push(rows(next..next + 300));
        next += 300;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until("the spool to hold them", LONG, || async {
        match running.stats.spool().rows {
            30_000 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert!(running.stats.spool().oldest_age_seconds > 0.0);
    questdb.restart().await;
    running.ready(&questdb, 2);
    // Whatever is visible at any time is a beginning without a hole.
    let next = AtomicI64::new(next);
    until("all rows", LONG, || async {
        let sql = "select count(), max(fetch_count) from daemon_metrics";
        let found = questdb.sql(sql).await.unwrap();
        let (count, last) = (found[0][0].as_i64().unwrap(), found[0][1].as_i64().unwrap());
        assert_eq!(count, last + 1);
        let number = next.fetch_add(1, Ordering::SeqCst);
        running.push(rows(number..number + 1));
        if count >= 30_200 { Ok(()) } else { Err(count) }
    })
    .await;
    running.health_ok(Part::Writer).await;
    running.end().await;
}

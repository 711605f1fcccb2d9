//! Dashboards without Grafana, as a browser asks for them: real periscope, real `QuestDB`.

use std::time::Duration;

use periscope::base::secret::Secret;
use periscope::model::server::{Endpoint, Login};
use periscope::store::frame::{self, Kind, Limits};
use periscope::store::read::ReadError;
use serde_json::{Value, json};

use super::support::periscope::{Periscope, send_signal};
use super::support::questdb::{PASSWORD, QuestDb};
use super::support::viewer::{Seen, ask, model, rows, send, variables};
use super::support::wait::until;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Waits until there is something to see.
async fn filled() -> Seen {
    let periscope = Periscope::dev();
    periscope.ready().await;
    periscope.well("schema").await;
    for table in [
        "daemon_metrics",
        "exchange_status",
        "pipeline_metrics",
        "trading_metrics",
        "system_health",
        // Ranges of weeks are read from these.
        "daemon_metrics_1h",
        "exchange_status_1h",
        "pipeline_metrics_1h",
        "trading_metrics_1h",
        "system_health_1h",
    ] {
        periscope.until_count(&format!("select count() from {table}"), |count| count > 0).await;
    }
    Seen::of(periscope)
}

#[tokio::test]
async fn every_query_of_the_six_dashboards_answers_and_injection_does_nothing() {
    let seen = filled().await;
    let (_, list) = send(&seen, "/api/v1/dashboards", None).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let uids: Vec<&str> = list["dashboards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["uid"].as_str().unwrap())
        .collect();
    assert_eq!(uids.len(), 6);
    let (mut asked, mut shown) = (0, 0);
    for uid in uids {
        let model = model(&seen, uid).await;
        // A short range reads the tables, a long one the hourly views.
        for range_ms in [15 * MINUTE_MS, 30 * DAY_MS] {
            let values = variables(&seen, uid, &model, range_ms).await;
            let mut queries = Vec::new();
            for panel in model["panels"].as_array().unwrap() {
                for target in panel["targets"].as_array().into_iter().flatten() {
                    queries.push(json!({"panel": panel["id"], "refId": target["refId"]}));
                }
            }
            for one in model["annotations"]["list"].as_array().unwrap() {
                if one["target"].is_object() {
                    queries.push(json!({"annotation": one["name"]}));
                }
            }
            for query in queries {
                let frame = ask(&seen, uid, query.clone(), &values, range_ms)
                    .await
                    .unwrap_or_else(|error| panic!("{uid} {query}: {error}"));
                assert_eq!(frame["cut"], false);
                asked += 1;
                shown += usize::from(rows(&frame) > 0);
            }
        }
    }
    assert!(asked > 150 && shown * 5 > asked * 2, "{shown} of {asked} queries have rows");
    injection_does_nothing(&seen).await;
}

/// Values that would be SQL if they were not quoted: none of them finds a row or changes anything.
async fn injection_does_nothing(seen: &Seen) {
    let uid = "periscope-health";
    let model = model(seen, uid).await;
    let good = variables(seen, uid, &model, 15 * MINUTE_MS).await;
    let status = json!({"panel": 1, "refId": "A"});
    let tables = "select count() from tables()";
    let before = seen.periscope.sql(tables).await.unwrap();
    let frame = ask(seen, uid, status.clone(), &good, 15 * MINUTE_MS).await.unwrap();
    assert!(rows(&frame) >= 4, "{frame}");
    for hostile in [
        "x') OR 1=1 --",
        "x' OR '1'='1",
        "x') UNION ALL SELECT now(), 'a', 'b', 'c', 1 --",
        "x'; DROP TABLE daemon_metrics; --",
        "x\\' OR 1=1 --",
        "\\",
        "'",
        "''",
        "x'') OR (''=''",
        "${__from}",
        "$__timeFilter(timestamp)",
        "’ OR 1=1 --",
        "/* x */",
        "%",
    ] {
        for name in ["env", "host", "daemon"] {
            let mut values = good.clone();
            values.insert(name.to_owned(), vec![hostile.to_owned()]);
            let frame = ask(seen, uid, status.clone(), &values, 15 * MINUTE_MS)
                .await
                .unwrap_or_else(|error| panic!("{name} = {hostile}: {error}"));
            assert_eq!(rows(&frame), 0, "{name} = {hostile}: {frame}");
            // Beside a good value it changes nothing either.
            values.insert(name.to_owned(), [good[name].clone(), vec![hostile.to_owned()]].concat());
            let frame = ask(seen, uid, status.clone(), &values, 15 * MINUTE_MS).await.unwrap();
            assert!(rows(&frame) >= 4, "{name} += {hostile}: {frame}");
        }
    }
    for uid in ["periscope-health'", "periscope-health%3B", "select%201", "..%2F..%2Fetc"] {
        let question = json!({"from": 0, "to": 1, "queries": [status]});
        let (code, _) = send(seen, &format!("/api/v1/query/{uid}"), Some(&question)).await;
        assert_eq!(code, 404, "{uid}");
    }
    assert_eq!(seen.periscope.sql(tables).await.unwrap(), before);
    seen.periscope.until_count("select count() from daemon_metrics", |count| count > 0).await;
}

/// Without a database the page still loads, its panels say what is wrong, and they come back.
#[tokio::test]
async fn panels_say_that_the_database_is_away_and_come_back() {
    let seen = filled().await;
    let uid = "periscope-health";
    let model = model(&seen, uid).await;
    let values = variables(&seen, uid, &model, 15 * MINUTE_MS).await;
    let status = json!({"panel": 1, "refId": "A"});
    for pid in seen.periscope.questdb_pids() {
        send_signal(pid, rustix::process::Signal::KILL);
    }
    let error = until("the panel to say it", Duration::from_secs(30), || async {
        match ask(&seen, uid, status.clone(), &values, 15 * MINUTE_MS).await {
            Err(error) => Ok(error),
            Ok(frame) => Err(frame.to_string()),
        }
    })
    .await;
    assert_eq!(error["kind"], "away", "{error}");
    assert!(error["hint"].as_str().unwrap().starts_with("QuestDB is "), "{error}");
    assert_eq!(send(&seen, &format!("/d/{uid}"), None).await.0, 200);
    until("the panel to come back", Duration::from_secs(90), || async {
        match ask(&seen, uid, status.clone(), &values, 15 * MINUTE_MS).await {
            Ok(frame) if rows(&frame) > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

const LIMITS: Limits = Limits { time: Duration::from_secs(30), rows: 1_000, bytes: 1 << 20 };

/// Time, rows and bytes of an answer end where they should; the database stops working for it.
#[tokio::test]
async fn answers_have_limits_and_the_user_only_reads() {
    let questdb = QuestDb::start("9.3.4").await;
    let reader = Login { user: "reader".to_owned(), password: Secret::new(PASSWORD) };
    let endpoint = Endpoint {
        http: questdb.http(),
        pg: format!("127.0.0.1:{}", questdb.pg_port),
        database: "qdb".to_owned(),
        admin: None,
        reader: Some(reader),
    };
    let ask = async |sql: &str, limits: Limits| frame::query(&endpoint, sql, limits).await;
    let lengths = |frame: &frame::Frame| -> Vec<usize> {
        frame.columns.iter().map(|column| column.values.len()).collect()
    };

    let exact = ask("SELECT x, x * 0.5 AS y FROM long_sequence(1000)", LIMITS).await.unwrap();
    assert_eq!((lengths(&exact), exact.cut), (vec![1_000, 1_000], false));
    let more = ask("SELECT x FROM long_sequence(1000000)", LIMITS).await.unwrap();
    assert_eq!((lengths(&more), more.cut), (vec![1_000], true));
    let few = Limits { bytes: 10_000, ..LIMITS };
    let long = "SELECT lpad('x', 500, 'x') AS text FROM long_sequence(1000)";
    let wide = ask(long, few).await.unwrap();
    assert!(wide.cut && (10..30).contains(&lengths(&wide)[0]), "{:?}", lengths(&wide));

    let typed = ask(
        "SELECT cast(1500000 AS TIMESTAMP) AS t, cast(null AS DOUBLE) AS n, true AS b, \
         cast('a' AS SYMBOL) AS s, 7 AS i, cast(-1500000 AS TIMESTAMP) AS before",
        LIMITS,
    )
    .await
    .unwrap();
    let found: Vec<_> =
        typed.columns.iter().map(|column| (column.kind, column.values[0].clone())).collect();
    assert_eq!(
        found,
        [
            (Kind::Time, json!(1_500)),
            (Kind::Number, Value::Null),
            (Kind::Boolean, json!(true)),
            (Kind::Text, json!("a")),
            (Kind::Number, json!(7)),
            (Kind::Time, json!(-1_500)),
        ]
    );

    questdb
        .sql("CREATE TABLE kept (x LONG, timestamp TIMESTAMP) TIMESTAMP(timestamp)")
        .await
        .unwrap();
    for sql in ["DROP TABLE kept", "INSERT INTO kept VALUES (1, now())", "CREATE TABLE b (x INT)"] {
        let error = ask(sql, LIMITS).await.unwrap_err();
        assert!(matches!(error, ReadError::Statement(_)), "{sql}: {error}");
    }
    assert_eq!(questdb.number("SELECT count() FROM kept").await, 0);

    let short = Limits { time: Duration::from_millis(500), ..LIMITS };
    let endless = "SELECT count() FROM long_sequence(4000000000) a \
                   CROSS JOIN long_sequence(4000000000) b WHERE a.x + b.x < 0";
    let error = ask(endless, short).await.unwrap_err();
    assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
    until("the database to stop working for it", Duration::from_secs(30), || async {
        let running = "SELECT count() FROM query_activity() WHERE query LIKE '%CROSS JOIN long%' \
                       AND query NOT LIKE '%query_activity%'";
        match questdb.number(running).await {
            0 => Ok(()),
            count => Err(format!("{count} still run")),
        }
    })
    .await;
}

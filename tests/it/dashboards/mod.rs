//! Every query of every dashboard on the real databases, expanded as Grafana's PostgreSQL data
//! source and the QuestDB plugin do it, over HTTP and PG wire: on empty tables, an hour, 90 days.
//!
//! `TEST_SCALE=full` fills the 90 days at default rates (53 million rows, some minutes) and holds
//! the speed against a plain scan; the table of timings is printed with `--nocapture`.

mod fill;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use periscope::grafana::dashboards::{Datasource, render_for};
use periscope::grafana::expand;
use periscope::model::table::TABLES;
use periscope::model::view::VIEWS;
use serde_json::Value;
use tokio_postgres::types::Type;

use super::support::questdb::{PASSWORD, QuestDb};
use fill::fill;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

// --- the queries ------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Series,
    Table,
    Variable,
    Annotation,
}

#[derive(Debug, Clone)]
struct Query {
    dashboard: String,
    name: String,
    sql: String,
    shape: Shape,
    min_interval_ms: i64,
    /// Most points of a series.
    points: i64,
}

/// Returns the queries of one dashboard file, its variables first.
fn queries(file: &str, model: &Value) -> Vec<Query> {
    let dashboard = file.trim_end_matches(".json").to_owned();
    let query = |name: &str, sql: &Value, shape: Shape, (interval, points): (i64, i64)| Query {
        dashboard: dashboard.clone(),
        name: name.to_owned(),
        sql: sql.as_str().unwrap().to_owned(),
        shape,
        min_interval_ms: interval,
        points,
    };
    let none = (0, 1_000);
    let mut all = Vec::new();
    for one in model["templating"]["list"].as_array().unwrap() {
        if one["type"] == "query" {
            let name = one["name"].as_str().unwrap();
            all.push(query(name, &one["query"], Shape::Variable, none));
        }
    }
    for one in model["annotations"]["list"].as_array().unwrap() {
        if let Some(sql) = one.pointer("/target/rawSql") {
            all.push(query(one["name"].as_str().unwrap(), sql, Shape::Annotation, none));
        }
    }
    for panel in model["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let series = target["format"] == "time_series" || target["format"] == 0;
            let shape = if series { Shape::Series } else { Shape::Table };
            let interval = expand::parse_interval(panel["interval"].as_str().unwrap()).unwrap();
            let buckets = (interval, panel["maxDataPoints"].as_i64().unwrap());
            all.push(query(panel["title"].as_str().unwrap(), &target["rawSql"], shape, buckets));
        }
    }
    all
}

// --- expansion, as Grafana does it --------------------------------------------------------------

#[derive(Debug, Clone)]
struct Context {
    from_ms: i64,
    to_ms: i64,
    values: BTreeMap<String, Vec<String>>,
}

fn expand(query: &Query, context: &Context, datasource: Datasource) -> String {
    let range_ms = context.to_ms - context.from_ms;
    let scope = expand::Scope {
        from_ms: context.from_ms,
        to_ms: context.to_ms,
        interval_ms: expand::interval_ms(range_ms, query.points, query.min_interval_ms),
        values: context.values.clone(),
    };
    expand::expand(&query.sql, &scope, datasource)
        .unwrap_or_else(|error| panic!("{} {}: {error}", query.dashboard, query.name))
}

// --- results ------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Time,
    Number,
    Text,
    Boolean,
}

#[derive(Debug)]
struct Answer {
    columns: Vec<(String, Cell)>,
    rows: Vec<Vec<Value>>,
}

/// Returns the body of the answer, and the time until it was there.
async fn asked(questdb: &QuestDb, sql: &str) -> Result<(Vec<u8>, Duration), String> {
    let mut path = "/exec?query=".to_owned();
    for byte in sql.bytes() {
        path.push_str(&format!("%{byte:02x}"));
    }
    let started = Instant::now();
    let answer = questdb.request(&path, None).await?;
    Ok((answer.body.to_vec(), started.elapsed()))
}

fn parsed(body: &[u8]) -> Result<Answer, String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if let Some(error) = body.get("error") {
        return Err(format!("{error} at {}", body["position"]));
    }
    let columns = body["columns"].as_array().unwrap().iter().map(|column| {
        let cell = match column["type"].as_str().unwrap() {
            "TIMESTAMP" | "TIMESTAMP_NS" => Cell::Time,
            "BYTE" | "SHORT" | "INT" | "LONG" | "FLOAT" | "DOUBLE" => Cell::Number,
            "SYMBOL" | "STRING" | "VARCHAR" | "CHAR" => Cell::Text,
            "BOOLEAN" => Cell::Boolean,
            other => panic!("type {other}"),
        };
        (column["name"].as_str().unwrap().to_owned(), cell)
    });
    let columns = columns.collect();
    let rows = body["dataset"].as_array().unwrap();
    let rows = rows.iter().map(|row| row.as_array().unwrap().clone()).collect();
    Ok(Answer { columns, rows })
}

/// Returns columns and the number of rows, as the read-only user sees them.
async fn over_pg(
    client: &tokio_postgres::Client,
    sql: &str,
) -> Result<(Vec<(String, Cell)>, usize), String> {
    let text = |error: tokio_postgres::Error| {
        error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
    };
    let statement = client.prepare(sql).await.map_err(text)?;
    let columns = statement.columns().iter().map(|column| {
        let cell = match *column.type_() {
            Type::TIMESTAMP => Cell::Time,
            Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 => Cell::Number,
            Type::VARCHAR | Type::TEXT | Type::CHAR | Type::BPCHAR => Cell::Text,
            Type::BOOL => Cell::Boolean,
            ref other => panic!("type {other}"),
        };
        (column.name().to_owned(), cell)
    });
    let columns = columns.collect();
    let rows = client.query(&statement, &[]).await.map_err(text)?;
    Ok((columns, rows.len()))
}

/// Holds what Grafana needs of a result; returns how many rows carry a value.
fn assert_shape(query: &Query, answer: &Answer) -> usize {
    let place = format!("{} / {}", query.dashboard, query.name);
    let cell = |name: &str| answer.columns.iter().find(|(n, _)| n == name).map(|(_, cell)| *cell);
    let index = |name: &str| answer.columns.iter().position(|(n, _)| n == name).unwrap();
    let count = |wanted: Cell| answer.columns.iter().filter(|(_, cell)| *cell == wanted).count();
    assert_eq!(count(Cell::Boolean), 0, "{place}: a boolean column: {:?}", answer.columns);
    match query.shape {
        Shape::Series => {
            assert_eq!(cell("time"), Some(Cell::Time), "{place}: {:?}", answer.columns);
            assert_eq!(count(Cell::Time), 1, "{place}: {:?}", answer.columns);
            assert!(count(Cell::Number) >= 1, "{place}: {:?}", answer.columns);
            let at = index("time");
            let times: Vec<&str> =
                answer.rows.iter().map(|row| row[at].as_str().unwrap()).collect();
            assert!(times.is_sorted(), "{place}: time is not in order");
            let labels = |row: &Vec<Value>| -> Vec<String> {
                let texts = answer.columns.iter().zip(row).filter(|((_, c), _)| *c != Cell::Number);
                texts.map(|(_, value)| value.to_string()).collect()
            };
            let distinct: BTreeSet<Vec<String>> = answer.rows.iter().map(labels).collect();
            assert_eq!(distinct.len(), answer.rows.len(), "{place}: a series has a time twice");
            let has_number = |row: &&Vec<Value>| row.iter().any(Value::is_number);
            answer.rows.iter().filter(has_number).count()
        }
        Shape::Variable => {
            let wanted = vec![(query.name.clone(), Cell::Text)];
            assert_eq!(answer.columns, wanted, "{place}: one column of text");
            assert!(!answer.rows.is_empty(), "{place}: an empty list becomes IN ()");
            assert!(answer.rows.iter().all(|row| row[0].is_string()), "{place}: {:?}", answer.rows);
            answer.rows.len()
        }
        Shape::Annotation => {
            assert_eq!(cell("time"), Some(Cell::Time), "{place}: {:?}", answer.columns);
            for name in ["text", "tags"] {
                assert_eq!(cell(name), Some(Cell::Text), "{place}: {:?}", answer.columns);
            }
            answer.rows.len()
        }
        Shape::Table => {
            assert!(count(Cell::Time) >= 1, "{place}: when? {:?}", answer.columns);
            answer.rows.len()
        }
    }
}

// --- the runs -----------------------------------------------------------------------------------

#[derive(Debug)]
struct Timing {
    first: Duration,
    warm: Duration,
    rows: usize,
    place: String,
}

/// Runs every query for `range_ms` up to `to_ms`.
///
/// `full` says that every panel must show something; then the timings over HTTP are returned.
async fn run_all(
    questdb: &QuestDb,
    client: &tokio_postgres::Client,
    to_ms: i64,
    range_ms: i64,
    full: bool,
) -> Vec<Timing> {
    let mut timings = Vec::new();
    let mut halves = 0;
    // The two differ in how they write the range, not in what they ask: short ranges show that.
    let datasources: &[Datasource] = if range_ms <= HOUR_MS {
        &[Datasource::Postgres, Datasource::Questdb]
    } else {
        &[Datasource::Postgres]
    };
    for datasource in datasources.iter().copied() {
        for (file, text) in render_for(datasource, &|_, _| None) {
            let model: Value = serde_json::from_str(&text).unwrap();
            let mut context = Context { from_ms: to_ms - range_ms, to_ms, values: BTreeMap::new() };
            for query in queries(&file, &model) {
                let sql = expand(&query, &context, datasource);
                let place = format!("{} / {}", query.dashboard, query.name);
                let (body, first) = asked(questdb, &sql).await.unwrap();
                let answer =
                    parsed(&body).unwrap_or_else(|error| panic!("{place}: {error}\n{sql}"));
                let shown = assert_shape(&query, &answer);
                let rare = query.shape == Shape::Annotation && range_ms <= HOUR_MS;
                assert!(!full || rare || shown > 0, "{place} shows nothing\n{sql}");
                if query.shape == Shape::Variable {
                    let values: Vec<String> =
                        answer.rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect();
                    assert!(!full || values != ["none"], "{place} offers nothing");
                    context.values.insert(query.name.clone(), values);
                }
                if !full && query.sql.contains("${__from}") && query.sql.contains("UNION ALL") {
                    let (plan, _) = asked(questdb, &format!("EXPLAIN {sql}")).await.unwrap();
                    let plan = String::from_utf8_lossy(&plan);
                    assert!(plan.contains("Empty table"), "{place} reads both halves: {plan}");
                    halves += 1;
                }
                let (columns, rows) = over_pg(client, &sql)
                    .await
                    .unwrap_or_else(|error| panic!("{place} over PG: {error}\n{sql}"));
                assert_eq!(columns, answer.columns, "{place}: PG and HTTP differ");
                // Only the list of firing alerts depends on the moment, and not by a row.
                assert_eq!(rows, answer.rows.len(), "{place}: PG and HTTP differ");
                if full && datasource == Datasource::Postgres {
                    let mut warm = Duration::MAX;
                    for _ in 0..3 {
                        warm = warm.min(asked(questdb, &sql).await.unwrap().1);
                    }
                    timings.push(Timing { first, warm, rows, place });
                }
            }
        }
    }
    assert!(full || halves > 50, "only {halves} queries have two halves");
    timings
}

fn print(what: &str, timings: &mut [Timing]) {
    timings.sort_by_key(|one| std::cmp::Reverse(one.warm));
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    println!("\n{what}: {} queries, slowest first (ms)\n  first    warm    rows", timings.len());
    for one in timings.iter().take(15) {
        println!("{:7.1} {:7.1} {:7}  {}", ms(one.first), ms(one.warm), one.rows, one.place);
    }
}

async fn every_query_runs(version: &str) {
    let questdb = QuestDb::start(version).await;
    for table in TABLES {
        questdb.sql(&table.ddl(table.ttl_days)).await.unwrap();
    }
    for view in VIEWS {
        questdb.sql(&view.ddl(view.base.ttl_days)).await.unwrap();
        // Twice is no error: periscope says it at every start.
        questdb.sql(&view.ddl(view.base.ttl_days)).await.unwrap();
    }
    let mut pg = tokio_postgres::Config::new();
    pg.host("127.0.0.1").port(questdb.pg_port).user("reader").password(PASSWORD).dbname("qdb");
    let (client, connection) = pg.connect(tokio_postgres::NoTls).await.unwrap();
    let now_ms = questdb.number("SELECT cast(now() AS LONG) / 1000").await;
    let work = async {
        for range in [HOUR_MS, 90 * DAY_MS] {
            run_all(&questdb, &client, now_ms, range, false).await;
        }

        let hour_ago = now_ms - HOUR_MS;
        fill(&questdb, hour_ago, now_ms, 1).await;
        let mut timings = run_all(&questdb, &client, now_ms, HOUR_MS, true).await;
        print(&format!("{version}: an hour of an hour"), &mut timings);

        let full = std::env::var("TEST_SCALE").is_ok_and(|scale| scale == "full");
        let thinned = if full { 1 } else { 60 };
        // A day less: the oldest partition is about to be dropped.
        fill(&questdb, now_ms - 89 * DAY_MS, hour_ago, thinned).await;
        // The longest range that reads rows and the longest that reads views; at full scale the
        // steps between them too.
        let steps: &[(&str, i64)] = if full {
            &[("1 day", 1), ("7 days", 7), ("8 days", 8), ("90 days", 90)]
        } else {
            &[("7 days", 7), ("90 days", 90)]
        };
        for (what, range) in steps.iter().map(|(what, days)| (what, days * DAY_MS)) {
            let mut timings = run_all(&questdb, &client, now_ms, range, true).await;
            print(&format!("{version}, 1/{thinned} of the default rates: {what}"), &mut timings);
            if full && range > 7 * DAY_MS {
                assert_fast(&questdb, &timings).await;
            }
        }
        drop(client);
    };
    let (connection, ()) = tokio::join!(connection, work);
    connection.unwrap();
}

/// Long ranges read the views: no query costs more than some plain scans of the largest table. No
/// absolute time, since the machine is not known.
async fn assert_fast(questdb: &QuestDb, timings: &[Timing]) {
    let mut scan = Duration::MAX;
    for _ in 0..5 {
        let sql = "SELECT count(), avg(latency_ms) FROM pipeline_metrics";
        scan = scan.min(asked(questdb, sql).await.unwrap().1);
    }
    println!("yardstick: a scan of pipeline_metrics takes {:.1} ms", scan.as_secs_f64() * 1000.0);
    for one in timings {
        assert!(one.warm <= scan * 30, "{}: {:?} against a scan of {scan:?}", one.place, one.warm);
    }
}

#[tokio::test]
async fn every_query_runs_on_the_default_questdb() {
    every_query_runs("9.3.4").await;
}

#[tokio::test]
async fn every_query_runs_on_the_oldest_questdb() {
    every_query_runs("9.2.3").await;
}

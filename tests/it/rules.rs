//! Every alert rule on the real database: its query runs, has the shape that Grafana asks for, is
//! quiet on good data, fires on bad data alone, and agrees with the evaluation in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use periscope::base::time::{Clock, Timestamp};
use periscope::model::row::{Row, Value};
use periscope::model::table::{self, Kind, TABLES, Table};
use periscope::rules::condition::{Condition, Measure};
use periscope::rules::rule::{Comparison, Labels, Limit, Rule};
use periscope::rules::user::{Placed, User};
use periscope::rules::window::{self, Sample};
use periscope::rules::{catalog, sql};

use super::support::periscope::VERSIONS;
use super::support::questdb::{PASSWORD, QuestDb};
use super::support::wait::until;

// --- the database -----------------------------------------------------------------------------

async fn database(version: &str) -> QuestDb {
    let questdb = QuestDb::start(version).await;
    for table in TABLES {
        questdb.sql(&table.ddl(36_500)).await.unwrap();
    }
    questdb
}

/// Stores `rows` and waits until they can be seen.
async fn store(questdb: &QuestDb, rows: &[Row]) {
    for table in TABLES {
        let lines: String = rows.iter().filter(|row| row.table == table).map(line).collect();
        if !lines.is_empty() {
            let answer = questdb.request("/write", Some(lines.into_bytes())).await.unwrap();
            let text = String::from_utf8_lossy(&answer.body);
            assert!(answer.status.is_success(), "{}: {text}", table.name);
        }
    }
    until("rows to be visible", Duration::from_secs(60), || async {
        let behind = "select count() from wal_tables() where writerTxn <> sequencerTxn";
        match questdb.number(behind).await {
            0 => Ok(()),
            behind => Err(format!("{behind} tables are behind")),
        }
    })
    .await;
}

/// A row as a line of ILP. Names in these tests need no escaping.
fn line(row: &Row) -> String {
    let mut line = row.table.name.to_owned();
    let mut fields = Vec::new();
    for (column, value) in row.table.columns.iter().zip(row.values()) {
        match value {
            Value::Null => {}
            Value::Text(text) if column.kind == Kind::Symbol => {
                write!(line, ",{}={text}", column.name).unwrap();
            }
            Value::Text(text) => fields.push(format!("{}=\"{text}\"", column.name)),
            Value::Bool(value) => fields.push(format!("{}={value}", column.name)),
            Value::Long(value) => fields.push(format!("{}={value}i", column.name)),
            Value::Double(value) => fields.push(format!("{}={value:?}", column.name)),
            Value::Time(time) => fields.push(format!("{}={}t", column.name, time.micros())),
        }
    }
    if fields.is_empty() {
        // A line needs a field: the first BOOLEAN, whose null is false, or any null text.
        let column = row.table.columns.iter().find(|column| !column.key).unwrap();
        assert_eq!(column.kind, Kind::Boolean, "{}", row.table.name);
        fields.push(format!("{}=false", column.name));
    }
    format!("{line} {} {}\n", fields.join(","), row.at.nanos())
}

/// Runs a rule's query and holds its result to the shape that alerting needs: text columns, which
/// are the labels, and exactly one number; no null, no two rows with equal labels.
async fn samples(questdb: &QuestDb, labels: &[&str], statement: &str) -> Vec<Sample> {
    let mut encoded = String::new();
    for byte in statement.bytes() {
        write!(encoded, "%{byte:02x}").unwrap();
    }
    let answer = questdb.request(&format!("/exec?query={encoded}"), None).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(answer.get("error").is_none(), "{}\n{statement}", answer["error"]);
    let columns: Vec<(&str, &str)> = answer["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| (column["name"].as_str().unwrap(), column["type"].as_str().unwrap()))
        .collect();
    let text = |kind: &str| matches!(kind, "SYMBOL" | "STRING" | "VARCHAR");
    let names: Vec<&str> =
        columns.iter().filter(|(_, kind)| text(kind)).map(|(name, _)| *name).collect();
    assert_eq!(names, labels, "{statement}");
    let numbers: Vec<_> = columns.iter().filter(|(_, kind)| !text(kind)).collect();
    assert_eq!(numbers, [&("value", "DOUBLE")], "{statement}");
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for row in answer["dataset"].as_array().unwrap() {
        let mut labels = Labels::new();
        let mut value = None;
        for ((name, kind), cell) in columns.iter().zip(row.as_array().unwrap()) {
            if text(kind) {
                labels.insert((*name).to_owned(), cell.as_str().unwrap_or_default().to_owned());
            } else {
                value = cell.as_f64();
            }
        }
        let value = value.unwrap_or_else(|| panic!("no value in {row}\n{statement}"));
        assert!(seen.insert(labels.clone()), "{labels:?} twice\n{statement}");
        found.push(Sample { labels, value });
    }
    found.sort_by(|left, right| left.labels.cmp(&right.labels));
    found
}

/// The same statement over PG wire as the read-only user, as Grafana sends it: simple protocol, and
/// extended for the types.
async fn pg_rows(questdb: &QuestDb, statements: &[String]) -> Vec<Vec<(Vec<String>, f64)>> {
    use tokio_postgres::SimpleQueryMessage;
    use tokio_postgres::types::Type;
    let (client, connection) = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(questdb.pg_port)
        .user("reader")
        .password(PASSWORD)
        .dbname("qdb")
        .connect(tokio_postgres::NoTls)
        .await
        .unwrap();
    let work = async {
        let mut answers = Vec::new();
        for statement in statements {
            let prepared = client.prepare(statement).await.unwrap();
            for column in prepared.columns() {
                let wanted = match column.name() {
                    "value" => Type::FLOAT8,
                    _ => Type::VARCHAR,
                };
                assert_eq!(*column.type_(), wanted, "{}: {statement}", column.name());
            }
            let mut rows = Vec::new();
            for message in client.simple_query(statement).await.unwrap() {
                let SimpleQueryMessage::Row(row) = message else { continue };
                let mut labels = Vec::new();
                let mut value = None;
                for (index, column) in row.columns().iter().enumerate() {
                    let cell = row.get(index).unwrap_or_default();
                    match column.name() {
                        "value" => value = cell.parse().ok(),
                        _ => labels.push(cell.to_owned()),
                    }
                }
                rows.push((labels, value.unwrap()));
            }
            answers.push(rows);
        }
        answers
    };
    tokio::select! {
        ended = connection => panic!("the connection ended: {ended:?}"),
        answers = work => answers,
    }
}

/// Rules that the database evaluates, with their statement.
fn queries() -> Vec<(Rule, String)> {
    let rules = catalog::shipped().unwrap();
    let queries: Vec<_> =
        rules.into_iter().filter_map(|rule| Some((sql::query(&rule.condition)?, rule))).collect();
    queries.into_iter().map(|(statement, rule)| (rule, statement)).collect()
}

fn name(rule: &Rule) -> String {
    format!("{} {}", rule.id, rule.severity.word())
}

// --- good and bad data ------------------------------------------------------------------------

/// Samples every 10 s for a quarter of an hour; the newest is 2 s old.
const SAMPLES: i64 = 91;

fn seconds_ago(now: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_nanos(now.nanos() - seconds * 1_000_000_000)
}

/// All rows of a machine on which nothing is wrong. `left` counts down to the newest sample.
fn healthy(host: &str, now: Timestamp) -> Vec<(i64, Row)> {
    let mut rows = Vec::new();
    for index in 0..SAMPLES {
        let left = SAMPLES - 1 - index;
        let at = seconds_ago(now, left * 10 + 2);
        let row =
            |table: &'static Table| Row::new(table, at).with("host", host).with("env", "prod");
        let daemon = |table| row(table).with("daemon", "ccxt");
        let metrics = daemon(&table::DAEMON_METRICS)
            .with("reachable", true)
            .with("running", true)
            .with("fetch_count", 1_000 + index * 10)
            .with("error_count", index / 10)
            .with("restarts", 3)
            .with("memory_bytes", 300_000_000)
            .with("event_loop_lag_ms", 2.0);
        let exchange = daemon(&table::EXCHANGE_STATUS)
            .with("exchange", "binance")
            .with("connected", true)
            .with("latency_ms", 80.0)
            .with("reconnect_count", index / 40)
            .with("last_message_at", seconds_ago(at, 1));
        let pipeline = daemon(&table::PIPELINE_METRICS)
            .with("exchange", "binance")
            .with("symbol", "BTCUSDT")
            .with("data_type", "oi")
            .with("records_count", index * 3)
            .with("latency_ms", 120.0)
            .with("gap_detected", false)
            .with("gap_duration_seconds", 0.0);
        let trading = daemon(&table::TRADING_METRICS)
            .with("strategy", "grid")
            .with("symbol", "BTCUSDT")
            .with("venue", "binance")
            .with("currency", "USDT")
            .with("drawdown", 0.01)
            .with("orders_placed", index * 10)
            .with("orders_filled", index * 9);
        let part = |name: &str| row(&table::SYSTEM_HEALTH).with("component", name);
        rows.extend(
            [
                metrics,
                exchange,
                pipeline,
                trading,
                part("host").with("disk_free_bytes", 50_000_000_000_i64),
                part("spool").with("oldest_seconds", 0.4),
                part("writer").with("refused_total", 7),
            ]
            .map(|row| (left, row)),
        );
    }
    rows
}

/// What is wrong on a machine, and the rules that must see it.
struct Fault {
    host: &'static str,
    /// Changes a healthy row (`left` counts down to the newest); false leaves it out.
    change: fn(i64, &mut Row) -> bool,
    expected: &'static [&'static str],
}

fn long(row: &Row, column: &str) -> i64 {
    match row.get(column) {
        Value::Long(value) => *value,
        other => panic!("{column} is {other:?}"),
    }
}

macro_rules! fault {
    ($host:literal, $table:ident, |$left:ident, $row:ident| $change:expr, $expected:expr) => {
        Fault {
            host: $host,
            change: |$left, $row| *$row.table != table::$table || $change,
            expected: &$expected,
        }
    };
}

fn set(row: &mut Row, column: &str, value: impl Into<Value>) -> bool {
    row.set(column, value.into());
    true
}

const fn index(left: i64) -> i64 {
    SAMPLES - 1 - left
}

fn faults() -> Vec<Fault> {
    vec![
        fault!("silent", DAEMON_METRICS, |left, row| left >= 6, ["daemon_down critical"]),
        fault!(
            "stopped",
            DAEMON_METRICS,
            |left, row| left >= 6 || set(row, "running", false),
            ["daemon_down critical"]
        ),
        fault!(
            "unreachable",
            DAEMON_METRICS,
            |left, row| {
                if left < 6 {
                    *row = Row::new(row.table, row.at)
                        .with("daemon", "ccxt")
                        .with("host", "unreachable")
                        .with("env", "prod")
                        .with("reachable", false)
                        .with("poll_error", "refused");
                }
                true
            },
            ["daemon_unreachable critical"]
        ),
        fault!(
            "stuck",
            DAEMON_METRICS,
            |left, row| left >= 10 || set(row, "fetch_count", 1_800),
            ["daemon_stuck warning"]
        ),
        fault!(
            "restarted",
            DAEMON_METRICS,
            |left, row| left >= 5
                || set(row, "restarts", 4) && set(row, "fetch_count", 50 - left * 10),
            ["daemon_restarted warning"]
        ),
        fault!(
            "errors",
            DAEMON_METRICS,
            |left, row| set(row, "error_count", index(left) * 3),
            ["daemon_error_rate warning"]
        ),
        fault!(
            "failing",
            DAEMON_METRICS,
            |left, row| set(row, "error_count", index(left))
                && set(row, "fetch_count", index(left)),
            ["daemon_error_ratio critical"]
        ),
        fault!(
            "memory",
            DAEMON_METRICS,
            |_left, row| set(row, "memory_bytes", 900_000_000),
            ["daemon_memory warning"]
        ),
        fault!(
            "memory-critical",
            DAEMON_METRICS,
            |_left, row| set(row, "memory_bytes", 1_300_000_000),
            ["daemon_memory critical", "daemon_memory warning"]
        ),
        fault!(
            "blocked",
            DAEMON_METRICS,
            |left, row| left >= 2 || set(row, "event_loop_lag_ms", 1_000.0),
            ["event_loop_blocked warning"]
        ),
        // The tiers differ in `for` alone.
        fault!(
            "disconnected",
            EXCHANGE_STATUS,
            |left, row| left >= 6 || set(row, "connected", false),
            ["exchange_disconnected critical", "exchange_disconnected warning"]
        ),
        fault!(
            "slow",
            EXCHANGE_STATUS,
            |_left, row| set(row, "latency_ms", 800.0),
            ["exchange_latency warning"]
        ),
        fault!(
            "reconnects",
            EXCHANGE_STATUS,
            |left, row| set(row, "reconnect_count", index(left) / 10),
            ["exchange_reconnect_storm warning"]
        ),
        fault!(
            "mute",
            EXCHANGE_STATUS,
            |left, row| left >= 10
                || set(row, "last_message_at", seconds_ago(row.at, 100 - left * 10)),
            ["exchange_silent critical"]
        ),
        fault!(
            "gap",
            PIPELINE_METRICS,
            |left, row| left > 0
                || set(row, "gap_detected", true) && set(row, "gap_duration_seconds", 0.0),
            ["pipeline_gap warning"]
        ),
        fault!(
            "long-gap",
            PIPELINE_METRICS,
            |left, row| left > 0
                || set(row, "gap_detected", true) && set(row, "gap_duration_seconds", 301.0),
            ["pipeline_gap critical", "pipeline_gap warning"]
        ),
        fault!(
            "stalled",
            PIPELINE_METRICS,
            |left, row| left >= 65 || set(row, "records_count", long(row, "records_count").min(78)),
            ["pipeline_stalled warning"]
        ),
        fault!(
            "slow-pipeline",
            PIPELINE_METRICS,
            |_left, row| set(row, "latency_ms", 501.0),
            ["pipeline_latency warning"]
        ),
        fault!(
            "drawdown",
            TRADING_METRICS,
            |_left, row| set(row, "drawdown", 0.07),
            ["trading_drawdown warning"]
        ),
        fault!(
            "drawdown-critical",
            TRADING_METRICS,
            |_left, row| set(row, "drawdown", 0.2),
            ["trading_drawdown critical", "trading_drawdown warning"]
        ),
        fault!(
            "unfilled",
            TRADING_METRICS,
            |left, row| set(row, "orders_filled", index(left) * 4),
            ["trading_fill_rate warning"]
        ),
        fault!(
            "spool",
            SYSTEM_HEALTH,
            |left, row| *row.get("component") != "spool".into()
                || set(row, "oldest_seconds", 70.0 + 10.0 * f64::from(9 - left.min(9) as i32)),
            ["spool_growing warning"]
        ),
        fault!(
            "refused",
            SYSTEM_HEALTH,
            |left, row| left >= 6
                || *row.get("component") != "writer".into()
                || set(row, "refused_total", 8),
            ["rows_refused warning"]
        ),
        fault!(
            "disk",
            SYSTEM_HEALTH,
            |_left, row| *row.get("component") != "host".into()
                || set(row, "disk_free_bytes", 4_900_000_000_i64),
            ["disk_low warning"]
        ),
        fault!(
            "disk-critical",
            SYSTEM_HEALTH,
            |_left, row| *row.get("component") != "host".into()
                || set(row, "disk_free_bytes", 1_000_000_000),
            ["disk_low critical", "disk_low warning"]
        ),
        fault!(
            "lossy",
            SYSTEM_HEALTH,
            |left, row| {
                if left == 3 && *row.get("component") == "spool".into() {
                    *row = Row::new(&table::SAMPLE_GAPS, row.at)
                        .with("host", "lossy")
                        .with("env", "prod")
                        .with("reason", "cap")
                        .with("table_name", "daemon_metrics")
                        .with("rows", 12);
                }
                true
            },
            ["samples_lost warning"]
        ),
    ]
}

/// Labels of the series that each rule must name, besides host and env.
fn labels_of(rule: &str) -> &'static [(&'static str, &'static str)] {
    match rule.split(' ').next().unwrap().split('_').next().unwrap() {
        "daemon" | "event" => &[("daemon", "ccxt")],
        "exchange" => &[("daemon", "ccxt"), ("exchange", "binance")],
        "pipeline" if rule.starts_with("pipeline_gap") => &[
            ("daemon", "ccxt"),
            ("exchange", "binance"),
            ("symbol", "BTCUSDT"),
            ("data_type", "oi"),
        ],
        "pipeline" => &[("daemon", "ccxt"), ("exchange", "binance"), ("data_type", "oi")],
        "trading" if rule.starts_with("trading_fill") => {
            &[("daemon", "ccxt"), ("strategy", "grid")]
        }
        "trading" => &[
            ("daemon", "ccxt"),
            ("strategy", "grid"),
            ("symbol", "BTCUSDT"),
            ("venue", "binance"),
            ("currency", "USDT"),
        ],
        "samples" => &[("reason", "cap")],
        "spool" | "rows" | "disk" => &[],
        other => panic!("{other}"),
    }
}

fn expectations(faults: &[Fault]) -> BTreeMap<String, BTreeSet<Labels>> {
    let mut expected: BTreeMap<String, BTreeSet<Labels>> = BTreeMap::new();
    for fault in faults {
        for rule in fault.expected {
            let mut labels: Labels = labels_of(rule)
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            labels.insert("host".to_owned(), fault.host.to_owned());
            labels.insert("env".to_owned(), "prod".to_owned());
            expected.entry((*rule).to_owned()).or_default().insert(labels);
        }
    }
    expected
}

fn breaches(limit: Limit, samples: &[Sample]) -> BTreeSet<Labels> {
    let bad = samples.iter().filter(|sample| limit.breached(sample.value));
    bad.map(|sample| sample.labels.clone()).collect()
}

async fn firing(questdb: &QuestDb) -> BTreeMap<String, BTreeSet<Labels>> {
    let mut firing = BTreeMap::new();
    for (rule, statement) in queries() {
        let found = samples(questdb, &rule.condition.labels(), &statement).await;
        let bad = breaches(rule.limit, &found);
        if !bad.is_empty() {
            firing.insert(name(&rule), bad);
        }
    }
    firing
}

#[tokio::test]
async fn every_rule_is_right_on_real_questdb() {
    for version in VERSIONS {
        let questdb = database(version).await;
        let none = BTreeMap::new();
        assert_eq!(firing(&questdb).await, none, "empty tables on {version}");

        let now = Clock::system().now();
        let rows: Vec<Row> = healthy("good", now).into_iter().map(|(_, row)| row).collect();
        store(&questdb, &rows).await;
        assert_eq!(firing(&questdb).await, none, "good data on {version}");

        let faults = faults();
        let now = Clock::system().now();
        let mut rows: Vec<Row> = healthy("good", now).into_iter().map(|(_, row)| row).collect();
        for fault in &faults {
            for (left, mut row) in healthy(fault.host, now) {
                if (fault.change)(left, &mut row) {
                    rows.push(row);
                }
            }
        }
        store(&questdb, &rows).await;
        let expected = expectations(&faults);
        assert_eq!(firing(&questdb).await, expected, "bad data on {version}");
        everything_is_tried(&expected);

        in_memory_too(&rows, now, &expected);
        over_pg_wire(&questdb).await;
        suspended(&questdb).await;
    }
}

/// No rule is left without a fault that makes it fire; the one about suspended tables has its own.
fn everything_is_tried(expected: &BTreeMap<String, BTreeSet<Labels>>) {
    for (rule, _) in queries() {
        let tried = expected.contains_key(&name(&rule)) || rule.id == "questdb_wal_suspended";
        assert!(tried, "{} has no fault in this test", name(&rule));
    }
}

/// The evaluation in memory sees the same faults in the same rows.
fn in_memory_too(rows: &[Row], now: Timestamp, expected: &BTreeMap<String, BTreeSet<Labels>>) {
    let mut firing = BTreeMap::new();
    for (rule, _) in queries() {
        let Condition::Rows(measure) = &rule.condition else { continue };
        let found = window::evaluate(measure, rows, Timestamp::EPOCH, now).unwrap();
        let bad = breaches(rule.limit, &found);
        if !bad.is_empty() {
            firing.insert(name(&rule), bad);
        }
    }
    assert_eq!(&firing, expected, "in memory");
}

/// PG wire gives Grafana the same series, as text and one float8.
async fn over_pg_wire(questdb: &QuestDb) {
    let queries = queries();
    let statements: Vec<String> = queries.iter().map(|(_, sql)| sql.clone()).collect();
    for ((rule, statement), over_pg) in queries.iter().zip(pg_rows(questdb, &statements).await) {
        let labels = rule.condition.labels();
        let over_http = samples(questdb, &labels, statement).await;
        let over_http: BTreeSet<Vec<String>> = over_http
            .into_iter()
            .map(|sample| labels.iter().map(|label| sample.labels[*label].clone()).collect())
            .collect();
        assert!(over_pg.iter().all(|(_, value)| value.is_finite()), "{}", name(rule));
        let over_pg: BTreeSet<Vec<String>> =
            over_pg.into_iter().map(|(labels, _)| labels).collect();
        assert_eq!(over_pg, over_http, "{}", name(rule));
    }
}

/// A suspended table fires; resumed, it does not. The query knows every table.
async fn suspended(questdb: &QuestDb) {
    let (rule, statement) =
        queries().into_iter().find(|(rule, _)| rule.id == "questdb_wal_suspended").unwrap();
    for table in TABLES {
        assert!(statement.contains(&format!("'{}'", table.name)), "{} is missing", table.name);
    }
    let labels = rule.condition.labels();
    let table = table::EXCHANGE_STATUS.name;
    questdb.sql(&format!("ALTER TABLE {table} SUSPEND WAL")).await.unwrap();
    let bad = breaches(rule.limit, &samples(questdb, &labels, &statement).await);
    let expected = Labels::from([("table_name".to_owned(), table.to_owned())]);
    assert_eq!(bad, BTreeSet::from([expected]));
    questdb.sql(&format!("ALTER TABLE {table} RESUME WAL")).await.unwrap();
    let bad = breaches(rule.limit, &samples(questdb, &labels, &statement).await);
    assert_eq!(bad, BTreeSet::new());
}

// --- parity -----------------------------------------------------------------------------------

/// How long each version is asked about random rows.
const PARITY_TIME: Duration = Duration::from_secs(10);

/// Rules of more kinds than the shipped ones, so that no branch of either reader goes untested.
const MORE_RULES: &str = r#"
[[rule]]
id = "min"
table = "exchange_status"
where = { connected = true, exchange = "b" }
by = ["env", "host"]
aggregate = "min"
column = "latency_ms"
window = "10m"
fresh = "1m"
[[rule]]
id = "max"
table = "pipeline_metrics"
by = ["host", "env"]
aggregate = "max"
column = "bytes_written"
window = "1h"
[[rule]]
id = "count"
table = "trading_metrics"
by = ["env", "host", "venue"]
aggregate = "count"
column = "pnl"
window = "1h"
[[rule]]
id = "age"
table = "system_health"
by = ["env", "host"]
aggregate = "age"
window = "1h"
[[rule]]
id = "increase"
table = "pipeline_metrics"
by = ["env", "host", "exchange"]
aggregate = "increase"
column = "records_count"
per = "1m"
window = "1h"
fresh = "5m"
[[rule]]
id = "ratio"
table = "pipeline_metrics"
by = ["env", "host", "exchange"]
aggregate = "ratio"
column = "error_count"
divisor = "records_count"
at_least = 3
window = "1h"
fresh = "5m"
[[rule]]
id = "quiet"
table = "pipeline_metrics"
by = ["env", "host", "exchange"]
aggregate = "quiet"
column = "records_count"
floor = "5s"
window = "10m"
"#;

fn measures() -> Vec<(String, Measure)> {
    let more: toml::Table = MORE_RULES.parse().unwrap();
    let more = more["rule"].as_array().unwrap().iter().map(|rule| {
        let mut rule = rule.as_table().unwrap().clone();
        for (key, value) in [("severity", "info"), ("summary", "test"), ("comparison", "above")] {
            rule.insert(key.to_owned(), value.into());
        }
        rule.insert("threshold".to_owned(), 1_000_000.into());
        Placed { path: "rule".to_owned(), value: rule }
    });
    let user = User { own: more.collect(), ..User::default() };
    let mut measures = Vec::new();
    for rule in catalog::build(&user).unwrap_or_else(|problems| panic!("{problems}")) {
        if let Condition::Rows(measure) = rule.condition {
            measures.push((rule.id, measure));
        }
    }
    measures.dedup_by(|left, right| left.0 == right.0);
    measures
}

/// A row of `table` within some span before `now`, now and then a little ahead. Few different
/// values, so that series, equal times, resets and repeated values come up often.
fn random_row(random: &mut fastrand::Rng, table: &'static Table, now: Timestamp) -> Row {
    let span = *random.choice(&[20, 90, 400, 4_000, 30_000, 100_000]).unwrap();
    let ago = random.i64(-5..span);
    let mut at = seconds_ago(now, ago);
    if random.bool() {
        at = Timestamp::from_nanos(at.nanos() - random.i64(0..2_000_000_000));
    }
    let mut row = Row::new(table, at);
    for column in table.columns {
        let null = !column.key && random.u8(0..8) == 0;
        let value = match column.kind {
            _ if null => Value::Null,
            Kind::Symbol if column.name == "component" => {
                (*random.choice(&["host", "spool", "writer"]).unwrap()).into()
            }
            Kind::Symbol => (*random.choice(&["a", "b"]).unwrap()).into(),
            Kind::Varchar => "x".into(),
            Kind::Boolean => (random.u8(0..3) > 0).into(),
            Kind::Long => (random.i64(0..6) * *random.choice(&[1, 10]).unwrap()).into(),
            Kind::Double => (random.f64() * 10.0).into(),
            Kind::Timestamp => seconds_ago(at, random.i64(-2..60)).into(),
        };
        row.set(column.name, value);
    }
    row
}

/// A row of nulls cannot be sent, and booleans have no null in the database.
fn sendable(row: &Row) -> bool {
    let fields = row.table.columns.iter().zip(row.values()).filter(|(column, _)| !column.key);
    fields.clone().any(|(_, value)| *value != Value::Null)
}

/// SQL and memory agree on every structured rule, over random rows.
#[tokio::test]
async fn sql_and_memory_agree() {
    let seed: u64 = std::env::var("SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("SEED is a number"));
    println!("SEED={seed}");
    let measures = measures();
    for version in VERSIONS {
        let questdb = database(version).await;
        let mut random = fastrand::Rng::with_seed(seed);
        let start = Instant::now();
        let mut rounds = 0;
        let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
        // Rounds lie days apart, the later ones later, so that none sees the rows of another.
        let mut now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        while rounds < 10 || start.elapsed() < PARITY_TIME {
            now = now
                .plus(Duration::from_secs(3 * 86_400) + Duration::from_micros(random.u64(..999)));
            let rows: Vec<Row> = TABLES
                .into_iter()
                .flat_map(|table| {
                    let count = random.usize(1..120);
                    (0..count).map(|_| random_row(&mut random, table, now)).collect::<Vec<_>>()
                })
                .filter(sendable)
                .collect();
            store(&questdb, &rows).await;
            for (id, measure) in &measures {
                let labels: Vec<&str> = measure.by.iter().map(|column| column.name).collect();
                let statement = sql::measure_at(measure, &format!("cast('{now}' AS timestamp)"));
                let from_sql = samples(&questdb, &labels, &statement).await;
                let from_memory = window::evaluate(measure, &rows, Timestamp::EPOCH, now).unwrap();
                agree(id, &from_sql, &from_memory, &statement);
                *compared.entry(id).or_default() += from_sql.len();
            }
            rounds += 1;
        }
        println!("{version}: {rounds} rounds, series that agree: {compared:?}");
        for (id, series) in compared {
            assert!(series > 0, "{id} never had a value in {rounds} rounds");
        }
    }
}

fn agree(id: &str, from_sql: &[Sample], from_memory: &[Sample], statement: &str) {
    let labels = |samples: &[Sample]| -> Vec<Labels> {
        samples.iter().map(|sample| sample.labels.clone()).collect()
    };
    assert_eq!(labels(from_sql), labels(from_memory), "series of {id}\n{statement}");
    for (sql, memory) in from_sql.iter().zip(from_memory) {
        // Sums are not added up in the same order.
        let allowed = 1e-9 * sql.value.abs().max(1.0);
        let difference = (sql.value - memory.value).abs();
        assert!(difference <= allowed, "{id}: {sql:?} by SQL, {memory:?} in memory\n{statement}");
    }
}

#[test]
fn a_value_equal_to_the_threshold_is_good() {
    for comparison in [Comparison::Above, Comparison::Below] {
        let limit = Limit { comparison, threshold: 5.0 };
        assert!(!limit.breached(5.0) && !limit.breached(f64::NAN), "{comparison:?}");
        assert_ne!(limit.breached(4.0), limit.breached(6.0));
    }
}

// --- wording ----------------------------------------------------------------------------------

/// Every message as people get it, reviewed as a diff.
#[test]
fn messages_are_as_reviewed() {
    let example = [
        ("channel", "telegram"),
        ("currency", "USDT"),
        ("daemon", "ccxt"),
        ("data_type", "funding"),
        ("env", "prod"),
        ("exchange", "binance"),
        ("host", "vps-1"),
        ("reason", "cap"),
        ("strategy", "grid"),
        ("symbol", "BTCUSDT-PERP"),
        ("table_name", "daemon_metrics"),
        ("venue", "binance"),
    ];
    let labels: Labels =
        example.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut text = String::new();
    for rule in catalog::shipped().unwrap() {
        for label in rule.condition.labels() {
            assert!(labels.contains_key(label), "{label} has no example here");
        }
        let value = match rule.limit.comparison {
            Comparison::Above => rule.limit.threshold * 1.25 + 1.0,
            Comparison::Below => rule.limit.threshold * 0.75,
        };
        let figures = rule.figures();
        let lines = [
            format!("{} [{}]", rule.full_title(), rule.uid()),
            rule.summary.render(&labels, value, &figures),
            rule.description.render(&labels, value, &figures),
        ];
        text.push_str(&lines.join("\n  "));
        text.push_str("\n\n");
    }
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/alerting/messages.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, expected, "{} differs; UPDATE_GOLDEN=1 renews it", path.display());
}

//! A pipeline of ccxt as it is, under `periscope run`: what goes wrong in it becomes the rows, the
//! panels and the alerts that A1 to A9 of the requirements ask for.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::periscope::Periscope;
use super::support::receiver::Receiver;
use super::support::viewer::{Seen, panel};
use super::support::wait::until;

const SYMBOLS: [&str; 2] = ["BTCUSDT-PERP", "ETHUSDT-PERP"];
/// A gap is never shorter.
const GAP: Duration = Duration::from_secs(60);
/// `for` of the two alerts about a venue.
const WARNED: Duration = Duration::from_secs(10);
const CRITICAL: Duration = Duration::from_secs(25);
const LIMIT: Duration = Duration::from_secs(60);

fn config(receiver: &Receiver) -> String {
    format!(
        "[node]\nhost = \"it\"\n[collect]\ninterval = \"200ms\"\ntrading_interval = \"200ms\"\n\
         [writer]\nflush_interval = \"200ms\"\n[alerts]\n\
         [[alerts.rule]]\nid = \"exchange_disconnected\"\nseverity = \"warning\"\nfor = \"{}s\"\n\
         [[alerts.rule]]\nid = \"exchange_disconnected\"\nseverity = \"critical\"\nfor = \"{}s\"\n\
         [[alerts.rule]]\nid = \"daemon_error_rate\"\nfor = \"10s\"\n\
         [[alerts.rule]]\nid = \"event_loop_blocked\"\nfor = \"0s\"\n\
         [notify.webhook]\nurl = \"{}\"\n",
        WARNED.as_secs(),
        CRITICAL.as_secs(),
        receiver.url
    )
}

/// The daemon; killed with the test.
struct Pipeline {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Pipeline {
    fn start(periscope: &Periscope) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/ccxt_daemon.py");
        let mut command = Command::new(env!("CARGO_BIN_EXE_periscope"));
        command.arg("--data-dir").arg(periscope.data());
        command.args(["run", "--name", "pipe", "--target", "ccxt-pipeline", "--", "python3"]);
        command.arg(program).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let input = child.stdin.take().unwrap();
        let mut this = Self { child, input, output };
        assert_eq!(this.line(), "ready");
        this
    }

    fn line(&mut self) -> String {
        self.output.next().expect("the daemon has ended").unwrap()
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        assert_eq!(self.line(), "done");
    }

    /// Fetches everything again and again for this long.
    async fn work(&mut self, time: Duration) {
        let started = Instant::now();
        while started.elapsed() < time {
            self.tell("fetch 1");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Waits until the panel shows what `is_right` looks for.
async fn shown(
    seen: &Seen,
    (uid, title): (&str, &str),
    is_right: impl Fn(&[Value]) -> bool,
) -> Vec<Value> {
    let uid = format!("periscope-{uid}");
    until(&format!("panel {title}"), LIMIT, || async {
        let rows = panel(seen, &uid, title).await?;
        if is_right(&rows) { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .await
}

/// Returns the rows of one venue.
fn of<'a>(rows: &'a [Value], exchange: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["exchange"] == exchange).collect()
}

/// The highest value of `rows`.
fn highest<'a>(rows: impl IntoIterator<Item = &'a Value>) -> f64 {
    rows.into_iter().filter_map(|row| row["value"].as_f64()).fold(f64::NEG_INFINITY, f64::max)
}

/// Whether the one row of each venue has this value.
fn connection(rows: &[Value], binance: i64, bybit: i64) -> bool {
    [("binance", binance), ("bybit", bybit)].iter().all(|(exchange, value)| {
        matches!(of(rows, exchange).as_slice(), [row] if row["value"] == *value)
    })
}

/// Waits for an alert in the history; `labels` is part of its labels.
async fn alerted(seen: &Seen, rule: &str, severity: &str, labels: &str) {
    let sql = format!(
        "select count() from alert_events where rule = '{rule}' and severity = '{severity}' and \
         state = 'alerting' and labels like '%{labels}%'"
    );
    seen.periscope.until_count(&sql, |count| count > 0).await;
}

/// Waits until a poll has seen the venue so.
async fn polled(periscope: &Periscope, exchange: &str, connected: bool) {
    until("a poll to see it", LIMIT, || async {
        let status = periscope.status().await?;
        let venue = status["daemons"][0]["status"]["exchange_status"][exchange].clone();
        if venue["connected"] == connected { Ok(()) } else { Err(venue.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn what_goes_wrong_in_a_pipeline_is_stored_shown_and_told() {
    let receiver = Receiver::start().await;
    let periscope = Periscope::up(&config(&receiver));
    periscope.ready().await;
    periscope.well("schema").await;
    let mut daemon = Pipeline::start(&periscope);
    let seen = Seen::of(periscope);
    // A rate is what grows from one quarter of a minute to the next.
    daemon.work(Duration::from_secs(20)).await;
    daemon.tell("liquidate 1");
    all_is_well(&seen).await;
    let lost_at = an_outage_of_one_venue(&seen, &mut daemon, &receiver).await;
    its_end(&seen, &mut daemon, lost_at).await;
    // What ends the fetches, so that no record comes any longer.
    let stopped = Instant::now();
    a_burst_of_liquidations(&seen, &mut daemon).await;
    a_storm_of_reconnects(&seen, &mut daemon).await;
    a_gap_of_every_symbol(&seen, stopped).await;
    a_blocked_loop(&seen, &mut daemon).await;
}

/// A1, A4, A7.
async fn all_is_well(seen: &Seen) {
    shown(seen, ("exchange", "Connection"), |rows| connection(rows, 1, 1)).await;
    for (title, is_right) in [
        ("Status", (|value| value == 3.0) as fn(f64) -> bool),
        ("Uptime", |value| value == 1.5),
        ("Memory now", |value| value > 1e6),
        ("CPU", |value| value >= 0.0),
        ("Restarts in the range", |value| value == 0.0),
    ] {
        shown(seen, ("health", title), |rows| {
            rows.iter().all(|row| row["daemon"] == "pipe") && is_right(highest(rows))
        })
        .await;
    }
    for title in ["Open-interest fetches per hour", "Funding fetches per hour"] {
        shown(seen, ("pipeline", title), |rows| {
            ["binance", "bybit"].iter().all(|venue| highest(of(rows, venue)) > 0.0)
        })
        .await;
    }
    let (stored, status) = (
        "select sum(records_count) from (select records_count from pipeline_metrics where \
         data_type in ('oi', 'funding') latest on timestamp partition by exchange, symbol, data_type)",
        seen.periscope.status().await.unwrap(),
    );
    let fetches = status["daemons"][0]["status"]["fetch_count"].as_i64().unwrap();
    assert!(fetches >= 80, "{fetches}");
    seen.periscope.until_count(stored, |records| records == fetches).await;
}

/// A2, A3, A8; returns when it began.
async fn an_outage_of_one_venue(
    seen: &Seen,
    daemon: &mut Pipeline,
    receiver: &Receiver,
) -> jiff::Timestamp {
    let lost_at = jiff::Timestamp::now();
    daemon.tell("fail BYBIT");
    daemon.work(Duration::from_secs(4)).await;
    shown(seen, ("exchange", "Connection"), |rows| connection(rows, 1, 0)).await;
    alerted(seen, "exchange_disconnected", "warning", "bybit").await;
    let early = "select count() from alert_events where rule = 'exchange_disconnected' and \
                 severity = 'critical' and state = 'alerting'";
    let since = lost_at.as_millisecond();
    let count = seen.periscope.sql(early).await.unwrap();
    let time = Duration::from_millis(
        u64::try_from(jiff::Timestamp::now().as_millisecond() - since).unwrap(),
    );
    assert!(time > CRITICAL || count[0][0] == 0, "critical before its time: {count:?}");
    daemon.work(CRITICAL).await;
    alerted(seen, "exchange_disconnected", "critical", "bybit").await;
    alerted(seen, "daemon_error_rate", "warning", "pipe").await;
    let told = until("the message", LIMIT, || async {
        let told = receiver.of_kind("firing");
        let is_it = |message: &Value| message["title"] == "pipe on it is not connected to bybit";
        if told.iter().any(is_it) { Ok(told) } else { Err(format!("{told:?}")) }
    })
    .await;
    assert!(!json!(told).to_string().contains("to binance"), "{told:?}");
    shown(seen, ("exchange", "Disconnected for"), |rows| highest(of(rows, "bybit")) > 10.0).await;
    shown(seen, ("health", "Errors per minute"), |rows| highest(rows) > 10.0).await;
    shown(seen, ("health", "Last errors"), |rows| {
        rows.iter().any(|row| row["error"] == "BYBIT not connected")
    })
    .await;
    lost_at
}

/// A2, A9.
async fn its_end(seen: &Seen, daemon: &mut Pipeline, lost_at: jiff::Timestamp) {
    daemon.tell("heal BYBIT");
    let lasted = jiff::Timestamp::now().as_second() - lost_at.as_second();
    daemon.work(Duration::from_secs(2)).await;
    shown(seen, ("exchange", "Connection"), |rows| connection(rows, 1, 1)).await;
    let downtimes = shown(seen, ("exchange", "Downtimes"), |rows| rows.len() == 1).await;
    let [row] = downtimes.as_slice() else { panic!("{downtimes:?}") };
    assert_eq!((&row["exchange"], &row["daemon"]), (&json!("bybit"), &json!("pipe")), "{row}");
    let seconds = row["downtime"].as_i64().unwrap();
    assert!((seconds - lasted).abs() <= 5, "{row}: {lasted} s");
    let began = row["disconnected"].as_i64().unwrap();
    assert!((began - lost_at.as_millisecond()).abs() < 5_000, "{row}: {lost_at}");
    shown(seen, ("exchange", "Connection over time"), |rows| {
        let values: Vec<_> =
            of(rows, "bybit").iter().filter_map(|row| row["value"].as_i64()).collect();
        values.contains(&0)
            && values.last() == Some(&1)
            && of(rows, "binance").iter().all(|row| row["value"] != 0)
    })
    .await;
    shown(seen, ("exchange", "Reconnections in the range"), |rows| {
        highest(of(rows, "bybit")) == 1.0
    })
    .await;
}

/// A6.
async fn a_burst_of_liquidations(seen: &Seen, daemon: &mut Pipeline) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    daemon.tell("liquidate 300");
    shown(seen, ("pipeline", "Liquidations per minute"), |rows| {
        highest(of(rows, "binance")) >= 100.0 && of(rows, "bybit").is_empty()
    })
    .await;
}

async fn a_storm_of_reconnects(seen: &Seen, daemon: &mut Pipeline) {
    for _ in 0..6 {
        daemon.tell("cut BINANCE");
        polled(&seen.periscope, "binance", false).await;
        daemon.tell("join BINANCE");
        polled(&seen.periscope, "binance", true).await;
    }
    shown(seen, ("exchange", "Reconnections in the range"), |rows| {
        highest(of(rows, "binance")) == 6.0 && highest(of(rows, "bybit")) == 1.0
    })
    .await;
    alerted(seen, "exchange_reconnect_storm", "warning", "binance").await;
}

/// A5.
async fn a_gap_of_every_symbol(seen: &Seen, stopped: Instant) {
    tokio::time::sleep(GAP.saturating_sub(stopped.elapsed())).await;
    let gaps = shown(seen, ("pipeline", "Gaps"), |rows| rows.len() >= 8).await;
    for exchange in ["binance", "bybit"] {
        for symbol in SYMBOLS {
            let is_it = |row: &&&Value| row["symbol"] == symbol;
            let kinds: Vec<&Value> = of(&gaps, exchange).iter().filter(is_it).copied().collect();
            assert_eq!(kinds.len(), 2, "{exchange} {symbol}: {gaps:?}");
            for row in kinds {
                assert!(row["duration"].as_f64().unwrap() >= GAP.as_secs_f64(), "{row}");
                assert_ne!(row["data_type"], "liquidation");
            }
        }
    }
    shown(seen, ("pipeline", "Gaps over time"), |rows| highest(rows) == 1.0).await;
    alerted(seen, "pipeline_gap", "warning", "BTCUSDT-PERP").await;
}

async fn a_blocked_loop(seen: &Seen, daemon: &mut Pipeline) {
    daemon.tell("block 6");
    shown(seen, ("health", "Event-loop lag"), |rows| highest(rows) > 2_000.0).await;
    alerted(seen, "event_loop_blocked", "warning", "pipe").await;
}

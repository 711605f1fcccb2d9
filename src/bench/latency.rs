//! From a sample to its row in SQL, at a steady rate.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::figures::{number, quantile};
use super::rows::Source;
use super::server::{Folder, Running, Server};
use crate::base::time::Clock;
use crate::config::{self, Config};
use crate::model::row::Row;
use crate::model::table::DAEMON_METRICS;
use crate::store;

/// Rows of one push.
const PUSH: u64 = 100;
/// Time between two probes; each is pushed like any other row and looked for by SQL.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// Longest wait for a probe.
const LIMIT: Duration = Duration::from_secs(30);

/// Latencies at one rate.
#[derive(Debug, Clone)]
pub struct Report {
    rate: u64,
    milliseconds: Vec<f64>,
    /// Age of the oldest record that waited in the spool, at its worst, seconds.
    oldest_seconds: f64,
    resident_bytes: u64,
}

impl Report {
    /// The figures as JSON.
    pub fn json(&self) -> Json {
        json!({
            "rows_per_second": self.rate,
            "probes": self.milliseconds.len(),
            "p50_ms": quantile(self.milliseconds.iter().copied(), 0.5),
            "p99_ms": quantile(self.milliseconds.iter().copied(), 0.99),
            "spool_oldest_seconds_max": self.oldest_seconds,
            "resident_bytes": self.resident_bytes,
        })
    }
}

/// Measures each of `rates` rows per second for `seconds`.
///
/// # Errors
/// QuestDB cannot be had, or a probe does not become visible.
pub async fn run(config: &Config, rates: &[u64], seconds: u64) -> anyhow::Result<Vec<Report>> {
    let folder = Folder::new(&config.data_dir)?;
    let server = Server::start(config, folder.path()).await?;
    let mut reports = Vec::new();
    let mut failed = None;
    for rate in rates {
        match measure(config, &folder, &server, *rate, seconds).await {
            Ok(report) => reports.push(report),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    server.stop().await;
    failed.map_or(Ok(reports), Err)
}

async fn measure(
    config: &Config,
    folder: &Folder,
    server: &Server,
    rate: u64,
    seconds: u64,
) -> anyhow::Result<Report> {
    // A flush timer as `dev` has it; the default of a second would be most of the latency.
    let writer = config::Writer { flush_interval: Duration::from_millis(200), ..config.writer };
    let running = Running::start(config, folder.path(), writer, server.state.clone()).await?;
    let clock = Clock::system();
    let tag = format!("rate{rate}");
    let mut source = Source::new(rate, &tag, clock.now());
    let mut report =
        Report { rate, milliseconds: Vec::new(), oldest_seconds: 0.0, resident_bytes: 0 };
    let mut tick = tokio::time::interval(Duration::from_secs_f64(number(PUSH) / number(rate)));
    let end = Instant::now() + Duration::from_secs(seconds);
    let load = async {
        while Instant::now() < end {
            tick.tick().await;
            running.queue.push(source.batch(usize::try_from(PUSH).unwrap_or(1)));
        }
    };
    let probes = async {
        let mut milliseconds = Vec::new();
        let (mut oldest, mut resident) = (0.0_f64, 0);
        while Instant::now() < end {
            let probe = probe(server, &running, &clock, &tag).await?;
            milliseconds.push(probe);
            oldest = oldest.max(running.stats.spool().oldest_age_seconds);
            resident = resident.max(super::figures::resident_bytes());
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
        anyhow::Ok((milliseconds, oldest, resident))
    };
    let ((), probed) = tokio::join!(load, probes);
    running.stop().await;
    (report.milliseconds, report.oldest_seconds, report.resident_bytes) = probed?;
    Ok(report)
}

/// Pushes one row and returns how long it took until SQL shows it, milliseconds.
async fn probe(
    server: &Server,
    running: &Running,
    clock: &Clock,
    tag: &str,
) -> anyhow::Result<f64> {
    let at = clock.now();
    let row = Row::new(&DAEMON_METRICS, at)
        .with("daemon", format!("{tag}-probe"))
        .with("host", "bench")
        .with("env", "dev")
        .with("fetch_count", at.nanos());
    let started = Instant::now();
    running.queue.push(vec![row]);
    let sql = format!(
        "select count() from daemon_metrics where daemon = '{tag}-probe' and fetch_count = {} \
         and timestamp > dateadd('m', -1, now())",
        at.nanos()
    );
    loop {
        let answer = store::read::query(&server.endpoint, &sql, Duration::from_secs(10)).await?;
        let cell = answer.rows.first().and_then(|row| row.first()).cloned().flatten();
        if cell.is_some_and(|count| count != "0") {
            return Ok(started.elapsed().as_secs_f64() * 1e3);
        }
        anyhow::ensure!(started.elapsed() < LIMIT, "a row was not visible within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

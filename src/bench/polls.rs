//! Polls with everything (request, parse, map, row, queue) against the HTTP client
//! alone, which asks for the same documents at the same pace and parses them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::children;
use super::figures::{Stretch, Watch, median};
use super::server::Folder;
use crate::base::health::Board;
use crate::base::http::{Client, Limits};
use crate::base::metrics::Metrics;
use crate::base::tasks::{OnPanic, Tasks, spawn_detached};
use crate::base::time::Clock;
use crate::collect::task::{Collector, Setup};
use crate::config::{Config, Daemon, Source};
use crate::model::table::DAEMON_METRICS;
use crate::store::queue::{Next, channel};
use crate::supervise;

/// Daemons, polled at the shortest interval that a configuration allows.
const DAEMONS: usize = 200;
const INTERVAL: Duration = Duration::from_millis(100);
/// Length of one stretch; the two sides take turns.
const STRETCH: Duration = Duration::from_secs(2);

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    ours: Vec<Stretch>,
    bare: Vec<Stretch>,
}

impl Report {
    /// The figures as JSON.
    pub fn json(&self) -> Json {
        let middle = |side: &[Stretch], of: fn(&Stretch) -> f64| median(side.iter().map(of));
        let pairs = self.ours.iter().zip(&self.bare);
        let ratio = pairs.map(|(ours, bare)| ours.per_cpu_second() / bare.per_cpu_second());
        json!({ "polls": {
            "ratio": median(ratio),
            "polls_per_cpu_second": middle(&self.ours, Stretch::per_cpu_second),
            "bare_polls_per_cpu_second": middle(&self.bare, Stretch::per_cpu_second),
            "polls_per_second": middle(&self.ours, Stretch::per_second),
            "daemons": DAEMONS,
            "interval_ms": INTERVAL.as_millis(),
            "stretches": self.ours.len(),
        }})
    }
}

/// Measures for about `seconds`.
///
/// # Errors
/// The simulated daemons cannot be started.
pub async fn run(config: &Config, seconds: u64) -> anyhow::Result<Report> {
    let folder = Folder::new(&config.data_dir)?;
    let spawner = supervise::spawner::start().context("start the thread that forks")?;
    let (mut daemons, urls) = children::simulated(&spawner, folder.path(), DAEMONS).await?;
    let mut report = Report { ours: Vec::new(), bare: Vec::new() };
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end || report.ours.is_empty() {
        report.ours.push(ours(config, folder.path(), &urls).await?);
        report.bare.push(bare(&urls).await?);
    }
    daemons.end(Duration::from_secs(2)).await;
    Ok(report)
}

async fn ours(
    config: &Config,
    folder: &std::path::Path,
    urls: &[String],
) -> anyhow::Result<Stretch> {
    let (metrics, clock) = (Metrics::new(), Clock::system());
    let (queue, rows) = channel(1_000_000, &metrics);
    let daemons = urls.iter().enumerate().map(|(index, url)| Daemon {
        name: format!("daemon-{index}"),
        source: Source::http(url),
        interval: INTERVAL,
        timeout: INTERVAL,
        map: None,
    });
    let setup = Setup {
        collect: config.collect,
        daemons: daemons.collect(),
        node: config.node.clone(),
        run_dir: folder.join("run"),
        data_dir: folder.to_owned(),
        board: Board::new(clock.clone()),
        client: Client::new()?,
        metrics,
        clock,
        seed: 1,
    };
    let collector = Collector::new(setup, queue);
    let tasks = Tasks::new(CancellationToken::new());
    let watch = Watch::start();
    tasks.spawn("collect", OnPanic::Log, collector.run(tasks.clone()));
    let counter = tokio::task::spawn_blocking(move || {
        let mut polls = 0_u64;
        loop {
            match rows.next(Duration::from_millis(100)) {
                Next::Rows(entries) => {
                    let polled = |row: &&crate::model::row::Row| {
                        std::ptr::eq(row.table, &raw const DAEMON_METRICS)
                    };
                    let rows = entries.iter().flat_map(|entry| &entry.rows);
                    polls += u64::try_from(rows.filter(polled).count()).unwrap_or(0);
                }
                Next::Nothing => {}
                Next::Ended => return polls,
            }
        }
    });
    tokio::time::sleep(STRETCH).await;
    tasks.stop(Duration::from_secs(5)).await;
    let polls = counter.await?;
    Ok(watch.stop(polls))
}

/// The same requests at the same pace, each on its own timer.
async fn bare(urls: &[String]) -> anyhow::Result<Stretch> {
    let client = Client::new()?;
    let limits = Limits { time: Duration::from_secs(2), body: 1 << 20 };
    let watch = Watch::start();
    let end = Instant::now() + STRETCH;
    let loops = urls.iter().cloned().map(|url| {
        let client = client.clone();
        spawn_detached(async move {
            let mut polls = 0_u64;
            let mut ticks = tokio::time::interval(INTERVAL);
            while Instant::now() < end {
                ticks.tick().await;
                let request = hyper::Request::get(&url).body(http_body_util::Full::default())?;
                let answer = client.send(request, limits).await?;
                // A restarting daemon answers 503 without a document: a poll all the same.
                let _document = serde_json::from_slice::<Json>(&answer.body);
                polls += 1;
            }
            anyhow::Ok(polls)
        })
    });
    let loops: Vec<_> = loops.collect();
    let mut polls = 0;
    for running in loops {
        polls += running.await??;
    }
    Ok(watch.stop(polls))
}

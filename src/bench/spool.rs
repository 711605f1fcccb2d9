//! The spool alone (validate, encode, write, fdatasync) against a plain file that gets the same
//! batches with one fdatasync each.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use super::figures::{Stretch, Watch, median};
use super::rows::Source;
use super::server::{Folder, Running};
use crate::base::time::Clock;
use crate::config::{self, Config};
use crate::model::row::Row;
use crate::model::server::ServerState;
use crate::store::encode::{Body, table_id};

/// Rows per batch, on both sides of every comparison.
pub const BATCH: usize = 1_000;
/// Batches that wait for the disk at the same time.
pub const IN_FLIGHT: usize = 8;
/// Batches in one stretch; the two sides take turns.
const BATCHES: usize = 60;

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    ours: Vec<Stretch>,
    file: Vec<Stretch>,
}

impl Report {
    /// The figures as JSON.
    pub fn json(&self) -> Json {
        let middle = |side: &[Stretch], of: fn(&Stretch) -> f64| median(side.iter().map(of));
        let pairs = self.ours.iter().zip(&self.file);
        json!({ "spool": {
            "ratio": median(pairs.map(|(ours, file)| ours.per_second() / file.per_second())),
            "rows_per_second": middle(&self.ours, Stretch::per_second),
            "file_rows_per_second": middle(&self.file, Stretch::per_second),
            "cpu_seconds_per_million_rows": middle(&self.ours, Stretch::cpu_per_million),
            "batch_rows": BATCH,
            "stretches": self.ours.len(),
        }})
    }
}

/// Measures for about `seconds`.
///
/// # Errors
/// The folder cannot be written.
pub async fn run(config: &Config, seconds: u64) -> anyhow::Result<Report> {
    let mut report = Report { ours: Vec::new(), file: Vec::new() };
    let mut source = Source::new(1, "spool", Clock::system().now());
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end || report.ours.is_empty() {
        // A folder of its own for every stretch: nothing is delivered, and nothing piles up.
        let folder = Folder::new(&config.data_dir)?;
        let writer = config::Writer {
            batch_rows: BATCH,
            queue_rows: 2 * BATCH * IN_FLIGHT,
            ..config.writer
        };
        let (_nobody, state) = watch::channel(ServerState::absent());
        let running = Running::start(config, folder.path(), writer, state).await?;
        let batches: Vec<Vec<Row>> = (0..BATCHES).map(|_| source.batch(BATCH)).collect();
        let copies = batches.clone();
        let watch = Watch::start();
        push_all(&running, batches).await?;
        report.ours.push(watch.stop(rows_of(&copies)));
        running.stop().await;
        let path = folder.path().join("plain");
        let plain = tokio::task::spawn_blocking(move || plain_file(&path, &copies));
        report.file.push(plain.await??);
    }
    Ok(report)
}

/// Returns how many rows `batches` hold.
pub fn rows_of(batches: &[Vec<Row>]) -> u64 {
    batches.iter().map(|batch| u64::try_from(batch.len()).unwrap_or(0)).sum()
}

/// Pushes `batches`, a few at a time, and waits until all are on disk.
///
/// # Errors
/// The store refuses one.
pub async fn push_all(running: &Running, batches: Vec<Vec<Row>>) -> anyhow::Result<()> {
    let mut waiting = std::collections::VecDeque::new();
    for batch in batches {
        if waiting.len() == IN_FLIGHT {
            let oldest: tokio::task::JoinHandle<_> = waiting.pop_front().context("none waits")?;
            oldest.await??;
        }
        let queue = running.queue.clone();
        let push = async move { queue.push_durable(batch).await };
        waiting.push_back(crate::base::tasks::spawn_detached(push));
    }
    for push in waiting {
        push.await??;
    }
    Ok(())
}

/// The yardstick: encode with the same encoder, append, fdatasync.
fn plain_file(path: &std::path::Path, batches: &[Vec<Row>]) -> anyhow::Result<Stretch> {
    let mut file = std::fs::File::create(path)?;
    let watch = Watch::start();
    for batch in batches {
        let Some(table) = batch.first().map(|row| row.table) else { continue };
        let mut body = Body::new(table, table_id(table).context("the table has no id")?);
        for row in batch {
            body.add(row)?;
        }
        if let Some(draft) = body.take() {
            file.write_all(draft.body())?;
            file.sync_data()?;
        }
    }
    Ok(watch.stop(rows_of(batches)))
}

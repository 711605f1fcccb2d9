//! Memory of the program as it is: idle with 20 daemons, and with a backlog of a gibibyte.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Pid;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use super::children;
use super::figures::resident_bytes_of;
use super::rows::Source;
use super::server::{Folder, Running};
use super::spool::{BATCH, IN_FLIGHT, push_all};
use crate::base::time::Clock;
use crate::config::{self, Config};
use crate::model::server::ServerState;
use crate::supervise::spawner::Spawner;
use crate::{cli, supervise};

const DAEMONS: usize = 20;
/// Size of the backlog, bytes.
const BACKLOG: u64 = 1 << 30;

/// What one run of the program took.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Largest resident memory seen, bytes.
    resident_bytes: u64,
    /// From the start of the process to the first durable sample.
    first_sample: Duration,
}

/// Measures each state for `seconds`.
///
/// # Errors
/// The program does not start, or the disk has no room for the backlog.
pub async fn run(config: &Config, seconds: u64) -> anyhow::Result<Json> {
    let folder = Folder::new(&config.data_dir)?;
    let spawner = supervise::spawner::start().context("start the thread that forks")?;
    let (mut daemons, urls) = children::simulated(&spawner, folder.path(), DAEMONS).await?;
    let idle = folder.path().join("idle");
    let idle = periscope(&spawner, &idle, &urls, seconds).await?;
    let full = folder.path().join("full");
    fill(config, &full).await?;
    let full = periscope(&spawner, &full, &urls, seconds).await?;
    daemons.end(Duration::from_secs(2)).await;
    Ok(json!({ "memory": {
        "daemons": DAEMONS,
        "idle_resident_bytes": idle.resident_bytes,
        "idle_first_sample_seconds": idle.first_sample.as_secs_f64(),
        "backlog_bytes": BACKLOG,
        "backlog_resident_bytes": full.resident_bytes,
        "backlog_first_sample_seconds": full.first_sample.as_secs_f64(),
    }}))
}

/// Fills a spool with a backlog that nobody takes.
async fn fill(config: &Config, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let (_nobody, state) = watch::channel(ServerState::absent());
    let writer = config::Writer { queue_rows: 2 * BATCH * IN_FLIGHT, ..config.writer };
    let mut config = config.clone();
    config.spool.max_bytes = 2 * BACKLOG;
    let running = Running::start(&config, folder, writer, state).await?;
    let mut source = Source::new(1, "backlog", Clock::system().now());
    while running.stats.spool().bytes < BACKLOG {
        push_all(&running, (0..4 * IN_FLIGHT).map(|_| source.batch(BATCH)).collect()).await?;
    }
    running.stop().await;
    Ok(())
}

/// Runs `periscope up` on `folder`, with a database that is away, and looks at its memory.
async fn periscope(
    spawner: &Spawner,
    folder: &Path,
    urls: &[String],
    seconds: u64,
) -> anyhow::Result<Run> {
    std::fs::create_dir_all(folder)?;
    let away = children::free_address()?;
    let mut settings = vec![
        "up".to_owned(),
        "--data-dir".to_owned(),
        folder.display().to_string(),
        "--set=listen.address=\"127.0.0.1:0\"".to_owned(),
        "--set=questdb.mode=\"remote\"".to_owned(),
        format!("--set=questdb.http=\"http://{away}\""),
        format!("--set=questdb.pg=\"{away}\""),
        "--set=grafana.mode=\"off\"".to_owned(),
        format!("--set=spool.max_bytes={}B", 4 * BACKLOG),
    ];
    for (index, url) in urls.iter().enumerate() {
        settings.push(format!("--set=daemon[{index}].name=\"daemon-{index}\""));
        settings.push(format!("--set=daemon[{index}].source=\"http\""));
        settings.push(format!("--set=daemon[{index}].url=\"{url}\""));
        settings.push(format!("--set=daemon[{index}].interval=\"1s\""));
    }
    let started = Instant::now();
    let mut child = children::start(spawner, "periscope", folder, &settings).await?;
    let pid = i32::try_from(child.pid()).ok().and_then(Pid::from_raw).context("no pid")?;
    let first_sample = loop {
        if cli::instance::durable_samples(folder).await > 0 {
            break started.elapsed();
        }
        anyhow::ensure!(started.elapsed() < Duration::from_secs(60), "no sample within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut resident_bytes = 0;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        resident_bytes = resident_bytes.max(resident_bytes_of(pid));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    child.end(Duration::from_secs(20)).await;
    Ok(Run { resident_bytes, first_sample })
}

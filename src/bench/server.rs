//! A QuestDB of the benchmark's own, run as `up` would run it, in a folder that is removed after it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use crate::base::health::Board;
use crate::base::http::Client;
use crate::base::metrics::Metrics;
use crate::base::tasks::{OnPanic, Tasks};
use crate::base::time::Clock;
use crate::config::{self, Config, Profile};
use crate::model::server::{Endpoint, ServerState};
use crate::store::queue::RowQueue;
use crate::store::task::{Setup, Stats, Store};
use crate::{store, supervise};
use tokio_util::sync::CancellationToken;

/// Longest wait for the server, a download included.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Longest wait for its end.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A folder beside the data folder, on the same disk, removed at the end.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes `DATA_DIR/bench-PID`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(data_dir: &Path) -> anyhow::Result<Self> {
        let folder = data_dir.join(format!("bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("create {}; name another --data-dir", folder.display()))?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "remove the benchmark's folder");
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    tasks: Tasks,
    /// Its state, for the store.
    pub state: watch::Receiver<ServerState>,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its version.
    pub version: String,
}

impl Server {
    /// Starts QuestDB in `folder` on free ports and waits until it answers.
    ///
    /// # Errors
    /// It cannot be had, or does not answer in time.
    pub async fn start(config: &Config, folder: &Path) -> anyhow::Result<Self> {
        let spawner = supervise::spawner::start().context("start the thread that forks")?;
        let clock = Clock::system();
        let questdb = config::Questdb {
            mode: config::Mode::Managed,
            http: "127.0.0.1:0".to_owned(),
            pg: "127.0.0.1:0".to_owned(),
            // What the data folder has got already is not got again.
            offline: config.questdb.offline.clone().or_else(|| cached(config)),
            ..config.questdb.clone()
        };
        let (sender, mut state) = watch::channel(ServerState::absent());
        let setup = supervise::task::Setup {
            config: questdb,
            profile: Profile::Dev,
            data_dir: folder.to_owned(),
            board: Board::new(clock.clone()),
            metrics: Metrics::new(),
            client: Client::new()?,
            spawner,
            seed: 1,
            clock,
        };
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn(
            "questdb",
            OnPanic::Log,
            supervise::task::run(setup, sender, tasks.stop_token()),
        );
        let ready = async {
            let found = state.wait_for(|state| state.ready().is_some()).await.ok()?;
            Some((found.endpoint.clone()?, found.version.clone().unwrap_or_default()))
        };
        let ready = tokio::time::timeout(START_LIMIT, ready).await.ok().flatten();
        let Some((endpoint, version)) = ready else {
            let reason = state.borrow().reason.clone();
            tasks.stop(STOP_LIMIT).await;
            anyhow::bail!("QuestDB did not start: {reason}");
        };
        Ok(Self { tasks, state, endpoint, version })
    }

    /// Runs a statement and returns its single number.
    ///
    /// # Errors
    /// The server refuses it or does not answer.
    pub async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let answer = store::read::query(&self.endpoint, sql, Duration::from_secs(60)).await?;
        let cell = answer.rows.first().and_then(|row| row.first()).cloned().flatten();
        cell.unwrap_or_default().parse().with_context(|| format!("no number from {sql}"))
    }

    /// Stops the server.
    pub async fn stop(self) {
        for task in self.tasks.stop(STOP_LIMIT).await {
            tracing::warn!(task, "still running");
        }
    }
}

fn cached(config: &Config) -> Option<PathBuf> {
    let folder = config.data_dir.join(format!("artifacts/questdb-{}", config.questdb.version));
    folder.is_dir().then_some(folder)
}

/// A store as the running program has it.
#[derive(Debug)]
pub struct Running {
    tasks: Tasks,
    /// Where rows go in.
    pub queue: RowQueue,
    /// What it has done.
    pub stats: Stats,
    stop: CancellationToken,
}

impl Running {
    /// Opens a store in `folder` that delivers to the server of `state`.
    ///
    /// # Errors
    /// The spool cannot be opened.
    pub async fn start(
        config: &Config,
        folder: &Path,
        writer: config::Writer,
        state: watch::Receiver<ServerState>,
    ) -> anyhow::Result<Self> {
        let clock = Clock::system();
        let metrics = Metrics::new();
        let setup = Setup {
            writer,
            spool: config.spool,
            retention: config.retention.clone(),
            node: config.node.clone(),
            data_dir: folder.to_owned(),
            metrics: metrics.clone(),
            board: Board::new(clock.clone()),
            client: Client::new()?,
            seed: 1,
            clock,
        };
        let store = tokio::task::spawn_blocking(move || Store::open(setup)).await??;
        let stats = store.stats();
        let (queue, rows) = store::queue::channel(writer.queue_rows, &metrics);
        let (tasks, stop) = (Tasks::new(CancellationToken::new()), CancellationToken::new());
        tasks.spawn("store", OnPanic::Log, store.run(rows, state, stop.clone()));
        Ok(Self { tasks, queue, stats, stop })
    }

    /// Ends the store; what is not delivered stays on disk.
    pub async fn stop(self) {
        drop(self.queue);
        self.stop.cancel();
        for task in self.tasks.join(STOP_LIMIT).await {
            tracing::warn!(task, "still running");
        }
    }
}

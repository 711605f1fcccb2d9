//! The owner task of `QuestDB`: entry point.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::database::Database;
use super::managed::{Managed, Supervision};
use super::policy::Limits;
use super::program::Program as _;
use super::publisher::Publisher;
use super::remote;
use super::spawner::Spawner;
use crate::artifact::questdb::Sources;
use crate::base::health::{Board, Health, Part};
use crate::base::http::Client;
use crate::base::metrics::Metrics;
use crate::base::time::Clock;
use crate::config::{self, Mode, Profile};
use crate::model::server::ServerState;

/// Everything that the task needs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// `[questdb]`
    pub config: config::Questdb,
    /// Whether a taken port may be replaced by a free one.
    pub profile: Profile,
    /// The data folder, absolute; this process holds its lock.
    pub data_dir: PathBuf,
    /// Where "now" comes from.
    pub clock: Clock,
    /// Told about [`Part::Questdb`].
    pub board: Board,
    /// `child_restarts` and `child_ready`.
    pub metrics: Metrics,
    /// For probes and downloads.
    pub client: Client,
    /// The thread that forks.
    pub spawner: Spawner,
    /// Of the jitter.
    pub seed: u64,
}

/// What a test may want otherwise.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Every time limit.
    pub limits: Limits,
    /// Where files come from.
    pub sources: Sources,
}

/// Runs `QuestDB` (or watches a remote one) until `stop`; returns after the child has ended.
pub async fn run(setup: Setup, state: watch::Sender<ServerState>, stop: CancellationToken) {
    run_with(setup, Options::default(), state, stop).await;
}

/// As [`run`], with other limits and sources.
pub async fn run_with(
    setup: Setup,
    options: Options,
    state: watch::Sender<ServerState>,
    stop: CancellationToken,
) {
    let (board, metrics) = (setup.board.clone(), setup.metrics.clone());
    let publisher = Publisher::new(Part::Questdb, Database::NAME, state, board, metrics);
    match setup.config.mode {
        Mode::Managed => {
            let (spawner, seed, limits) = (setup.spawner.clone(), setup.seed, options.limits);
            let supervision = Supervision { publisher, spawner, limits };
            let database = Database::new(setup, options);
            Box::pin(Managed::new(database, supervision, seed).run(stop)).await;
        }
        Mode::Remote => remote::run(&setup, &options.limits, &publisher, &stop).await,
        Mode::Off => {
            setup.board.set(Part::Questdb, Health::Off);
            stop.cancelled().await;
        }
    }
}

/// Waits `pause`; `false` when `stop` came first.
pub async fn rest(pause: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}

//! The owner task of Grafana: entry point.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::program::Grafana;
use super::remote;
use crate::artifact::grafana::Sources;
use crate::base::health::{Board, Health, Part};
use crate::base::http::Client;
use crate::base::metrics::Metrics;
use crate::config::{Config, Mode};
use crate::model::server::ServerState;
use crate::rules::rule::Rule;
use crate::supervise::managed::{Managed, Supervision};
use crate::supervise::policy::Limits;
use crate::supervise::program::Program as _;
use crate::supervise::publisher::Publisher;
use crate::supervise::spawner::Spawner;

/// Everything that the task needs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// All settings; this process holds the lock of their data folder.
    pub config: Config,
    /// The alert rules that Grafana is to evaluate.
    pub rules: Vec<Rule>,
    /// periscope's listener.
    pub listener: SocketAddr,
    /// The database that dashboards and rules read.
    pub questdb: watch::Receiver<ServerState>,
    /// Told about [`Part::Grafana`].
    pub board: Board,
    /// `child_restarts` and `child_ready`.
    pub metrics: Metrics,
    /// For probes and downloads.
    pub client: Client,
    /// The thread that forks.
    pub spawner: Spawner,
    /// Of the jitter.
    pub seed: u64,
    /// The dev loop: files whose changes are brought to it while it runs.
    pub live: Option<Live>,
}

/// What a test may want otherwise.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every time limit.
    pub limits: Limits,
    /// Where files come from.
    pub sources: Sources,
}

impl Default for Options {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        // A first start brings the database up to date: some seconds, more on a slow disk. A stop
        // takes two.
        let limits = Limits { start: seconds(180), stop: seconds(10), ..Limits::default() };
        Self { limits, sources: Sources::default() }
    }
}

/// Runs Grafana (or watches a remote one) until `stop`; returns after the child has ended.
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
    let publisher = Publisher::new(Part::Grafana, Grafana::NAME, state, board, metrics);
    match setup.config.grafana.mode {
        Mode::Managed => {
            let (spawner, seed, limits) = (setup.spawner.clone(), setup.seed, options.limits);
            let supervision = Supervision { publisher, spawner, limits };
            let grafana = Grafana::new(setup, options.sources);
            Box::pin(Managed::new(grafana, supervision, seed).run(stop)).await;
        }
        Mode::Remote => remote::run(&setup, &options.limits, &publisher, &stop).await,
        Mode::Off => {
            setup.board.set(Part::Grafana, Health::Off);
            stop.cancelled().await;
        }
    }
}

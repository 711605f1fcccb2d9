//! The owner task of `QuestDB`: entry point, and the one place that tells others about its state.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::managed::Managed;
use super::policy::Limits;
use super::remote;
use super::spawner::Spawner;
use crate::artifact::questdb::Sources;
use crate::base::health::{Board, Health, Part};
use crate::base::http::Client;
use crate::base::metrics::{Child, Metrics};
use crate::base::time::Clock;
use crate::config::{self, Mode, Profile};
use crate::model::server::{Phase, ServerState};

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
    let publisher = Publisher { state, board: setup.board.clone(), metrics: setup.metrics.clone() };
    match setup.config.mode {
        Mode::Managed => Box::pin(Managed::new(setup, options, publisher).run(stop)).await,
        Mode::Remote => remote::run(&setup, &options.limits, &publisher, &stop).await,
        Mode::Off => {
            publisher.board.set(Part::Questdb, Health::Off);
            stop.cancelled().await;
        }
    }
}

/// Tells state, board and metrics the same.
#[derive(Debug)]
pub(super) struct Publisher {
    state: watch::Sender<ServerState>,
    board: Board,
    metrics: Metrics,
}

impl Publisher {
    /// Sets the phase; `reason` is empty when ready.
    pub(super) fn phase(&self, phase: Phase, reason: &str) {
        self.change(|state| {
            state.phase = phase;
            reason.clone_into(&mut state.reason);
        });
        let reason = reason.to_owned();
        let health = match phase {
            Phase::Absent => Health::Off,
            Phase::Downloading | Phase::Starting | Phase::Stopping => {
                Health::Starting { doing: reason }
            }
            Phase::Ready => Health::Ok,
            Phase::Unhealthy => Health::Degraded { reason },
            Phase::Backoff | Phase::Broken => Health::Down { reason },
        };
        self.board.set(Part::Questdb, health);
        let label = Child { child: "questdb" };
        self.metrics.child_ready.get_or_create(&label).set(i64::from(phase == Phase::Ready));
    }

    /// Says how far the current phase is; too often for the log.
    pub(super) fn progress(&self, text: &str) {
        self.change(|state| text.clone_into(&mut state.reason));
    }

    /// Changes what is known besides the phase.
    pub(super) fn change(&self, change: impl FnOnce(&mut ServerState)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// Counts a restart.
    pub(super) fn restarted(&self) {
        self.change(|state| state.restarts += 1);
        self.metrics.child_restarts.get_or_create(&Child { child: "questdb" }).inc();
    }
}

/// Waits `pause`; `false` when `stop` came first.
pub(super) async fn rest(pause: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}

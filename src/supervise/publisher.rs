//! The one place that tells others how a server is.

use tokio::sync::watch;

use crate::base::health::{Board, Health, Part};
use crate::base::metrics::{Child, Metrics};
use crate::model::server::{Phase, ServerState};

/// Tells state, board and metrics the same.
#[derive(Debug)]
pub struct Publisher {
    /// Its part of the board.
    part: Part,
    /// Its label in metrics.
    label: Child,
    state: watch::Sender<ServerState>,
    board: Board,
    metrics: Metrics,
}

impl Publisher {
    /// Tells of `part`, called `name`.
    pub fn new(
        part: Part,
        name: &'static str,
        state: watch::Sender<ServerState>,
        board: Board,
        metrics: Metrics,
    ) -> Self {
        Self { part, label: Child { child: name }, state, board, metrics }
    }

    /// Sets the phase; `reason` is empty when all is well.
    pub fn phase(&self, phase: Phase, reason: &str) {
        self.change(|state| {
            state.phase = phase;
            reason.clone_into(&mut state.reason);
        });
        let is_whole = reason.is_empty();
        let reason = reason.to_owned();
        let health = match phase {
            Phase::Absent => Health::Off,
            Phase::Downloading | Phase::Starting | Phase::Stopping => {
                Health::Starting { doing: reason }
            }
            Phase::Ready if is_whole => Health::Ok,
            Phase::Ready | Phase::Unhealthy => Health::Degraded { reason },
            Phase::Backoff | Phase::Broken => Health::Down { reason },
        };
        self.board.set(self.part, health);
        let is_ready = i64::from(phase == Phase::Ready);
        self.metrics.child_ready.get_or_create(&self.label).set(is_ready);
    }

    /// Says how far the current phase is; too often for the log.
    pub fn progress(&self, text: &str) {
        self.change(|state| text.clone_into(&mut state.reason));
    }

    /// Changes what is known besides the phase.
    pub fn change(&self, change: impl FnOnce(&mut ServerState)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// Counts a restart.
    pub fn restarted(&self) {
        self.change(|state| state.restarts += 1);
        self.metrics.child_restarts.get_or_create(&self.label).inc();
    }
}

//! Grafana among the other parts: its owner is started, and waited for a moment.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

use super::Shared;
use crate::base::tasks::{OnPanic, Tasks};
use crate::config::{Config, Mode};
use crate::grafana::server::live::Live;
use crate::grafana::server::task::{self, Setup};
use crate::model::server::{Phase, ServerState};
use crate::rules::rule::Rule;
use crate::supervise::spawner::Spawner;

/// What Grafana works with besides the configuration.
#[derive(Debug)]
pub(super) struct Around {
    /// The thread that forks.
    pub(super) spawner: Spawner,
    /// periscope's listener, which its notifications go to.
    pub(super) listener: SocketAddr,
    /// The database that it reads.
    pub(super) questdb: watch::Receiver<ServerState>,
    /// What the dev loop looks at.
    pub(super) live: Option<Live>,
}

/// Starts the owner of Grafana, child or remote, with these alert rules; returns its state.
pub(super) fn start(
    shared: &Shared,
    around: Around,
    rules: Vec<Rule>,
    children: &Tasks,
) -> watch::Receiver<ServerState> {
    let (sender, receiver) = watch::channel(ServerState::absent());
    let setup = Setup {
        config: shared.config.clone(),
        rules,
        listener: around.listener,
        questdb: around.questdb,
        board: shared.board.clone(),
        metrics: shared.metrics.clone(),
        client: shared.client.clone(),
        spawner: around.spawner,
        seed: shared.seed,
        live: around.live,
    };
    let task = task::run(setup, sender, children.stop_token());
    // Everything works without dashboards; its panic is no reason to end.
    children.spawn("grafana", OnPanic::Log, task);
    receiver
}

/// Returns the state of Grafana, after a moment in which its address may become known.
pub(super) async fn known(
    config: &Config,
    mut grafana: watch::Receiver<ServerState>,
) -> ServerState {
    if config.grafana.mode == Mode::Managed {
        let is_known = |state: &ServerState| {
            state.endpoint.is_some() || matches!(state.phase, Phase::Backoff | Phase::Broken)
        };
        // One that has to be downloaded is not waited for: nothing needs it.
        let limit = Duration::from_secs(1);
        if let Ok(Ok(state)) = tokio::time::timeout(limit, grafana.wait_for(is_known)).await {
            return state.clone();
        }
    }
    grafana.borrow().clone()
}

//! Joins alerting with what it watches and whom it tells.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::report::Reporter;
use crate::alert::channel::Channel;
use crate::alert::engine::memory::Inbox;
use crate::alert::grafana::Watched;
use crate::alert::outbox::deliver::Transport;
use crate::alert::task::{Alerting, Handle, Setup};
use crate::alert::vitals;
use crate::base::files::real::RealFiles;
use crate::base::tasks::{OnPanic, Tasks};
use crate::config::{Config, Mode};
use crate::model::server::ServerState;
use crate::rules::rule::Rule;
use crate::store::queue::RowQueue;
use crate::store::stats::Stats;
use crate::web;

/// What alerting is joined with.
pub(super) struct Parts {
    /// In order of preference.
    pub(super) channels: Vec<Channel>,
    pub(super) rules: Vec<Rule>,
    pub(super) inbox: Inbox,
    pub(super) queue: RowQueue,
    pub(super) stats: Stats,
    pub(super) questdb: watch::Receiver<ServerState>,
    /// What the owner of Grafana says; `None`: nobody runs one.
    pub(super) grafana: Option<watch::Receiver<ServerState>>,
    /// Where the listener is, `host:port`.
    pub(super) address: String,
}

/// Opens alerting; it does nothing yet.
pub(super) async fn open(shared: &Shared, parts: Parts) -> anyhow::Result<Alerting> {
    let config = &shared.config;
    let transport = |channel: Channel| -> Arc<dyn Transport> { Arc::new(channel) };
    let setup = Setup {
        alerts: config.alerts.clone(),
        rules: parts.rules,
        node: config.node.clone(),
        all_hosts: config.alerts.all_hosts.unwrap_or(config.questdb.mode == Mode::Managed),
        files: Arc::new(RealFiles),
        data_dir: config.data_dir.clone(),
        channels: parts.channels.into_iter().map(transport).collect(),
        grafana: watched(config, parts.grafana),
        questdb: parts.questdb,
        stats: parts.stats,
        inbox: parts.inbox,
        queue: parts.queue,
        link: Some(format!("http://{}/", parts.address)),
        client: shared.client.clone(),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
        board: shared.board.clone(),
        seed: shared.seed,
    };
    // Reads and writes the journal.
    tokio::task::spawn_blocking(move || Alerting::open(setup)).await.context("open the journal")
}

/// Returns where to learn how Grafana is. A child that nobody runs is none.
fn watched(config: &Config, state: Option<watch::Receiver<ServerState>>) -> Watched {
    let has_owner = state.is_some();
    let state = state.unwrap_or_else(|| watch::channel(ServerState::absent()).1);
    Watched {
        mode: match config.grafana.mode {
            Mode::Managed if !has_owner => Mode::Off,
            mode @ (Mode::Managed | Mode::Remote | Mode::Off) => mode,
        },
        url: config.grafana.url.clone(),
        login: config.grafana.login.clone(),
        state,
    }
}

/// Reads the JSON of a request.
fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Joins alerting with the listener.
pub(super) fn site(handle: &Handle, queue: RowQueue) -> web::task::Alerts {
    let (list, ask) = (handle.clone(), handle.clone());
    web::task::Alerts {
        list: Arc::new(move || list.everything()),
        ask: Arc::new(move |what, body: Bytes| {
            let (handle, queue) = (ask.clone(), queue.clone());
            Box::pin(async move {
                match what {
                    web::task::Ask::Mute => {
                        let id = handle.mute(parsed(&body)?).await?;
                        Ok(json!({ "id": id }))
                    }
                    web::task::Ask::Unmute => {
                        let ended = handle.unmute(parsed(&body)?).await?;
                        Ok(json!({ "ended": ended }))
                    }
                    web::task::Ask::Webhook => {
                        let (answer, rows) = handle.webhook(&body).await?;
                        queue.push(rows);
                        Ok(answer)
                    }
                }
            })
        }),
    }
}

/// Starts what tells the outside that all of this moves: heartbeat and watchdog.
pub(super) fn tell_outside(shared: &Shared, reporter: &Reporter, handle: &Handle, tasks: &Tasks) {
    let (feeding, stop): (_, CancellationToken) = (handle.clone(), tasks.stop_token());
    tasks.spawn("watchdog", OnPanic::Log, vitals::watchdog(move || feeding.stuck(), stop));
    if shared.config.heartbeat.urls.is_empty() {
        return;
    }
    let (reporter, handle, clock) = (reporter.clone(), handle.clone(), shared.clock.clone());
    let mut progress = vitals::Progress::default();
    let well = move || {
        let mut stuck = handle.stuck();
        stuck.extend(progress.stuck(&reporter.report(), clock.now()));
        stuck
    };
    let config = shared.config.heartbeat.clone();
    let (client, metrics) = (shared.client.clone(), shared.metrics.clone());
    let heartbeat = vitals::heartbeat(config, client, metrics, well, tasks.stop_token());
    tasks.spawn("heartbeat", OnPanic::Log, heartbeat);
}

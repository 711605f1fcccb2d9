//! `periscope up`, `dev`, `simulate` and `fetch`: what stays, and what it needs.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;

use super::exit::{Exit, Failure};
use super::{Global, log, output};
use crate::artifact;
use crate::base::tasks::{StopSignals, spawn_detached};
use crate::collect::simulate;
use crate::config::Profile;
use tokio_util::sync::CancellationToken;

#[derive(Debug, clap::Args)]
pub(super) struct SimulateArguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:7481", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// How many daemons
    #[arg(long, default_value_t = simulate::Options::default().daemons)]
    daemons: usize,
    /// Equal seeds give equal documents
    #[arg(long, default_value_t = simulate::Options::default().seed)]
    seed: u64,
}

pub(super) fn up(global: &Global, remote: bool) -> anyhow::Result<Exit> {
    start(global, Profile::Up, remote)
}

pub(super) fn dev(global: &Global) -> anyhow::Result<Exit> {
    start(global, Profile::Dev, false)
}

fn start(global: &Global, profile: Profile, remote: bool) -> anyhow::Result<Exit> {
    let loaded = global.load(profile, remote)?;
    let _lines = log::start(global.log_format, global.verbosity());
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(file) = &loaded.file {
        tracing::info!(file = %file.display(), "configuration");
    }
    crate::app::run(loaded.config)
}

/// Serves the simulated daemons until SIGINT or SIGTERM.
pub(super) fn simulate(global: &Global, arguments: &SimulateArguments) -> anyhow::Result<Exit> {
    let _lines = log::start(global.log_format, global.verbosity());
    let options = simulate::Options { daemons: arguments.daemons, seed: arguments.seed };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = StopSignals::install().context("take over the stop signals")?;
        let listener = tokio::net::TcpListener::bind(arguments.listen).await.map_err(|error| {
            Failure::error(Exit::CannotCreate, format!("listen on {}: {error}", arguments.listen))
        })?;
        let address = listener.local_addr()?;
        for name in simulate::names(options) {
            output::line(&format!("http://{address}/{name}/status"));
        }
        let stop = CancellationToken::new();
        let server = spawn_detached(simulate::serve(listener, options, stop.clone()));
        let signal = signals.next().await;
        tracing::info!(signal, "stopping");
        stop.cancel();
        server.await.context("stop the simulated daemons")?;
        Ok(Exit::Done)
    })
}

/// Gets QuestDB into the data folder's `artifacts/`.
pub(super) fn fetch(global: &Global, from: Option<PathBuf>) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let _lines = log::start(global.log_format, global.verbosity());
    let mut questdb = config.questdb;
    if from.is_some() {
        questdb.offline = from;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let installed = runtime.block_on(async {
        let mut signals = StopSignals::install().context("take over the stop signals")?;
        let stop = CancellationToken::new();
        let request = artifact::questdb::Request::of(&questdb, &config.data_dir);
        let bar = artifact::progress::Bar::new();
        let client = crate::base::http::Client::new()?;
        let show = |progress| bar.show(&progress);
        tokio::select! {
            installed = artifact::questdb::acquire(&request, &client, &stop, &show) => {
                installed.map_err(|error| Failure::error(Exit::Unavailable, error.to_string()))
            }
            signal = signals.next() => {
                stop.cancel();
                Err(Failure::error(Exit::Failure, format!("stopped by {signal}")))
            }
        }
    })?;
    output::line(&format!("QuestDB {} is in place ({})", installed.version, installed.source));
    Ok(Exit::Done)
}

//! `periscope up`, `dev`, `simulate` and `fetch`: what stays, and what it needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::exit::{Exit, Failure};
use super::{Global, log, output};
use crate::artifact;
use crate::artifact::acquired::AcquireError;
use crate::base::tasks::{StopSignals, spawn_detached};
use crate::collect::simulate;
use crate::config::{Config, Mode, Profile};
use crate::grafana::server::live::Live;
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
    let live = (profile == Profile::Dev).then(|| live(global, loaded.file)).transpose()?;
    crate::app::run(loaded.config, live)
}

/// Returns what `dev` brings to Grafana when it changes: ./dashboards, and the configuration's rules.
fn live(global: &Global, config: Option<PathBuf>) -> anyhow::Result<Live> {
    let here = std::env::current_dir().context("read the current folder")?;
    let global = global.clone();
    let rules = move || {
        let loaded = global.load(Profile::Dev, false).map_err(|error| error.to_string())?;
        crate::rules::of(&loaded.config).map_err(|problems| problems.to_string())
    };
    Ok(Live { dashboards: here.join("dashboards"), config, rules: Arc::new(rules) })
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

/// Gets QuestDB and Grafana into the data folder's `artifacts/`.
pub(super) fn fetch(global: &Global, from: Option<PathBuf>) -> anyhow::Result<Exit> {
    let mut config = global.config()?;
    let _lines = log::start(global.log_format, global.verbosity());
    if from.is_some() {
        config.questdb.offline.clone_from(&from);
        config.grafana.offline = from;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut signals = StopSignals::install().context("take over the stop signals")?;
        let stop = CancellationToken::new();
        tokio::select! {
            fetched = Box::pin(fetch_all(&config, &stop)) => fetched,
            signal = signals.next() => {
                stop.cancel();
                Err(Failure::error(Exit::Failure, format!("stopped by {signal}")))
            }
        }
    })
}

async fn fetch_all(config: &Config, stop: &CancellationToken) -> anyhow::Result<Exit> {
    let client = crate::base::http::Client::new()?;
    let bar = artifact::progress::Bar::new();
    let show = |progress| bar.show(&progress);
    let refused = |error: AcquireError| Failure::error(Exit::Unavailable, error.to_string());
    if config.questdb.mode == Mode::Managed {
        let request = artifact::questdb::Request::of(&config.questdb, &config.data_dir);
        let installed = artifact::questdb::acquire(&request, &client, stop, &show).await;
        let installed = installed.map_err(refused)?;
        output::line(&format!("QuestDB {} is in place ({})", installed.version, installed.source));
    }
    if config.grafana.mode == Mode::Managed {
        let request = artifact::grafana::Request::of(&config.grafana, &config.data_dir);
        let installed = artifact::grafana::acquire(&request, &client, stop, &show).await;
        let installed = installed.map_err(refused)?;
        output::line(&format!("Grafana {} is in place ({})", installed.version, installed.source));
    }
    Ok(Exit::Done)
}

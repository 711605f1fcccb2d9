//! The simulated daemons of `dev`: a process of its own, started again when it ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::base::backoff::Backoff;
use crate::base::tasks::{OnPanic, Tasks};
use crate::collect::simulate;
use crate::config::{Daemon, Profile, Source};
use crate::supervise::output::Sink;
use crate::supervise::spawner::{Launch, Spawner};

/// Longest wait for its end before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// Starts the simulator when `dev` has no daemon configured; returns its daemons as targets.
///
/// # Errors
/// No port is free, or the own executable cannot be found.
pub(super) async fn start(
    shared: &Shared,
    spawner: &Spawner,
    children: &Tasks,
) -> anyhow::Result<Vec<Daemon>> {
    let config = &shared.config;
    if config.profile != Profile::Dev || !config.daemons.is_empty() {
        return Ok(Vec::new());
    }
    // The port stays the same when the simulator is started again, so the targets stay valid.
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    let address = free.local_addr().context("read the free port")?;
    drop(free);
    let options = simulate::Options { seed: shared.seed, ..simulate::Options::default() };
    let launch = Launch {
        name: "simulator",
        program: std::env::current_exe().context("find the own executable")?,
        arguments: [
            "simulate".to_owned(),
            "--listen".to_owned(),
            address.to_string(),
            "--daemons".to_owned(),
            options.daemons.to_string(),
            "--seed".to_owned(),
            options.seed.to_string(),
        ]
        .map(Into::into)
        .into(),
        environment: Vec::new(),
        directory: config.data_dir.clone(),
        owner: config.data_dir.clone(),
        on_owner_death: Signal::KILL,
        oom_score_adj: 500,
        sink: Sink {
            file: config.data_dir.join("simulator.log"),
            log: |line| tracing::debug!(target: "simulator", "{line}"),
            is_wrong: |_| false,
        },
    };
    let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10), shared.seed);
    children.spawn(
        "simulator",
        OnPanic::Log,
        keep_running(spawner.clone(), launch, backoff, children.stop_token()),
    );
    Ok(targets(options, address, shared))
}

fn targets(options: simulate::Options, address: SocketAddr, shared: &Shared) -> Vec<Daemon> {
    let interval = shared.config.collect.interval;
    simulate::names(options)
        .into_iter()
        .map(|name| Daemon {
            source: Source::http(format!("http://{address}/{name}/status")),
            name,
            interval,
            timeout: interval / 2,
            map: None,
        })
        .collect()
}

async fn keep_running(
    spawner: Spawner,
    launch: Launch,
    mut backoff: Backoff,
    stop: CancellationToken,
) {
    loop {
        match spawner.spawn(launch.clone()).await {
            Ok(mut child) => {
                tokio::select! {
                    exit = child.wait() => tracing::warn!(?exit, "simulated daemons ended"),
                    () = stop.cancelled() => {
                        child.end(GRACE).await;
                        return;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "start the simulated daemons"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.after_failure()) => {}
            () = stop.cancelled() => return,
        }
    }
}

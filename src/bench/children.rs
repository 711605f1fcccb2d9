//! The programs that a benchmark needs beside itself: simulated daemons, and periscope as it is.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;

use crate::base::http::{Client, Limits};
use crate::collect::simulate;
use crate::supervise::child::Child;
use crate::supervise::output::Sink;
use crate::supervise::spawner::{Launch, Spawner};

const LIMITS: Limits = Limits { time: Duration::from_secs(2), body: 16 << 20 };
/// Longest wait for a program to answer.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Returns an address of loopback that was free a moment ago.
///
/// # Errors
/// No port is free.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a port")?;
    Ok(listener.local_addr()?)
}

/// Starts this executable with `arguments` in `folder`.
///
/// # Errors
/// It cannot be started.
pub async fn start(
    spawner: &Spawner,
    name: &'static str,
    folder: &Path,
    arguments: &[String],
) -> anyhow::Result<Child> {
    let launch = Launch {
        name,
        program: std::env::current_exe().context("find the own executable")?,
        arguments: arguments.iter().map(Into::into).collect(),
        environment: Vec::new(),
        directory: folder.to_owned(),
        owner: folder.to_owned(),
        on_owner_death: Signal::KILL,
        oom_score_adj: 500,
        sink: Sink {
            is_wrong: |_| false,
            file: folder.join(format!("{name}.log")),
            log: |line| tracing::trace!("{line}"),
        },
    };
    spawner.spawn(launch).await.with_context(|| format!("start {name}"))
}

/// Starts `daemons` simulated daemons and waits until they answer; returns their URLs.
///
/// # Errors
/// They do not start.
pub async fn simulated(
    spawner: &Spawner,
    folder: &Path,
    daemons: usize,
) -> anyhow::Result<(Child, Vec<String>)> {
    let address = free_address()?;
    let options = simulate::Options { daemons, seed: 1 };
    let arguments = ["simulate", "--listen", &address.to_string(), "--seed", "1", "--daemons"];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
    arguments.push(daemons.to_string());
    let child = start(spawner, "simulator", folder, &arguments).await?;
    let names = simulate::names(options);
    let urls: Vec<String> =
        names.iter().map(|name| format!("http://{address}/{name}/status")).collect();
    let first = urls.first().context("at least one daemon is needed")?;
    answering(first).await?;
    Ok((child, urls))
}

/// Waits until `url` answers.
///
/// # Errors
/// It does not within 20 s.
pub async fn answering(url: &str) -> anyhow::Result<()> {
    let client = Client::new()?;
    let started = std::time::Instant::now();
    loop {
        let request = hyper::Request::get(url).body(http_body_util::Full::default())?;
        match client.send(request, LIMITS).await {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > START_LIMIT => {
                anyhow::bail!("no answer within {START_LIMIT:?}: {error}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

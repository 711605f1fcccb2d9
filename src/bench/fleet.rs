//! The program as it is with a thousand daemons: how late its polls are, and what it takes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Pid;
use serde_json::{Value as Json, json};

use super::children;
use super::figures::{median, quantile, resident_bytes_of};
use super::server::{Folder, Server};
use crate::collect::process::ProcessWatch;
use crate::config::Config;
use crate::{cli, store, supervise};

const DAEMONS: usize = 1_000;
const INTERVAL: Duration = Duration::from_secs(1);
/// What is measured begins after the start.
const WARM_UP: Duration = Duration::from_secs(10);
/// How often the process is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Runs `periscope up` with a thousand daemons for `seconds`, on a real database.
///
/// # Errors
/// QuestDB cannot be had, or one of the programs does not start.
pub async fn run(config: &Config, seconds: u64) -> anyhow::Result<Json> {
    let folder = Folder::new(&config.data_dir)?;
    let spawner = supervise::spawner::start().context("start the thread that forks")?;
    let (mut daemons, urls) = children::simulated(&spawner, folder.path(), DAEMONS).await?;
    let server = Server::start(config, folder.path()).await?;
    let home = folder.path().join("fleet");
    std::fs::create_dir_all(&home)?;
    let file = home.join("periscope.toml");
    write_config(&file, &server, &urls)?;
    let arguments =
        ["up", "--data-dir", &home.display().to_string(), "--config", &file.display().to_string()]
            .map(str::to_owned);
    let mut child = children::start(&spawner, "periscope", &home, &arguments).await?;
    let measured = measure(&server, &home, child.pid(), seconds).await;
    child.end(Duration::from_secs(20)).await;
    server.stop().await;
    daemons.end(Duration::from_secs(2)).await;
    measured
}

/// Writes the configuration, which names the password of the database's user.
fn write_config(file: &Path, server: &Server, urls: &[String]) -> anyhow::Result<()> {
    let endpoint = &server.endpoint;
    let login = endpoint.admin.as_ref().context("the server has no user")?;
    let mut text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[grafana]\nmode = \"off\"\n\
         [questdb]\nmode = \"remote\"\nhttp = \"{}\"\npg = \"{}\"\nuser = \"{}\"\npassword = \"{}\"\n\
         [collect]\ninterval = \"{}s\"\n",
        endpoint.http,
        endpoint.pg,
        login.user,
        login.password.reveal(),
        INTERVAL.as_secs(),
    );
    for (index, url) in urls.iter().enumerate() {
        write!(text, "[[daemon]]\nname = \"d{index}\"\nsource = \"http\"\nurl = \"{url}\"\n")?;
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

async fn measure(server: &Server, home: &Path, pid: u32, seconds: u64) -> anyhow::Result<Json> {
    let started = Instant::now();
    while cli::instance::durable_samples(home).await < DAEMONS {
        anyhow::ensure!(started.elapsed() < Duration::from_secs(60), "not all polled in a minute");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(WARM_UP).await;
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no pid")?;
    let since = crate::base::time::Clock::system().now();
    let mut watch = ProcessWatch::default();
    let (mut cpu, mut resident) = (Vec::new(), 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if let Some(percent) = watch.look(pid).and_then(|process| process.cpu_percent) {
            cpu.push(percent);
        }
        resident = resident.max(resident_bytes_of(process));
        tokio::time::sleep(LOOK).await;
    }
    // What was polled last has to become visible.
    tokio::time::sleep(WARM_UP).await;
    let sql = format!(
        "select late from (select datediff('T', lag(timestamp) over (partition by daemon order by \
         timestamp), timestamp) - {} as late, timestamp from daemon_metrics where daemon like 'd%' \
         and timestamp > '{since}') where late is not null",
        INTERVAL.as_millis(),
    );
    let answer = store::read::query(&server.endpoint, &sql, Duration::from_secs(60)).await?;
    let late: Vec<f64> = answer
        .rows
        .iter()
        .filter_map(|row| row.first()?.as_ref()?.parse().ok())
        .map(|late: f64| late.max(0.0))
        .collect();
    anyhow::ensure!(!late.is_empty(), "no polls were stored");
    Ok(json!({ "fleet": {
        "daemons": DAEMONS,
        "interval_ms": INTERVAL.as_millis(),
        "polls": late.len(),
        "late_p50_ms": quantile(late.iter().copied(), 0.5),
        "late_p99_ms": quantile(late.iter().copied(), 0.99),
        "late_max_ms": quantile(late.iter().copied(), 1.0),
        "resident_bytes": resident,
        "cpu_percent": median(cpu),
    }}))
}

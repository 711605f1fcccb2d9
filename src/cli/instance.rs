//! Finding the running instance of a data folder and asking it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde::{Deserialize, Serialize};

use super::exit::{Exit, Failure};
use crate::base::http::{Answer, Client, Limits};
use crate::config::Config;
use crate::model::report::Report;
use crate::model::server::Endpoint;

/// What a running instance writes down for the other commands: `run/instance.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Process id.
    pub pid: u32,
    /// Where its listener is, `host:port`.
    pub address: String,
}

const LIMITS: Limits = Limits { time: Duration::from_secs(10), body: 64 << 20 };

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("run/instance.json")
}

/// Returns the instance on `data_dir` whose process is alive.
pub fn find(data_dir: &Path) -> Option<Instance> {
    let text = std::fs::read_to_string(path(data_dir)).ok()?;
    let instance: Instance = serde_json::from_str(&text).ok()?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(instance.pid).ok()?)?;
    rustix::process::test_kill_process(pid).is_ok().then_some(instance)
}

/// Whether an instance runs on `data_dir`.
pub fn runs(data_dir: &Path) -> bool {
    find(data_dir).is_some()
}

impl Instance {
    /// Writes `run/instance.json`, whole or not at all.
    ///
    /// # Errors
    /// The data folder cannot be written.
    pub fn publish(&self, data_dir: &Path) -> std::io::Result<()> {
        let target = path(data_dir);
        let partial = target.with_extension("partial");
        std::fs::write(&partial, serde_json::to_vec(self)?)?;
        std::fs::rename(partial, target)
    }

    /// Removes `run/instance.json`; a file that is gone already is fine.
    pub fn withdraw(data_dir: &Path) {
        if let Err(error) = std::fs::remove_file(path(data_dir)) {
            tracing::debug!(%error, "remove run/instance.json");
        }
    }
}

/// Asks the running instance of `config`'s data folder.
///
/// # Errors
/// None runs, or it does not answer ([`Exit::Unavailable`]); its refusal ([`Exit::Failure`]).
pub async fn ask(
    config: &Config,
    method: hyper::Method,
    route: &str,
    body: Bytes,
) -> anyhow::Result<Answer> {
    let Some(instance) = find(&config.data_dir) else {
        return Err(Failure::error(
            Exit::Unavailable,
            format!(
                "no periscope runs on {}: start one with `periscope up`, or name another folder with --data-dir",
                config.data_dir.display()
            ),
        ));
    };
    let mut request =
        hyper::Request::builder().method(method).uri(format!("http://{}{route}", instance.address));
    if let Some(token) = &config.listen.token {
        request = request.header("authorization", format!("Bearer {}", token.reveal()));
    }
    let request = request.body(Full::new(body))?;
    let unreachable = |error: &dyn std::fmt::Display| {
        Failure::error(
            Exit::Unavailable,
            format!("periscope (pid {}) does not answer: {error}", instance.pid),
        )
    };
    Client::new()?.send(request, LIMITS).await.map_err(|error| unreachable(&error))
}

/// Asks the running instance for its report.
///
/// # Errors
/// As [`ask`]; also an answer that is no report.
pub async fn report(config: &Config) -> anyhow::Result<Report> {
    let answer = ask(config, hyper::Method::GET, "/api/v1/status", Bytes::new()).await?;
    if !answer.status.is_success() {
        let hint = match answer.status.as_u16() {
            401 => ": set listen.token as the running instance has it",
            _ => "",
        };
        anyhow::bail!("GET /api/v1/status answered {}{hint}", answer.status);
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| anyhow::anyhow!("read the answer of GET /api/v1/status: {error}"))
}

/// Returns where the database is: as configured when remote, as the running instance says when
/// managed.
///
/// # Errors
/// Managed and no instance runs, or its server has not started yet.
pub async fn database(config: &Config) -> anyhow::Result<Endpoint> {
    if config.questdb.mode == crate::config::Mode::Remote {
        return Ok(crate::supervise::remote::endpoint(&config.questdb));
    }
    let report = report(config).await?;
    if report.mode == "remote" {
        return Err(Failure::error(
            Exit::Config,
            "the running instance uses a remote QuestDB: name its configuration with --config",
        ));
    }
    let (Some(http), Some(pg)) = (report.questdb.http, report.questdb.pg) else {
        return Err(Failure::error(
            Exit::Unavailable,
            format!("QuestDB is {}: {}", report.questdb.state, report.questdb.reason),
        ));
    };
    let credentials = crate::supervise::secrets::Credentials::load(&config.data_dir)?;
    Ok(Endpoint {
        http,
        pg,
        database: "qdb".to_owned(),
        admin: Some(credentials.http),
        reader: Some(credentials.pg_reader),
    })
}

/// Returns how many daemons of the instance on `data_dir` have a durable sample; 0 while it does not
/// answer.
pub async fn durable_samples(data_dir: &Path) -> usize {
    let Some(instance) = find(data_dir) else { return 0 };
    let url = format!("http://{}/api/v1/status", instance.address);
    let request = hyper::Request::get(url).body(Full::<Bytes>::default());
    let (Ok(request), Ok(client)) = (request, Client::new()) else { return 0 };
    let Ok(answer) = client.send(request, LIMITS).await else { return 0 };
    let report = serde_json::from_slice::<Report>(&answer.body);
    report.map_or(0, |report| {
        report.daemons.iter().filter(|daemon| daemon.last_durable_at.is_some()).count()
    })
}

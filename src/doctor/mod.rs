//! Layer 4: looks at everything that periscope needs, and tells of each thing that is wrong what was
//! seen, what causes it and the command that mends it. Nothing is changed and no message is sent.

mod channels;
mod daemons;
mod data;
mod finding;
mod machine;
mod servers;

use std::path::PathBuf;
use std::time::Duration;

pub use self::finding::{Finding, Level};
use crate::base::http::Client;
use crate::cli::instance;
use crate::config::load::Loaded;
use crate::model::report::Report;

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(10);

/// What is looked at.
#[derive(Debug)]
pub struct Setup {
    /// The configuration, with what its author should know.
    pub loaded: Loaded,
    /// Where systemd has the unit.
    pub unit: PathBuf,
}

/// The running instance, as far as there is one.
#[derive(Debug)]
enum Instance {
    /// None runs on the data folder.
    None,
    /// This is what it says.
    Answers(Box<Report>),
    /// Its process is there and does not answer; the words say how.
    Silent { pid: u32, words: String },
}

impl Instance {
    const fn report(&self) -> Option<&Report> {
        match self {
            Self::Answers(report) => Some(report),
            Self::None | Self::Silent { .. } => None,
        }
    }
}

/// Looks at everything; findings come in the order of the checks. Takes some ten seconds at most for
/// each server that does not answer.
///
/// # Errors
/// No request can be sent at all: the system's certificates cannot be read.
pub async fn examine(setup: &Setup) -> anyhow::Result<Vec<Finding>> {
    let config = &setup.loaded.config;
    let client = Client::new()?;
    let instance = match instance::find(&config.data_dir) {
        None => Instance::None,
        Some(found) => match instance::report(config).await {
            Ok(report) => Instance::Answers(Box::new(report)),
            Err(error) => Instance::Silent { pid: found.pid, words: format!("{error:#}") },
        },
    };
    let mut findings = data::configuration(&setup.loaded);
    findings.extend(data::folder(config));
    findings.extend(data::secrets(config));
    findings.extend(data::spool(config));
    findings.extend(data::unit(&setup.unit));
    findings.extend(machine::machine(config, instance.report().is_some()));
    findings.extend(machine::names(config).await);
    findings.extend(data::instance(&instance));
    findings.extend(servers::programs(config, &client).await);
    findings.extend(servers::ports(config, &instance));
    findings.extend(servers::questdb(config, &client, &instance).await);
    findings.extend(servers::grafana(config, &client, &instance).await);
    findings.extend(daemons::daemons(config, &client, &instance).await);
    findings.extend(channels::channels(config, &client).await);
    Ok(findings)
}

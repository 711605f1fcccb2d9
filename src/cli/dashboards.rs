//! `periscope dashboards`: dashboards between Grafana and files, in the form in which the
//! repository keeps them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use super::exit::{Exit, Failure};
use super::render::write_file;
use super::{Global, instance};
use crate::base::http::Client;
use crate::config::{Config, Login, Mode};
use crate::grafana::api::Api;
use crate::grafana::dashboards::{self, Datasource, json};
use crate::rules;
use crate::supervise::secrets::GrafanaSecrets;

/// Time limit of one request.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Writes every dashboard as it is handed to Grafana, thresholds of your rules included
    Export {
        /// Folder to write into; made if missing
        #[arg(default_value = "dashboards")]
        dir: PathBuf,
    },
    /// Brings a dashboard that was edited in Grafana into a file; dev shows what is in ./dashboards
    Import {
        /// Uid of a dashboard of the running Grafana, or a file that Grafana has exported
        from: String,
        /// Folder to write into; made if missing
        #[arg(long, value_name = "DIR", default_value = "dashboards")]
        into: PathBuf,
    },
}

pub(super) fn dashboards(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    let config = global.config()?;
    match command {
        Command::Export { dir } => export(&config, dir),
        Command::Import { from, into } => import(&config, from, into),
    }
}

fn export(config: &Config, dir: &Path) -> anyhow::Result<Exit> {
    let rules =
        rules::of(config).map_err(|problems| Failure::error(Exit::Config, problems.to_string()))?;
    let datasource = Datasource::named(&config.grafana.datasource).unwrap_or_default();
    for (name, text) in dashboards::render_for(datasource, &dashboards::thresholds(&rules)) {
        write_file(&dir.join(name), &text)?;
    }
    Ok(Exit::Done)
}

fn import(config: &Config, from: &str, into: &Path) -> anyhow::Result<Exit> {
    let is_file = from.ends_with(".json") || from.contains('/');
    let answer = if is_file {
        let text = std::fs::read_to_string(from).with_context(|| format!("read {from}"))?;
        serde_json::from_str(&text).with_context(|| format!("{from} is no JSON"))?
    } else {
        ask(config, from)?
    };
    let (name, text) = json::imported(answer)
        .map_err(|reason| Failure::error(Exit::Failure, format!("{from}: {reason}")))?;
    write_file(&into.join(name), &text)?;
    Ok(Exit::Done)
}

/// Asks the running or the remote Grafana for the dashboard `uid`.
fn ask(config: &Config, uid: &str) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (url, login) = match (config.grafana.mode, &config.grafana.url) {
            (Mode::Remote, Some(url)) => (url.clone(), config.grafana.login.clone()),
            (Mode::Managed | Mode::Remote | Mode::Off, _) => {
                let report = instance::report(config).await?;
                let url = report.grafana.http.ok_or_else(|| {
                    let message = format!("grafana is {}", report.grafana.state);
                    Failure::error(Exit::Unavailable, message)
                })?;
                let admin = GrafanaSecrets::load(&config.data_dir)?.admin;
                (url, Some(Login::Basic { user: admin.user, password: admin.password }))
            }
        };
        let api = Api::new(Client::new()?, &url, login.as_ref(), LIMIT)?;
        let path = format!("/api/dashboards/uid/{}", crate::grafana::remote::plan::percent(uid));
        let answer = api.get(&path).await;
        answer.map_err(|error| Failure::error(Exit::Unavailable, error.to_string()))
    })
}

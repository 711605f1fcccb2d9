//! `periscope grafana`: what a Grafana that runs elsewhere lacks, brought to it and taken from it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::{Global, output};
use crate::base::http::Client;
use crate::config::{Config, Mode};
use crate::grafana::api::{Api, ApiError};
use crate::grafana::provision::Settings;
use crate::grafana::provision::inputs;
use crate::grafana::provision::ledger::Ledger;
use crate::grafana::remote::apply::{self, ApplyError};
use crate::grafana::remote::desired::{Object, desired};
use crate::grafana::remote::plan::{Change, Step, plan};
use crate::rules;
use crate::supervise;
use crate::supervise::secrets::Credentials;

/// Time limit of one request.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows what apply and prune would do; changes nothing
    Diff {
        /// Ends with 3 if anything differs
        #[arg(long)]
        exit_code: bool,
    },
    /// Makes and changes what differs; removes nothing
    Apply,
    /// Removes what periscope has made there and the configuration no longer wants
    Prune,
}

/// Everything that a command works with.
struct Work {
    api: Api,
    desired: Vec<Object>,
    ledger: Ledger,
    path: PathBuf,
}

pub(super) fn grafana(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let mut work = prepare(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let steps = plan(&work.api, &work.desired, &work.ledger).await;
        let steps = steps.map_err(|error| unavailable(&error))?;
        show(&steps);
        match command {
            Command::Diff { exit_code } => {
                let differs = steps.iter().any(|step| step.change != Change::Same);
                Ok(if *exit_code && differs { Exit::Degraded } else { Exit::Done })
            }
            Command::Apply => {
                let Work { api, desired, ledger, path } = &mut work;
                let done = apply::apply(api, desired, &steps, ledger, path).await;
                let done = done.map_err(|error| refused(&error))?;
                output::line(&format!("{done} brought to {}", api.base()));
                Ok(Exit::Done)
            }
            Command::Prune => {
                let Work { api, ledger, path, .. } = &mut work;
                let done = apply::prune(api, &steps, ledger, path).await;
                let done = done.map_err(|error| refused(&error))?;
                output::line(&format!("{done} removed from {}", api.base()));
                Ok(Exit::Done)
            }
        }
    })
}

fn unavailable(error: &ApiError) -> anyhow::Error {
    Failure::error(Exit::Unavailable, error.to_string())
}

fn refused(error: &ApplyError) -> anyhow::Error {
    let exit = match error {
        ApplyError::Api { .. } => Exit::Unavailable,
        ApplyError::Ledger(_) => Exit::CannotCreate,
    };
    Failure::error(exit, error.to_string())
}

fn prepare(config: &Config) -> anyhow::Result<Work> {
    let (Mode::Remote, Some(url)) = (config.grafana.mode, &config.grafana.url) else {
        let message = "grafana.mode is not \"remote\": a managed Grafana gets its files at every \
                       start of periscope";
        return Err(Failure::error(Exit::Config, message));
    };
    if config.grafana.login.is_none() {
        let message = "there is no grafana.token: make a service account with the role Admin there \
                       and set its token";
        return Err(Failure::error(Exit::Config, message));
    }
    let questdb = match config.questdb.mode {
        Mode::Remote => supervise::remote::endpoint(&config.questdb),
        Mode::Managed | Mode::Off => {
            let mut endpoint = supervise::remote::endpoint(&config.questdb);
            let credentials = Credentials::load(&config.data_dir)
                .context("read the passwords of QuestDB: `periscope up` makes them")?;
            endpoint.reader = Some(credentials.pg_reader);
            endpoint
        }
    };
    for warning in inputs::unreachable(url, &questdb, config.listen.address) {
        output::error_line(&format!("warning: {warning}"));
    }
    let settings = Settings::for_api(config, config.listen.address, questdb);
    let rules =
        rules::of(config).map_err(|problems| Failure::error(Exit::Config, problems.to_string()))?;
    let api = Api::new(Client::new()?, url, config.grafana.login.as_ref(), LIMIT)
        .map_err(|error| Failure::error(Exit::Config, error.to_string()))?;
    let path = Ledger::remote_path(&config.data_dir);
    let ledger = Ledger::of_remote(&path, url)
        .map_err(|error| Failure::error(Exit::CannotCreate, error.to_string()))?;
    Ok(Work { api, desired: desired(&settings, &rules), ledger, path })
}

/// Prints what differs, and how much does not.
fn show(steps: &[Step]) {
    let mut rows = Vec::new();
    for step in steps {
        let (word, detail) = match &step.change {
            Change::Same => continue,
            Change::Create => ("create", String::new()),
            Change::Update(paths) => ("update", some(paths)),
            Change::Foreign(reason) => ("left alone", reason.clone()),
            Change::Remove => ("remove", "by prune".to_owned()),
        };
        let cells = [word, step.kind.words(), &step.title, &step.uid].map(str::to_owned);
        rows.push([cells.to_vec(), vec![detail]].concat());
    }
    let same = steps.iter().filter(|step| step.change == Change::Same).count();
    if !rows.is_empty() {
        output::line(&output::table(&["CHANGE", "KIND", "NAME", "UID", "DETAIL"], &rows));
    }
    output::line(&format!("{} differ, {same} are as they should be", rows.len()));
}

/// Returns the first few of `paths`.
fn some(paths: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = paths.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match paths.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

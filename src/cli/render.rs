//! `periscope render`: the files that `up` would hand to the servers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::exit::{Exit, Failure};
use super::{Global, output};
use crate::config::{Config, Mode};
use crate::grafana::dashboards;
use crate::grafana::provision::bundle::bundle;
use crate::grafana::provision::ini;
use crate::grafana::provision::inputs::Place;
use crate::grafana::provision::ledger::Ledger;
use crate::grafana::provision::{Settings, write};
use crate::model::server::Endpoint;
use crate::rules::{self, catalog};
use crate::supervise;
use crate::supervise::secrets::{Credentials, GrafanaSecrets};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Folder to write into; made if missing
    #[arg(required_unless_present = "dashboards")]
    dir: Option<PathBuf>,
    /// Writes the shipped dashboards alone, as they stand in the repository (default: ./dashboards)
    #[arg(long)]
    dashboards: bool,
}

pub(super) fn render(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let dir = arguments.dir.clone().unwrap_or_else(|| PathBuf::from("dashboards"));
    if arguments.dashboards {
        return shipped(&dir);
    }
    let config = global.config()?;
    let dir = std::path::absolute(&dir).with_context(|| format!("find {}", dir.display()))?;
    let questdb = questdb(&config, &dir)?;
    if config.grafana.mode != Mode::Off {
        grafana(&config, questdb, &dir)?;
    }
    Ok(Exit::Done)
}

/// Writes the dashboards with the thresholds of the shipped rules.
fn shipped(dir: &Path) -> anyhow::Result<Exit> {
    let rules = catalog::shipped()
        .map_err(|problems| Failure::error(Exit::Internal, problems.to_string()))?;
    for (name, text) in dashboards::render(&dashboards::thresholds(&rules)) {
        write_file(&dir.join(name), &text)?;
    }
    Ok(Exit::Done)
}

/// Writes the files of a managed QuestDB; returns where the database is.
fn questdb(config: &Config, dir: &Path) -> anyhow::Result<Endpoint> {
    if config.questdb.mode == Mode::Remote {
        return Ok(supervise::remote::endpoint(&config.questdb));
    }
    let address = |key: &str, text: &str| -> anyhow::Result<SocketAddr> {
        let parsed = text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
        parsed.ok_or_else(|| {
            let message =
                format!("{key} = {text:?} names no port: set a fixed one to render files");
            Failure::error(Exit::Config, message)
        })
    };
    let http = address("questdb.http", &config.questdb.http)?;
    let pg = address("questdb.pg", &config.questdb.pg)?;
    let text = supervise::questdb::server_conf(&config.questdb, http, pg);
    write_file(&dir.join("questdb/server.conf"), &text)?;
    let credentials =
        Credentials::load_or_create(&config.data_dir).map_err(|error| no_secrets(&error))?;
    Ok(supervise::questdb::endpoint(http, pg, &credentials))
}

fn no_secrets(error: &std::io::Error) -> anyhow::Error {
    Failure::error(Exit::CannotCreate, format!("make the secrets of the servers: {error}"))
}

/// Writes everything that Grafana reads into `dir/grafana`, whole or not at all.
fn grafana(config: &Config, questdb: Endpoint, dir: &Path) -> anyhow::Result<()> {
    if config.listen.address.port() == 0 {
        let message = "listen.address has port 0: set a fixed one, the files name it";
        return Err(Failure::error(Exit::Config, message));
    }
    let address = config.grafana.address.parse().ok().filter(|at: &SocketAddr| at.port() != 0);
    let address = address.ok_or_else(|| {
        Failure::error(Exit::Config, "grafana.address names no port: set a fixed one")
    })?;
    let folder = dir.join("grafana");
    refuse_foreign(&folder)?;
    let state = config.data_dir.join("grafana");
    let place = Place {
        folder: folder.clone(),
        address,
        listener: config.listen.address,
        questdb,
        secrets: GrafanaSecrets::load_or_create(&config.data_dir)
            .map_err(|error| no_secrets(&error))?,
        state: state.clone(),
    };
    let rules =
        rules::of(config).map_err(|problems| Failure::error(Exit::Config, problems.to_string()))?;
    let ledger = Ledger::load(&state.join("ledger.json"))?;
    let made = bundle(Settings::of(config, place), &rules, &ledger, &[])
        .map_err(|error| Failure::error(Exit::Config, error.to_string()))?;
    std::fs::create_dir_all(dir).and_then(|()| write::write(&folder, &made.files)).map_err(
        |error| Failure::error(Exit::CannotCreate, format!("write {}: {error}", folder.display())),
    )?;
    for file in &made.files {
        output::line(&folder.join(&file.path).display().to_string());
    }
    Ok(())
}

/// The folder is replaced as a whole: one that holds something else must not be.
fn refuse_foreign(folder: &Path) -> anyhow::Result<()> {
    let is_empty = std::fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    let text = std::fs::read_to_string(folder.join("grafana.ini")).unwrap_or_default();
    if is_empty || text.starts_with(ini::HEAD) {
        return Ok(());
    }
    let message = format!(
        "{} holds files that periscope has not written and would be replaced: name another folder",
        folder.display()
    );
    Err(Failure::error(Exit::CannotCreate, message))
}

/// Writes a file whole or not at all and says so.
pub(super) fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let create = |error: std::io::Error| {
        Failure::error(Exit::CannotCreate, format!("write {}: {error}", path.display()))
    };
    let folder = path.parent().context("a file needs a folder")?;
    std::fs::create_dir_all(folder).map_err(create)?;
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(create)?;
    output::line(&path.display().to_string());
    Ok(())
}

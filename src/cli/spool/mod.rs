//! `periscope spool`: what waits or waited on disk, whether it is sound, and sending it again. All of
//! it only reads the spool, so that periscope may run meanwhile; only letters are ever removed.

mod dead_letter;
mod list;
mod replay;
mod verify;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use super::exit::{Exit, Failure};
use super::{Global, instance};
use crate::base::backoff::Backoff;
use crate::base::http::Client;
use crate::config::Config;
use crate::model::table::{self, TABLES, Table};
use crate::store::exec::{ExecError, Target};
use crate::store::inspect::{self, View};
use crate::store::resend::{ResendError, Resender};
use crate::store::schema::{self, Outcome};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Shows the segments: rows, times, what is delivered, what is set aside
    List {
        /// The list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Reads every record and says what is damaged; exits 1 if anything is
    Verify {
        /// The findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Sends records that are still on disk again; rows that are stored already stay as they are
    Replay(replay::Arguments),
    /// Rows that QuestDB refused, with the reasons
    DeadLetter {
        #[command(subcommand)]
        command: dead_letter::Command,
    },
}

pub(super) fn spool(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    let config = global.config()?;
    match command {
        Command::List { json } => list::list(&config, *json),
        Command::Verify { json } => verify::verify(&config, *json),
        Command::Replay(arguments) => replay::replay(&config, arguments),
        Command::DeadLetter { command } => dead_letter::dead_letter(&config, command),
    }
}

fn folder(config: &Config) -> PathBuf {
    config.data_dir.join("spool")
}

/// Lists the spool's files.
fn look(config: &Config) -> anyhow::Result<View> {
    let folder = folder(config);
    inspect::look(&folder).map_err(|error| {
        let hint = if error.kind() == ErrorKind::NotFound {
            ": periscope has never run on this data folder; name another with --data-dir"
        } else {
            permission_hint(error.kind())
        };
        Failure::error(Exit::Failure, format!("read {}: {error}{hint}", folder.display()))
    })
}

const fn permission_hint(kind: ErrorKind) -> &'static str {
    if matches!(kind, ErrorKind::PermissionDenied) {
        ": run this as the user that periscope runs as"
    } else {
        ""
    }
}

/// Finds a table that is named on the command line.
fn find_table(name: &str) -> anyhow::Result<&'static Table> {
    table::find(name).ok_or_else(|| {
        let names = TABLES.iter().map(|table| table.name);
        let near = names.clone().min_by_key(|other| strsim::damerau_levenshtein(other, name));
        let message = format!(
            "no table {name:?}: did you mean {:?}? There are {}",
            near.unwrap_or_default(),
            names.collect::<Vec<_>>().join(", ")
        );
        Failure::error(Exit::Usage, message)
    })
}

/// The database, ready for lines.
struct Database<'a> {
    config: &'a Config,
    client: Client,
    target: Target,
}

impl<'a> Database<'a> {
    /// Finds the database that the writer of `config` uses.
    async fn of(config: &'a Config) -> anyhow::Result<Self> {
        let endpoint = instance::database(config).await?;
        let target = Target::new(&endpoint).map_err(|error| exec_failure(&error))?;
        Ok(Self { config, client: Client::new()?, target })
    }

    fn resender(&self) -> Resender<'_> {
        let (first, limit) = (Duration::from_millis(200), Duration::from_secs(5));
        Resender {
            client: &self.client,
            target: &self.target,
            timeout: self.config.writer.timeout,
            backoff: Backoff::new(first, limit, u64::from(std::process::id())),
        }
    }

    /// Brings `table` to what is declared, as the writer does; returns why it can take no rows.
    async fn prepare(&self, table: &Table) -> anyhow::Result<Option<String>> {
        let retention = &self.config.retention;
        match schema::ensure(&self.target, &self.client, table, retention).await {
            Ok(Outcome::Sound | Outcome::Mended | Outcome::Made) => Ok(None),
            Ok(Outcome::Foreign(difference)) => Ok(Some(difference)),
            Err(error) => Err(exec_failure(&error)),
        }
    }
}

fn exec_failure(error: &ExecError) -> anyhow::Error {
    let exit = match error {
        ExecError::Http(_) => Exit::Unavailable,
        ExecError::Endpoint(_) | ExecError::Refused { .. } | ExecError::Statement { .. } => {
            Exit::Failure
        }
    };
    Failure::error(exit, error.to_string())
}

fn resend_failure(error: &ResendError) -> anyhow::Error {
    let exit = match error {
        ResendError::Setup(_) => Exit::Failure,
        ResendError::Unavailable(_) => Exit::Unavailable,
    };
    Failure::error(exit, error.to_string())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

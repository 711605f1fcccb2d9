//! `periscope source test`: what a daemon answers and what becomes of it.

use std::time::Duration;

use super::exit::{Exit, Failure};
use super::{Global, output};
use crate::base::http::Client;
use crate::collect::probe::{Probe, probe};
use crate::config::{Config, Daemon, Source};
use crate::model::row::{Row, Value};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Asks a daemon once and shows its document, the rows that it gives and what was ignored
    Test {
        /// Name of the daemon: of a [[daemon]] entry, or of one started with `periscope run`
        name: String,
    },
}

pub(super) fn source(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    let Command::Test { name } = command;
    let config = global.config()?;
    let daemon = find(&config, name);
    let client = Client::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run_dir = config.data_dir.join("run");
    let asked = probe(&daemon, &config.node, &run_dir, &client, config.collect.max_document);
    let probes = runtime.block_on(asked).map_err(|failure| {
        let known: Vec<&str> = config.daemons.iter().map(|daemon| daemon.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let text = format!(
            "{name} (source {}): {failure}\nconfigured daemons: {known}",
            daemon.source.word()
        );
        Failure::error(Exit::Failure, text)
    })?;
    for probe in &probes {
        output::line(&shown(probe));
    }
    let is_status = probes.iter().any(|probe| !probe.rows.is_empty());
    Ok(if is_status { Exit::Done } else { Exit::Failure })
}

/// Returns the configured daemon; one without an entry may be found by its socket.
fn find(config: &Config, name: &str) -> Daemon {
    let found = config.daemons.iter().find(|daemon| daemon.name == name);
    found.cloned().unwrap_or_else(|| Daemon {
        name: name.to_owned(),
        source: Source::Shim,
        interval: config.collect.interval,
        timeout: Duration::from_secs(5),
        map: None,
    })
}

fn shown(probe: &Probe) -> String {
    let pretty = serde_json::to_string_pretty(&probe.document);
    let document = pretty.unwrap_or_else(|_| probe.document.to_string());
    let mut text = format!("{}: the document\n{document}\n", probe.name);
    if probe.rows.is_empty() {
        text.push_str(
            "\nno rows: nothing of a status is where it was looked for; `[daemon.map]` or `preset` in \
             the configuration say where it is\n",
        );
    }
    for row in &probe.rows {
        text.push('\n');
        text.push_str(row.table.name);
        text.push('\n');
        text.push_str(&columns(row));
    }
    let mut list = |words: &str, fields: String| {
        if !fields.is_empty() {
            text.push_str(&["\n", words, ": ", &fields, "\n"].concat());
        }
    };
    list("null because of their type or value", probe.wrong.join(", "));
    list("nothing is at these paths of the map", probe.missing.join(", "));
    list("ignored", probe.ignored.join(", "));
    text
}

fn columns(row: &Row) -> String {
    let named = row.table.columns.iter().zip(row.values());
    let known = named.filter(|(_, value)| **value != Value::Null);
    known.map(|(column, value)| format!("  {} = {value}\n", column.name)).collect()
}

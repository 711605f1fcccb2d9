//! `periscope send`: one row by hand, through the running instance's spool.

use anyhow::Context as _;
use bytes::Bytes;

use super::exit::{Exit, Failure};
use super::{Global, instance, output};
use crate::base::time::{Clock, Timestamp};
use crate::config::Config;
use crate::model::row::{Row, Value};
use crate::model::table::{self, Kind, TABLES, TIMESTAMP, Table};
use crate::store::encode::{Body, table_id};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Table to write to (see `periscope schema`)
    table: String,
    /// Columns as name=value; host and env default to the configuration, timestamp to now
    #[arg(value_name = "COLUMN=VALUE", required = true)]
    values: Vec<String>,
}

pub(super) fn send(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let row = row(&config, arguments, Clock::system().now())
        .map_err(|problems| Failure::error(Exit::Usage, problems.join("\n")))?;
    let line = encode(&row)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(instance::ask(&config, hyper::Method::POST, "/write", line))?;
    if !answer.status.is_success() {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        anyhow::bail!("POST /write answered {}: {}", answer.status, body.trim());
    }
    output::line(&format!("durable: {} at {}", row.table.name, row.at));
    Ok(Exit::Done)
}

/// Returns the row as a line of the protocol that `/write` takes.
fn encode(row: &Row) -> anyhow::Result<Bytes> {
    let id = table_id(row.table).context("the table has no id")?;
    let mut body = Body::new(row.table, id);
    body.add(row).with_context(|| format!("encode a row of {}", row.table.name))?;
    body.take()
        .map(|draft| Bytes::copy_from_slice(draft.body()))
        .context("a row without values is none")
}

/// Makes the row, or says everything that is wrong with the arguments.
fn row(config: &Config, arguments: &Arguments, now: Timestamp) -> Result<Row, Vec<String>> {
    let Some(table) = table::find(&arguments.table) else {
        let names = TABLES.iter().map(|table| table.name);
        let near =
            names.clone().min_by_key(|name| strsim::damerau_levenshtein(name, &arguments.table));
        return Err(vec![format!(
            "no table {:?}: did you mean {:?}? There are {}",
            arguments.table,
            near.unwrap_or_default(),
            names.collect::<Vec<_>>().join(", ")
        )]);
    };
    let mut problems = Vec::new();
    let mut row = Row::new(table, now)
        .with("host", config.node.host.as_str())
        .with("env", config.node.env.as_str());
    for pair in &arguments.values {
        if let Err(problem) = assign(&mut row, table, pair) {
            problems.push(problem);
        }
    }
    for key in table.keys().filter(|key| *row.get(key.name) == Value::Null) {
        problems.push(format!("{} is missing: {}", key.name, key.doc));
    }
    if problems.is_empty() { Ok(row) } else { Err(problems) }
}

fn assign(row: &mut Row, table: &'static Table, pair: &str) -> Result<(), String> {
    let (name, text) =
        pair.split_once('=').ok_or_else(|| format!("{pair:?} is not COLUMN=VALUE"))?;
    let time = || {
        Timestamp::parse(text)
            .ok_or_else(|| format!("{name}: {text:?} is no time like 2026-01-31T12:00:00Z"))
    };
    if name == TIMESTAMP {
        row.at = time()?;
        return Ok(());
    }
    let Some(column) = table.column(name) else {
        let near = table
            .columns
            .iter()
            .map(|column| column.name)
            .min_by_key(|candidate| strsim::damerau_levenshtein(candidate, name));
        return Err(format!(
            "{} has no column {name:?}: did you mean {:?}?",
            table.name,
            near.unwrap_or_default()
        ));
    };
    let wrong = |kind: &str| format!("{name}: {text:?} is no {kind}");
    let value = match column.kind {
        Kind::Symbol | Kind::Varchar => Value::from(text),
        Kind::Boolean => text.parse::<bool>().map_err(|_| wrong("true or false"))?.into(),
        Kind::Long => text.parse::<i64>().map_err(|_| wrong("whole number"))?.into(),
        Kind::Double => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => number.into(),
            Ok(_) | Err(_) => return Err(wrong("finite number")),
        },
        Kind::Timestamp => time()?.into(),
    };
    row.set(column.name, value);
    Ok(())
}

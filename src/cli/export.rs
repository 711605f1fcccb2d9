//! `periscope export`: a table to a CSV file, streamed: the memory that it takes does not grow with
//! the table.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::BodyExt as _;

use super::exit::{Exit, Failure};
use super::{Global, instance, output};
use crate::artifact::progress::{Bar, Progress};
use crate::base::http::Client;
use crate::base::time::{Clock, Timestamp};
use crate::model::table::{self, TABLES};
use crate::model::view::VIEWS;
use crate::store::exec::{ExecError, Target};

/// Longest wait for the first byte.
const FIRST: Duration = Duration::from_secs(120);
/// Longest wait for the next bytes.
const NEXT: Duration = Duration::from_secs(120);
/// What QuestDB 9.3.4 writes as Parquet has several dictionaries for a symbol, which Arrow refuses to
/// read, and breaks off where text is computed.
const NO_PARQUET: &str = "QuestDB's own Parquet files of these tables cannot be read by Arrow, so there are \
    none; export CSV and turn it into one, for example: duckdb -c \"copy (from 'rows.csv') to 'rows.parquet'\"";

/// Largest part of a refusal that is read, bytes.
const REFUSAL: usize = 4_096;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of the table or hourly view
    table: String,
    /// First moment: a time (2026-01-31T12:00:00Z), a day (2026-01-31), or how long ago (7d)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Moment after the last one, in the same forms; the default is now
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Form of the file
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// The file, replaced once it is whole; without it CSV goes to stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Csv,
    Parquet,
}

pub(super) fn export(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    if arguments.format == Format::Parquet {
        return Err(Failure::error(Exit::Usage, NO_PARQUET));
    }
    let config = global.config()?;
    let name = known(&arguments.table)?;
    let now = Clock::system().now();
    let time = |option: &str, text: &Option<String>| {
        text.as_deref().map(|text| moment(option, text, now)).transpose()
    };
    let from = time("--from", &arguments.from)?;
    let to = time("--to", &arguments.to)?.unwrap_or(now);
    if from.is_some_and(|from| from >= to) {
        let message = format!("--from must be before --to ({to})");
        return Err(Failure::error(Exit::Usage, message));
    }
    let selection = selection(name, from, to);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let endpoint = instance::database(&config).await?;
        let target = Target::new(&endpoint)?;
        let client = Client::new()?;
        let count = format!("SELECT count() AS rows FROM {selection}");
        let rows = target.exec(&client, &count).await.map_err(unavailable)?;
        let rows = rows.iter().next().and_then(|row| row.get("rows").as_u64()).unwrap_or(0);
        let sql = format!("SELECT * FROM {selection}");
        let fetch = Fetch { client: &client, target: &target, sql: &sql };
        let Some(file) = &arguments.output else {
            let mut stdout = io::stdout().lock();
            fetch.copy_to(&mut stdout, &|_| ()).await?;
            return Ok(Exit::Done);
        };
        let bytes = fetch.write_file(file).await?;
        output::line(&format!("{}: {rows} rows, {bytes} bytes", file.display()));
        Ok(Exit::Done)
    })
}

/// Returns the name as it is declared.
fn known(name: &str) -> anyhow::Result<&'static str> {
    let view = || VIEWS.iter().find(|view| view.name == name).map(|view| view.name);
    let found = table::find(name).map(|table| table.name).or_else(view);
    found.ok_or_else(|| {
        let tables = TABLES.iter().map(|table| table.name);
        let all: Vec<&str> = tables.chain(VIEWS.iter().map(|view| view.name)).collect();
        let message = format!("there is no table {name:?}; the tables are {}", all.join(", "));
        Failure::error(Exit::Usage, message)
    })
}

/// Reads a moment as people write it.
fn moment(option: &str, text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    if let Some(time) = Timestamp::parse(text).or_else(|| day(text)) {
        return Ok(time);
    }
    if let Ok(ago) = crate::config::duration(text) {
        return Ok(now.minus(ago));
    }
    let message = format!(
        "{option} {text:?} is no time: write 2026-01-31T12:00:00Z, 2026-01-31, or 7d for seven days ago"
    );
    Err(Failure::error(Exit::Usage, message))
}

/// Reads a day, which begins at midnight in UTC.
fn day(text: &str) -> Option<Timestamp> {
    let day: jiff::civil::Date = text.parse().ok()?;
    Timestamp::parse(&format!("{day}T00:00:00Z"))
}

/// Returns what follows FROM. Times are bounded even for a whole table: rows that come meanwhile
/// would make count and file differ.
fn selection(name: &str, from: Option<Timestamp>, to: Timestamp) -> String {
    let from = from.map_or_else(String::new, |from| format!("timestamp >= '{from}' AND "));
    format!("{name} WHERE {from}timestamp < '{to}'")
}

fn unavailable(error: ExecError) -> anyhow::Error {
    let exit = match error {
        ExecError::Statement { .. } => Exit::Failure,
        ExecError::Http(_) | ExecError::Endpoint(_) | ExecError::Refused { .. } => {
            Exit::Unavailable
        }
    };
    Failure::error(exit, error.to_string())
}

/// One export.
struct Fetch<'a> {
    client: &'a Client,
    target: &'a Target,
    sql: &'a str,
}

impl Fetch<'_> {
    /// Writes the answer to `sink`; returns its size in bytes.
    async fn copy_to(&self, sink: &mut dyn Write, show: &dyn Fn(u64)) -> anyhow::Result<u64> {
        let request = self.target.export_request(self.sql)?;
        let answer = self.client.open(request, FIRST).await;
        let answer = answer
            .map_err(|error| Failure::error(Exit::Unavailable, format!("export: {error}")))?;
        let status = answer.status();
        let mut body = answer.into_body();
        let mut refusal = Vec::new();
        let mut bytes = 0_u64;
        loop {
            let frame = tokio::time::timeout(NEXT, body.frame()).await.map_err(|_| {
                let message = "QuestDB has sent nothing for two minutes: the export is given up";
                Failure::error(Exit::Unavailable, message)
            })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| {
                let message = format!("QuestDB ended in the middle of its answer: {error}");
                Failure::error(Exit::Unavailable, message)
            })?;
            let Some(data) = frame.data_ref() else { continue };
            if status.is_success() {
                sink.write_all(data).context("write the export")?;
                bytes = bytes.saturating_add(u64::try_from(data.len()).unwrap_or(0));
                show(bytes);
            } else if refusal.len() < REFUSAL {
                refusal.extend_from_slice(data);
            }
        }
        if !status.is_success() {
            // Its answer repeats the query before it comes to the point.
            let parsed: Option<serde_json::Value> = serde_json::from_slice(&refusal).ok();
            let reason = parsed.as_ref().and_then(|answer| answer.get("error")?.as_str());
            let text = String::from_utf8_lossy(&refusal);
            let words: String = reason
                .unwrap_or(&text)
                .chars()
                .filter(|character| !character.is_control())
                .take(400)
                .collect();
            let message = format!("QuestDB answers {status} to the export: {words}");
            return Err(Failure::error(Exit::Failure, message));
        }
        sink.flush().context("write the export")?;
        Ok(bytes)
    }

    /// Writes the answer to `file`, whole or not at all.
    async fn write_file(&self, file: &Path) -> anyhow::Result<u64> {
        let mut partial = file.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let made = fs::File::create(&partial)
            .with_context(|| format!("make {}; name another file", partial.display()))
            .map_err(|error| Failure::error(Exit::CannotCreate, format!("{error:#}")))?;
        let bar = Bar::new();
        bar.show(&Progress::Step(format!("export to {}", file.display())));
        let mut sink = io::BufWriter::with_capacity(1 << 20, made);
        let show = |done| bar.show(&Progress::Bytes { done, total: None });
        let written = self.copy_to(&mut sink, &show).await;
        let finished = written.and_then(|bytes| {
            let made = sink.into_inner().map_err(io::IntoInnerError::into_error)?;
            made.sync_all()?;
            fs::rename(&partial, file)?;
            Ok(bytes)
        });
        if finished.is_err() {
            let _nothing = fs::remove_file(&partial);
        }
        finished.with_context(|| format!("write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_every_form_and_nonsense_is_not() {
        let now = Timestamp::from_millis(1_000_000_000_000);
        let read = |text: &str| moment("--from", text, now).map(|time| time.to_string());
        assert_eq!(read("2026-01-31T12:00:00Z").unwrap(), "2026-01-31T12:00:00Z");
        assert_eq!(read("2026-01-31").unwrap(), "2026-01-31T00:00:00Z");
        assert_eq!(read("1d").unwrap(), "2001-09-08T01:46:40Z");
        for bad in ["", "yesterday", "2026-13-01", "'; DROP TABLE x"] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.starts_with("--from") && error.contains("7d"), "{error}");
        }
    }

    #[test]
    fn only_declared_names_are_taken() {
        assert_eq!(known("daemon_metrics").unwrap(), "daemon_metrics");
        assert_eq!(known("exchange_status_1h").unwrap(), "exchange_status_1h");
        let error = known("x; DROP TABLE y").unwrap_err().to_string();
        assert!(error.contains("daemon_metrics"), "{error}");
    }

    #[test]
    fn a_selection_is_bounded() {
        let at = Timestamp::from_millis(0);
        assert_eq!(selection("t", None, at), "t WHERE timestamp < '1970-01-01T00:00:00Z'");
        let both = selection("t", Some(at), at);
        assert!(both.contains(">= '1970-01-01T00:00:00Z' AND timestamp <"), "{both}");
    }
}

//! `periscope query`: read-only SQL over PG wire.

use std::time::Duration;

use super::exit::{Exit, Failure};
use super::{Global, instance, output};
use crate::store::read::{Answer, ReadError, query as run};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The statement
    sql: String,
    /// Form of the answer
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Longest wait for the answer, seconds
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

pub(super) fn query(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let endpoint = instance::database(&config).await?;
        let limit = Duration::from_secs(arguments.timeout);
        run(&endpoint, &arguments.sql, limit).await.map_err(|error| match error {
            ReadError::Statement(_) => Failure::error(Exit::Failure, error.to_string()),
            ReadError::Connect { .. } | ReadError::Timeout { .. } => {
                Failure::error(Exit::Unavailable, error.to_string())
            }
        })
    })?;
    output::line(&match arguments.format {
        Format::Table => table(&answer),
        Format::Csv => csv(&answer),
        Format::Json => json(&answer)?,
    });
    Ok(Exit::Done)
}

fn table(answer: &Answer) -> String {
    let header: Vec<&str> = answer.columns.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = answer
        .rows
        .iter()
        .map(|row| row.iter().map(|cell| cell.clone().unwrap_or_default()).collect())
        .collect();
    output::table(&header, &rows)
}

/// RFC 4180; null is an empty field, the empty text is `""`.
fn csv(answer: &Answer) -> String {
    let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let cell = |text: &str| {
        let plain = !text.is_empty() && !text.contains(['"', ',', '\n', '\r']);
        if plain { text.to_owned() } else { quote(text) }
    };
    let mut lines =
        vec![answer.columns.iter().map(|name| cell(name)).collect::<Vec<_>>().join(",")];
    for row in &answer.rows {
        let cells: Vec<String> =
            row.iter().map(|value| value.as_deref().map_or_else(String::new, cell)).collect();
        lines.push(cells.join(","));
    }
    lines.join("\n")
}

/// An array of objects; every value is a string as the database prints it, or null.
fn json(answer: &Answer) -> serde_json::Result<String> {
    let rows: Vec<serde_json::Map<String, serde_json::Value>> = answer
        .rows
        .iter()
        .map(|row| {
            answer.columns.iter().cloned().zip(row.iter().map(|cell| cell.clone().into())).collect()
        })
        .collect();
    serde_json::to_string_pretty(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_what_needs_it_and_tells_null_from_empty() {
        let answer = Answer {
            columns: vec!["a".into(), "b".into()],
            rows: vec![
                vec![Some("x,\"y\"\n".into()), None],
                vec![Some(String::new()), Some("plain".into())],
            ],
        };
        assert_eq!(csv(&answer), "a,b\n\"x,\"\"y\"\"\n\",\n\"\",plain");
    }
}

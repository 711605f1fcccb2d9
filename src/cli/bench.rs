//! `periscope bench`: figures with their yardsticks in the same run.

use serde_json::Value;

use super::exit::Exit;
use super::{Global, log, output};
use crate::bench;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    what: What,
    /// About how long, seconds
    #[arg(long, default_value = "20", value_name = "N")]
    seconds: u64,
    /// The figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The whole write path against a bare questdb-rs sender
    Writer,
    /// Polls against the HTTP client alone at the same pace
    Polls,
    /// The spool alone against a plain file
    Spool,
    /// From a sample to its row in SQL at 1,000 and 10,000 rows/s
    Latency,
    /// A thousand daemons every second: how late polls are, memory and CPU
    Fleet,
    /// Resident memory, idle and with a backlog of a gibibyte
    Memory,
}

/// Rows per second at which latency is measured.
const RATES: [u64; 2] = [1_000, 10_000];

pub(super) fn bench(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let _lines = log::start(global.log_format, global.verbosity().saturating_sub(1));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seconds = arguments.seconds;
    let figures = runtime.block_on(async {
        anyhow::Ok(match arguments.what {
            What::Writer => bench::writer::run(&config, seconds).await?.json(),
            What::Polls => bench::polls::run(&config, seconds).await?.json(),
            What::Spool => bench::spool::run(&config, seconds).await?.json(),
            What::Fleet => bench::fleet::run(&config, seconds).await?,
            What::Memory => bench::memory::run(&config, seconds).await?,
            What::Latency => {
                let reports = bench::latency::run(&config, &RATES, seconds).await?;
                let reports: Vec<Value> =
                    reports.iter().map(bench::latency::Report::json).collect();
                serde_json::json!({ "latency": reports })
            }
        })
    })?;
    output::line(&if arguments.json {
        serde_json::to_string_pretty(&figures)?
    } else {
        table(&figures)
    });
    Ok(Exit::Done)
}

/// Lays out the figures, one a line, nested names joined by dots.
fn table(figures: &Value) -> String {
    let mut rows = Vec::new();
    flatten("", figures, &mut rows);
    output::table(&["FIGURE", "VALUE"], &rows)
}

fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let inside =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| flatten(&inside(name), value, rows));
        }
        Value::Array(items) => {
            let named = items.iter().enumerate();
            named.for_each(|(index, value)| flatten(&inside(&index.to_string()), value, rows));
        }
        Value::Number(number) => {
            let text = number.as_f64().filter(|_| number.is_f64());
            let text = text.map_or_else(|| number.to_string(), |float| format!("{float:.3}"));
            rows.push(vec![path.to_owned(), text]);
        }
        Value::String(text) => rows.push(vec![path.to_owned(), text.clone()]),
        Value::Null | Value::Bool(_) => rows.push(vec![path.to_owned(), value.to_string()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_figures_become_lines() {
        let figures = serde_json::json!({"a": {"ratio": 1.25, "rows": 3}, "b": [{"p50": 2.0}]});
        assert_eq!(table(&figures), "FIGURE   VALUE\na.ratio  1.250\na.rows   3\nb.0.p50  2.000");
    }
}

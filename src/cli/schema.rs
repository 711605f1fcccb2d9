//! `periscope schema`: the tables as SQL or as a reference.

use std::fmt::Write as _;

use super::exit::Exit;
use super::{Global, output};
use crate::config::Retention;
use crate::model::table::{TABLES, TIMESTAMP};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A reference in Markdown instead of SQL
    #[arg(long)]
    markdown: bool,
}

pub(super) fn schema(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let text = if arguments.markdown { markdown() } else { sql(&global.config()?.retention) };
    output::line(text.trim_end());
    Ok(Exit::Done)
}

fn sql(retention: &Retention) -> String {
    TABLES
        .iter()
        .map(|table| format!("-- {}\n{}\n", table.doc, table.ddl(retention.days(table))))
        .collect()
}

fn markdown() -> String {
    let mut text = String::new();
    for table in TABLES {
        // Writing to a String cannot fail.
        let _ignored = writeln!(
            text,
            "## {}\n\n{} Kept for {} days by default.\n\n| column | type | key | meaning |\n|---|---|---|---|\n\
             | {TIMESTAMP} | TIMESTAMP_NS | yes | time of the row, UTC |",
            table.name, table.doc, table.ttl_days
        );
        for column in table.columns {
            let key = if column.key { "yes" } else { "" };
            let _ignored = writeln!(
                text,
                "| {} | {} | {key} | {} |",
                column.name,
                column.kind.sql(),
                column.doc
            );
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_there_with_its_retention() {
        let retention = Retention {
            default_days: Some(30),
            tables: [("trading_metrics".to_owned(), 400)].into(),
        };
        let text = sql(&retention);
        for table in TABLES {
            assert!(
                text.contains(&format!("CREATE TABLE IF NOT EXISTS {} (", table.name)),
                "{text}"
            );
        }
        assert!(text.contains("TTL 400 DAYS") && text.contains("TTL 30 DAYS"), "{text}");
        assert!(markdown().contains("| reachable | BOOLEAN |  |"), "{}", markdown());
    }
}

//! `periscope spool replay`

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use super::{Database, find_table, look, resend_failure, runtime};
use crate::base::time::Timestamp;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::config::Config;
use crate::model::table::Table;
use crate::store::encode::{table_id, table_of};
use crate::store::feed::take_batch;
use crate::store::inspect::{Damage, View};
use crate::store::post;
use crate::store::resend::Sent;
use crate::store::spool::scan::Record;

/// Rows in one request, at most.
const BATCH_ROWS: u64 = 20_000;
/// Bytes in one request, at most.
const BATCH_BYTES: u64 = 4 << 20;
/// Refused lines that are shown.
const SHOWN: usize = 20;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// First record: its seq, or the time of its writing like 2026-01-31T12:00:00Z
    #[arg(long, value_name = "SEQ|TIME")]
    from: Option<String>,
    /// Last record, likewise
    #[arg(long, value_name = "SEQ|TIME")]
    to: Option<String>,
    /// Only rows of this table
    #[arg(long)]
    table: Option<String>,
    /// Counts what would be sent, and sends nothing
    #[arg(long)]
    dry_run: bool,
    /// The counts as JSON
    #[arg(long)]
    json: bool,
}

/// An end of a range, itself within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Seq(u64),
    Time(Timestamp),
}

impl Bound {
    fn parse(text: &str) -> anyhow::Result<Self> {
        if let Ok(seq) = text.parse() {
            return Ok(Self::Seq(seq));
        }
        Timestamp::parse(text).map(Self::Time).ok_or_else(|| {
            let message = format!("{text:?} is neither a seq nor a time like 2026-01-31T12:00:00Z");
            Failure::error(Exit::Usage, message)
        })
    }
}

/// Which records are meant.
#[derive(Debug, Clone, Copy, Default)]
struct Selection {
    from: Option<Bound>,
    to: Option<Bound>,
    table: Option<u16>,
}

impl Selection {
    fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        let bound = |text: &Option<String>| text.as_deref().map(Bound::parse).transpose();
        let table = arguments.table.as_deref().map(find_table).transpose()?;
        Ok(Self {
            from: bound(&arguments.from)?,
            to: bound(&arguments.to)?,
            table: table.and_then(table_id),
        })
    }

    fn holds(&self, record: &Record) -> bool {
        let after = self.from.is_none_or(|from| match from {
            Bound::Seq(seq) => record.seq >= seq,
            Bound::Time(at) => record.at >= at,
        });
        let before = self.to.is_none_or(|to| match to {
            Bound::Seq(seq) => record.seq <= seq,
            Bound::Time(at) => record.at <= at,
        });
        after && before && self.table.is_none_or(|table| record.table == table)
    }
}

/// Counts of one table.
#[derive(Debug, Default, Serialize)]
struct Counts {
    records: u64,
    rows: u64,
    written: u64,
    refused: u64,
}

/// A line that the server refused.
#[derive(Debug, Serialize)]
struct RefusedLine {
    reason: String,
    line: String,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    tables: BTreeMap<&'static str, Counts>,
    /// The first refused lines.
    refused: Vec<RefusedLine>,
    /// What was left out, and why.
    left_out: Vec<String>,
}

pub(super) fn replay(config: &Config, arguments: &Arguments) -> anyhow::Result<Exit> {
    let selection = Selection::of(arguments)?;
    let view = look(config)?;
    let mut replay = Replay {
        report: Report { dry_run: arguments.dry_run, ..Report::default() },
        seen: BTreeSet::new(),
        usable: BTreeMap::new(),
    };
    let ended = runtime()?.block_on(async {
        let database = if arguments.dry_run { None } else { Some(Database::of(config).await?) };
        replay.run(&view, selection, database.as_ref()).await
    });
    let report = replay.report;
    // What was sent before an error counts too.
    output::line(&if arguments.json {
        serde_json::to_string_pretty(&report)?
    } else {
        text(&report)
    });
    ended?;
    let refused = report.tables.values().any(|counts| counts.refused > 0);
    let complete = !refused && report.left_out.is_empty();
    Ok(if complete { Exit::Done } else { Exit::Failure })
}

/// A replay on its way.
struct Replay {
    report: Report,
    /// Records that were taken: a copy in quarantine holds the same ones as the segment.
    seen: BTreeSet<(u64, Timestamp)>,
    /// Whether a table can take rows.
    usable: BTreeMap<&'static str, bool>,
}

impl Replay {
    async fn run(
        &mut self,
        view: &View,
        selection: Selection,
        database: Option<&Database<'_>>,
    ) -> anyhow::Result<()> {
        for file in &view.files {
            // Delivered and removed meanwhile: there is nothing to replay any more.
            let Some(content) = file.read() else { continue };
            let shown = format!("{}/{}", file.place.name(), file.name());
            if let Some(version) = content.newer {
                let reason = format!(
                    "{shown}: format {version}, which this version of periscope cannot read"
                );
                self.report.left_out.push(reason);
            }
            for damage in &content.damage {
                if let Damage::Unreadable(error) = damage {
                    self.report.left_out.push(format!("{shown}: cannot be read: {error}"));
                }
            }
            let mut by_table = BTreeMap::<u16, VecDeque<Record>>::new();
            for record in content.records.into_iter().filter(|record| selection.holds(record)) {
                if self.seen.insert((record.seq, record.at)) {
                    by_table.entry(record.table).or_default().push_back(record);
                }
            }
            for (id, queue) in by_table {
                match table_of(id) {
                    Some(table) => self.table(table, queue, database).await?,
                    None => self.report.left_out.push(format!(
                        "{shown}: {} records of table {id}, which this version does not know",
                        queue.len()
                    )),
                }
            }
        }
        Ok(())
    }

    /// Sends the records of one table in one segment.
    async fn table(
        &mut self,
        table: &'static Table,
        mut queue: VecDeque<Record>,
        database: Option<&Database<'_>>,
    ) -> anyhow::Result<()> {
        let counts = self.report.tables.entry(table.name).or_default();
        for record in &queue {
            counts.records = counts.records.saturating_add(1);
            counts.rows = counts.rows.saturating_add(u64::from(record.rows));
        }
        let Some(database) = database else { return Ok(()) };
        if !self.is_usable(table, database).await? {
            return Ok(());
        }
        let mut resender = database.resender();
        while !queue.is_empty() {
            let batch = take_batch(&mut queue, BATCH_ROWS, BATCH_BYTES);
            let mut sent = Sent::default();
            let ended = resender.send(post::joined(&batch), &mut sent).await;
            self.count(table, sent);
            ended.map_err(|error| resend_failure(&error))?;
        }
        Ok(())
    }

    /// Whether `table` can take rows; asked once.
    async fn is_usable(
        &mut self,
        table: &'static Table,
        database: &Database<'_>,
    ) -> anyhow::Result<bool> {
        if let Some(usable) = self.usable.get(table.name) {
            return Ok(*usable);
        }
        let difference = database.prepare(table).await?;
        let usable = difference.is_none();
        self.report.left_out.extend(difference);
        self.usable.insert(table.name, usable);
        Ok(usable)
    }

    fn count(&mut self, table: &'static Table, sent: Sent) {
        let counts = self.report.tables.entry(table.name).or_default();
        counts.written = counts.written.saturating_add(sent.written);
        let refused = u64::try_from(sent.refused.len()).unwrap_or(u64::MAX);
        counts.refused = counts.refused.saturating_add(refused);
        let room = SHOWN.saturating_sub(self.report.refused.len());
        let lines = sent.refused.into_iter().take(room);
        self.report.refused.extend(
            lines.map(|refused| RefusedLine { reason: refused.reason, line: refused.line }),
        );
    }
}

fn text(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .tables
        .iter()
        .map(|(name, counts)| {
            let numbers = [counts.records, counts.rows, counts.written, counts.refused];
            std::iter::once((*name).to_owned()).chain(numbers.map(|n| n.to_string())).collect()
        })
        .collect();
    let mut lines = vec![output::table(&["TABLE", "RECORDS", "ROWS", "WRITTEN", "REFUSED"], &rows)];
    for refused in &report.refused {
        lines.push(format!("refused: {}\n  {}", refused.reason, refused.line));
    }
    lines.extend(report.left_out.iter().map(|reason| format!("left out: {reason}")));
    lines.push(match (report.dry_run, rows.is_empty()) {
        (_, true) => "nothing on disk is within this range".to_owned(),
        (true, false) => "dry run: nothing was sent".to_owned(),
        (false, false) => "rows that were stored already are still there once".to_owned(),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_chosen_by_seq_or_time_and_table() {
        let record = |seq: u64, table: u16| Record {
            seq,
            at: Timestamp::from_millis(1_700_000_000_000).plus(std::time::Duration::from_secs(seq)),
            table,
            rows: 1,
            body: b"x a=1i 1\n"[..].into(),
        };
        let records: Vec<Record> = (1..=6).map(|seq| record(seq, u16::from(seq > 3))).collect();
        let chosen = |from: Option<&str>, to: Option<&str>, table: Option<&str>| -> Vec<u64> {
            let arguments = Arguments {
                from: from.map(str::to_owned),
                to: to.map(str::to_owned),
                table: table.map(str::to_owned),
                dry_run: true,
                json: false,
            };
            let selection = Selection::of(&arguments).unwrap();
            records.iter().filter(|record| selection.holds(record)).map(|r| r.seq).collect()
        };
        assert_eq!(chosen(None, None, None), [1, 2, 3, 4, 5, 6]);
        assert_eq!(chosen(Some("2"), Some("4"), None), [2, 3, 4]);
        assert_eq!(chosen(Some("2023-11-14T22:13:25Z"), None, None), [5, 6]);
        assert_eq!(chosen(None, Some("2023-11-14T22:13:24Z"), Some("exchange_status")), [4]);
        assert!(Bound::parse("yesterday").is_err());
        let error = find_table("exchange_statsu").unwrap_err().to_string();
        assert!(error.contains("\"exchange_status\""), "{error}");
    }
}

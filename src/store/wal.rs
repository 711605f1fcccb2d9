//! Watches whether accepted rows become visible: a suspended table goes on accepting them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::exec::{ExecError, Target};
use crate::base::http::Client;
use crate::base::time::Timestamp;
use crate::model::table;
use crate::model::view::VIEWS;

/// How long a table may not progress before it is told.
const STALLED: Duration = Duration::from_secs(30);
/// Pause between two attempts to resume a table.
const RESUME_PAUSE: Duration = Duration::from_secs(30);

/// One of our tables as `wal_tables()` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalTable {
    /// Name, one of the declared tables or views.
    pub name: &'static str,
    /// Whether it stopped applying what it accepted.
    pub suspended: bool,
    /// Newest visible transaction.
    pub writer: u64,
    /// Newest accepted transaction.
    pub sequencer: u64,
    /// What went wrong, if it is suspended: `DISK FULL`, …
    pub tag: String,
    /// The same in more words.
    pub message: String,
}

impl WalTable {
    /// Returns the transactions that are accepted but not visible.
    pub const fn lag(&self) -> u64 {
        self.sequencer.saturating_sub(self.writer)
    }

    /// Whether a full disk may be why it is suspended. The server does not always say so: when the
    /// space ends in the middle of a merge it only says that the merge failed. A table that a person
    /// suspended has neither tag nor message.
    fn may_be_a_full_disk(&self) -> bool {
        self.tag.eq_ignore_ascii_case("DISK FULL")
            || (self.tag.is_empty() && !self.message.is_empty())
    }
}

/// Asks the server for the state of our tables.
///
/// # Errors
/// The server does not answer or refuses the statement.
pub async fn look(target: &Target, client: &Client) -> Result<Vec<WalTable>, ExecError> {
    let sql = "select name, suspended, writerTxn, sequencerTxn, errorTag, errorMessage \
               from wal_tables()";
    let rows = target.exec(client, sql).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = rows.iter().filter_map(|row| {
        let name = declared(row.get("name").as_str()?)?;
        Some(WalTable {
            name,
            suspended: row.get("suspended").as_bool().unwrap_or(false),
            writer: row.get("writerTxn").as_u64().unwrap_or(0),
            sequencer: row.get("sequencerTxn").as_u64().unwrap_or(0),
            tag: text(row.get("errorTag")),
            message: text(row.get("errorMessage")),
        })
    });
    Ok(found.collect())
}

/// Returns the name of a table or view of ours.
fn declared(name: &str) -> Option<&'static str> {
    let view = || Some(VIEWS.iter().find(|view| view.name == name)?.name);
    table::find(name).map(|table| table.name).or_else(view)
}

/// What a name stands for, in words and in SQL.
fn kind(name: &str) -> (&'static str, &'static str) {
    if table::find(name).is_some() { ("table", "TABLE") } else { ("view", "MATERIALIZED VIEW") }
}

#[derive(Debug)]
struct Lagging {
    since: Timestamp,
    seen: Instant,
    writer: u64,
    resumed: Option<Instant>,
}

/// Remembers since when a table lags.
#[derive(Debug, Default)]
pub struct Watch {
    tables: BTreeMap<&'static str, Lagging>,
}

/// What [`Watch::judge`] finds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judgement {
    /// What is wrong and the next step, for each table that is not well.
    pub reasons: Vec<String>,
    /// Statements to try now.
    pub statements: Vec<String>,
}

impl Watch {
    /// Judges what the server says at `now`; `has_space` tells whether its disk has room again, as
    /// far as is known. Pure but for its memory.
    pub fn judge(
        &mut self,
        tables: &[WalTable],
        now: Timestamp,
        instant: Instant,
        has_space: bool,
    ) -> Judgement {
        let mut judgement = Judgement::default();
        self.tables.retain(|name, _| tables.iter().any(|table| table.name == *name));
        for table in tables {
            if !table.suspended && table.lag() == 0 {
                self.tables.remove(table.name);
                continue;
            }
            let fresh = Lagging { since: now, seen: instant, writer: table.writer, resumed: None };
            let lagging = self.tables.entry(table.name).or_insert(fresh);
            if !table.suspended && table.writer > lagging.writer {
                // It catches up: only standing still is a fault.
                lagging.seen = instant;
                lagging.writer = table.writer;
                continue;
            }
            let name = table.name;
            let (kind, kind_sql) = kind(name);
            let resume = format!("ALTER {kind_sql} {name} RESUME WAL");
            if table.suspended {
                judgement.reasons.push(format!(
                    "{kind} {name} is suspended ({}: {}): rows are accepted but not visible since \
                     {}; once the cause is gone run \"{resume}\"",
                    if table.tag.is_empty() { "no cause given" } else { &table.tag },
                    table.message,
                    lagging.since
                ));
                let rested =
                    lagging.resumed.is_none_or(|at| instant.duration_since(at) >= RESUME_PAUSE);
                if table.may_be_a_full_disk() && has_space && rested {
                    lagging.resumed = Some(instant);
                    judgement.statements.push(resume);
                }
            } else if instant.duration_since(lagging.seen) >= STALLED {
                judgement.reasons.push(format!(
                    "{kind} {name} does not progress: rows are accepted but not visible since {}; \
                     see the log of questdb",
                    lagging.since
                ));
            }
        }
        judgement
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(suspended: bool, writer: u64, sequencer: u64, tag: &str) -> WalTable {
        let (tag, message) = (tag.to_owned(), "no space left".to_owned());
        WalTable { name: "daemon_metrics", suspended, writer, sequencer, tag, message }
    }

    #[test]
    fn a_suspended_table_is_named_with_its_command_and_resumed_after_a_full_disk() {
        let (mut watch, now, start) = (Watch::default(), Timestamp::from_millis(0), Instant::now());
        let full = [table(true, 3, 9, "DISK FULL")];
        let judged = watch.judge(&full, now, start, false);
        let text = &judged.reasons[0];
        assert!(text.contains("\"ALTER TABLE daemon_metrics RESUME WAL\""), "{text}");
        assert!(text.contains("since 1970-01-01T00:00:00Z"), "{text}");
        assert!(judged.statements.is_empty());
        let resume = ["ALTER TABLE daemon_metrics RESUME WAL"];
        let later = now.plus(Duration::from_secs(10));
        assert_eq!(watch.judge(&full, later, start, true).statements, resume);
        assert!(watch.judge(&full, later, start, true).statements.is_empty(), "not in a hurry");
        let judged = watch.judge(&full, later, start + RESUME_PAUSE, true);
        assert_eq!(judged.statements, resume);
        assert!(judged.reasons[0].contains("since 1970-01-01T00:00:00Z"));
        let view = [WalTable { name: "daemon_metrics_1h", ..table(true, 3, 9, "") }];
        let text = Watch::default().judge(&view, now, start, false).reasons.remove(0);
        assert!(
            text.contains("\"ALTER MATERIALIZED VIEW daemon_metrics_1h RESUME WAL\""),
            "{text}"
        );
        let other = [table(true, 3, 9, "OUT OF MEMORY")];
        assert!(watch.judge(&other, later, start + RESUME_PAUSE * 3, true).statements.is_empty());
        assert_eq!(
            watch.judge(&[table(false, 9, 9, "")], later, start, true),
            Judgement::default()
        );
        let in_a_merge = [table(true, 3, 9, "")];
        assert_eq!(watch.judge(&in_a_merge, later, start, true).statements, resume);
        let by_a_person = [WalTable { message: String::new(), ..table(true, 3, 9, "") }];
        let later = start + RESUME_PAUSE * 5;
        assert!(watch.judge(&by_a_person, now, later, true).statements.is_empty());
    }

    #[test]
    fn lag_is_a_fault_only_while_nothing_moves() {
        let (mut watch, now, start) = (Watch::default(), Timestamp::from_millis(0), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reasons = |writer, sequencer, seconds| {
            let tables = [table(false, writer, sequencer, "")];
            watch.judge(&tables, now, at(seconds), true).reasons.len()
        };
        assert_eq!(reasons(1, 9, 0), 0);
        assert_eq!(reasons(2, 20, 29), 0);
        assert_eq!(reasons(2, 20, 58), 0);
        assert_eq!(reasons(2, 30, 60), 1);
        assert_eq!(reasons(30, 30, 61), 0);
    }
}

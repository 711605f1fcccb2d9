//! From the queue to the spool: validates, encodes, groups by table. A thread of its own, because
//! encoding a batch takes longer than a task may hold the runtime up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::conditions::{Conditions, Source};
use super::encode::{Body, table_of};
use super::queue::{Done, Entry, Next, PushError, RowStream};
use super::spool::disk::Loss;
use super::spool::thread::{Append, Mailbox};
use super::stats::Stats;
use super::validate::{Invalid, Origin, Repair, Validator};
use crate::base::metrics::{Metrics, Reason};
use crate::base::time::{Clock, Timestamp};
use crate::config::Node;
use crate::model::row::{Row, Value};
use crate::model::table::{SAMPLE_GAPS, TABLES};

/// How often losses are looked for while no row comes.
const QUIET: Duration = Duration::from_secs(1);

/// What the intake needs.
#[derive(Debug)]
pub struct Setup {
    /// Rows of one table per record.
    pub batch_rows: usize,
    /// Longest time that a row waits for its record to fill.
    pub flush_interval: Duration,
    /// Tags of the rows that periscope itself writes.
    pub node: Node,
    /// Where records go.
    pub mailbox: Mailbox,
    /// Figures; losses come from here.
    pub stats: Stats,
    /// Metrics.
    pub metrics: Metrics,
    /// What is wrong with delivery.
    pub conditions: Conditions,
    /// Where "now" comes from.
    pub clock: Clock,
}

/// Rows of one table that wait.
#[derive(Debug)]
struct Pending {
    body: Body,
    /// Index of the column `daemon`.
    daemon: Option<usize>,
    newest: Vec<(Arc<str>, Timestamp)>,
}

#[derive(Debug)]
struct Intake {
    setup: Setup,
    validator: Validator,
    tables: Vec<Pending>,
    /// Complete drafts and those who wait.
    append: Append,
    /// When the oldest waiting row has waited long enough.
    deadline: Option<Instant>,
    /// Whether a column had too many different values when last looked at.
    is_over: bool,
}

/// Runs until all senders of `rows` are gone and everything is handed over.
pub fn run(rows: &RowStream, setup: Setup) {
    let mut intake = Intake::new(setup);
    loop {
        let wait = intake
            .deadline
            .map_or(QUIET, |deadline| deadline.saturating_duration_since(Instant::now()));
        match rows.next(wait) {
            Next::Rows(entries) => entries.into_iter().for_each(|entry| intake.take(entry)),
            Next::Nothing => {}
            Next::Ended => break,
        }
        intake.setup.stats.lost(rows.take_losses(), &intake.setup.metrics);
        intake.write_gaps();
        intake.flush_due();
        intake.look_for_a_new_day();
    }
    intake.setup.stats.lost(rows.take_losses(), &intake.setup.metrics);
    intake.write_gaps();
    intake.flush_all();
}

impl Intake {
    fn new(setup: Setup) -> Self {
        let pending = |(id, table): (u16, &'static crate::model::table::Table)| Pending {
            body: Body::new(table, id),
            daemon: table.columns.iter().position(|column| column.name == "daemon"),
            newest: Vec::new(),
        };
        Self {
            validator: Validator::new(setup.clock.now()),
            tables: (0_u16..).zip(TABLES).map(pending).collect(),
            append: Append::default(),
            deadline: None,
            is_over: false,
            setup,
        }
    }

    /// Takes rows over, or refuses them when somebody waits for an answer.
    fn take(&mut self, entry: Entry) {
        let now = self.setup.clock.now();
        match entry.done {
            None => {
                for row in entry.rows {
                    if let Err(invalid) = self.add(row, now, Origin::Polled) {
                        self.count(invalid.name());
                    }
                }
            }
            Some(done) => self.take_all_or_nothing(entry.rows, done, now),
        }
    }

    fn take_all_or_nothing(&mut self, rows: Vec<Row>, done: Done, now: Timestamp) {
        let mut bad: Vec<(usize, Invalid)> = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            if let Err(invalid) = Validator::refuse(row, now) {
                self.count(invalid.name());
                bad.push((index, invalid));
            }
        }
        if !bad.is_empty() {
            // Whoever pushed may have given up waiting.
            let _unsent = done.send(Err(PushError::Invalid(bad)));
            return;
        }
        for row in rows {
            // What is left of a row after repair may be nothing at all: counted, as with polls.
            if let Err(invalid) = self.add(row, now, Origin::Pushed) {
                self.count(invalid.name());
            }
        }
        self.append.done.push(done);
    }

    fn count(&self, reason: &'static str) {
        self.setup.metrics.rows_invalid.get_or_create(&Reason { reason }).inc();
    }

    /// Validates and encodes `row`.
    fn add(&mut self, mut row: Row, now: Timestamp, origin: Origin) -> Result<(), Invalid> {
        let metrics = &self.setup.metrics;
        let mut is_over = false;
        let id = self.validator.check(&mut row, now, origin, |repair| {
            is_over |= repair == Repair::Distinct;
            metrics.rows_invalid.get_or_create(&Reason { reason: repair.name() }).inc();
        })?;
        if is_over {
            self.is_over = true;
            self.show_columns_over_the_limit();
        }
        let Some(pending) = self.tables.get_mut(usize::from(id)) else {
            return Err(Invalid::UnknownTable);
        };
        if let Err(error) = pending.body.add(&row) {
            tracing::debug!(table = row.table.name, %error, "row cannot be encoded");
            return Err(Invalid::Empty);
        }
        if let Some(Value::Text(daemon)) = pending.daemon.and_then(|at| row.values().get(at)) {
            note_newest(&mut pending.newest, daemon, row.at);
        }
        let rows = usize::try_from(pending.body.rows()).unwrap_or(usize::MAX);
        let is_full = rows >= self.setup.batch_rows || pending.body.is_full();
        if is_full {
            self.flush_table(usize::from(id));
            self.hand_over();
        } else if self.deadline.is_none() {
            self.deadline = Some(Instant::now() + self.setup.flush_interval);
        }
        Ok(())
    }

    fn show_columns_over_the_limit(&self) {
        let columns = self.validator.columns_over_the_limit().join(", ");
        let reason = format!(
            "more than {} different values today in {columns}: further ones are stored as {}",
            super::validate::DISTINCT_LIMIT,
            super::validate::OTHER
        );
        self.setup.conditions.set(Source::Values, Some(reason));
    }

    /// Takes the condition back once the columns may have new values again.
    fn look_for_a_new_day(&mut self) {
        if self.is_over && self.validator.columns_over_the_limit().is_empty() {
            self.is_over = false;
            self.setup.conditions.set(Source::Values, None);
        }
    }

    /// Moves the rows of a table into the next append.
    fn flush_table(&mut self, index: usize) {
        let Some(pending) = self.tables.get_mut(index) else { return };
        self.append.drafts.extend(pending.body.take());
        self.append.newest.append(&mut pending.newest);
    }

    fn flush_all(&mut self) {
        (0..self.tables.len()).for_each(|index| self.flush_table(index));
        self.deadline = None;
        self.hand_over();
    }

    /// Flushes when rows have waited long enough or somebody waits for them.
    fn flush_due(&mut self) {
        let is_due = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if is_due || !self.append.done.is_empty() {
            self.flush_all();
        }
    }

    /// Hands complete drafts to the spool. Those who wait do so until all tables are flushed.
    fn hand_over(&mut self) {
        let is_everything = self.deadline.is_none();
        let done = if is_everything { std::mem::take(&mut self.append.done) } else { Vec::new() };
        let append = Append {
            drafts: std::mem::take(&mut self.append.drafts),
            newest: std::mem::take(&mut self.append.newest),
            done,
        };
        if !append.drafts.is_empty() || !append.done.is_empty() {
            self.setup.mailbox.append(append);
        }
    }

    /// Writes a row about every loss.
    fn write_gaps(&mut self) {
        let now = self.setup.clock.now();
        for loss in self.setup.stats.take_losses() {
            let row = gap_row(&loss, &self.setup.node, now);
            if let Err(invalid) = self.add(row, now, Origin::Polled) {
                self.count(invalid.name());
            }
        }
    }
}

/// Remembers the newest sample of a daemon. Rows of one daemon mostly come together.
fn note_newest(newest: &mut Vec<(Arc<str>, Timestamp)>, daemon: &Arc<str>, at: Timestamp) {
    let known = newest.iter_mut().rev().take(8);
    match known.into_iter().find(|(name, _)| name == daemon) {
        Some((_, time)) => *time = at.max(*time),
        None => newest.push((Arc::clone(daemon), at)),
    }
}

/// Returns the row of `sample_gaps` that tells of `loss`.
fn gap_row(loss: &Loss, node: &Node, now: Timestamp) -> Row {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let table = loss.table.and_then(table_of).map_or("*", |table| table.name);
    let known = Some(loss.first).filter(|first| *first > 0);
    Row::new(&SAMPLE_GAPS, now)
        .with("reason", loss.reason.name())
        .with("table_name", table)
        .with("host", node.host.as_str())
        .with("env", node.env.as_str())
        .with("gap_from", loss.from)
        .with("gap_to", loss.to)
        .with("first_seq", known.map(signed))
        .with("last_seq", known.map(|_| signed(loss.last)))
        .with("rows", signed(loss.rows))
}

//! The latest rows, as they went into the queue, for when the database cannot be asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::time::Timestamp;
use crate::model::row::{Row, Value};
use crate::rules::condition::{Condition, Measure};
use crate::rules::rule::Rule;
use crate::rules::window::{self, Sample, TooShort};

/// Rows that are kept over all tables; about 600 bytes each.
pub const ROWS_LIMIT: usize = 60_000;
/// Rows that may come between two evaluations; beyond that the oldest are forgotten.
const INBOX_LIMIT: usize = 60_000;
/// No row is kept for longer: daemons that were away for longer are in the database alone.
const AGE_LIMIT: Duration = Duration::from_secs(2 * 3_600 + 60);
/// Daemons whose last error is known.
const ERRORS_LIMIT: usize = 2_000;

/// Where rows come in; clones share it. Never waits for long: whoever evaluates takes all at once.
#[derive(Debug, Clone, Default)]
pub struct Inbox(Arc<Mutex<Arrived>>);

#[derive(Debug, Default)]
struct Arrived {
    tables: Vec<&'static str>,
    rows: VecDeque<Row>,
    /// Time of the newest row that did not fit.
    dropped: Option<Timestamp>,
}

impl Inbox {
    /// Makes one for the tables that `rules` read.
    pub fn new(rules: &[Rule]) -> Self {
        let arrived = Arrived { tables: tables(rules), ..Arrived::default() };
        Self(Arc::new(Mutex::new(arrived)))
    }

    /// Keeps copies of those of `rows` that a rule may read.
    pub fn put(&self, rows: &[Row]) {
        let mut arrived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if !arrived.tables.contains(&row.table.name) {
                continue;
            }
            if arrived.rows.len() >= INBOX_LIMIT {
                let oldest = arrived.rows.pop_front().map(|row| row.at);
                arrived.dropped = arrived.dropped.max(oldest);
            }
            arrived.rows.push_back(row.clone());
        }
    }

    fn take(&self) -> (VecDeque<Row>, Option<Timestamp>) {
        let mut arrived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut arrived.rows), arrived.dropped.take())
    }
}

fn tables(rules: &[Rule]) -> Vec<&'static str> {
    let measures = rules.iter().filter_map(|rule| match &rule.condition {
        Condition::Rows(measure) => Some(measure.table.name),
        Condition::Sql { .. } | Condition::Own(_) => None,
    });
    let mut tables: Vec<&'static str> = measures.collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

/// The rows that are held.
#[derive(Debug)]
pub struct Memory {
    inbox: Inbox,
    tables: BTreeMap<&'static str, Vec<Row>>,
    limit: usize,
    /// Everything newer than this is held.
    held_since: Timestamp,
    errors: BTreeMap<Arc<str>, (Timestamp, Arc<str>)>,
}

impl Memory {
    /// Holds nothing yet; `now` is when rows begin to come.
    pub fn new(inbox: Inbox, now: Timestamp) -> Self {
        Self::with_limit(inbox, now, ROWS_LIMIT)
    }

    fn with_limit(inbox: Inbox, now: Timestamp, limit: usize) -> Self {
        let (tables, errors) = (BTreeMap::new(), BTreeMap::new());
        Self { inbox, tables, limit, held_since: now, errors }
    }

    /// Takes in what has come, and forgets what is too old or too much.
    pub fn refresh(&mut self, now: Timestamp) {
        let (rows, dropped) = self.inbox.take();
        self.held_since = self.held_since.max(dropped.unwrap_or(self.held_since));
        for row in rows {
            self.learn_error(&row);
            self.tables.entry(row.table.name).or_default().push(row);
        }
        let oldest = now.minus(AGE_LIMIT);
        for rows in self.tables.values_mut() {
            rows.retain(|row| row.at > oldest);
        }
        self.held_since = self.held_since.max(oldest);
        let total: usize = self.tables.values().map(Vec::len).sum();
        if total > self.limit {
            self.forget(total - self.limit);
        }
    }

    /// Forgets the `count` oldest rows, and a tenth more so that this is rare.
    fn forget(&mut self, count: usize) {
        let mut times: Vec<Timestamp> = self.tables.values().flatten().map(|row| row.at).collect();
        let index = (count + self.limit / 10).min(times.len().saturating_sub(1));
        let (_, edge, _) = times.select_nth_unstable(index);
        let edge = *edge;
        for rows in self.tables.values_mut() {
            rows.retain(|row| row.at > edge);
        }
        self.held_since = self.held_since.max(edge);
    }

    fn learn_error(&mut self, row: &Row) {
        let (Value::Text(daemon), Value::Text(error)) = (row.get("daemon"), row.get("last_error"))
        else {
            return;
        };
        if self.errors.len() < ERRORS_LIMIT || self.errors.contains_key(daemon) {
            self.errors.insert(Arc::clone(daemon), (row.at, Arc::clone(error)));
        }
    }

    /// Returns the last error of each daemon that told one.
    pub fn errors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.errors.iter().map(|(daemon, (_, error))| (&**daemon, &**error))
    }

    /// Evaluates `measure` over what is held; also says whether that is its whole window.
    ///
    /// # Errors
    /// It needs more than is held.
    pub fn evaluate(
        &self,
        measure: &Measure,
        now: Timestamp,
    ) -> Result<(Vec<Sample>, bool), TooShort> {
        let rows = self.tables.get(measure.table.name).map(Vec::as_slice).unwrap_or_default();
        let is_whole = self.held_since <= now.minus(measure.window);
        Ok((window::evaluate(measure, rows, self.held_since, now)?, is_whole))
    }

    /// Returns how many rows are held.
    pub fn len(&self) -> usize {
        self.tables.values().map(Vec::len).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::{DAEMON_METRICS, SAMPLE_GAPS};
    use crate::rules::catalog;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn row(seconds: i64, memory: i64) -> Row {
        Row::new(&DAEMON_METRICS, at(seconds))
            .with("daemon", "ccxt")
            .with("host", "h")
            .with("env", "dev")
            .with("last_error", "boom")
            .with("memory_bytes", memory)
    }

    fn measure(id: &str) -> Measure {
        let rules = catalog::shipped().unwrap();
        let rule = rules.into_iter().find(|rule| rule.id == id).unwrap();
        let Condition::Rows(measure) = rule.condition else { panic!("{id} reads no rows") };
        measure
    }

    #[test]
    fn answers_over_what_has_come() {
        let rules = catalog::shipped().unwrap();
        let inbox = Inbox::new(&rules);
        let mut memory = Memory::new(inbox.clone(), at(-60));
        inbox.put(&[row(-10, 5), row(-5, 7)]);
        inbox.put(&[Row::new(&crate::model::table::ALERT_EVENTS, at(-1))]);
        memory.refresh(at(0));
        assert_eq!(memory.len(), 2, "no rule reads alert_events");
        let (samples, is_whole) = memory.evaluate(&measure("daemon_memory"), at(0)).unwrap();
        assert_eq!((samples[0].value, is_whole), (7.0, false));
        assert_eq!(memory.errors().collect::<Vec<_>>(), [("ccxt", "boom")]);
        // The usual gap of two hours cannot be seen yet.
        assert!(memory.evaluate(&measure("daemon_stuck"), at(0)).is_err());
    }

    #[test]
    fn the_oldest_rows_go_and_it_is_known_since_when_all_are_held() {
        let inbox = Inbox::new(&catalog::shipped().unwrap());
        let mut memory = Memory::with_limit(inbox.clone(), at(-10_000), 100);
        let rows: Vec<Row> = (0..150).map(|n| row(n, n)).collect();
        inbox.put(&rows);
        memory.refresh(at(150));
        assert!(memory.len() <= 100 && memory.len() >= 80, "{}", memory.len());
        assert!(memory.held_since >= at(50), "{}", memory.held_since);
        memory.refresh(at(150 + 8_000));
        assert!(memory.is_empty());
        inbox.put(&[Row::new(&SAMPLE_GAPS, at(8_200))]);
        memory.refresh(at(8_200));
        assert_eq!(memory.len(), 1);
    }
}

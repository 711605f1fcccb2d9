//! What may not reach the spool: `QuestDB` accepts rubbish that can never be taken back. Pure.
//!
//! Rows whose time cannot be right are refused. Everything else is repaired and counted: no single
//! bad value costs a row, and no row costs the others.

use std::sync::Arc;
use std::time::Duration;

use super::encode::table_id;
use super::text;
use super::values::{OTHER_ID, SeriesMap, Values, mix};
use crate::base::time::Timestamp;
use crate::model::row::{Row, Value};
use crate::model::table::{Kind, TABLES, Table};

/// Earliest time of a row: the start of 2020, UTC.
pub const EARLIEST: Timestamp = Timestamp::from_millis(1_577_836_800_000);
/// How far in the future a row may be.
pub const FUTURE: Duration = Duration::from_secs(300);
/// Different values that a SYMBOL column may get in a day.
pub const DISTINCT_LIMIT: usize = 1_000;
/// What stands for the values beyond that.
pub const OTHER: &str = "__other__";
/// Largest SYMBOL value, characters.
const SYMBOL_CHARS: usize = 255;
/// Largest VARCHAR value, bytes.
const TEXT_BYTES: usize = 4096;
/// After a step back of the clock by more than this, times are taken as they come.
const STEP: i64 = 60_000_000_000;
/// Series whose last time is remembered.
const SERIES_LIMIT: usize = 200_000;
const DAY: Duration = Duration::from_secs(86_400);

/// Why a row is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// Before 2020.
    Past,
    /// More than five minutes in the future.
    Future,
    /// Without any value.
    Empty,
    /// Of a table that is not declared.
    UnknownTable,
}

impl Invalid {
    /// Returns the name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Past => "timestamp_past",
            Self::Future => "timestamp_future",
            Self::Empty => "empty",
            Self::UnknownTable => "unknown_table",
        }
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Past => "the timestamp is before 2020 (it must be in nanoseconds since 1970)",
            Self::Future => "the timestamp is more than five minutes in the future",
            Self::Empty => "the row has no value",
            Self::UnknownTable => "there is no such table",
        })
    }
}

/// What was repaired in a row; the name is the reason in metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// NaN or infinite: null now.
    NotFinite,
    /// Control characters: gone now.
    Characters,
    /// Too long: cut now.
    Length,
    /// One value too many: [`OTHER`] now.
    Distinct,
    /// A time outside of the years 2000 to 2200 in a column: null now.
    Time,
}

impl Repair {
    /// Returns the name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFinite => "repaired_not_finite",
            Self::Characters => "repaired_characters",
            Self::Length => "repaired_length",
            Self::Distinct => "repaired_distinct",
            Self::Time => "repaired_time",
        }
    }
}

/// Who a row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A poll loop: periscope chose the time, so it may move it to keep rows apart.
    Polled,
    /// A client that may send the same row again: its time is part of the row's identity.
    Pushed,
}

/// Remembers what rows before had: values of SYMBOL columns, and the last time of each series.
#[derive(Debug)]
pub struct Validator {
    columns: Vec<Vec<Values>>,
    since: Timestamp,
    last: SeriesMap<i64>,
    other: Arc<str>,
}

impl Validator {
    /// Makes one that has seen nothing.
    pub fn new(now: Timestamp) -> Self {
        let columns = |table: &&Table| table.columns.iter().map(|_| Values::default()).collect();
        Self {
            columns: TABLES.iter().map(columns).collect(),
            since: now,
            last: SeriesMap::default(),
            other: OTHER.into(),
        }
    }

    /// Checks what a row cannot be stored without, and changes nothing.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn refuse(row: &Row, now: Timestamp) -> Result<u16, Invalid> {
        let id = table_id(row.table).ok_or(Invalid::UnknownTable)?;
        if row.at < EARLIEST {
            return Err(Invalid::Past);
        }
        if row.at > now.plus(FUTURE) {
            return Err(Invalid::Future);
        }
        if row.values().iter().all(|value| *value == Value::Null) {
            return Err(Invalid::Empty);
        }
        Ok(id)
    }

    /// Repairs `row` until it can be stored; `note` learns of every repair. Returns the table's id.
    ///
    /// # Errors
    /// See [`Invalid`].
    pub fn check(
        &mut self,
        row: &mut Row,
        now: Timestamp,
        origin: Origin,
        mut note: impl FnMut(Repair),
    ) -> Result<u16, Invalid> {
        let id = Self::refuse(row, now)?;
        if now.since(self.since) >= DAY {
            self.columns.iter_mut().flatten().for_each(|values| *values = Values::default());
            self.last.clear();
            self.since = now;
        }
        let other = Arc::clone(&self.other);
        let Some(columns) = self.columns.get_mut(usize::from(id)) else {
            return Err(Invalid::UnknownTable);
        };
        let mut series = mix(0, u64::from(id));
        let mut is_merged = false;
        let table = row.table;
        for ((value, column), seen) in row.values_mut().iter_mut().zip(table.columns).zip(columns) {
            if column.kind == Kind::Symbol {
                let (id, merged) = symbol(value, seen, &other, &mut note);
                is_merged |= merged;
                if column.key {
                    series = mix(series, id);
                }
            } else {
                plain(value, &mut note);
            }
        }
        if row.values().iter().all(|value| *value == Value::Null) {
            return Err(Invalid::Empty);
        }
        // Merged series are no longer told apart by their keys, so that their times must do it.
        if origin == Origin::Polled || is_merged {
            row.at = self.distinct_time(series, row.at);
        }
        Ok(id)
    }

    /// Returns `at`, or 1 µs after the last time of the series where that is not earlier.
    fn distinct_time(&mut self, series: u64, at: Timestamp) -> Timestamp {
        if self.last.len() >= SERIES_LIMIT {
            self.last.clear();
        }
        let last = self.last.entry(series).or_insert(i64::MIN);
        let nanos = at.nanos();
        let is_step = last.saturating_sub(nanos) > STEP;
        *last = if nanos > *last || is_step { nanos } else { last.saturating_add(1_000) };
        Timestamp::from_nanos(*last)
    }

    /// Returns the columns that have had too many different values today.
    pub fn columns_over_the_limit(&self) -> Vec<String> {
        let tables = TABLES.iter().zip(&self.columns);
        tables
            .flat_map(|(table, columns)| {
                let over = table.columns.iter().zip(columns).filter(|(_, values)| values.is_over);
                over.map(|(column, _)| format!("{}.{}", table.name, column.name))
            })
            .collect()
    }
}

/// Repairs a SYMBOL value; returns its id and whether it became [`OTHER`].
fn symbol(
    value: &mut Value,
    seen: &mut Values,
    other: &Arc<str>,
    note: &mut impl FnMut(Repair),
) -> (u64, bool) {
    let Value::Text(text) = value else {
        *value = Value::Null;
        return (0, false);
    };
    if let Some(id) = seen.recent(text) {
        return (id, false);
    }
    if let Some(clean) = text::without_controls(text) {
        note(Repair::Characters);
        *text = clean.into();
    }
    if let Some(short) = text::first_chars(text, SYMBOL_CHARS) {
        note(Repair::Length);
        *text = short.into();
    }
    if text.is_empty() {
        *value = Value::Null;
        return (0, false);
    }
    if let Some(id) = seen.id(text) {
        return (id, false);
    }
    note(Repair::Distinct);
    seen.is_over = true;
    *text = Arc::clone(other);
    (OTHER_ID, true)
}

/// Repairs a value of any other kind.
fn plain(value: &mut Value, note: &mut impl FnMut(Repair)) {
    const CENTURIES: std::ops::Range<i64> = 946_684_800_000..7_258_118_400_000;
    match value {
        Value::Double(number) if !number.is_finite() => {
            note(Repair::NotFinite);
            *value = Value::Null;
        }
        Value::Time(at) if !CENTURIES.contains(&at.millis()) => {
            note(Repair::Time);
            *value = Value::Null;
        }
        Value::Text(text) => {
            if let Some(clean) = text::without_controls(text) {
                note(Repair::Characters);
                *text = clean.into();
            }
            if let Some(short) = text::first_bytes(text, TEXT_BYTES) {
                note(Repair::Length);
                *text = short.into();
            }
        }
        Value::Null | Value::Bool(_) | Value::Long(_) | Value::Double(_) | Value::Time(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::DAEMON_METRICS;

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    fn check(validator: &mut Validator, row: &mut Row) -> Result<Vec<Repair>, Invalid> {
        let mut repairs = Vec::new();
        validator.check(row, NOW, Origin::Polled, |repair| repairs.push(repair))?;
        Ok(repairs)
    }

    fn row(daemon: &str) -> Row {
        row_at(daemon, NOW)
    }

    fn row_at(daemon: &str, at: Timestamp) -> Row {
        Row::new(&DAEMON_METRICS, at).with("daemon", daemon)
    }

    #[test]
    fn impossible_times_are_refused() {
        let mut validator = Validator::new(NOW);
        for (at, expected) in [
            (EARLIEST, None),
            (EARLIEST.minus(Duration::from_nanos(1)), Some(Invalid::Past)),
            (Timestamp::from_nanos(1_764_000_000_000), Some(Invalid::Past)),
            (NOW.plus(FUTURE), None),
            (NOW.plus(FUTURE + Duration::from_nanos(1)), Some(Invalid::Future)),
        ] {
            let mut row = row_at("a", at);
            assert_eq!(check(&mut validator, &mut row).err(), expected, "{at}");
        }
        let mut empty = Row::new(&DAEMON_METRICS, NOW).with("daemon", "\u{1b}\0");
        assert_eq!(check(&mut validator, &mut empty), Err(Invalid::Empty));
    }

    #[test]
    fn values_are_repaired_and_each_repair_is_told() {
        let mut validator = Validator::new(NOW);
        let mut row = row("a\u{7}b")
            .with("cpu_percent", f64::NAN)
            .with("poll_ms", f64::NEG_INFINITY)
            .with("last_fetch_time", Timestamp::from_nanos(5))
            .with("last_error", format!("{}\u{202e}", "ü".repeat(3000)));
        let repairs = check(&mut validator, &mut row).unwrap();
        use Repair::{Characters, Length, NotFinite, Time};
        assert_eq!(repairs, [Characters, Time, Characters, Length, NotFinite, NotFinite]);
        assert_eq!(*row.get("daemon"), Value::from("ab"));
        assert_eq!(*row.get("cpu_percent"), Value::Null);
        let Value::Text(error) = row.get("last_error") else { panic!("no text") };
        assert_eq!(error.len(), 4096);
    }

    #[test]
    fn the_thousand_and_first_value_becomes_other_until_the_next_day() {
        let mut validator = Validator::new(NOW);
        for number in 0..DISTINCT_LIMIT {
            assert!(check(&mut validator, &mut row(&format!("d{number}"))).unwrap().is_empty());
        }
        assert!(validator.columns_over_the_limit().is_empty());
        let mut one_more = row("one more");
        assert_eq!(check(&mut validator, &mut one_more).unwrap(), [Repair::Distinct]);
        assert_eq!(*one_more.get("daemon"), Value::from(OTHER));
        assert_eq!(validator.columns_over_the_limit(), ["daemon_metrics.daemon"]);
        let mut another = row("another");
        check(&mut validator, &mut another).unwrap();
        assert_eq!(another.at, NOW.plus(Duration::from_micros(1)), "kept apart by its time");
        assert!(check(&mut validator, &mut row("d7")).unwrap().is_empty());
        let tomorrow = NOW.plus(DAY);
        let mut late = row_at("one more", tomorrow);
        validator.check(&mut late, tomorrow, Origin::Polled, |_| panic!("no repair")).unwrap();
        assert_eq!(*late.get("daemon"), Value::from("one more"));
    }

    #[test]
    fn times_of_a_polled_series_rise_and_those_of_pushed_rows_stay() {
        let mut validator = Validator::new(NOW);
        let mut at = |daemon: &str, millis: u64, origin| {
            let mut row = row_at(daemon, NOW.minus(Duration::from_millis(millis)));
            validator.check(&mut row, NOW, origin, |_| {}).unwrap();
            NOW.since(row.at)
        };
        let millis = Duration::from_millis;
        let micro = Duration::from_micros(1);
        assert_eq!(at("a", 0, Origin::Polled), Duration::ZERO);
        assert_eq!(at("a", 100, Origin::Pushed), millis(100));
        assert_eq!(at("b", 100, Origin::Polled), millis(100));
        assert_eq!(at("b", 100, Origin::Polled), millis(100) - micro);
        assert_eq!(at("b", 150, Origin::Polled), millis(100) - micro * 2);
        // The clock was set back by an hour: an hour of rows within microseconds helps nobody.
        assert_eq!(at("b", 3_600_000, Origin::Polled), millis(3_600_000));
        assert_eq!(at("b", 3_600_000, Origin::Polled), millis(3_600_000) - micro);
    }
}

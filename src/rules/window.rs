//! The same conditions as in [`sql`](super::sql), over rows held in memory, for when the database
//! cannot answer. A test on the real database holds both together.

use std::collections::BTreeMap;
use std::time::Duration;

use super::condition::{Aggregate, Function, Match, Measure};
use super::rule::Labels;
use crate::base::time::Timestamp;
use crate::model::row::{Row, Value};
use crate::model::table::Column;

/// The value of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Which series.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// Memory does not reach back far enough to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rule needs {needed:?} of rows, only {held:?} are held in memory")]
pub struct TooShort {
    /// Window of the rule.
    pub needed: Duration,
    /// What is held.
    pub held: Duration,
}

/// Evaluates `measure` at `now` over `rows` (of any tables, in any order), which hold everything
/// since `held_since`. Samples are ordered by their labels.
///
/// Of two rows of one series and time the later one counts, as in the database.
pub fn evaluate(
    measure: &Measure,
    rows: &[Row],
    held_since: Timestamp,
    now: Timestamp,
) -> Result<Vec<Sample>, TooShort> {
    let start = now.minus(measure.window);
    if measure.needs_whole_window() && held_since > start {
        return Err(TooShort { needed: measure.window, held: now.since(held_since) });
    }
    let mut unique: BTreeMap<(Vec<&str>, Timestamp), &Row> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.table == measure.table && row.at > start) {
        let key = measure.table.keys().map(|column| text(row, column)).collect();
        unique.insert((key, row.at), row);
    }
    let mut groups: BTreeMap<Vec<&str>, Group<'_>> = BTreeMap::new();
    let needed = measure.needed();
    for ((key, at), row) in unique {
        let counts = measure.filter.iter().all(|condition| condition.holds(row))
            && needed.iter().all(|column| raw(row, column).is_some());
        if counts {
            let labels = measure.by.iter().map(|column| text(row, column)).collect();
            groups.entry(labels).or_default().series.entry(key).or_default().insert(at, row);
        }
    }
    let mut samples = Vec::new();
    for (labels, group) in groups {
        let Some(newest) = group.rows().map(|row| row.at).max() else { continue };
        if measure.fresh.is_some_and(|fresh| newest <= now.minus(fresh)) {
            continue;
        }
        if let Some(value) = group.value(measure, now) {
            let names = measure.by.iter().map(|column| column.name.to_owned());
            let labels = names.zip(labels.into_iter().map(str::to_owned)).collect();
            samples.push(Sample { labels, value });
        }
    }
    samples.sort_by(|left, right| left.labels.cmp(&right.labels));
    Ok(samples)
}

/// Rows of one series by time.
type Series<'a> = BTreeMap<Timestamp, &'a Row>;

/// Series of equal labels.
#[derive(Default)]
struct Group<'a> {
    series: BTreeMap<Vec<&'a str>, Series<'a>>,
}

impl Group<'_> {
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.series.values().flat_map(|series| series.values().copied())
    }

    fn value(&self, measure: &Measure, now: Timestamp) -> Option<f64> {
        match &measure.aggregate {
            Aggregate::Plain { function, column } => self.plain(*function, column),
            Aggregate::Increase { column, per } => {
                let growth = float(self.growth(column));
                Some(per.map_or(growth, |per| {
                    growth * per.as_secs_f64() / measure.window.as_secs_f64()
                }))
            }
            Aggregate::Ratio { column, divisor, at_least } => {
                let below = self.growth(divisor);
                (below >= i64::from((*at_least).max(1)))
                    .then(|| float(self.growth(column)) / float(below))
            }
            Aggregate::Age { state } => {
                let newest = self.newest_out_of(state).or_else(|| self.oldest())?;
                Some(seconds(newest, now))
            }
            Aggregate::Lasted { state, column } => self.lasted(state, *column, now),
            Aggregate::Quiet { column, floor } => self.quiet(column, *floor, now),
        }
    }

    fn plain(&self, function: Function, column: &Column) -> Option<f64> {
        let values = || self.rows().filter_map(|row| number(row, column));
        match function {
            Function::Last => {
                self.rows().max_by_key(|row| row.at).and_then(|row| number(row, column))
            }
            Function::Avg => {
                let count = values().count();
                (count > 0)
                    .then(|| values().sum::<f64>() / float(i64::try_from(count).unwrap_or(1)))
            }
            Function::Min => values().reduce(f64::min),
            Function::Max => values().reduce(f64::max),
            Function::Sum => values().reduce(|left, right| left + right),
            Function::Count => i64::try_from(values().count()).ok().map(float),
        }
    }

    /// Sum of the positive steps of a counter, over all series.
    fn growth(&self, column: &Column) -> i64 {
        let mut total = 0_i64;
        for series in self.series.values() {
            let mut before = None;
            for row in series.values() {
                let Value::Long(value) = *row.get(column.name) else { continue };
                let step = before.map_or(0, |before| value.saturating_sub(before).max(0));
                total = total.saturating_add(step);
                before = Some(value);
            }
        }
        total
    }

    fn oldest(&self) -> Option<Timestamp> {
        self.rows().map(|row| row.at).min()
    }

    fn newest_out_of(&self, state: &[Match]) -> Option<Timestamp> {
        let inside =
            |row: &Row| !state.is_empty() && state.iter().all(|condition| condition.holds(row));
        self.rows().filter(|row| !inside(row)).map(|row| row.at).max()
    }

    fn lasted(&self, state: &[Match], column: Option<&Column>, now: Timestamp) -> Option<f64> {
        let newest = self.rows().max_by_key(|row| row.at)?;
        let good = self.newest_out_of(state);
        if good == Some(newest.at) {
            return Some(0.0);
        }
        let given = column.and_then(|column| number(newest, column));
        let since = good.or_else(|| self.oldest())?;
        Some(given.unwrap_or_else(|| seconds(since, now)).max(1.0))
    }

    fn quiet(&self, column: &Column, floor: Duration, now: Timestamp) -> Option<f64> {
        // Moment of the row and moment of the change, in nanoseconds.
        let mut changes: Vec<(Timestamp, i64)> = Vec::new();
        for series in self.series.values() {
            let mut before = None;
            for (at, row) in series {
                let Some(value) = raw(row, column) else { continue };
                if before != Some(value) {
                    let is_time = matches!(row.get(column.name), Value::Time(_));
                    changes.push((*at, if is_time { value } else { at.nanos() }));
                }
                before = Some(value);
            }
        }
        changes.sort_unstable();
        let newest = changes.iter().map(|(_, changed)| *changed).max()?;
        let (mut squares, mut total) = (0.0, 0.0);
        for ((_, earlier), (_, later)) in changes.iter().zip(changes.iter().skip(1)) {
            let gap = float(later.saturating_sub(*earlier)) / 1e9;
            squares += gap * gap;
            total += gap;
        }
        let floor = floor.as_secs_f64();
        let usual = if total > 0.0 { (squares / total).max(floor) } else { floor };
        Some(seconds(Timestamp::from_nanos(newest), now) / usual)
    }
}

/// Seconds from `then` to `now`; negative when `then` lies ahead.
fn seconds(then: Timestamp, now: Timestamp) -> f64 {
    float(now.nanos().saturating_sub(then.nanos())) / 1e9
}

/// The tag, empty when null.
fn text<'a>(row: &'a Row, column: &Column) -> &'a str {
    match row.get(column.name) {
        Value::Text(text) => text,
        Value::Null | Value::Bool(_) | Value::Long(_) | Value::Double(_) | Value::Time(_) => "",
    }
}

/// The number; `None` when null or no finite number, which the database stores as null.
fn number(row: &Row, column: &Column) -> Option<f64> {
    match *row.get(column.name) {
        Value::Long(value) => Some(float(value)),
        Value::Double(value) => value.is_finite().then_some(value),
        Value::Null | Value::Bool(_) | Value::Time(_) | Value::Text(_) => None,
    }
}

/// A whole number that tells values apart: nanoseconds of a time (cut to microseconds, as the
/// database keeps them), the value of a counter, the bits of a float.
fn raw(row: &Row, column: &Column) -> Option<i64> {
    match *row.get(column.name) {
        Value::Long(value) => Some(value),
        Value::Time(time) => Some(time.micros().saturating_mul(1_000)),
        Value::Double(value) => value.is_finite().then(|| value.to_bits().cast_signed()),
        Value::Null | Value::Bool(_) | Value::Text(_) => None,
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "counters and nanoseconds beyond 2^53 may lose their last digits, as in the database"
)]
const fn float(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table;
    use crate::rules::catalog;
    use crate::rules::condition::Condition;

    fn measure(id: &str) -> Measure {
        let rules = catalog::shipped().unwrap();
        let rule = rules.into_iter().find(|rule| rule.id == id).unwrap();
        let Condition::Rows(measure) = rule.condition else { panic!("{id} reads no rows") };
        measure
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn daemon(seconds: i64) -> Row {
        Row::new(&table::DAEMON_METRICS, at(seconds))
            .with("daemon", "ccxt")
            .with("host", "h")
            .with("env", "dev")
            .with("reachable", true)
            .with("running", true)
    }

    /// Values at second 0.
    fn values(id: &str, rows: &[Row]) -> Vec<f64> {
        let samples = evaluate(&measure(id), rows, Timestamp::EPOCH, at(0)).unwrap();
        samples.into_iter().map(|sample| sample.value).collect()
    }

    #[test]
    fn a_restart_does_not_count_as_errors() {
        let counts = [(-40, 100), (-30, 110), (-20, 0), (-10, 5)];
        let rows = counts.map(|(seconds, count)| daemon(seconds).with("error_count", count));
        // 10 before and 5 after the restart, in 5 minutes.
        assert_eq!(values("daemon_error_rate", &rows), [3.0]);
    }

    #[test]
    fn only_an_unanswered_poll_is_unreachable_and_only_a_stopped_daemon_is_down() {
        let unanswered = daemon(-5).with("reachable", false).with("running", false);
        let rows = [daemon(-100), unanswered];
        assert_eq!(values("daemon_unreachable", &rows), [100.0]);
        assert_eq!(values("daemon_down", &rows), [5.0]);
        let rows = [daemon(-100), daemon(-5).with("running", false)];
        assert_eq!(values("daemon_unreachable", &rows), [0.0]);
        assert_eq!(values("daemon_down", &rows), [100.0]);
    }

    #[test]
    fn a_feed_in_bursts_is_not_silent_between_them() {
        // Five fetches within 20 s, every 5 minutes; now 4 minutes after the last one.
        let feed = |until: i64| {
            let mut count = 0;
            let seconds = (-7_000..=0).step_by(5);
            let rows = seconds.map(|seconds| {
                let in_burst = (seconds + 7_000) % 300 < 25;
                count += i64::from(in_burst && seconds <= until);
                daemon(seconds - 2).with("fetch_count", count)
            });
            values("daemon_stuck", &rows.collect::<Vec<_>>())
        };
        let [value] = feed(0)[..] else { panic!("one series") };
        assert!(value < 1.0, "{value}");
        // The same, quiet since an hour and a half.
        let [value] = feed(-5_400)[..] else { panic!("one series") };
        assert!(value > 3.0, "{value}");
    }

    #[test]
    fn usual_gaps_are_not_guessed_from_a_few_minutes() {
        let rows = [daemon(-5).with("fetch_count", 1)];
        let short = evaluate(&measure("daemon_stuck"), &rows, at(-600), at(0)).unwrap_err();
        assert_eq!((short.needed.as_secs(), short.held.as_secs()), (7_200, 600));
        assert!(evaluate(&measure("daemon_memory"), &rows, at(-600), at(0)).is_ok());
    }

    #[test]
    fn a_row_that_replaces_another_counts_alone() {
        let rows = [daemon(-5).with("memory_bytes", 5), daemon(-5)];
        assert_eq!(values("daemon_memory", &rows), [0.0_f64; 0]);
    }
}

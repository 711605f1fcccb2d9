//! Looks between two evaluations: what has just gone bad, and what has been bad for long enough, is
//! found within half a second instead of at the next evaluation.
//!
//! A look reads the rows in memory, which are there before the database shows them. Rules that memory
//! cannot answer are asked of the database, but only while one of their series is near its limit. A
//! look ends no alert: that is left to the evaluation, which knows all.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::book::{Book, Series, Via, fingerprint};
use super::memory::Memory;
use crate::base::time::Timestamp;
use crate::rules::condition::{Aggregate, Condition, Function, Measure};
use crate::rules::machine::{Phase, Reading, step};
use crate::rules::rule::{Comparison, Limit, Rule};
use crate::rules::window::Sample;

/// Shortest time between two looks.
pub const PACE: Duration = Duration::from_millis(500);
/// Shortest time between two looks into the database.
pub const DATABASE_PACE: Duration = Duration::from_secs(1);
/// A look that took long is followed by a pause so many times as long.
const PAUSE: u32 = 20;
/// Longest pause: on a busy machine a fault is still found sooner than by the evaluation alone.
const LONGEST: Duration = Duration::from_secs(5);
/// Share of the limit from which on a series is near it.
const NEAR: f64 = 0.5;

/// Returns the pause after a look that took `took`.
pub fn pause(took: Duration) -> Duration {
    took.saturating_mul(PAUSE).clamp(PACE, LONGEST)
}

/// Returns what memory says of `rule`, as far as it can be relied on: all when its whole window is
/// held, else only what can but get worse with more rows. `None` when it says nothing.
pub fn read(rule: &Rule, memory: &Memory, now: Timestamp) -> Option<Vec<Sample>> {
    let Condition::Rows(measure) = &rule.condition else { return None };
    let (mut samples, is_whole) = memory.evaluate(measure, now).ok()?;
    if is_whole {
        return Some(samples);
    }
    if !only_grows(measure, rule.limit) {
        return None;
    }
    samples.retain(|sample| rule.limit.breached(sample.value));
    Some(samples)
}

/// Whether older rows could only make the value worse.
const fn only_grows(measure: &Measure, limit: Limit) -> bool {
    match measure.aggregate {
        // The newest row alone decides.
        Aggregate::Plain { function: Function::Last, .. } => true,
        Aggregate::Age { .. } | Aggregate::Lasted { .. } | Aggregate::Increase { .. } => {
            matches!(limit.comparison, Comparison::Above)
        }
        Aggregate::Plain { .. } | Aggregate::Ratio { .. } | Aggregate::Quiet { .. } => false,
    }
}

/// Whether a look should ask the database for `rule`, of which `samples` were read last: while a
/// series is near its limit and does not fire yet.
pub fn is_near(rule: &Rule, samples: &[Sample]) -> bool {
    let threshold = rule.limit.threshold;
    let near = |value: f64| match rule.limit.comparison {
        Comparison::Above if threshold > 0.0 => value > threshold * NEAR,
        // A limit of nothing has nothing before it.
        Comparison::Above => value > threshold,
        Comparison::Below => value < threshold / NEAR,
    };
    samples.iter().any(|sample| near(sample.value))
}

/// Returns those of `samples` that change something now: a series that goes bad, one that was bad
/// for long enough, or one that was about to fire and is well.
pub fn news(book: &Book, rule: &Rule, samples: Vec<Sample>, now: Timestamp) -> Vec<Sample> {
    let uid = rule.uid();
    let mut news = samples;
    news.retain(|sample| {
        let known = book.series.get(&fingerprint(&uid, &sample.labels));
        let state = known.map(|series| series.state).unwrap_or_default();
        let (next, moved) = step(state, &Reading::Value(sample.value), rule, now);
        let ends = match state.phase() {
            Phase::Alerting | Phase::Recovering => !rule.limit.breached(sample.value),
            Phase::Normal | Phase::Pending | Phase::NoData | Phase::Error => false,
        };
        let stays_well = known.is_none() && next.phase() == Phase::Normal;
        moved.is_some() && !ends && !stays_well
    });
    news
}

/// Puts into `samples`, which the database gave, what memory knows better: a series that a look found
/// bad may be so by rows that the database does not show yet.
pub fn correct(
    book: &Book,
    rule: &Rule,
    samples: &mut Vec<Sample>,
    memory: &Memory,
    now: Timestamp,
) {
    let uid = rule.uid();
    let found: BTreeSet<&str> = book
        .series
        .iter()
        .filter(|(_, one)| is_found(one, &uid))
        .map(|(key, _)| key.as_str())
        .collect();
    if found.is_empty() {
        return;
    }
    for fresher in read(rule, memory, now).unwrap_or_default() {
        let is_meant = found.contains(fingerprint(&uid, &fresher.labels).as_str());
        if !is_meant || !rule.limit.breached(fresher.value) {
            continue;
        }
        match samples.iter_mut().find(|sample| sample.labels == fresher.labels) {
            Some(sample) if rule.limit.breached(sample.value) => {}
            Some(sample) => sample.value = fresher.value,
            None => samples.push(fresher),
        }
    }
}

/// Whether it was memory that found a series bad.
fn is_found(series: &Series, uid: &str) -> bool {
    let is_bad = match series.state.phase() {
        Phase::Pending | Phase::Alerting => true,
        Phase::Normal | Phase::Recovering | Phase::NoData | Phase::Error => false,
    };
    is_bad && series.rule == uid && series.via == Via::Memory
}

#[cfg(test)]
mod tests {
    use super::super::evaluate::{Others, Outcome, evaluate};
    use super::super::memory::Inbox;
    use super::*;
    use crate::model::row::Row;
    use crate::model::severity::Severity;
    use crate::model::table::{DAEMON_METRICS, EXCHANGE_STATUS};
    use crate::rules::catalog;
    use crate::rules::rule::Labels;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn row(seconds: i64) -> Row {
        Row::new(&DAEMON_METRICS, at(seconds))
            .with("daemon", "ccxt")
            .with("host", "h")
            .with("env", "dev")
            .with("reachable", false)
    }

    fn memory(since: i64, rows: &[Row], now: i64) -> Memory {
        let inbox = Inbox::new(&catalog::shipped().unwrap());
        let mut memory = Memory::new(inbox.clone(), at(since));
        inbox.put(rows);
        memory.refresh(at(now));
        memory
    }

    fn unreachable() -> Rule {
        let hold = Duration::from_secs(30);
        Rule { hold, ..catalog::find("daemon_unreachable", Severity::Critical).unwrap() }
    }

    fn labels() -> Labels {
        [("daemon", "ccxt"), ("env", "dev"), ("host", "h")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn sample(value: f64) -> Sample {
        Sample { labels: labels(), value }
    }

    fn judge(book: &mut Book, rule: &Rule, samples: Vec<Sample>, via: Via, seconds: i64) {
        let outcome = Outcome::Samples { samples, via, others: Others::Untouched };
        for change in evaluate(book, rule, &outcome, at(seconds)).changes {
            book.apply(change);
        }
    }

    #[test]
    fn what_has_just_gone_bad_is_found_in_memory_before_the_whole_window_is_held() {
        let memory = memory(-20, &[row(-1)], 0);
        assert_eq!(read(&unreachable(), &memory, at(0)).unwrap(), [sample(1.0)]);
        // A mean of 20 s says nothing of 5 minutes, and a usual gap is not guessed.
        for id in ["exchange_latency", "exchange_silent", "daemon_error_ratio"] {
            let severity =
                catalog::find(id, Severity::Critical).map_or(Severity::Warning, |r| r.severity);
            assert_eq!(read(&catalog::find(id, severity).unwrap(), &memory, at(0)), None, "{id}");
        }
    }

    #[test]
    fn a_mean_over_the_whole_window_counts() {
        let venue = Row::new(&EXCHANGE_STATUS, at(-10))
            .with("exchange", "alpha")
            .with("daemon", "ccxt")
            .with("host", "h")
            .with("env", "dev")
            .with("latency_ms", 900.0);
        let rule = catalog::find("exchange_latency", Severity::Warning).unwrap();
        let found = read(&rule, &memory(-400, &[venue], 0), at(0)).unwrap();
        assert_eq!(found[0].value, 900.0);
    }

    #[test]
    fn only_what_changes_something_is_news_and_a_look_ends_no_alert() {
        let (rule, mut book) = (unreachable(), Book::new(1));
        let news = |book: &Book, value, seconds| {
            !news(book, &unreachable(), vec![sample(value)], at(seconds)).is_empty()
        };
        assert!(!news(&book, 0.0, 0), "it was well and is well");
        assert!(news(&book, 1.0, 0), "it goes bad");
        judge(&mut book, &rule, vec![sample(1.0)], Via::Memory, 0);
        assert!(!news(&book, 10.0, 10), "it waits");
        assert!(news(&book, 0.0, 10), "it is well again before it fires");
        assert!(news(&book, 30.0, 30), "it was bad for long enough");
        judge(&mut book, &rule, vec![sample(30.0)], Via::Memory, 30);
        assert!(!news(&book, 40.0, 40), "it fires already");
        assert!(!news(&book, 0.0, 40), "that it is over is found by the evaluation");
    }

    /// Rows are in memory a moment before the database shows them.
    #[test]
    fn a_database_that_lags_does_not_take_back_what_a_look_has_found() {
        let (rule, mut book) = (unreachable(), Book::new(1));
        let memory = memory(-20, &[row(-1)], 0);
        let corrected = |book: &Book, mut samples: Vec<Sample>| {
            correct(book, &unreachable(), &mut samples, &memory, at(0));
            samples
        };
        assert_eq!(corrected(&book, vec![sample(0.0)]), [sample(0.0)], "nothing was found yet");
        judge(&mut book, &rule, vec![sample(1.0)], Via::Memory, 0);
        assert_eq!(corrected(&book, vec![sample(0.0)]), [sample(1.0)]);
        assert_eq!(corrected(&book, Vec::new()), [sample(1.0)]);
        assert_eq!(corrected(&book, vec![sample(7.0)]), [sample(7.0)], "it agrees");
        judge(&mut book, &rule, vec![sample(1.0)], Via::Database, 0);
        assert_eq!(corrected(&book, vec![sample(0.0)]), [sample(0.0)], "it has seen the row");
    }

    #[test]
    fn near_is_half_way_to_the_limit() {
        let rule = catalog::find("exchange_silent", Severity::Critical).unwrap();
        let near = |value: f64| is_near(&rule, &[sample(value)]);
        assert!(near(1.6) && near(9.0) && !near(1.5) && !near(0.1));
        let below = catalog::find("disk_low", Severity::Warning).unwrap();
        let near = |value: f64| is_near(&below, &[sample(value)]);
        assert!(near(9e9) && !near(11e9));
    }

    #[test]
    fn a_slow_look_is_followed_by_a_long_pause() {
        assert_eq!(pause(Duration::from_millis(3)), PACE);
        assert_eq!(pause(Duration::from_millis(100)), Duration::from_secs(2));
        assert_eq!(pause(Duration::from_millis(900)), LONGEST, "the machine is busy");
    }
}

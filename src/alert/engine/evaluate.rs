//! What an evaluation of one rule changes. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::book::{Book, Change, Series, Via, fingerprint, passed};
use super::super::silence::HUSHED;
use crate::base::time::Timestamp;
use crate::rules::machine::{Event, Phase, Reading, Transition, step};
use crate::rules::rule::{Absence, Rule};
use crate::rules::window::Sample;

/// Series of one rule that are not normal; more are counted and left out.
pub const SERIES_LIMIT: usize = 1_000;
/// How long moments of firing are remembered.
pub const FLAP_MEMORY: Duration = Duration::from_secs(1_800);
/// How many moments of firing are remembered.
const FLAP_MOMENTS: usize = 8;

/// What reading a rule gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A value for each series.
    Samples {
        /// The values.
        samples: Vec<Sample>,
        /// Where they come from.
        via: Via,
        /// What is known of series without a value.
        others: Others,
    },
    /// Nothing is known, with the reason.
    Failed(String),
}

/// What samples say of the series that are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// They have no value.
    None,
    /// Nothing: memory does not reach back over the whole window.
    Unknown,
    /// They were not looked at.
    Untouched,
}

/// A change of phase of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved {
    /// Fingerprint.
    pub key: String,
    /// The series after it.
    pub series: Series,
    /// The change.
    pub transition: Transition,
}

/// What an evaluation led to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evaluated {
    /// For the book.
    pub changes: Vec<Change>,
    /// For the history.
    pub moved: Vec<Moved>,
    /// Series beyond [`SERIES_LIMIT`] that were left out.
    pub left_out: usize,
}

/// Judges `outcome` of `rule` at `now`.
pub fn evaluate(book: &Book, rule: &Rule, outcome: &Outcome, now: Timestamp) -> Evaluated {
    let uid = rule.uid();
    let mut known: BTreeSet<&str> = book
        .series
        .iter()
        .filter(|(_, series)| series.rule == uid)
        .map(|(key, _)| key.as_str())
        .collect();
    let mut room = SERIES_LIMIT.saturating_sub(known.len());
    let mut evaluated = Evaluated::default();
    let samples: &[Sample] = match outcome {
        Outcome::Samples { samples, .. } => samples,
        Outcome::Failed(_) => &[],
    };
    let mut seen = BTreeSet::new();
    for sample in samples {
        let key = fingerprint(&uid, &sample.labels);
        if !seen.insert(key.clone()) {
            continue;
        }
        known.remove(key.as_str());
        let old = book.series.get(&key).cloned();
        let is_new = old.is_none();
        let series = old.unwrap_or_else(|| Series::new(uid.clone(), sample.labels.clone()));
        let reading = Reading::Value(sample.value);
        let Some((series, transition)) = next(series, is_new, &reading, rule, outcome, now) else {
            continue;
        };
        if is_new && kept(&series, rule, now) {
            if room == 0 {
                evaluated.left_out += 1;
                continue;
            }
            room -= 1;
        }
        evaluated.add(key, series, transition, is_new, rule, now);
    }
    let missing = match outcome {
        Outcome::Samples { others: Others::Untouched, .. } => return evaluated,
        Outcome::Samples { others: Others::None, .. } => Reading::NoData,
        Outcome::Samples { others: Others::Unknown, .. } => {
            Reading::Failed("memory does not reach back so far".to_owned())
        }
        Outcome::Failed(reason) => Reading::Failed(reason.clone()),
    };
    for key in known {
        let Some(series) = book.series.get(key).cloned() else { continue };
        if let Some((series, transition)) = next(series, false, &missing, rule, outcome, now) {
            evaluated.add(key.to_owned(), series, transition, false, rule, now);
        }
    }
    evaluated
}

impl Evaluated {
    fn add(
        &mut self,
        key: String,
        series: Series,
        transition: Option<Transition>,
        is_new: bool,
        rule: &Rule,
        now: Timestamp,
    ) {
        let keep = kept(&series, rule, now);
        if keep || !is_new {
            let kept = keep.then(|| Box::new(series.clone()));
            self.changes.push(Change::Series { key: key.clone(), series: kept });
        }
        if let Some(transition) = transition {
            self.moved.push(Moved { key, series, transition });
        }
    }
}

/// Returns the series after `reading`; `None` when nothing of note changes.
fn next(
    mut series: Series,
    is_new: bool,
    reading: &Reading,
    rule: &Rule,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<(Series, Option<Transition>)> {
    let (state, transition) = step(series.state, reading, rule, now);
    let keep = kept(&series, rule, now);
    let found_by = series.via;
    let unchanged = state == series.state;
    series.state = state;
    if let Reading::Value(value) = *reading {
        // The value moves all the time; it is written down with the state, not by itself.
        series.value = value.is_finite().then_some(value);
    }
    if let Outcome::Samples { via, .. } = outcome {
        series.via = *via;
    }
    match transition.as_ref().and_then(|transition| transition.event) {
        Some(Event::Fired) => {
            series.fired.retain(|at| !passed(*at, FLAP_MEMORY, now));
            let excess = (series.fired.len() + 1).saturating_sub(FLAP_MOMENTS);
            series.fired.drain(..excess);
            series.fired.push(now);
        }
        Some(Event::Resolved) => series.over_at = Some(now),
        None => {}
    }
    if unchanged && found_by == series.via && transition.is_none() && keep && !is_new {
        return None;
    }
    Some((series, transition))
}

/// Whether a series is worth remembering.
pub fn kept(series: &Series, rule: &Rule, now: Timestamp) -> bool {
    let at_rest = match series.state.phase() {
        Phase::Normal | Phase::NoData | Phase::Error => true,
        Phase::Pending | Phase::Alerting | Phase::Recovering => false,
    };
    // Where a missing row is the fault, it has to be known that there was one.
    let must_exist = rule.on_no_data == Absence::Alert;
    let flapped = series.fired.iter().any(|at| !passed(*at, FLAP_MEMORY, now));
    let hushed = series.ended_for_grafana.is_some_and(|at| !passed(at, HUSHED, now));
    !at_rest || series.told.is_some() || must_exist || flapped || hushed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::catalog;
    use crate::rules::rule::Labels;

    fn rule() -> Rule {
        let mut rule = catalog::shipped().unwrap().remove(0);
        rule.limit.threshold = 10.0;
        rule.hold = Duration::from_secs(20);
        rule.keep_firing = Duration::ZERO;
        rule
    }

    fn labels(daemon: &str) -> Labels {
        Labels::from([("daemon".to_owned(), daemon.to_owned())])
    }

    fn samples(values: &[(&str, f64)]) -> Outcome {
        let samples =
            values.iter().map(|(name, value)| Sample { labels: labels(name), value: *value });
        Outcome::Samples { samples: samples.collect(), via: Via::Database, others: Others::None }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn run(book: &mut Book, outcome: &Outcome, seconds: i64) -> Vec<(String, Phase)> {
        let evaluated = evaluate(book, &rule(), outcome, at(seconds));
        for change in evaluated.changes {
            book.apply(change);
        }
        let name = |moved: &Moved| moved.series.labels["daemon"].clone();
        evaluated.moved.iter().map(|moved| (name(moved), moved.transition.to)).collect()
    }

    #[test]
    fn each_label_set_has_its_own_state_and_what_is_well_is_forgotten() {
        let mut book = Book::new(1);
        assert_eq!(run(&mut book, &samples(&[("a", 1.0), ("b", 1.0)]), 0), []);
        assert!(book.series.is_empty());
        let one = |phase| vec![("a".to_owned(), phase)];
        assert_eq!(run(&mut book, &samples(&[("a", 11.0), ("b", 1.0)]), 10), one(Phase::Pending));
        assert_eq!(run(&mut book, &samples(&[("a", 11.0), ("b", 1.0)]), 20), []);
        assert_eq!(run(&mut book, &samples(&[("a", 11.0)]), 30), one(Phase::Alerting));
        // What is said to fire, and the query that fails, change nothing.
        assert_eq!(run(&mut book, &Outcome::Failed("no".to_owned()), 40), []);
        assert_eq!(book.series.len(), 1);
        assert_eq!(run(&mut book, &samples(&[]), 50), one(Phase::NoData));
        // Remembered for a while, for flapping, then not.
        assert_eq!(book.series.len(), 1);
        run(&mut book, &samples(&[("a", 1.0)]), 60);
        run(&mut book, &samples(&[("a", 1.0)]), 50 + 1_900);
        assert_eq!(book.series.len(), 0);
    }

    #[test]
    fn a_pending_for_goes_on_over_a_restart() {
        let mut book = Book::new(1);
        run(&mut book, &samples(&[("a", 11.0)]), 0);
        run(&mut book, &samples(&[("a", 11.0)]), 10);
        let text = serde_json::to_string(&book).unwrap();
        let mut book: Book = serde_json::from_str(&text).unwrap();
        let moved = run(&mut book, &samples(&[("a", 11.0)]), 20);
        assert_eq!(moved, [("a".to_owned(), Phase::Alerting)]);
    }

    #[test]
    fn series_beyond_the_limit_are_counted_and_left_out() {
        let mut book = Book::new(1);
        let names: Vec<String> = (0..SERIES_LIMIT + 5).map(|n| format!("d{n}")).collect();
        let values: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 11.0)).collect();
        let evaluated = evaluate(&book, &rule(), &samples(&values), at(0));
        assert_eq!((evaluated.changes.len(), evaluated.left_out), (SERIES_LIMIT, 5));
        for change in evaluated.changes {
            book.apply(change);
        }
        let again = evaluate(&book, &rule(), &samples(&values), at(10));
        assert_eq!(again.left_out, 5);
        // Those that are well cost no room.
        let well: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
        assert_eq!(evaluate(&book, &rule(), &samples(&well), at(20)).left_out, 0);
    }

    #[test]
    fn memory_that_is_too_short_ends_no_alert() {
        let mut book = Book::new(1);
        for seconds in [0, 10, 20] {
            run(&mut book, &samples(&[("a", 11.0)]), seconds);
        }
        let short =
            Outcome::Samples { samples: Vec::new(), via: Via::Memory, others: Others::Unknown };
        assert_eq!(run(&mut book, &short, 30), []);
        assert_eq!(run(&mut book, &samples(&[]), 40), [("a".to_owned(), Phase::NoData)]);
    }

    #[test]
    fn where_a_missing_row_is_the_fault_a_series_that_was_well_is_missed() {
        let rule = Rule { on_no_data: Absence::Alert, hold: Duration::ZERO, ..rule() };
        let mut book = Book::new(1);
        for change in evaluate(&book, &rule, &samples(&[("a", 1.0)]), at(0)).changes {
            book.apply(change);
        }
        assert_eq!(book.series.len(), 1);
        let evaluated = evaluate(&book, &rule, &samples(&[]), at(10));
        assert_eq!(evaluated.moved[0].transition.event, Some(Event::Fired));
    }
}

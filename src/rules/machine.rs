//! The state of one alert series. Pure: readings and time come in, states and transitions go out.
//!
//! States are Grafana's, so that history and both senders speak of the same things. Time is counted
//! in steps from one evaluation to the next, and no step counts for more than three intervals:
//! a clock that jumps, a machine that was suspended or a restart can delay an alert, but never
//! make one fire at once.

use std::time::Duration;

use super::rule::{Absence, Rule};
pub use super::state::{Event, Phase, Reading, State, Transition};
use crate::base::time::Timestamp;

/// What a reading means to a rule.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Bad,
    Good,
    /// Good, for want of a row or an answer.
    Missing(Phase),
    /// Leave everything as it is.
    Unknown,
}

/// Returns the state after one evaluation at `now`, and the change if there was one.
pub fn step(
    state: State,
    reading: &Reading,
    rule: &Rule,
    now: Timestamp,
) -> (State, Option<Transition>) {
    let next = match verdict(reading, rule) {
        Verdict::Unknown => state,
        Verdict::Bad => bad(state, rule, now),
        Verdict::Good => good(state, State::Normal, rule, now),
        Verdict::Missing(Phase::Error) => good(state, error(state, now), rule, now),
        Verdict::Missing(_) => good(state, no_data(state, now), rule, now),
    };
    let transition = (state.phase() != next.phase()).then(|| Transition {
        from: state.phase(),
        to: next.phase(),
        event: match (state.firing_since(), next.firing_since()) {
            (None, Some(_)) => Some(Event::Fired),
            (Some(_), None) => Some(Event::Resolved),
            (None, None) | (Some(_), Some(_)) => None,
        },
        at: now,
        since: next.firing_since().or_else(|| state.firing_since()).unwrap_or(now),
        value: match *reading {
            Reading::Value(value) => value.is_finite().then_some(value),
            Reading::NoData | Reading::Failed(_) => None,
        },
    });
    (next, transition)
}

fn verdict(reading: &Reading, rule: &Rule) -> Verdict {
    let absent = |absence, phase| match absence {
        Absence::Ok => Verdict::Missing(phase),
        Absence::Keep => Verdict::Unknown,
        Absence::Alert => Verdict::Bad,
    };
    match reading {
        Reading::Value(value) if !value.is_finite() => absent(rule.on_error, Phase::Error),
        Reading::Value(value) if rule.limit.breached(*value) => Verdict::Bad,
        Reading::Value(_) => Verdict::Good,
        Reading::NoData => absent(rule.on_no_data, Phase::NoData),
        Reading::Failed(_) => absent(rule.on_error, Phase::Error),
    }
}

fn bad(state: State, rule: &Rule, now: Timestamp) -> State {
    match state {
        State::Alerting { .. } => state,
        // It never stopped firing for those who were told.
        State::Recovering { since, .. } => State::Alerting { since },
        State::Pending { since, seen, held } => {
            let held = held.saturating_add(counted(seen, rule, now));
            if held >= rule.hold {
                State::Alerting { since: now }
            } else {
                State::Pending { since, seen: now, held }
            }
        }
        State::Normal | State::NoData { .. } | State::Error { .. } => {
            if rule.hold.is_zero() {
                State::Alerting { since: now }
            } else {
                State::Pending { since: now, seen: now, held: Duration::ZERO }
            }
        }
    }
}

/// `rest` is the state to come to rest in.
fn good(state: State, rest: State, rule: &Rule, now: Timestamp) -> State {
    match state {
        State::Alerting { since } if !rule.keep_firing.is_zero() => {
            State::Recovering { since, seen: now, held: Duration::ZERO }
        }
        State::Recovering { since, seen, held } => {
            let held = held.saturating_add(counted(seen, rule, now));
            if held >= rule.keep_firing {
                rest
            } else {
                State::Recovering { since, seen: now, held }
            }
        }
        State::Normal
        | State::Pending { .. }
        | State::Alerting { .. }
        | State::NoData { .. }
        | State::Error { .. } => rest,
    }
}

/// The time since the last evaluation, as far as it counts.
fn counted(seen: Timestamp, rule: &Rule, now: Timestamp) -> Duration {
    now.since(seen).min(rule.interval.saturating_mul(3))
}

const fn no_data(state: State, now: Timestamp) -> State {
    match state {
        State::NoData { .. } => state,
        State::Normal
        | State::Pending { .. }
        | State::Alerting { .. }
        | State::Recovering { .. }
        | State::Error { .. } => State::NoData { since: now },
    }
}

const fn error(state: State, now: Timestamp) -> State {
    match state {
        State::Error { .. } => state,
        State::Normal
        | State::Pending { .. }
        | State::Alerting { .. }
        | State::Recovering { .. }
        | State::NoData { .. } => State::Error { since: now },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::catalog;

    const EVENTS: [Event; 2] = [Event::Fired, Event::Resolved];

    /// Fires above 10 after 30 s, is over after 20 s below; evaluated every 10 s.
    fn rule() -> Rule {
        let mut rule = catalog::shipped().unwrap().remove(0);
        rule.limit.threshold = 10.0;
        rule.hold = Duration::from_secs(30);
        rule.keep_firing = Duration::from_secs(20);
        rule.interval = Duration::from_secs(10);
        rule.on_no_data = Absence::Ok;
        rule.on_error = Absence::Keep;
        rule
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    /// Runs `steps` of `(seconds, reading, phase after it, event)`.
    fn run(rule: &Rule, steps: &[(i64, Reading, Phase, Option<Event>)]) -> State {
        let mut state = State::Normal;
        for (seconds, reading, phase, event) in steps {
            let (next, transition) = step(state, reading, rule, at(*seconds));
            assert_eq!(next.phase(), *phase, "at {seconds} s after {reading:?}");
            assert_eq!(transition.and_then(|change| change.event), *event, "at {seconds} s");
            state = next;
        }
        state
    }

    const BAD: Reading = Reading::Value(11.0);
    const GOOD: Reading = Reading::Value(10.0);

    #[test]
    fn fires_after_for_and_is_over_after_keep_firing() {
        use Phase::{Alerting, Normal, Pending, Recovering};
        run(
            &rule(),
            &[
                (0, GOOD, Normal, None),
                (10, BAD, Pending, None),
                (20, BAD, Pending, None),
                (30, BAD, Pending, None),
                (40, BAD, Alerting, Some(Event::Fired)),
                (50, BAD, Alerting, None),
                (60, GOOD, Recovering, None),
                (70, BAD, Alerting, None),
                (80, GOOD, Recovering, None),
                (90, GOOD, Recovering, None),
                (100, GOOD, Normal, Some(Event::Resolved)),
                (110, BAD, Pending, None),
                (120, GOOD, Normal, None),
            ],
        );
    }

    #[test]
    fn a_resolved_transition_says_since_when_it_fired_and_a_fired_one_the_value() {
        let rule = Rule { hold: Duration::ZERO, keep_firing: Duration::ZERO, ..rule() };
        let (state, fired) = step(State::Normal, &BAD, &rule, at(100));
        let fired = fired.unwrap();
        assert_eq!((fired.event, fired.value), (Some(Event::Fired), Some(11.0)));
        assert_eq!((fired.at, fired.since), (at(100), at(100)));
        let (_, resolved) = step(state, &GOOD, &rule, at(200));
        let resolved = resolved.unwrap();
        assert_eq!((resolved.event, resolved.since), (Some(Event::Resolved), at(100)));
        assert_eq!((resolved.from, resolved.to), (Phase::Alerting, Phase::Normal));
    }

    #[test]
    fn missing_rows_and_failed_queries_mean_what_the_rule_says() {
        use Phase::{Alerting, Error, NoData, Normal, Pending, Recovering};
        let failed = || Reading::Failed("no answer".to_owned());
        let firing = [
            (10, BAD, Pending, None),
            (20, BAD, Pending, None),
            (30, BAD, Pending, None),
            (40, BAD, Alerting, Some(Event::Fired)),
        ];
        let with = |more: &[(i64, Reading, Phase, Option<Event>)]| [&firing[..], more].concat();
        // No row: over, as if it were good. A query that fails changes nothing.
        run(
            &rule(),
            &with(&[
                (50, failed(), Alerting, None),
                (60, Reading::Value(f64::NAN), Alerting, None),
                (70, Reading::NoData, Recovering, None),
                (80, Reading::NoData, Recovering, None),
                (90, Reading::NoData, NoData, Some(Event::Resolved)),
                (100, GOOD, Normal, None),
            ]),
        );
        let keep = Rule { on_no_data: Absence::Keep, on_error: Absence::Ok, ..rule() };
        run(
            &keep,
            &with(&[
                (50, Reading::NoData, Alerting, None),
                (60, failed(), Recovering, None),
                (70, failed(), Recovering, None),
                (80, failed(), Error, Some(Event::Resolved)),
                (90, failed(), Error, None),
                (100, Reading::NoData, Error, None),
            ]),
        );
        let alert = Rule { on_no_data: Absence::Alert, ..rule() };
        run(
            &alert,
            &[
                (0, Reading::NoData, Pending, None),
                (10, Reading::NoData, Pending, None),
                (20, Reading::NoData, Pending, None),
                (30, Reading::NoData, Alerting, Some(Event::Fired)),
            ],
        );
    }

    /// Fault matrix, rows 43 and 44: jumps of the clock and suspends raise no storm of alerts.
    #[test]
    fn a_jump_of_the_clock_fires_nothing() {
        use Phase::{Alerting, Pending};
        let short = Rule { hold: Duration::from_secs(60), ..rule() };
        run(
            &short,
            &[
                (0, BAD, Pending, None),
                (3_600, BAD, Pending, None),  // counts 30 s
                (-3_600, BAD, Pending, None), // counts nothing
                (-3_590, BAD, Pending, None),
                (-3_580, BAD, Pending, None),
                (-3_570, BAD, Alerting, Some(Event::Fired)),
            ],
        );
    }

    #[test]
    fn a_state_survives_a_restart() {
        let (pending, _) = step(State::Normal, &BAD, &rule(), at(10));
        let (pending, _) = step(pending, &BAD, &rule(), at(20));
        let text = serde_json::to_string(&pending).unwrap();
        assert_eq!(
            text,
            r#"{"state":"pending","since":"1970-01-01T00:00:10Z","seen":"1970-01-01T00:00:20Z","held":{"secs":10,"nanos":0}}"#
        );
        for state in [
            State::Normal,
            pending,
            State::Alerting { since: at(1) },
            State::Recovering { since: at(1), seen: at(2), held: Duration::from_secs(1) },
            State::NoData { since: at(1) },
            State::Error { since: at(1) },
        ] {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
        }
    }

    fn readings() -> impl Strategy<Value = Reading> {
        prop_oneof![
            4 => Just(BAD),
            4 => Just(GOOD),
            1 => Just(Reading::NoData),
            1 => Just(Reading::Failed("no".to_owned())),
            1 => Just(Reading::Value(f64::NAN)),
        ]
    }

    fn absences() -> impl Strategy<Value = Absence> {
        prop_oneof![Just(Absence::Ok), Just(Absence::Keep), Just(Absence::Alert)]
    }

    proptest! {
        /// Each firing period gives exactly one fired and one resolved, whatever happens in between.
        #[test]
        fn fired_and_resolved_take_turns(
            readings in proptest::collection::vec((readings(), -5_i64..60), 1..200),
            hold in 0_u64..60,
            keep in 0_u64..60,
            no_data in absences(),
            on_error in absences(),
        ) {
            let rule = Rule {
                hold: Duration::from_secs(hold),
                keep_firing: Duration::from_secs(keep),
                on_no_data: no_data,
                on_error,
                ..rule()
            };
            let mut state = State::Normal;
            let mut now = 1_000;
            let mut events = Vec::new();
            let mut firing_before = false;
            for (reading, seconds) in readings {
                now += seconds;
                let (next, transition) = step(state, &reading, &rule, at(now));
                prop_assert_eq!(transition.is_some(), state.phase() != next.phase());
                events.extend(transition.and_then(|change| change.event));
                let firing = next.firing_since().is_some();
                prop_assert_eq!(firing != firing_before, events.len() % 2 != usize::from(firing_before));
                firing_before = firing;
                state = next;
            }
            for (index, event) in events.iter().enumerate() {
                prop_assert_eq!(*event, EVENTS[index % 2]);
            }
            prop_assert_eq!(events.len() % 2 == 1, state.firing_since().is_some());
        }

        /// Nothing fires before the value was bad at every evaluation for the whole of `for`.
        #[test]
        fn nothing_fires_early(
            bad in proptest::collection::vec(any::<bool>(), 1..100),
            hold in 1_u64..6,
        ) {
            let rule = Rule {
                hold: Duration::from_secs(hold * 10),
                keep_firing: Duration::ZERO,
                ..rule()
            };
            let mut state = State::Normal;
            let mut run = 0;
            for (index, bad) in bad.into_iter().enumerate() {
                let now = at(i64::try_from(index).unwrap() * 10);
                let reading = if bad { BAD } else { GOOD };
                (state, _) = step(state, &reading, &rule, now);
                run = if bad { run + 1 } else { 0 };
                prop_assert_eq!(state.firing_since().is_some(), run > hold);
            }
        }
    }
}

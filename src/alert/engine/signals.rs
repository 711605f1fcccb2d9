//! Figures that only periscope knows. Pure.

use std::time::Duration;

use super::super::book::{Book, Via};
use super::evaluate::{Others, Outcome};
use crate::base::time::Timestamp;
use crate::model::server::Phase;
use crate::rules::rule::{Labels, Signal};
use crate::rules::window::Sample;

/// How long a database may take for its first answer before that counts as an outage.
const FIRST_ANSWER: Duration = Duration::from_secs(120);

/// How long something has been away, counted in steps that a jump of the clock cannot stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Away {
    held: Duration,
    seen: Option<Timestamp>,
}

impl Away {
    /// Takes in whether it is away at `now`; no step counts for more than `longest`.
    pub fn observe(&mut self, is_away: bool, longest: Duration, now: Timestamp) {
        if is_away {
            let step = self.seen.map_or(Duration::ZERO, |seen| now.since(seen).min(longest));
            *self = Self { held: self.held.saturating_add(step), seen: Some(now) };
        } else {
            *self = Self::default();
        }
    }

    /// Returns for how long; zero while it is there.
    pub const fn held(&self) -> Duration {
        self.held
    }
}

/// What is known of the database.
#[derive(Debug, Clone, Copy, Default)]
pub struct Database {
    away: Away,
    was_ready: bool,
    waited: Away,
}

impl Database {
    /// Takes in the phase of the server, and whether it answered the rules' queries.
    pub fn observe(&mut self, phase: Phase, answers: bool, longest: Duration, now: Timestamp) {
        let ready = phase == Phase::Ready && answers;
        self.was_ready |= ready;
        self.away.observe(!ready, longest, now);
        // A first start that downloads is no outage, however long it takes.
        let waits = !ready && !matches!(phase, Phase::Absent | Phase::Downloading);
        self.waited.observe(waits, longest, now);
    }

    /// Returns for how long it has not answered; `None` while a first start may still succeed.
    fn down(&self) -> Option<Duration> {
        let counts = self.was_ready || self.waited.held() >= FIRST_ANSWER;
        counts.then(|| self.away.held())
    }
}

/// What signals are made of.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// Labels of everything: `[node] host` and `env`.
    pub host: &'a str,
    /// See `host`.
    pub env: &'a str,
    /// The database.
    pub database: Database,
    /// For how long Grafana has been absent; `None`: there is none to be absent.
    pub grafana_away: Option<Duration>,
    /// Channels of the configuration.
    pub channels: &'a [&'static str],
    /// Canaries in a row that did not arrive.
    pub canaries_lost: u32,
}

/// Returns the readings of `signal`.
pub fn outcome(signal: Signal, known: &Known<'_>, book: &Book) -> Outcome {
    let labels = |more: Option<(&str, &str)>| -> Labels {
        let all = [("host", known.host), ("env", known.env)].into_iter().chain(more);
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let one = |value: f64| vec![Sample { labels: labels(None), value }];
    let samples = match signal {
        Signal::QuestdbDown => match known.database.down() {
            Some(away) => one(away.as_secs_f64()),
            // Neither up nor down: what fired before the restart goes on firing.
            None => return Outcome::Failed("the database starts".to_owned()),
        },
        Signal::GrafanaDown => {
            known.grafana_away.map_or_else(Vec::new, |away| one(away.as_secs_f64()))
        }
        Signal::CanaryLost => one(f64::from(known.canaries_lost)),
        Signal::ChannelFailing => {
            let failures =
                |name: &str| book.channels.get(name).map_or(0, |channel| channel.failures);
            let sample = |name: &&'static str| Sample {
                labels: labels(Some(("channel", name))),
                value: f64::from(failures(name)),
            };
            known.channels.iter().map(sample).collect()
        }
    };
    Outcome::Samples { samples, via: Via::Own, others: Others::None }
}

#[cfg(test)]
mod tests {
    use super::super::super::book::ChannelState;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    const LONGEST: Duration = Duration::from_secs(30);

    fn values(signal: Signal, known: &Known<'_>, book: &Book) -> Vec<f64> {
        match outcome(signal, known, book) {
            Outcome::Samples { samples, .. } => samples.iter().map(|sample| sample.value).collect(),
            Outcome::Failed(reason) => panic!("{reason}"),
        }
    }

    fn known(database: Database) -> Known<'static> {
        let channels: &[&'static str] = &["telegram", "webhook"];
        let (grafana_away, canaries_lost) = (None, 0);
        Known { host: "h", env: "dev", database, grafana_away, channels, canaries_lost }
    }

    #[test]
    fn a_first_start_is_no_outage_and_an_outage_is_counted() {
        let mut database = Database::default();
        let book = Book::new(1);
        for second in 0..600 {
            database.observe(Phase::Downloading, false, LONGEST, at(second));
        }
        for second in 600..660 {
            database.observe(Phase::Starting, false, LONGEST, at(second));
        }
        let failed = outcome(Signal::QuestdbDown, &known(database), &book);
        assert!(matches!(failed, Outcome::Failed(_)), "{failed:?}");
        database.observe(Phase::Ready, true, LONGEST, at(661));
        assert_eq!(values(Signal::QuestdbDown, &known(database), &book), [0.0]);
        // Ready, but no query is answered: away as well.
        for second in [670, 680, 690, 700] {
            database.observe(Phase::Ready, false, LONGEST, at(second));
        }
        assert_eq!(values(Signal::QuestdbDown, &known(database), &book), [30.0]);
        // The clock jumps by an hour.
        database.observe(Phase::Ready, false, LONGEST, at(4_300));
        assert_eq!(values(Signal::QuestdbDown, &known(database), &book), [60.0]);
    }

    #[test]
    fn one_that_never_comes_up_is_an_outage_after_a_while() {
        let mut database = Database::default();
        for second in (0..200).step_by(10) {
            database.observe(Phase::Backoff, false, LONGEST, at(second));
        }
        assert_eq!(values(Signal::QuestdbDown, &known(database), &Book::new(1)), [190.0]);
    }

    #[test]
    fn channels_tell_their_failures_and_grafana_its_absence() {
        let mut book = Book::new(1);
        let state = ChannelState { failures: 3, ..ChannelState::default() };
        book.channels.insert("webhook".to_owned(), state);
        let known = known(Database::default());
        assert_eq!(values(Signal::ChannelFailing, &known, &book), [0.0, 3.0]);
        assert!(values(Signal::GrafanaDown, &known, &book).is_empty());
        let known = Known { grafana_away: Some(Duration::from_secs(7)), canaries_lost: 2, ..known };
        assert_eq!(values(Signal::GrafanaDown, &known, &book), [7.0]);
        assert_eq!(values(Signal::CanaryLost, &known, &book), [2.0]);
    }
}

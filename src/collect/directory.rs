//! Every daemon that is known, for the status page: state, latest polls, last good document.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::base::time::Timestamp;
use crate::model::observation::Observation;
use crate::model::report;

/// Results of polls that are remembered.
const BEATS: usize = 60;

/// All daemons; clones share one directory.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    entries: Arc<Mutex<BTreeMap<Arc<str>, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    state: State,
    source: &'static str,
    interval: Duration,
    last_sample_at: Option<Timestamp>,
    last_success_at: Option<Timestamp>,
    poll_error: Option<String>,
    pid: Option<u32>,
    restarts: u64,
    beats: VecDeque<bool>,
    status: Option<Arc<Value>>,
}

/// How a daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Answers and says that it runs.
    Up,
    /// Answers and says that it does not run.
    Stopped,
    /// Was seen before, does not answer now.
    Unreachable,
    /// Expected, never seen.
    Waiting,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Stopped => "stopped",
            Self::Unreachable => "unreachable",
            Self::Waiting => "waiting",
        }
    }
}

impl Directory {
    /// Returns all daemons, ordered by name. `last_durable_at` is not known here and `None`.
    pub fn report(&self) -> Vec<report::Daemon> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|(name, entry)| entry.report(name)).collect()
    }

    /// Lists a daemon before its first poll.
    pub(super) fn expect(&self, name: &Arc<str>, source: &'static str, interval: Duration) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.entry(Arc::clone(name)).or_insert_with(|| Entry {
            state: State::Waiting,
            source,
            interval,
            last_sample_at: None,
            last_success_at: None,
            poll_error: None,
            pid: None,
            restarts: 0,
            beats: VecDeque::with_capacity(BEATS),
            status: None,
        });
    }

    /// Takes note that a daemon is polled at another pace than was expected.
    pub(super) fn set_interval(&self, name: &str, interval: Duration) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(name) {
            entry.interval = interval;
        }
    }

    /// Lists a daemon like [`Self::expect`], unless it is there already.
    ///
    /// # Errors
    /// The source that the daemon has, when that is another.
    pub(super) fn claim(
        &self,
        name: &Arc<str>,
        source: &'static str,
        interval: Duration,
    ) -> Result<(), &'static str> {
        self.expect(name, source, interval);
        match self.source(name) {
            Some(other) if other != source => Err(other),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the source of a daemon that is listed.
    pub(super) fn source(&self, name: &str) -> Option<&'static str> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(name).map(|entry| entry.source)
    }

    /// Takes note of a poll; `document` is what an answered one brought. `waits` says that nothing of
    /// the daemon was ever seen: its failures leave it waiting.
    pub(super) fn record(
        &self,
        observation: &Observation,
        document: Option<Arc<Value>>,
        waits: bool,
    ) {
        let change = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            match entries.get_mut(&observation.daemon) {
                Some(entry) => entry.record(observation, document, waits),
                None => None,
            }
        };
        if let Some(state) = change {
            log_change(observation, state);
        }
    }

    /// Forgets a daemon.
    pub(super) fn remove(&self, name: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(name);
    }
}

impl Entry {
    fn report(&self, name: &Arc<str>) -> report::Daemon {
        report::Daemon {
            name: name.to_string(),
            state: self.state.name().to_owned(),
            source: self.source.to_owned(),
            last_sample_at: self.last_sample_at,
            last_durable_at: None,
            last_success_at: self.last_success_at,
            poll_error: self.poll_error.clone(),
            pid: self.pid,
            restarts: self.restarts,
            interval_seconds: self.interval.as_secs_f64(),
            beats: self.beats.iter().copied().collect(),
            status: self.status.as_deref().cloned(),
        }
    }

    /// Returns the new state when it is another than before.
    fn record(
        &mut self,
        observation: &Observation,
        document: Option<Arc<Value>>,
        waits: bool,
    ) -> Option<State> {
        self.last_sample_at = Some(observation.at);
        self.restarts = observation.restarts;
        self.pid = observation.process.as_ref().map(|process| process.pid);
        if self.beats.len() >= BEATS {
            self.beats.pop_front();
        }
        self.beats.push_back(observation.outcome.is_ok());
        let state = match &observation.outcome {
            Ok(status) => {
                self.last_success_at = Some(observation.at);
                self.poll_error = None;
                self.status = document;
                if status.running == Some(false) { State::Stopped } else { State::Up }
            }
            Err(failure) => {
                self.poll_error = Some(failure.to_string());
                if waits { State::Waiting } else { State::Unreachable }
            }
        };
        let before = std::mem::replace(&mut self.state, state);
        (before != state).then_some(state)
    }
}

/// A fault that repeats is logged at its change only.
fn log_change(observation: &Observation, state: State) {
    let daemon = &*observation.daemon;
    match (&observation.outcome, state) {
        (Err(failure), _) => {
            tracing::warn!(daemon, reason = failure.reason.code(), error = %failure.words, "daemon unreachable");
        }
        (Ok(_), State::Stopped) => tracing::warn!(daemon, "daemon says that it does not run"),
        (Ok(_), State::Up | State::Unreachable | State::Waiting) => {
            tracing::info!(daemon, restarts = observation.restarts, "daemon up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::observation::{Failure, FailureReason};
    use crate::model::status::Status;

    #[test]
    fn the_last_good_document_stays_when_a_poll_fails() {
        let directory = Directory::default();
        let seen = |second: i64, outcome| Observation {
            at: Timestamp::from_millis(second * 1000),
            daemon: "ccxt".into(),
            outcome,
            poll_ms: None,
            event_loop_lag_ms: None,
            process: None,
            restarts: 0,
        };
        let refused = || Err(Failure::new(FailureReason::Refused, "connect"));
        let document = Arc::new(serde_json::json!({"running": true}));
        directory.expect(&"ccxt".into(), "http", Duration::from_secs(5));
        directory.expect(&"another".into(), "shim", Duration::from_secs(5));
        directory.record(&seen(1, refused()), None, true);
        assert_eq!(directory.report()[1].state, "waiting");
        directory.record(&seen(2, Ok(Status::default())), Some(Arc::clone(&document)), false);
        assert_eq!(directory.report()[1].state, "up");
        for second in 3..100 {
            directory.record(&seen(second, refused()), None, false);
        }
        let report = directory.report();
        let names: Vec<_> = report.iter().map(|daemon| daemon.name.as_str()).collect();
        assert_eq!(names, ["another", "ccxt"]);
        let daemon = &report[1];
        assert_eq!(daemon.state, "unreachable");
        assert_eq!(daemon.status.as_ref(), Some(&*document));
        assert_eq!(daemon.last_success_at, Some(Timestamp::from_millis(2000)));
        assert_eq!(daemon.last_sample_at, Some(Timestamp::from_millis(99_000)));
        assert_eq!(daemon.poll_error.as_deref(), Some("refused: connect"));
        assert_eq!(daemon.beats, [false; BEATS]);
    }
}

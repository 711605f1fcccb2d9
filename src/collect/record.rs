//! What happens with every poll, whatever its source: observation, rows, directory, metrics.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use serde_json::Value;

use super::directory::Directory;
use super::json::Document;
use super::mapping::Mapper;
use super::peaks::Peaks;
use super::rows::{self, Tags};
use super::tracker::Tracker;
use crate::base::metrics::{Metrics, PollFailure, Target};
use crate::base::time::{Clock, Timestamp};
use crate::model::observation::{Failure, FailureReason, Observation, Process};
use crate::model::row::Row;
use crate::store::queue::RowQueue;

/// Where observations go; shared by all loops.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    pub(super) clock: Clock,
    pub(super) directory: Directory,
    pub(super) metrics: Metrics,
    pub(super) queue: RowQueue,
    pub(super) tags: Tags,
    pub(super) peaks: Peaks,
}

/// One daemon's series of rows.
#[derive(Debug)]
pub(super) struct Series {
    name: Arc<str>,
    mapper: Mapper,
    tracker: Tracker,
    polls: Counter,
}

/// What a poll brought.
#[derive(Debug)]
pub(super) struct Poll {
    /// When the answer came or the poll was given up.
    pub(super) at: Timestamp,
    /// The status document, or why there is none.
    pub(super) document: Result<Document, Failure>,
    /// See [`Observation::poll_ms`].
    pub(super) poll_ms: Option<f64>,
    /// See [`Observation::event_loop_lag_ms`].
    pub(super) event_loop_lag_ms: Option<f64>,
    /// The process, where known.
    pub(super) process: Option<Process>,
    /// Nothing of the daemon was ever seen: a failure leaves it waiting.
    pub(super) waits: bool,
}

/// A poll as it becomes rows.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) observation: Observation,
    /// The status document, as it came.
    document: Option<Arc<Value>>,
    waits: bool,
}

impl Poll {
    /// A poll without an answer.
    pub(super) const fn failed(at: Timestamp, failure: Failure) -> Self {
        Self {
            at,
            document: Err(failure),
            poll_ms: None,
            event_loop_lag_ms: None,
            process: None,
            waits: false,
        }
    }
}

impl Series {
    /// Starts a series; the directory must know `name`.
    pub(super) fn new(name: &Arc<str>, mapper: &Mapper, metrics: &Metrics) -> Self {
        let polls = metrics.polls.get_or_create(&Target { target: name.to_string() }).clone();
        let (name, mapper) = (Arc::clone(name), mapper.clone());
        Self { name, mapper, tracker: Tracker::default(), polls }
    }
}

impl Sink {
    /// Returns the time of an observation: whole microseconds, as the columns have them.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.now().micros())
    }

    /// Turns a poll into an observation and hands it on; returns whether trading results were in it.
    pub(super) fn record(&self, series: &mut Series, poll: Poll) -> bool {
        let seen = self.observe(series, poll);
        self.note(&seen);
        self.queue.push(self.rows(&seen));
        seen.observation.outcome.is_ok_and(|status| !status.trading.is_empty())
    }

    /// Shows what was seen in the directory.
    pub(super) fn note(&self, seen: &Seen) {
        self.directory.record(&seen.observation, seen.document.clone(), seen.waits);
    }

    /// Returns the rows of what was seen.
    pub(super) fn rows(&self, seen: &Seen) -> Vec<Row> {
        rows::rows(&seen.observation, &self.tags)
    }

    /// Turns a poll into an observation and counts it.
    pub(super) fn observe(&self, series: &mut Series, poll: Poll) -> Seen {
        if let Some(process) = &poll.process {
            series.tracker.process(&process.instance);
        }
        let (outcome, document) = match self.status(series, poll.at, poll.document) {
            Ok((status, document)) => (Ok(status), Some(document)),
            Err(failure) => {
                series.tracker.missed();
                (Err(failure), None)
            }
        };
        series.polls.inc();
        if let Err(failure) = &outcome {
            self.count_failure(&series.name, failure);
        }
        let observation = Observation {
            at: poll.at,
            daemon: Arc::clone(&series.name),
            outcome,
            poll_ms: poll.poll_ms,
            event_loop_lag_ms: poll.event_loop_lag_ms,
            process: poll.process,
            restarts: series.tracker.restarts(),
        };
        Seen { observation, document, waits: poll.waits }
    }

    fn status(
        &self,
        series: &mut Series,
        at: Timestamp,
        document: Result<Document, Failure>,
    ) -> Result<(crate::model::status::Status, Arc<Value>), Failure> {
        let Document { value, oddities } = document?;
        let mut mapped = series
            .mapper
            .status(&value, at)
            .ok_or_else(|| Failure::new(FailureReason::BadDocument, series.mapper.no_status()))?;
        let change = series.tracker.status(&mut mapped, at);
        self.peaks.complete(&series.name, &mut mapped.status.trading);
        if let Some(words) = &change.words {
            tracing::warn!(daemon = &*series.name, "the daemon's document has changed: {words}");
        }
        let drift = mapped.drift.len() + oddities.len() + usize::from(change.is_one);
        if drift > 0 {
            let target = Target { target: series.name.to_string() };
            let count = u64::try_from(drift).unwrap_or(u64::MAX);
            self.metrics.schema_drift.get_or_create(&target).inc_by(count);
            tracing::debug!(
                daemon = &*series.name,
                fields = ?mapped.drift,
                odd = ?oddities,
                changed = change.is_one,
                "document has unexpected fields"
            );
        }
        Ok((mapped.status, Arc::new(value)))
    }

    fn count_failure(&self, name: &Arc<str>, failure: &Failure) {
        let labels = PollFailure { target: name.to_string(), reason: failure.reason.code() };
        self.metrics.poll_failures.get_or_create(&labels).inc();
    }
}

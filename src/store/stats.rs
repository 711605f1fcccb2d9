//! Figures that the parts of the store share with pages and metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::spool::disk::Loss;
use super::spool::room::Figures;
use crate::base::metrics::{Metrics, Reason};
use crate::base::time::Timestamp;
use crate::model::report;

/// Daemons whose newest durable sample is remembered; the oldest go beyond that.
const DAEMON_LIMIT: usize = 10_000;

/// How long losses are told.
const LATELY: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
struct State {
    spool: report::Spool,
    oldest: Option<Timestamp>,
    writer: report::Writer,
    database: report::Database,
    durable: BTreeMap<String, Timestamp>,
    losses: Vec<Loss>,
    lately: Option<Lately>,
}

/// Losses of the last while.
#[derive(Debug, Clone, Copy)]
struct Lately {
    last: Instant,
    rows: u64,
    reason: &'static str,
}

impl State {
    /// Keeps `loss` for `sample_gaps`; losses of one kind that wait there are one gap.
    fn tell(&mut self, loss: Loss) {
        let same = |other: &&mut Loss| (other.reason, other.table) == (loss.reason, loss.table);
        match self.losses.iter_mut().find(same) {
            Some(known) => {
                known.first = known.first.min(loss.first);
                known.last = known.last.max(loss.last);
                known.from = known.from.min(loss.from);
                known.to = known.to.max(loss.to);
                known.rows = known.rows.saturating_add(loss.rows);
            }
            None => self.losses.push(loss),
        }
    }
}

/// Clones share the figures.
#[derive(Debug, Clone, Default)]
pub struct Stats(Arc<Mutex<State>>);

impl Stats {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the figures of the queue on disk.
    pub fn spool(&self) -> report::Spool {
        self.lock().spool
    }

    /// Returns the figures of delivery.
    pub fn writer(&self) -> report::Writer {
        self.lock().writer
    }

    /// Returns the time of the newest sample of `daemon` that is on disk.
    pub fn durable_at(&self, daemon: &str) -> Option<Timestamp> {
        self.lock().durable.get(daemon).copied()
    }

    /// Takes samples of daemons as durable.
    pub fn durable(&self, newest: impl IntoIterator<Item = (Arc<str>, Timestamp)>) {
        let mut state = self.lock();
        for (daemon, at) in newest {
            match state.durable.get_mut(&*daemon) {
                Some(known) => *known = at.max(*known),
                None => {
                    while state.durable.len() >= DAEMON_LIMIT {
                        let oldest = state.durable.iter().min_by_key(|(_, at)| **at);
                        let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
                        state.durable.remove(&name);
                    }
                    state.durable.insert(daemon.to_string(), at);
                }
            }
        }
    }

    /// Takes rows as acknowledged by `QuestDB` at `now`.
    pub fn written(&self, rows: u64, now: Timestamp) {
        let mut state = self.lock();
        state.writer.rows_total = state.writer.rows_total.saturating_add(rows);
        state.writer.last_write_at = Some(now);
    }

    /// Takes the duration of a request that brought rows to `QuestDB`, whatever its answer.
    pub fn requested(&self, took: Duration) {
        self.lock().writer.latency_ms = Some(millis(took));
    }

    /// Returns what the database was asked last.
    pub fn database(&self) -> report::Database {
        self.lock().database
    }

    /// Takes what a look at the tables of the database found, and how long it took.
    pub fn looked(&self, took: Duration, wal_lag: u64) {
        let figures = report::Database { latency_ms: Some(millis(took)), wal_lag: Some(wal_lag) };
        self.lock().database = figures;
    }

    /// Forgets what the database said: it does not answer.
    pub fn unseen(&self) {
        self.lock().database = report::Database::default();
    }

    /// Takes rows as put into the dead-letter folder.
    pub fn refused(&self, rows: u64) {
        let mut state = self.lock();
        state.writer.refused_total = state.writer.refused_total.saturating_add(rows);
    }

    /// Takes over the spool's figures and sets the metrics that show them.
    pub fn publish(&self, figures: &Figures, metrics: &Metrics, now: Timestamp) {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let age = figures.oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
        metrics.spool_pending_rows.set(signed(figures.pending_rows));
        metrics.spool_pending_bytes.set(signed(figures.pending_bytes));
        metrics.spool_oldest_age.set(age);
        metrics.spool_durable_seq.set(signed(figures.durable_seq));
        let mut state = self.lock();
        let before = state.spool.durable_rows;
        metrics.spool_rows.inc_by(figures.durable_rows.saturating_sub(before));
        state.oldest = figures.oldest;
        state.spool = report::Spool {
            rows: figures.pending_rows,
            bytes: figures.pending_bytes,
            oldest_age_seconds: age,
            durable_seq: figures.durable_seq,
            durable_rows: figures.durable_rows,
            lost_rows: state.spool.lost_rows,
        };
    }

    /// Returns how many rows were lost and why, until ten minutes after the last of them.
    pub fn lost_lately(&self) -> Option<(u64, &'static str)> {
        let mut state = self.lock();
        if state.lately.is_some_and(|lately| lately.last.elapsed() > LATELY) {
            state.lately = None;
        }
        state.lately.map(|lately| (lately.rows, lately.reason))
    }

    /// Counts `losses`; [`Self::take_losses`] returns them for `sample_gaps`.
    pub fn lost(&self, losses: Vec<Loss>, metrics: &Metrics) {
        let mut state = self.lock();
        for loss in losses {
            let reason = Reason { reason: loss.reason.name() };
            metrics.spool_lost_rows.get_or_create(&reason).inc_by(loss.rows);
            state.spool.lost_rows = state.spool.lost_rows.saturating_add(loss.rows);
            let before = state.lately.map_or(0, |lately| lately.rows);
            state.lately = Some(Lately {
                last: Instant::now(),
                rows: before.saturating_add(loss.rows),
                reason: loss.reason.name(),
            });
            state.tell(loss);
        }
    }

    /// Takes losses that are counted already and have no row in `sample_gaps` any longer.
    pub fn tell_again(&self, losses: Vec<Loss>) {
        let mut state = self.lock();
        losses.into_iter().for_each(|loss| state.tell(loss));
    }

    /// Returns and forgets the losses that have no row in `sample_gaps` yet.
    pub fn take_losses(&self) -> Vec<Loss> {
        std::mem::take(&mut self.lock().losses)
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::super::spool::disk::LossReason;
    use super::*;

    #[test]
    fn losses_are_counted_and_joined_by_kind() {
        let (stats, metrics) = (Stats::default(), Metrics::new());
        let loss = |table, first, rows| Loss {
            reason: LossReason::Cap,
            table,
            first,
            last: first,
            rows,
            from: Timestamp::from_nanos(5),
            to: Timestamp::from_nanos(5),
        };
        stats.lost(vec![loss(Some(1), 3, 10), loss(Some(1), 9, 1), loss(None, 4, 2)], &metrics);
        let taken = stats.take_losses();
        assert_eq!((taken.len(), taken[0].first, taken[0].last, taken[0].rows), (2, 3, 9, 11));
        assert_eq!(stats.spool().lost_rows, 13);
        assert_eq!(stats.lost_lately(), Some((13, "cap")));
        assert!(
            metrics
                .render()
                .unwrap()
                .contains("periscope_spool_lost_rows_total{reason=\"cap\"} 13")
        );
        assert!(stats.take_losses().is_empty());
    }

    #[test]
    fn the_newest_durable_sample_counts() {
        let stats = Stats::default();
        let at = Timestamp::from_nanos;
        stats.durable([("a".into(), at(5)), ("b".into(), at(1)), ("a".into(), at(3))]);
        assert_eq!((stats.durable_at("a"), stats.durable_at("c")), (Some(at(5)), None));
    }
}

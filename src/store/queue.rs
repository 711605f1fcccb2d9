//! The bounded way from poll loops and listener to the store.
//!
//! Polled rows never wait: when the queue is full the oldest polled rows go, counted. Pushed rows
//! are answered once they are on disk, and refused when there is no room.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::spool::disk::{Loss, LossReason};
use super::validate::Invalid;
use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;
use crate::model::row::Row;

/// How long a push waits for the disk.
const DURABLE_LIMIT: Duration = Duration::from_secs(10);

/// Why pushed rows are not stored. Nothing of them is kept, except after `NotDurable`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// There is no room now: try again later.
    #[error("the queue before the spool is full")]
    Full,
    /// The store has ended or is ending.
    #[error("the store is stopping")]
    Closed,
    /// Rows that can never be stored, by their index; none of the others was stored.
    #[error("{} of the rows cannot be stored", .0.len())]
    Invalid(Vec<(usize, Invalid)>),
    /// The rows are in memory but not on disk: send them again.
    #[error("the rows are not on disk: {0}")]
    NotDurable(String),
}

/// Where the answer to a push goes.
pub type Done = oneshot::Sender<Result<(), PushError>>;

/// Rows that came together.
#[derive(Debug)]
pub struct Entry {
    /// The rows.
    pub rows: Vec<Row>,
    /// Who waits until they are durable.
    pub done: Option<Done>,
}

/// What comes next out of the queue.
#[derive(Debug)]
pub enum Next {
    /// Rows, in order.
    Rows(Vec<Entry>),
    /// Nothing within the time limit.
    Nothing,
    /// All senders are gone and everything was taken.
    Ended,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    rows: usize,
    senders: usize,
    receiver_gone: bool,
    losses: Vec<Loss>,
}

/// Sees rows on their way into the queue; must be quick.
pub type Tap = Arc<dyn Fn(&[Row]) + Send + Sync>;

struct Shared {
    tap: Option<Tap>,
    state: Mutex<State>,
    wake: Condvar,
    limit: usize,
    metrics: Metrics,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, rows: &[Row]) {
        if let Some(tap) = &self.tap {
            tap(rows);
        }
    }

    /// Takes `rows` as lost.
    fn drop_rows(&self, state: &mut State, rows: &[Row]) {
        self.metrics.queue_dropped_rows.inc_by(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        for row in rows {
            let table = super::encode::table_id(row.table);
            match state.losses.iter_mut().find(|loss| loss.table == table) {
                Some(loss) => {
                    loss.rows = loss.rows.saturating_add(1);
                    loss.from = loss.from.min(row.at);
                    loss.to = loss.to.max(row.at);
                }
                None => state.losses.push(lost_row(table, row.at)),
            }
        }
    }
}

const fn lost_row(table: Option<u16>, at: Timestamp) -> Loss {
    Loss { reason: LossReason::QueueFull, table, first: 0, last: 0, rows: 1, from: at, to: at }
}

/// The sending side; clones share the queue.
pub struct RowQueue(Arc<Shared>);

/// The receiving side.
pub struct RowStream(Arc<Shared>);

/// Makes a queue for at most `limit_rows` rows.
pub fn channel(limit_rows: usize, metrics: &Metrics) -> (RowQueue, RowStream) {
    make(limit_rows, metrics, None)
}

/// As [`channel`], and `tap` sees every row that comes.
pub fn tapped(limit_rows: usize, metrics: &Metrics, tap: Tap) -> (RowQueue, RowStream) {
    make(limit_rows, metrics, Some(tap))
}

fn make(limit_rows: usize, metrics: &Metrics, tap: Option<Tap>) -> (RowQueue, RowStream) {
    let shared = Arc::new(Shared {
        tap,
        state: Mutex::new(State { senders: 1, ..State::default() }),
        wake: Condvar::new(),
        limit: limit_rows,
        metrics: metrics.clone(),
    });
    (RowQueue(Arc::clone(&shared)), RowStream(shared))
}

impl RowQueue {
    /// Returns how many rows may wait; more can never be pushed at once.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Adds `rows`. Never waits and never fails: when there is no room the oldest rows go, counted.
    pub fn push(&self, mut rows: Vec<Row>) {
        if rows.is_empty() {
            return;
        }
        self.0.show(&rows);
        let mut state = self.0.lock();
        if state.receiver_gone {
            self.0.drop_rows(&mut state, &rows);
            return;
        }
        let limit = self.0.limit;
        while state.rows.saturating_add(rows.len()) > limit {
            // Pushed rows have somebody who waits for them and stay.
            let oldest = state.entries.iter().position(|entry| entry.done.is_none());
            let Some(entry) = oldest.and_then(|index| state.entries.remove(index)) else { break };
            state.rows = state.rows.saturating_sub(entry.rows.len());
            self.0.drop_rows(&mut state, &entry.rows);
        }
        let excess = state.rows.saturating_add(rows.len()).saturating_sub(limit);
        let dropped: Vec<Row> = rows.drain(..excess.min(rows.len())).collect();
        self.0.drop_rows(&mut state, &dropped);
        state.rows = state.rows.saturating_add(rows.len());
        state.entries.push_back(Entry { rows, done: None });
        drop(state);
        self.0.wake.notify_one();
    }

    /// Adds `rows` and waits until they are on disk.
    ///
    /// # Errors
    /// See [`PushError`]. Rows of one call are stored all or not at all.
    pub async fn push_durable(&self, rows: Vec<Row>) -> Result<(), PushError> {
        if rows.is_empty() {
            return Ok(());
        }
        let answer = {
            let mut state = self.0.lock();
            if state.receiver_gone {
                return Err(PushError::Closed);
            }
            self.0.show(&rows);
            let total = state.rows.saturating_add(rows.len());
            if total > self.0.limit {
                return Err(PushError::Full);
            }
            let (done, answer) = oneshot::channel();
            state.rows = total;
            state.entries.push_back(Entry { rows, done: Some(done) });
            answer
        };
        self.0.wake.notify_one();
        match tokio::time::timeout(DURABLE_LIMIT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_dropped)) => Err(PushError::Closed),
            Err(_elapsed) => Err(PushError::NotDurable(format!(
                "the disk did not take them within {DURABLE_LIMIT:?}"
            ))),
        }
    }
}

impl Clone for RowQueue {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for RowQueue {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders = state.senders.saturating_sub(1);
        let ended = state.senders == 0;
        drop(state);
        if ended {
            self.0.wake.notify_all();
        }
    }
}

impl fmt::Debug for RowQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowQueue").field("limit", &self.0.limit).finish_non_exhaustive()
    }
}

impl RowStream {
    /// Waits at most `limit` for rows and takes all there are. Blocks: for a thread of its own.
    pub fn next(&self, limit: Duration) -> Next {
        let state = self.0.lock();
        let is_quiet = |state: &mut State| state.entries.is_empty() && state.senders > 0;
        let waited = self.0.wake.wait_timeout_while(state, limit, is_quiet);
        let (mut state, _timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.entries.is_empty() {
            return if state.senders == 0 { Next::Ended } else { Next::Nothing };
        }
        state.rows = 0;
        Next::Rows(state.entries.drain(..).collect())
    }

    /// Returns and forgets what was dropped since the last call.
    pub fn take_losses(&self) -> Vec<Loss> {
        std::mem::take(&mut self.0.lock().losses)
    }
}

impl Drop for RowStream {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver_gone = true;
        // Whoever waits for these learns now that nobody will store them.
        let left: Vec<Entry> = state.entries.drain(..).collect();
        for entry in left.iter().filter(|entry| entry.done.is_none()) {
            self.0.drop_rows(&mut state, &entry.rows);
        }
    }
}

impl fmt::Debug for RowStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowStream").field("limit", &self.0.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::DAEMON_METRICS;

    fn rows(count: i64) -> Vec<Row> {
        (0..count).map(|at| Row::new(&DAEMON_METRICS, Timestamp::from_nanos(at))).collect()
    }

    fn taken(stream: &RowStream) -> Vec<usize> {
        match stream.next(Duration::ZERO) {
            Next::Rows(entries) => entries.iter().map(|entry| entry.rows.len()).collect(),
            Next::Nothing | Next::Ended => Vec::new(),
        }
    }

    #[tokio::test]
    async fn the_oldest_polled_rows_go_first_and_are_counted() {
        let metrics = Metrics::new();
        let (queue, stream) = channel(10, &metrics);
        queue.push(rows(4));
        queue.push(rows(5));
        queue.push(rows(3));
        assert_eq!(metrics.queue_dropped_rows.get(), 4);
        assert_eq!(taken(&stream), [5, 3]);
        queue.push(rows(12));
        assert_eq!(taken(&stream), [10]);
        let losses = stream.take_losses();
        assert_eq!((losses.len(), losses[0].rows), (1, 6));
    }

    #[tokio::test]
    async fn pushed_rows_stay_and_are_refused_when_there_is_no_room() {
        let metrics = Metrics::new();
        let (queue, stream) = channel(10, &metrics);
        let (first, second, ()) =
            tokio::join!(queue.push_durable(rows(6)), queue.push_durable(rows(6)), async {
                queue.push(rows(6));
                let Next::Rows(entries) = stream.next(Duration::ZERO) else { panic!("no rows") };
                assert_eq!(entries.iter().map(|e| e.rows.len()).collect::<Vec<_>>(), [6, 4]);
                for done in entries.into_iter().filter_map(|entry| entry.done) {
                    done.send(Ok(())).unwrap();
                }
            });
        assert_eq!((first, second), (Ok(()), Err(PushError::Full)));
        assert_eq!(metrics.queue_dropped_rows.get(), 2);
    }

    #[tokio::test]
    async fn both_ends_learn_when_the_other_is_gone() {
        let metrics = Metrics::new();
        let (queue, stream) = channel(10, &metrics);
        let clone = queue.clone();
        drop(queue);
        assert!(matches!(stream.next(Duration::ZERO), Next::Nothing));
        clone.push(rows(1));
        drop(clone);
        assert_eq!(taken(&stream), [1]);
        assert!(matches!(stream.next(Duration::from_secs(60)), Next::Ended));
        let (queue, stream) = channel(10, &metrics);
        drop(stream);
        assert_eq!(queue.push_durable(rows(1)).await, Err(PushError::Closed));
    }
}

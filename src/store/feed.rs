//! What waits to be sent, between the spool's thread and the two lanes of delivery.
//!
//! The newest records are held here too, so that in normal running nothing is read back from disk:
//! the live lane takes them. When they become too many, the oldest of them are let go and become
//! part of the backlog, which the other lane reads from disk. A small backlog is sent before any
//! newer row; behind a large one live rows do not wait, so that charts and alerts see the present.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::spool::scan::Record;

/// Newest records that are held in memory, bytes.
const LIVE_BYTES: u64 = 8 << 20;
/// Backlog up to which live rows wait for it, so that rows of a table stay in order, bytes.
const STRICT_BYTES: u64 = 8 << 20;

/// How much goes into one request.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Rows, while the lane keeps up.
    pub rows: u64,
    /// Rows, when it lags behind.
    pub drain_rows: u64,
    /// Bytes, in any case.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    live: BTreeMap<u16, VecDeque<Record>>,
    live_bytes: u64,
    backlog: Option<Backlog>,
    backlog_bytes: u64,
    /// How often the backlog was reopened.
    reopened: u64,
    /// Batches that the live lane has taken and not finished.
    in_hand: u64,
    /// Rows of their records, by seq.
    in_hand_rows: BTreeMap<u64, u32>,
    blocked: u64,
    is_complete: bool,
}

/// Records to be read from disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Seq from which to read.
    pub from: u64,
    /// Seq before which to stop.
    pub end: u64,
    /// How often it was reopened before.
    reopened: u64,
}

/// Clones share the feed.
#[derive(Debug, Clone, Default)]
pub struct Feed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

const fn bit(table: u16) -> u64 {
    if table < 64 { 1 << table } else { 0 }
}

impl State {
    const fn is_blocked(&self, table: u16) -> bool {
        self.blocked & bit(table) != 0
    }

    /// Returns the table of the oldest live record.
    fn oldest(&self) -> Option<(u16, u64)> {
        let fronts = self
            .live
            .iter()
            .filter_map(|(table, queue)| queue.front().map(|record| (*table, record.seq)));
        fronts.min_by_key(|(_, seq)| *seq)
    }

    /// Lets the oldest live records go until the rest fits.
    fn spill(&mut self) {
        while self.live_bytes > LIVE_BYTES {
            let Some((table, seq)) = self.oldest() else { return };
            let record = self.live.get_mut(&table).and_then(VecDeque::pop_front);
            let bytes = record.map_or(0, |record| record.bytes());
            self.live_bytes = self.live_bytes.saturating_sub(bytes);
            self.backlog_bytes = self.backlog_bytes.saturating_add(bytes);
            let from = self.backlog.map_or(seq, |backlog| backlog.from.min(seq));
            let (end, reopened) = (seq.saturating_add(1), self.reopened);
            self.backlog = Some(Backlog { from, end, reopened });
        }
    }
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds records that are durable, or as durable as they can be now.
    pub fn push(&self, records: Vec<Record>) {
        {
            let mut state = self.lock();
            for record in records {
                if !state.is_blocked(record.table) {
                    state.live_bytes = state.live_bytes.saturating_add(record.bytes());
                    state.live.entry(record.table).or_default().push_back(record);
                }
            }
            state.spill();
        }
        self.0.changed.notify_waiters();
    }

    /// Declares what is on disk from seq `from` on, about `bytes` bytes, as backlog: all of it up to
    /// `next`, the first seq that is not yet used.
    ///
    /// Live records become part of it. What is due again may lie behind the oldest of them, since
    /// tables take turns, and nothing would send it if the backlog ended there.
    pub fn reopen_backlog(&self, from: u64, next: u64, bytes: u64) {
        {
            let mut state = self.lock();
            state.live.clear();
            state.live_bytes = 0;
            let (from, end) = match state.backlog {
                Some(known) => (known.from.min(from), known.end.max(next)),
                None => (from, next),
            };
            if from < end {
                state.reopened += 1;
                state.backlog = Some(Backlog { from, end, reopened: state.reopened });
                state.backlog_bytes = bytes;
            }
        }
        self.0.changed.notify_waiters();
    }

    /// Returns what to read from disk.
    pub fn backlog(&self) -> Option<Backlog> {
        self.lock().backlog
    }

    /// Takes `done`, as it was when it was read from disk, as finished up to seq `next` but not beyond
    /// its own end, `bytes` bytes; `None`: up to its end. What the live lane has let go meanwhile
    /// stays. Does nothing when the backlog was reopened meanwhile.
    pub fn advance_backlog(&self, done: Backlog, next: Option<u64>, bytes: u64) {
        {
            let mut state = self.lock();
            let Some(known) = state.backlog.filter(|known| known.reopened == done.reopened) else {
                return;
            };
            state.backlog_bytes = state.backlog_bytes.saturating_sub(bytes);
            let from = next.map_or(done.end, |next| next.min(done.end));
            state.backlog = (from < known.end).then_some(Backlog { from, ..known });
            if state.backlog.is_none() {
                state.backlog_bytes = 0;
            }
        }
        self.0.changed.notify_waiters();
    }

    /// Takes records of one table for the live lane: those of the table whose turn it is. To be
    /// followed by [`Self::finish_live`].
    pub fn take_live(&self, limits: BatchLimits) -> Option<Vec<Record>> {
        let mut state = self.lock();
        if state.backlog.is_some() && state.backlog_bytes <= STRICT_BYTES {
            return None;
        }
        let (table, _) = state.oldest()?;
        let queue = state.live.get_mut(&table)?;
        let waiting: u64 = queue.iter().map(|record| u64::from(record.rows)).sum();
        let lags = waiting > limits.rows.saturating_mul(5);
        let rows = if lags { limits.drain_rows } else { limits.rows };
        let batch = take_batch(queue, rows, limits.bytes);
        let bytes: u64 = batch.iter().map(Record::bytes).sum();
        state.live_bytes = state.live_bytes.saturating_sub(bytes);
        state.in_hand += 1;
        state.in_hand_rows.extend(batch.iter().map(|record| (record.seq, record.rows)));
        Some(batch)
    }

    /// Ends what [`Self::take_live`] began.
    pub fn finish_live(&self) {
        let mut state = self.lock();
        state.in_hand = state.in_hand.saturating_sub(1);
        if state.in_hand == 0 {
            state.in_hand_rows.clear();
        }
    }

    /// Returns the rows of every record that is in memory too, by seq: it will be sent from there,
    /// whatever becomes of its file.
    pub fn rows_in_memory(&self) -> BTreeMap<u64, u32> {
        let state = self.lock();
        let live = state.live.values().flatten().map(|record| (record.seq, record.rows));
        let in_hand = state.in_hand_rows.iter().map(|(seq, rows)| (*seq, *rows));
        live.chain(in_hand).collect()
    }

    /// Whether nothing is on its way and no table is kept back: whatever is still due then has
    /// been forgotten.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        let is_empty = state.live.values().all(VecDeque::is_empty);
        is_empty && state.backlog.is_none() && state.in_hand == 0 && state.blocked == 0
    }

    /// Whether live rows wait that the backlog must leave room for.
    pub fn has_live(&self) -> bool {
        self.lock().live.values().any(|queue| !queue.is_empty())
    }

    /// Returns the lowest seq that a lane may have in memory; the highest number if there is none.
    pub fn in_memory_from(&self) -> u64 {
        let state = self.lock();
        let live = state.oldest().map(|(_, seq)| seq);
        let in_hand = state.in_hand_rows.keys().next().copied();
        // What the other lane has read it reports only when that is delivered.
        let backlog = state.backlog.map(|backlog| backlog.from);
        live.into_iter().chain(in_hand).chain(backlog).min().unwrap_or(u64::MAX)
    }

    /// Keeps the records of `table` on disk: its rows cannot be stored for now.
    pub fn block(&self, table: u16) {
        let mut state = self.lock();
        state.blocked |= bit(table);
        let gone = state.live.remove(&table).unwrap_or_default();
        let bytes: u64 = gone.iter().map(Record::bytes).sum();
        state.live_bytes = state.live_bytes.saturating_sub(bytes);
    }

    /// Sends records of `table` again; those on disk need [`Self::reopen_backlog`].
    pub fn unblock(&self, table: u16) {
        self.lock().blocked &= !bit(table);
        self.0.changed.notify_waiters();
    }

    /// Whether rows of `table` are kept on disk.
    pub fn is_blocked(&self, table: u16) -> bool {
        self.lock().is_blocked(table)
    }

    /// Declares that no further record will come.
    pub fn complete(&self) {
        self.lock().is_complete = true;
        self.0.changed.notify_waiters();
    }

    /// Whether no further record will come.
    pub fn is_complete(&self) -> bool {
        self.lock().is_complete
    }

    /// Whether no further record will come and none waits.
    pub fn is_finished(&self) -> bool {
        let state = self.lock();
        let is_empty = state.live.values().all(VecDeque::is_empty);
        state.is_complete && state.backlog.is_none() && is_empty
    }

    /// Returns a future that ends at the next change. Enable it before looking at the state.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.changed.notified()
    }
}

/// Takes records from the front of `queue` until a limit is reached, but at least one.
pub fn take_batch(queue: &mut VecDeque<Record>, rows: u64, bytes: u64) -> Vec<Record> {
    let (mut rows_left, mut bytes_left) = (rows, bytes);
    let mut batch = Vec::new();
    while let Some(record) = queue.front() {
        let (record_rows, record_bytes) = (u64::from(record.rows), record.bytes());
        if !batch.is_empty() && (record_rows > rows_left || record_bytes > bytes_left) {
            break;
        }
        rows_left = rows_left.saturating_sub(record_rows);
        bytes_left = bytes_left.saturating_sub(record_bytes);
        batch.extend(queue.pop_front());
    }
    batch
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::time::Timestamp;

    const LIMITS: BatchLimits = BatchLimits { rows: 1000, drain_rows: 20_000, bytes: 4 << 20 };

    fn record(seq: u64, table: u16, rows: u32, bytes: usize) -> Record {
        let body = Bytes::from(vec![b'x'; bytes]);
        Record { seq, at: Timestamp::EPOCH, table, rows, body }
    }

    fn range(feed: &Feed) -> Option<(u64, u64)> {
        feed.backlog().map(|backlog| (backlog.from, backlog.end))
    }

    fn seqs(batch: Option<Vec<Record>>) -> Vec<u64> {
        batch.unwrap_or_default().iter().map(|record| record.seq).collect()
    }

    #[test]
    fn records_of_one_table_are_joined_and_tables_take_turns_by_age() {
        let feed = Feed::default();
        feed.push(
            (1..=6).map(|seq| record(seq, u16::try_from(seq % 2).unwrap(), 400, 10)).collect(),
        );
        assert_eq!(seqs(feed.take_live(LIMITS)), [1, 3]);
        assert_eq!(seqs(feed.take_live(LIMITS)), [2, 4]);
        assert_eq!(seqs(feed.take_live(LIMITS)), [5]);
        assert_eq!(seqs(feed.take_live(LIMITS)), [6]);
        assert_eq!(seqs(feed.take_live(LIMITS)), Vec::<u64>::new());
        feed.push((7..=40).map(|seq| record(seq, 0, 400, 10)).collect());
        assert_eq!(seqs(feed.take_live(LIMITS)).len(), 34, "a lane that lags takes more at once");
    }

    #[test]
    fn a_small_backlog_goes_first_and_a_large_one_beside_live_rows() {
        let feed = Feed::default();
        feed.reopen_backlog(1, 10, 1000);
        feed.push(vec![record(10, 0, 1, 10)]);
        let whole = feed.backlog().unwrap();
        assert_eq!(range(&feed), Some((1, 10)));
        assert_eq!(feed.take_live(LIMITS), None);
        feed.advance_backlog(whole, Some(5), 500);
        assert_eq!((feed.take_live(LIMITS), range(&feed)), (None, Some((5, 10))));
        feed.reopen_backlog(2, 11, STRICT_BYTES + 1);
        feed.advance_backlog(whole, None, 500);
        assert_eq!(range(&feed), Some((2, 11)), "reopened meanwhile");
        feed.push(vec![record(11, 0, 1, 10)]);
        assert_eq!(seqs(feed.take_live(LIMITS)), [11]);
        feed.advance_backlog(feed.backlog().unwrap(), Some(11), 1);
        assert_eq!(range(&feed), None);
        feed.complete();
        assert!(feed.is_finished() && !feed.is_idle());
        feed.finish_live();
        assert!(feed.is_idle());
    }

    #[test]
    fn what_is_too_much_for_memory_becomes_backlog() {
        let feed = Feed::default();
        feed.push((1..=10).map(|seq| record(seq, 0, 1, 1 << 20)).collect());
        assert_eq!(range(&feed), Some((1, 3)));
        assert_eq!(feed.take_live(LIMITS), None);
        feed.advance_backlog(feed.backlog().unwrap(), None, 0);
        assert_eq!(seqs(feed.take_live(LIMITS)), [3, 4, 5, 6]);
    }

    /// They were skipped, and stayed unnoticed until somebody looked for what is forgotten.
    #[test]
    fn records_let_go_while_a_backlog_was_read_are_not_skipped() {
        let feed = Feed::default();
        feed.push((1..=10).map(|seq| record(seq, 0, 1, 1 << 20)).collect());
        let read = feed.backlog().unwrap();
        feed.push((11..=13).map(|seq| record(seq, 0, 1, 1 << 20)).collect());
        assert_eq!(range(&feed), Some((1, 6)));
        // The file was read up to seq 9 although only what is before 3 was asked for.
        feed.advance_backlog(read, Some(9), 2 << 20);
        assert_eq!(range(&feed), Some((3, 6)));
        feed.advance_backlog(feed.backlog().unwrap(), None, 3 << 20);
        assert_eq!(range(&feed), None);
    }

    #[test]
    fn rows_in_memory_are_those_that_wait_and_those_in_hand() {
        let feed = Feed::default();
        feed.push(vec![record(3, 0, 5, 10), record(4, 1, 7, 10), record(5, 0, 1, 10)]);
        assert_eq!(seqs(feed.take_live(LIMITS)), [3, 5]);
        assert_eq!(feed.rows_in_memory(), BTreeMap::from([(3, 5), (4, 7), (5, 1)]));
        assert_eq!(feed.in_memory_from(), 3);
        feed.finish_live();
        assert_eq!((feed.rows_in_memory().len(), feed.in_memory_from()), (1, 4));
        assert_eq!(Feed::default().in_memory_from(), u64::MAX);
    }

    /// A replay made them due again, and the backlog ended before the oldest live record.
    #[test]
    fn delivered_records_behind_a_live_one_are_part_of_a_replay() {
        let feed = Feed::default();
        feed.push(vec![record(1, 0, 1, 10), record(2, 1, 1, 10), record(3, 0, 1, 10)]);
        assert_eq!(seqs(feed.take_live(LIMITS)), [1, 3]);
        feed.finish_live();
        feed.reopen_backlog(1, 4, 30);
        assert_eq!(range(&feed), Some((1, 4)));
        assert_eq!(seqs(feed.take_live(LIMITS)), Vec::<u64>::new());
    }

    #[test]
    fn a_blocked_table_does_not_stop_the_others() {
        let feed = Feed::default();
        feed.push(vec![record(1, 0, 1, 10), record(2, 1, 1, 10)]);
        feed.block(0);
        feed.push(vec![record(3, 0, 1, 10)]);
        assert_eq!(seqs(feed.take_live(LIMITS)), [2]);
        assert!(!feed.has_live());
        feed.unblock(0);
        feed.reopen_backlog(1, 4, 20);
        assert_eq!(range(&feed), Some((1, 4)));
    }
}

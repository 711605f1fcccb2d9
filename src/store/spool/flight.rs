//! Which records are being sent right now, and which are given up meanwhile: so that a record is
//! either delivered or counted as lost, never both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Loss, LossReason, losses};
use super::scan::Record;

#[derive(Debug, Default)]
struct State {
    sending: BTreeMap<u64, usize>,
    /// Ranges given up, first → last; neighbours are joined.
    dropped: BTreeMap<u64, u64>,
    /// Why the last of them was given up.
    reason: Option<LossReason>,
}

/// Shared by the spool, which gives records up, and the lanes, which send them.
#[derive(Debug, Clone, Default)]
pub struct Flight(Arc<Mutex<State>>);

impl State {
    fn is_dropped(&self, seq: u64) -> bool {
        self.dropped.range(..=seq).next_back().is_some_and(|(_, last)| *last >= seq)
    }
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes from `records` what was given up and marks the rest as being sent.
    pub fn begin(&self, records: &mut Vec<Record>) {
        let mut state = self.lock();
        records.retain(|record| !state.is_dropped(record.seq));
        for record in records {
            *state.sending.entry(record.seq).or_default() += 1;
        }
    }

    /// Ends what [`Self::begin`] began. After a failure it removes from `records` and returns what
    /// was given up meanwhile: that is lost now.
    pub fn end(&self, records: &mut Vec<Record>, delivered: bool) -> Vec<Loss> {
        let mut state = self.lock();
        for record in records.iter() {
            if let Some(count) = state.sending.get_mut(&record.seq) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    state.sending.remove(&record.seq);
                }
            }
        }
        if delivered {
            return Vec::new();
        }
        let (lost, kept): (Vec<Record>, Vec<Record>) = records.drain(..).partition(|record| {
            state.is_dropped(record.seq) && !state.sending.contains_key(&record.seq)
        });
        *records = kept;
        losses(state.reason.unwrap_or(LossReason::Cap), lost.iter())
    }

    /// Gives up `first..=last`; returns those of them that are being sent and so not lost yet.
    pub fn give_up(&self, reason: LossReason, first: u64, last: u64) -> Vec<u64> {
        let mut state = self.lock();
        state.reason = Some(reason);
        let before = state.dropped.range(..=first).next_back();
        let joined = before.filter(|(_, end)| end.saturating_add(1) >= first);
        let start = joined.map_or(first, |(start, _)| *start);
        let entry = state.dropped.entry(start).or_insert(last);
        *entry = last.max(*entry);
        state.sending.range(first..=last).map(|(seq, _)| *seq).collect()
    }

    /// Forgets what was given up below `seq`: nothing in memory is older.
    pub fn forget_below(&self, seq: u64) {
        self.lock().dropped.retain(|_, last| *last >= seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;

    fn records(seqs: std::ops::Range<u64>) -> Vec<Record> {
        let record = |seq| Record {
            seq,
            at: Timestamp::EPOCH,
            table: 0,
            rows: 1,
            body: bytes::Bytes::default(),
        };
        seqs.map(record).collect()
    }

    fn seqs(records: &[Record]) -> Vec<u64> {
        records.iter().map(|record| record.seq).collect()
    }

    #[test]
    fn what_is_in_flight_is_lost_only_when_the_attempt_fails() {
        let flight = Flight::default();
        let mut batch = records(1..5);
        flight.begin(&mut batch);
        assert_eq!(flight.give_up(LossReason::Cap, 1, 2), [1, 2]);
        assert_eq!(flight.give_up(LossReason::Cap, 3, 3), [3]);
        let lost = flight.end(&mut batch, false);
        assert_eq!((lost[0].first, lost[0].last, lost[0].rows), (1, 3, 3));
        assert_eq!(seqs(&batch), [4]);
        let mut again = records(1..5);
        flight.begin(&mut again);
        assert_eq!(seqs(&again), [4]);
        assert!(flight.end(&mut again, true).is_empty());
        flight.forget_below(4);
        let mut again = records(1..3);
        flight.begin(&mut again);
        assert_eq!(again.len(), 2);
    }
}

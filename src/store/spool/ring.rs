//! Records that cannot be on disk for now: bounded memory, oldest out first.

use std::collections::VecDeque;

use bytes::Bytes;

use super::scan::Record;
use crate::base::time::Timestamp;

/// A record with all its bytes as they stand in a segment.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The record.
    pub record: Record,
    /// Frame, body and filling.
    pub bytes: Bytes,
}

/// Records in memory with rising seqs.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<(Entry, bool)>,
    bytes: usize,
    limit: usize,
}

impl Ring {
    /// Makes an empty ring for `limit` bytes.
    pub const fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, limit }
    }

    /// Adds `entries`; returns the oldest records that had to go and are not delivered.
    pub fn push(&mut self, entries: Vec<Entry>) -> Vec<Record> {
        for entry in entries {
            self.bytes = self.bytes.saturating_add(entry.bytes.len());
            self.entries.push_back((entry, false));
        }
        let mut dropped = Vec::new();
        while self.bytes > self.limit {
            let Some((entry, delivered)) = self.entries.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(entry.bytes.len());
            if !delivered {
                dropped.push(entry.record);
            }
        }
        dropped
    }

    /// Marks `seq` as delivered.
    pub fn deliver(&mut self, seq: u64) {
        let index = self.entries.partition_point(|(entry, _)| entry.record.seq < seq);
        if let Some((entry, delivered)) = self.entries.get_mut(index)
            && entry.record.seq == seq
        {
            *delivered = true;
        }
        while let Some((entry, _)) = self.entries.pop_front_if(|(_, delivered)| *delivered) {
            self.bytes = self.bytes.saturating_sub(entry.bytes.len());
        }
    }

    /// Returns the records from seq `from` on that are not delivered, up to `limit` bytes, but at
    /// least one.
    pub fn pending(&self, from: u64, limit: usize) -> Vec<Record> {
        let mut left = limit;
        let pending = self.entries.iter().filter(|(_, delivered)| !delivered);
        let records = pending.map(|(entry, _)| &entry.record).filter(|record| record.seq >= from);
        records
            .take_while(|record| {
                let fits = left > 0;
                left = left.saturating_sub(record.body.len());
                fits
            })
            .cloned()
            .collect()
    }

    /// Returns everything, from the first record that is not delivered on.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.iter().map(|(entry, _)| entry.clone()).collect()
    }

    /// Returns which of the records are delivered.
    pub fn delivered(&self) -> Vec<Record> {
        let delivered = self.entries.iter().filter(|(_, delivered)| *delivered);
        delivered.map(|(entry, _)| entry.record.clone()).collect()
    }

    /// Empties the ring.
    pub fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.bytes = 0;
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns seq and time of the oldest record that is not delivered.
    pub fn oldest(&self) -> Option<(u64, Timestamp)> {
        let (entry, _) = self.entries.iter().find(|(_, delivered)| !delivered)?;
        Some((entry.record.seq, entry.record.at))
    }

    /// Returns rows and bytes that are not delivered.
    pub fn sums(&self) -> (u64, u64) {
        let pending = self.entries.iter().filter(|(_, delivered)| !delivered);
        pending.fold((0, 0), |(rows, bytes), (entry, _)| {
            (rows + u64::from(entry.record.rows), bytes + entry.record.bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        let body = Bytes::from_static(&[b'x'; 10]);
        let record = Record { seq, at: Timestamp::EPOCH, table: 0, rows: 1, body: body.clone() };
        Entry { record, bytes: body }
    }

    #[test]
    fn the_oldest_go_first_and_delivered_ones_are_no_loss() {
        let mut ring = Ring::new(30);
        assert!(ring.push((1..=3).map(entry).collect()).is_empty());
        ring.deliver(2);
        let dropped = ring.push((4..=6).map(entry).collect());
        assert_eq!(dropped.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((ring.sums(), ring.oldest().unwrap().0), ((3, 30), 4));
        let seqs = |records: Vec<Record>| records.iter().map(|r| r.seq).collect::<Vec<_>>();
        assert_eq!(seqs(ring.pending(5, 1)), [5]);
        (4..=6).for_each(|seq| ring.deliver(seq));
        assert!(ring.is_empty());
    }
}

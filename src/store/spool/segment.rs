//! What is known in memory about a segment: its extent, and of each record whether it is delivered
//! and whether it is due to be sent.

use std::path::PathBuf;
use std::time::Instant;

use super::format::Totals;
use super::scan::Record;
use crate::base::time::Timestamp;

/// A growing set of small numbers.
#[derive(Debug, Clone, Default)]
struct Bits {
    words: Vec<u64>,
    ones: u64,
}

impl Bits {
    const fn place(index: u64) -> (u64, u64) {
        (index / 64, 1 << (index % 64))
    }

    fn get(&self, index: u64) -> bool {
        let (word, bit) = Self::place(index);
        let word = usize::try_from(word).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word & bit != 0)
    }

    /// Sets or clears `index`; returns whether that changed it.
    fn set(&mut self, index: u64, value: bool) -> bool {
        if self.get(index) == value {
            return false;
        }
        let (word, bit) = Self::place(index);
        let word = usize::try_from(word).unwrap_or(usize::MAX);
        if self.words.len() <= word {
            self.words.resize(word.saturating_add(1), 0);
        }
        if let Some(word) = self.words.get_mut(word) {
            *word ^= bit;
            self.ones = if value { self.ones + 1 } else { self.ones.saturating_sub(1) };
        }
        true
    }

    /// Sets all of `0..count`.
    fn fill(&mut self, count: u64) {
        let (whole, rest) = (count / 64, count % 64);
        self.words = vec![u64::MAX; usize::try_from(whole).unwrap_or(0)];
        if rest > 0 {
            self.words.push((1 << rest) - 1);
        }
        self.ones = count;
    }

    /// Returns the lowest number that is no member.
    fn first_missing(&self) -> u64 {
        let full = self.words.iter().take_while(|word| **word == u64::MAX).count();
        let rest = self.words.get(full).map_or(0, |word| word.trailing_ones());
        u64::try_from(full).unwrap_or(u64::MAX).saturating_mul(64).saturating_add(rest.into())
    }

    /// Returns the lowest member that is at least `from`.
    fn first(&self, from: u64) -> Option<u64> {
        let (start, _) = Self::place(from);
        for (number, word) in (start..).zip(self.words.iter().skip(usize::try_from(start).ok()?)) {
            let masked = if number == start { word & (u64::MAX << (from % 64)) } else { *word };
            if masked != 0 {
                return Some(number * 64 + u64::from(masked.trailing_zeros()));
            }
        }
        None
    }
}

/// A segment on disk.
#[derive(Debug)]
pub struct Segment {
    /// Its file.
    pub path: PathBuf,
    /// Seq of its first record.
    pub base: u64,
    /// Seq behind its last record.
    pub end: u64,
    /// Space that it takes, bytes.
    pub disk_bytes: u64,
    /// Records, rows, bytes and times of all that was written.
    pub totals: Totals,
    /// Rows not yet delivered.
    pub pending_rows: u64,
    /// Bytes of bodies not yet delivered.
    pub pending_bytes: u64,
    /// When the last record was delivered.
    pub delivered_at: Option<Instant>,
    /// Since when it cannot be read.
    pub unreadable_since: Option<Instant>,
    delivered: Bits,
    due: Bits,
    /// Time of each record, while the segment is written.
    times: Vec<Timestamp>,
}

impl Segment {
    /// Makes a segment without records.
    pub fn new(path: PathBuf, base: u64, disk_bytes: u64) -> Self {
        Self {
            path,
            base,
            end: base,
            disk_bytes,
            totals: Totals::default(),
            pending_rows: 0,
            pending_bytes: 0,
            delivered_at: None,
            unreadable_since: None,
            delivered: Bits::default(),
            due: Bits::default(),
            times: Vec::new(),
        }
    }

    /// Makes a segment of the records `base..=last` of which only the sum is known; all are due.
    pub fn sealed(path: PathBuf, base: u64, last: u64, totals: Totals, disk_bytes: u64) -> Self {
        let mut segment = Self::new(path, base, disk_bytes);
        segment.end = last.saturating_add(1);
        segment.totals = totals;
        segment.pending_rows = totals.rows;
        segment.pending_bytes = totals.bytes;
        segment.due.fill(segment.end.saturating_sub(base));
        segment
    }

    /// Adds a record that is durable and due. Seqs that were skipped count as delivered.
    pub fn add(&mut self, record: &Record) {
        for skipped in self.end..record.seq {
            self.delivered.set(skipped.saturating_sub(self.base), true);
        }
        self.end = record.seq.saturating_add(1);
        self.times.resize(usize::try_from(self.len()).unwrap_or(0), record.at);
        self.due.set(record.seq.saturating_sub(self.base), true);
        if self.totals.records == 0 {
            self.totals.first = record.at;
        }
        self.totals.last = record.at;
        self.totals.records += 1;
        self.totals.rows = self.totals.rows.saturating_add(u64::from(record.rows));
        self.totals.bytes = self.totals.bytes.saturating_add(record.bytes());
        self.pending_rows = self.pending_rows.saturating_add(u64::from(record.rows));
        self.pending_bytes = self.pending_bytes.saturating_add(record.bytes());
        self.delivered_at = None;
    }

    /// Marks `seq` with its rows and bytes as delivered.
    pub fn deliver(&mut self, seq: u64, rows: u64, bytes: u64) {
        if !(self.base..self.end).contains(&seq) {
            return;
        }
        let index = seq.saturating_sub(self.base);
        self.due.set(index, false);
        if self.delivered.set(index, true) {
            self.pending_rows = self.pending_rows.saturating_sub(rows);
            self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        }
        if self.is_settled() {
            // What damage took away is not pending either.
            self.pending_rows = 0;
            self.pending_bytes = 0;
            self.delivered_at.get_or_insert_with(Instant::now);
        }
    }

    /// Marks what is not among all that is left, `records`, as delivered: it can never be sent.
    pub fn settle_absent(&mut self, records: &[Record]) {
        let mut next = self.base;
        for record in records {
            (next..record.seq).for_each(|seq| self.deliver(seq, 0, 0));
            next = record.seq.saturating_add(1);
        }
        (next..self.end).for_each(|seq| self.deliver(seq, 0, 0));
    }

    /// Marks everything as delivered.
    pub fn deliver_all(&mut self) {
        self.due = Bits::default();
        self.delivered.fill(self.len());
        self.pending_rows = 0;
        self.pending_bytes = 0;
        self.delivered_at.get_or_insert_with(Instant::now);
    }

    /// Marks everything as due; what is delivered stays so.
    pub fn replay(&mut self) {
        self.due.fill(self.len());
    }

    const fn len(&self) -> u64 {
        self.end.saturating_sub(self.base)
    }

    /// Whether `seq` is delivered.
    pub fn is_delivered(&self, seq: u64) -> bool {
        seq.checked_sub(self.base).is_some_and(|index| self.delivered.get(index))
    }

    /// Whether `seq` is to be sent.
    pub fn is_due(&self, seq: u64) -> bool {
        seq.checked_sub(self.base).is_some_and(|index| self.due.get(index))
    }

    /// Returns the lowest seq from `from` on that is to be sent.
    pub fn first_due(&self, from: u64) -> Option<u64> {
        let found = self.due.first(from.saturating_sub(self.base))?;
        Some(self.base.saturating_add(found))
    }

    /// Returns the lowest seq that is not delivered.
    pub fn first_pending(&self) -> Option<u64> {
        let missing = self.base.saturating_add(self.delivered.first_missing());
        Some(missing).filter(|seq| *seq < self.end)
    }

    /// Whether every record is delivered and none is to be sent again.
    pub const fn is_settled(&self) -> bool {
        self.delivered.ones == self.len() && self.due.ones == 0
    }

    /// Forgets what is only needed while records are added.
    pub fn finish(&mut self) {
        self.times = Vec::new();
    }

    /// Returns when the oldest record that is not delivered was written; between the first and the
    /// last record's time by its place when the segment is no longer written.
    pub fn oldest_pending(&self) -> Option<Timestamp> {
        if self.delivered.ones == self.len() {
            return None;
        }
        let place = self.first_pending()?.saturating_sub(self.base);
        let exact = usize::try_from(place).ok().and_then(|place| self.times.get(place));
        let span = self.totals.last.since(self.totals.first);
        let (place, length) = (u32::try_from(place).ok()?, u32::try_from(self.len()).ok()?);
        Some(exact.copied().unwrap_or_else(|| {
            self.totals.first.plus(span.saturating_mul(place).checked_div(length).unwrap_or(span))
        }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(seq: u64) -> Record {
        let body = Bytes::from_static(b"x");
        Record { seq, at: Timestamp::EPOCH, table: 0, rows: 2, body }
    }

    #[test]
    fn delivered_and_due_are_counted_apart() {
        let mut segment = Segment::new("/s".into(), 10, 0);
        (10..210).for_each(|seq| segment.add(&record(seq)));
        assert_eq!((segment.pending_rows, segment.first_due(0)), (400, Some(10)));
        for seq in (10..210).filter(|seq| *seq != 150) {
            segment.deliver(seq, 2, 1);
        }
        assert_eq!((segment.first_due(11), segment.first_pending()), (Some(150), Some(150)));
        segment.deliver(150, 2, 1);
        segment.deliver(150, 2, 1);
        assert!(segment.is_settled() && segment.delivered_at.is_some());
        segment.replay();
        assert!(!segment.is_settled());
        assert_eq!((segment.first_due(77), segment.pending_rows), (Some(77), 0));
        assert_eq!(segment.oldest_pending(), None);
    }

    #[test]
    fn a_sealed_segment_needs_only_its_sums() {
        let totals = Totals { records: 3, rows: 6, bytes: 3, ..Totals::default() };
        let mut segment = Segment::sealed("/s".into(), 5, 7, totals, 0);
        assert!(segment.is_due(7) && !segment.is_due(8));
        segment.deliver_all();
        assert!(segment.is_settled());
    }
}

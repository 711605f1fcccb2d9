//! Space: what is delivered goes after the replay window, and what has no room is given up.

use std::io;
use std::time::Instant;

use super::disk::{Loss, LossReason, Spool};
use super::format::Slot;
use super::scan::Record;
use crate::base::time::Timestamp;

/// However full the file system is, the spool may have this much of it. Without that, a machine
/// that never has `min_free` would have no spool at all.
const RESERVE_BYTES: u64 = 64 << 20;

/// How the spool is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// Rows not yet delivered.
    pub pending_rows: u64,
    /// Bytes of bodies not yet delivered.
    pub pending_bytes: u64,
    /// When the oldest record not yet delivered was written.
    pub oldest: Option<Timestamp>,
    /// Newest seq on disk.
    pub durable_seq: u64,
    /// Rows made durable by this run.
    pub durable_rows: u64,
    /// Space taken on disk.
    pub disk_bytes: u64,
    /// Rows in memory only.
    pub ring_rows: u64,
    /// Why records are in memory only.
    pub fault: Option<String>,
    /// Free bytes of the file system, when that is less than the spool should leave.
    pub low_space: Option<u64>,
}

impl Spool {
    /// Returns how the spool is.
    pub fn figures(&self) -> Figures {
        let (ring_rows, ring_bytes) = self.ring.sums();
        let sum = |of: fn(&super::segment::Segment) -> u64| -> u64 {
            self.segments.iter().map(of).fold(0, u64::saturating_add)
        };
        let oldest = self.segments.iter().find_map(super::segment::Segment::oldest_pending);
        Figures {
            pending_rows: sum(|segment| segment.pending_rows).saturating_add(ring_rows),
            pending_bytes: sum(|segment| segment.pending_bytes).saturating_add(ring_bytes),
            oldest: oldest.or_else(|| self.ring.oldest().map(|(_, at)| at)),
            durable_seq: self.durable_seq,
            durable_rows: self.durable_rows,
            disk_bytes: self.disk_bytes(),
            ring_rows,
            fault: self.fault.as_ref().map(|fault| fault.reason.clone()),
            low_space: self.low_space,
        }
    }

    fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.disk_bytes).fold(0, u64::saturating_add)
    }

    /// Does what is due every second: the way back to the disk, the cursor, the replay window.
    pub fn tidy(&mut self) {
        let now = Instant::now();
        if self.fault.as_ref().is_some_and(|fault| fault.retry_at <= now) {
            self.try_disk();
        }
        self.save_active();
        self.low_space = match self.files.free_bytes(&self.folder) {
            Ok(free) => Some(free).filter(|free| *free < self.options.min_free),
            Err(_) => None,
        };
        if self.write_cursor(false).is_ok() {
            let freed = self.free_beyond_the_window(now);
            if let Err(error) = freed {
                self.note(&error);
            }
        }
        let oldest = self.segments.front().map_or(self.next_seq, |segment| segment.base);
        let held = self.ring.oldest().map_or(u64::MAX, |(seq, _)| seq);
        self.flight.forget_below(oldest.min(held).min(self.in_memory_from));
    }

    /// Makes durable what is delivered.
    fn write_cursor(&mut self, clean: bool) -> io::Result<()> {
        let pending = self.segments.iter().find_map(super::segment::Segment::first_pending);
        let held = self.ring.oldest().map(|(seq, _)| seq);
        let lowest = pending.into_iter().chain(held).min().unwrap_or(self.next_seq);
        let slot = Slot {
            count: 0,
            delivered: lowest.saturating_sub(1),
            boot: self.options.boot,
            next: self.next_seq,
            durable: self.durable_seq,
            clean,
        };
        // The numbers that are in use alone are no reason to write.
        let on_disk = self.cursor.slot();
        let Slot { next, durable, .. } = slot;
        if !clean && (Slot { count: 0, next, durable, ..on_disk }) == slot {
            return Ok(());
        }
        let written = self.cursor.write(self.files.as_ref(), slot);
        if let Err(error) = &written {
            self.note(error);
        }
        written
    }

    /// Removes delivered segments that are older than the replay window or too many.
    fn free_beyond_the_window(&mut self, now: Instant) -> io::Result<()> {
        let window = self.options.replay_window;
        let settled: u64 =
            (0..self.segments.len()).filter(|i| self.may_free(*i)).map(|i| self.bytes_of(i)).sum();
        let mut excess = if self.low_space.is_some() {
            settled
        } else {
            settled.saturating_sub(self.options.replay_bytes)
        };
        let mut index = 0;
        while index < self.segments.len() {
            let expired = self.segments.get(index).is_some_and(|segment| {
                segment.delivered_at.is_some_and(|at| now.duration_since(at) >= window)
            });
            if self.may_free(index) && (excess > 0 || expired) {
                excess = excess.saturating_sub(self.bytes_of(index));
                self.unlink_segment(index)?;
            } else {
                index += 1;
            }
        }
        Ok(())
    }

    /// Removes every delivered segment, for want of space.
    pub(super) fn free_settled(&mut self) -> io::Result<()> {
        while let Some(index) = (0..self.segments.len()).find(|index| self.may_free(*index)) {
            self.unlink_segment(index)?;
        }
        Ok(())
    }

    /// Whether the segment at `index` is delivered and no longer written.
    fn may_free(&self, index: usize) -> bool {
        let written = self.active.is_some() && index + 1 == self.segments.len();
        !written && self.segments.get(index).is_some_and(super::segment::Segment::is_settled)
    }

    fn bytes_of(&self, index: usize) -> u64 {
        self.segments.get(index).map_or(0, |segment| segment.disk_bytes)
    }

    /// Makes room for `bytes` more: first by what is delivered, then by the oldest records.
    ///
    /// On a file system that is short of space the spool does not grow beyond [`RESERVE_BYTES`],
    /// but neither does it shrink below what is not delivered: what fits is not lost.
    pub(super) fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let max_bytes = self.options.max_bytes;
        loop {
            let free = self.files.free_bytes(&self.folder).unwrap_or(u64::MAX);
            let is_low = free < self.options.min_free.saturating_add(bytes);
            let used = self.disk_bytes();
            let allowed = if is_low { used.max(RESERVE_BYTES).min(max_bytes) } else { max_bytes };
            if used.saturating_add(bytes) <= allowed {
                return Ok(());
            }
            let settled = (0..self.segments.len()).find(|index| self.may_free(*index));
            if let Some(index) = settled {
                self.unlink_segment(index)?;
            } else if self.segments.is_empty() {
                // The limit is smaller than one segment: one there must be.
                return Ok(());
            } else {
                let reason = if is_low && used.saturating_add(bytes) <= max_bytes {
                    LossReason::MinFree
                } else {
                    LossReason::Cap
                };
                self.give_up_oldest(reason)?;
            }
        }
    }

    /// Drops the oldest segment with what is not delivered in it.
    fn give_up_oldest(&mut self, reason: LossReason) -> io::Result<()> {
        let Some(segment) = self.segments.front() else { return Ok(()) };
        let (base, end) = (segment.base, segment.end);
        let (rows, totals) = (segment.pending_rows, segment.totals);
        let records = self.pending_of_front();
        self.unlink_segment(0)?;
        match records {
            Some(records) => self.lose_range(reason, &records, base, end.saturating_sub(1)),
            // It cannot even be read: only the sums are known.
            None => self.losses.push(Loss {
                reason,
                table: None,
                first: base,
                last: end.saturating_sub(1),
                rows,
                from: totals.first,
                to: totals.last,
            }),
        }
        Ok(())
    }

    /// Returns the records of the oldest segment that were never delivered; `None` when it cannot
    /// be read.
    fn pending_of_front(&mut self) -> Option<Vec<Record>> {
        let (content, known) = self.content(0).ok()?;
        let found = self.examine(0, &content, known);
        let segment = self.segments.front()?;
        Some(found.into_iter().filter(|record| !segment.is_delivered(record.seq)).collect())
    }

    /// Removes the file of the segment at `index` and forgets it.
    fn unlink_segment(&mut self, index: usize) -> io::Result<()> {
        let Some(segment) = self.segments.get(index) else { return Ok(()) };
        match self.files.unlink(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.segments.remove(index);
        Ok(())
    }

    /// Ends in order: completes the segment and writes the cursor.
    pub fn close(&mut self) {
        if self.fault.is_some() {
            self.try_disk();
        }
        self.save_active();
        if let Some(active) = &self.active
            && active.durable == super::disk::size(super::format::HEADER)
        {
            self.active = None;
            let index = self.segments.len().saturating_sub(1);
            if let Err(error) = self.unlink_segment(index) {
                self.note(&error);
            }
        }
        self.complete_segment();
        // In memory only: not an end in order.
        let clean = self.fault.is_none() && self.ring.is_empty();
        if let Err(error) = self.write_cursor(clean) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot write the cursor");
        }
    }
}

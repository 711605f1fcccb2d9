//! Reading records back for delivery, and what happens when a segment is damaged.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::disk::{Loss, LossReason, Spool, size};
use super::scan::{Known, Missing, Record, scan};
use crate::base::files::{File, Files, read_all, read_up_to, write_all_at};

/// Largest size of a segment that is read, bytes: a record is limited to far less.
const SEGMENT_LIMIT: u64 = 256 << 20;

/// Copies of damaged segments may take this much, bytes.
const QUARANTINE_LIMIT: u64 = 64 << 20;

/// How long a segment that cannot be read is tried again.
const UNREADABLE_LIMIT: Duration = Duration::from_secs(60);

/// Records that a lane reads at once from memory, bytes.
const RING_CHUNK: usize = 4 << 20;

/// Records that are due, in order.
#[derive(Debug)]
pub struct Chunk {
    /// The records.
    pub records: Vec<Record>,
    /// Where to go on; `None`: there is nothing behind.
    pub next: Option<u64>,
}

impl Spool {
    /// Returns the lowest seq that is to be sent and the bytes that wait from there on.
    pub fn due(&self) -> Option<(u64, u64)> {
        let first = self.segments.iter().find_map(|segment| segment.first_due(0));
        let held = self.ring.oldest().map(|(seq, _)| seq);
        let lowest = first.into_iter().chain(held).min()?;
        let waiting = self.segments.iter().filter(|segment| segment.first_due(0).is_some());
        let bytes = waiting.map(|segment| segment.totals.bytes).fold(0, u64::saturating_add);
        Some((lowest, bytes.saturating_add(self.ring.sums().1)))
    }

    /// Makes everything that is still on disk due again: the server may have lost what it had
    /// not written to its disk.
    pub fn replay(&mut self) {
        self.segments.iter_mut().for_each(super::segment::Segment::replay);
    }

    /// Reads the due records of the first segment that has any from seq `from` on.
    pub fn read(&mut self, from: u64) -> Chunk {
        loop {
            let found = self
                .segments
                .iter()
                .position(|segment| segment.end > from && segment.first_due(from).is_some());
            let Some(index) = found else { return self.read_ring(from) };
            let end = self.segments.get(index).map_or(u64::MAX, |segment| segment.end);
            let records = match self.content(index) {
                Ok((content, known)) => {
                    if let Some(segment) = self.segments.get_mut(index) {
                        segment.unreadable_since = None;
                    }
                    self.examine(index, &content, known)
                }
                Err(error) if self.is_given_up(index, &error) => {
                    self.unreadable(index, &error);
                    continue;
                }
                // It may work again in a moment: nothing is given up for a passing fault.
                Err(_) => return Chunk { records: Vec::new(), next: Some(from) },
            };
            let due = |record: &Record| {
                let segment = self.segments.get(index);
                record.seq >= from && segment.is_some_and(|segment| segment.is_due(record.seq))
            };
            let records: Vec<Record> = records.into_iter().filter(due).collect();
            if !records.is_empty() {
                return Chunk { records, next: Some(end) };
            }
            // Nothing of it is left, and now it is known: the next round passes it over.
        }
    }

    /// Whether the segment at `index` has been unreadable for too long to wait for it.
    fn is_given_up(&mut self, index: usize, error: &io::Error) -> bool {
        if error.kind() == io::ErrorKind::NotFound && self.is_folder_in_place() {
            return true;
        }
        let Some(segment) = self.segments.get_mut(index) else { return true };
        let since = *segment.unreadable_since.get_or_insert_with(Instant::now);
        since.elapsed() > UNREADABLE_LIMIT
    }

    /// Whether any segment is where it was made. Otherwise another file system may lie over the
    /// folder, and all of them may be back in a moment.
    fn is_folder_in_place(&self) -> bool {
        let entries = self.files.list(&self.folder).unwrap_or_default();
        entries.iter().any(|entry| {
            let path = self.folder.join(&entry.name);
            self.segments.iter().any(|segment| segment.path == path)
        })
    }

    fn read_ring(&self, from: u64) -> Chunk {
        let records = self.ring.pending(from, RING_CHUNK);
        let next = records.last().map(|record| record.seq.saturating_add(1));
        Chunk { records, next }
    }

    /// Reads what is durable of the segment at `index`.
    pub(super) fn content(&self, index: usize) -> io::Result<(Bytes, Known)> {
        let segment = self.segments.get(index).ok_or(io::ErrorKind::NotFound)?;
        let is_active = index.saturating_add(1) == self.segments.len();
        let active = self.active.as_ref().filter(|_| is_active);
        let limit = self.segments.get(index.saturating_add(1)).map(|next| next.base);
        let known =
            Known { base: segment.base, limit, durable_end: segment.end, durable_anywhere: 0 };
        let content = match active {
            Some(active) => {
                let mut content = vec![0; usize::try_from(active.durable).unwrap_or(usize::MAX)];
                let read = read_up_to(active.file.as_ref(), &mut content, 0)?;
                content.truncate(read);
                content
            }
            None => read_despite_errors(self.files.open(&segment.path)?.as_ref())?,
        };
        Ok((content.into(), known))
    }

    /// Finds the records in `content` of the segment at `index`; what should be there and is not
    /// is lost, counted, and kept aside for people.
    pub(super) fn examine(&mut self, index: usize, content: &Bytes, known: Known) -> Vec<Record> {
        let found = scan(content, known);
        let Some(segment) = self.segments.get_mut(index) else { return Vec::new() };
        let is_due =
            |missing: &&Missing| (missing.first..=missing.last).any(|seq| segment.is_due(seq));
        let missing: Vec<&Missing> = found.lost.iter().filter(is_due).collect();
        // What is damaged after it was delivered is no loss, even if it was to be sent again.
        let is_pending =
            |missing: &Missing| (missing.first..=missing.last).any(|s| !segment.is_delivered(s));
        let pending = missing.iter().filter(|missing| is_pending(missing));
        let lost: Vec<Loss> = pending.map(|missing| damage(missing)).collect();
        for missing in missing {
            let rows = missing.rows_each();
            (missing.first..=missing.last).for_each(|seq| segment.deliver(seq, rows, 0));
        }
        segment.settle_absent(&found.records);
        if !lost.is_empty() {
            let path = segment.path.clone();
            self.damaged(&path, content, lost);
        }
        found.records
    }

    /// Puts a copy of a damaged segment aside and counts `lost`, unless the very same damage was
    /// found by an earlier run.
    pub(super) fn damaged(&mut self, path: &std::path::Path, content: &[u8], lost: Vec<Loss>) {
        let folder = self.folder.join("quarantine");
        let Some(name) = path.file_name() else { return };
        let copy = folder.join(name);
        let files = self.files.as_ref();
        let known = files.open(&copy).and_then(|file| read_all(file.as_ref(), SEGMENT_LIMIT));
        // A segment's reserved space may be gone by now.
        let trimmed = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |i| i + 1);
        let end = trimmed(content);
        if known.is_ok_and(|known| known.get(..trimmed(&known)) == content.get(..end)) {
            return;
        }
        tracing::error!(
            segment = %path.display(), copy = %copy.display(), ?lost, "segment is damaged"
        );
        self.faults.push("damage");
        self.losses.extend(lost);
        let kept = quarantine(files, &folder, &copy, content.get(..end).unwrap_or(content));
        if let Err(error) = kept {
            self.note(&error);
        }
    }

    /// Gives up a segment that cannot be read at all.
    fn unreadable(&mut self, index: usize, error: &io::Error) {
        self.note(error);
        let Some(segment) = self.segments.get_mut(index) else { return };
        tracing::error!(segment = %segment.path.display(), %error, "segment cannot be read");
        let loss = Loss {
            reason: LossReason::Damage,
            table: None,
            first: segment.base,
            last: segment.end.saturating_sub(1),
            rows: segment.pending_rows,
            from: segment.totals.first,
            to: segment.totals.last,
        };
        if loss.rows > 0 {
            self.losses.push(loss);
        }
        // Its file, if there is one, is put aside: a repair may still save it.
        segment.deliver_all();
        let path = segment.path.clone();
        let folder = self.folder.join("quarantine");
        let Some(name) = path.file_name() else { return };
        let moved = self
            .files
            .create_folder(&folder)
            .and_then(|()| self.files.rename(&path, &folder.join(name)));
        if let Err(error) = moved {
            self.note(&error);
        }
    }
}

/// Returns the loss that `missing` is.
pub(super) const fn damage(missing: &Missing) -> Loss {
    Loss {
        reason: LossReason::Damage,
        table: missing.table,
        first: missing.first,
        last: missing.last,
        rows: missing.rows,
        from: missing.from,
        to: missing.to,
    }
}

/// Reads a segment; places that the disk cannot give back are zeros.
fn read_despite_errors(file: &dyn File) -> io::Result<Vec<u8>> {
    const PIECE: usize = 4096;
    match read_all(file, SEGMENT_LIMIT) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {}
        other => return other,
    }
    let length = usize::try_from(file.size()?.min(SEGMENT_LIMIT)).unwrap_or(0);
    let mut content = vec![0; length];
    for (number, piece) in content.chunks_mut(PIECE).enumerate() {
        if read_up_to(file, piece, size(number.saturating_mul(PIECE))).is_err() {
            piece.fill(0);
        }
    }
    Ok(content)
}

/// Writes `content` to `copy`, as long as all copies together stay within their limit.
fn quarantine(
    files: &dyn Files,
    folder: &std::path::Path,
    copy: &std::path::Path,
    content: &[u8],
) -> io::Result<()> {
    files.create_folder(folder)?;
    let used: u64 = files.list(folder)?.iter().map(|entry| entry.bytes).sum();
    if used.saturating_add(size(content.len())) > QUARANTINE_LIMIT {
        return Err(io::ErrorKind::QuotaExceeded.into());
    }
    match files.unlink(copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = files.create(copy)?;
    write_all_at(file.as_ref(), content, 0)?;
    file.sync()?;
    files.sync_folder(folder)
}

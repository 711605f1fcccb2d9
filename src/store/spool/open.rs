//! Opening the spool: it finds what a crash, a flipped bit or another version left, and never
//! refuses.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::cursor::Cursor;
use super::disk::{Loss, Options, Spool, size};
use super::format::{self, HEADER, Header, HeaderKind, SEAL};
use super::scan::{Known, Scan, scan};
use super::segment::Segment;
use crate::base::files::{File, Files, read_all, read_up_to, write_all_at};

/// What opening found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Segments in use.
    pub segments: u64,
    /// Rows not yet delivered.
    pub pending_rows: u64,
    /// Bytes behind the last intact record that a crash cut off before they were acknowledged.
    pub torn_bytes: u64,
    /// Segments of a later format, moved aside.
    pub newer: u64,
    /// Whether the run before did not end in order, or the machine was restarted: what was
    /// delivered last may have to be delivered again.
    pub unclean: bool,
}

/// A segment's file, opened.
struct Found {
    path: PathBuf,
    base: u64,
    header: HeaderKind,
    file: Box<dyn File>,
    bytes: u64,
}

impl Spool {
    /// Opens the spool in `folder` and makes it if it is missing.
    ///
    /// Without a usable folder it works in memory and tries the folder again and again.
    pub fn open(files: Arc<dyn Files>, folder: &Path, options: Options) -> (Self, Recovery) {
        let ready = files.create_folder(folder).and_then(|()| match folder.parent() {
            Some(parent) => files.sync_folder(parent),
            None => Ok(()),
        });
        let cursor = Cursor::open(files.as_ref(), folder);
        let slot = cursor.slot();
        let mut recovery =
            Recovery { unclean: !slot.clean || slot.boot != options.boot, ..Recovery::default() };
        let mut spool = Self::with(files, folder.to_owned(), options, cursor);
        let mut found = spool.find_segments(&mut recovery);
        found.sort_by_key(|segment| segment.base);
        for (index, segment) in found.iter().enumerate() {
            let next = found.get(index.saturating_add(1));
            spool.load(segment, next, &mut recovery);
        }
        let end = spool.segments.iter().map(|segment| segment.end).max().unwrap_or(0);
        spool.durable_seq = end.max(slot.next).saturating_sub(1);
        spool.next_seq = end.max(slot.next).max(slot.delivered.saturating_add(1)).max(1);
        // A cursor beyond the end belongs to other segments: everything is sent again.
        if slot.delivered < end {
            spool.apply_cursor(slot.delivered);
        }
        recovery.segments = size(spool.segments.len());
        recovery.pending_rows = spool.figures().pending_rows;
        if let Err(error) = ready {
            spool.note(&error);
            let _reason = spool.enter_fault(&error);
        }
        spool.tidy();
        (spool, recovery)
    }

    /// Opens every segment and moves those of a later format aside.
    fn find_segments(&mut self, recovery: &mut Recovery) -> Vec<Found> {
        let mut found = Vec::new();
        let entries = match self.files.list(&self.folder) {
            Ok(entries) => entries,
            Err(error) => {
                self.note(&error);
                return found;
            }
        };
        for entry in entries {
            let Some(named) = segment_base(&entry.name) else { continue };
            let path = self.folder.join(&entry.name);
            match self.open_segment(path.clone(), named, entry.bytes) {
                Ok(segment) => match segment.header {
                    HeaderKind::Newer(version) => {
                        recovery.newer = recovery.newer.saturating_add(1);
                        self.move_aside(&path, &entry.name, version);
                    }
                    HeaderKind::Good(_) | HeaderKind::Damaged => found.push(segment),
                },
                Err(error) => {
                    self.note(&error);
                    tracing::error!(segment = %path.display(), %error, "cannot open segment");
                }
            }
        }
        found
    }

    fn open_segment(&self, path: PathBuf, named: u64, bytes: u64) -> io::Result<Found> {
        let file = self.files.open(&path)?;
        let mut start = [0; HEADER];
        let read = read_up_to(file.as_ref(), &mut start, 0)?;
        let header = format::header(start.get(..read).unwrap_or_default());
        let base = match header {
            HeaderKind::Good(header) => header.base,
            HeaderKind::Newer(_) | HeaderKind::Damaged => named,
        };
        Ok(Found { path, base, header, file, bytes })
    }

    fn move_aside(&mut self, path: &Path, name: &str, version: u16) {
        let folder = self.folder.join("newer");
        tracing::error!(
            segment = %path.display(), version, folder = %folder.display(),
            "segment has a later format and is moved aside; the version of periscope that wrote it \
             can still deliver it"
        );
        self.faults.push("newer_version");
        let moved = self
            .files
            .create_folder(&folder)
            .and_then(|()| self.files.rename(path, &folder.join(name)))
            .and_then(|()| self.files.sync_folder(&folder));
        if let Err(error) = moved {
            self.note(&error);
        }
    }

    /// Takes a segment into account, by its seal or by reading all of it.
    fn load(&mut self, found: &Found, next: Option<&Found>, recovery: &mut Recovery) {
        let limit = next.map(|next| next.base);
        if let (HeaderKind::Good(_), Some((last, totals))) = (found.header, seal_of(found))
            && last >= found.base
            && limit.is_none_or(|limit| last < limit)
        {
            let path = found.path.clone();
            let segment = Segment::sealed(path, found.base, last, totals, found.bytes);
            self.segments.push_back(segment);
            return;
        }
        let content = match read_all(found.file.as_ref(), u64::from(u32::MAX)) {
            Ok(content) => Bytes::from(content),
            Err(error) => {
                self.note(&error);
                tracing::error!(segment = %found.path.display(), %error, "cannot read segment");
                return;
            }
        };
        // The next segment's header tells where this one ended, if it followed right behind.
        let durable_end = match next.map(|next| next.header) {
            Some(HeaderKind::Good(next)) if next.previous_base == found.base => next.previous_end,
            Some(_) | None => 0,
        };
        let durable_anywhere = self.cursor.slot().durable.saturating_add(1);
        let known = Known { base: found.base, limit, durable_end, durable_anywhere };
        let scanned = scan(&content, known);
        self.take_scanned(found, &content, &scanned, recovery);
    }

    fn take_scanned(
        &mut self,
        found: &Found,
        content: &Bytes,
        scanned: &Scan,
        recovery: &mut Recovery,
    ) {
        let delivered = self.cursor.slot().delivered;
        let undelivered = scanned.lost.iter().filter(|missing| missing.last > delivered);
        let lost: Vec<Loss> = undelivered.map(super::read::damage).collect();
        let is_damaged = !scanned.lost.is_empty();
        if !lost.is_empty() {
            self.damaged(&found.path, content, lost);
        }
        if scanned.torn > 0 && !is_damaged {
            recovery.torn_bytes = recovery.torn_bytes.saturating_add(size(scanned.torn));
            self.faults.push("torn_tail");
        }
        if scanned.records.is_empty() {
            // Prepared, but nothing in it was ever acknowledged, or nothing of it is left.
            if let Err(error) = self.files.unlink(&found.path) {
                self.note(&error);
            }
            return;
        }
        let mut segment = Segment::new(found.path.clone(), found.base, found.bytes);
        scanned.records.iter().for_each(|record| segment.add(record));
        segment.finish();
        // A damaged segment stays as it is: that is how the next start knows the damage again.
        if !is_damaged {
            match self.repair(found, &segment, scanned) {
                Ok(bytes) => segment.disk_bytes = bytes,
                Err(error) => self.note(&error),
            }
        }
        self.segments.push_back(segment);
    }

    /// Brings a segment that a crash left open into the form of a complete one: header, no torn
    /// tail, seal. Only a help for later starts. Returns its size.
    fn repair(&self, found: &Found, segment: &Segment, scanned: &Scan) -> io::Result<u64> {
        let file = found.file.as_ref();
        if found.header == HeaderKind::Damaged {
            let header = Header {
                base: segment.base,
                previous_base: 0,
                previous_end: 0,
                instance: self.options.instance,
                created: segment.totals.first,
            };
            write_all_at(file, &header.encode(), 0)?;
            file.sync()?;
        }
        if scanned.sealed { Ok(found.bytes) } else { cut_and_seal(file, segment, scanned) }
    }

    /// Marks everything up to `delivered` as delivered.
    fn apply_cursor(&mut self, delivered: u64) {
        for index in 0..self.segments.len() {
            let Some(segment) = self.segments.get_mut(index) else { return };
            if segment.end <= delivered.saturating_add(1) {
                segment.deliver_all();
            } else if segment.base <= delivered {
                // If it cannot be read nothing is known of its records: all are sent again.
                let Ok((content, known)) = self.content(index) else { return };
                let found = scan(&content, known);
                let Some(segment) = self.segments.get_mut(index) else { return };
                for record in found.records.iter().take_while(|record| record.seq <= delivered) {
                    segment.deliver(record.seq, u64::from(record.rows), record.bytes());
                }
                // A record that is damaged after it was delivered is no loss.
                for missing in &found.lost {
                    let rows = missing.rows_each();
                    let behind = missing.first..=missing.last.min(delivered);
                    behind.for_each(|seq| segment.deliver(seq, rows, 0));
                }
            }
        }
    }
}

/// Returns the seq in the name of a segment.
pub fn segment_base(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 20)?;
    digits.parse().ok()
}

/// Reads the seal at the end of a segment.
fn seal_of(found: &Found) -> Option<(u64, format::Totals)> {
    let mut end = [0; SEAL];
    let offset = found.bytes.checked_sub(size(SEAL)).filter(|at| *at >= size(HEADER))?;
    match read_up_to(found.file.as_ref(), &mut end, offset) {
        Ok(SEAL) => format::seal(&end),
        Ok(_) | Err(_) => None,
    }
}

/// Cuts what follows the last intact record off, writes down which numbers a torn write left out,
/// and puts the seal behind.
fn cut_and_seal(file: &dyn File, segment: &Segment, scanned: &Scan) -> io::Result<u64> {
    let last = segment.end.saturating_sub(1);
    let mut tail = Vec::new();
    if !scanned.torn_out.is_empty() {
        tail = format::encode_absent(&scanned.torn_out, last, segment.totals.last);
    }
    tail.extend_from_slice(&segment.totals.encode(last));
    let end = size(scanned.end);
    file.set_len(end)?;
    write_all_at(file, &tail, end)?;
    file.sync()?;
    Ok(end.saturating_add(size(tail.len())))
}

//! The durable queue itself: appending, and what happens when the disk fails.
//!
//! One owner, no threads, no waiting but for the disk. Nothing here ends the program: a record
//! that cannot be on disk is held in a bounded ring, the fault is named, and the way back is tried
//! again and again.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cursor::Cursor;
use super::flight::Flight;
use super::format::{self, FRAME, Frame, HEADER, Header, Kind, SEAL};
use super::gaps;
use super::ring::{Entry, Ring};
use super::scan::{Known, Record, scan};
use super::segment::Segment;
use crate::base::backoff::Backoff;
use crate::base::files::{File, Files, read_all, write_all_at};
use crate::base::time::{Clock, Timestamp};

/// Limits and surroundings of a spool.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size at which the oldest records are dropped, bytes.
    pub max_bytes: u64,
    /// Free space that the spool leaves on its file system, bytes.
    pub min_free: u64,
    /// How long delivered records are kept.
    pub replay_window: Duration,
    /// Size of the delivered records that are kept, bytes.
    pub replay_bytes: u64,
    /// Size of a segment, bytes; a larger record gets a larger one.
    pub segment_bytes: u64,
    /// Memory for records while the disk fails, bytes.
    pub ring_bytes: usize,
    /// Boot id of the machine.
    pub boot: [u8; 16],
    /// Random number of this run; also the seed of waiting times.
    pub instance: u64,
    /// Where "now" comes from.
    pub clock: Clock,
}

/// Rows of one table, ready to be written.
#[derive(Debug)]
pub struct Draft {
    table: u16,
    rows: u32,
    /// Room for the frame, then the body.
    bytes: Vec<u8>,
}

impl Draft {
    /// Takes `rows` lines of `table` out of `body`.
    pub fn new(table: u16, rows: u32, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(format::record_size(body.len()));
        bytes.resize(FRAME, 0);
        bytes.extend_from_slice(body);
        Self { table, rows, bytes }
    }

    /// Returns the lines.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(FRAME..).unwrap_or_default()
    }

    /// Returns the size, bytes.
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Where appended records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// On disk, whatever happens from here on.
    Durable,
    /// In memory only, for the reason given.
    Volatile(String),
}

/// Why records are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LossReason {
    /// The spool reached its largest size.
    Cap,
    /// The file system has too little space left.
    MinFree,
    /// The disk does not give back what was written.
    Damage,
    /// The ring in memory was full while the disk failed.
    MemoryRing,
    /// The queue before the spool was full.
    QueueFull,
}

impl LossReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Cap, Self::MinFree, Self::Damage, Self::MemoryRing, Self::QueueFull];

    /// Returns the name in metrics and in `sample_gaps`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cap => "cap",
            Self::MinFree => "min_free",
            Self::Damage => "damage",
            Self::MemoryRing => "memory_ring",
            Self::QueueFull => "queue_full",
        }
    }
}

/// Records that are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// Table: index in `model::table::TABLES`; `None` when it cannot be told.
    pub table: Option<u16>,
    /// First seq; 0 when they never had one.
    pub first: u64,
    /// Last seq.
    pub last: u64,
    /// Rows.
    pub rows: u64,
    /// Time of the first.
    pub from: Timestamp,
    /// Time of the last.
    pub to: Timestamp,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: Box<dyn File>,
    /// Where the next record goes.
    offset: u64,
    /// Behind the last record that is durable.
    pub(super) durable: u64,
    reserved: u64,
    name_is_durable: bool,
}

/// Why records are in memory, and when the disk is tried again.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) reason: String,
    pub(super) retry_at: Instant,
}

/// A durable queue in a folder.
#[derive(Debug)]
pub struct Spool {
    pub(super) files: Arc<dyn Files>,
    pub(super) folder: PathBuf,
    pub(super) options: Options,
    pub(super) segments: VecDeque<Segment>,
    /// Belongs to the last of `segments`.
    pub(super) active: Option<Active>,
    pub(super) ring: Ring,
    pub(super) fault: Option<Fault>,
    backoff: Backoff,
    pub(super) cursor: Cursor,
    pub(super) next_seq: u64,
    pub(super) durable_seq: u64,
    /// Rows made durable by this run.
    pub(super) durable_rows: u64,
    pub(super) flight: Flight,
    pub(super) losses: Vec<Loss>,
    /// What lost rows of `sample_gaps` told of.
    pub(super) retold: Vec<Loss>,
    /// Lowest seq that anybody may still have in memory.
    pub(super) in_memory_from: u64,
    pub(super) faults: Vec<&'static str>,
    pub(super) low_space: Option<u64>,
}

pub(super) fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Returns the name in metrics of what went wrong.
fn fault_name(error: &io::Error) -> &'static str {
    use io::ErrorKind;
    let names = [
        (ErrorKind::StorageFull, "disk_full"),
        (ErrorKind::QuotaExceeded, "disk_full"),
        (ErrorKind::ReadOnlyFilesystem, "read_only"),
        (ErrorKind::PermissionDenied, "permission"),
        (ErrorKind::NotFound, "folder_gone"),
    ];
    names.iter().find(|(kind, _)| *kind == error.kind()).map_or("io", |(_, name)| name)
}

impl Spool {
    pub(super) fn with(
        files: Arc<dyn Files>,
        folder: PathBuf,
        options: Options,
        cursor: Cursor,
    ) -> Self {
        let backoff =
            Backoff::new(Duration::from_millis(500), Duration::from_secs(15), options.instance);
        Self {
            files,
            folder,
            ring: Ring::new(options.ring_bytes),
            options,
            segments: VecDeque::new(),
            active: None,
            fault: None,
            backoff,
            cursor,
            next_seq: 1,
            durable_seq: 0,
            durable_rows: 0,
            flight: Flight::default(),
            losses: Vec::new(),
            retold: Vec::new(),
            in_memory_from: u64::MAX,
            faults: Vec::new(),
            low_space: None,
        }
    }

    /// Writes `drafts` in order and makes them durable with one sync. Never fails: what cannot be
    /// on disk is held in memory.
    pub fn append(&mut self, drafts: Vec<Draft>) -> (Vec<Record>, Outcome) {
        let at = self.options.clock.now();
        let entries: Vec<Entry> = drafts.into_iter().map(|draft| self.entry(draft, at)).collect();
        let records = entries.iter().map(|entry| entry.record.clone()).collect();
        if self.fault.as_ref().is_some_and(|fault| fault.retry_at <= Instant::now()) {
            self.try_disk();
        }
        if let Some(fault) = &self.fault {
            let reason = fault.reason.clone();
            self.hold(entries);
            return (records, Outcome::Volatile(reason));
        }
        match self.make_durable(&entries) {
            Ok(()) => (records, Outcome::Durable),
            Err((error, rest)) => {
                let reason = self.enter_fault(&error);
                self.hold(rest);
                (records, Outcome::Volatile(reason))
            }
        }
    }

    /// Numbers `draft` and completes its bytes.
    fn entry(&mut self, draft: Draft, at: Timestamp) -> Entry {
        let seq = self.next_seq;
        self.next_seq = seq.saturating_add(1);
        let Draft { table, rows, mut bytes } = draft;
        let end = bytes.len();
        let frame = Frame {
            length: u32::try_from(end.saturating_sub(FRAME)).unwrap_or(u32::MAX),
            seq,
            at,
            durable: self.durable_seq,
            rows,
            table,
            kind: Kind::Rows,
        };
        format::seal_frame(&mut bytes, &frame);
        let bytes = Bytes::from(bytes);
        Entry { record: Record { seq, at, table, rows, body: bytes.slice(FRAME..end) }, bytes }
    }

    /// Makes `entries` durable: in the segment at hand or, when that fails, in a new one. The
    /// error comes with everything that is not durable now.
    fn make_durable(&mut self, entries: &[Entry]) -> Result<(), (io::Error, Vec<Entry>)> {
        let Err(first) = self.write(entries) else { return Ok(()) };
        self.note(&first);
        let mut rest = self.abandon();
        let missing = |entry: &&Entry| !self.is_due(entry.record.seq);
        rest.extend(entries.iter().filter(missing).cloned());
        let Err(second) = self.write(&rest) else { return Ok(()) };
        self.note(&second);
        // Part of `rest` may be in a segment that is complete.
        let durable = |entry: &Entry| self.is_due(entry.record.seq);
        let still: Vec<Entry> = rest.iter().filter(|entry| !durable(entry)).cloned().collect();
        let rescued = self.abandon();
        Err((second, rescued.into_iter().chain(still).collect()))
    }

    /// Writes `entries` and syncs; everything up to `durable_seq` is durable afterwards.
    fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut written: Vec<&Record> = Vec::with_capacity(entries.len());
        for entry in entries {
            let bytes = size(entry.bytes.len());
            if self.active.as_ref().is_none_or(|active| !active.fits(bytes)) {
                self.commit(&mut written)?;
                self.complete_segment();
                self.start_segment(entry.record.seq, bytes)?;
            }
            if let Some(active) = &mut self.active {
                write_all_at(active.file.as_ref(), &entry.bytes, active.offset)?;
                active.offset = active.offset.saturating_add(bytes);
            }
            written.push(&entry.record);
        }
        self.commit(&mut written)
    }

    /// Syncs the active segment and takes `written` into account.
    fn commit(&mut self, written: &mut Vec<&Record>) -> io::Result<()> {
        let (Some(active), Some(segment)) = (&mut self.active, self.segments.back_mut()) else {
            return Ok(());
        };
        if written.is_empty() {
            return Ok(());
        }
        active.file.sync()?;
        if !active.name_is_durable {
            self.files.sync_folder(&self.folder)?;
            active.name_is_durable = true;
        }
        if !active.file.is_at(&segment.path)? {
            let gone = format!("{} was deleted or replaced", segment.path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, gone));
        }
        active.durable = active.offset;
        for record in written.drain(..) {
            segment.add(record);
            self.durable_rows = self.durable_rows.saturating_add(u64::from(record.rows));
            self.durable_seq = self.durable_seq.max(record.seq);
        }
        Ok(())
    }

    /// Ends the active segment with its seal. Only a help for the next start: errors are counted.
    pub(super) fn complete_segment(&mut self) {
        let (Some(active), Some(segment)) = (self.active.take(), self.segments.back_mut()) else {
            return;
        };
        segment.finish();
        let seal = segment.totals.encode(segment.end.saturating_sub(1));
        let end = active.durable.saturating_add(size(seal.len()));
        let sealed = write_all_at(active.file.as_ref(), &seal, active.durable)
            .and_then(|()| active.file.set_len(end));
        match sealed {
            Ok(()) => segment.disk_bytes = end,
            Err(error) => self.note(&error),
        }
    }

    /// Starts a segment whose first record is `base` with `bytes` bytes.
    fn start_segment(&mut self, base: u64, bytes: u64) -> io::Result<()> {
        let needed = size(HEADER).saturating_add(bytes).saturating_add(size(SEAL));
        let reserved = self.options.segment_bytes.max(needed);
        self.make_room(reserved)?;
        let path = self.folder.join(format!("{base:020}.seg"));
        let file = self.create(&path)?;
        let previous = self.segments.back();
        let header = Header {
            base,
            previous_base: previous.map_or(0, |segment| segment.base),
            previous_end: previous.map_or(0, |segment| segment.end),
            instance: self.options.instance,
            created: self.options.clock.now(),
        };
        let prepared = match file.reserve(reserved) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.free_settled()?;
                file.reserve(reserved)
            }
            other => other,
        };
        let prepared = prepared.and_then(|()| write_all_at(file.as_ref(), &header.encode(), 0));
        if let Err(error) = prepared {
            self.remove(&path);
            return Err(error);
        }
        let offset = size(HEADER);
        self.active =
            Some(Active { file, offset, durable: offset, reserved, name_is_durable: false });
        self.segments.push_back(Segment::new(path, base, reserved));
        Ok(())
    }

    /// Makes the file of a new segment, and its folder if that is gone.
    fn create(&mut self, path: &std::path::Path) -> io::Result<Box<dyn File>> {
        match self.files.create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.files.create_folder(&self.folder)?;
                self.files.create(path)
            }
            // Left behind by an attempt that failed before anything in it was durable.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.files.unlink(path)?;
                self.files.create(path)
            }
            other => other,
        }
    }

    fn remove(&mut self, path: &std::path::Path) {
        if let Err(error) = self.files.unlink(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            self.note(&error);
        }
    }

    /// Lets go of the active segment after an error. What was durable in it stays; when its file
    /// is no longer in its place, its records come back, from the first pending one on.
    fn abandon(&mut self) -> Vec<Entry> {
        let Some(active) = self.active.take() else { return Vec::new() };
        let Some(mut segment) = self.segments.pop_back() else { return Vec::new() };
        if matches!(active.file.is_at(&segment.path), Ok(false)) {
            return rescued(&active, &segment);
        }
        if segment.totals.records == 0 {
            self.remove(&segment.path);
            return Vec::new();
        }
        // Otherwise the same record might be found twice. Harmless, so errors are only counted.
        match active.file.set_len(active.durable) {
            Ok(()) => segment.disk_bytes = active.durable,
            Err(error) => self.note(&error),
        }
        segment.finish();
        self.segments.push_back(segment);
        Vec::new()
    }

    /// Brings what is pending in a file that somebody deleted or replaced back to disk.
    pub(super) fn save_active(&mut self) {
        let (Some(active), Some(segment)) = (&self.active, self.segments.back()) else { return };
        if !matches!(active.file.is_at(&segment.path), Ok(false)) {
            return;
        }
        self.faults.push("folder_gone");
        let entries = self.abandon();
        if let Err((error, rest)) = self.make_durable(&entries) {
            let _reason = self.enter_fault(&error);
            self.hold(rest);
        }
    }

    /// Counts a failed file operation.
    pub(super) fn note(&mut self, error: &io::Error) {
        tracing::debug!(folder = %self.folder.display(), %error, "spool operation failed");
        self.faults.push(fault_name(error));
    }

    pub(super) fn enter_fault(&mut self, error: &io::Error) -> String {
        let reason = format!("cannot write {}: {error}", self.folder.display());
        let retry_at = Instant::now() + self.backoff.after_failure();
        self.fault = Some(Fault { reason: reason.clone(), retry_at });
        reason
    }

    /// Holds `entries` in memory; what has no room is lost.
    pub(super) fn hold(&mut self, entries: Vec<Entry>) {
        let dropped = self.ring.push(entries);
        self.lose(LossReason::MemoryRing, &dropped);
    }

    /// Gives up `records` and counts those that are not being sent right now.
    pub(super) fn lose(&mut self, reason: LossReason, records: &[Record]) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        self.lose_range(reason, records, first.seq, last.seq);
    }

    /// Gives up the seqs from `first` to `last`, of which `records` were never delivered.
    pub(super) fn lose_range(
        &mut self,
        reason: LossReason,
        records: &[Record],
        first: u64,
        last: u64,
    ) {
        let in_flight = self.flight.give_up(reason, first, last);
        let gone = records.iter().filter(|record| !in_flight.contains(&record.seq));
        // What is lost with a row about a loss is told again instead.
        let (told, gone): (Vec<&Record>, Vec<&Record>) =
            gone.partition(|record| gaps::is_about_losses(record.table));
        self.retold.extend(told.into_iter().flat_map(|record| gaps::told_by(&record.body)));
        self.losses.extend(losses(reason, gone.into_iter()));
    }

    /// Tries to bring everything in memory to disk, if that could not be written before.
    pub(super) fn try_disk(&mut self) {
        if self.fault.is_none() {
            return;
        }
        let entries = self.ring.entries();
        let delivered = self.ring.delivered();
        let result = if entries.is_empty() { self.probe() } else { self.write(&entries) };
        match result {
            Ok(()) => {
                self.ring.clear();
                for record in delivered {
                    self.delivered(record.seq, u64::from(record.rows), record.bytes());
                }
                self.fault = None;
                self.backoff.reset();
            }
            Err(error) => {
                self.note(&error);
                let rescued = self.abandon();
                // What is on disk now need not be held any longer.
                let durable = |e: &Entry| self.is_due(e.record.seq);
                let rest = entries.into_iter().filter(|entry| !durable(entry));
                let rest: Vec<Entry> = rescued.into_iter().chain(rest).collect();
                self.ring.clear();
                self.hold(rest);
                for record in delivered {
                    self.delivered(record.seq, u64::from(record.rows), record.bytes());
                }
                let _reason = self.enter_fault(&error);
            }
        }
    }

    /// Finds out whether a segment can be made, when there is nothing to write.
    fn probe(&mut self) -> io::Result<()> {
        self.start_segment(self.next_seq, 0)?;
        let rescued = self.abandon();
        debug_assert!(rescued.is_empty(), "a fresh segment holds nothing");
        Ok(())
    }

    /// Takes `seq` with its rows and bytes as delivered.
    pub fn delivered(&mut self, seq: u64, rows: u64, bytes: u64) {
        let index = self.segments.partition_point(|segment| segment.base <= seq);
        let before = index.checked_sub(1).and_then(|index| self.segments.get_mut(index));
        match before.filter(|segment| seq < segment.end) {
            Some(segment) => segment.deliver(seq, rows, bytes),
            None => self.ring.deliver(seq),
        }
    }

    /// Whether the record `seq` is in a segment and is to be sent.
    pub fn is_due(&self, seq: u64) -> bool {
        self.segments.iter().any(|segment| segment.is_due(seq))
    }

    /// Returns the lowest seq that was never used.
    pub const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Returns the register of what is being sent.
    pub fn flight(&self) -> Flight {
        self.flight.clone()
    }

    /// Takes rows back from what was just counted as lost with a file: those of `in_memory`, by seq,
    /// are in memory too and will be sent from there.
    pub fn uncount(&mut self, in_memory: &BTreeMap<u64, u32>) {
        self.losses.retain_mut(|loss| {
            if loss.reason == LossReason::Damage {
                let kept =
                    in_memory.range(loss.first..=loss.last).map(|(_, rows)| u64::from(*rows));
                loss.rows = loss.rows.saturating_sub(kept.fold(0, u64::saturating_add));
            }
            loss.rows > 0
        });
    }

    /// Returns and forgets what was lost since the last call.
    pub fn take_losses(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.losses)
    }

    /// Returns and forgets what rows of `sample_gaps` told of that were given up since the last
    /// call: counted before, but to be told again.
    pub fn take_retold(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.retold)
    }

    /// Declares that nobody has a record below `seq` in memory.
    pub const fn set_in_memory_from(&mut self, seq: u64) {
        self.in_memory_from = seq;
    }

    /// Returns and forgets the failed operations since the last call, by name.
    pub fn take_faults(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.faults)
    }
}

impl Active {
    /// Whether a record of `bytes` bytes and the seal still fit; an empty segment takes any.
    fn fits(&self, bytes: u64) -> bool {
        let end = self.offset.saturating_add(bytes).saturating_add(size(SEAL));
        end <= self.reserved || self.offset == size(HEADER)
    }
}

/// Returns the records of a segment whose file is only reachable through the open handle.
fn rescued(active: &Active, segment: &Segment) -> Vec<Entry> {
    let mut content = read_all(active.file.as_ref(), u64::MAX).unwrap_or_default();
    content.truncate(usize::try_from(active.durable).unwrap_or(usize::MAX));
    let content = Bytes::from(content);
    let known = Known { base: segment.base, ..Known::default() };
    let records = scan(&content, known).records.into_iter();
    let pending = records.skip_while(|record| segment.is_delivered(record.seq));
    pending.map(|record| Entry { bytes: framed(&record), record }).collect()
}

/// Returns the bytes of `record` as they stand in a segment.
fn framed(record: &Record) -> Bytes {
    let mut bytes = vec![0; FRAME];
    bytes.extend_from_slice(&record.body);
    let frame = Frame {
        length: u32::try_from(record.body.len()).unwrap_or(u32::MAX),
        seq: record.seq,
        at: record.at,
        durable: 0,
        rows: record.rows,
        table: record.table,
        kind: Kind::Rows,
    };
    format::seal_frame(&mut bytes, &frame);
    bytes.into()
}

/// Sums up lost records by table.
pub fn losses<'a>(reason: LossReason, records: impl Iterator<Item = &'a Record>) -> Vec<Loss> {
    let mut by_table = BTreeMap::<u16, Loss>::new();
    for record in records {
        let loss = by_table.entry(record.table).or_insert_with(|| Loss {
            reason,
            table: Some(record.table),
            first: record.seq,
            last: record.seq,
            rows: 0,
            from: record.at,
            to: record.at,
        });
        loss.last = record.seq;
        loss.to = record.at;
        loss.rows = loss.rows.saturating_add(u64::from(record.rows));
    }
    by_table.into_values().collect()
}

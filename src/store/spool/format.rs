//! The bytes on disk. Pure. All numbers are little endian; format version 1.
//!
//! ```text
//! spool/00000000000000000001.seg     segments, named by the number of their first record
//! spool/cursor                       what is delivered
//! spool/quarantine/                  copies of damaged segments, for people
//! spool/newer/                       segments of a format that this version does not know
//!
//! segment = header, records, [seal], zeros (space reserved in advance)
//!
//! header, 64 bytes
//!    0  8  magic "PSCPSPL\n"
//!    8  2  version                    12  4  0
//!   10  2  0                          16  8  seq of the first record
//!   24  8  first seq of the segment before this one; 0: none
//!   32  8  seq after the last durable record of that segment
//!   40  8  random number of the run that wrote it
//!   48  8  time of creation, ns since 1970
//!   56  4  0                          60  4  CRC32C of bytes 0..60, in every version
//!
//! record, 40 bytes and a body, filled up with zeros to a multiple of 8
//!    0  4  length of the body, at least 1
//!    4  4  CRC32C of bytes 0..4 and 8..40 and the body
//!    8  8  seq: numbers of records rise by 1
//!   16  8  time of writing, ns since 1970
//!   24  8  newest seq that was durable when this record was written: tells a record that was
//!          acknowledged and is damaged from one that a crash cut off before it was
//!   32  4  rows                       36  2  table: index in `model::table::TABLES`
//!   38  2  kind: 0 = rows, 1 = seal, 2 = absent; a reader passes over any other
//!   40  .  rows as InfluxDB line protocol, text (`QuestDB`'s protocol V1), one line each
//!
//! absent = a record of kind 2: numbers that never were acknowledged and are not there, as pairs of
//! 8 bytes, first and last. A start after a crash writes it, so that later ones do not take the
//! hole that a torn write left for a loss.
//!
//! seal = a record of kind 1 and a body of 40 bytes; its seq is the segment's last, and it is
//! the end of the file. It lets a start skip the segment without reading it.
//!    0  8  records     8  8  rows      16  8  bytes of all bodies
//!   24  8  time of the first record    32  8  time of the last record
//!
//! cursor = two slots of 64 bytes, written in turn; the valid one with the higher count counts.
//! It may lag, never lead: what lies behind it has been delivered for certain.
//!    0  4  magic "PCUR"                4  2  version      6  2  flags: 1 = ended in order
//!    8  8  count of writes            16  8  every seq up to this one is delivered
//!   24 16  boot id of the machine     40  8  lowest seq never used
//!   48  8  newest durable seq         56  4  0
//!   60  4  CRC32C of bytes 0..60
//! ```
//!
//! A reader of version 1 moves segments of a later version aside; a later version must read 1.

use std::ops::RangeInclusive;

use crate::base::time::Timestamp;

/// Version that is written.
pub const VERSION: u16 = 1;
/// Size of a segment's header, bytes.
pub const HEADER: usize = 64;
/// Size of a record without its body, bytes.
pub const FRAME: usize = 40;
/// Size of a seal, bytes.
pub const SEAL: usize = FRAME + SEAL_BODY;
/// Size of a slot of the cursor, bytes.
pub const SLOT: usize = 64;

const SEAL_BODY: usize = 40;
const MAGIC: [u8; 8] = *b"PSCPSPL\n";
const CURSOR_MAGIC: [u8; 4] = *b"PCUR";
const KIND_ROWS: u16 = 0;
const KIND_SEAL: u16 = 1;
const KIND_ABSENT: u16 = 2;
const FLAG_CLEAN: u16 = 1;

/// Header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Seq of the first record.
    pub base: u64,
    /// First seq of the segment before this one; 0: none.
    pub previous_base: u64,
    /// Seq after the last durable record of that segment.
    pub previous_end: u64,
    /// Random number of the run that wrote it.
    pub instance: u64,
    /// Time of creation.
    pub created: Timestamp,
}

/// What stands at the start of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderKind {
    /// A header of this version.
    Good(Header),
    /// An intact header of another version.
    Newer(u16),
    /// No intact header.
    Damaged,
}

/// What the body of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Line protocol.
    Rows,
    /// The end of a segment.
    Seal,
    /// Numbers that are not there.
    Absent,
    /// Something that a later version adds.
    Other,
}

/// What stands before a record's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Length of the body, bytes.
    pub length: u32,
    /// Number of the record.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Newest seq that was durable then.
    pub durable: u64,
    /// Rows in the body.
    pub rows: u32,
    /// Index in `model::table::TABLES`.
    pub table: u16,
    /// What the body is.
    pub kind: Kind,
}

/// Content of a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of all bodies.
    pub bytes: u64,
    /// Time of the first record.
    pub first: Timestamp,
    /// Time of the last record.
    pub last: Timestamp,
}

/// Content of a cursor slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// How often the cursor was written.
    pub count: u64,
    /// Every seq up to this one is delivered.
    pub delivered: u64,
    /// Boot id of the machine.
    pub boot: [u8; 16],
    /// Lowest seq never used.
    pub next: u64,
    /// Newest seq that was durable.
    pub durable: u64,
    /// Whether the run that wrote it ended in order.
    pub clean: bool,
}

/// Returns `N` bytes of `bytes` at `offset`; zeros where it ends.
fn part<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let whole = bytes.get(offset..).and_then(<[u8]>::first_chunk);
    whole.copied().unwrap_or_else(|| {
        let mut part = [0; N];
        for (place, byte) in part.iter_mut().zip(bytes.iter().skip(offset)) {
            *place = *byte;
        }
        part
    })
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    for (place, byte) in bytes.iter_mut().skip(offset).zip(value) {
        *place = *byte;
    }
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(part(bytes, offset))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(part(bytes, offset))
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(part(bytes, offset))
}

fn time_at(bytes: &[u8], offset: usize) -> Timestamp {
    Timestamp::from_nanos(i64::from_le_bytes(part(bytes, offset)))
}

/// Returns the CRC32C of the first 60 bytes, as header and cursor slots end with.
fn crc60(block: &[u8; 64]) -> u32 {
    let (covered, _) = block.split_at(60);
    crc32c::crc32c(covered)
}

impl Header {
    /// Returns the header's bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut block = [0; HEADER];
        put(&mut block, 0, &MAGIC);
        put(&mut block, 8, &VERSION.to_le_bytes());
        put(&mut block, 16, &self.base.to_le_bytes());
        put(&mut block, 24, &self.previous_base.to_le_bytes());
        put(&mut block, 32, &self.previous_end.to_le_bytes());
        put(&mut block, 40, &self.instance.to_le_bytes());
        put(&mut block, 48, &self.created.nanos().to_le_bytes());
        let crc = crc60(&block);
        put(&mut block, 60, &crc.to_le_bytes());
        block
    }
}

/// Reads the header at the start of `content`.
pub fn header(content: &[u8]) -> HeaderKind {
    let block: [u8; HEADER] = part(content, 0);
    if content.len() < HEADER || !block.starts_with(&MAGIC) || u32_at(&block, 60) != crc60(&block) {
        return HeaderKind::Damaged;
    }
    match u16_at(&block, 8) {
        VERSION => HeaderKind::Good(Header {
            base: u64_at(&block, 16),
            previous_base: u64_at(&block, 24),
            previous_end: u64_at(&block, 32),
            instance: u64_at(&block, 40),
            created: time_at(&block, 48),
        }),
        other => HeaderKind::Newer(other),
    }
}

/// Returns the bytes that a record with a body of `length` bytes takes.
pub const fn record_size(length: usize) -> usize {
    (FRAME + length).next_multiple_of(8)
}

/// Writes `frame` over the first 40 bytes of `record`, which holds the body behind them, and fills
/// up to a multiple of 8.
pub fn seal_frame(record: &mut Vec<u8>, frame: &Frame) {
    let kind = match frame.kind {
        Kind::Rows => KIND_ROWS,
        Kind::Seal => KIND_SEAL,
        Kind::Absent => KIND_ABSENT,
        Kind::Other => u16::MAX,
    };
    put(record, 0, &frame.length.to_le_bytes());
    put(record, 8, &frame.seq.to_le_bytes());
    put(record, 16, &frame.at.nanos().to_le_bytes());
    put(record, 24, &frame.durable.to_le_bytes());
    put(record, 32, &frame.rows.to_le_bytes());
    put(record, 36, &frame.table.to_le_bytes());
    put(record, 38, &kind.to_le_bytes());
    let crc = record_crc(record);
    put(record, 4, &crc.to_le_bytes());
    record.resize(record.len().next_multiple_of(8), 0);
}

/// Returns the CRC32C of a record without its own place and without the filling.
fn record_crc(record: &[u8]) -> u32 {
    let length = crc32c::crc32c(record.get(..4).unwrap_or_default());
    crc32c::crc32c_append(length, record.get(8..).unwrap_or_default())
}

/// Reads the frame at the start of `content` without checking anything; `None` when too short.
pub fn unchecked_frame(content: &[u8]) -> Option<Frame> {
    let frame = content.get(..FRAME)?;
    Some(Frame {
        length: u32_at(frame, 0),
        seq: u64_at(frame, 8),
        at: time_at(frame, 16),
        durable: u64_at(frame, 24),
        rows: u32_at(frame, 32),
        table: u16_at(frame, 36),
        kind: match u16_at(frame, 38) {
            KIND_ROWS => Kind::Rows,
            KIND_SEAL => Kind::Seal,
            KIND_ABSENT => Kind::Absent,
            _ => Kind::Other,
        },
    })
}

/// Reads the record at the start of `content`; `None` when none that is intact stands there.
pub fn record(content: &[u8]) -> Option<Frame> {
    let frame = unchecked_frame(content)?;
    let length = usize::try_from(frame.length).ok().filter(|length| *length > 0)?;
    let record = content.get(..FRAME.checked_add(length)?)?;
    (u32_at(record, 4) == record_crc(record)).then_some(frame)
}

impl Totals {
    /// Returns the seal of a segment whose last record is `last_seq`.
    pub fn encode(&self, last_seq: u64) -> Vec<u8> {
        let mut record = vec![0; SEAL];
        put(&mut record, FRAME, &self.records.to_le_bytes());
        put(&mut record, FRAME + 8, &self.rows.to_le_bytes());
        put(&mut record, FRAME + 16, &self.bytes.to_le_bytes());
        put(&mut record, FRAME + 24, &self.first.nanos().to_le_bytes());
        put(&mut record, FRAME + 32, &self.last.nanos().to_le_bytes());
        let frame = Frame {
            length: 40,
            seq: last_seq,
            at: self.last,
            durable: last_seq,
            rows: 0,
            table: u16::MAX,
            kind: Kind::Seal,
        };
        seal_frame(&mut record, &frame);
        record
    }
}

/// Reads the seal at the start of `content`: last seq and totals.
pub fn seal(content: &[u8]) -> Option<(u64, Totals)> {
    let frame = record(content).filter(|frame| frame.kind == Kind::Seal && frame.length == 40)?;
    let body = content.get(FRAME..)?;
    let totals = Totals {
        records: u64_at(body, 0),
        rows: u64_at(body, 8),
        bytes: u64_at(body, 16),
        first: time_at(body, 24),
        last: time_at(body, 32),
    };
    Some((frame.seq, totals))
}

/// Returns the record that tells which numbers are not there.
pub fn encode_absent(absent: &[RangeInclusive<u64>], last_seq: u64, at: Timestamp) -> Vec<u8> {
    let mut record = vec![0; FRAME];
    for range in absent {
        record.extend_from_slice(&range.start().to_le_bytes());
        record.extend_from_slice(&range.end().to_le_bytes());
    }
    let frame = Frame {
        length: u32::try_from(record.len().saturating_sub(FRAME)).unwrap_or(u32::MAX),
        seq: last_seq,
        at,
        durable: 0,
        rows: 0,
        table: u16::MAX,
        kind: Kind::Absent,
    };
    seal_frame(&mut record, &frame);
    record
}

/// Reads the body of such a record.
pub fn absent(body: &[u8]) -> Vec<RangeInclusive<u64>> {
    body.chunks_exact(16).map(|pair| u64_at(pair, 0)..=u64_at(pair, 8)).collect()
}

impl Slot {
    /// Returns the slot's bytes.
    pub fn encode(&self) -> [u8; SLOT] {
        let mut block = [0; SLOT];
        let flags = if self.clean { FLAG_CLEAN } else { 0 };
        put(&mut block, 0, &CURSOR_MAGIC);
        put(&mut block, 4, &VERSION.to_le_bytes());
        put(&mut block, 6, &flags.to_le_bytes());
        put(&mut block, 8, &self.count.to_le_bytes());
        put(&mut block, 16, &self.delivered.to_le_bytes());
        put(&mut block, 24, &self.boot);
        put(&mut block, 40, &self.next.to_le_bytes());
        put(&mut block, 48, &self.durable.to_le_bytes());
        let crc = crc60(&block);
        put(&mut block, 60, &crc.to_le_bytes());
        block
    }
}

/// Reads a slot; `None` when none that is intact stands there.
pub fn slot(content: &[u8]) -> Option<Slot> {
    let block: [u8; SLOT] = part(content, 0);
    let intact = content.len() >= SLOT
        && block.starts_with(&CURSOR_MAGIC)
        && u32_at(&block, 60) == crc60(&block)
        && u16_at(&block, 4) == VERSION;
    intact.then(|| Slot {
        count: u64_at(&block, 8),
        delivered: u64_at(&block, 16),
        boot: part(&block, 24),
        next: u64_at(&block, 40),
        durable: u64_at(&block, 48),
        clean: u16_at(&block, 6) & FLAG_CLEAN != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_structure_reads_back_and_notices_every_flipped_bit() {
        let header_value = Header {
            base: 7,
            previous_base: 3,
            previous_end: 6,
            instance: 11,
            created: Timestamp::from_nanos(5),
        };
        let bytes = header_value.encode();
        assert_eq!(header(&bytes), HeaderKind::Good(header_value));
        let totals = Totals { records: 1, rows: 2, bytes: 3, ..Totals::default() };
        let sealed = totals.encode(9);
        assert_eq!((sealed.len(), seal(&sealed)), (SEAL, Some((9, totals))));
        let slot_value =
            Slot { count: 1, delivered: 2, boot: [3; 16], next: 4, durable: 5, clean: true };
        let slot_bytes = slot_value.encode();
        assert_eq!(slot(&slot_bytes), Some(slot_value));
        for bit in 0..8 * 64 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(header(&flipped), HeaderKind::Damaged, "bit {bit}");
            let mut flipped = slot_bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(slot(&flipped), None, "bit {bit}");
        }
        for bit in 0..8 * SEAL {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(seal(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let zero = Timestamp::EPOCH;
        let header_value =
            Header { base: 1, previous_base: 0, previous_end: 0, instance: 0, created: zero };
        let mut bytes = header_value.encode();
        bytes[8] = 2;
        let crc = crc60(&bytes);
        put(&mut bytes, 60, &crc.to_le_bytes());
        assert_eq!(header(&bytes), HeaderKind::Newer(2));
        assert_eq!(header(&bytes[..63]), HeaderKind::Damaged);
    }

    #[test]
    fn numbers_that_are_absent_read_back() {
        let record_bytes = encode_absent(&[3..=5, 9..=9], 12, Timestamp::EPOCH);
        let frame = record(&record_bytes).unwrap();
        assert_eq!((frame.kind, frame.length, frame.seq), (Kind::Absent, 32, 12));
        assert_eq!(absent(&record_bytes[FRAME..FRAME + 32]), [3..=5, 9..=9]);
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(record(&[0; 4096]), None);
        assert_eq!(record(&[0; 3]), None);
    }
}

//! Finding the intact records in the bytes of a segment, whatever happened to them. Pure.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::format::{self, Frame, HEADER, HeaderKind, Kind, Totals};
use crate::base::time::Timestamp;

/// A record: rows of one table as line protocol, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Index in `model::table::TABLES`.
    pub table: u16,
    /// Rows in the body.
    pub rows: u32,
    /// The line protocol text.
    pub body: Bytes,
}

impl Record {
    /// Size of the body, bytes.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.body.len()).unwrap_or(u64::MAX)
    }
}

/// Numbers that are missing between intact records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// First missing seq.
    pub first: u64,
    /// Last missing seq.
    pub last: u64,
    /// Rows, as far as can be told; at least one a record.
    pub rows: u64,
    /// Table, if it can be told.
    pub table: Option<u16>,
    /// Time of the last record before.
    pub from: Timestamp,
    /// Time of the first record after.
    pub to: Timestamp,
}

impl Missing {
    /// Returns how many rows that is for each record.
    pub const fn rows_each(&self) -> u64 {
        self.rows.div_ceil(self.last.saturating_sub(self.first).saturating_add(1))
    }
}

/// What a segment holds.
#[derive(Debug)]
pub struct Scan {
    /// What stands at its start.
    pub header: HeaderKind,
    /// Intact records with rising seqs.
    pub records: Vec<Record>,
    /// Acknowledged records that are gone.
    pub lost: Vec<Missing>,
    /// Numbers that are missing without ever having been acknowledged, as far as that is not
    /// written down in the segment already.
    pub torn_out: Vec<RangeInclusive<u64>>,
    /// Whether the seal was found.
    pub sealed: bool,
    /// Offset behind the last intact record.
    pub end: usize,
    /// Bytes behind `end` that are not zero: a write that a crash cut off, or its ruins.
    pub torn: usize,
}

/// What is known about a segment besides its content.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// First seq by its name; the header, when intact, comes first.
    pub base: u64,
    /// Seqs from here on are in the next segment; `None`: there is none.
    pub limit: Option<u64>,
    /// Seqs below this one were durable and in this segment, as the next one says.
    pub durable_end: u64,
    /// Seqs below this one were durable, here or elsewhere, as the cursor says.
    pub durable_anywhere: u64,
}

/// Finds everything in `content`.
pub fn scan(content: &Bytes, known: Known) -> Scan {
    let header = format::header(content);
    let base = match header {
        HeaderKind::Good(header) => header.base,
        HeaderKind::Newer(_) | HeaderKind::Damaged => known.base,
    };
    let limit = known.limit.unwrap_or(u64::MAX);
    let mut scan = Scan {
        header,
        records: Vec::new(),
        lost: Vec::new(),
        torn_out: Vec::new(),
        sealed: false,
        end: HEADER,
        torn: 0,
    };
    let mut durable_end = known.durable_end;
    let mut next = base;
    let mut gaps: Vec<Missing> = Vec::new();
    let mut absent = Vec::new();
    let mut sealed_totals = None;
    let mut offset = HEADER;
    while let Some((at, frame)) = find(content, offset) {
        let length = usize::try_from(frame.length).unwrap_or(usize::MAX);
        let after = at.saturating_add(format::record_size(length));
        let body = content.get(at.saturating_add(format::FRAME)..after).unwrap_or_default();
        match frame.kind {
            Kind::Seal => {
                sealed_totals = format::seal(content.get(at..).unwrap_or_default());
                scan.sealed = sealed_totals.is_some();
                scan.end = after;
            }
            Kind::Absent => {
                absent.extend(format::absent(body));
                scan.end = after;
            }
            Kind::Rows if frame.seq >= next && frame.seq < limit => {
                if frame.seq > next {
                    let before = scan.records.last();
                    gaps.push(missing(content, offset, at, next, &frame, before));
                }
                durable_end = durable_end.max(frame.durable.saturating_add(1));
                next = frame.seq.saturating_add(1);
                let start = at.saturating_add(format::FRAME);
                scan.records.push(Record {
                    seq: frame.seq,
                    at: frame.at,
                    table: frame.table,
                    rows: frame.rows,
                    body: content.slice(start..start.saturating_add(length)),
                });
                scan.end = after;
            }
            // Twice, or of a later version.
            Kind::Rows | Kind::Other => {}
        }
        if scan.sealed {
            break;
        }
        offset = after;
    }
    if let Some((last, _)) = sealed_totals {
        durable_end = durable_end.max(last.saturating_add(1));
    }
    if let Some((last, totals)) = sealed_totals.filter(|(last, _)| *last >= next && *last < limit) {
        gaps.push(at_end(&scan.records, next, last, totals));
    } else if durable_end.min(limit) > next {
        // The next segment or the cursor knows of records behind the last intact one.
        let last = durable_end.min(limit).saturating_sub(1);
        gaps.push(at_end(&scan.records, next, last, Totals::default()));
    }
    durable_end = durable_end.max(known.durable_anywhere);
    gaps.retain(|gap| !absent.contains(&(gap.first..=gap.last)));
    if let (Some((_, totals)), [gap]) = (sealed_totals, gaps.as_mut_slice()) {
        // One hole in a segment whose totals are known: what is missing is the difference.
        let found: u64 = scan.records.iter().map(|record| u64::from(record.rows)).sum();
        gap.rows = totals.rows.saturating_sub(found).max(1);
    }
    for gap in gaps {
        let first_torn = gap.first.max(durable_end);
        if first_torn <= gap.last {
            scan.torn_out.push(first_torn..=gap.last);
        }
        scan.lost.extend(acknowledged(gap, durable_end));
    }
    let rest = content.get(scan.end..).unwrap_or_default();
    scan.torn = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    scan
}

/// Returns the first intact record at or behind `offset`.
///
/// Records stand at multiples of 8. A length that reaches beyond the content rules a place out
/// before anything is summed up, so that searching in text is cheap.
fn find(content: &Bytes, offset: usize) -> Option<(usize, Frame)> {
    let mut at = offset;
    while let Some(rest) = content.get(at..).filter(|rest| rest.len() > format::FRAME) {
        if let Some(frame) = format::record(rest) {
            return Some((at, frame));
        }
        // Most of what is not a record is reserved space.
        let zeros = rest.iter().skip(8).take_while(|byte| **byte == 0).count();
        at = at.saturating_add(8).saturating_add(zeros & !7);
    }
    None
}

/// Describes the hole between `offset` and the record `after` at `at`.
fn missing(
    content: &[u8],
    offset: usize,
    at: usize,
    next: u64,
    after: &Frame,
    before: Option<&Record>,
) -> Missing {
    let last = after.seq.saturating_sub(1);
    // When exactly one record is missing and only its body is damaged, its frame still tells.
    let ruin = content
        .get(offset..)
        .and_then(format::unchecked_frame)
        .filter(|frame| frame.seq == next && next == last && frame.kind == Kind::Rows)
        .filter(|frame| {
            usize::try_from(frame.length)
                .is_ok_and(|length| offset.checked_add(format::record_size(length)) == Some(at))
        });
    // Its number of rows may be what is damaged: the lines are counted.
    let ruined = content.get(offset.saturating_add(format::FRAME)..at).unwrap_or_default();
    let lines = ruined.iter().filter(|byte| **byte == b'\n').count();
    let records = last.saturating_sub(next).saturating_add(1);
    Missing {
        first: next,
        last,
        rows: ruin.map_or(records, |_| u64::try_from(lines).unwrap_or(u64::MAX).max(1)),
        table: ruin.map(|frame| frame.table),
        from: before.map_or(after.at, |record| record.at),
        to: after.at,
    }
}

/// Describes the hole between the last intact record and the end that is known from elsewhere.
fn at_end(records: &[Record], next: u64, last: u64, totals: Totals) -> Missing {
    let from = records.last().map_or(totals.first, |record| record.at);
    Missing {
        first: next,
        last,
        rows: last.saturating_sub(next).saturating_add(1),
        table: None,
        from,
        to: totals.last.max(from),
    }
}

/// Returns the part of `gap` that was acknowledged; a record that was not durable yet when the
/// crash came is no loss.
fn acknowledged(gap: Missing, durable_end: u64) -> Option<Missing> {
    if gap.first >= durable_end {
        return None;
    }
    let last = gap.last.min(durable_end.saturating_sub(1));
    let records = last.saturating_sub(gap.first).saturating_add(1);
    let rows = if last == gap.last { gap.rows } else { records };
    Some(Missing { last, rows, ..gap })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::spool::format::{Header, seal_frame};

    fn segment(bodies: &[&str], durable: &[u64], sealed: bool) -> Vec<u8> {
        let zero = Timestamp::EPOCH;
        let header =
            Header { base: 5, previous_base: 0, previous_end: 0, instance: 1, created: zero };
        let mut content = header.encode().to_vec();
        let mut totals = Totals::default();
        for (index, (body, durable)) in bodies.iter().zip(durable).enumerate() {
            let mut record = vec![0; format::FRAME];
            record.extend_from_slice(body.as_bytes());
            let frame = Frame {
                length: u32::try_from(body.len()).unwrap(),
                seq: 5 + u64::try_from(index).unwrap(),
                at: Timestamp::from_nanos(100),
                durable: *durable,
                rows: 3,
                table: 2,
                kind: Kind::Rows,
            };
            seal_frame(&mut record, &frame);
            content.extend_from_slice(&record);
            totals.records += 1;
            totals.rows += 3;
        }
        if sealed {
            content.extend_from_slice(&totals.encode(4 + totals.records));
        } else {
            content.resize(content.len() + 4096, 0);
        }
        content
    }

    const BODIES: [&str; 3] = ["a 1\na 2\n\n", "b 1\nb 2\n\n", "c 1\nc 2\n\n"];

    #[test]
    fn an_intact_segment_reads_back() {
        for sealed in [false, true] {
            let found = scan(&segment(&BODIES, &[4, 5, 6], sealed).into(), Known::default());
            let bodies: Vec<&[u8]> = found.records.iter().map(|record| &record.body[..]).collect();
            assert_eq!(bodies, BODIES.map(str::as_bytes));
            assert_eq!((found.sealed, found.torn, found.lost.len()), (sealed, 0, 0));
        }
    }

    #[test]
    fn a_damaged_record_in_the_middle_is_named_and_the_next_one_found() {
        let mut content = segment(&BODIES, &[4, 5, 6], false);
        content[HEADER + 56 + 41] ^= 1;
        let found = scan(&content.into(), Known::default());
        assert_eq!(found.records.iter().map(|record| record.seq).collect::<Vec<_>>(), [5, 7]);
        let [lost] = found.lost.as_slice() else { panic!("{:?}", found.lost) };
        assert_eq!((lost.first, lost.last, lost.rows, lost.table), (6, 6, 3, Some(2)));
    }

    #[test]
    fn a_hole_that_was_never_acknowledged_is_no_loss() {
        // The third record says that nothing behind 4 was durable: all three were one commit.
        let mut content = segment(&BODIES, &[4, 4, 4], false);
        content[HEADER + 56 + 41] ^= 1;
        let found = scan(&content.into(), Known::default());
        assert_eq!((found.records.len(), found.lost.len()), (2, 0));
    }

    #[test]
    fn a_lost_tail_counts_when_seal_or_neighbour_know_of_it() {
        let mut content = segment(&BODIES, &[4, 5, 6], true);
        content[HEADER + 2 * 56 + 41] ^= 1;
        let found = scan(&content.clone().into(), Known::default());
        assert_eq!((found.records.len(), found.lost[0].first, found.lost[0].rows), (2, 7, 3));
        content.truncate(HEADER + 2 * 56 + 45);
        let cut = scan(&content.clone().into(), Known::default());
        assert_eq!((cut.records.len(), cut.lost.len()), (2, 0));
        assert!(cut.torn > 0);
        let known = Known { durable_end: 8, limit: Some(8), base: 5, durable_anywhere: 0 };
        assert_eq!(scan(&content.into(), known).lost[0].first, 7);
    }
}

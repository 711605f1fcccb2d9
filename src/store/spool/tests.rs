//! The spool against disks that fail.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Draft, LossReason, Options, Outcome, Spool};
use super::open::Recovery;
use super::scan::Record;
use crate::base::files::Files;
use crate::base::files::memory::{EIO, ENOSPC, EROFS, Fault, MemoryFiles};
use crate::base::time::{Clock, Timestamp};

pub(super) const FOLDER: &str = "/data/spool";

pub(super) fn options() -> Options {
    Options {
        max_bytes: 1 << 20,
        min_free: 0,
        replay_window: Duration::from_secs(900),
        replay_bytes: 1 << 20,
        segment_bytes: 4096,
        ring_bytes: 2048,
        boot: [1; 16],
        instance: 7,
        clock: Clock::fixed(Timestamp::from_nanos(1_700_000_000_000_000_000)),
    }
}

pub(super) fn open_with(files: &MemoryFiles, options: Options) -> (Spool, Recovery) {
    Spool::open(Arc::new(files.clone()), Path::new(FOLDER), options)
}

pub(super) fn open(files: &MemoryFiles) -> Spool {
    open_with(files, options()).0
}

pub(super) fn body(number: u64) -> String {
    format!("daemon_metrics,daemon=d{number} fetch_count={number}i {number}\n")
}

/// One draft for each number: a record of one row whose body tells the number.
pub(super) fn drafts(numbers: Range<u64>) -> Vec<Draft> {
    numbers.map(|number| Draft::new(0, 1, body(number).as_bytes())).collect()
}

/// Reads everything that is due, from the start.
pub(super) fn due(spool: &mut Spool) -> Vec<Record> {
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let chunk = spool.read(from);
        all.extend(chunk.records);
        match chunk.next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

pub(super) fn bodies(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.body.to_vec()).unwrap()).collect()
}

pub(super) fn expected(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(body).collect()
}

fn deliver(spool: &mut Spool, records: &[Record]) {
    for record in records {
        spool.delivered(record.seq, u64::from(record.rows), record.bytes());
    }
}

fn lost_rows(spool: &mut Spool, reason: LossReason) -> u64 {
    let losses = spool.take_losses();
    assert!(losses.iter().all(|loss| loss.reason == reason), "{losses:?}");
    losses.iter().map(|loss| loss.rows).sum()
}

fn segments(files: &MemoryFiles) -> usize {
    files.list(Path::new(FOLDER)).unwrap().iter().filter(|e| e.name.ends_with(".seg")).count()
}

#[test]
fn what_is_appended_is_read_back_in_order_now_and_after_a_restart() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    for round in 0..20 {
        let (records, outcome) = spool.append(drafts(round * 10..round * 10 + 10));
        assert_eq!((records.len(), outcome), (10, Outcome::Durable));
    }
    assert!(segments(&files) > 2);
    assert_eq!(bodies(&due(&mut spool)), expected(0..200));
    let figures = spool.figures();
    assert_eq!((figures.pending_rows, figures.durable_seq), (200, 200));
    drop(spool);
    let mut spool = open(&files);
    let records = due(&mut spool);
    assert_eq!(bodies(&records), expected(0..200));
    deliver(&mut spool, &records[..150]);
    spool.tidy();
    drop(spool);
    let (mut spool, recovery) = open_with(&files, options());
    assert_eq!((recovery.pending_rows, recovery.unclean), (50, true));
    assert_eq!(bodies(&due(&mut spool)), expected(150..200));
    let (records, _) = spool.append(drafts(200..201));
    assert_eq!(records[0].seq, 201);
}

#[test]
fn after_an_end_in_order_nothing_is_sent_again_and_no_number_is_used_twice() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    let (records, _) = spool.append(drafts(0..30));
    deliver(&mut spool, &records);
    spool.close();
    let (mut spool, recovery) = open_with(&files, options());
    assert!(!recovery.unclean);
    assert!(due(&mut spool).is_empty());
    spool.replay();
    assert_eq!(bodies(&due(&mut spool)), expected(0..30));
    assert_eq!(spool.figures().pending_rows, 0);
    let other_boot = Options { boot: [2; 16], ..options() };
    drop(spool);
    assert!(open_with(&files, other_boot).1.unclean);
    for path in files.paths().iter().filter(|path| path.extension().is_some()) {
        files.unlink(path).unwrap();
    }
    assert_eq!(open(&files).append(drafts(0..1)).0[0].seq, 31);
}

#[test]
fn delivered_segments_go_after_the_replay_window() {
    let files = MemoryFiles::default();
    let short = Options { replay_window: Duration::ZERO, ..options() };
    let (mut spool, _) = open_with(&files, short);
    let (records, _) = spool.append(drafts(0..200));
    deliver(&mut spool, &records);
    assert!(segments(&files) > 1);
    spool.tidy();
    assert_eq!(segments(&files), 1, "the one that is written stays");
    let small = Options { replay_bytes: 5000, ..options() };
    let files = MemoryFiles::default();
    let (mut spool, _) = open_with(&files, small);
    let (records, _) = spool.append(drafts(0..200));
    deliver(&mut spool, &records);
    spool.tidy();
    assert_eq!(segments(&files), 2, "one within replay_bytes, one that is written");
}

#[test]
fn a_failed_sync_or_write_moves_on_to_a_new_segment_and_loses_nothing() {
    for offset in 0..8 {
        for fault in [EIO, Fault::Short] {
            let files = MemoryFiles::default();
            let mut spool = open(&files);
            spool.append(drafts(0..3));
            let next = files.operations() + offset;
            files.fail(next..next + 1, fault);
            for number in 3..9 {
                let (_, outcome) = spool.append(drafts(number..number + 1));
                assert_eq!(outcome, Outcome::Durable, "operation {offset} {fault:?}");
            }
            assert_eq!(bodies(&due(&mut spool)), expected(0..9), "operation {offset} {fault:?}");
            drop(spool);
            assert_eq!(bodies(&due(&mut open(&files))), expected(0..9), "operation {offset}");
        }
    }
}

#[test]
fn a_disk_that_stays_broken_leaves_a_bounded_ring_and_the_way_back() {
    for fault in [EIO, ENOSPC, EROFS] {
        let files = MemoryFiles::default();
        let mut spool = open(&files);
        spool.append(drafts(0..2));
        files.fail(0..usize::MAX, fault);
        let (_, outcome) = spool.append(drafts(2..4));
        assert!(matches!(outcome, Outcome::Volatile(_)), "{fault:?}: {outcome:?}");
        spool.append(drafts(4..100));
        let lost = lost_rows(&mut spool, LossReason::MemoryRing);
        assert!((60..90).contains(&lost), "{lost}");
        let figures = spool.figures();
        assert_eq!(figures.ring_rows + lost, 98);
        assert!(figures.fault.is_some_and(|fault| fault.contains(FOLDER)));
        let kept = expected((0..2).chain(2 + lost..100));
        assert_eq!(bodies(&due(&mut spool)), kept);
        files.heal();
        spool.try_disk();
        assert_eq!((spool.figures().fault, spool.figures().ring_rows), (None, 0));
        assert_eq!(spool.append(drafts(100..101)).1, Outcome::Durable);
        let kept = expected((0..2).chain(2 + lost..101));
        assert_eq!(bodies(&due(&mut spool)), kept);
        drop(spool);
        let mut spool = open(&files);
        assert_eq!(bodies(&due(&mut spool)), kept);
        assert!(spool.take_losses().is_empty(), "the hole is counted once, when it happens");
    }
}

#[test]
fn what_was_delivered_from_memory_is_not_sent_again_from_disk() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    files.fail(0..usize::MAX, EROFS);
    let (records, _) = spool.append(drafts(0..6));
    deliver(&mut spool, &records[..1]);
    deliver(&mut spool, &records[3..4]);
    files.heal();
    spool.try_disk();
    let left = expected([1, 2, 4, 5].into_iter());
    assert_eq!(bodies(&due(&mut spool)), left);
    assert_eq!(spool.figures().pending_rows, 4);
}

#[test]
fn a_deleted_or_replaced_folder_is_made_again_with_what_is_pending() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    let (records, _) = spool.append(drafts(0..5));
    deliver(&mut spool, &records[..2]);
    files.remove_folder(Path::new(FOLDER));
    assert_eq!(spool.append(drafts(5..7)).1, Outcome::Durable);
    assert_eq!(bodies(&due(&mut spool)), expected(2..7));
    spool.tidy();
    drop(spool);
    assert_eq!(bodies(&due(&mut open(&files))), expected(2..7));
}

#[test]
fn sealed_segments_that_somebody_deletes_are_counted() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    spool.append(drafts(0..200));
    let first = files.paths().into_iter().find(|path| path.ends_with("1.seg"));
    let first = first.unwrap_or_else(|| PathBuf::from(FOLDER).join(format!("{:020}.seg", 1)));
    files.unlink(&first).unwrap();
    let left = due(&mut spool).len();
    let lost = lost_rows(&mut spool, LossReason::Damage);
    assert!(lost > 0 && usize::try_from(lost).unwrap() + left == 200, "{lost} {left}");
}

#[test]
fn segments_that_are_hidden_for_a_moment_are_not_given_up() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    spool.append(drafts(0..200));
    let seen: Vec<PathBuf> = files.paths();
    let hidden = |path: &PathBuf| path.with_extension("hidden");
    seen.iter().for_each(|path| files.rename(path, &hidden(path)).unwrap());
    let chunk = spool.read(0);
    assert!(chunk.records.is_empty() && chunk.next == Some(0), "to be read again");
    assert_eq!(lost_rows(&mut spool, LossReason::Damage), 0);
    seen.iter().for_each(|path| files.rename(&hidden(path), path).unwrap());
    assert_eq!(bodies(&due(&mut spool)), expected(0..200));
}

#[test]
fn what_is_in_memory_too_is_not_lost_with_its_file() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    spool.append(drafts(0..200));
    files.unlink(&PathBuf::from(FOLDER).join(format!("{:020}.seg", 1))).unwrap();
    let left = due(&mut spool).len();
    spool.uncount(&[(1, 1), (2, 1), (3, 1), (1000, 1)].into());
    let lost = lost_rows(&mut spool, LossReason::Damage);
    assert_eq!(usize::try_from(lost).unwrap() + left, 200 - 3);
}

#[test]
fn at_the_cap_the_oldest_go_and_are_counted() {
    let files = MemoryFiles::default();
    let capped = Options { max_bytes: 4 * 4096, ..options() };
    let (mut spool, _) = open_with(&files, capped);
    for number in 0..1000 {
        assert_eq!(spool.append(drafts(number..number + 1)).1, Outcome::Durable);
    }
    assert!(spool.figures().disk_bytes <= 4 * 4096);
    let lost = lost_rows(&mut spool, LossReason::Cap);
    assert!(lost > 0);
    assert_eq!(bodies(&due(&mut spool)), expected(lost..1000));
}

#[test]
fn delivered_segments_make_room_before_anything_is_lost() {
    let files = MemoryFiles::default();
    let capped = Options { max_bytes: 4 * 4096, ..options() };
    let (mut spool, _) = open_with(&files, capped);
    for number in 0..1000 {
        let (records, _) = spool.append(drafts(number..number + 1));
        if number >= 20 {
            deliver(&mut spool, &records);
        }
    }
    assert!(spool.take_losses().is_empty());
    assert_eq!(bodies(&due(&mut spool)), expected(0..20));
}

#[test]
fn little_free_space_stops_growth_but_loses_nothing_that_fits() {
    let files = MemoryFiles::default();
    files.limit(Some(1 << 20));
    let greedy = Options { min_free: 1 << 30, max_bytes: 1 << 30, ..options() };
    let (mut spool, _) = open_with(&files, greedy);
    for number in 0..2000 {
        assert_eq!(spool.append(drafts(number..number + 1)).1, Outcome::Durable);
    }
    spool.tidy();
    assert!(spool.figures().low_space.is_some());
    assert!(spool.take_losses().is_empty());
    assert_eq!(due(&mut spool).len(), 2000);
}

#[test]
fn a_full_disk_frees_what_is_delivered_then_holds_records_in_memory() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    let (records, _) = spool.append(drafts(0..200));
    deliver(&mut spool, &records[..100]);
    files.limit(Some(4096 * 6));
    let mut volatile = 0;
    for number in 200..400 {
        let (_, outcome) = spool.append(drafts(number..number + 1));
        volatile += u64::from(outcome != Outcome::Durable);
    }
    assert!(volatile > 0 && volatile < 150, "{volatile}");
    let lost = lost_rows(&mut spool, LossReason::MemoryRing);
    files.limit(None);
    spool.try_disk();
    assert_eq!(spool.figures().fault, None);
    assert_eq!(u64::try_from(due(&mut spool).len()).unwrap() + lost, 300);
}

#[test]
fn records_being_sent_while_they_are_given_up_are_lost_only_if_that_fails() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    files.fail(0..usize::MAX, ENOSPC);
    let (mut records, _) = spool.append(drafts(0..10));
    let flight = spool.flight();
    flight.begin(&mut records);
    spool.append(drafts(10..100));
    let lost = lost_rows(&mut spool, LossReason::MemoryRing);
    let gone = flight.end(&mut records, false);
    assert_eq!((gone[0].reason, gone[0].rows), (LossReason::MemoryRing, 10));
    assert_eq!(lost + 10 + spool.figures().ring_rows, 100);
}

#[test]
fn a_later_format_is_moved_aside_and_the_rest_goes_on() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    spool.append(drafts(0..200));
    spool.close();
    let path = Path::new(FOLDER).join(format!("{:020}.seg", 1));
    let mut content = files.content(&path).unwrap();
    let replaced = u64::try_from(due(&mut open(&files)).len()).unwrap();
    content[8] = 2;
    let crc = crc32c::crc32c(&content[..60]).to_le_bytes();
    content[60..64].copy_from_slice(&crc);
    files.plant(&path, content);
    let (mut spool, recovery) = open_with(&files, options());
    assert_eq!(recovery.newer, 1);
    assert!(
        files.content(&Path::new(FOLDER).join("newer").join(format!("{:020}.seg", 1))).is_some()
    );
    let left = due(&mut spool);
    assert!(!left.is_empty() && u64::try_from(left.len()).unwrap() < replaced);
    assert_eq!(spool.append(drafts(0..1)).0[0].seq, 201);
}

#[test]
fn a_cursor_from_the_future_or_of_garbage_sends_everything_again() {
    let files = MemoryFiles::default();
    let mut spool = open(&files);
    let (records, _) = spool.append(drafts(0..50));
    deliver(&mut spool, &records);
    spool.tidy();
    let cursor = Path::new(FOLDER).join("cursor");
    let future = super::format::Slot { count: 9, delivered: 1000, ..Default::default() };
    for content in [future.encode().to_vec(), vec![0xAA; 128], Vec::new()] {
        let files = files.copy();
        files.plant(&cursor, content.clone());
        let mut spool = open(&files);
        assert_eq!(due(&mut spool).len(), 50);
        let next = spool.append(drafts(0..1)).0[0].seq;
        assert_eq!(next, if content.first() == Some(&b'P') { 1001 } else { 51 });
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_no_reason_not_to_start() {
    let files = MemoryFiles::default();
    files.fail(0..usize::MAX, EROFS);
    let (mut spool, _) = open_with(&files, options());
    assert!(spool.figures().fault.is_some());
    assert!(matches!(spool.append(drafts(0..3)).1, Outcome::Volatile(_)));
    files.heal();
    spool.try_disk();
    assert_eq!(spool.append(drafts(3..4)).1, Outcome::Durable);
    assert_eq!(bodies(&due(&mut spool)), expected(0..4));
}

/// Copies the sample of format version 1 and opens it: it must load for ever.
#[test]
fn the_sample_of_version_1_loads() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/spool-v1");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&sample).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let files = Arc::new(crate::base::files::real::RealFiles);
    let (mut spool, recovery) = Spool::open(files, folder.path(), options());
    // Records 1 to 25 are delivered, 26 to 60 are not, a torn one follows.
    let records = due(&mut spool);
    assert_eq!(
        records.iter().map(|record| record.seq).collect::<Vec<_>>(),
        (26..=60).collect::<Vec<_>>()
    );
    assert_eq!(bodies(&records), expected(25..60));
    assert!(records.iter().all(|record| record.table == 0 && record.rows == 1));
    assert_eq!((recovery.segments, recovery.newer, recovery.unclean), (2, 0, true));
    assert!(recovery.torn_bytes > 0);
    assert!(spool.take_losses().is_empty());
    assert_eq!(spool.append(drafts(60..61)).0[0].seq, 61);
}

//! Random use of the spool against a model that is two sets of numbers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::disk::{LossReason, Options, Outcome, Spool};
use super::tests::{FOLDER, bodies, body, drafts, due, open_with, options};
use crate::base::files::memory::{EIO, ENOSPC, EROFS, Fate, Fault, MemoryFiles};

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    DeliverOldest(usize),
    DeliverEvery(usize),
    Tidy,
    Replay,
    TryDisk,
    /// The next so many file operations fail.
    Break(usize, Fault),
    Heal,
    /// Power is lost; the bits decide what of the unsynced survives.
    Crash(u64),
    /// Ended in order and started again.
    Restart,
    /// As `Restart`, with a flipped bit in between.
    Flip(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(EIO), Just(ENOSPC), Just(EROFS), Just(Fault::Short)];
    prop_oneof![
        8 => (1..6_u64).prop_map(Step::Append),
        4 => (1..12_usize).prop_map(Step::DeliverOldest),
        2 => (2..5_usize).prop_map(Step::DeliverEvery),
        3 => Just(Step::Tidy),
        1 => Just(Step::Replay),
        1 => Just(Step::TryDisk),
        2 => (1..25_usize, fault).prop_map(|(turns, fault)| Step::Break(turns, fault)),
        1 => Just(Step::Heal),
        2 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Restart),
        1 => any::<u64>().prop_map(Step::Flip),
    ]
}

fn small(capped: bool) -> Options {
    let max_bytes = if capped { 6 * 1024 } else { 1 << 20 };
    Options { segment_bytes: 1024, ring_bytes: 600, replay_bytes: 2048, max_bytes, ..options() }
}

/// The spool, and what must be true of it.
struct Model {
    files: MemoryFiles,
    options: Options,
    spool: Spool,
    next: u64,
    /// Appended, whether durable or not, and not known to be gone.
    alive: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    delivered: BTreeSet<u64>,
    /// Those that the spool knows to be delivered: after a crash it may have forgotten some.
    known: BTreeSet<u64>,
    /// Those that it forgot: when they are lost, it counts them although the server has them.
    forgotten: BTreeSet<u64>,
    counted: u64,
    /// Alive ones that are gone, as counted.
    gone: u64,
    flipped: bool,
}

impl Model {
    fn new(options: Options) -> Self {
        let files = MemoryFiles::default();
        let (spool, _) = open_with(&files, options.clone());
        Self {
            files,
            options,
            spool,
            next: 0,
            alive: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            delivered: BTreeSet::new(),
            known: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            counted: 0,
            gone: 0,
            flipped: false,
        }
    }

    fn due(&mut self) -> BTreeSet<u64> {
        let records = due(&mut self.spool);
        assert!(records.is_sorted_by_key(|record| record.seq));
        let numbers = bodies(&records).into_iter().map(|text| {
            let number = text.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
            assert_eq!(text, body(number));
            number
        });
        numbers.collect()
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(count) => {
                let numbers = self.next..self.next + count;
                self.next += count;
                let (records, outcome) = self.spool.append(drafts(numbers.clone()));
                assert!(records.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
                self.alive.extend(numbers.clone());
                if outcome == Outcome::Durable {
                    self.acknowledged.extend(self.alive.iter().copied());
                }
            }
            Step::DeliverOldest(count) => self.deliver(0..*count, 1),
            Step::DeliverEvery(step) => self.deliver(0..usize::MAX, *step),
            Step::Tidy => self.spool.tidy(),
            Step::Replay => self.spool.replay(),
            Step::TryDisk => self.spool.try_disk(),
            Step::Break(turns, fault) => {
                let next = self.files.operations();
                self.files.fail(next..next + turns, *fault);
            }
            Step::Heal => self.files.heal(),
            Step::Crash(bits) => self.crash(*bits),
            Step::Restart => self.restart(None),
            Step::Flip(place) if !self.flipped => {
                self.flipped = true;
                self.restart(Some(*place));
            }
            Step::Flip(_) => {}
        }
    }

    fn deliver(&mut self, range: std::ops::Range<usize>, step: usize) {
        let records = due(&mut self.spool);
        let chosen = records
            .iter()
            .enumerate()
            .filter(|(index, _)| range.contains(index) && index % step == 0);
        for (_, record) in chosen {
            let text = String::from_utf8(record.body.to_vec()).unwrap();
            let number = text.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
            self.delivered.insert(number);
            self.known.insert(number);
            self.spool.delivered(record.seq, 1, record.bytes());
        }
    }

    fn reopen(&mut self) {
        let (spool, _) = open_with(&self.files, self.options.clone());
        self.spool = spool;
        // What was in memory only is gone, as nobody was promised otherwise.
        let found = self.due();
        self.known.retain(|number| !found.contains(number));
        let volatile = |number: &u64| {
            self.acknowledged.contains(number)
                || self.delivered.contains(number)
                || found.contains(number)
        };
        self.alive.retain(volatile);
        // What the ring gave up may still stand in a file whose write failed.
        self.alive.extend(&found);
    }

    fn crash(&mut self, bits: u64) {
        self.account();
        let fate = |number: usize| match bits.rotate_left(u32::try_from(number % 64).unwrap()) % 4 {
            0 => Fate::Lost,
            1 => Fate::Torn(bits),
            _ => Fate::Kept,
        };
        // The cursor may lag.
        self.forgotten.extend(&self.delivered);
        self.files = self.files.after_crash(self.files.operations(), fate);
        self.reopen();
    }

    fn restart(&mut self, flip: Option<u64>) {
        self.files.heal();
        self.spool.close();
        self.account();
        // The cursor tells what is delivered up to the first that is not; one that points behind
        // the last record on disk, because what follows was delivered from memory, tells nothing.
        let end = self.spool.segments.back().map_or(0, |segment| segment.end);
        if self.spool.cursor.slot().delivered >= end {
            self.forgotten.extend(&self.delivered);
        } else if let Some(pending) = self.alive.difference(&self.known).next() {
            self.forgotten.extend(self.delivered.range(pending..));
        }
        if let Some(place) = flip {
            let paths: Vec<PathBuf> = self.files.paths();
            let segments: Vec<&PathBuf> = paths
                .iter()
                .filter(|path| path.parent() == Some(Path::new(FOLDER)))
                .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
                .collect();
            let chosen = usize::try_from(place % 1000).unwrap() % segments.len().max(1);
            if let Some(path) = segments.get(chosen) {
                let mut content = self.files.content(path).unwrap();
                let bit = usize::try_from(place / 1000).unwrap() % (content.len() * 8).max(1);
                if let Some(byte) = content.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
                self.files.plant(path, content);
            }
        }
        self.reopen();
    }

    /// Whatever is neither delivered nor due is counted, and nothing else is.
    fn account(&mut self) {
        let due = self.due();
        let losses = self.spool.take_losses();
        self.counted += losses.iter().map(|loss| loss.rows).sum::<u64>();
        let settled = |number: &u64| due.contains(number) || self.delivered.contains(number);
        let before = self.alive.len();
        self.alive.retain(settled);
        self.gone += u64::try_from(before - self.alive.len()).unwrap();
        let forgotten = u64::try_from(self.forgotten.len()).unwrap();
        let counted = self.gone..=self.gone + forgotten;
        assert!(counted.contains(&self.counted), "{} {counted:?} {losses:?}", self.counted);
        let damage = losses.iter().any(|loss| loss.reason == LossReason::Damage);
        assert!(!damage || self.flipped, "{losses:?}");
        if self.spool.figures().ring_rows == 0 {
            // Whatever was in memory only is on disk now.
            self.acknowledged.extend(self.alive.iter().copied());
        }
        self.acknowledged.retain(settled);
        let pending = self.spool.figures().pending_rows;
        // What the ring gave up may still stand in a file, and is sent with a replay.
        let expected = self.alive.intersection(&due).filter(|n| !self.known.contains(n));
        assert_eq!(pending, u64::try_from(expected.count()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_record_is_due_or_delivered_or_counted(
        steps in proptest::collection::vec(step(), 1..50),
        capped in any::<bool>(),
    ) {
        let mut model = Model::new(small(capped));
        for step in &steps {
            model.take(step);
            model.account();
        }
        model.files.heal();
        model.spool.try_disk();
        model.account();
        model.take(&Step::Append(1));
        model.account();
        prop_assert_eq!(model.spool.figures().fault, None);
    }
}

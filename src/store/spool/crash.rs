//! Every point at which a crash can hit, with every way in which it can leave what was not synced.

use std::collections::BTreeSet;
use std::path::Path;

use super::disk::{LossReason, Options, Outcome, Spool};
use super::tests::{FOLDER, due, open_with, options};
use super::{disk::Draft, scan::Record};
use crate::base::files::memory::{EIO, Fate, MemoryFiles};

/// What had been promised and done when a number of operations was through.
struct Moment {
    operations: usize,
    acknowledged: BTreeSet<u64>,
    /// Delivered, or given up for want of space by what comes next at the latest.
    settled: BTreeSet<u64>,
}

/// A spool that is used, and the record of what it promised.
struct Scenario {
    files: MemoryFiles,
    options: Options,
    spool: Spool,
    next: u64,
    acknowledged: BTreeSet<u64>,
    settled: BTreeSet<u64>,
    moments: Vec<Moment>,
}

fn small() -> Options {
    Options { segment_bytes: 2048, ring_bytes: 1 << 20, replay_bytes: 2048, ..options() }
}

/// A body that tells its number at both ends; some are longer than a sector.
fn body(number: u64) -> String {
    let filling = "x".repeat(if number.is_multiple_of(3) { 700 } else { 40 });
    format!("{number} {filling} {number}\n")
}

fn number(record: &Record) -> u64 {
    let text = String::from_utf8(record.body.to_vec()).expect("text");
    let number = text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number");
    assert_eq!(text, body(number), "a record is whole or not there");
    number
}

impl Scenario {
    fn new(options: Options) -> Self {
        let files = MemoryFiles::default();
        let (spool, _) = open_with(&files, options.clone());
        let mut scenario = Self {
            files,
            options,
            spool,
            next: 0,
            acknowledged: BTreeSet::new(),
            settled: BTreeSet::new(),
            moments: Vec::new(),
        };
        scenario.remember();
        scenario
    }

    fn remember(&mut self) {
        self.moments.push(Moment {
            operations: self.files.operations(),
            acknowledged: self.acknowledged.clone(),
            settled: self.settled.clone(),
        });
    }

    fn append(&mut self, count: u64) {
        let numbers = self.next..self.next + count;
        self.next += count;
        let drafts = numbers.clone().map(|n| Draft::new(0, 1, body(n).as_bytes())).collect();
        let (_, outcome) = self.spool.append(drafts);
        if outcome == Outcome::Durable {
            self.acknowledged.extend(numbers);
        }
        let losses = self.spool.take_losses();
        if !losses.is_empty() {
            let due: BTreeSet<u64> = due(&mut self.spool).iter().map(number).collect();
            let pending = self.acknowledged.difference(&self.settled).copied();
            let gone: Vec<u64> = pending.filter(|number| !due.contains(number)).collect();
            let counted: u64 = losses.iter().map(|loss| loss.rows).sum();
            assert_eq!(u64::try_from(gone.len()).unwrap(), counted, "{losses:?}");
            // While the append runs they may be gone already.
            self.settled.extend(&gone);
            if let Some(before) = self.moments.last_mut() {
                before.settled.extend(gone);
            }
        }
        self.remember();
    }

    fn deliver(&mut self, count: usize) {
        for record in due(&mut self.spool).iter().take(count) {
            self.settled.insert(number(record));
            self.spool.delivered(record.seq, 1, record.bytes());
        }
        self.remember();
    }

    fn tidy(&mut self) {
        self.spool.tidy();
        self.remember();
    }

    fn restart(&mut self, in_order: bool) {
        if in_order {
            self.spool.close();
        }
        self.remember();
        let (spool, _) = open_with(&self.files, self.options.clone());
        self.spool = spool;
        self.remember();
    }

    /// What was promised when `operations` operations were through.
    fn moment(&self, operations: usize) -> &Moment {
        let earlier = self.moments.iter().rev().find(|moment| moment.operations <= operations);
        earlier.unwrap_or(&self.moments[0])
    }
}

/// Opens what the crash left and compares with what was promised.
fn check(files: &MemoryFiles, options: &Options, moment: &Moment, what: &dyn Fn() -> String) {
    let (mut spool, _) = open_with(files, options.clone());
    let records = due(&mut spool);
    let found: BTreeSet<u64> = records.iter().map(number).collect();
    assert_eq!(found.len(), records.len(), "a record twice: {}", what());
    assert!(records.is_sorted_by_key(|record| record.seq), "out of order: {}", what());
    let missing: Vec<_> = moment
        .acknowledged
        .iter()
        .filter(|number| !found.contains(number) && !moment.settled.contains(number))
        .collect();
    assert!(missing.is_empty(), "lost {missing:?} of {}: {}", found.len(), what());
    let losses = spool.take_losses();
    assert!(losses.is_empty(), "false alarm {losses:?}: {}", what());
    // It goes on working, and a later start sees what it acknowledged.
    let extra = body(1_000_000);
    let (_, outcome) = spool.append(vec![Draft::new(0, 1, extra.as_bytes())]);
    assert_eq!(outcome, Outcome::Durable, "{}", what());
    drop(spool);
    let (mut spool, _) = open_with(files, options.clone());
    let again = due(&mut spool);
    if options.max_bytes > 1 << 16 {
        let losses = spool.take_losses();
        assert!(losses.is_empty(), "false alarm at the second start {losses:?}: {}", what());
    }
    assert!(again.iter().any(|record| number(record) == 1_000_000), "{}", what());
    if options.max_bytes > 1 << 16 {
        assert_eq!(again.len(), records.len() + 1, "{}", what());
    }
}

/// Calls `visit` with every subset of `items` of at most three members.
fn subsets(items: &[usize], mut visit: impl FnMut(&[usize])) {
    visit(&[]);
    for (i, a) in items.iter().enumerate() {
        visit(&[*a]);
        for (j, b) in items.iter().enumerate().skip(i + 1) {
            visit(&[*a, *b]);
            for c in items.iter().skip(j + 1) {
                visit(&[*a, *b, *c]);
            }
        }
    }
}

/// Goes through every prefix of the operations and every fate of what was not synced; returns how
/// many crashes that were.
fn enumerate(scenario: &Scenario, name: &str) -> usize {
    const TORN: [u64; 4] = [0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA, 1, !1];
    let (mut crashes, mut most) = (0, 0);
    for prefix in 0..=scenario.files.operations() {
        let moment = scenario.moment(prefix);
        let unsettled = scenario.files.unsettled(prefix);
        most = most.max(unsettled.len());
        for (lost, rest) in [(true, Fate::Kept), (false, Fate::Lost)] {
            subsets(&unsettled, |chosen| {
                let fate = |number: usize| match (chosen.contains(&number), lost) {
                    (true, true) => Fate::Lost,
                    (true, false) => Fate::Kept,
                    (false, _) => rest,
                };
                let image = scenario.files.after_crash(prefix, fate);
                check(&image, &scenario.options, moment, &|| {
                    format!("{name}: {prefix} {lost} {chosen:?}")
                });
                crashes += 1;
            });
        }
        for number in &unsettled {
            for sectors in TORN {
                let fate =
                    |other: usize| if other == *number { Fate::Torn(sectors) } else { Fate::Kept };
                let image = scenario.files.after_crash(prefix, fate);
                check(&image, &scenario.options, moment, &|| {
                    format!("{name}: {prefix} torn {number} {sectors:x}")
                });
                crashes += 1;
            }
        }
    }
    println!("{name}: {crashes} crashes, at most {most} operations not synced");
    crashes
}

#[test]
fn a_second_crash_while_the_first_is_recovered_from_loses_nothing() {
    let scenario = usual();
    let mut crashes = 0;
    for prefix in 0..=scenario.files.operations() {
        let moment = scenario.moment(prefix);
        for first in [Fate::Kept, Fate::Lost, Fate::Torn(0x5555_5555_5555_5555)] {
            let image = scenario.files.after_crash(prefix, |_| first);
            let (spool, _) = open_with(&image, scenario.options.clone());
            drop(spool);
            for again in 0..=image.operations() {
                for second in [Fate::Kept, Fate::Lost, Fate::Torn(1)] {
                    let files = image.after_crash(again, |_| second);
                    let what = || format!("{prefix} {first:?}, then {again} {second:?}");
                    check(&files, &scenario.options, moment, &what);
                    crashes += 1;
                }
            }
        }
    }
    println!("second crash: {crashes}");
    assert!(crashes > 1000);
}

#[test]
fn no_crash_loses_what_was_acknowledged() {
    let crashes = enumerate(&usual(), "usual");
    assert!(crashes > 8_000);
}

/// Appends, deliveries, ends in order and not, over several segments.
fn usual() -> Scenario {
    let mut scenario = Scenario::new(small());
    for count in [1, 3, 2] {
        scenario.append(count);
    }
    scenario.deliver(2);
    scenario.tidy();
    scenario.append(4);
    scenario.deliver(6);
    scenario.tidy();
    scenario.restart(false);
    scenario.append(2);
    scenario.deliver(4);
    scenario.tidy();
    scenario.restart(true);
    scenario.append(3);
    scenario.restart(false);
    scenario.deliver(3);
    scenario.append(5);
    scenario.spool.replay();
    scenario.tidy();
    scenario.deliver(100);
    scenario.append(1);
    scenario.tidy();
    scenario.restart(true);
    scenario
}

#[test]
fn no_crash_loses_more_than_the_cap_takes() {
    let mut scenario = Scenario::new(Options { max_bytes: 3 * 2048, ..small() });
    for count in [3, 3, 3, 3, 3] {
        scenario.append(count);
    }
    scenario.deliver(3);
    scenario.tidy();
    for count in [3, 3, 3] {
        scenario.append(count);
    }
    assert!(enumerate(&scenario, "cap") > 1000);
}

#[test]
fn no_crash_loses_what_was_acknowledged_after_a_fault() {
    let mut total = 0;
    for turn in 0..8 {
        let mut scenario = Scenario::new(small());
        scenario.append(2);
        let next = scenario.files.operations();
        scenario.files.fail(next + turn..next + turn + 1, EIO);
        scenario.append(3);
        scenario.append(1);
        scenario.deliver(3);
        scenario.tidy();
        scenario.append(1);
        total += enumerate(&scenario, &format!("fault at {turn}"));
    }
    println!("{total} crashes");
}

#[test]
fn no_crash_loses_what_came_back_from_memory() {
    let mut scenario = Scenario::new(small());
    scenario.append(2);
    let next = scenario.files.operations();
    scenario.files.fail(next..usize::MAX, EIO);
    scenario.append(2);
    scenario.append(1);
    scenario.deliver(3);
    scenario.files.heal();
    scenario.spool.try_disk();
    // Everything that was only in memory is on disk now.
    scenario.acknowledged.extend(0..scenario.next);
    scenario.remember();
    scenario.append(2);
    scenario.deliver(1);
    scenario.tidy();
    let crashes = enumerate(&scenario, "ring");
    println!("{crashes} crashes");
    assert!(scenario.spool.take_losses().iter().all(|loss| loss.reason == LossReason::MemoryRing));
    assert!(scenario.files.content(&Path::new(FOLDER).join("cursor")).is_some());
}

//! Every point at which a crash can hit the journal, with every way to leave what was not synced.

use std::path::Path;
use std::sync::Arc;

use super::super::book::{Book, Change};
use super::journal::Journal;
use crate::base::files::memory::{EIO, ENOSPC, Fate, MemoryFiles};
use crate::base::time::Timestamp;

const FOLDER: &str = "/data/journal";

/// The books that had been written down when a number of operations was through.
struct Moment {
    operations: usize,
    book: Book,
}

struct Scenario {
    files: MemoryFiles,
    journal: Journal,
    book: Book,
    next: i64,
    moments: Vec<Moment>,
    /// Every book that there ever was.
    books: Vec<Book>,
}

impl Scenario {
    fn new() -> Self {
        let files = MemoryFiles::default();
        let (journal, book) = open(&files);
        let books = vec![book.clone()];
        let mut scenario =
            Self { files, journal, book: book.clone(), next: 0, moments: Vec::new(), books };
        scenario.moments.push(Moment { operations: 0, book });
        scenario.begin();
        scenario
    }

    fn change(&mut self) {
        self.next += 1;
        // Some are longer than a sector.
        let name = "x".repeat(if self.next % 3 == 0 { 700 } else { 5 });
        let sent = vec![Timestamp::from_millis(self.next)];
        let changes = [
            Change::Group { name, sent: sent.clone() },
            Change::Group { name: "pair".to_owned(), sent },
        ];
        for change in &changes {
            self.book.apply(change.clone());
        }
        self.books.push(self.book.clone());
        let written = self.journal.append(&self.book, &changes, Timestamp::EPOCH);
        self.remember(written.is_ok());
    }

    fn begin(&mut self) {
        let written = self.journal.begin(&self.book, Timestamp::EPOCH);
        self.remember(written.is_ok());
    }

    fn remember(&mut self, is_durable: bool) {
        let book = match self.moments.last() {
            Some(last) if !is_durable => last.book.clone(),
            Some(_) | None => self.book.clone(),
        };
        self.moments.push(Moment { operations: self.files.operations(), book });
    }

    /// Checks what a start finds after a crash at every point.
    fn check(&self) -> usize {
        let mut cases = 0;
        for prefix in 0..=self.files.operations() {
            let promised = self.moments.iter().rfind(|moment| moment.operations <= prefix);
            let promised = &promised.unwrap().book;
            let least = self.books.iter().position(|book| book == promised).unwrap();
            let unsettled = self.files.unsettled(prefix);
            let open_ends = unsettled.len().min(4);
            for choice in 0..3_usize.pow(u32::try_from(open_ends).unwrap()) {
                let fate = |operation: usize| {
                    let place = unsettled.iter().position(|other| *other == operation);
                    let place = place.unwrap_or(0).min(3);
                    match choice / 3_usize.pow(u32::try_from(place).unwrap()) % 3 {
                        0 => Fate::Kept,
                        1 => Fate::Lost,
                        _ => Fate::Torn(0x5555_5555_5555_5555),
                    }
                };
                let after = self.files.after_crash(prefix, fate);
                let (mut journal, book) = open(&after);
                let found = self.books.iter().position(|other| *other == book);
                assert!(
                    found.is_some_and(|found| found >= least),
                    "after {prefix} operations, fate {choice}: book {found:?}, promised {least}"
                );
                // And it goes on from there.
                journal.begin(&book, Timestamp::EPOCH).unwrap();
                assert_eq!(open(&after).1, book);
                cases += 1;
            }
        }
        cases
    }
}

fn open(files: &MemoryFiles) -> (Journal, Book) {
    let (journal, book, found) = Journal::open(Arc::new(files.clone()), Path::new(FOLDER), 1);
    assert_eq!(found.aside, None, "what is there can be read");
    (journal, book)
}

#[test]
fn a_crash_at_any_point_loses_nothing_that_was_promised() {
    let mut scenario = Scenario::new();
    for n in 0..8 {
        scenario.change();
        if n == 4 {
            scenario.begin();
        }
    }
    let cases = scenario.check();
    assert!(cases > 100, "{cases}");
}

#[test]
fn a_fault_at_any_point_loses_nothing_that_was_promised() {
    let healthy = {
        let mut scenario = Scenario::new();
        (0..4).for_each(|_| scenario.change());
        scenario.files.operations()
    };
    for turn in 5..healthy {
        for fault in [EIO, ENOSPC] {
            let mut scenario = Scenario::new();
            scenario.files.fail(turn..turn + 1, fault);
            (0..4).for_each(|_| scenario.change());
            scenario.check();
            // The next write makes good for it.
            scenario.change();
            assert_eq!(open(&scenario.files).1, scenario.book, "fault at {turn}");
        }
    }
}

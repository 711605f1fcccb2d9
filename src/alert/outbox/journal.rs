//! The file `journal/alerts`: the book as it was, and every change since, each durable before
//! anything is done about it.
//!
//! ```text
//! file = header of 16 bytes, record of a book, records of changes
//!
//! header   0  8  magic "PSCPALR\n"     8  2  version     10  2  0     12  4  CRC32C of 0..12
//! record   framed as in the spool (`store::spool::format`); its body is JSON: the book in the
//!          first record, a list of changes in each other one, which happened together
//! ```
//!
//! A new file is written beside the old one and renamed over it: at every start, and when the list
//! of changes has grown long. So the end of the file is the only place that a crash can tear, and
//! what is torn there had not been acted on. A reader passes over changes that it does not know; a
//! file of a later version is put aside.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::book::{Book, Change};
use crate::base::files::{File, Files, read_all, write_all_at};
use crate::base::time::Timestamp;
use crate::store::spool::format::{self, FRAME, Frame, Kind};

const NAME: &str = "alerts";
const MAGIC: [u8; 8] = *b"PSCPALR\n";
const VERSION: u16 = 1;
const HEADER: usize = 16;
/// Size of the changes at which a new file is begun, bytes; more when the book itself is larger.
const CHANGES_LIMIT: u64 = 1 << 20;
/// Largest file that is read.
const FILE_LIMIT: u64 = 256 << 20;

/// The journal of one data folder.
#[derive(Debug)]
pub struct Journal {
    files: Arc<dyn Files>,
    folder: PathBuf,
    /// `None` after a fault: the next write begins a new file.
    file: Option<Box<dyn File>>,
    /// Where the next record goes.
    end: u64,
    /// Where a new file is begun.
    limit: u64,
    seq: u64,
}

/// What a start found that people should know of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The file could not be used and was put aside under this name, with the reason.
    pub aside: Option<(String, String)>,
    /// Changes that this version does not know.
    pub unknown: usize,
}

impl Journal {
    /// Opens the journal in `folder` and returns the book. A missing one is an empty book; one that
    /// cannot be read is put aside, for alerting goes on in any case.
    pub fn open(files: Arc<dyn Files>, folder: &Path, salt: u64) -> (Self, Book, Found) {
        let mut found = Found::default();
        let path = folder.join(NAME);
        let content = files.open(&path).and_then(|file| read_all(file.as_ref(), FILE_LIMIT));
        let book = match content {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                found.aside = Some((aside(files.as_ref(), &path, "unread"), error.to_string()));
                None
            }
            Ok(content) => match read(&content) {
                Ok((book, unknown)) => {
                    found.unknown = unknown;
                    Some(book)
                }
                Err(fault) => {
                    let name = aside(files.as_ref(), &path, fault.suffix());
                    found.aside = Some((name, fault.to_string()));
                    None
                }
            },
        };
        let journal = Self {
            files,
            folder: folder.to_owned(),
            file: None,
            end: 0,
            limit: CHANGES_LIMIT,
            seq: 0,
        };
        (journal, book.unwrap_or_else(|| Book::new(salt)), found)
    }

    /// Makes `changes` durable; `book` has them already.
    ///
    /// # Errors
    /// As the system says. The next call tries to write the whole book into a new file.
    pub fn append(&mut self, book: &Book, changes: &[Change], now: Timestamp) -> io::Result<()> {
        let Some(file) = self.file.take().filter(|_| self.end < self.limit) else {
            return self.begin(book, now);
        };
        let record = record(&serde_json::to_vec(changes)?, changes.len(), self.seq, now);
        write_all_at(file.as_ref(), &record, self.end)?;
        file.sync()?;
        // A folder that somebody deleted or replaced keeps nothing.
        if !file.is_at(&self.folder.join(NAME))? {
            return self.begin(book, now);
        }
        self.file = Some(file);
        self.seq += 1;
        self.end = self.end.saturating_add(length(record.len()));
        Ok(())
    }

    /// Writes the whole book into a new file and puts it in the place of the old one.
    ///
    /// # Errors
    /// As the system says; what was there before still counts.
    pub fn begin(&mut self, book: &Book, now: Timestamp) -> io::Result<()> {
        self.file = None;
        let (path, fresh) = (self.folder.join(NAME), self.folder.join("alerts.new"));
        self.files.create_folder(&self.folder)?;
        match self.files.unlink(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = self.files.create(&fresh)?;
        let mut content = header().to_vec();
        content.extend(record(&serde_json::to_vec(book)?, 1, 0, now));
        write_all_at(file.as_ref(), &content, 0)?;
        file.sync()?;
        self.files.rename(&fresh, &path)?;
        self.files.sync_folder(&self.folder)?;
        self.end = length(content.len());
        self.limit = self.end.saturating_add(self.end.max(CHANGES_LIMIT));
        self.seq = 1;
        self.file = Some(file);
        Ok(())
    }
}

/// Why a file is no journal of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("its first record is damaged")]
    Damaged,
    #[error("it is of the later format version {0}")]
    Newer(u16),
}

impl Fault {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Newer(_) => "newer",
        }
    }
}

/// Renames the file, for people to look at; returns its name.
fn aside(files: &dyn Files, path: &Path, suffix: &str) -> String {
    let target = path.with_extension(suffix);
    if let Err(error) = files.rename(path, &target) {
        tracing::warn!(%error, file = %path.display(), "put the alert journal aside");
    }
    target.display().to_string()
}

fn read(content: &[u8]) -> Result<(Book, usize), Fault> {
    let head = content.get(..HEADER).ok_or(Fault::Damaged)?;
    let crc = head.get(12..).unwrap_or_default();
    let body = head.get(..12).unwrap_or_default();
    if !head.starts_with(&MAGIC) || crc != crc32c::crc32c(body).to_le_bytes() {
        return Err(Fault::Damaged);
    }
    let version =
        head.get(8..10).and_then(<[u8]>::first_chunk).map_or(0, |v| u16::from_le_bytes(*v));
    if version != VERSION {
        return Err(Fault::Newer(version));
    }
    let mut rest = content.get(HEADER..).unwrap_or_default();
    let first = next(&mut rest).ok_or(Fault::Damaged)?;
    let mut book: Book = serde_json::from_slice(first).map_err(|_| Fault::Damaged)?;
    let mut unknown = 0;
    while let Some(body) = next(&mut rest) {
        let changes: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap_or_default();
        for change in changes {
            match serde_json::from_value::<Change>(change) {
                Ok(change) => book.apply(change),
                Err(_) => unknown += 1,
            }
        }
    }
    Ok((book, unknown))
}

/// Takes the next record off `rest`; `None` at the end, or where a crash has torn it.
fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let frame = format::record(rest)?;
    let length = usize::try_from(frame.length).ok()?;
    let body = rest.get(FRAME..FRAME + length)?;
    *rest = rest.get(format::record_size(length)..).unwrap_or_default();
    Some(body)
}

fn header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let parts: [(usize, &[u8]); 2] = [(0, &MAGIC), (8, &VERSION.to_le_bytes())];
    for (offset, part) in parts {
        for (place, byte) in header.iter_mut().skip(offset).zip(part) {
            *place = *byte;
        }
    }
    let crc = crc32c::crc32c(header.get(..12).unwrap_or_default()).to_le_bytes();
    for (place, byte) in header.iter_mut().skip(12).zip(crc) {
        *place = byte;
    }
    header
}

fn record(body: &[u8], count: usize, seq: u64, now: Timestamp) -> Vec<u8> {
    let mut record = vec![0; FRAME];
    record.extend_from_slice(body);
    let frame = Frame {
        length: u32::try_from(body.len()).unwrap_or(u32::MAX),
        seq,
        at: now,
        durable: seq,
        rows: u32::try_from(count).unwrap_or(u32::MAX),
        table: u16::MAX,
        kind: Kind::Rows,
    };
    format::seal_frame(&mut record, &frame);
    record
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::super::noise::tests::{World, daemon};
    use super::*;
    use crate::base::files::memory::MemoryFiles;

    const FOLDER: &str = "/data/journal";

    fn open(files: &MemoryFiles) -> (Journal, Book, Found) {
        Journal::open(Arc::new(files.clone()), Path::new(FOLDER), 7)
    }

    fn group(name: &str) -> Change {
        Change::Group { name: name.to_owned(), sent: vec![Timestamp::from_millis(5)] }
    }

    fn write(journal: &mut Journal, book: &mut Book, name: &str) {
        book.apply(group(name));
        journal.append(book, &[group(name)], Timestamp::from_millis(9)).unwrap();
    }

    #[test]
    fn what_was_appended_is_there_after_a_start() {
        let files = MemoryFiles::default();
        let (mut journal, mut book, found) = open(&files);
        assert_eq!(found, Found::default());
        for n in 0..30 {
            write(&mut journal, &mut book, &format!("g{n}"));
        }
        let (_, read, found) = open(&files);
        assert_eq!((read, found), (book, Found::default()));
    }

    #[test]
    fn a_long_list_of_changes_begins_a_new_file() {
        let files = MemoryFiles::default();
        let (mut journal, mut book, _) = open(&files);
        for n in 0..40 {
            write(&mut journal, &mut book, &format!("{n}{}", "x".repeat(100_000)));
            book.apply(Change::Group { name: format!("{n}{}", "x".repeat(100_000)), sent: vec![] });
        }
        let size = files.content(&Path::new(FOLDER).join(NAME)).unwrap().len();
        assert!(size < 3_000_000, "{size}");
    }

    #[test]
    fn what_cannot_be_read_is_put_aside() {
        let path = Path::new(FOLDER).join(NAME);
        let mut newer = header();
        newer[8] = 9;
        let crc = crc32c::crc32c(&newer[..12]).to_le_bytes();
        newer[12..].copy_from_slice(&crc);
        for (content, suffix) in [(b"rubbish".to_vec(), "damaged"), (newer.to_vec(), "newer")] {
            let files = MemoryFiles::default();
            files.plant(&path, content.clone());
            let (mut journal, mut book, found) = open(&files);
            let (name, reason) = found.aside.unwrap();
            assert!(name.ends_with(suffix), "{name}: {reason}");
            write(&mut journal, &mut book, "a");
            assert_eq!(files.content(&path.with_extension(suffix)), Some(content));
            assert_eq!(open(&files).1, book);
        }
    }

    #[test]
    fn changes_of_a_later_version_are_passed_over_and_counted() {
        let files = MemoryFiles::default();
        let (mut journal, mut book, _) = open(&files);
        write(&mut journal, &mut book, "a");
        let path = Path::new(FOLDER).join(NAME);
        let mut content = files.content(&path).unwrap();
        let body = br#"[{"change":"dance"},{"change":"group","name":"b","sent":[]}]"#;
        content.extend(record(body, 2, 9, Timestamp::EPOCH));
        files.plant(&path, content);
        let (_, read, found) = open(&files);
        assert_eq!((read, found.unknown), (book, 1));
    }

    /// A journal of every released format must load for ever. `UPDATE_GOLDEN=1` writes one that is
    /// missing; one that is there is never changed.
    #[test]
    fn a_journal_of_format_version_1_is_read() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal/v1/alerts");
        if std::env::var_os("UPDATE_GOLDEN").is_some() && !sample.exists() {
            let mut world = World::new();
            world.set("daemon_down", &[daemon("ccxt")], 42.0);
            let files = MemoryFiles::default();
            let (mut journal, ..) = open(&files);
            let before = world.book.clone();
            journal.begin(&before, world.now).unwrap();
            world.run(60);
            let mut changes: Vec<Change> = Vec::new();
            for (key, series) in &world.book.series {
                let series = Some(Box::new(series.clone()));
                changes.push(Change::Series { key: key.clone(), series });
            }
            for (number, entry) in &world.book.entries {
                let entry = Some(Box::new(entry.clone()));
                changes.push(Change::Entry { number: *number, entry });
            }
            changes.push(Change::Sender { sender: world.book.sender.clone() });
            journal.append(&world.book, &changes, world.now).unwrap();
            std::fs::create_dir_all(sample.parent().unwrap()).unwrap();
            let content = files.content(&Path::new(FOLDER).join(NAME)).unwrap();
            std::fs::write(&sample, content).unwrap();
        }
        let files = MemoryFiles::default();
        files.plant(&Path::new(FOLDER).join(NAME), std::fs::read(&sample).unwrap());
        let (_, book, found) = open(&files);
        assert_eq!(found, Found::default());
        let series: Vec<_> = book.series.values().collect();
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].labels["daemon"], "ccxt");
        assert!(series[0].told.is_some() && series[0].state.firing_since().is_some());
        assert_eq!(book.entries[&0].message.title, "ccxt on h is down");
        assert_eq!(book.entries[&0].routes.len(), 2);
        assert_eq!(book.next, 1);
    }
}

//! Looking at the files of a spool without owning them: read only, without the lock, while periscope
//! runs or not. Segments may grow, and vanish once they are delivered, while they are looked at.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::spool::cursor;
use super::spool::format::{self, HEADER, Header, HeaderKind};
use super::spool::open::segment_base;
use super::spool::scan::{Known, Missing, Record, Scan, scan};

/// Largest file that is read, bytes.
const FILE_LIMIT: u64 = 256 << 20;

/// Which folder a segment lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Among those that periscope works with.
    Spool,
    /// A copy of a damaged one, or one that could not be read.
    Quarantine,
    /// Of a later format, moved aside.
    Newer,
}

impl Place {
    /// All places, in the order in which they are looked at.
    pub const ALL: [Self; 3] = [Self::Spool, Self::Quarantine, Self::Newer];

    /// Returns the name in outputs, which is that of the folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spool => "spool",
            Self::Quarantine => "quarantine",
            Self::Newer => "newer",
        }
    }

    fn folder(self, spool: &Path) -> PathBuf {
        match self {
            Self::Spool => spool.to_owned(),
            Self::Quarantine | Self::Newer => spool.join(self.name()),
        }
    }
}

/// A segment's file as the folder lists it.
#[derive(Debug, Clone)]
pub struct SegmentFile {
    /// Which folder it lies in.
    pub place: Place,
    /// The file.
    pub path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    known: Known,
}

/// What the cursor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Every seq up to this one; 0: nothing yet.
    UpTo(u64),
    /// It cannot be read: after the next start everything is sent again.
    Unknown,
}

/// The files of a spool.
#[derive(Debug)]
pub struct View {
    /// What is delivered.
    pub delivered: Delivered,
    /// All segments, those of one place in their order.
    pub files: Vec<SegmentFile>,
}

/// A damage of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The header; the records behind it may be sound.
    Header,
    /// Records that were acknowledged and are not intact.
    Records(Missing),
    /// The system cannot read the file.
    Unreadable(String),
}

/// What is in a segment.
#[derive(Debug, Default)]
pub struct Content {
    /// Intact records.
    pub records: Vec<Record>,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Bytes behind the last record that a write in progress, or one cut off by a crash, left.
    pub torn: usize,
    /// Version of a format that this periscope cannot read; then the rest is empty.
    pub newer: Option<u16>,
}

/// Lists the spool in `folder`.
///
/// # Errors
/// The folder is missing or cannot be read.
pub fn look(folder: &Path) -> io::Result<View> {
    let mut files = Vec::new();
    for place in Place::ALL {
        match list(place, &place.folder(folder)) {
            Ok(found) => files.extend(found),
            Err(error) if place != Place::Spool && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let delivered = match read_file(&folder.join("cursor")) {
        Ok(content) => cursor::newest(&content)
            .map_or(Delivered::Unknown, |slot| Delivered::UpTo(slot.delivered)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Delivered::UpTo(0),
        Err(error) => return Err(error),
    };
    Ok(View { delivered, files })
}

fn list(place: Place, folder: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut found: Vec<(SegmentFile, Option<Header>)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(named) = name.to_str().and_then(segment_base) else { continue };
        // One that vanishes between the calls has been delivered.
        let (Ok(metadata), Ok(header)) = (entry.metadata(), read_header(&entry.path())) else {
            continue;
        };
        let header = match header {
            HeaderKind::Good(header) => Some(header),
            HeaderKind::Newer(_) | HeaderKind::Damaged => None,
        };
        let base = header.map_or(named, |header| header.base);
        let known = Known { base, ..Known::default() };
        let file = SegmentFile { place, path: entry.path(), bytes: metadata.len(), known };
        found.push((file, header));
    }
    found.sort_by_key(|(file, _)| file.known.base);
    // What is missing at the end of a segment is known by the one behind it.
    let behind: Vec<(u64, Option<Header>)> =
        found.iter().skip(1).map(|(file, header)| (file.known.base, *header)).collect();
    let mut files: Vec<SegmentFile> = found.into_iter().map(|(file, _)| file).collect();
    if place == Place::Spool {
        for (file, (base, header)) in files.iter_mut().zip(behind) {
            file.known.limit = Some(base);
            let follows = header.filter(|header| header.previous_base == file.known.base);
            file.known.durable_end = follows.map_or(0, |header| header.previous_end);
        }
    }
    Ok(files)
}

fn read_header(path: &Path) -> io::Result<HeaderKind> {
    let mut start = Vec::with_capacity(HEADER);
    let limit = u64::try_from(HEADER).unwrap_or(64);
    fs::File::open(path)?.take(limit).read_to_end(&mut start)?;
    Ok(format::header(&start))
}

fn read_file(path: &Path) -> io::Result<Bytes> {
    let file = fs::File::open(path)?;
    if file.metadata()?.len() > FILE_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut content = Vec::new();
    file.take(FILE_LIMIT).read_to_end(&mut content)?;
    Ok(content.into())
}

impl SegmentFile {
    /// Name of the file without its folder.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Reads all of it; `None` when it was delivered and removed meanwhile.
    pub fn read(&self) -> Option<Content> {
        let first = match self.scan() {
            Ok(Some(content)) => content,
            Ok(None) => return None,
            Err(error) => return Some(unreadable(&error)),
        };
        if first.damage.is_empty() {
            return Some(first);
        }
        // A record that was being written while it was read looks damaged: only what is so twice is.
        match self.scan() {
            Ok(Some(mut second)) => {
                let before: Vec<_> = first.damage.iter().map(Damage::place).collect();
                second.damage.retain(|damage| before.contains(&damage.place()));
                Some(second)
            }
            Ok(None) => None,
            Err(error) => Some(unreadable(&error)),
        }
    }

    fn scan(&self) -> io::Result<Option<Content>> {
        match read_file(&self.path) {
            Ok(bytes) => Ok(Some(judge(&bytes, scan(&bytes, self.known)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn unreadable(error: &io::Error) -> Content {
    Content { damage: vec![Damage::Unreadable(error.to_string())], ..Content::default() }
}

/// Tells damage from what a crash or a write in progress leaves behind. Pure.
fn judge(bytes: &[u8], found: Scan) -> Content {
    let header = match found.header {
        HeaderKind::Newer(version) => {
            return Content { newer: Some(version), ..Content::default() };
        }
        HeaderKind::Good(_) => None,
        // Space that was reserved and never written to is all zeros.
        HeaderKind::Damaged => bytes.iter().any(|byte| *byte != 0).then_some(Damage::Header),
    };
    let records = found.lost.into_iter().map(Damage::Records);
    Content {
        records: found.records,
        damage: header.into_iter().chain(records).collect(),
        torn: found.torn,
        newer: None,
    }
}

impl Damage {
    /// Where it is, the same at every look.
    const fn place(&self) -> Option<u64> {
        match self {
            Self::Header | Self::Unreadable(_) => None,
            Self::Records(missing) => Some(missing.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::base::files::real::RealFiles;
    use crate::base::time::{Clock, Timestamp};
    use crate::store::spool::disk::{Draft, Options, Spool};

    fn open(folder: &Path) -> Spool {
        let options = Options {
            max_bytes: 1 << 30,
            min_free: 0,
            replay_window: Duration::from_secs(900),
            replay_bytes: 1 << 30,
            segment_bytes: 4096,
            ring_bytes: 1 << 20,
            boot: [0; 16],
            instance: 1,
            clock: Clock::fixed(Timestamp::from_millis(1_700_000_000_000)),
        };
        Spool::open(Arc::new(RealFiles), folder, options).0
    }

    fn append(spool: &mut Spool, number: u64) {
        let line = format!("daemon_metrics,daemon=d fetch_count={number}i {number}\n").repeat(10);
        let (records, _) = spool.append(vec![Draft::new(0, 10, line.as_bytes())]);
        assert_eq!(records[0].seq, number);
    }

    /// Every record of every sound file, and all damage.
    fn all(view: &View) -> (Vec<u64>, Vec<Damage>) {
        let contents: Vec<Content> = view.files.iter().filter_map(SegmentFile::read).collect();
        let seqs = contents.iter().flat_map(|content| &content.records).map(|record| record.seq);
        (seqs.collect(), contents.iter().flat_map(|content| content.damage.clone()).collect())
    }

    #[test]
    fn a_spool_is_looked_at_while_it_is_written_and_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path());
        for number in 1..=20 {
            append(&mut spool, number);
            let (seqs, damage) = all(&look(folder.path()).unwrap());
            assert_eq!((seqs, damage), ((1..=number).collect(), vec![]));
        }
        (1..=7).for_each(|seq| spool.delivered(seq, 10, 100));
        spool.close();
        let view = look(folder.path()).unwrap();
        assert_eq!(view.delivered, Delivered::UpTo(7));
        assert!(view.files.len() > 2, "{view:?}");
        assert_eq!(all(&view).0, (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn damage_is_told_from_a_torn_tail() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = open(folder.path());
        (1..=20).for_each(|number| append(&mut spool, number));
        drop(spool);
        let view = look(folder.path()).unwrap();
        let (first, last) = (&view.files[0].path, &view.files[view.files.len() - 1].path);
        let flip = |path: &Path, at: usize| {
            let mut bytes = fs::read(path).unwrap();
            bytes[at] ^= 1;
            fs::write(path, bytes).unwrap();
        };
        let end = fs::read(last).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
        flip(last, end);
        assert_eq!(all(&view).1, [], "a record at the very end may be one that is being written");
        flip(first, HEADER + format::FRAME + 3);
        let (seqs, damage) = all(&view);
        assert_eq!(seqs, (2..20).collect::<Vec<_>>());
        let [Damage::Records(missing)] = damage.as_slice() else { panic!("{damage:?}") };
        assert_eq!((missing.first, missing.last, missing.rows), (1, 1, 10));
        flip(first, 0);
        assert!(all(&view).1.contains(&Damage::Header));
    }

    #[test]
    fn copies_set_aside_and_other_files_are_kept_apart() {
        let folder = tempfile::tempdir().unwrap();
        assert!(look(&folder.path().join("none")).is_err());
        let mut spool = open(folder.path());
        append(&mut spool, 1);
        spool.close();
        let name = "00000000000000000001.seg";
        let mut bytes = fs::read(folder.path().join(name)).unwrap();
        for place in ["quarantine", "newer"] {
            fs::create_dir(folder.path().join(place)).unwrap();
        }
        fs::write(folder.path().join("quarantine").join(name), &bytes).unwrap();
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
        bytes[60..64].copy_from_slice(&crc);
        fs::write(folder.path().join("newer").join(name), &bytes).unwrap();
        fs::write(folder.path().join("notes.txt"), "x").unwrap();
        let view = look(folder.path()).unwrap();
        let places: Vec<Place> = view.files.iter().map(|file| file.place).collect();
        assert_eq!(places, Place::ALL);
        assert_eq!(view.files[2].read().unwrap().newer, Some(9));
        fs::remove_file(&view.files[0].path).unwrap();
        assert!(view.files[0].read().is_none(), "delivered and removed meanwhile");
        fs::write(folder.path().join("cursor"), [7; 128]).unwrap();
        assert_eq!(look(folder.path()).unwrap().delivered, Delivered::Unknown);
    }
}

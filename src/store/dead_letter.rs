//! Lines that `QuestDB` refuses for good, kept for people with the reason.
//!
//! `dead-letter/TABLE.jsonl`: one JSON object a line with `time`, `table`, `reason`, `line`. A file
//! that grows beyond 16 MiB becomes `TABLE.1.jsonl`, in place of the one before.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use crate::base::time::Timestamp;

const FILE_BYTES: u64 = 16 << 20;
/// How often a letter is written when its file is replaced at that very moment. Five were too few
/// beside a remover that never pauses, on a slow disk.
const ATTEMPTS: usize = 100;

/// A refused line.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Letter {
    /// When it was refused.
    pub time: Timestamp,
    /// Its table.
    pub table: String,
    /// The server's words.
    pub reason: String,
    /// The line as it was sent, without its line break.
    pub line: String,
}

/// Adds `letter` to the folder and makes it durable. Blocks.
///
/// # Errors
/// As the system says.
pub fn keep(folder: &Path, letter: &Letter) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("{}.jsonl", letter.table));
    let text = serde_json::to_string(letter)?;
    for _ in 0..ATTEMPTS {
        let mut file = open(&path)?;
        if file.metadata()?.len() > FILE_BYTES {
            fs::rename(&path, folder.join(format!("{}.1.jsonl", letter.table)))?;
            file = open(&path)?;
        }
        append(&mut file, &text)?;
        // [`remove`] may have put another file in its place meanwhile.
        if is_at(&file, &path)? {
            return Ok(path);
        }
    }
    Err(io::Error::other(format!("{} is replaced again and again", path.display())))
}

fn open(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// Adds a line and makes it durable; a line that a crash cut off does not spoil it.
fn append(file: &mut fs::File, text: &str) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if let Some(at) = length.checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    let start = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{start}{text}\n").as_bytes())?;
    file.sync_data()
}

/// Whether `path` still names this very file.
fn is_at(file: &fs::File, path: &Path) -> io::Result<bool> {
    let named = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let own = file.metadata()?;
    Ok((named.dev(), named.ino()) == (own.dev(), own.ino()))
}

/// A letter as it lies in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Names the letter: 12 hexadecimal digits. Equal letters have equal names.
    pub id: String,
    /// The letter.
    pub letter: Letter,
    file: PathBuf,
}

/// All letters of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Letters {
    /// The letters, by table, the oldest of a table first.
    pub kept: Vec<Kept>,
    /// Lines that are no letters: file and number, from 1.
    pub unreadable: Vec<(PathBuf, usize)>,
}

/// Reads all letters in `folder`; a missing folder has none. Blocks.
///
/// # Errors
/// As the system says.
pub fn read(folder: &Path) -> io::Result<Letters> {
    let mut letters = Letters::default();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(letters),
        other => other?,
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    // `TABLE.1.jsonl` comes before `TABLE.jsonl`, and holds the older letters.
    files.sort();
    for file in files {
        let text = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            match serde_json::from_slice(line) {
                Ok(letter) => {
                    letters.kept.push(Kept { id: id_of(line), letter, file: file.clone() });
                }
                Err(_) if line.is_empty() => {}
                Err(_) => letters.unreadable.push((file.clone(), index.saturating_add(1))),
            }
        }
    }
    Ok(letters)
}

/// Returns the name of the letter that stands in `line`.
fn id_of(line: &[u8]) -> String {
    let digest = sha2::Sha256::digest(line);
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Removes the letters `gone` from the files in `folder`; letters that come meanwhile stay. Blocks.
///
/// # Errors
/// As the system says; then letters of some files may be removed and others not. `ResourceBusy` while
/// another process removes letters.
pub fn remove(folder: &Path, gone: &[&Kept]) -> io::Result<()> {
    if gone.is_empty() {
        return Ok(());
    }
    // Against other removers; periscope itself only adds, and finds out about a replaced file.
    let lock = fs::File::open(folder)?;
    lock.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => io::Error::from(io::ErrorKind::ResourceBusy),
        fs::TryLockError::Error(error) => error,
    })?;
    let mut by_file = BTreeMap::<&Path, BTreeMap<&str, usize>>::new();
    for kept in gone {
        let count = by_file.entry(&kept.file).or_default().entry(&kept.id).or_default();
        *count = count.saturating_add(1);
    }
    for (path, mut ids) in by_file {
        remove_from(path, |id| match ids.get_mut(id) {
            Some(count) if *count > 0 => {
                *count = count.saturating_sub(1);
                true
            }
            Some(_) | None => false,
        })?;
    }
    drop(lock);
    Ok(())
}

/// Writes the file `path` anew without the lines whose id is `gone`.
///
/// periscope may add letters at any moment. What it adds to the old file before the new one is in
/// place is carried over here; from then on it finds the new one.
fn remove_from(path: &Path, mut gone: impl FnMut(&str) -> bool) -> io::Result<()> {
    let mut old = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut content = Vec::new();
    old.read_to_end(&mut content)?;
    let mut rest = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if !gone(&id_of(text)) {
            rest.extend_from_slice(line);
        }
    }
    let fresh = path.with_extension("partial");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = open(&fresh)?;
    file.write_all(&rest)?;
    file.sync_data()?;
    fs::rename(&fresh, path)?;
    let mut late = Vec::new();
    old.read_to_end(&mut late)?;
    for line in late.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        append(&mut file, &String::from_utf8_lossy(line))?;
    }
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_kept_and_files_stay_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let letter = Letter {
            time: Timestamp::from_millis(1_700_000_000_000),
            table: "daemon_metrics".into(),
            reason: "cast error\nin line 2".into(),
            line: "daemon_metrics,daemon=a fetch_count=\"x\" 1".into(),
        };
        let path = keep(&folder.path().join("dead"), &letter).unwrap();
        keep(&folder.path().join("dead"), &letter).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        let read: Letter = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(read, letter);
        fs::File::options().write(true).open(&path).unwrap().set_len(FILE_BYTES + 1).unwrap();
        keep(&folder.path().join("dead"), &letter).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert!(path.with_file_name("daemon_metrics.1.jsonl").exists());
    }

    fn letter(number: u64) -> Letter {
        Letter {
            time: Timestamp::from_millis(1_700_000_000_000),
            table: "daemon_metrics".into(),
            reason: "cast error".into(),
            line: format!("daemon_metrics,daemon=a fetch_count=\"x\" {number}"),
        }
    }

    fn numbers(folder: &Path) -> Vec<u64> {
        let letters = read(folder).unwrap().kept.into_iter();
        letters.map(|kept| kept.letter.line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
    }

    #[test]
    fn letters_are_removed_one_by_one_and_what_cannot_be_read_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(read(&folder.join("none")).unwrap(), Letters::default());
        for number in [1, 2, 2, 3] {
            keep(folder, &letter(number)).unwrap();
        }
        let path = folder.join("daemon_metrics.jsonl");
        let torn = fs::File::options().append(true).open(&path).unwrap();
        (&torn).write_all(b"{\"time\":").unwrap();
        keep(folder, &letter(4)).unwrap();
        let letters = read(folder).unwrap();
        assert_eq!(letters.unreadable, [(path, 5)]);
        assert_eq!(letters.kept[1].id, letters.kept[2].id);
        remove(folder, &[&letters.kept[0], &letters.kept[1]]).unwrap();
        assert_eq!(numbers(folder), [2, 3, 4]);
        assert_eq!(read(folder).unwrap().unreadable.len(), 1);
        let letters = read(folder).unwrap();
        let all: Vec<&Kept> = letters.kept.iter().collect();
        let other = fs::File::open(folder).unwrap();
        other.lock().unwrap();
        assert_eq!(remove(folder, &all).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(other);
        remove(folder, &all).unwrap();
        assert_eq!(numbers(folder), [0_u64; 0]);
    }

    #[test]
    fn no_letter_is_lost_while_others_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let writer = crate::base::tasks::spawn_thread("letters", move || {
            (0..300).for_each(|number| drop(keep(&path, &letter(number)).unwrap()));
        })
        .unwrap();
        let mut seen = std::collections::BTreeSet::new();
        while !writer.is_finished() {
            let letters = read(folder.path()).unwrap();
            seen.extend(letters.kept.iter().map(|kept| kept.letter.line.clone()));
            remove(folder.path(), &letters.kept.iter().collect::<Vec<_>>()).unwrap();
        }
        writer.join().unwrap();
        seen.extend(read(folder.path()).unwrap().kept.into_iter().map(|kept| kept.letter.line));
        assert_eq!(seen.len(), 300);
    }
}

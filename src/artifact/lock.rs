//! `artifacts/lock.toml`: the checksum of everything that was ever installed. What is written down
//! there is enforced from then on: a file that has changed at its source is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::verify::Sha256;

const HEAD: &str = "# Checksums of what periscope has installed; written by periscope, enforced from then on.\n\
                    # Remove an entry only to accept another file of the same name.\n\n";

/// The recorded checksums, by file name.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    sha256: String,
    /// Where it came from, in words for a reader.
    source: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    file: BTreeMap<String, Entry>,
}

impl Lock {
    /// Reads the lock file in `folder`; there need not be one. Removes what a killed writer has left.
    ///
    /// # Errors
    /// It cannot be read or is no lock file: then nothing recorded could be enforced.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let path = folder.join("lock.toml");
        match fs::remove_file(path.with_extension(PARTIAL)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let document: Document = toml::from_str(&text).map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {}; mend or remove it", path.display(), error.message()),
            )
        })?;
        Ok(Self { path, files: document.file })
    }

    /// Returns the checksum recorded for `name`; a damaged one counts as none of any file.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(|entry| entry.sha256.as_str())
    }

    /// Writes down that `name` has `sum`, durably and all or nothing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn record(&mut self, name: &str, sum: Sha256, source: &str) -> io::Result<()> {
        let entry = Entry { sha256: sum.to_string(), source: source.to_owned() };
        if self.files.get(name) == Some(&entry) {
            return Ok(());
        }
        self.files.insert(name.to_owned(), entry);
        let document = Document { file: self.files.clone() };
        let text = toml::to_string(&document).map_err(io::Error::other)?;
        write_atomic(&self.path, format!("{HEAD}{text}").as_bytes())
    }
}

/// Extension of a file that is being written. One writer at a time: the folder is locked.
const PARTIAL: &str = "part";

/// Replaces the file at `path` by `content`: after a crash it holds the old or the new content.
fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(PARTIAL);
    let mut file = fs::File::create(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    sync_folder(path)
}

/// Makes a rename inside the folder of `path` durable.
///
/// # Errors
/// The folder cannot be opened or synced.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let sum = Sha256::of_file(Path::new("/dev/null")).unwrap();
        let mut lock = Lock::load(folder.path()).unwrap();
        assert_eq!(lock.get("a.jar"), None);
        lock.record("a.jar", sum, "maven").unwrap();
        let lock = Lock::load(folder.path()).unwrap();
        assert_eq!(lock.get("a.jar"), Some(sum.to_string().as_str()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    /// Every kill in the moment of writing left one more file behind.
    #[test]
    fn what_a_killed_writer_has_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lock.part"), "[fi").unwrap();
        Lock::load(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_lock_file_is_an_error_and_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("lock.toml"), "file = 3").unwrap();
        let error = Lock::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("lock.toml") && error.contains("mend or remove"), "{error}");
    }
}

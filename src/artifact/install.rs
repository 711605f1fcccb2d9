//! The cache of what was acquired: checks a file against everything known about it, then puts it in
//! place by one rename. Blocking.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::lock::{Lock, sync_folder};
use super::release;
use super::unpack::{Limits, UnpackError, unpack};
use super::verify::Sha256;

/// What has to prove that a file is the right one. A pinned or recorded checksum is always
/// enforced, whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A pinned or recorded checksum must exist.
    Known,
    /// This checksum, published for the file.
    Digest(Sha256),
    /// Where nothing is known, the file is trusted and written down.
    FirstUse,
}

/// Why a file was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The checksum is not the expected one.
    #[error("{name} has sha256 {found}, {what} is {expected}: refused")]
    WrongChecksum {
        /// Name of the file.
        name: String,
        /// What it has.
        found: Sha256,
        /// What it must have.
        expected: String,
        /// Who says so.
        what: &'static str,
    },
    /// Nothing proves that the file is the right one.
    #[error("{0} cannot be verified: no checksum is pinned, recorded or published for it")]
    Unproven(String),
    /// The installed file has changed on disk.
    #[error("{path} is corrupt (its sha256 is not the recorded one), moved to {aside}")]
    Corrupt {
        /// What was corrupt.
        path: PathBuf,
        /// Where it is now.
        aside: PathBuf,
    },
    /// The archive is unusable.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The archive does not hold what a release holds.
    #[error("{name} holds {parts}")]
    Empty {
        /// Name of the archive.
        name: String,
        /// What is missing.
        parts: &'static str,
    },
    /// The disk refuses.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// What is kept in a cache, and how a folder that holds it is recognised.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// First part of the folder's name: `questdb`.
    pub name: &'static str,
    /// Returns the file whose checksum stands for the whole folder; `None`: it is no such folder.
    pub key_file: fn(&Path) -> Option<&'static str>,
    /// What an archive lacks that holds no such folder: `no questdb.jar`.
    pub parts: &'static str,
}

/// A folder of `artifacts/`, held exclusively until dropped.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    product: Product,
    lock: Lock,
    /// Keeps the file lock; the system releases it even after a kill.
    _held: fs::File,
}

impl Cache {
    /// Opens the cache in `folder` and clears what a killed predecessor has left in it; `None`
    /// while another process holds it.
    ///
    /// # Errors
    /// The folder cannot be made or written, or its lock file is damaged.
    pub fn open(folder: &Path, product: Product) -> Result<Option<Self>, InstallError> {
        let io = |source| InstallError::Io { path: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(io)?;
        let held = fs::File::create(folder.join("in-use")).map_err(io)?;
        match rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(io(error.into())),
        }
        let lock = Lock::load(folder).map_err(io)?;
        let this = Self { folder: folder.to_owned(), product, lock, _held: held };
        this.clear_staging().map_err(io)?;
        Ok(Some(this))
    }

    /// Returns an empty folder on the cache's file system; the next call empties it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn staging(&self) -> Result<PathBuf, InstallError> {
        let path = self.folder.join("staging");
        let io = |source| InstallError::Io { path: path.clone(), source };
        self.clear_staging().map_err(io)?;
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(io)?;
        Ok(path)
    }

    fn clear_staging(&self) -> io::Result<()> {
        remove_folder(&self.folder.join("staging"))
    }

    /// Whether a checksum is pinned or recorded for the file `name`.
    pub fn knows(&self, name: &str) -> bool {
        self.lock.get(name).is_some() || release::pinned(name).is_some()
    }

    /// Returns the folder of what is installed for `version`, after checking it.
    ///
    /// # Errors
    /// It is corrupt and was moved aside, or it cannot be read.
    pub(super) fn find(&self, version: &str) -> Result<Option<PathBuf>, InstallError> {
        let folder = self.place_of(version);
        if !folder.exists() {
            return Ok(None);
        }
        if let Some(key) = (self.product.key_file)(&folder)
            && let Ok(sum) = Sha256::of_file(&folder.join(key))
            && self.lock.get(&self.key(version, key)) == Some(sum.to_string().as_str())
        {
            return Ok(Some(folder));
        }
        let mut name = folder.file_name().unwrap_or_default().to_owned();
        name.push(".corrupt");
        let aside = folder.with_file_name(name);
        let io = |source| InstallError::Io { path: folder.clone(), source };
        remove_folder(&aside).map_err(io)?;
        fs::rename(&folder, &aside).map_err(io)?;
        Err(InstallError::Corrupt { path: folder, aside })
    }

    fn place_of(&self, version: &str) -> PathBuf {
        self.folder.join(format!("{}-{version}", self.product.name))
    }

    /// Name in the lock file of the file that stands for an installed folder.
    fn key(&self, version: &str, key: &str) -> String {
        format!("{}-{version}/{key}", self.product.name)
    }

    /// Installs the jar at `from`.
    ///
    /// # Errors
    /// See [`InstallError`]; nothing is installed then.
    pub fn add_jar(
        &mut self,
        version: &str,
        from: &Path,
        source: &str,
        proof: Proof,
    ) -> Result<(), InstallError> {
        let unpacked = self.fresh("unpacked")?;
        let jar = unpacked.join("questdb.jar");
        // The copy is checked and not the original: nobody else can change it afterwards.
        let copied = fs::copy(from, &jar).and_then(|_| fs::File::open(&jar)?.sync_all());
        copied.map_err(|error| InstallError::Io { path: from.to_owned(), source: error })?;
        let sum = sum_of(&jar)?;
        let name = format!("questdb-{version}.jar");
        self.check(&name, sum, proof)?;
        self.record(&name, sum, source)?;
        self.place(version, &unpacked, source)
    }

    /// Installs the release archive at `archive`, called `name`.
    ///
    /// # Errors
    /// See [`InstallError`]; nothing is installed then.
    pub fn add_archive(
        &mut self,
        version: &str,
        archive: &Path,
        name: &str,
        source: &str,
        proof: Proof,
        stop: &CancellationToken,
    ) -> Result<(), InstallError> {
        let sum = sum_of(archive)?;
        self.check(name, sum, proof)?;
        self.record(name, sum, source)?;
        let unpacked = self.folder.join("staging/unpacked");
        let io = |source| InstallError::Io { path: unpacked.clone(), source };
        fs::create_dir_all(self.folder.join("staging")).map_err(io)?;
        remove_folder(&unpacked).map_err(io)?;
        unpack(archive, &unpacked, Limits::RELEASE, stop)?;
        let inner = fs::read_dir(&unpacked).map_err(io)?.flatten().map(|entry| entry.path());
        let whole = inner
            .into_iter()
            .find(|folder| (self.product.key_file)(folder).is_some())
            .ok_or_else(|| self.empty(name))?;
        self.place(version, &whole, source)
    }

    fn empty(&self, name: &str) -> InstallError {
        InstallError::Empty { name: name.to_owned(), parts: self.product.parts }
    }

    fn fresh(&self, name: &str) -> Result<PathBuf, InstallError> {
        let path = self.folder.join("staging").join(name);
        let io = |source| InstallError::Io { path: path.clone(), source };
        remove_folder(&path).map_err(io)?;
        fs::create_dir_all(&path).map_err(io)?;
        Ok(path)
    }

    fn check(&self, name: &str, found: Sha256, proof: Proof) -> Result<(), InstallError> {
        let pinned = release::pinned(name).map(|sum| sum.to_string());
        let recorded = self.lock.get(name).map(str::to_owned);
        let published = match proof {
            Proof::Digest(sum) => Some(sum.to_string()),
            Proof::Known | Proof::FirstUse => None,
        };
        let known = [
            ("the pinned one", pinned),
            ("the one recorded in lock.toml", recorded),
            ("the published one", published),
        ];
        let mut proven = proof == Proof::FirstUse;
        for (what, expected) in known {
            let Some(expected) = expected else { continue };
            if expected != found.to_string() {
                let name = name.to_owned();
                return Err(InstallError::WrongChecksum { name, found, expected, what });
            }
            proven = true;
        }
        if proven { Ok(()) } else { Err(InstallError::Unproven(name.to_owned())) }
    }

    fn record(&mut self, name: &str, sum: Sha256, source: &str) -> Result<(), InstallError> {
        let path = self.folder.join("lock.toml");
        self.lock.record(name, sum, source).map_err(|source| InstallError::Io { path, source })
    }

    /// Moves the prepared folder to its place. The record comes first: what is in place without
    /// one would count as corrupt.
    fn place(&mut self, version: &str, prepared: &Path, source: &str) -> Result<(), InstallError> {
        let key = (self.product.key_file)(prepared).ok_or_else(|| self.empty(version))?;
        let sum = sum_of(&prepared.join(key))?;
        self.record(&self.key(version, key), sum, source)?;
        let target = self.place_of(version);
        let io = |source| InstallError::Io { path: target.clone(), source };
        sync_folder(&prepared.join(key)).map_err(io)?;
        remove_folder(&target).map_err(io)?;
        fs::rename(prepared, &target).map_err(io)?;
        sync_folder(&target).map_err(io)?;
        self.clear_staging().map_err(io)
    }
}

fn sum_of(path: &Path) -> Result<Sha256, InstallError> {
    Sha256::of_file(path).map_err(|source| InstallError::Io { path: path.to_owned(), source })
}

/// Removes a folder and what is in it; that there is none is fine.
fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::questdb::PRODUCT;
    use super::*;

    fn cache(folder: &Path) -> Cache {
        Cache::open(folder, PRODUCT).unwrap().unwrap()
    }

    fn jar(folder: &Path, content: &str) -> PathBuf {
        let path = folder.join("some.jar");
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn an_unknown_version_is_recorded_at_first_and_enforced_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = cache(&folder.path().join("artifacts"));
        let from = jar(folder.path(), "one");
        let error = cache.add_jar("0.0.1", &from, "test", Proof::Known).unwrap_err();
        assert!(error.to_string().contains("cannot be verified"), "{error}");
        assert!(cache.find("0.0.1").unwrap().is_none());
        cache.add_jar("0.0.1", &from, "test", Proof::FirstUse).unwrap();
        assert!(cache.find("0.0.1").unwrap().is_some());
        let from = jar(folder.path(), "two");
        let error = cache.add_jar("0.0.1", &from, "test", Proof::FirstUse).unwrap_err();
        assert!(error.to_string().contains("recorded in lock.toml"), "{error}");
        assert!(cache.find("0.0.1").unwrap().is_some(), "the first one stays");
    }

    #[test]
    fn a_pinned_version_takes_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = cache(&folder.path().join("artifacts"));
        let from = jar(folder.path(), "not the jar");
        let error = cache.add_jar("9.3.4", &from, "test", Proof::FirstUse).unwrap_err();
        assert!(error.to_string().contains("the pinned one is 939bc53a"), "{error}");
        assert!(!folder.path().join("artifacts/questdb-9.3.4").exists());
    }

    #[test]
    fn a_jar_that_has_changed_in_the_cache_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut cache = cache(&folder.path().join("artifacts"));
        let from = jar(folder.path(), "one");
        cache.add_jar("0.0.1", &from, "test", Proof::FirstUse).unwrap();
        let installed = folder.path().join("artifacts/questdb-0.0.1/questdb.jar");
        fs::write(&installed, "onf").unwrap();
        let error = cache.find("0.0.1").unwrap_err().to_string();
        assert!(error.contains("corrupt") && error.contains("moved to"), "{error}");
        assert!(cache.find("0.0.1").unwrap().is_none());
        cache.add_jar("0.0.1", &from, "test", Proof::FirstUse).unwrap();
        assert_eq!(fs::read_to_string(installed).unwrap(), "one");
    }

    #[test]
    fn what_a_killed_predecessor_has_left_is_cleared_and_the_cache_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("staging/unpacked/half");
        fs::create_dir_all(&left).unwrap();
        let first = cache(folder.path());
        assert!(!left.exists());
        assert!(Cache::open(folder.path(), PRODUCT).unwrap().is_none());
        drop(first);
        assert!(Cache::open(folder.path(), PRODUCT).unwrap().is_some());
    }
}

//! One owner per data folder.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Held for as long as the program uses the data folder; the system frees it at the latest when
/// the process ends.
#[derive(Debug)]
pub struct DataLock {
    _file: fs::File,
}

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "data folder {folder} is in use by {}; stop it or use another --data-dir",
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The data folder.
        folder: PathBuf,
        /// Who; `None` in the instant before it has written its number.
        pid: Option<u32>,
    },
    /// The lock file cannot be made.
    #[error("lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

impl DataLock {
    /// Makes `data_dir` if it is missing and locks its file `lock`, which names the owner.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(data_dir: &Path) -> Result<Self, LockError> {
        let path = data_dir.join("lock");
        let failed = |source: io::Error| LockError::Io { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => {
                let mut owner = String::new();
                let pid = match file.read_to_string(&mut owner) {
                    Ok(_) => owner.trim().parse().ok(),
                    Err(_) => None,
                };
                return Err(LockError::InUse { folder: data_dir.to_owned(), pid });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let own = format!("{}\n", std::process::id());
        // A disk that is full must not keep the program from starting: the lock is held already.
        let written = file.set_len(0).and_then(|()| file.write_all(own.as_bytes()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot write the process id");
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_owner_learns_who_is_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let lock = DataLock::acquire(&data_dir).unwrap();
        let error = DataLock::acquire(&data_dir).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        DataLock::acquire(&data_dir).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let error = DataLock::acquire(&folder.path().join("file/data")).unwrap_err();
        assert!(error.to_string().contains("file/data/lock"), "{error}");
    }
}

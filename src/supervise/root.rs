//! The folders of the managed `QuestDB`. A kill during the very first start can ruin a data root
//! for good, so that start happens in `root.new`, which becomes `root` once it has answered: a
//! `root` that exists was healthy once and is never removed. Blocking.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Paths below `data_dir/questdb`.
#[derive(Debug, Clone)]
pub(super) struct Home {
    folder: PathBuf,
}

impl Home {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("questdb") }
    }

    /// The folder itself: it also marks the processes that belong to it.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    pub(super) fn new_root(&self) -> PathBuf {
        self.folder.join("root.new")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    pub(super) fn archives(&self) -> PathBuf {
        self.folder.join("startup")
    }

    /// Makes the folders and clears what only a running server needs.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for folder in [self.folder.clone(), self.log(), self.archives(), self.temporary()] {
            if folder == self.temporary() {
                remove(&folder)?;
            }
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| at(&folder, &error))?;
        }
        remove(&self.new_root())
    }

    /// Makes an empty `root.new`.
    pub(super) fn begin(&self) -> io::Result<()> {
        remove(&self.new_root())?;
        let made = fs::DirBuilder::new().mode(0o700).create(self.new_root());
        made.map_err(|error| at(&self.new_root(), &error))
    }

    /// Makes `root.new`, whose server has answered and ended, the root; durable.
    pub(super) fn promote(&self) -> io::Result<()> {
        let new = self.new_root();
        sync_tree(&new).map_err(|error| at(&new, &error))?;
        fs::rename(&new, self.root()).map_err(|error| at(&new, &error))?;
        fs::File::open(&self.folder)?.sync_all()
    }

    /// Removes `root.new`.
    pub(super) fn discard(&self) -> io::Result<()> {
        remove(&self.new_root())
    }
}

/// Writes `conf/server.conf` of `root`, readable by its owner alone, in one step.
pub(super) fn write_conf(root: &Path, text: &str) -> io::Result<()> {
    let folder = root.join("conf");
    let path = folder.join("server.conf");
    let partial = folder.join("server.conf.part");
    let write = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        remove(&partial)?;
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, &path)
    };
    write().map_err(|error| at(&path, &error))
}

/// Removes a folder or a file; that there is none is fine.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    fs::File::open(folder)?.sync_all()
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_never_removed_and_a_new_one_is_until_it_is_promoted() {
        let data = tempfile::tempdir().unwrap();
        let home = Home::of(data.path());
        home.prepare().unwrap();
        home.begin().unwrap();
        write_conf(&home.new_root(), "a=1\n").unwrap();
        home.prepare().unwrap();
        assert!(!home.new_root().exists());
        home.begin().unwrap();
        write_conf(&home.new_root(), "a=2\n").unwrap();
        home.promote().unwrap();
        home.prepare().unwrap();
        let conf = home.root().join("conf/server.conf");
        assert_eq!(fs::read_to_string(&conf).unwrap(), "a=2\n");
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(conf).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        // A second promotion must not replace it.
        home.begin().unwrap();
        assert!(home.promote().is_err());
        assert!(home.root().join("conf").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("questdb"), "a file").unwrap();
        let error = Home::of(data.path()).prepare().unwrap_err().to_string();
        assert!(error.contains("questdb"), "{error}");
    }
}

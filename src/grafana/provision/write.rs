//! Writes the files whole or not at all: into a folder beside, which then takes the place of the
//! old one in a single step. A Grafana that reads meanwhile sees the old files or the new ones.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::File;

/// Brings `folder` to exactly `files`; returns whether anything changed. Blocking.
///
/// # Errors
/// The folder beside cannot be written; `folder` is as it was then.
pub fn write(folder: &Path, files: &[File]) -> io::Result<bool> {
    if is_current(folder, files)? {
        return Ok(false);
    }
    let parent = folder.parent().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no folder", folder.display()))
    })?;
    private_folder(parent)?;
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let staging = parent.join(name);
    remove(&staging)?;
    let staged = stage(&staging, files).and_then(|()| replace(&staging, folder));
    // After an exchange the old files lie there; after an error a half of the new ones.
    let cleaned = remove(&staging);
    staged?;
    cleaned?;
    fs::File::open(parent)?.sync_all()?;
    Ok(true)
}

fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Writes all files below `staging`, on the disk before it returns.
fn stage(staging: &Path, files: &[File]) -> io::Result<()> {
    private_folder(staging)?;
    for file in files {
        let path = inside(staging, &file.path)?;
        private_folder(path.parent().unwrap_or(staging))?;
        let mut open = fs::OpenOptions::new();
        let mut handle = open.write(true).create_new(true).mode(file.mode).open(&path)?;
        handle.write_all(file.contents.reveal().as_bytes())?;
        // The process's umask may have taken bits away.
        handle.set_permissions(fs::Permissions::from_mode(file.mode))?;
        handle.sync_all()?;
    }
    Ok(())
}

/// Returns `folder`/`relative`, which must not lead out of it.
fn inside(folder: &Path, relative: &str) -> io::Result<PathBuf> {
    let relative = Path::new(relative);
    if relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(folder.join(relative));
    }
    let message = format!("{} leads out of {}", relative.display(), folder.display());
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Puts `staging` in the place of `folder`; the old one, if any, is at `staging` afterwards.
fn replace(staging: &Path, folder: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if !folder.exists() {
        return fs::rename(staging, folder);
    }
    match renameat_with(CWD, staging, CWD, folder, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // Some file systems cannot exchange; there the folder is absent for a moment.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            let old = folder.with_extension("old");
            remove(&old)?;
            fs::rename(folder, &old)?;
            fs::rename(staging, folder)?;
            remove(&old)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether `folder` holds exactly `files`, with these modes.
fn is_current(folder: &Path, files: &[File]) -> io::Result<bool> {
    let mut present = BTreeSet::new();
    match collect(folder, folder, &mut present) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        result => result?,
    }
    let wanted: BTreeSet<PathBuf> = files.iter().map(|file| PathBuf::from(&file.path)).collect();
    if present != wanted {
        return Ok(false);
    }
    for file in files {
        let path = folder.join(&file.path);
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        if mode != file.mode || fs::read(&path)? != file.contents.reveal().as_bytes() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(root, &entry.path(), found)?;
        } else if let Ok(relative) = entry.path().strip_prefix(root) {
            found.insert(relative.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Contents, PRIVATE, PUBLIC};
    use super::*;
    use crate::base::secret::Secret;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), contents: Contents::Text(text.to_owned()), mode: PUBLIC }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut found = BTreeSet::new();
        collect(folder, folder, &mut found).unwrap();
        found.into_iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_folder_becomes_exactly_the_files_and_stays_when_nothing_changes() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("grafana/conf");
        let secret = File {
            path: "secrets/token".to_owned(),
            contents: Contents::Secret(Secret::new("hush")),
            mode: PRIVATE,
        };
        let files = [file("a.yaml", "1"), file("deep/er/b.yaml", "2"), secret];
        assert!(write(&folder, &files).unwrap());
        assert!(!write(&folder, &files).unwrap(), "equal files are left alone");
        assert_eq!(names(&folder), ["a.yaml", "deep/er/b.yaml", "secrets/token"]);
        let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().permissions().mode();
        assert_eq!(mode("secrets/token") & 0o777, 0o600);
        assert_eq!(mode("a.yaml") & 0o777, 0o644);
        assert_eq!(mode("secrets") & 0o777, 0o700);

        assert!(write(&folder, &files[..1]).unwrap());
        assert_eq!(names(&folder), ["a.yaml"], "what is not wanted any more is gone");
        let beside = fs::read_dir(folder.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "nothing is left beside the folder");
    }

    #[test]
    fn changed_modes_are_mended() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("conf");
        let files = [file("a.yaml", "1")];
        write(&folder, &files).unwrap();
        let opened = fs::Permissions::from_mode(0o666);
        fs::set_permissions(folder.join("a.yaml"), opened).unwrap();
        assert!(write(&folder, &files).unwrap());
    }

    #[test]
    fn an_error_leaves_the_old_files() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("conf");
        write(&folder, &[file("a.yaml", "old")]).unwrap();
        let error = write(&folder, &[file("a.yaml", "new"), file("../out", "x")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(fs::read_to_string(folder.join("a.yaml")).unwrap(), "old");
        assert!(!temporary.path().join("out").exists());
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1, "no half is left");
    }

    #[test]
    fn what_a_crash_left_beside_is_no_obstacle() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("conf");
        fs::create_dir_all(temporary.path().join("conf.new/half")).unwrap();
        assert!(write(&folder, &[file("a.yaml", "1")]).unwrap());
        assert_eq!(names(&folder), ["a.yaml"]);
    }
}

//! The machine's file system.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{Entry, File, Files};

/// Files of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

#[derive(Debug)]
struct RealFile(fs::File);

fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl Files for RealFiles {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = match fs::OpenOptions::new().read(true).write(true).open(path) {
            // A spool on a file system that turned read-only can still be read and delivered.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                ) =>
            {
                fs::File::open(path)?
            }
            other => other?,
        };
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = fs::File::open(folder)?;
        uninterrupted(|| folder.sync_all())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // A file that vanishes between the two calls is simply not there.
            let Ok(metadata) = entry.metadata() else { continue };
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                entries.push(Entry { name, bytes: metadata.len() });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let figures = rustix::fs::statvfs(folder)?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }
}

impl File for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        uninterrupted(|| self.0.write_at(bytes, offset))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        uninterrupted(|| self.0.read_at(buffer, offset))
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        use rustix::io::Errno;
        let reserved = uninterrupted(|| {
            Ok(rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
        });
        match reserved {
            // The file system cannot reserve: a full disk shows later, at the write.
            Err(error)
                if [Errno::OPNOTSUPP, Errno::NOSYS]
                    .iter()
                    .any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) =>
            {
                self.set_len(bytes)
            }
            other => other,
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        uninterrupted(|| self.0.set_len(bytes))
    }

    fn sync(&self) -> io::Result<()> {
        // Never repeated: after an error the system may report success without having written.
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let named = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let own = self.0.metadata()?;
        Ok((named.dev(), named.ino()) == (own.dev(), own.ino()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{read_all, write_all_at};
    use super::*;

    #[test]
    fn a_file_is_written_read_renamed_and_found_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a/one"), folder.path().join("a/two"));
        RealFiles.create_folder(path.parent().unwrap()).unwrap();
        let file = RealFiles.create(&path).unwrap();
        file.reserve(8192).unwrap();
        write_all_at(file.as_ref(), b"spool", 3).unwrap();
        file.sync().unwrap();
        RealFiles.sync_folder(path.parent().unwrap()).unwrap();
        assert!(file.is_at(&path).unwrap());
        file.set_len(8).unwrap();
        assert_eq!(read_all(file.as_ref(), 8).unwrap(), b"\0\0\0spool");
        assert!(read_all(file.as_ref(), 7).is_err());
        RealFiles.rename(&path, &moved).unwrap();
        assert!(!file.is_at(&path).unwrap());
        let found = RealFiles.list(path.parent().unwrap()).unwrap();
        assert_eq!(found, [Entry { name: "two".into(), bytes: 8 }]);
        assert!(RealFiles.free_bytes(folder.path()).unwrap() > 0);
        RealFiles.unlink(&moved).unwrap();
        assert!(RealFiles.open(&moved).is_err());
        assert_eq!(file.size().unwrap(), 8);
    }
}

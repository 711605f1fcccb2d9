//! The file operations of spool and journal behind a small trait, so that faults can be injected.
//!
//! [`real::RealFiles`] is the machine's file system. [`memory::MemoryFiles`] is one in memory that
//! records every mutating operation, fails on demand, and produces what a crash would leave.

pub mod lock;
pub mod memory;
pub mod real;
pub mod replace;

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// A regular file found in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name without the folder.
    pub name: String,
    /// Size, bytes.
    pub bytes: u64,
}

/// A file system.
pub trait Files: Debug + Send + Sync {
    /// Makes `folder` and what is missing above it, readable by its owner only.
    ///
    /// # Errors
    /// As the system says.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// Makes the empty file `path`, which must not exist, readable by its owner only.
    ///
    /// # Errors
    /// As the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens the file `path`, which must exist, to read and write.
    ///
    /// # Errors
    /// As the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Renames a file, replacing `to`.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `folder` survive a crash.
    ///
    /// # Errors
    /// As the system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Returns the regular files in `folder`, ordered by name.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// Returns the bytes that an ordinary user may still write on the file system of `folder`.
    ///
    /// # Errors
    /// As the system says.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// An open file. All positions are absolute; there is no cursor.
pub trait File: Debug + Send {
    /// Writes at least one and at most all of `bytes` at `offset`; returns how many.
    ///
    /// # Errors
    /// As the system says; `Interrupted` is never returned.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// As the system says; `Interrupted` is never returned.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Grows the file to `bytes` with zeros and reserves the space, so that a full disk shows now.
    ///
    /// # Errors
    /// As the system says.
    fn reserve(&self, bytes: u64) -> io::Result<()>;

    /// Cuts or grows the file to `bytes`.
    ///
    /// # Errors
    /// As the system says.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes the content survive a crash. After an error it must not be believed to: the system
    /// reports a failed write back once and then forgets it.
    ///
    /// # Errors
    /// As the system says.
    fn sync(&self) -> io::Result<()>;

    /// Returns the size, bytes.
    ///
    /// # Errors
    /// As the system says.
    fn size(&self) -> io::Result<u64>;

    /// Whether `path` still names this very file: not deleted, not replaced.
    ///
    /// # Errors
    /// As the system says; a missing `path` is `Ok(false)`.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
}

/// Writes all of `bytes` at `offset`, however short the single writes are.
///
/// # Errors
/// As the system says; `WriteZero` when it takes nothing.
pub fn write_all_at(file: &dyn File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let (mut rest, mut offset) = (bytes, offset);
    while !rest.is_empty() {
        let written = file.write_at(rest, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = rest.get(written..).unwrap_or_default();
        offset = offset.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// Reads the file from its start to its end, at most `limit` bytes.
///
/// # Errors
/// As the system says; `FileTooLarge` when there is more than `limit`.
pub fn read_all(file: &dyn File, limit: u64) -> io::Result<Vec<u8>> {
    let length = file.size()?;
    if length > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut content = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let read = read_up_to(file, &mut content, 0)?;
    content.truncate(read);
    Ok(content)
}

/// Reads until `buffer` is full or the file ends; returns how many bytes.
///
/// # Errors
/// As the system says.
pub fn read_up_to(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        match file.read_at(rest, at)? {
            0 => break,
            read => filled = filled.saturating_add(read),
        }
    }
    Ok(filled)
}

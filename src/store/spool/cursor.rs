//! The file that remembers what is delivered. It may lag, never lead.

use std::io;
use std::path::{Path, PathBuf};

use super::format::{self, SLOT, Slot};
use crate::base::files::{File, Files, read_all, write_all_at};

/// The open cursor file and what it says.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    file: Option<Box<dyn File>>,
    /// What is on disk for certain.
    slot: Slot,
}

impl Cursor {
    /// Reads the cursor of `folder`; a missing or damaged one says that nothing is delivered.
    pub fn open(files: &dyn Files, folder: &Path) -> Self {
        let path = folder.join("cursor");
        let file = files.open(&path).ok();
        let content = file.as_deref().and_then(|file| read_all(file, 1 << 16).ok());
        let content = content.unwrap_or_default();
        let slot = newest(&content).unwrap_or_default();
        Self { path, file, slot }
    }

    /// Returns what is on disk.
    pub const fn slot(&self) -> Slot {
        self.slot
    }

    /// Makes `slot` durable; its count is chosen here. Does nothing when the disk says so already.
    ///
    /// # Errors
    /// As the system says; what was there before still counts.
    pub fn write(&mut self, files: &dyn Files, slot: Slot) -> io::Result<()> {
        if (Slot { count: self.slot.count, ..slot }) == self.slot && self.file.is_some() {
            return Ok(());
        }
        let slot = Slot { count: self.slot.count.saturating_add(1), ..slot };
        let written = match self.file.as_deref() {
            Some(file) if matches!(file.is_at(&self.path), Ok(true)) => write_slot(file, slot),
            Some(_) | None => {
                self.file = None;
                self.file = Some(replace(files, &self.path, slot)?);
                Ok(())
            }
        };
        match written {
            Ok(()) => self.slot = slot,
            // After a failed sync the file is never trusted again: the next write makes a new one.
            Err(_) => self.file = None,
        }
        written
    }
}

/// Returns the slot in the content of a cursor file that counts; `None` when none is intact.
pub fn newest(content: &[u8]) -> Option<Slot> {
    let slots = content.chunks(SLOT).take(2).filter_map(format::slot);
    slots.max_by_key(|slot| slot.count)
}

fn write_slot(file: &dyn File, slot: Slot) -> io::Result<()> {
    let offset = if slot.count.is_multiple_of(2) { 0 } else { u64::try_from(SLOT).unwrap_or(64) };
    write_all_at(file, &slot.encode(), offset)?;
    file.sync()
}

/// Writes a new file beside `path` and puts it in its place.
fn replace(files: &dyn Files, path: &Path, slot: Slot) -> io::Result<Box<dyn File>> {
    let fresh = path.with_extension("new");
    if let Some(folder) = path.parent() {
        // Somebody may have deleted it.
        files.create_folder(folder)?;
    }
    match files.unlink(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = files.create(&fresh)?;
    write_slot(file.as_ref(), slot)?;
    files.rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        files.sync_folder(folder)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::files::memory::{EIO, MemoryFiles};

    fn slot(delivered: u64) -> Slot {
        Slot { delivered, next: delivered + 5, ..Slot::default() }
    }

    #[test]
    fn the_last_write_counts_and_garbage_counts_for_nothing() {
        let (files, folder) = (MemoryFiles::default(), Path::new("/s"));
        files.create_folder(folder).unwrap();
        let mut cursor = Cursor::open(&files, folder);
        assert_eq!(cursor.slot(), Slot::default());
        for delivered in 1..=5 {
            cursor.write(&files, slot(delivered)).unwrap();
            assert_eq!(Cursor::open(&files, folder).slot().delivered, delivered);
        }
        let operations = files.operations();
        cursor.write(&files, slot(5)).unwrap();
        assert_eq!(files.operations(), operations);
        files.plant(&folder.join("cursor"), vec![7; 300]);
        assert_eq!(Cursor::open(&files, folder).slot(), Slot::default());
    }

    #[test]
    fn a_failed_write_leaves_the_last_one_and_the_next_makes_a_new_file() {
        let (files, folder) = (MemoryFiles::default(), Path::new("/s"));
        files.create_folder(folder).unwrap();
        let mut cursor = Cursor::open(&files, folder);
        cursor.write(&files, slot(1)).unwrap();
        let next = files.operations();
        files.fail(next + 1..next + 2, EIO);
        cursor.write(&files, slot(2)).unwrap_err();
        assert_eq!(cursor.slot().delivered, 1);
        cursor.write(&files, slot(3)).unwrap();
        assert_eq!(Cursor::open(&files, folder).slot().delivered, 3);
    }
}

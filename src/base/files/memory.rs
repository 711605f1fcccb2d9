//! A file system in memory for tests: it records every mutating operation, fails on demand, and
//! produces what a crash would leave.
//!
//! The model is as unkind as POSIX allows. Without [`File::sync`] any part of what was written may
//! be lost, in units of 512 bytes and in any order; without [`Files::sync_folder`] a name may be
//! missing, old or still there. After a failed sync the earlier writes of that file are never
//! safe again, whatever later syncs report.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Entry, File, Files};

/// Unit in which a write tears, bytes.
pub const SECTOR: u64 = 512;

/// A mutating operation as it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A folder was made.
    CreateFolder(PathBuf),
    /// An empty file was made.
    Create(PathBuf, u64),
    /// Bytes were written to a file at an offset.
    Write(u64, u64, Vec<u8>),
    /// A file was cut or grown.
    Resize(u64, u64),
    /// A file was synced; `false`: with an error.
    Sync(u64, bool),
    /// The names in a folder were synced.
    SyncFolder(PathBuf),
    /// A file was renamed.
    Rename(PathBuf, PathBuf),
    /// A name was removed.
    Unlink(PathBuf),
    /// Somebody else replaced the content of a file, for good.
    Planted(PathBuf, u64, Vec<u8>),
    /// Somebody else removed a folder, for good.
    RemovedFolder(PathBuf),
    /// It failed without an effect.
    Failed,
}

/// What an operation does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fails with this errno.
    Errno(i32),
    /// A write takes only half of its bytes; other operations work.
    Short,
}

/// ENOSPC, "no space left on device".
pub const ENOSPC: Fault = Fault::Errno(28);
/// EIO, "input/output error".
pub const EIO: Fault = Fault::Errno(5);
/// EROFS, "read-only file system".
pub const EROFS: Fault = Fault::Errno(30);

/// What a crash makes of an operation that no sync covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It took effect.
    Kept,
    /// It never happened.
    Lost,
    /// Of a write, the sectors whose bit is set (modulo 64) took effect; other operations did.
    Torn(u64),
}

#[derive(Debug, Clone, Default)]
struct Tree {
    folders: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    contents: BTreeMap<u64, Vec<u8>>,
}

#[derive(Debug, Default)]
struct State {
    now: Tree,
    start: Tree,
    log: Vec<Operation>,
    faults: Vec<(Range<usize>, Fault)>,
    capacity: Option<u64>,
    next_inode: u64,
}

/// A file system in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles(Arc<Mutex<State>>);

#[derive(Debug)]
struct MemoryFile {
    files: MemoryFiles,
    inode: u64,
}

fn size(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Tree {
    fn apply(&mut self, operation: &Operation, fate: Fate) {
        if fate == Fate::Lost {
            return;
        }
        match operation {
            Operation::CreateFolder(path) => {
                self.folders.extend(path.ancestors().map(Path::to_owned));
            }
            Operation::Create(path, inode) => {
                self.names.insert(path.clone(), *inode);
                self.contents.entry(*inode).or_default();
            }
            Operation::Write(inode, offset, bytes) => {
                self.write(*inode, *offset, bytes, fate);
            }
            Operation::Resize(inode, bytes) => {
                self.contents.entry(*inode).or_default().resize(index(*bytes), 0);
            }
            Operation::Rename(from, to) => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                }
            }
            Operation::Unlink(path) => {
                self.names.remove(path);
            }
            Operation::Planted(path, inode, content) => {
                self.folders.extend(path.ancestors().skip(1).map(Path::to_owned));
                self.names.insert(path.clone(), *inode);
                self.contents.insert(*inode, content.clone());
            }
            Operation::RemovedFolder(folder) => {
                self.names.retain(|path, _| !path.starts_with(folder));
                self.folders.retain(|path| !path.starts_with(folder));
            }
            Operation::Sync(..) | Operation::SyncFolder(_) | Operation::Failed => {}
        }
    }

    fn write(&mut self, inode: u64, offset: u64, bytes: &[u8], fate: Fate) {
        let content = self.contents.entry(inode).or_default();
        let end = index(offset).saturating_add(bytes.len());
        if content.len() < end {
            content.resize(end, 0);
        }
        let Some(places) = content.get_mut(index(offset)..end) else { return };
        let Fate::Torn(sectors) = fate else {
            places.copy_from_slice(bytes);
            return;
        };
        for ((at, place), byte) in (offset..).zip(places).zip(bytes) {
            if sectors >> ((at / SECTOR) % 64) & 1 == 1 {
                *place = *byte;
            }
        }
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|inode| self.contents.get(inode))
            .map(|c| size(c.len()))
            .sum()
    }
}

impl State {
    /// Does `operation`, unless it is its turn to fail.
    fn perform(&mut self, operation: Operation) -> io::Result<()> {
        let turn = self.log.len();
        let fault = self.faults.iter().find(|(turns, _)| turns.contains(&turn));
        if let Some((_, Fault::Errno(errno))) = fault {
            let errno = *errno;
            self.log.push(match operation {
                Operation::Sync(inode, _) => Operation::Sync(inode, false),
                Operation::CreateFolder(_)
                | Operation::Create(..)
                | Operation::Write(..)
                | Operation::Resize(..)
                | Operation::SyncFolder(_)
                | Operation::Rename(..)
                | Operation::Unlink(_)
                | Operation::Planted(..)
                | Operation::RemovedFolder(_)
                | Operation::Failed => Operation::Failed,
            });
            return Err(io::Error::from_raw_os_error(errno));
        }
        let mut after = None;
        if let (Some(capacity), Operation::Write(..) | Operation::Resize(..)) =
            (self.capacity, &operation)
        {
            let mut tree = self.now.clone();
            tree.apply(&operation, Fate::Kept);
            if tree.used() > capacity && tree.used() > self.now.used() {
                self.log.push(Operation::Failed);
                return Err(io::ErrorKind::StorageFull.into());
            }
            after = Some(tree);
        }
        match after {
            Some(tree) => self.now = tree,
            None => self.now.apply(&operation, Fate::Kept),
        }
        self.log.push(operation);
        Ok(())
    }

    fn is_short(&self) -> bool {
        let turn = self.log.len();
        self.faults.iter().any(|(turns, fault)| turns.contains(&turn) && *fault == Fault::Short)
    }
}

impl MemoryFiles {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the mutating operations with these numbers (the first is 0) go wrong.
    pub fn fail(&self, turns: Range<usize>, fault: Fault) {
        self.lock().faults.push((turns, fault));
    }

    /// Takes back all faults.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Limits the sum of all file sizes, bytes; growing beyond it is `StorageFull`.
    pub fn limit(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    /// Removes `folder` with everything in it, as somebody else would.
    pub fn remove_folder(&self, folder: &Path) {
        self.interfere(Operation::RemovedFolder(folder.to_owned()));
    }

    /// Replaces the content of `path`, as somebody else would; makes the file if it is missing.
    pub fn plant(&self, path: &Path, content: Vec<u8>) {
        let inode = {
            let mut state = self.lock();
            let fresh = state.next_inode;
            state.next_inode += 1;
            state.now.names.get(path).copied().unwrap_or(fresh)
        };
        self.interfere(Operation::Planted(path.to_owned(), inode, content));
    }

    fn interfere(&self, operation: Operation) {
        let mut state = self.lock();
        state.now.apply(&operation, Fate::Kept);
        state.log.push(operation);
    }

    /// Returns the content of `path`.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        state.now.contents.get(state.now.names.get(path)?).cloned()
    }

    /// Returns all paths.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.lock().now.names.keys().cloned().collect()
    }

    /// Returns how many mutating operations there were, failed ones included.
    pub fn operations(&self) -> usize {
        self.lock().log.len()
    }

    /// Returns the numbers of those among the first `prefix` operations whose effect a crash right
    /// after them may undo.
    pub fn unsettled(&self, prefix: usize) -> Vec<usize> {
        let state = self.lock();
        let log = state.log.get(..prefix).unwrap_or(&state.log);
        let settled = |number: usize, operation: &Operation| {
            let mut later = log.iter().skip(number + 1);
            match operation {
                Operation::Write(inode, ..) | Operation::Resize(inode, _) => {
                    let of_this = |next: &&Operation| {
                        matches!(next, Operation::Sync(synced, _) if synced == inode)
                    };
                    later.find(of_this) == Some(&Operation::Sync(*inode, true))
                }
                Operation::Create(path, _)
                | Operation::Rename(path, _)
                | Operation::Unlink(path)
                | Operation::CreateFolder(path) => later.any(
                    |next| matches!(next, Operation::SyncFolder(synced) if path.parent() == Some(synced)),
                ),
                Operation::Sync(..)
                | Operation::SyncFolder(_)
                | Operation::Planted(..)
                | Operation::RemovedFolder(_)
                | Operation::Failed => true,
            }
        };
        let numbered = log.iter().enumerate();
        numbered.filter(|(number, op)| !settled(*number, op)).map(|(number, _)| number).collect()
    }

    /// Returns the file system that a crash after the first `prefix` operations leaves, when those
    /// that no sync covers meet their `fate`. It starts with an empty log, no fault and no limit.
    #[must_use]
    pub fn after_crash(&self, prefix: usize, fate: impl Fn(usize) -> Fate) -> Self {
        let unsettled: BTreeSet<usize> = self.unsettled(prefix).into_iter().collect();
        let state = self.lock();
        let mut tree = state.start.clone();
        for (number, operation) in state.log.iter().take(prefix).enumerate() {
            let fate = if unsettled.contains(&number) { fate(number) } else { Fate::Kept };
            tree.apply(operation, fate);
        }
        Self::starting_with(tree, state.next_inode)
    }

    /// Returns a copy as it is now, with an empty log, no fault and no limit.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.lock();
        Self::starting_with(state.now.clone(), state.next_inode)
    }

    fn starting_with(tree: Tree, next_inode: u64) -> Self {
        let state = State { now: tree.clone(), start: tree, next_inode, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl Files for MemoryFiles {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.now.folders.contains(folder) {
            return Ok(());
        }
        state.perform(Operation::CreateFolder(folder.to_owned()))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let inode = {
            let mut state = self.lock();
            if !path.parent().is_some_and(|folder| state.now.folders.contains(folder)) {
                return Err(missing());
            }
            if state.now.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = state.next_inode;
            state.next_inode += 1;
            state.perform(Operation::Create(path.to_owned(), inode))?;
            inode
        };
        Ok(Box::new(MemoryFile { files: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let inode = *self.lock().now.names.get(path).ok_or_else(missing)?;
        Ok(Box::new(MemoryFile { files: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if !state.now.names.contains_key(from) {
            return Err(missing());
        }
        state.perform(Operation::Rename(from.to_owned(), to.to_owned()))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if !state.now.names.contains_key(path) {
            return Err(missing());
        }
        state.perform(Operation::Unlink(path.to_owned()))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if !state.now.folders.contains(folder) {
            return Err(missing());
        }
        state.perform(Operation::SyncFolder(folder.to_owned()))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let state = self.lock();
        if !state.now.folders.contains(folder) {
            return Err(missing());
        }
        let inside = state.now.names.iter().filter(|(path, _)| path.parent() == Some(folder));
        Ok(inside
            .map(|(path, inode)| Entry {
                name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                bytes: state.now.contents.get(inode).map_or(0, |content| size(content.len())),
            })
            .collect())
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        let state = self.lock();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.now.used())))
    }
}

impl File for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.files.lock();
        let taken = if state.is_short() { bytes.len().div_ceil(2) } else { bytes.len() };
        let part = bytes.get(..taken).unwrap_or(bytes).to_vec();
        state.perform(Operation::Write(self.inode, offset, part))?;
        Ok(taken)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.files.lock();
        let content = state.now.contents.get(&self.inode).map_or(&[][..], Vec::as_slice);
        let rest = content.get(index(offset)..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        if let (Some(places), Some(bytes)) = (buffer.get_mut(..read), rest.get(..read)) {
            places.copy_from_slice(bytes);
        }
        Ok(read)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let bytes = bytes.max(self.size()?);
        self.files.lock().perform(Operation::Resize(self.inode, bytes))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.files.lock().perform(Operation::Resize(self.inode, bytes))
    }

    fn sync(&self) -> io::Result<()> {
        self.files.lock().perform(Operation::Sync(self.inode, true))
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.files.lock();
        Ok(state.now.contents.get(&self.inode).map_or(0, |content| size(content.len())))
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.files.lock().now.names.get(path) == Some(&self.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_file() -> (MemoryFiles, Box<dyn File>) {
        let files = MemoryFiles::default();
        files.create_folder(Path::new("/s")).unwrap();
        let file = files.create(Path::new("/s/a")).unwrap();
        (files, file)
    }

    #[test]
    fn only_synced_writes_and_names_survive_for_certain() {
        let (files, file) = one_file();
        file.write_at(&[1; 1024], 0).unwrap();
        assert_eq!(files.unsettled(3), [0, 1, 2]);
        file.sync().unwrap();
        files.sync_folder(Path::new("/s")).unwrap();
        files.sync_folder(Path::new("/t")).unwrap_err();
        file.write_at(&[2; 1024], 0).unwrap();
        assert_eq!(files.unsettled(6), [0, 5]);
        let path = Path::new("/s/a");
        let image =
            |fate| files.after_crash(6, |number| if number == 5 { fate } else { Fate::Kept });
        assert_eq!(image(Fate::Lost).content(path).unwrap(), [1; 1024]);
        assert_eq!(image(Fate::Kept).content(path).unwrap(), [2; 1024]);
        let torn = image(Fate::Torn(2)).content(path).unwrap();
        assert!(torn[..512].iter().all(|byte| *byte == 1) && torn[512..].iter().all(|b| *b == 2));
        assert_eq!(files.after_crash(2, |_| Fate::Lost).paths(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_failed_sync_makes_the_earlier_writes_unsafe_for_ever() {
        let (files, file) = one_file();
        files.fail(3..4, EIO);
        file.write_at(b"x", 0).unwrap();
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
        file.write_at(b"y", 1).unwrap();
        file.sync().unwrap();
        assert_eq!(files.unsettled(6), [0, 1, 2]);
    }

    #[test]
    fn a_limit_and_short_writes_hold() {
        let (files, file) = one_file();
        files.limit(Some(100));
        assert_eq!(file.reserve(101).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.reserve(90).unwrap();
        assert_eq!(files.free_bytes(Path::new("/s")).unwrap(), 10);
        let next = files.operations();
        files.fail(next..next + 1, Fault::Short);
        assert_eq!(file.write_at(&[7; 10], 0).unwrap(), 5);
        super::super::write_all_at(file.as_ref(), &[7; 10], 0).unwrap();
        assert_eq!(file.size().unwrap(), 90);
        assert!(!file.is_at(Path::new("/s/b")).unwrap());
    }
}

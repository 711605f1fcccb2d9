//! What a child prints: read without ever holding the child back, kept in a rotated file, shown in
//! the log, and its last lines remembered to explain its end.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::base::tasks::spawn_thread;

/// Size at which the file is rotated, bytes.
const FILE_LIMIT: u64 = 10 << 20;
/// Files kept besides the current one.
const OLD_FILES: u32 = 2;
/// Longest line; the rest counts as another line.
const LINE_LIMIT: u64 = 64 * 1024;
/// Lines between reading and writing; more are dropped and counted.
const WAITING_LINES: usize = 4096;
/// Lines remembered.
const REMEMBERED: usize = 40;

/// Where the output of a child goes.
#[derive(Debug, Clone)]
pub struct Sink {
    /// The file; its folder exists.
    pub file: PathBuf,
    /// Logs one line under the child's own target.
    pub log: fn(&str),
    /// Whether a line tells of something wrong; such lines are remembered longer.
    pub is_wrong: fn(&str) -> bool,
}

/// The last lines of a child; clones share them.
#[derive(Debug, Clone)]
pub struct Tail {
    lines: Arc<Mutex<Lines>>,
    ended: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Lines {
    /// The last lines, stack frames left out.
    all: VecDeque<String>,
    /// The last lines that tell of something wrong.
    wrong: VecDeque<String>,
}

impl Tail {
    /// Returns the last lines, oldest first, frames of stack traces left out.
    pub fn lines(&self) -> Vec<String> {
        self.lock().all.iter().cloned().collect()
    }

    /// Returns the last lines that tell of errors, oldest first.
    pub fn errors(&self) -> Vec<String> {
        self.lock().wrong.iter().cloned().collect()
    }

    /// Waits until the child has closed its output.
    pub async fn ended(&mut self) {
        // An error means that the reader is gone, which is the same.
        drop(self.ended.wait_for(|ended| *ended).await);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn push(&mut self, line: &str, is_wrong: bool) {
        // A frame of a Java stack trace says nothing to an operator.
        if line.starts_with("\tat ") || line.trim().is_empty() {
            return;
        }
        let keep = |list: &mut VecDeque<String>| {
            if list.len() >= REMEMBERED {
                list.pop_front();
            }
            list.push_back(line.chars().take(500).collect());
        };
        keep(&mut self.all);
        if is_wrong {
            keep(&mut self.wrong);
        }
    }
}

/// Whether a line of `QuestDB` or of its Java tells of something wrong.
pub fn tells_of_an_error(line: &str) -> bool {
    is_severe(line) || ["Exception", "Error", "error:"].iter().any(|word| line.contains(word))
}

/// Whether the level of a log line of `QuestDB` (`2026-… E server-main …`) is error or critical.
pub fn is_severe(line: &str) -> bool {
    matches!(line.split(' ').nth(1), Some("E" | "C"))
}

/// Starts reading `pipe` until the child closes it.
///
/// # Errors
/// A thread cannot be started.
pub fn read(name: &str, pipe: io::PipeReader, sink: Sink) -> io::Result<Tail> {
    let lines = Arc::new(Mutex::new(Lines::default()));
    let (ended, ended_receiver) = watch::channel(false);
    let (to_file, waiting) = sync_channel::<String>(WAITING_LINES);
    let (shared, is_wrong) = (Arc::clone(&lines), sink.is_wrong);
    // Two threads: a disk that hangs must stop the file, never the child's output.
    spawn_thread(&format!("{name}-log"), move || write_lines(&waiting, &sink))?;
    spawn_thread(&format!("{name}-out"), move || {
        read_lines(pipe, &shared, &to_file, is_wrong);
        ended.send_replace(true);
    })?;
    Ok(Tail { lines, ended: ended_receiver })
}

fn read_lines(
    pipe: io::PipeReader,
    lines: &Mutex<Lines>,
    to_file: &SyncSender<String>,
    is_wrong: fn(&str) -> bool,
) {
    let mut reader = BufReader::new(pipe);
    let mut buffer = Vec::new();
    let mut dropped = 0_u64;
    loop {
        buffer.clear();
        match (&mut reader).take(LINE_LIMIT).read_until(b'\n', &mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&buffer).trim_end().to_owned();
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(&line, is_wrong(&line));
        if dropped > 0 && to_file.try_send(format!("({dropped} lines dropped)")).is_ok() {
            dropped = 0;
        }
        match to_file.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => dropped += 1,
            // The writer has ended by a panic: the child still has to be read.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }
}

fn write_lines(waiting: &Receiver<String>, sink: &Sink) {
    let mut file = LogFile::open(&sink.file);
    let mut failing = false;
    for line in waiting {
        (sink.log)(&line);
        let outcome = file.as_mut().map_or(Ok(()), |file| file.append(&line));
        if let Err(error) = &outcome
            && !failing
        {
            tracing::warn!(file = %sink.file.display(), %error, "the log of the child is not kept");
        }
        failing = outcome.is_err();
    }
}

/// A file that is rotated by size: `name`, `name.1`, `name.2`.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: fs::File,
    size: u64,
}

impl LogFile {
    /// `None` when it cannot be opened, which is logged once.
    fn open(path: &Path) -> Option<Self> {
        let opened = fs::File::options().create(true).append(true).open(path).and_then(|file| {
            let size = file.metadata()?.len();
            Ok(Self { path: path.to_owned(), file, size })
        });
        opened
            .inspect_err(|error| {
                tracing::warn!(file = %path.display(), %error, "the log of the child is not kept");
            })
            .ok()
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        if self.size >= FILE_LIMIT {
            self.rotate()?;
        }
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes())?;
        self.size += u64::try_from(line.len()).unwrap_or(0);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u32| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..OLD_FILES).rev() {
            let from = numbered(number);
            if from.exists() {
                fs::rename(from, numbered(number + 1))?;
            }
        }
        fs::rename(&self.path, numbered(1))?;
        self.file = fs::File::options().create(true).append(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: fn(&str) = |_| {};

    #[tokio::test]
    async fn every_line_is_kept_and_the_last_errors_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child.log");
        let (reader, mut writer) = io::pipe().unwrap();
        let sink = Sink { file: file.clone(), log: QUIET, is_wrong: tells_of_an_error };
        let mut tail = read("test", reader, sink).unwrap();
        writer.write_all(b"2026-11-24T19:50:24Z I server-main fine\n").unwrap();
        writer
            .write_all(b"io.questdb.X$BootstrapException: no\n\tat io.questdb.A.b(A.java:1)\n")
            .unwrap();
        writer.write_all(b"2026-11-24T19:50:24Z C server-main \xff cut").unwrap();
        drop(writer);
        tail.ended().await;
        assert_eq!(tail.lines().len(), 3);
        assert_eq!(tail.errors().len(), 2, "{:?}", tail.errors());
        let start = std::time::Instant::now();
        while fs::read_to_string(&file).unwrap_or_default().lines().count() < 4 {
            assert!(start.elapsed().as_secs() < 10);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    #[test]
    fn the_file_is_rotated_and_old_ones_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("child.log");
        let mut file = LogFile::open(&path).unwrap();
        for round in 0..5 {
            file.append(&format!("round {round}")).unwrap();
            file.size = FILE_LIMIT;
        }
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("child.log"), "round 4\n");
        assert_eq!(read("child.log.1"), "round 3\n");
        assert_eq!(read("child.log.2"), "round 2\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_does_not_hold_the_child_back() {
        let (reader, mut writer) = io::pipe().unwrap();
        let file = PathBuf::from("/nowhere/child.log");
        let sink = Sink { file, log: QUIET, is_wrong: tells_of_an_error };
        let mut tail = read("test", reader, sink).unwrap();
        for _ in 0..100_000 {
            writer.write_all(b"a line that nobody keeps\n").unwrap();
        }
        drop(writer);
        tail.ended().await;
        assert_eq!(tail.lines().len(), REMEMBERED);
    }
}

//! Servers that a killed predecessor has left behind. They are ended before a new one starts: two
//! servers on one data root would destroy it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::spawner::OWNER;

/// What tells our server from any other.
#[derive(Debug, Clone)]
pub struct Marks {
    /// What it is called in messages: `questdb`.
    pub name: &'static str,
    /// Value of [`OWNER`] in its environment.
    pub owner: PathBuf,
    /// Data roots; a server started by hand on one of them counts too.
    pub roots: Vec<PathBuf>,
}

/// A process that bears our marks.
#[derive(Debug)]
struct Orphan {
    pid: Pid,
    /// Keeps the id from meaning another process; `None` where the kernel has none.
    descriptor: Option<OwnedFd>,
}

/// A process that could not be ended.
#[derive(Debug, thiserror::Error)]
#[error("process {pid} still runs on the data of {name}: {reason}; end it with: kill -9 {pid}")]
pub struct StillRuns {
    /// Whose data.
    pub name: &'static str,
    /// Its id.
    pub pid: u32,
    /// Why it could not be ended.
    pub reason: String,
}

/// Ends every process with our marks: SIGTERM, SIGKILL after `grace`; returns how many there were
/// once all are gone.
///
/// # Errors
/// One cannot be ended.
pub async fn end(marks: &Marks, grace: Duration) -> Result<usize, StillRuns> {
    let mut asked: Vec<u32> = Vec::new();
    let mut start = Instant::now();
    let mut signal = Signal::TERM;
    loop {
        let looked_for = marks.clone();
        let found = tokio::task::spawn_blocking(move || find(&looked_for)).await;
        let found = found.unwrap_or_default();
        if found.is_empty() {
            return Ok(asked.len());
        }
        let waited = start.elapsed();
        if waited > grace && signal == Signal::TERM {
            (signal, start) = (Signal::KILL, Instant::now());
            asked.clear();
        }
        for orphan in &found {
            let pid = orphan.pid();
            if waited > grace && signal == Signal::KILL && asked.contains(&pid) {
                let reason = format!("SIGKILL had no effect for {waited:?}");
                return Err(StillRuns { name: marks.name, pid, reason });
            }
            if !asked.contains(&pid) {
                let name = marks.name;
                tracing::warn!(pid, ?signal, "a {name} of a killed periscope still runs");
                let failed = |error: io::Error| StillRuns { name, pid, reason: error.to_string() };
                orphan.send(signal).map_err(failed)?;
                asked.push(pid);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Orphan {
    const fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    fn send(&self, signal: Signal) -> io::Result<()> {
        let sent = match &self.descriptor {
            Some(descriptor) => pidfd_send_signal(descriptor, signal),
            None => kill_process(self.pid, signal),
        };
        match sent {
            // It has ended meanwhile, which is what is wanted.
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns every live process with our marks, this one left out. Blocking, a few milliseconds.
fn find(marks: &Marks) -> Vec<Orphan> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(own))
        .filter(|pid| bears(marks, *pid))
        .filter_map(|pid| {
            let raw = pid;
            let pid = Pid::from_raw(pid)?;
            let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok();
            // Looked at again: the id may have gone to another process before it was pinned down.
            bears(marks, raw).then_some(Orphan { pid, descriptor })
        })
        .collect()
}

fn bears(marks: &Marks, pid: i32) -> bool {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    if is_zombie(&read("stat")) {
        return false;
    }
    let mut owner = format!("{OWNER}=").into_bytes();
    owner.extend_from_slice(marks.owner.as_os_str().as_bytes());
    let marked = read("environ").split(|byte| *byte == 0).any(|variable| variable == owner);
    marked || runs_on(&read("cmdline"), &marks.roots)
}

/// Whether a command line is that of a `QuestDB` with `-d ROOT`.
fn runs_on(command: &[u8], roots: &[PathBuf]) -> bool {
    let arguments: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    let is_server = arguments.iter().any(|argument| argument.starts_with(b"io.questdb"));
    is_server
        && arguments.windows(2).any(|pair| {
            let [flag, value] = pair else { return false };
            *flag == b"-d" && roots.iter().any(|root| same(root, value))
        })
}

fn same(root: &Path, argument: &[u8]) -> bool {
    let argument = Path::new(std::ffi::OsStr::from_bytes(argument));
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    argument == root || (argument.is_absolute() && real(argument) == real(root))
}

fn is_zombie(stat: &[u8]) -> bool {
    // The name in parentheses may itself hold any character.
    let after_name = stat.iter().rposition(|byte| *byte == b')').and_then(|at| stat.get(at + 2));
    matches!(after_name, None | Some(b'Z' | b'X'))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn marks(folder: &Path) -> Marks {
        Marks { name: "questdb", owner: folder.to_owned(), roots: vec![folder.join("root")] }
    }

    #[test]
    fn a_command_line_is_recognised_by_server_and_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(&root, folder.path().join("link")).unwrap();
        let line = |server: &str, flag: &str, root: &str| {
            format!("java\0-m\0{server}\0{flag}\0{root}\0").into_bytes()
        };
        let server = "io.questdb/io.questdb.ServerMain";
        let text = root.display().to_string();
        let link = folder.path().join("link").display().to_string();
        let roots = [root];
        assert!(runs_on(&line(server, "-d", &text), &roots));
        assert!(runs_on(&line(server, "-d", &link), &roots));
        assert!(runs_on(&line(server, "-d", &format!("{text}/")), &roots));
        assert!(!runs_on(&line(server, "-d", &format!("{text}2")), &roots));
        assert!(!runs_on(&line(server, "-x", &text), &roots));
        assert!(!runs_on(&line("vim", "-d", &text), &roots));
    }

    #[tokio::test]
    async fn a_marked_process_is_ended_even_when_it_ignores_the_request_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let start = |owner: &Path| {
            Command::new("/bin/sh")
                .args(["-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"])
                .env(OWNER, owner)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let (mut ours, mut theirs) = (start(folder.path()), start(other.path()));
        for child in [&mut ours, &mut theirs] {
            let mut ready = [0_u8; 6];
            io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        }
        let ended = end(&marks(folder.path()), Duration::from_millis(300)).await.unwrap();
        assert!(ended >= 1);
        assert!(!ours.wait().unwrap().success());
        assert!(theirs.try_wait().unwrap().is_none(), "another's process was ended");
        theirs.kill().unwrap();
        theirs.wait().unwrap();
        assert_eq!(end(&marks(folder.path()), Duration::from_secs(1)).await.unwrap(), 0);
    }
}

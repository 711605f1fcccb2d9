//! The one long-lived thread that forks. `PR_SET_PDEATHSIG` is bound to the thread that forked: a
//! child of a pool thread would be ended when the pool shrinks (measured: after 10 s). So every
//! child comes from here, and this thread never ends while the process lives.
//!
//! The only module with `unsafe`: a few system calls between fork and exec.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getppid, set_parent_process_death_signal,
    setpriority_process, setrlimit,
};
use tokio::sync::{mpsc, oneshot};

use super::child::Child;
use super::output::{self, Sink};
use crate::base::tasks::spawn_thread;

/// Requests that may wait; children are few.
const WAITING: usize = 16;

/// Trading daemons come first on the machine: lower CPU priority. The kernel derives the I/O
/// priority from it (best effort, level 6 of 0 to 7).
const NICE: i32 = 10;

/// Environment variable that marks a child as somebody's; see [`super::orphan`].
pub const OWNER: &str = "PERISCOPE_INSTANCE";

/// What to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Short name for threads and logs: `questdb`.
    pub name: &'static str,
    /// The program.
    pub program: PathBuf,
    /// Its arguments; other users of the machine can read them.
    pub arguments: Vec<OsString>,
    /// Its whole environment besides [`OWNER`]; nothing is inherited.
    pub environment: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Value of [`OWNER`]: finds the child again after this process was killed.
    pub owner: PathBuf,
    /// Signal that the kernel sends it when this process dies.
    pub on_owner_death: Signal,
    /// How much more likely the kernel ends it than others when memory runs out, 0 to 1000.
    pub oom_score_adj: u16,
    /// Where its output goes.
    pub sink: Sink,
}

/// Handle of the thread; clones share it.
#[derive(Debug, Clone)]
pub struct Spawner {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Request {
    launch: Launch,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Starts the thread. Call it once, early; it lives as long as the process.
///
/// # Errors
/// The system refuses another thread.
pub fn start() -> io::Result<Spawner> {
    let (requests, mut waiting) = mpsc::channel::<Request>(WAITING);
    let immortal = requests.clone();
    spawn_thread("spawner", move || {
        // The thread holds a sender itself: the channel never closes, so the loop never ends, even
        // when every other handle is gone while a child still runs.
        let _immortal = immortal;
        while let Some(Request { launch, reply }) = waiting.blocking_recv() {
            // Nobody waits any more: dropping the child ends it.
            drop(reply.send(launch_child(launch)));
        }
    })?;
    Ok(Spawner { requests })
}

impl Spawner {
    /// Starts a child.
    ///
    /// # Errors
    /// The program cannot be started; the error names it.
    pub async fn spawn(&self, launch: Launch) -> io::Result<Child> {
        let gone = || io::Error::other("the spawner thread has ended");
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { launch, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn launch_child(launch: Launch) -> io::Result<Child> {
    let Launch { name, program, sink, .. } = &launch;
    let at = |error: io::Error| {
        io::Error::new(error.kind(), format!("start {}: {error}", program.display()))
    };
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(&launch.arguments)
        .env_clear()
        .envs(launch.environment.iter().map(|(key, value)| (key, value)))
        .env(OWNER, &launch.owner)
        .current_dir(&launch.directory)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // A group of its own: a Ctrl-C at the terminal reaches periscope alone, which then stops
        // its children in order.
        .process_group(0);
    prepare(&mut command, launch.on_owner_death);
    let child = command.spawn().map_err(at)?;
    // The command holds the writing end: while it lives the pipe never ends.
    drop(command);
    let pid = child.id();
    if let Err(error) =
        fs::write(format!("/proc/{pid}/oom_score_adj"), launch.oom_score_adj.to_string())
    {
        tracing::debug!(name, pid, %error, "oom_score_adj is not set");
    }
    let tail = output::read(name, reader, sink.clone())?;
    Child::new(name, child, tail)
}

/// Adds what has to happen between fork and exec.
#[expect(unsafe_code, reason = "pre_exec; the closure is reviewed below")]
fn prepare(command: &mut Command, on_owner_death: Signal) {
    let owner: Pid = getpid();
    // SAFETY: the closure runs in the forked child, where other threads of the parent may hold
    // locks that nobody releases. It therefore makes only plain system calls (rustix calls the
    // kernel directly), allocates nothing, takes no lock, touches no shared memory besides its
    // three captured `Copy` values, and cannot panic: all of it is async-signal-safe.
    // `io::Error::from_raw_os_error` and `From<Errno>` store a number and allocate nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(on_owner_death))?;
            // The owner may have died before the line above: then no signal will ever come.
            if getppid() != Some(owner) {
                return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
            }
            // A dump of the server's memory would hold its passwords.
            setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
            // Lower priority is a courtesy: a system that forbids it must not stop the start.
            match setpriority_process(None, NICE) {
                Ok(()) | Err(_) => Ok(()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::super::child::Exit;
    use super::*;

    fn shell(folder: &Path, script: &str) -> Launch {
        Launch {
            name: "test",
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            directory: folder.to_owned(),
            owner: folder.to_owned(),
            on_owner_death: Signal::TERM,
            oom_score_adj: 500,
            sink: Sink { file: folder.join("log"), log: |_| {}, is_wrong: |_| false },
        }
    }

    #[tokio::test]
    async fn a_child_runs_with_the_promised_settings() {
        let folder = tempfile::tempdir().unwrap();
        let spawner = start().unwrap();
        let script = "read -r _ < gate; env; ulimit -c; nice; cat /proc/self/oom_score_adj; \
                      cut -d' ' -f5 /proc/$$/stat; exit 7";
        let gate = folder.path().join("gate");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &gate,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let mut child = spawner.spawn(shell(folder.path(), script)).await.unwrap();
        // The gate opens once the parent has done its part (oom_score_adj).
        fs::write(&gate, "go\n").unwrap();
        assert_eq!(child.wait().await, Exit::Code(7));
        child.last_words().await;
        let lines = child.tail().lines();
        let pid = child.pid().to_string();
        let (environment, rest) = lines.split_at(lines.len() - 4);
        assert_eq!(rest, ["0", "10", "500", pid.as_str()]);
        let allowed = ["PATH=", "PERISCOPE_INSTANCE=", "PWD=", "_=", "SHLVL="];
        for line in environment {
            assert!(allowed.iter().any(|name| line.starts_with(name)), "inherited: {line}");
        }
    }

    #[tokio::test]
    async fn children_outlive_every_handle_of_the_spawner_and_end_by_signals() {
        let folder = tempfile::tempdir().unwrap();
        let spawner = start().unwrap();
        let mut child = spawner.spawn(shell(folder.path(), "exec sleep 60")).await.unwrap();
        drop(spawner);
        let still = tokio::time::timeout(Duration::from_millis(300), child.wait()).await;
        assert!(still.is_err(), "ended by itself: {still:?}");
        assert_eq!(child.end(Duration::from_secs(5)).await, (Exit::Signal(15), false));
        child.signal(Signal::KILL);
        assert_eq!(child.exited(), Some(Exit::Signal(15)));
    }

    #[tokio::test]
    async fn a_child_that_ignores_the_request_or_is_stopped_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let spawner = start().unwrap();
        let script = "trap '' TERM; sleep 60 & echo $! > inner; mv inner pid; wait; wait";
        let mut child = spawner.spawn(shell(folder.path(), script)).await.unwrap();
        let start = Instant::now();
        while !folder.path().join("pid").exists() {
            assert!(start.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.signal(Signal::STOP);
        let ended = child.end(Duration::from_millis(200)).await;
        assert_eq!(ended, (Exit::Signal(9), true));
        let inner = fs::read_to_string(folder.path().join("pid")).unwrap();
        let stat = format!("/proc/{}/stat", inner.trim());
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            assert!(start.elapsed() < Duration::from_secs(20), "{inner} still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_a_child_has_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let spawner = start().unwrap();
        let script = "sleep 600 & echo $! > pid; exit 3";
        let mut child = spawner.spawn(shell(folder.path(), script)).await.unwrap();
        assert_eq!(child.wait().await, Exit::Code(3));
        let inner = fs::read_to_string(folder.path().join("pid")).unwrap();
        let stat = format!("/proc/{}/stat", inner.trim());
        let start = Instant::now();
        while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z")) {
            assert!(start.elapsed() < Duration::from_secs(20), "{inner} still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut launch = shell(folder.path(), "");
        launch.program = "/nowhere/java".into();
        let error = start().unwrap().spawn(launch).await.unwrap_err().to_string();
        assert!(error.contains("start /nowhere/java"), "{error}");
    }
}

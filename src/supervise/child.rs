//! A running child: its end, its signals, its last words. Signals go to its whole group and can
//! never hit another process: the id is not released before the handle knows of the end.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::watch;

use super::output::Tail;
use crate::base::tasks::spawn_thread;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// A child process. Dropping it asks the process to end (SIGTERM) and waits for nothing.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// `true` once the id may belong to another process.
    reaped: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<Exit>>,
    tail: Tail,
}

impl Child {
    /// Takes over a child that leads a process group of its own.
    pub(super) fn new(name: &str, mut child: std::process::Child, tail: Tail) -> io::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("process id out of range"))?;
        let reaped = Arc::new(Mutex::new(false));
        let (ended, exit) = watch::channel(None);
        let shared = Arc::clone(&reaped);
        let waiter = spawn_thread(&format!("{name}-wait"), move || {
            // First wait without releasing the id, then release it under the lock of `signal`.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
            // What it has started itself must not outlive it (Grafana's plugins would). The id still
            // belongs to it: it is not reaped yet.
            let _none_left = kill_process_group(pid, Signal::KILL);
            let mut reaped = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let status = child.wait();
            *reaped = true;
            drop(reaped);
            ended.send_replace(Some(status.map_or(Exit::Code(-1), exit_of)));
        });
        match waiter {
            Ok(_running) => Ok(Self { pid, reaped, exit, tail }),
            Err(error) => {
                // Nobody would ever reap it: it must not live on.
                let killed = kill_process_group(pid, Signal::KILL);
                tracing::error!(?killed, %error, "a child without a waiting thread was ended");
                Err(error)
            }
        }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns how it ended, if it has.
    pub fn exited(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Returns its last lines.
    pub const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Waits for its end; it is reaped then. Cancel-safe.
    pub async fn wait(&mut self) -> Exit {
        let ended = self.exit.wait_for(Option::is_some).await.map(|exit| *exit);
        // The waiting thread sends before it ends; an error would mean that it panicked.
        ended.ok().flatten().unwrap_or(Exit::Code(-1))
    }

    /// Waits a moment for the last lines to be read after the end.
    pub async fn last_words(&mut self) {
        let limit = Duration::from_secs(1);
        if tokio::time::timeout(limit, self.tail.ended()).await.is_err() {
            tracing::debug!(pid = self.pid(), "something still holds the child's output open");
        }
    }

    /// Sends `signal` to the child and everything in its group, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if *reaped {
            return;
        }
        if let Err(error) = kill_process_group(self.pid, signal) {
            tracing::debug!(pid = self.pid(), %error, "the child takes no signal");
        }
    }

    /// Ends it: SIGTERM, then SIGKILL once `grace` has passed. Returns how it ended, and whether it
    /// had to be killed; it is reaped then.
    pub async fn end(&mut self, grace: Duration) -> (Exit, bool) {
        self.signal(Signal::TERM);
        if let Ok(exit) = tokio::time::timeout(grace, self.wait()).await {
            return (exit, false);
        }
        tracing::warn!(pid = self.pid(), ?grace, "the child does not end, killing it");
        self.signal(Signal::KILL);
        (self.wait().await, true)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(-1),
    }
}

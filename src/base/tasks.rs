//! The only place that spawns tasks and threads: each has a name, a span, and a rule for its end.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// All running tasks of one kind (sources, or sinks) and the token that stops them.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    fatal: CancellationToken,
    running: Arc<Mutex<Vec<&'static str>>>,
}

/// What the end of a task by panic means for the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPanic {
    /// The others go on; the task is gone until the program restarts.
    Log,
    /// The program drains and ends, so that the service manager starts it anew.
    Fatal,
}

impl Tasks {
    /// Makes an empty group; `fatal` is cancelled when a task with [`OnPanic::Fatal`] panics.
    pub fn new(fatal: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            fatal,
            running: Arc::default(),
        }
    }

    /// Returns the token that asks this group's tasks to stop.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs `task` until it returns; a panic is logged and treated as `on_panic` says.
    pub fn spawn<F>(&self, name: &'static str, on_panic: OnPanic, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let span = tracing::info_span!("task", name);
        self.lock_running().push(name);
        let inner = spawn_detached(task.instrument(span));
        let this = self.clone();
        self.tracker.spawn(async move {
            let ended = inner.await;
            {
                let mut running = this.lock_running();
                if let Some(index) = running.iter().position(|running_name| *running_name == name) {
                    running.swap_remove(index);
                }
            }
            match ended {
                Ok(()) => {}
                Err(error) if error.is_panic() => {
                    tracing::error!(task = name, "task panicked");
                    if on_panic == OnPanic::Fatal {
                        this.fatal.cancel();
                    }
                }
                Err(_cancelled) => {}
            }
        });
    }

    /// Asks all tasks to stop and waits for them at most `limit`.
    ///
    /// Returns the names of the tasks that still run.
    pub async fn stop(&self, limit: Duration) -> Vec<&'static str> {
        self.stop.cancel();
        self.join(limit).await
    }

    /// Waits at most `limit` for all tasks to end by themselves; returns the names of the rest.
    pub async fn join(&self, limit: Duration) -> Vec<&'static str> {
        self.tracker.close();
        match tokio::time::timeout(limit, self.tracker.wait()).await {
            Ok(()) => Vec::new(),
            Err(_elapsed) => self.lock_running().clone(),
        }
    }

    fn lock_running(&self) -> std::sync::MutexGuard<'_, Vec<&'static str>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Spawns a task that nobody waits for (a connection, a request); it must have its own time limit.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn_detached<F>(task: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(task)
}

/// Starts a named thread.
///
/// # Errors
/// The system refuses another thread.
pub fn spawn_thread<F>(name: &str, body: F) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// The signals that ask the process to end: SIGINT, SIGTERM, and SIGHUP when the terminal goes away.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// Takes the signals over. From here on none of them ends the process by itself, so do it before
    /// anything is started that must be stopped in order.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal and returns its name. Cancel-safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_a_fatal_task_stops_the_program_and_of_another_does_not() {
        let fatal = CancellationToken::new();
        let tasks = Tasks::new(fatal.clone());
        tasks.spawn("log", OnPanic::Log, async { panic!("on purpose") });
        assert!(tasks.join(Duration::from_secs(5)).await.is_empty());
        assert!(!fatal.is_cancelled());
        let tasks = Tasks::new(fatal.clone());
        tasks.spawn("fatal", OnPanic::Fatal, async { panic!("on purpose") });
        assert!(tasks.join(Duration::from_secs(5)).await.is_empty());
        assert!(fatal.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_named() {
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("stuck", OnPanic::Log, std::future::pending());
        assert_eq!(tasks.stop(Duration::from_millis(20)).await, ["stuck"]);
    }
}

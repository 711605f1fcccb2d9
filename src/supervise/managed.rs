//! A server as a child: gets it, starts it, watches it, starts it again. One attempt after the
//! other in one task: there are never two servers.

use std::io;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::cause::{self, Cause, Evidence};
use super::child::{Child, Exit};
use super::orphan;
use super::policy::{Kind, Limits, Next, Restarts, Watch, watch};
use super::program::Program;
use super::publisher::Publisher;
use super::spawner::{Launch, Spawner};
use super::task::rest;
use crate::artifact::acquired::AcquireError;
use crate::artifact::progress::Progress;
use crate::model::server::Phase;

/// Between two probes of a server that starts.
const START_PROBE: Duration = Duration::from_millis(50);

/// What every server is supervised with.
#[derive(Debug)]
pub struct Supervision {
    /// Tells others how it is.
    pub publisher: Publisher,
    /// The thread that forks.
    pub spawner: Spawner,
    /// Every time limit.
    pub limits: Limits,
}

/// The owner of a child.
#[derive(Debug)]
pub struct Managed<P> {
    program: P,
    supervision: Supervision,
    restarts: Restarts,
    began: Instant,
    ran: bool,
}

/// Why an attempt is over.
#[derive(Debug)]
pub enum End {
    /// Asked to stop.
    Stopped,
    /// By itself.
    Failed {
        /// Why.
        cause: Cause,
        /// How long it had been healthy.
        healthy: Duration,
    },
}

impl From<Cause> for End {
    fn from(cause: Cause) -> Self {
        Self::Failed { cause, healthy: Duration::ZERO }
    }
}

impl From<AcquireError> for End {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::Stopped => Self::Stopped,
            AcquireError::Folder { .. } => Cause::new(Kind::Blocked, error.to_string()).into(),
            AcquireError::Home { .. } | AcquireError::NoWay(_) => {
                Cause::new(Kind::Ordinary, error.to_string()).into()
            }
        }
    }
}

/// A started server.
#[derive(Debug)]
pub struct Running {
    /// The process.
    pub child: Child,
    memory_kills: u64,
}

impl<P: Program> Managed<P> {
    /// Makes the owner; nothing runs yet. Equal seeds give equal pauses.
    pub fn new(program: P, supervision: Supervision, seed: u64) -> Self {
        let restarts = Restarts::new(supervision.limits, seed);
        Self { program, supervision, restarts, began: Instant::now(), ran: false }
    }

    /// Attempts until `stop`; the child has ended then.
    pub async fn run(mut self, stop: CancellationToken) {
        while let End::Failed { cause, healthy } = self.attempt(&stop).await {
            let Cause { kind, reason } = cause;
            let publisher = &self.supervision.publisher;
            publisher.change(|state| state.pid = None);
            let pause = match self.restarts.failed(kind, healthy, self.began.elapsed()) {
                Next::Backoff(pause) => {
                    publisher.phase(Phase::Backoff, &reason);
                    pause
                }
                Next::Broken(pause) => {
                    let reason = format!("{reason} (tried again every {pause:?})");
                    publisher.phase(Phase::Broken, &reason);
                    pause
                }
            };
            if !rest(pause, &stop).await {
                break;
            }
        }
        self.supervision.publisher.change(|state| state.pid = None);
        self.supervision.publisher.phase(Phase::Absent, "");
    }

    async fn attempt(&mut self, stop: &CancellationToken) -> End {
        let (running, plan) = match self.start(stop).await {
            Ok(started) => started,
            Err(end) => {
                self.program.forget();
                return end;
            }
        };
        self.ready();
        self.watch(running, &plan, stop).await
    }

    fn ready(&self) {
        self.supervision.publisher.phase(Phase::Ready, &self.program.shortcoming());
    }

    /// Returns a server that answers.
    async fn start(&mut self, stop: &CancellationToken) -> Result<(Running, P::Plan), End> {
        let Self { program, supervision, .. } = self;
        program.install(supervision, stop).await?;
        supervision.publisher.phase(Phase::Starting, &format!("starting {}", P::NAME));
        // First of all: an orphan still writes to what is prepared next.
        let marks = program.marks();
        let ended = tokio::select! {
            () = stop.cancelled() => return Err(End::Stopped),
            ended = orphan::end(&marks, supervision.limits.stop_hung) => ended,
        };
        ended.map_err(|error| Cause::new(Kind::Blocked, error.to_string()))?;
        let plan = program.plan(supervision, stop).await?;
        if self.ran {
            supervision.publisher.restarted();
        }
        self.ran = true;
        let launch = program.launch(&plan).await?;
        let mut running = supervision.launch(launch).await?;
        let limit = supervision.limits.start;
        supervision.until_ready(program, &plan, &mut running, limit, stop).await?;
        Ok((running, plan))
    }

    /// Probes until the server ends, hangs, or is asked to stop; it has ended then.
    async fn watch(
        &mut self,
        mut running: Running,
        plan: &P::Plan,
        stop: &CancellationToken,
    ) -> End {
        let limits = self.supervision.limits;
        let ready_since = Instant::now();
        let mut state = Watch::Ready { failures: 0 };
        let mut healthy = Duration::ZERO;
        loop {
            let probed = tokio::select! {
                () = stop.cancelled() => {
                    self.supervision.end(P::NAME, &mut running).await;
                    return End::Stopped;
                }
                exit = running.child.wait() => {
                    let cause = explain(&mut self.program, plan, &mut running, exit, false).await;
                    return End::Failed { cause, healthy: ready_since.elapsed() };
                }
                probed = async {
                    tokio::time::sleep(limits.probe_interval).await;
                    let probed = self.program.probe(plan, limits.probe).await;
                    if probed.is_ok() {
                        self.program.tend(&self.supervision, plan).await;
                    }
                    probed
                } => probed,
            };
            state = watch(state, probed.is_ok(), &limits, ready_since.elapsed());
            match state {
                Watch::Ready { failures } => {
                    if failures == 0 {
                        healthy = ready_since.elapsed();
                        self.ready();
                    }
                }
                Watch::Unhealthy { .. } => {
                    let reason = format!(
                        "{} runs but does not answer; it is restarted unless it recovers",
                        P::NAME
                    );
                    self.supervision.publisher.phase(Phase::Unhealthy, &reason);
                }
                Watch::Hung => {
                    running.child.end(limits.stop_hung).await;
                    let (name, limit) = (P::NAME, limits.unhealthy);
                    let reason =
                        format!("{name} did not answer for {limit:?} and is started again");
                    return End::Failed { cause: Cause::new(Kind::Ordinary, reason), healthy };
                }
            }
        }
    }
}

impl Supervision {
    /// Starts a process and tells its id.
    ///
    /// # Errors
    /// The program cannot be started.
    pub async fn launch(&self, launch: Launch) -> Result<Running, Cause> {
        let name = launch.name;
        let memory_kills = cause::memory_kills();
        let child = self.spawner.spawn(launch).await;
        let child = child.map_err(|error| Cause::new(Kind::Ordinary, error.to_string()))?;
        self.publisher.change(|state| {
            state.pid = Some(child.pid());
            state.generation += 1;
        });
        tracing::info!(pid = child.pid(), "{name} started");
        Ok(Running { child, memory_kills })
    }

    /// Waits for the first answer; on an error the child has ended.
    ///
    /// # Errors
    /// It ends, does not answer within `limit`, or is not admitted; or `stop`.
    pub async fn until_ready<P: Program>(
        &self,
        program: &mut P,
        plan: &P::Plan,
        running: &mut Running,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let start = Instant::now();
        loop {
            let probed = tokio::select! {
                () = stop.cancelled() => {
                    self.end(P::NAME, running).await;
                    return Err(End::Stopped);
                }
                exit = running.child.wait() => {
                    return Err(explain(program, plan, running, exit, true).await.into());
                }
                probed = async {
                    tokio::time::sleep(START_PROBE).await;
                    program.probe(plan, self.limits.probe).await
                } => probed,
            };
            match probed {
                Ok(()) => break,
                Err(error) if start.elapsed() > limit => {
                    running.child.end(self.limits.stop_hung).await;
                    let reason = format!("{} did not answer within {limit:?}: {error}", P::NAME);
                    return Err(Cause::new(Kind::Ordinary, reason).into());
                }
                Err(_not_yet) => {}
            }
        }
        if let Err(cause) = program.admit(self, plan).await {
            running.child.end(self.limits.stop_hung).await;
            return Err(cause.into());
        }
        Ok(())
    }

    /// Tells how far an acquisition is.
    pub fn downloading(&self, name: &str, progress: Progress) {
        match progress {
            Progress::Step(step) => self.publisher.phase(Phase::Downloading, &step),
            Progress::Bytes { .. } => {
                self.publisher.progress(&format!("downloading {name}: {progress}"));
            }
        }
    }

    /// Ends the server on request.
    async fn end(&self, name: &str, running: &mut Running) {
        self.publisher.phase(Phase::Stopping, &format!("stopping {name}"));
        let (exit, killed) = running.child.end(self.limits.stop).await;
        tracing::info!(?exit, killed, "{name} ended");
    }
}

/// Returns why the server has ended; waits a moment for its last words.
async fn explain<P: Program>(
    program: &mut P,
    plan: &P::Plan,
    running: &mut Running,
    exit: Exit,
    starting: bool,
) -> Cause {
    running.child.last_words().await;
    let tail = running.child.tail();
    let evidence = Evidence {
        exit,
        errors: &tail.errors(),
        lines: &tail.lines(),
        out_of_memory: cause::memory_kills() > running.memory_kills,
        starting,
    };
    program.explain(plan, &evidence)
}

/// Says that the data folder cannot be written.
pub fn not_writable(error: &io::Error) -> Cause {
    let advice = "mend the disk or its rights, or choose another folder with --data-dir";
    Cause::new(Kind::Blocked, format!("cannot write the data folder: {error}; {advice}"))
}

/// Runs `work` where it may block.
///
/// # Errors
/// Those of `work`, or its panic.
pub async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

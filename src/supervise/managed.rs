//! `QuestDB` as a child: gets it, starts it, watches it, starts it again. One attempt after the
//! other in one task: there are never two servers.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::cause::{self, Cause, Evidence, cause};
use super::child::{Child, Exit};
use super::listen::{self, Addresses};
use super::orphan::{self, Marks};
use super::output::{Sink, is_severe};
use super::policy::{Kind, Next, Restarts, Watch, watch};
use super::questdb::{self, Folders};
use super::ready;
use super::root::{self, Home};
use super::secrets::{Credentials, Files};
use super::spawner::Launch;
use super::task::{Options, Publisher, Setup, rest};
use super::training::{Archive, Startup};
use crate::artifact::progress::{Bar, Progress};
use crate::artifact::questdb::{AcquireError, Installed, Request, acquire};
use crate::config::Profile;
use crate::model::server::{Endpoint, Phase};

/// Between two probes of a server that starts.
const START_PROBE: Duration = Duration::from_millis(50);

/// The owner of the child.
#[derive(Debug)]
pub(super) struct Managed {
    pub(super) setup: Setup,
    pub(super) options: Options,
    pub(super) publisher: Publisher,
    pub(super) home: Home,
    restarts: Restarts,
    began: Instant,
    /// Verified; forgotten when a start fails, so that the next one verifies again.
    installed: Option<Installed>,
    /// Addresses of the last start, kept over restarts where the configuration leaves the choice.
    last: Option<Addresses>,
    ran: bool,
    pub(super) failed_trainings: u32,
}

/// Why an attempt is over.
#[derive(Debug)]
pub(super) enum End {
    Stopped,
    Failed {
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

/// All that a start needs.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) installed: Installed,
    pub(super) endpoint: Endpoint,
    conf: String,
}

/// A started server.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    root: std::path::PathBuf,
    jar: Option<std::path::PathBuf>,
    memory_kills: u64,
}

impl Managed {
    pub(super) fn new(setup: Setup, options: Options, publisher: Publisher) -> Self {
        Self {
            home: Home::of(&setup.data_dir),
            restarts: Restarts::new(options.limits, setup.seed),
            began: Instant::now(),
            installed: None,
            last: None,
            ran: false,
            failed_trainings: 0,
            setup,
            options,
            publisher,
        }
    }

    /// Attempts until `stop`; the child has ended then.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while let End::Failed { cause, healthy } = self.attempt(&stop).await {
            let Cause { kind, reason } = cause;
            self.publisher.change(|state| state.pid = None);
            let pause = match self.restarts.failed(kind, healthy, self.began.elapsed()) {
                Next::Backoff(pause) => {
                    self.publisher.phase(Phase::Backoff, &reason);
                    pause
                }
                Next::Broken(pause) => {
                    let reason = format!("{reason} (tried again every {pause:?})");
                    self.publisher.phase(Phase::Broken, &reason);
                    pause
                }
            };
            if !rest(pause, &stop).await {
                break;
            }
        }
        self.publisher.change(|state| state.pid = None);
        self.publisher.phase(Phase::Absent, "");
    }

    async fn attempt(&mut self, stop: &CancellationToken) -> End {
        let (running, endpoint) = match self.start(stop).await {
            Ok(started) => started,
            Err(end) => {
                self.installed = None;
                return end;
            }
        };
        self.publisher.phase(Phase::Ready, "");
        self.watch(running, &endpoint, stop).await
    }

    /// Returns a server that answers.
    async fn start(&mut self, stop: &CancellationToken) -> Result<(Running, Endpoint), End> {
        let installed = self.install(stop).await?;
        self.publisher.phase(Phase::Starting, "starting questdb");
        // First of all: an orphan still writes to what is prepared next.
        let marks = Marks {
            owner: self.home.folder().to_owned(),
            roots: vec![self.home.root(), self.home.new_root()],
        };
        let ended = tokio::select! {
            () = stop.cancelled() => return Err(End::Stopped),
            ended = orphan::end(&marks, self.options.limits.stop_hung) => ended,
        };
        ended.map_err(|error| Cause::new(Kind::Blocked, error.to_string()))?;
        let plan = self.plan(installed).await?;
        self.first_start(&plan, stop).await?;
        let archive = Archive::of(&self.home.archives(), &plan.installed);
        let startup = match archive {
            Some(archive) if archive.exists() => Startup::With(archive),
            Some(_) | None => Startup::Plain,
        };
        if self.ran {
            self.publisher.restarted();
        }
        self.ran = true;
        let mut running = self.launch(&plan, self.home.root(), startup).await?;
        let limit = self.options.limits.start;
        self.until_ready(&mut running, &plan.endpoint, limit, stop).await?;
        let probe = self.options.limits.probe;
        let version = ready::version(&self.setup.client, &plan.endpoint, probe).await;
        if let Ok(Some(version)) = version {
            self.publisher.change(|state| state.version = Some(version));
        }
        Ok((running, plan.endpoint))
    }

    async fn install(&mut self, stop: &CancellationToken) -> Result<Installed, End> {
        if let Some(installed) = &self.installed
            && installed.jar.as_ref().unwrap_or(&installed.java.program).exists()
        {
            return Ok(installed.clone());
        }
        let mut request = Request::of(&self.setup.config, &self.setup.data_dir);
        request.sources = self.options.sources.clone();
        let bar = Bar::new();
        let publisher = &self.publisher;
        let progress = |progress: Progress| {
            bar.show(&progress);
            match progress {
                Progress::Step(step) => publisher.phase(Phase::Downloading, &step),
                Progress::Bytes { .. } => {
                    publisher.progress(&format!("downloading questdb: {progress}"));
                }
            }
        };
        let acquired = Box::pin(acquire(&request, &self.setup.client, stop, &progress)).await;
        let installed = acquired.map_err(|error| match error {
            AcquireError::Stopped => End::Stopped,
            AcquireError::Folder { .. } => Cause::new(Kind::Blocked, error.to_string()).into(),
            AcquireError::Home { .. } | AcquireError::NoWay(_) => {
                Cause::new(Kind::Ordinary, error.to_string()).into()
            }
        })?;
        tracing::info!(
            version = %installed.version,
            source = installed.source,
            java = %installed.java.version,
            "questdb found"
        );
        self.installed = Some(installed.clone());
        Ok(installed)
    }

    async fn plan(&mut self, installed: Installed) -> Result<Plan, Cause> {
        let (home, data_dir) = (self.home.clone(), self.setup.data_dir.clone());
        let prepared = off_runtime(move || {
            home.prepare()?;
            Credentials::load_or_create(&data_dir)
        });
        let credentials = prepared.await.map_err(|error| not_writable(&error))?;
        let Addresses { http, pg } = self.addresses().await?;
        let endpoint = questdb::endpoint(http, pg, &credentials);
        self.publisher.change(|state| {
            state.endpoint = Some(endpoint.clone());
            state.version = Some(installed.version.clone());
        });
        let mut conf = questdb::server_conf(&self.setup.config, http, pg);
        conf.push_str(&questdb::password_conf(&installed.version, &credentials));
        Ok(Plan { installed, endpoint, conf })
    }

    async fn addresses(&mut self) -> Result<Addresses, Cause> {
        let (http, pg) = (self.setup.config.http.clone(), self.setup.config.pg.clone());
        let (last, may_move) = (self.last, self.setup.profile == Profile::Dev);
        let chosen =
            tokio::task::spawn_blocking(move || listen::choose(&http, &pg, last, may_move));
        let chosen =
            chosen.await.map_err(|error| Cause::new(Kind::Ordinary, error.to_string()))??;
        self.last = Some(chosen);
        Ok(chosen)
    }

    pub(super) async fn launch(
        &self,
        plan: &Plan,
        root: std::path::PathBuf,
        startup: Startup,
    ) -> Result<Running, Cause> {
        let (conf, target) = (plan.conf.clone(), root.clone());
        let written = off_runtime(move || root::write_conf(&target, &conf));
        written.await.map_err(|error| not_writable(&error))?;
        let folders =
            Folders { root: root.clone(), log: self.home.log(), temporary: self.home.temporary() };
        let launch = Launch {
            name: "questdb",
            program: plan.installed.java.program.clone(),
            arguments: questdb::arguments(&self.setup.config, &plan.installed, &folders, &startup),
            environment: questdb::environment(&Files::of(&self.setup.data_dir)),
            directory: self.home.folder().to_owned(),
            owner: self.home.folder().to_owned(),
            on_owner_death: Signal::TERM,
            oom_score_adj: 500,
            sink: Sink { file: folders.log.join("questdb.log"), log: log_line },
        };
        let memory_kills = cause::memory_kills();
        let child = self.setup.spawner.spawn(launch).await;
        let child = child.map_err(|error| Cause::new(Kind::Ordinary, error.to_string()))?;
        self.publisher.change(|state| {
            state.pid = Some(child.pid());
            state.generation += 1;
        });
        tracing::info!(pid = child.pid(), http = %plan.endpoint.http, "questdb started");
        Ok(Running { child, root, jar: plan.installed.jar.clone(), memory_kills })
    }

    /// Waits for the first answer; on an error the child has ended.
    pub(super) async fn until_ready(
        &self,
        running: &mut Running,
        endpoint: &Endpoint,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let (client, limits) = (&self.setup.client, &self.options.limits);
        let start = Instant::now();
        loop {
            let probed = tokio::select! {
                () = stop.cancelled() => {
                    self.end(running).await;
                    return Err(End::Stopped);
                }
                exit = running.child.wait() => return Err(explain(running, exit, true).await.into()),
                probed = async {
                    tokio::time::sleep(START_PROBE).await;
                    ready::probe(client, endpoint, limits.probe).await
                } => probed,
            };
            match probed {
                Ok(()) => break,
                Err(error) if start.elapsed() > limit => {
                    running.child.end(limits.stop_hung).await;
                    let reason = format!("questdb did not answer within {limit:?}: {error}");
                    return Err(Cause::new(Kind::Ordinary, reason).into());
                }
                Err(_not_yet) => {}
            }
        }
        match ready::is_protected(client, endpoint, limits.probe).await {
            Ok(false) => {
                running.child.end(limits.stop_hung).await;
                let reason = "questdb answers without a password: this version is not supported";
                Err(Cause::new(Kind::Hopeless, reason).into())
            }
            // An answer that did not come is for the watch to judge.
            Ok(true) | Err(_) => Ok(()),
        }
    }

    /// Probes until the server ends, hangs, or is asked to stop; it has ended then.
    async fn watch(
        &self,
        mut running: Running,
        endpoint: &Endpoint,
        stop: &CancellationToken,
    ) -> End {
        let (client, limits) = (&self.setup.client, &self.options.limits);
        let ready_since = Instant::now();
        let mut state = Watch::Ready { failures: 0 };
        let mut healthy = Duration::ZERO;
        loop {
            let probed = tokio::select! {
                () = stop.cancelled() => {
                    self.end(&mut running).await;
                    return End::Stopped;
                }
                exit = running.child.wait() => {
                    let cause = explain(&mut running, exit, false).await;
                    return End::Failed { cause, healthy: ready_since.elapsed() };
                }
                probed = async {
                    tokio::time::sleep(limits.probe_interval).await;
                    ready::probe(client, endpoint, limits.probe).await
                } => probed,
            };
            state = watch(state, probed.is_ok(), limits, ready_since.elapsed());
            match state {
                Watch::Ready { failures } => {
                    if failures == 0 {
                        healthy = ready_since.elapsed();
                        self.publisher.phase(Phase::Ready, "");
                    }
                }
                Watch::Unhealthy { .. } => {
                    let reason = "questdb runs but does not answer; it is restarted unless it \
                                  recovers";
                    self.publisher.phase(Phase::Unhealthy, reason);
                }
                Watch::Hung => {
                    running.child.end(limits.stop_hung).await;
                    let reason = format!(
                        "questdb did not answer for {:?} and is started again",
                        limits.unhealthy
                    );
                    return End::Failed { cause: Cause::new(Kind::Ordinary, reason), healthy };
                }
            }
        }
    }

    /// Ends the server on request.
    async fn end(&self, running: &mut Running) {
        self.publisher.phase(Phase::Stopping, "stopping questdb");
        let (exit, killed) = running.child.end(self.options.limits.stop).await;
        tracing::info!(?exit, killed, "questdb ended");
    }
}

/// Returns why the server has ended; waits a moment for its last words.
async fn explain(running: &mut Running, exit: Exit, starting: bool) -> Cause {
    running.child.last_words().await;
    let tail = running.child.tail();
    cause(&Evidence {
        exit,
        errors: &tail.errors(),
        lines: &tail.lines(),
        out_of_memory: cause::memory_kills() > running.memory_kills,
        disk_full: cause::disk_full(&running.root),
        starting,
        root: &running.root,
        jar: running.jar.as_deref(),
    })
}

pub(super) fn not_writable(error: &io::Error) -> Cause {
    let advice = "mend the disk or its rights, or choose another folder with --data-dir";
    Cause::new(Kind::Blocked, format!("cannot write the data folder: {error}; {advice}"))
}

pub(super) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn log_line(line: &str) {
    if is_severe(line) {
        tracing::warn!(target: "questdb", "{line}");
    } else {
        tracing::debug!(target: "questdb", "{line}");
    }
}

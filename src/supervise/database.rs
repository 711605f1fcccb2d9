//! `QuestDB` as a child: what its starts need.

use std::time::Duration;

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::cause::{self, Cause, Evidence};
use super::listen::{self, Addresses};
use super::managed::{End, Supervision, not_writable, off_runtime};
use super::orphan::Marks;
use super::output::{Sink, is_severe, tells_of_an_error};
use super::policy::Kind;
use super::program::Program;
use super::questdb::{self, Folders};
use super::ready;
use super::root::{self, Home};
use super::secrets::{Credentials, Files};
use super::spawner::Launch;
use super::task::{Options, Setup};
use super::training::{Archive, Startup};
use crate::artifact::progress::{Bar, Progress};
use crate::artifact::questdb::{Installed, Request, acquire};
use crate::config::Profile;
use crate::model::server::Endpoint;

/// The managed database.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) setup: Setup,
    pub(super) options: Options,
    pub(super) home: Home,
    /// Verified; forgotten when a start fails, so that the next one verifies again.
    installed: Option<Installed>,
    /// Addresses of the last start, kept over restarts where the configuration leaves the choice.
    last: Option<Addresses>,
    pub(super) failed_trainings: u32,
}

/// All that a start needs.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) installed: Installed,
    pub(super) endpoint: Endpoint,
    /// Data root.
    pub(super) root: std::path::PathBuf,
    pub(super) startup: Startup,
    pub(super) conf: String,
}

impl Database {
    pub(super) fn new(setup: Setup, options: Options) -> Self {
        let home = Home::of(&setup.data_dir);
        Self { home, setup, options, installed: None, last: None, failed_trainings: 0 }
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

    async fn prepared(
        &mut self,
        installed: Installed,
        supervision: &Supervision,
    ) -> Result<Plan, Cause> {
        let (home, data_dir) = (self.home.clone(), self.setup.data_dir.clone());
        let prepared = off_runtime(move || {
            home.prepare()?;
            Credentials::load_or_create(&data_dir)
        });
        let credentials = prepared.await.map_err(|error| not_writable(&error))?;
        let Addresses { http, pg } = self.addresses().await?;
        let endpoint = questdb::endpoint(http, pg, &credentials);
        supervision.publisher.change(|state| {
            state.endpoint = Some(endpoint.clone());
            state.version = Some(installed.version.clone());
        });
        let mut conf = questdb::server_conf(&self.setup.config, http, pg);
        conf.push_str(&questdb::password_conf(&installed.version, &credentials));
        Ok(Plan { installed, endpoint, root: self.home.root(), startup: Startup::Plain, conf })
    }
}

impl Program for Database {
    type Plan = Plan;

    const NAME: &'static str = "questdb";

    async fn install(
        &mut self,
        supervision: &Supervision,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        if let Some(installed) = &self.installed
            && installed.jar.as_ref().unwrap_or(&installed.java.program).exists()
        {
            return Ok(());
        }
        let mut request = Request::of(&self.setup.config, &self.setup.data_dir);
        request.sources = self.options.sources.clone();
        let bar = Bar::new();
        let progress = |progress: Progress| {
            bar.show(&progress);
            supervision.downloading(Self::NAME, progress);
        };
        let acquired = Box::pin(acquire(&request, &self.setup.client, stop, &progress)).await;
        let installed = acquired.map_err(End::from)?;
        tracing::info!(
            version = %installed.version,
            source = installed.source,
            java = %installed.java.version,
            "questdb found"
        );
        self.installed = Some(installed);
        Ok(())
    }

    fn marks(&self) -> Marks {
        Marks {
            name: Self::NAME,
            owner: self.home.folder().to_owned(),
            roots: vec![self.home.root(), self.home.new_root()],
        }
    }

    async fn plan(
        &mut self,
        supervision: &Supervision,
        stop: &CancellationToken,
    ) -> Result<Plan, End> {
        let installed = self
            .installed
            .clone()
            .ok_or_else(|| Cause::new(Kind::Ordinary, "questdb has vanished since it was found"))?;
        let mut plan = self.prepared(installed, supervision).await?;
        self.first_start(&plan, supervision, stop).await?;
        let archive = Archive::of(&self.home.archives(), &plan.installed);
        if let Some(archive) = archive.filter(Archive::exists) {
            plan.startup = Startup::With(archive);
        }
        Ok(plan)
    }

    async fn launch(&self, plan: &Plan) -> Result<Launch, Cause> {
        let (conf, target) = (plan.conf.clone(), plan.root.clone());
        let written = off_runtime(move || root::write_conf(&target, &conf));
        written.await.map_err(|error| not_writable(&error))?;
        let folders = Folders {
            root: plan.root.clone(),
            log: self.home.log(),
            temporary: self.home.temporary(),
        };
        let (config, startup) = (&self.setup.config, &plan.startup);
        Ok(Launch {
            name: Self::NAME,
            program: plan.installed.java.program.clone(),
            arguments: questdb::arguments(config, &plan.installed, &folders, startup),
            environment: questdb::environment(&Files::of(&self.setup.data_dir)),
            directory: self.home.folder().to_owned(),
            owner: self.home.folder().to_owned(),
            on_owner_death: Signal::TERM,
            oom_score_adj: 500,
            sink: Sink {
                file: folders.log.join("questdb.log"),
                log: log_line,
                is_wrong: tells_of_an_error,
            },
        })
    }

    async fn probe(&self, plan: &Plan, limit: Duration) -> Result<(), String> {
        let probed = ready::probe(&self.setup.client, &plan.endpoint, limit).await;
        probed.map_err(|error| error.to_string())
    }

    async fn admit(&mut self, supervision: &Supervision, plan: &Plan) -> Result<(), Cause> {
        let (client, limit) = (&self.setup.client, supervision.limits.probe);
        // An answer that did not come is for the watch to judge.
        if let Ok(false) = ready::is_protected(client, &plan.endpoint, limit).await {
            let reason = "questdb answers without a password: this version is not supported";
            return Err(Cause::new(Kind::Hopeless, reason));
        }
        let version = ready::version(client, &plan.endpoint, limit).await;
        if let Ok(Some(version)) = version {
            supervision.publisher.change(|state| state.version = Some(version));
        }
        Ok(())
    }

    async fn tend(&mut self, _supervision: &Supervision, _plan: &Plan) {}

    fn explain(&mut self, plan: &Plan, evidence: &Evidence<'_>) -> Cause {
        cause::questdb(evidence, &plan.root, plan.installed.jar.as_deref())
    }

    fn forget(&mut self) {
        self.installed = None;
    }
}

fn log_line(line: &str) {
    if is_severe(line) {
        tracing::warn!(target: "questdb", "{line}");
    } else {
        tracing::debug!(target: "questdb", "{line}");
    }
}

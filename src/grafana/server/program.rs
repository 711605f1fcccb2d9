//! Grafana as a child: what its starts need, and what is brought to it while it runs.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::cause::{self, is_wrong};
use super::files::{Home, reload};
use super::live::Stamp;
use super::remote;
use super::task::Setup;
use crate::artifact::grafana::{Installed, Request, Sources, acquire};
use crate::artifact::progress::{Bar, Progress};
use crate::config::{Login, Profile};
use crate::grafana::api::{Api, healthy_version};
use crate::grafana::provision::bundle::Bundle;
use crate::grafana::provision::ini;
use crate::model::server::{Endpoint, Phase};
use crate::supervise::cause::{Cause, Evidence};
use crate::supervise::listen;
use crate::supervise::managed::{End, Supervision, not_writable, off_runtime};
use crate::supervise::orphan::Marks;
use crate::supervise::output::Sink;
use crate::supervise::policy::Kind;
use crate::supervise::program::Program;
use crate::supervise::secrets::GrafanaSecrets;
use crate::supervise::spawner::Launch;

/// Time limit of a request besides probes: a reload reads all rules.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// The login that everybody knows.
const WELL_KNOWN: &str = "admin";

/// The managed Grafana.
#[derive(Debug)]
pub(super) struct Grafana {
    pub(super) setup: Setup,
    sources: Sources,
    pub(super) home: Home,
    /// Verified; forgotten when a start fails.
    installed: Option<Installed>,
    /// Why it could not be got; later tries say nothing new.
    missing: bool,
    /// Address of the last start, kept over restarts where the configuration leaves the choice.
    last: Option<SocketAddr>,
    /// What Grafana said of its alert files, when it runs without them because of that.
    pub(super) refused: Option<String>,
    /// Why it does not take our password.
    locked_out: Option<String>,
    /// The database that its files name.
    pub(super) questdb: Option<Endpoint>,
    /// Files of the dev loop as they were brought last.
    pub(super) stamp: Stamp,
}

/// All that a start needs.
#[derive(Debug)]
pub(super) struct Plan {
    installed: Installed,
    address: SocketAddr,
    api: Api,
    /// As [`Plan::api`], without a login.
    open: Api,
    secrets: GrafanaSecrets,
    bundle: Bundle,
    /// Whether it has no database yet.
    is_first: bool,
}

impl Grafana {
    pub(super) fn new(setup: Setup, sources: Sources) -> Self {
        let home = Home { folder: setup.config.data_dir.join("grafana") };
        Self {
            setup,
            sources,
            home,
            installed: None,
            missing: false,
            last: None,
            refused: None,
            locked_out: None,
            questdb: None,
            stamp: Stamp::new(),
        }
    }

    /// Waits until the database has an address: data source and rules name it.
    async fn database(
        &mut self,
        supervision: &Supervision,
        stop: &CancellationToken,
    ) -> Result<Endpoint, End> {
        let mut questdb = self.setup.questdb.clone();
        if questdb.borrow().endpoint.is_none() {
            let doing = "waits until questdb has an address";
            supervision.publisher.phase(Phase::Starting, doing);
        }
        tokio::select! {
            () = stop.cancelled() => Err(End::Stopped),
            known = questdb.wait_for(|state| state.endpoint.is_some()) => {
                let endpoint = known.ok().and_then(|state| state.endpoint.clone());
                endpoint.ok_or_else(|| {
                    Cause::new(Kind::Ordinary, "nothing watches questdb any longer").into()
                })
            }
        }
    }

    async fn address(&mut self) -> Result<SocketAddr, Cause> {
        const KEY: &str = "grafana.address";
        let wanted = listen::parse(KEY, &self.setup.config.grafana.address)?;
        let (last, may_move) = (self.last, self.setup.config.profile == Profile::Dev);
        let chosen =
            tokio::task::spawn_blocking(move || listen::one(KEY, wanted, last, may_move)).await;
        let chosen = chosen.map_err(|error| Cause::new(Kind::Ordinary, error.to_string()))??;
        self.last = Some(chosen);
        Ok(chosen)
    }

    fn apis(&self, address: SocketAddr, secrets: &GrafanaSecrets) -> Result<(Api, Api), Cause> {
        let (user, password) = (secrets.admin.user.clone(), secrets.admin.password.clone());
        let login = Login::Basic { user, password };
        let client = &self.setup.client;
        let made = |login: Option<&Login>| {
            let api = Api::new(client.clone(), &format!("http://{address}"), login, REQUEST_LIMIT)?;
            match &self.setup.config.grafana.url {
                Some(url) => api.called(ini::domain(url)),
                None => Ok(api),
            }
        };
        let refused =
            |error: crate::grafana::api::ApiError| Cause::new(Kind::Hopeless, error.to_string());
        Ok((made(Some(&login)).map_err(refused)?, made(None).map_err(refused)?))
    }
}

impl Program for Grafana {
    type Plan = Plan;

    const NAME: &'static str = "grafana";

    async fn install(
        &mut self,
        supervision: &Supervision,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        if self.installed.as_ref().is_some_and(|installed| installed.program().exists()) {
            return Ok(());
        }
        let mut request = Request::of(&self.setup.config.grafana, &self.setup.config.data_dir);
        request.sources = self.sources.clone();
        let bar = Bar::new();
        let is_told = self.missing;
        let progress = |progress: Progress| {
            // It was told once that there is none: another look is no news, a download is.
            let is_download = matches!(progress, Progress::Bytes { .. });
            if is_told && is_download {
                supervision.publisher.phase(Phase::Downloading, "downloading grafana");
            }
            if !is_told || is_download {
                bar.show(&progress);
                supervision.downloading(Self::NAME, progress);
            }
        };
        match Box::pin(acquire(&request, &self.setup.client, stop, &progress)).await {
            Ok(installed) => {
                let (version, source) = (&installed.version, installed.source);
                tracing::info!(%version, source, "grafana found");
                self.installed = Some(installed);
                self.missing = false;
                Ok(())
            }
            Err(error) => match End::from(error) {
                End::Failed { cause, healthy } => {
                    self.missing = true;
                    // Everything else works without it: tried again now and then is enough.
                    let kind = match cause.kind {
                        Kind::Ordinary => Kind::Hopeless,
                        kind @ (Kind::Blocked | Kind::Hopeless) => kind,
                    };
                    let reason = format!(
                        "{}; everything else works without it, and periscope shows the dashboards itself \
                         at /d/periscope-health",
                        cause.reason
                    );
                    Err(End::Failed { cause: Cause::new(kind, reason), healthy })
                }
                End::Stopped => Err(End::Stopped),
            },
        }
    }

    fn marks(&self) -> Marks {
        Marks { name: Self::NAME, owner: self.home.folder.clone(), roots: Vec::new() }
    }

    async fn plan(
        &mut self,
        supervision: &Supervision,
        stop: &CancellationToken,
    ) -> Result<Plan, End> {
        let installed = self
            .installed
            .clone()
            .ok_or_else(|| Cause::new(Kind::Ordinary, "grafana has vanished since it was found"))?;
        let questdb = self.database(supervision, stop).await?;
        supervision.publisher.phase(Phase::Starting, "starting grafana");
        let (home, data_dir) = (self.home.clone(), self.setup.config.data_dir.clone());
        let prepared = off_runtime(move || {
            home.prepare()?;
            Ok((GrafanaSecrets::load_or_create(&data_dir)?, !home.database().exists()))
        });
        let (secrets, is_first) = prepared.await.map_err(|error| not_writable(&error))?;
        let address = self.address().await?;
        let (api, open) = self.apis(address, &secrets)?;
        let bundle = self.provision(address, questdb, secrets.clone()).await?;
        supervision.publisher.change(|state| {
            let admin = Some(secrets.admin.clone());
            state.endpoint = Some(Endpoint { admin, ..remote::endpoint(api.base()) });
            state.version = Some(installed.version.clone());
        });
        Ok(Plan { installed, address, api, open, secrets, bundle, is_first })
    }

    async fn launch(&self, plan: &Plan) -> Result<Launch, Cause> {
        let option = |name: &str, path: &Path| {
            let mut option = OsString::from(name);
            option.push(path);
            option
        };
        Ok(Launch {
            name: Self::NAME,
            program: plan.installed.program(),
            arguments: vec![
                "server".into(),
                option("--homepath=", &plan.installed.home),
                option("--config=", &self.home.conf().join("grafana.ini")),
            ],
            environment: environment(&self.home.folder),
            directory: self.home.folder.clone(),
            owner: self.home.folder.clone(),
            // It keeps nothing that a kill could lose, and its plugins end with it.
            on_owner_death: Signal::KILL,
            oom_score_adj: 700,
            sink: Sink { file: self.home.log().join("grafana.log"), log: log_line, is_wrong },
        })
    }

    async fn probe(&self, plan: &Plan, limit: Duration) -> Result<(), String> {
        let asked = tokio::time::timeout(limit, plan.open.get("/api/health")).await;
        let answer = asked.map_err(|_| format!("no answer within {limit:?}"))?;
        let answer = answer.map_err(|error| error.to_string())?;
        let words = || "its database does not work: see grafana/log/grafana.log".to_owned();
        healthy_version(&answer).map(|_| ()).ok_or_else(words)
    }

    async fn admit(&mut self, supervision: &Supervision, plan: &Plan) -> Result<(), Cause> {
        if let Ok(answer) = plan.open.get("/api/health").await
            && let Some(version) = healthy_version(&answer).filter(|version| !version.is_empty())
        {
            supervision.publisher.change(|state| state.version = Some(version));
        }
        if plan.is_first && is_open_to_all(&self.setup, plan).await {
            let reason = "grafana takes the password that everybody knows: this version is not \
                          supported";
            return Err(Cause::new(Kind::Hopeless, reason));
        }
        self.locked_out = None;
        let login = plan.api.get("/api/user").await;
        if login.as_ref().is_err_and(|error| error.status().is_some_and(|s| s == 401)) {
            self.locked_out = Some(self.locked_out_words(plan));
        }
        if plan.is_first && self.refused.is_none() {
            // Else it sends to its own default receiver for up to a minute.
            reload(&plan.api, "alerting").await;
        }
        if self.refused.is_none() {
            self.settle(&plan.bundle).await;
        }
        Ok(())
    }

    async fn tend(&mut self, _supervision: &Supervision, plan: &Plan) {
        let Some(questdb) = self.setup.questdb.borrow().endpoint.clone() else { return };
        let moved = self.questdb.as_ref() != Some(&questdb);
        let edited = self.edited().await;
        if !moved && !edited.files {
            return;
        }
        let pg = questdb.pg.clone();
        let made = match self.provision(plan.address, questdb, plan.secrets.clone()).await {
            Ok(made) => made,
            Err(cause) => {
                tracing::warn!(reason = %cause.reason, "grafana's files are not written");
                return;
            }
        };
        // Grafana looks at dashboards by itself, every ten seconds.
        tracing::info!(moved, rules = edited.rules, %pg, "grafana's files are written anew");
        if moved {
            reload(&plan.api, "datasources").await;
        }
        if edited.rules && reload(&plan.api, "alerting").await {
            self.settle(&made).await;
        }
    }

    fn shortcoming(&self) -> String {
        let refused = self.refused.as_ref().map(|words| {
            format!(
                "grafana refuses its alert files and runs without them ({words}); periscope's own \
                 alerts go on; mend [alerts] or [notify] and start periscope again"
            )
        });
        refused.into_iter().chain(self.locked_out.clone()).collect::<Vec<_>>().join("; ")
    }

    fn explain(&mut self, _plan: &Plan, evidence: &Evidence<'_>) -> Cause {
        let cause = cause::grafana(Self::NAME, evidence, &self.home.folder);
        let words = cause::refusal(evidence).filter(|_| cause.kind == Kind::Ordinary);
        match (words, self.refused.take()) {
            // All or nothing: one bad file and it does not start. Alerts are the likeliest.
            (Some(words), None) => self.refused = Some(words),
            // Without them too: it was something else, and all are tried again.
            (Some(_), Some(_)) => {}
            (None, before) => self.refused = before,
        }
        cause
    }

    fn forget(&mut self) {
        self.installed = None;
    }
}

impl Grafana {
    /// Says how to set the password that our file holds.
    fn locked_out_words(&self, plan: &Plan) -> String {
        format!(
            "grafana refuses the password in secrets/grafana-admin-password; set it there: {} cli \
             --homepath {} --config {} admin reset-admin-password --password-from-stdin < {}",
            plan.installed.program().display(),
            plan.installed.home.display(),
            self.home.conf().join("grafana.ini").display(),
            self.setup.config.data_dir.join("secrets/grafana-admin-password").display()
        )
    }
}

/// Returns the whole environment: what a program may expect, nothing that configures Grafana.
fn environment(home: &Path) -> Vec<(OsString, OsString)> {
    let inherited = ["PATH", "LANG", "TZ"].into_iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some((name.into(), value))
    });
    inherited.chain([("HOME".into(), home.as_os_str().to_owned())]).collect()
}

/// Whether it lets in who has not set it up. Asked once: Grafana locks an account after some tries.
async fn is_open_to_all(setup: &Setup, plan: &Plan) -> bool {
    let password = crate::base::secret::Secret::new(WELL_KNOWN);
    let login = Login::Basic { user: WELL_KNOWN.to_owned(), password };
    let api = Api::new(setup.client.clone(), plan.open.base(), Some(&login), REQUEST_LIMIT);
    match api {
        Ok(api) => api.get("/api/user").await.is_ok(),
        Err(_) => false,
    }
}

fn log_line(line: &str) {
    if is_wrong(line) {
        tracing::warn!(target: "grafana", "{line}");
    } else {
        tracing::debug!(target: "grafana", "{line}");
    }
}

//! The files of a managed Grafana: where they lie, and how they are written, at its start and while
//! it runs.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use hyper::Method;

use super::live::Live;
use super::program::Grafana;
use crate::grafana::api::Api;
use crate::grafana::provision::bundle::{Bundle, bundle};
use crate::grafana::provision::inputs::Place;
use crate::grafana::provision::ledger::Ledger;
use crate::grafana::provision::{Settings, write};
use crate::model::server::Endpoint;
use crate::supervise::cause::Cause;
use crate::supervise::managed::{not_writable, off_runtime};
use crate::supervise::policy::Kind;
use crate::supervise::secrets::GrafanaSecrets;

/// Paths below `data_dir/grafana`.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) folder: PathBuf,
}

impl Home {
    /// What Grafana reads; written by periscope at every start.
    pub(super) fn conf(&self) -> PathBuf {
        self.folder.join("conf")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(super) fn ledger(&self) -> PathBuf {
        self.folder.join("ledger.json")
    }

    /// Grafana's own database.
    pub(super) fn database(&self) -> PathBuf {
        self.folder.join("data/grafana.db")
    }

    pub(super) fn prepare(&self) -> io::Result<()> {
        for name in ["", "data", "log", "logs", "plugins"] {
            let folder = self.folder.join(name);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
            })?;
        }
        Ok(())
    }
}

impl Grafana {
    /// Writes every file that Grafana reads; returns what they make.
    pub(super) async fn provision(
        &mut self,
        address: SocketAddr,
        questdb: Endpoint,
        secrets: GrafanaSecrets,
    ) -> Result<Bundle, Cause> {
        let place = Place {
            folder: self.home.conf(),
            state: self.home.folder.clone(),
            address,
            listener: self.setup.listener,
            questdb: questdb.clone(),
            secrets,
        };
        let mut settings = Settings::of(&self.setup.config, place);
        settings.alerting = self.refused.is_none();
        let (rules, home) = (self.setup.rules.clone(), self.home.clone());
        let live = self.setup.live.clone();
        let written = off_runtime(move || {
            let mut ledger = load(&home.ledger());
            // The stamp first: what changes meanwhile is then brought once more.
            let stamp = live.as_ref().map(Live::stamp).unwrap_or_default();
            let replaced = live.as_ref().map(Live::dashboards).unwrap_or_default();
            let made = bundle(settings, &rules, &ledger, &replaced);
            let made = match made {
                Ok(made) => made,
                Err(error) => return Ok(Err(error)),
            };
            made.note(&mut ledger);
            ledger.save(&home.ledger())?;
            write::write(&home.conf(), &made.files)?;
            Ok(Ok((made, stamp)))
        });
        let made = written.await.map_err(|error| not_writable(&error))?;
        let made = made.map_err(|error| Cause::new(Kind::Hopeless, error.to_string()));
        let (made, stamp) = made?;
        self.questdb = Some(questdb);
        self.stamp = stamp;
        Ok(made)
    }

    /// Looks whether files of the dev loop have changed, and reads the rules again then.
    pub(super) async fn edited(&mut self) -> Edited {
        let Some(live) = self.setup.live.clone() else { return Edited::default() };
        let before = self.stamp.clone();
        let looked =
            tokio::task::spawn_blocking(move || (live.stamp() != before).then(|| (live.rules)()));
        let rules = match looked.await {
            Ok(Some(Ok(rules))) => rules,
            Ok(Some(Err(reason))) => {
                tracing::warn!(reason, "the rules stay as they were");
                return Edited { files: true, rules: false };
            }
            Ok(None) | Err(_) => return Edited::default(),
        };
        let changed = rules != self.setup.rules;
        self.setup.rules = rules;
        Edited { files: true, rules: changed }
    }

    /// Notes that what the files delete is gone.
    pub(super) async fn settle(&self, made: &Bundle) {
        let home = self.home.clone();
        let mut ledger = load(&home.ledger());
        made.settle(&mut ledger);
        if let Err(error) = off_runtime(move || ledger.save(&home.ledger())).await {
            tracing::warn!(%error, "the ledger of grafana is not kept");
        }
    }
}

/// What has changed in the files of the dev loop.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Edited {
    /// Any of them.
    pub(super) files: bool,
    /// The rules that they make.
    pub(super) rules: bool,
}

/// Makes Grafana read its files of one kind again; `false` when it does not.
pub(super) async fn reload(api: &Api, kind: &str) -> bool {
    let path = format!("/api/admin/provisioning/{kind}/reload");
    match api.send(Method::POST, &path, None).await {
        Ok(_) => {
            tracing::debug!(kind, "grafana has read its files again");
            true
        }
        Err(error) => {
            // It says the reason in its log alone.
            tracing::warn!(kind, %error, "grafana does not read its files again: see its log");
            false
        }
    }
}

/// Reads the ledger; a damaged one is as good as none, and is written anew.
fn load(path: &Path) -> Ledger {
    Ledger::load(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "what was written for grafana before is not known");
        Ledger::default()
    })
}

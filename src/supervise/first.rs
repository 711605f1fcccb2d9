//! The start before the first start: a server on `root.new` that makes the data root and the archive
//! of classes, and is stopped again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::cause::Cause;
use super::child::Exit;
use super::database::{Database, Plan};
use super::managed::{End, Supervision, not_writable, off_runtime};
use super::policy::Kind;
use super::program::Program as _;
use super::training::{Archive, Startup};
use crate::model::server::Phase;

/// Longest wait for the end of the server that makes the archive: dumping takes some seconds.
const DUMP_LIMIT: Duration = Duration::from_secs(60);

impl Database {
    /// Makes the data root and the archive of classes by a server that is started and stopped.
    pub(super) async fn first_start(
        &mut self,
        plan: &Plan,
        supervision: &Supervision,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let is_first = !self.home.root().exists();
        let archive = Archive::of(&self.home.archives(), &plan.installed);
        let to_make = archive.filter(|archive| !archive.exists() && !archive.is_given_up());
        if !is_first && to_make.is_none() {
            return Ok(());
        }
        let doing = if is_first { "first start of questdb" } else { "preparing a faster start" };
        supervision.publisher.phase(Phase::Starting, doing);
        let home = self.home.clone();
        off_runtime(move || home.begin()).await.map_err(|error| not_writable(&error))?;
        let startup = to_make.clone().map_or(Startup::Plain, Startup::Making);
        let outcome = self.train(plan, startup, supervision, stop).await;
        let gives_up = match &outcome {
            Ok(()) | Err(End::Stopped) => false,
            // Once may be bad luck (a kill from outside); what fails again is done without it.
            Err(End::Failed { .. }) => {
                self.failed_trainings += 1;
                self.failed_trainings >= 2
            }
        };
        let home = self.home.clone();
        let is_done = outcome.is_ok();
        let settled = off_runtime(move || {
            if let Some(archive) = to_make {
                if is_done && !archive.finish()? {
                    tracing::info!("this Java made no archive of classes, questdb starts slower");
                }
                archive.abandon()?;
                if gives_up {
                    archive.give_up()?;
                }
            }
            if is_first && is_done { home.promote() } else { home.discard() }
        });
        settled.await.map_err(|error| not_writable(&error))?;
        match outcome {
            Err(End::Failed { cause, .. }) if !is_first => {
                tracing::warn!(reason = %cause.reason, "no archive of classes was made");
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn train(
        &mut self,
        plan: &Plan,
        startup: Startup,
        supervision: &Supervision,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let plan = Plan { root: self.home.new_root(), startup, ..plan.clone() };
        let launch = self.launch(&plan).await?;
        let mut running = supervision.launch(launch).await?;
        let limit = supervision.limits.first_start;
        supervision.until_ready(self, &plan, &mut running, limit, stop).await?;
        let ended = tokio::select! {
            ended = running.child.end(DUMP_LIMIT) => Some(ended),
            () = stop.cancelled() => None,
        };
        match ended {
            None => {
                running.child.end(supervision.limits.stop).await;
                Err(End::Stopped)
            }
            // A Java that was asked to end exits with 143, its data and the archive whole.
            Some((Exit::Code(0 | 143), false)) => Ok(()),
            Some((exit, _)) => {
                let reason = format!("questdb did not end well after its first start: {exit:?}");
                Err(Cause::new(Kind::Ordinary, reason).into())
            }
        }
    }
}

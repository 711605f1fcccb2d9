//! What one server needs beyond what all have in common; [`super::managed`] does the rest.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::cause::{Cause, Evidence};
use super::managed::{End, Supervision};
use super::orphan::Marks;
use super::spawner::Launch;

/// A server that can be run as a child.
pub trait Program: Send {
    /// All that a start needs; made anew for each.
    type Plan: Send + Sync;

    /// What it is called in messages, metrics and thread names.
    const NAME: &'static str;

    /// Finds or gets its files. Nothing is running.
    fn install(
        &mut self,
        supervision: &Supervision,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<(), End>> + Send;

    /// Returns what tells a process of ours from any other.
    fn marks(&self) -> Marks;

    /// Prepares a start: folders, files, addresses. No process of ours is running.
    fn plan(
        &mut self,
        supervision: &Supervision,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<Self::Plan, End>> + Send;

    /// Returns what to start; may write its configuration.
    fn launch(&self, plan: &Self::Plan) -> impl Future<Output = Result<Launch, Cause>> + Send;

    /// Asks whether it works, within `limit`; an error is in words for an operator.
    fn probe(
        &self,
        plan: &Self::Plan,
        limit: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// Looks at it once after its first answer; on an error it is ended.
    fn admit(
        &mut self,
        supervision: &Supervision,
        plan: &Self::Plan,
    ) -> impl Future<Output = Result<(), Cause>> + Send;

    /// Called after every answered probe: what has to be brought to it while it runs. May be
    /// cancelled at any await by a stop.
    fn tend(
        &mut self,
        supervision: &Supervision,
        plan: &Self::Plan,
    ) -> impl Future<Output = ()> + Send;

    /// Returns what works only in part while it answers; empty when all does.
    fn shortcoming(&self) -> String {
        String::new()
    }

    /// Returns why it has ended, in words that lead to the next step.
    fn explain(&mut self, plan: &Self::Plan, evidence: &Evidence<'_>) -> Cause;

    /// A start has failed: what was found before must be looked at again.
    fn forget(&mut self);
}

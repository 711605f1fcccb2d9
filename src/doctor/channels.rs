//! How people are told, and who notices when this machine is gone.

use super::finding::Finding;
use crate::alert::channel::{Failure, channels as of};
use crate::base::http::Client;
use crate::base::time::Clock;
use crate::config::Config;

pub(super) async fn channels(config: &Config, client: &Client) -> Vec<Finding> {
    const CHECK: &str = "channels";
    let mut findings = Vec::new();
    if config.notify.is_empty() {
        findings.push(Finding::problem(
            CHECK,
            "no channel is configured",
            "alerts are evaluated and nobody is told",
            "periscope notify telegram, or [notify.discord], [notify.email], [notify.webhook], \
             [notify.ntfy]",
        ));
    }
    for channel in of(&config.notify, client, &Clock::system()) {
        let name = channel.name();
        findings.push(match channel.check().await {
            Ok(()) => Finding::ok(CHECK, format!("{name} would take a message")),
            Err(Failure::Never { reason, hint }) => {
                Finding::problem(CHECK, format!("{name} would refuse a message"), reason, hint)
            }
            Err(Failure::Later { reason, .. }) => Finding::problem(
                CHECK,
                format!("{name} cannot be asked"),
                reason,
                format!(
                    "check notify.{name} and the network; periscope alerts test sends a message"
                ),
            ),
        });
    }
    if config.heartbeat.urls.is_empty() {
        findings.push(Finding::warning(
            "heartbeat",
            "no [heartbeat] urls",
            "when this machine is gone nobody is left to tell of it",
            "make a check at a dead man's switch (healthchecks.io, Uptime Kuma) and set [heartbeat] \
             urls = [\"…\"]",
        ));
    } else {
        let count = config.heartbeat.urls.len();
        findings.push(Finding::ok("heartbeat", format!("{count} urls are asked while all moves")));
    }
    findings
}

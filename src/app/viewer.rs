//! Joins the listener's viewer with the dashboards of this configuration and the database.

use anyhow::Context as _;
use tokio::sync::watch;

use crate::config::Config;
use crate::grafana::catalog::Catalog;
use crate::grafana::dashboards;
use crate::model::server::ServerState;
use crate::rules::rule::Rule;
use crate::{rules, web};

/// Makes the viewer; panels are coloured by the thresholds of the configured rules.
///
/// # Errors
/// The rules are wrong (the check of the configuration says so earlier), or a dashboard is.
pub(super) fn viewer(
    config: &Config,
    questdb: watch::Receiver<ServerState>,
) -> anyhow::Result<web::task::Viewer> {
    let own = config.daemons.iter().map(|daemon| daemon.interval);
    let interval = own.chain([config.collect.interval]).max().unwrap_or_default();
    let rules = rules::written::rules(&config.alerts.rules, interval)
        .map_err(|problems| anyhow::anyhow!("{problems}"))
        .context("read the alert rules")?;
    let files = dashboards::render(&|id, severity| threshold(&rules, id, severity));
    let catalog = Catalog::new(&files)?;
    Ok(web::task::Viewer::new(catalog, questdb))
}

/// Returns the threshold of a rule, or its hold time in seconds for `RULE.for`.
fn threshold(rules: &[Rule], id: &str, severity: &str) -> Option<f64> {
    let (id, hold) = id.strip_suffix(".for").map_or((id, false), |id| (id, true));
    let rule = rules.iter().find(|rule| rule.id == id && rule.severity.word() == severity)?;
    Some(if hold { rule.hold.as_secs_f64() } else { rule.limit.threshold })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::catalog;

    #[test]
    fn panels_are_coloured_by_the_rules() {
        let rules = catalog::shipped().unwrap();
        assert_eq!(threshold(&rules, "daemon_memory", "critical"), Some(1_200e6));
        assert_eq!(threshold(&rules, "exchange_disconnected.for", "critical"), Some(300.0));
        assert_eq!(threshold(&rules, "daemon_memory", "nothing"), None);
        assert_eq!(threshold(&rules, "no_such_rule", "warning"), None);
    }
}

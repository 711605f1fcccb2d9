//! Joins the listener's viewer with the dashboards of this configuration and the database.

use tokio::sync::watch;

use crate::grafana::catalog::Catalog;
use crate::grafana::dashboards;
use crate::model::server::ServerState;
use crate::rules::rule::Rule;
use crate::web;

/// Makes the viewer; panels are coloured by the thresholds of `rules`.
///
/// # Errors
/// A dashboard is wrong.
pub(super) fn viewer(
    rules: &[Rule],
    questdb: watch::Receiver<ServerState>,
) -> anyhow::Result<web::task::Viewer> {
    let files = dashboards::render(&dashboards::thresholds(rules));
    let catalog = Catalog::new(&files)?;
    Ok(web::task::Viewer::new(catalog, questdb))
}

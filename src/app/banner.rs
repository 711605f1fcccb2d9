//! The first output of `up` and `dev`: where everything is and how to go on.

use std::net::SocketAddr;

use crate::config::{Config, Mode, Profile};
use crate::grafana::dashboards;
use crate::model::server::{Phase, ServerState};

/// Returns the block of URLs and the line that adds a daemon.
pub(super) fn urls(
    config: &Config,
    listener: SocketAddr,
    questdb: &ServerState,
    grafana: &ServerState,
) -> String {
    let questdb_url = questdb.endpoint.as_ref().map_or_else(
        || format!("http://{}", config.questdb.http.trim_start_matches("http://")),
        |endpoint| endpoint.http.clone(),
    );
    let login = match config.questdb.mode {
        Mode::Managed => "   (login: periscope credentials)",
        Mode::Remote | Mode::Off => "",
    };
    let mut lines = vec![
        format!("periscope {}", env!("CARGO_PKG_VERSION")),
        format!("  status page   http://{listener}/"),
        format!("  dashboards    http://{listener}/d/{}", dashboards::uid("health")),
        format!("  metrics       http://{listener}/metrics"),
        format!("  questdb       {questdb_url}{login}"),
    ];
    lines.extend(grafana_line(config, grafana));
    lines.push(format!("  data folder   {}", config.data_dir.display()));
    let folder = match config.profile {
        Profile::Dev => " --data-dir .periscope",
        Profile::Up => "",
    };
    lines.push(String::new());
    lines.push("Add a Python daemon, unmodified:".to_owned());
    lines.push(format!(
        "  periscope run{folder} --name my-bot --target my_package.daemon:DaemonRunner -- python -m my_package.daemon"
    ));
    lines.push("See the rows:".to_owned());
    lines.push(format!("  periscope query{folder} \"select daemon, count() from daemon_metrics\""));
    lines.join("\n")
}

/// Returns the line about Grafana; `None` when there is none.
fn grafana_line(config: &Config, state: &ServerState) -> Option<String> {
    let at = state.endpoint.as_ref().map(|endpoint| endpoint.http.clone());
    let at = at.unwrap_or_else(|| format!("http://{}", config.grafana.address));
    let url = config.grafana.url.clone().unwrap_or(at);
    match (config.grafana.mode, state.phase) {
        (Mode::Off, _) => None,
        (Mode::Remote, _) => Some(format!("  grafana       {url}")),
        (Mode::Managed, Phase::Backoff | Phase::Broken) => {
            Some("  grafana       none: periscope status says why, and what helps".to_owned())
        }
        (
            Mode::Managed,
            Phase::Absent
            | Phase::Downloading
            | Phase::Starting
            | Phase::Ready
            | Phase::Unhealthy
            | Phase::Stopping,
        ) => Some(format!("  grafana       {url}   (login: admin, periscope credentials)")),
    }
}

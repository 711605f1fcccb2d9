//! The report that page, API and `periscope status` show, put together from every part.

use tokio::sync::watch;

use crate::alert::task::Handle;
use crate::base::health::Board;
use crate::base::time::Timestamp;
use crate::collect::task::Directory;
use crate::config::{Mode, Node};
use crate::model::report::{Report, Server};
use crate::model::server::ServerState;
use crate::store::task::Stats;

/// Handles of everything that a report tells of.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    pub(super) node: Node,
    pub(super) mode: Mode,
    pub(super) started_at: Timestamp,
    pub(super) board: Board,
    pub(super) questdb: watch::Receiver<ServerState>,
    pub(super) grafana_mode: Mode,
    /// The URL for people, where it is another than the address.
    pub(super) grafana_url: Option<String>,
    pub(super) grafana: watch::Receiver<ServerState>,
    pub(super) stats: Stats,
    pub(super) directory: Directory,
    pub(super) alerts: Handle,
}

impl Reporter {
    /// Returns how everything is at this moment.
    pub(super) fn report(&self) -> Report {
        let mut daemons = self.directory.report();
        for daemon in &mut daemons {
            daemon.last_durable_at = self.stats.durable_at(&daemon.name);
        }
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            host: self.node.host.clone(),
            env: self.node.env.clone(),
            mode: mode_name(self.mode).to_owned(),
            started_at: self.started_at,
            questdb: server(&self.questdb.borrow()),
            grafana: self.grafana(),
            spool: self.stats.spool(),
            writer: self.stats.writer(),
            database: self.stats.database(),
            daemons,
            alerts: self.alerts.report(),
            parts: self.board.entries(),
        }
    }

    fn grafana(&self) -> Server {
        let mut server = server(&self.grafana.borrow());
        if self.grafana_mode == Mode::Off {
            server.state = "off".to_owned();
        }
        server.pg = None;
        server.url = self.grafana_url.clone().or_else(|| server.http.clone());
        server
    }
}

/// Returns the name of `mode` in the report.
const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Managed => "managed",
        Mode::Remote => "remote",
        Mode::Off => "off",
    }
}

fn server(state: &ServerState) -> Server {
    Server {
        state: Server::state_name(state.phase).to_owned(),
        version: state.version.clone(),
        pid: state.pid,
        http: state.endpoint.as_ref().map(|endpoint| endpoint.http.clone()),
        pg: state.endpoint.as_ref().map(|endpoint| endpoint.pg.clone()),
        url: None,
        restarts: state.restarts,
        reason: state.reason.clone(),
    }
}

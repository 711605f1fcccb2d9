//! The first output of `up` and `dev`: where everything is and how to go on.

use std::net::SocketAddr;

use crate::config::{Config, Mode, Profile};
use crate::model::server::ServerState;

/// Returns the block of URLs and the line that adds a daemon.
pub(super) fn urls(config: &Config, listener: SocketAddr, questdb: &ServerState) -> String {
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
        format!("  metrics       http://{listener}/metrics"),
        format!("  questdb       {questdb_url}{login}"),
        format!("  data folder   {}", config.data_dir.display()),
    ];
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

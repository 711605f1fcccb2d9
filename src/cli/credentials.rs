//! `periscope credentials`: who may log in to the servers that periscope runs.

use super::exit::{Exit, Failure};
use super::{Global, output};
use crate::supervise::secrets::{Credentials, GrafanaSecrets};

pub(super) fn credentials(global: &Global) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let credentials = Credentials::load(&config.data_dir).map_err(|error| {
        Failure::error(
            Exit::Failure,
            format!(
                "read {}: {error}; `periscope up` makes them at its first start",
                config.data_dir.join("secrets").display()
            ),
        )
    })?;
    let row = |server: &str, login: &crate::model::server::Login, may: &str| {
        vec![server.into(), login.user.clone(), login.password.reveal().to_owned(), may.into()]
    };
    let mut rows = vec![
        row("questdb web console, HTTP", &credentials.http, "read and write"),
        row("questdb PG wire", &credentials.pg_admin, "read and write"),
        row("questdb PG wire", &credentials.pg_reader, "read"),
    ];
    // There is none before its first start, nor where it is switched off.
    if let Ok(grafana) = GrafanaSecrets::load(&config.data_dir) {
        rows.push(row("grafana", &grafana.admin, "everything"));
    }
    output::line(&output::table(&["SERVER", "USER", "PASSWORD", "MAY"], &rows));
    Ok(Exit::Done)
}

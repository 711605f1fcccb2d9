//! `periscope render`: the files that `up` would hand to the servers.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;

use super::exit::{Exit, Failure};
use super::{Global, output};
use crate::supervise;

pub(super) fn render(global: &Global, dir: &Path) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let address = |key: &str, text: &str| -> anyhow::Result<SocketAddr> {
        text.parse().map_err(|_| {
            Failure::error(
                Exit::Config,
                format!("{key} = {text:?} is no address of a QuestDB that periscope would run"),
            )
        })
    };
    let http = address("questdb.http", &config.questdb.http)?;
    let pg = address("questdb.pg", &config.questdb.pg)?;
    let text = supervise::questdb::server_conf(&config.questdb, http, pg);
    write(&dir.join("questdb/server.conf"), &text)?;
    Ok(Exit::Done)
}

/// Writes a file whole or not at all and says so.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let create = |error: std::io::Error| {
        Failure::error(Exit::CannotCreate, format!("write {}: {error}", path.display()))
    };
    let folder = path.parent().context("a file needs a folder")?;
    std::fs::create_dir_all(folder).map_err(create)?;
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(create)?;
    output::line(&path.display().to_string());
    Ok(())
}

//! One poll of one daemon for people: the document, the rows that it gives, and what was left out.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::discover;
use super::fetch;
use super::json::Document;
use super::mapping::Mapper;
use super::rows::{self, Tags};
use super::task::asked;
use super::wire;
use crate::base::http::{Client, Limits};
use crate::base::time::{Clock, Timestamp};
use crate::config::{Daemon, Node, Source};
use crate::model::observation::{Failure, FailureReason, Observation};
use crate::model::row::Row;

/// What one document gives.
#[derive(Debug)]
pub struct Probe {
    /// Name of the series: that of the daemon, or of one object of its process.
    pub name: String,
    /// The document, as it came.
    pub document: Value,
    /// Its rows; none when it is no status.
    pub rows: Vec<Row>,
    /// Fields that are null in the rows because of their type or value.
    pub wrong: Vec<&'static str>,
    /// Paths of the daemon's map that lead nowhere.
    pub missing: Vec<String>,
    /// Fields that are in no row.
    pub ignored: Vec<String>,
}

/// Asks `daemon` once. A daemon of the shim is looked for in `run_dir`.
///
/// # Errors
/// Why there is no document: see [`FailureReason`]. A daemon that pushes or that is listened to cannot
/// be asked.
pub async fn probe(
    daemon: &Daemon,
    node: &Node,
    run_dir: &Path,
    client: &Client,
    max_document: usize,
) -> Result<Vec<Probe>, Failure> {
    let limits = Limits { time: daemon.timeout, body: max_document };
    let clock = Clock::system();
    let documents = if daemon.source == Source::Shim {
        shim(&daemon.name, run_dir, limits).await?
    } else {
        let Some(asked) = asked(&daemon.source, client) else {
            let words = format!(
                "a daemon with source = \"{}\" sends by itself: see its document in the running \
                 instance, `periscope status --json`",
                daemon.source.word()
            );
            return Err(Failure::new(FailureReason::Unreachable, words));
        };
        let (document, _lag) = wire::opened(asked.document(limits, clock.now()).await);
        vec![(daemon.name.clone(), document?)]
    };
    let now = clock.now();
    let mapper = Mapper::new(daemon.map.as_ref());
    let read = |(name, document)| read(name, document, &mapper, node, now);
    Ok(documents.into_iter().map(read).collect())
}

async fn shim(
    name: &str,
    run_dir: &Path,
    limits: Limits,
) -> Result<Vec<(String, Document)>, Failure> {
    let sockets = discover::scan(run_dir).map_err(|error| {
        let words = format!("read {}: {error}", run_dir.display());
        Failure::new(FailureReason::Permission, words)
    })?;
    let Some(socket) = discover::choose(sockets, discover::parent).remove(name) else {
        let words = format!("no socket {name}-PID.sock in {}", run_dir.display());
        return Err(Failure::new(FailureReason::SocketMissing, words));
    };
    let Document { value, oddities } = fetch::unix(&socket.path, limits).await?;
    let answer = wire::answer(value).ok_or_else(|| {
        let words = "the socket does not speak the shim's protocol";
        Failure::new(FailureReason::BadDocument, words)
    })?;
    let names = wire::Names::default().assign(&Arc::from(name), &answer.instances);
    let with_names = names.iter().zip(answer.instances);
    with_names
        .map(|(name, instance)| {
            let value = instance.status?;
            Ok((name.to_string(), Document { value, oddities: oddities.clone() }))
        })
        .collect()
}

fn read(name: String, document: Document, mapper: &Mapper, node: &Node, now: Timestamp) -> Probe {
    let document = document.value;
    let ignored = mapper.ignored(&document);
    let Some(mapped) = mapper.status(&document, now) else {
        let (rows, wrong, missing) = (Vec::new(), Vec::new(), Vec::new());
        return Probe { name, document, rows, wrong, missing, ignored };
    };
    let observation = Observation {
        at: now,
        daemon: name.as_str().into(),
        outcome: Ok(mapped.status),
        poll_ms: None,
        event_loop_lag_ms: None,
        process: None,
        restarts: 0,
    };
    let rows = rows::rows(&observation, &Tags::of(node));
    let (wrong, missing) = (mapped.drift, mapped.missing);
    Probe { name, document, rows, wrong, missing, ignored }
}

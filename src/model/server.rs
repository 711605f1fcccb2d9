//! A server that periscope runs as a child or uses remotely, as the other parts see it.

use serde::{Deserialize, Serialize};

use crate::base::secret::Secret;

/// Where and as whom to talk to `QuestDB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Base URL without a trailing slash: `http://127.0.0.1:9000`.
    pub http: String,
    /// PG wire, `host:port`.
    pub pg: String,
    /// Name of the PG database: `qdb` unless said otherwise.
    pub database: String,
    /// Who writes and creates tables, over HTTP (basic auth) and PG.
    pub admin: Option<Login>,
    /// Who only reads, over PG; the admin where there is no other.
    pub reader: Option<Login>,
}

/// User and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// Phase of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing is known yet, or nothing is configured.
    Absent,
    /// Its program is being acquired.
    Downloading,
    /// Started, not answering yet.
    Starting,
    /// Answers queries.
    Ready,
    /// Runs but does not answer.
    Unhealthy,
    /// Asked to stop.
    Stopping,
    /// Ended; the next start waits.
    Backoff,
    /// Ended too often; tried again every five minutes.
    Broken,
}

/// Latest state of a server. Sent over a `watch` channel by `supervise`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Phase.
    pub phase: Phase,
    /// Version, once known.
    pub version: Option<String>,
    /// Process id of a child that runs.
    pub pid: Option<u32>,
    /// Where it answers; set from [`Phase::Starting`] on, so that waiting can name it.
    pub endpoint: Option<Endpoint>,
    /// Starts so far in this run of periscope; a change means a new process (or, remote, a return
    /// after an absence), so everything delivered shortly before may have to be sent again.
    pub generation: u64,
    /// Restarts since periscope started.
    pub restarts: u64,
    /// Why it is not ready, or ready only in part, and the next step; empty when all is well.
    pub reason: String,
}

impl ServerState {
    /// State before anything is known.
    pub const fn absent() -> Self {
        Self {
            phase: Phase::Absent,
            version: None,
            pid: None,
            endpoint: None,
            generation: 0,
            restarts: 0,
            reason: String::new(),
        }
    }

    /// Returns the endpoint while the server answers.
    pub fn ready(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref().filter(|_| self.phase == Phase::Ready)
    }
}

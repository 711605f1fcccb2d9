//! The JSON of `GET /api/v1/status`, which `periscope status` reads too. Adding a field is fine;
//! names are never changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::server::Phase;
use crate::base::health::{Entry, Part};
use crate::base::time::Timestamp;

/// Everything that the status page shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of periscope.
    pub version: String,
    /// Process id of periscope.
    pub pid: u32,
    /// `[node] host`.
    pub host: String,
    /// `[node] env`.
    pub env: String,
    /// `managed` or `remote`.
    pub mode: String,
    /// When periscope started.
    pub started_at: Timestamp,
    /// The database.
    pub questdb: Server,
    /// The dashboards.
    pub grafana: Server,
    /// The queue on disk.
    pub spool: Spool,
    /// Delivery to the database.
    pub writer: Writer,
    /// What the database itself is asked from time to time.
    #[serde(default)]
    pub database: Database,
    /// Every daemon known, by name.
    pub daemons: Vec<Daemon>,
    /// Alerting.
    pub alerts: Alerts,
    /// Health of every part.
    pub parts: BTreeMap<Part, Entry>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// `absent`, `downloading`, `starting`, `ready`, `unhealthy`, `stopping`, `backoff`, `broken`;
    /// for Grafana also `off`.
    pub state: String,
    /// Version, once known.
    pub version: Option<String>,
    /// Process id of a child.
    pub pid: Option<u32>,
    /// Base URL.
    pub http: Option<String>,
    /// PG wire, `host:port`.
    pub pg: Option<String>,
    /// Grafana: the URL for people.
    #[serde(default)]
    pub url: Option<String>,
    /// Restarts since periscope started.
    pub restarts: u64,
    /// Why it is not ready; empty when it is.
    pub reason: String,
}

/// The queue on disk.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spool {
    /// Rows not yet delivered.
    pub rows: u64,
    /// Bytes not yet delivered.
    pub bytes: u64,
    /// Age of the oldest record not yet delivered, seconds; 0 when there is none.
    pub oldest_age_seconds: f64,
    /// Newest record on disk (fdatasync'ed).
    pub durable_seq: u64,
    /// Rows made durable since periscope started.
    pub durable_rows: u64,
    /// Rows lost by cap or damage since periscope started.
    pub lost_rows: u64,
}

/// Delivery to the database.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Writer {
    /// Rows acknowledged by `QuestDB` since periscope started.
    pub rows_total: u64,
    /// Rows in the dead-letter folder since periscope started.
    pub refused_total: u64,
    /// Last acknowledged write.
    pub last_write_at: Option<Timestamp>,
    /// Duration of the last request, whatever its answer, milliseconds.
    #[serde(default)]
    pub latency_ms: Option<f64>,
}

/// What the database itself is asked every ten seconds; all `None` while it does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Database {
    /// Duration of the last check query, milliseconds.
    pub latency_ms: Option<f64>,
    /// Transactions accepted but not yet visible, of all tables of periscope together.
    pub wal_lag: Option<u64>,
}

/// A daemon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// Name.
    pub name: String,
    /// `up`, `stopped` (it says running=false), `unreachable` or `waiting` (never polled yet).
    pub state: String,
    /// Kind of source, as in the configuration.
    pub source: String,
    /// Time of the last poll, answered or not.
    pub last_sample_at: Option<Timestamp>,
    /// Newest sample that is durable on disk: it will be in `QuestDB` exactly once.
    pub last_durable_at: Option<Timestamp>,
    /// Time of the last answered poll.
    pub last_success_at: Option<Timestamp>,
    /// Why the last poll failed: reason code and words.
    pub poll_error: Option<String>,
    /// Pid of the process, where known.
    pub pid: Option<u32>,
    /// Restarts seen.
    pub restarts: u64,
    /// Interval between polls, seconds.
    pub interval_seconds: f64,
    /// Results of the latest polls, oldest first, at most 60: answered or not.
    pub beats: Vec<bool>,
    /// The last document, as it came.
    pub status: Option<serde_json::Value>,
}

/// Alerting.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Alerts {
    /// Who sends: `grafana` or `fallback`.
    pub path: String,
    /// Firing alerts.
    pub firing: Vec<serde_json::Value>,
}

impl Server {
    /// Returns the name of `phase` in this JSON.
    pub const fn state_name(phase: Phase) -> &'static str {
        match phase {
            Phase::Absent => "absent",
            Phase::Downloading => "downloading",
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Unhealthy => "unhealthy",
            Phase::Stopping => "stopping",
            Phase::Backoff => "backoff",
            Phase::Broken => "broken",
        }
    }
}

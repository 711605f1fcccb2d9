//! Layer 1: checked settings. TOML as written → all problems at once, or these values. After that
//! nothing is optional that is needed and no default lives elsewhere.

pub mod alerts;
pub mod check;
mod daemons;
pub mod defaults;
mod file;
pub mod load;
pub mod map;
pub mod notify;
mod overrides;
pub mod parts;
mod reader;
mod secrets;
mod sections;
mod servers;
#[cfg(test)]
mod tests;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::secret::Secret;

/// Which command the settings are for; it decides some defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `up` and every command that only looks: the defaults of a server.
    Up,
    /// `dev`: data folder `./.periscope`, env=dev, short intervals, another port where one is taken.
    Dev,
}

/// Reads a duration as it is written in the file: `90s`, `1h30m`, `2d`.
///
/// # Errors
/// What is wrong with it, in words that follow the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text).map_err(|fault| fault.message)
}

/// All settings, valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose defaults were taken.
    pub profile: Profile,
    /// `[node]`
    pub node: Node,
    /// `[listen]`
    pub listen: Listen,
    /// `[questdb]`
    pub questdb: Questdb,
    /// `[grafana]`
    pub grafana: Grafana,
    /// `[[daemon]]`; daemons of the shim are found by their sockets and need no entry.
    pub daemons: Vec<Daemon>,
    /// `[collect]`
    pub collect: Collect,
    /// `[writer]`
    pub writer: Writer,
    /// `[spool]`
    pub spool: Spool,
    /// `[retention]`: days by table.
    pub retention: Retention,
    /// `[alerts]`
    pub alerts: alerts::Alerts,
    /// `[notify]`
    pub notify: notify::Notify,
    /// `[heartbeat]`
    pub heartbeat: notify::Heartbeat,
    /// The data folder, absolute.
    pub data_dir: PathBuf,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Tag `host` of every row, 1 to 255 characters.
    pub host: String,
    /// Tag `env` of every row: prod, staging or dev.
    pub env: String,
}

/// `[listen]`
#[derive(Debug, Clone)]
pub struct Listen {
    /// Own listener. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Token that clients must send; without it the address is loopback.
    pub token: Option<Secret>,
    /// Names that the Host header may carry besides localhost, 127.0.0.1 and [::1].
    pub allowed_hosts: Vec<String>,
}

/// Whether periscope runs a server itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As a child process.
    Managed,
    /// An existing one.
    Remote,
    /// Not at all.
    Off,
}

/// `[questdb]`
#[derive(Debug, Clone)]
pub struct Questdb {
    /// Managed or remote (never off).
    pub mode: Mode,
    /// Managed: where it listens, `host:port`; port 0 takes a free one. Remote: base URL.
    pub http: String,
    /// PG wire, `host:port`; port 0 takes a free one.
    pub pg: String,
    /// Version to get when managed.
    pub version: String,
    /// Folder with `questdb.jar` or an unpacked release, instead of getting one.
    pub home: Option<PathBuf>,
    /// Folder to look for archives and jars in before any download.
    pub offline: Option<PathBuf>,
    /// Java executable or JAVA_HOME, instead of searching for one.
    pub java: Option<PathBuf>,
    /// Heap, bytes (`-Xmx`).
    pub memory: u64,
    /// Remote: user for HTTP and PG.
    pub user: Option<String>,
    /// Remote: password for HTTP and PG.
    pub password: Option<Secret>,
    /// Remote: allows plain http to a host that is not loopback.
    pub insecure: bool,
}

/// `[grafana]`
#[derive(Debug, Clone)]
pub struct Grafana {
    /// Managed, remote or off.
    pub mode: Mode,
    /// Managed: where it listens.
    pub address: String,
    /// Remote: base URL.
    pub url: Option<String>,
    /// Version to get when managed.
    pub version: String,
    /// Folder with an unpacked release, instead of getting one.
    pub home: Option<PathBuf>,
    /// Folder to look for archives in before any download.
    pub offline: Option<PathBuf>,
    /// Type of the data source: `postgres` or `questdb`.
    pub datasource: String,
    /// Remote: how periscope logs in.
    pub login: Option<Login>,
    /// Remote: allows plain http to a host that is not loopback.
    pub insecure: bool,
}

/// How periscope logs in to a remote Grafana.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Service account token.
    Token(Secret),
    /// User and password.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: Secret,
    },
}

/// One `[[daemon]]`.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// Tag `daemon`; unique.
    pub name: String,
    /// Where its status comes from.
    pub source: Source,
    /// Time between polls.
    pub interval: Duration,
    /// Time limit of one poll; at most `interval`.
    pub timeout: Duration,
    /// `[daemon.map]`, and what a preset adds; `None` when its document is a status as it is.
    pub map: Option<map::Map>,
}

/// Where a daemon's status comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Socket `NAME-PID.sock` in the data folder's `run/`, made by `periscope run`.
    Shim,
    /// A URL (http or https).
    Http {
        /// The URL; of a status in parts: what their paths are put behind.
        url: String,
        /// Value of the Authorization header, if any.
        authorization: Option<Secret>,
        /// How it is asked for.
        ask: parts::Ask,
        /// The requests of a status that takes several; none when the URL answers it all.
        parts: Vec<parts::Part>,
    },
    /// HTTP on a unix socket.
    Socket {
        /// Where the socket is, absolute.
        path: PathBuf,
        /// What is asked for, such as `/status`.
        request: String,
    },
    /// Standard output of a program.
    Exec {
        /// Path, absolute, and arguments.
        command: Vec<String>,
    },
    /// A file of JSON, or of JSON lines of which the last counts.
    File {
        /// Where it is, absolute.
        path: PathBuf,
        /// Time since its last change after which the daemon counts as silent.
        stale_after: Duration,
    },
    /// Messages of a WebSocket.
    Websocket {
        /// `ws://` or `wss://`.
        url: String,
        /// Value of the Authorization header, if any.
        authorization: Option<Secret>,
        /// Sent after every connect, if any.
        subscribe: Option<String>,
    },
    /// The daemon sends it to `POST /api/v1/push/NAME`, once every `interval`.
    Push,
}

impl Source {
    /// A URL that answers everybody's GET with a whole document.
    pub fn http(url: impl Into<String>) -> Self {
        let (url, ask) = (url.into(), parts::Ask::default());
        Self::Http { url, authorization: None, ask, parts: Vec::new() }
    }

    /// Returns the word that stands for it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Shim => "shim",
            Self::Http { .. } => "http",
            Self::Socket { .. } => "socket",
            Self::Exec { .. } => "exec",
            Self::File { .. } => "file",
            Self::Websocket { .. } => "websocket",
            Self::Push => "push",
        }
    }
}

/// `[collect]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collect {
    /// Time between polls of a daemon that says nothing else.
    pub interval: Duration,
    /// Time between polls of a daemon of the shim that reports trading results, unless it has an
    /// interval of its own; not above `interval`.
    pub trading_interval: Duration,
    /// Largest accepted status document, bytes.
    pub max_document: usize,
}

/// `[writer]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    /// Rows per batch.
    pub batch_rows: usize,
    /// Longest time that a row waits for its batch to fill.
    pub flush_interval: Duration,
    /// Rows that may wait in memory before the spool; beyond that the oldest are dropped, counted.
    pub queue_rows: usize,
    /// Time limit of one request to `QuestDB`.
    pub timeout: Duration,
}

/// `[spool]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spool {
    /// Size at which the oldest records are dropped, bytes.
    pub max_bytes: u64,
    /// Free space that the spool leaves on its file system, bytes.
    pub min_free: u64,
    /// How long delivered records are kept, to be sent again after an unclean restart.
    pub replay_window: Duration,
    /// Size of the delivered records that are kept, bytes.
    pub replay_bytes: u64,
}

/// `[retention]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// Days for tables not named; `None`: as the table declares.
    pub default_days: Option<u32>,
    /// Days by table name.
    pub tables: std::collections::BTreeMap<String, u32>,
}

impl Retention {
    /// Returns the days that rows of `table` are kept.
    pub fn days(&self, table: &crate::model::table::Table) -> u32 {
        let default = self.default_days.unwrap_or(table.ttl_days);
        self.tables.get(table.name).copied().unwrap_or(default)
    }
}

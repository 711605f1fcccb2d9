//! What one poll saw. A failed poll is an observation too.

use std::sync::Arc;

use super::status::Status;
use crate::base::time::Timestamp;

/// Why a poll gave no status. Small and fixed: it becomes a metric's label and a column's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureReason {
    /// Nobody listens.
    Refused,
    /// No connection for another reason than those named here.
    Unreachable,
    /// The host name has no address.
    Dns,
    /// The certificate or the handshake.
    Tls,
    /// No whole answer in time.
    Timeout,
    /// The connection broke, or the answer is no HTTP.
    Broken,
    /// The document is larger than allowed.
    TooLarge,
    /// The answer points elsewhere, which is never followed.
    Redirect,
    /// Another status than 200 to 299.
    HttpStatus,
    /// The answer has no content.
    Empty,
    /// The answer is a web page.
    Html,
    /// The answer is no JSON, or not all of it.
    NotJson,
    /// The JSON is nested more deeply than allowed.
    TooDeep,
    /// The JSON is no status document.
    BadDocument,
    /// The daemon's socket does not exist (yet, or any more).
    SocketMissing,
    /// The daemon's socket may not be used.
    Permission,
    /// The process runs and has no object of the target class (yet, or any more).
    NoInstance,
    /// The status method raised an exception.
    StatusError,
    /// Nothing new has come for three intervals from a daemon that sends by itself.
    Silent,
    /// The file or program does not exist (yet, or any more).
    Missing,
    /// The program ended with another status than 0.
    ExitStatus,
}

impl FailureReason {
    /// All reasons.
    pub const ALL: [Self; 21] = [
        Self::Refused,
        Self::Unreachable,
        Self::Dns,
        Self::Tls,
        Self::Timeout,
        Self::Broken,
        Self::TooLarge,
        Self::Redirect,
        Self::HttpStatus,
        Self::Empty,
        Self::Html,
        Self::NotJson,
        Self::TooDeep,
        Self::BadDocument,
        Self::SocketMissing,
        Self::Permission,
        Self::NoInstance,
        Self::StatusError,
        Self::Silent,
        Self::Missing,
        Self::ExitStatus,
    ];

    /// Returns the code that stands in `poll_error` and in metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::TooLarge => "too_large",
            Self::Redirect => "redirect",
            Self::HttpStatus => "http_status",
            Self::Empty => "empty",
            Self::Html => "html",
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::BadDocument => "bad_document",
            Self::SocketMissing => "socket_missing",
            Self::Permission => "permission",
            Self::NoInstance => "no_instance",
            Self::StatusError => "status_error",
            Self::Silent => "silent",
            Self::Missing => "missing",
            Self::ExitStatus => "exit_status",
        }
    }

    /// Whether the words of the failure are the daemon's, not periscope's.
    pub const fn is_the_daemons_own(self) -> bool {
        matches!(self, Self::StatusError)
    }
}

/// A failed poll: the code for machines, the words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: FailureReason,
    /// What happened, where, and the next step if one is known. No secrets.
    pub words: String,
}

impl Failure {
    /// Makes a failure.
    pub fn new(reason: FailureReason, words: impl Into<String>) -> Self {
        Self { reason, words: words.into() }
    }
}

/// Why a document that a daemon pushed is not taken; nothing of it is stored. The words name the
/// next step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushRefusal {
    /// The daemon's name or the document is wrong: the same push can never be taken.
    #[error("{0}")]
    Invalid(String),
    /// The document is larger than `collect.max_document`.
    #[error("{0}")]
    TooLarge(String),
    /// The name belongs to a daemon that is polled.
    #[error("{0}")]
    Taken(String),
    /// It may be taken later.
    #[error("{0}")]
    Unavailable(String),
}

/// `refused: connect to http://127.0.0.1:8000: Connection refused`
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.code(), self.words)
    }
}

/// The daemon's process, seen from outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Pid and start: `1234@567890`, the start in clock ticks since boot, which no change of the
    /// wall clock moves.
    pub instance: Arc<str>,
    /// Resident memory.
    pub memory_bytes: Option<i64>,
    /// CPU since the last poll, 100 = one core.
    pub cpu_percent: Option<f64>,
}

/// What one poll of one daemon saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// When the answer came, or the poll was given up; whole microseconds.
    pub at: Timestamp,
    /// Name of the daemon.
    pub daemon: Arc<str>,
    /// What it said, or why it said nothing.
    pub outcome: Result<Status, Failure>,
    /// Time from request to answer, milliseconds; `None` without an answer.
    pub poll_ms: Option<f64>,
    /// How long its event loop took to run a callback, milliseconds; while the loop is blocked, for
    /// how long it has been: a lower bound.
    pub event_loop_lag_ms: Option<f64>,
    /// Its process, where known.
    pub process: Option<Process>,
    /// Restarts that periscope has seen.
    pub restarts: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_of_its_own() {
        let codes: std::collections::BTreeSet<_> =
            FailureReason::ALL.into_iter().map(FailureReason::code).collect();
        assert_eq!(codes.len(), FailureReason::ALL.len());
    }
}

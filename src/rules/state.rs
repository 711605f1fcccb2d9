//! What is known of one alert series, and how it changes; names are on disk and never changed.

use std::time::Duration;

use super::rule::words;
use crate::base::time::Timestamp;

/// What an evaluation found for one series.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// The value. NaN and infinities count as [`Reading::Failed`].
    Value(f64),
    /// The query has no row for this series any more.
    NoData,
    /// The query failed, with the reason.
    Failed(String),
}

/// State of one series; written to disk, so names are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// All is well, or never seen.
    #[default]
    Normal,
    /// Bad, not yet for long enough.
    Pending {
        /// First bad evaluation.
        since: Timestamp,
        /// Last evaluation.
        seen: Timestamp,
        /// Time counted so far.
        held: Duration,
    },
    /// Fires.
    Alerting {
        /// When it fired.
        since: Timestamp,
    },
    /// Good again, still counted as firing until it has been good for `keep_firing`.
    Recovering {
        /// When it fired.
        since: Timestamp,
        /// Last evaluation.
        seen: Timestamp,
        /// Time counted so far.
        held: Duration,
    },
    /// Not firing, and no row.
    NoData {
        /// First evaluation without a row.
        since: Timestamp,
    },
    /// Not firing, and the query fails.
    Error {
        /// First failed evaluation.
        since: Timestamp,
    },
}

words! {
    /// The name of a state, as in the column `alert_events.state`.
    Phase {
        /// See [`State::Normal`].
        Normal = "normal",
        /// See [`State::Pending`].
        Pending = "pending",
        /// See [`State::Alerting`].
        Alerting = "alerting",
        /// See [`State::Recovering`].
        Recovering = "recovering",
        /// See [`State::NoData`].
        NoData = "no_data",
        /// See [`State::Error`].
        Error = "error",
    }
}

impl State {
    /// Returns its name.
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Normal => Phase::Normal,
            Self::Pending { .. } => Phase::Pending,
            Self::Alerting { .. } => Phase::Alerting,
            Self::Recovering { .. } => Phase::Recovering,
            Self::NoData { .. } => Phase::NoData,
            Self::Error { .. } => Phase::Error,
        }
    }

    /// Returns since when it fires; `None` while it does not.
    pub const fn firing_since(&self) -> Option<Timestamp> {
        match *self {
            Self::Alerting { since } | Self::Recovering { since, .. } => Some(since),
            Self::Normal | Self::Pending { .. } | Self::NoData { .. } | Self::Error { .. } => None,
        }
    }
}

/// What people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It fires.
    Fired,
    /// It is over.
    Resolved,
}

/// A change of phase.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Transition {
    /// Before.
    pub from: Phase,
    /// After.
    pub to: Phase,
    /// What people are told of it, if anything. Fired and resolved take turns, fired first.
    pub event: Option<Event>,
    /// When.
    pub at: Timestamp,
    /// Since when it fires or, when resolved, has fired; otherwise `at`.
    pub since: Timestamp,
    /// The value that led to it, where there was one.
    pub value: Option<f64>,
}

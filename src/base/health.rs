//! What works and what does not: one board that every part writes and pages and probes read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::time::{Clock, Timestamp};

/// A part of the running program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The database, child or remote.
    Questdb,
    /// The dashboard server, child or remote.
    Grafana,
    /// Tables as declared.
    Schema,
    /// Durable queue on disk.
    Spool,
    /// Delivery of the spool's records.
    Writer,
    /// The poll loops.
    Collect,
    /// Rule evaluation and notification.
    Alerts,
    /// The listener.
    Web,
}

/// How a part is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    /// Not ready yet.
    Starting {
        /// What it waits for.
        doing: String,
    },
    /// Works.
    Ok,
    /// Switched off by the configuration.
    Off,
    /// Works in part; nothing is lost.
    Degraded {
        /// What is wrong and the next step, without secrets.
        reason: String,
    },
    /// Does not work.
    Down {
        /// What is wrong and the next step, without secrets.
        reason: String,
    },
}

impl Health {
    /// Whether the part is as good as it should be.
    pub const fn is_ok(&self) -> bool {
        matches!(self, Self::Ok | Self::Off)
    }
}

/// Latest health of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Current health.
    #[serde(flatten)]
    pub health: Health,
    /// When it became so.
    pub since: Timestamp,
}

/// All parts' health; clones share one board.
#[derive(Debug, Clone)]
pub struct Board {
    clock: Clock,
    entries: Arc<Mutex<BTreeMap<Part, Entry>>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Board {
    /// Makes an empty board.
    pub fn new(clock: Clock) -> Self {
        Self { clock, entries: Arc::default(), changed: Arc::new(watch::channel(0).0) }
    }

    /// Sets the health of `part`; logs and wakes watchers only when it changed.
    pub fn set(&self, part: Part, health: Health) {
        let since = self.clock.now();
        {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            if entries.get(&part).is_some_and(|entry| entry.health == health) {
                return;
            }
            log_change(part, &health);
            entries.insert(part, Entry { health, since });
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// Returns every part that has reported, in a fixed order.
    pub fn entries(&self) -> BTreeMap<Part, Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the health of `part`, if it has reported.
    pub fn get(&self, part: Part) -> Option<Health> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&part).map(|entry| entry.health.clone())
    }

    /// Returns a receiver that is woken at every change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

fn log_change(part: Part, health: &Health) {
    match health {
        Health::Starting { doing } => tracing::info!(?part, %doing, "starting"),
        Health::Ok => tracing::info!(?part, "ok"),
        Health::Off => tracing::debug!(?part, "off"),
        Health::Degraded { reason } => tracing::warn!(?part, %reason, "degraded"),
        Health::Down { reason } => tracing::error!(?part, %reason, "down"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_moves_the_time_and_wakes_watchers() {
        let clock = Clock::fixed(Timestamp::from_nanos(1));
        let board = Board::new(clock.clone());
        let mut watch = board.watch();
        board.set(Part::Spool, Health::Ok);
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        clock.set(Timestamp::from_nanos(2));
        board.set(Part::Spool, Health::Ok);
        assert!(!watch.has_changed().unwrap());
        assert_eq!(board.entries()[&Part::Spool].since, Timestamp::from_nanos(1));
    }
}

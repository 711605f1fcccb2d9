//! What is remembered of a daemon from poll to poll: restarts, drift of its documents, since when a
//! venue is away and how often it came back, gaps of pipelines. Pure: time is a parameter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::gaps::Gaps;
use super::mapping::{Mapped, field_names};
use crate::base::time::Timestamp;
use crate::model::status::Status;

/// Memory of one daemon.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    restarts: u64,
    instance: Option<Arc<str>>,
    /// Counters of the last document that said `running`.
    counters: Option<Counters>,
    /// The shape of the last document.
    shape: Option<Shape>,
    /// Shapes that were told of: a document that changes to and fro is told of once.
    told: BTreeSet<Shape>,
    venues: BTreeMap<Arc<str>, Venue>,
    gaps: Gaps,
}

/// A venue, as it was seen since the daemon's start.
#[derive(Debug, Default)]
struct Venue {
    /// Since when it is disconnected.
    away: Option<Timestamp>,
    was_connected: bool,
    /// How often it was connected again.
    reconnects: i64,
}

/// What of a status is in a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    /// Known fields, one bit each.
    fields: u16,
    /// Number of the others.
    unknown: usize,
    /// Paths of the daemon's map that lead nowhere.
    missing: Vec<String>,
}

/// How a document differs from the one before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Whether it does.
    pub(super) is_one: bool,
    /// What is gone and what has come, where that was not said before.
    pub(super) words: Option<String>,
}

/// Most shapes of one daemon that are remembered.
const MAX_SHAPES: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Counters {
    fetch_count: Option<i64>,
    uptime_seconds: Option<f64>,
}

impl Tracker {
    /// Returns the restarts seen so far.
    pub(super) const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Takes note of the process that runs; another than before is a restart.
    pub(super) fn process(&mut self, instance: &Arc<str>) {
        match &self.instance {
            Some(known) if known == instance => {}
            Some(_) => {
                self.restarted();
                self.instance = Some(Arc::clone(instance));
            }
            None => self.instance = Some(Arc::clone(instance)),
        }
    }

    fn restarted(&mut self) {
        self.restarts += 1;
        // Another process's connections: its first one is no reconnect.
        self.venues.clear();
    }

    /// Takes note that a poll brought no status.
    pub(super) fn missed(&mut self) {
        self.gaps.interrupt();
    }

    /// Takes note of a status and completes it; returns how the document's fields differ from those
    /// of the document before.
    pub(super) fn status(&mut self, mapped: &mut Mapped, at: Timestamp) -> Change {
        self.note_counters(&mapped.status);
        self.complete_exchanges(&mut mapped.status, at);
        self.gaps.complete(&mut mapped.status.pipelines, at);
        let missing = std::mem::take(&mut mapped.missing);
        self.note_shape(Shape { fields: mapped.fields, unknown: mapped.unknown, missing })
    }

    fn note_shape(&mut self, shape: Shape) -> Change {
        let is_new = self.told.len() < MAX_SHAPES && self.told.insert(shape.clone());
        let (is_one, words) = match &self.shape {
            Some(before) if *before == shape => (false, None),
            Some(before) => (true, shape.against(before)),
            // A path that leads nowhere from the beginning is most likely a slip of the pen.
            None => (
                !shape.missing.is_empty(),
                shape.against(&Shape { missing: Vec::new(), ..shape.clone() }),
            ),
        };
        self.shape = Some(shape);
        Change { is_one, words: words.filter(|_| is_new) }
    }

    /// Without a process to look at, falling counters tell a restart. A daemon that says it does not
    /// run shows an uptime of 0 without having restarted.
    fn note_counters(&mut self, status: &Status) {
        if status.running == Some(false) {
            return;
        }
        let now =
            Counters { fetch_count: status.fetch_count, uptime_seconds: status.uptime_seconds };
        let before = self.counters.replace(now);
        if self.instance.is_some() {
            return;
        }
        if let Some(before) = before {
            let fetches_fell = fell(before.fetch_count, now.fetch_count);
            let uptime_fell = fell(before.uptime_seconds, now.uptime_seconds);
            if fetches_fell || uptime_fell {
                self.restarted();
            }
        }
    }

    /// A venue whose document does not say since when it is away is away since it was first seen so;
    /// one that does not count its reconnects has as many as were seen.
    fn complete_exchanges(&mut self, status: &mut Status, at: Timestamp) {
        for exchange in &mut status.exchange_status {
            let venue = self.venues.entry(Arc::clone(&exchange.exchange)).or_default();
            if exchange.connected {
                let is_back = venue.away.take().is_some() && venue.was_connected;
                venue.reconnects += i64::from(is_back);
                venue.was_connected = true;
                exchange.disconnected_at = None;
            } else {
                let first = *venue.away.get_or_insert(at);
                exchange.disconnected_at = exchange.disconnected_at.or(Some(first));
            }
            exchange.reconnect_count = exchange.reconnect_count.or(Some(venue.reconnects));
        }
        let seen = &status.exchange_status;
        self.venues.retain(|venue, _| seen.iter().any(|exchange| exchange.exchange == *venue));
    }
}

impl Shape {
    /// Says what is gone and what has come since `before`.
    fn against(&self, before: &Self) -> Option<String> {
        let mut words = Vec::new();
        words.extend(
            field_names(before.fields & !self.fields).map(|name| format!("{name} is gone")),
        );
        words.extend(
            field_names(self.fields & !before.fields).map(|name| format!("{name} has come")),
        );
        let new = |path: &&String| !before.missing.contains(path);
        words.extend(self.missing.iter().filter(new).map(|path| format!("nothing is at {path}")));
        let back = |path: &&String| !self.missing.contains(path);
        words.extend(
            before.missing.iter().filter(back).map(|path| format!("something is at {path} again")),
        );
        if self.unknown != before.unknown {
            words.push(format!("{} unknown fields instead of {}", self.unknown, before.unknown));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}

fn fell<T: PartialOrd>(before: Option<T>, now: Option<T>) -> bool {
    matches!((before, now), (Some(before), Some(now)) if now < before)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::mapping;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_795_492_800_000 + second * 1000)
    }

    fn see(tracker: &mut Tracker, document: &serde_json::Value, second: i64) -> (Status, bool) {
        let mut mapped = mapping::status(document, at(second)).unwrap();
        let change = tracker.status(&mut mapped, at(second));
        (mapped.status, change.is_one)
    }

    #[test]
    fn a_restart_is_counted_once_however_it_shows() {
        let mut tracker = Tracker::default();
        for (running, fetches, uptime, restarts) in [
            (true, 10, 100.0, 0),
            (true, 11, 105.0, 0),
            (false, 0, 0.0, 0),
            (true, 0, 1.0, 1),
            (true, 1, 6.0, 1),
            (true, 0, 2.0, 2),
            (true, 0, 1.0, 3),
        ] {
            let document =
                json!({"running": running, "fetch_count": fetches, "uptime_seconds": uptime});
            see(&mut tracker, &document, 0);
            assert_eq!(tracker.restarts(), restarts, "{document}");
        }
    }

    #[test]
    fn a_new_process_is_a_restart_and_its_counters_do_not_count_again() {
        let mut tracker = Tracker::default();
        let document = |uptime: i64| json!({"running": true, "uptime_seconds": uptime});
        tracker.process(&"1@5".into());
        see(&mut tracker, &document(50), 0);
        tracker.process(&"1@5".into());
        assert_eq!(tracker.restarts(), 0);
        tracker.process(&"2@9".into());
        see(&mut tracker, &document(1), 1);
        assert_eq!(tracker.restarts(), 1);
    }

    #[test]
    fn a_field_that_appears_or_vanishes_is_a_change_once() {
        let mut tracker = Tracker::default();
        let changes: Vec<bool> = [
            json!({"running": true, "fetch_count": 1}),
            json!({"running": true, "fetch_count": 2}),
            json!({"running": true}),
            json!({"running": true}),
            json!({"running": true, "new": 1}),
            json!({"running": true, "new": 2}),
        ]
        .iter()
        .map(|document| see(&mut tracker, document, 0).1)
        .collect();
        assert_eq!(changes, [false, false, true, false, true, false]);
    }

    #[test]
    fn a_venue_is_away_since_it_was_first_seen_so() {
        let mut tracker = Tracker::default();
        let document =
            |connected: bool| json!({"exchange_status": {"okx": {"connected": connected}}});
        for (second, connected, since) in [
            (0, true, None),
            (5, false, Some(5)),
            (10, false, Some(5)),
            (15, true, None),
            (20, false, Some(20)),
        ] {
            let (status, _) = see(&mut tracker, &document(connected), second);
            assert_eq!(status.exchange_status[0].disconnected_at, since.map(at), "{second}");
        }
    }

    #[test]
    fn reconnects_are_counted_where_the_daemon_does_not() {
        let mut tracker = Tracker::default();
        let mut count = |document: serde_json::Value| {
            see(&mut tracker, &document, 0).0.exchange_status[0].reconnect_count
        };
        let plain = |uptime: i64, connected: bool| {
            json!({"running": true, "uptime_seconds": uptime,
                   "exchange_status": {"okx": {"connected": connected}}})
        };
        for (uptime, connected, reconnects) in [
            // The first connection is none.
            (0, false, 0),
            (1, true, 0),
            (2, false, 0),
            (3, true, 1),
            (4, true, 1),
            (5, false, 1),
            (6, true, 2),
            // Another process.
            (0, false, 0),
            (1, true, 0),
            (2, false, 0),
            (3, true, 1),
        ] {
            assert_eq!(count(plain(uptime, connected)), Some(reconnects), "{uptime}");
        }
        let told = json!({"exchange_status": {"okx": {"connected": true, "reconnect_count": 7}}});
        assert_eq!(count(told), Some(7));
    }
}

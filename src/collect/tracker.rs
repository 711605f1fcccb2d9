//! What is remembered of a daemon from poll to poll: restarts, drift of its documents, since when a
//! venue is away. Pure: time is a parameter.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mapping::Mapped;
use crate::base::time::Timestamp;
use crate::model::status::Status;

/// Memory of one daemon.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    restarts: u64,
    instance: Option<Arc<str>>,
    /// Counters of the last document that said `running`.
    counters: Option<Counters>,
    /// Known fields and the number of unknown ones in the last document.
    shape: Option<(u16, usize)>,
    /// Since when venues are disconnected.
    away: BTreeMap<Arc<str>, Timestamp>,
}

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
                self.restarts += 1;
                self.instance = Some(Arc::clone(instance));
            }
            None => self.instance = Some(Arc::clone(instance)),
        }
    }

    /// Takes note of a status and completes it; returns whether the document's fields are others
    /// than those of the document before.
    pub(super) fn status(&mut self, mapped: &mut Mapped, at: Timestamp) -> bool {
        self.note_counters(&mapped.status);
        self.complete_exchanges(&mut mapped.status, at);
        let shape = (mapped.fields, mapped.unknown);
        self.shape.replace(shape).is_some_and(|before| before != shape)
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
            self.restarts += u64::from(fetches_fell || uptime_fell);
        }
    }

    /// A venue whose document does not say since when it is away is away since it was first seen so.
    fn complete_exchanges(&mut self, status: &mut Status, at: Timestamp) {
        for exchange in &mut status.exchange_status {
            if exchange.connected {
                self.away.remove(&exchange.exchange);
                exchange.disconnected_at = None;
            } else {
                let first = *self.away.entry(Arc::clone(&exchange.exchange)).or_insert(at);
                exchange.disconnected_at = exchange.disconnected_at.or(Some(first));
            }
        }
        let venues = &status.exchange_status;
        self.away.retain(|venue, _| venues.iter().any(|exchange| exchange.exchange == *venue));
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
        let changed = tracker.status(&mut mapped, at(second));
        (mapped.status, changed)
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
}

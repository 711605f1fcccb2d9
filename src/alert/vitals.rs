//! Watching the watcher: whether everything that an alert needs has moved lately. Only then are the
//! heartbeat URLs asked and systemd's watchdog fed.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use tokio_util::sync::CancellationToken;

use crate::base::http::{Client, Limits};
use crate::base::metrics::{Metrics, Reason};
use crate::base::time::{Clock, Timestamp};
use crate::config::notify::Heartbeat;
use crate::model::report::Report;

const LIMITS: Limits = Limits { time: Duration::from_secs(10), body: 64 << 10 };
/// Longest time between two beats of a part besides its own pace.
const BEAT_LIMIT: Duration = Duration::from_secs(60);
/// Longest time without a new durable row; rows about periscope itself come every 10 s.
const SPOOL_LIMIT: Duration = Duration::from_secs(60);
/// Longest time without a poll of any daemon besides the interval of the polls.
const POLL_LIMIT: Duration = Duration::from_secs(60);

/// When a part last moved; clones share it.
#[derive(Debug, Clone)]
pub struct Beat {
    at: Arc<AtomicI64>,
    clock: Clock,
}

impl Beat {
    /// Makes one that moves now.
    pub fn new(clock: Clock) -> Self {
        let beat = Self { at: Arc::default(), clock };
        beat.now();
        beat
    }

    /// Notes that the part moves.
    pub fn now(&self) {
        self.at.store(self.clock.now().nanos(), Ordering::Relaxed);
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_nanos(self.at.load(Ordering::Relaxed))
    }
}

/// All parts that have to move.
#[derive(Debug, Clone)]
pub struct Beats {
    /// The evaluation of rules, and its interval.
    pub engine: (Beat, Duration),
    /// What makes messages out of alerts.
    pub planner: Beat,
    /// Channels, by name.
    pub channels: Vec<(&'static str, Beat)>,
}

impl Beats {
    /// Returns what stands still at `now`.
    pub fn stuck(&self, now: Timestamp) -> Vec<String> {
        let (engine, interval) = &self.engine;
        let fixed = [
            ("rule evaluation".to_owned(), engine, *interval + BEAT_LIMIT),
            ("notification".to_owned(), &self.planner, BEAT_LIMIT),
        ];
        let channels =
            self.channels.iter().map(|(name, beat)| (format!("channel {name}"), beat, BEAT_LIMIT));
        let all = fixed.into_iter().chain(channels);
        all.filter(|(_, beat, limit)| now.since(beat.at()) > *limit)
            .map(|(name, _, limit)| format!("{name} has not moved for {limit:?}"))
            .collect()
    }
}

/// What of a report shows progress, and when it last moved.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    durable: Option<(u64, Timestamp)>,
}

impl Progress {
    /// Returns what does not move, judged by `report` at `now`.
    pub fn stuck(&mut self, report: &Report, now: Timestamp) -> Vec<String> {
        let mut stuck = Vec::new();
        let rows = report.spool.durable_rows;
        match self.durable {
            Some((known, since)) if known == rows => {
                if now.since(since) > SPOOL_LIMIT {
                    stuck.push(format!("no row has reached the disk since {since}"));
                }
            }
            Some(_) | None => self.durable = Some((rows, now)),
        }
        // What is pushed comes when it likes; what is polled comes at its interval, answered or not.
        let polled = report.daemons.iter().filter(|daemon| daemon.source != "push");
        let polled: Vec<_> = polled
            .filter_map(|daemon| Some((daemon.last_sample_at?, daemon.interval_seconds)))
            .collect();
        let is_fresh = |(at, interval): &(Timestamp, f64)| {
            let interval = Duration::try_from_secs_f64(*interval * 2.0).unwrap_or_default();
            now.since(*at) <= interval + POLL_LIMIT
        };
        if !polled.is_empty() && !polled.iter().any(is_fresh) {
            stuck.push("no daemon has been polled lately".to_owned());
        }
        stuck
    }
}

/// Asks the heartbeat URLs while `well` says that nothing is stuck.
pub async fn heartbeat(
    config: Heartbeat,
    client: Client,
    metrics: Metrics,
    mut well: impl FnMut() -> Vec<String>,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(config.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failures = vec![0_u32; config.urls.len()];
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let stuck = well();
        if !stuck.is_empty() {
            tracing::error!(?stuck, "no heartbeat: something stands still");
            metrics.heartbeats.get_or_create(&Reason { reason: "withheld" }).inc();
            continue;
        }
        for (url, failures) in config.urls.iter().zip(&mut failures) {
            let asked = hyper::Request::get(url.reveal()).body(Full::<Bytes>::default());
            let answer = match asked {
                Ok(request) => client.send(request, LIMITS).await.map_err(|e| e.to_string()),
                Err(_) => Err("the URL cannot be asked".to_owned()),
            };
            let result = answer.and_then(|answer| match answer.status.as_u16() {
                200..=299 => Ok(()),
                status => Err(format!("it answers {status}")),
            });
            match result {
                Ok(()) => {
                    *failures = 0;
                    metrics.heartbeats.get_or_create(&Reason { reason: "sent" }).inc();
                }
                Err(reason) => {
                    *failures = failures.saturating_add(1);
                    metrics.heartbeats.get_or_create(&Reason { reason: "failed" }).inc();
                    tracing::warn!(%reason, failures, "heartbeat not taken");
                }
            }
        }
        let worst = failures.iter().copied().max().unwrap_or(0);
        metrics.heartbeat_failures.set(i64::from(worst));
    }
}

/// Feeds systemd's watchdog, where there is one, while `well` says that nothing is stuck.
pub async fn watchdog(mut well: impl FnMut() -> Vec<String>, stop: CancellationToken) {
    let mut micros = 0;
    if !sd_notify::watchdog_enabled(false, &mut micros) || micros == 0 {
        return;
    }
    let mut tick = tokio::time::interval(Duration::from_micros(micros / 3));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let stuck = well();
        if stuck.is_empty() {
            if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Watchdog]) {
                tracing::debug!(%error, "feed the watchdog");
            }
        } else {
            tracing::error!(?stuck, "the watchdog is not fed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    #[test]
    fn what_stands_still_is_named() {
        let clock = Clock::fixed(at(0));
        let beat = || Beat::new(clock.clone());
        let beats = Beats {
            engine: (beat(), Duration::from_secs(10)),
            planner: beat(),
            channels: vec![("webhook", beat())],
        };
        assert!(beats.stuck(at(60)).is_empty());
        assert_eq!(beats.stuck(at(65)).len(), 2);
        clock.set(at(65));
        beats.planner.now();
        assert_eq!(beats.stuck(at(65)), ["channel webhook has not moved for 60s"]);
        assert_eq!(beats.stuck(at(71)).len(), 2);
        // A clock that goes back is no fault.
        assert!(beats.stuck(at(-1_000)).is_empty());
    }
}

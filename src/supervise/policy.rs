//! When to start again, when to give up for a while, when a running server counts as hung. Pure:
//! time is a parameter, measured from any fixed moment.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::backoff::Backoff;

/// Every limit of the supervision; the default is what the documentation promises.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// First pause after a failure, doubled up to `pause_limit`.
    pub pause_first: Duration,
    /// Longest pause while not broken.
    pub pause_limit: Duration,
    /// Health for this long makes earlier failures forgotten.
    pub forgiven_after: Duration,
    /// So many failures…
    pub broken_failures: usize,
    /// … within this time make it broken.
    pub broken_window: Duration,
    /// Pause between tries while broken.
    pub broken_pause: Duration,
    /// Longest pause while something outside (a port, the disk) is in the way.
    pub blocked_pause: Duration,
    /// From start to the first answer.
    pub start: Duration,
    /// From the very first start to the first answer.
    pub first_start: Duration,
    /// Between two probes.
    pub probe_interval: Duration,
    /// Of one probe.
    pub probe: Duration,
    /// Failed probes in a row that make it unhealthy.
    pub probe_failures: u32,
    /// Unhealthy for this long: it is restarted.
    pub unhealthy: Duration,
    /// From the request to stop to the kill.
    pub stop: Duration,
    /// As `stop`, for a server that does not answer or has lost its owner.
    pub stop_hung: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            pause_first: Duration::from_millis(200),
            pause_limit: seconds(30),
            forgiven_after: seconds(60),
            broken_failures: 10,
            broken_window: seconds(600),
            broken_pause: seconds(300),
            blocked_pause: seconds(5),
            start: seconds(60),
            first_start: seconds(120),
            probe_interval: seconds(2),
            probe: seconds(3),
            probe_failures: 3,
            unhealthy: seconds(60),
            stop: seconds(20),
            stop_hung: seconds(15),
        }
    }
}

/// Kind of a failure, as far as the next try is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Trying again may help.
    Ordinary,
    /// Something outside is in the way and may go at any moment: a taken port, a full disk.
    Blocked,
    /// Only a person can help: a damaged data root.
    Hopeless,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this pause.
    Backoff(Duration),
    /// Say that it is broken, and try again after this pause.
    Broken(Duration),
}

/// Counts failures and decides about the next try.
#[derive(Debug)]
pub struct Restarts {
    limits: Limits,
    backoff: Backoff,
    recent: VecDeque<Duration>,
    broken: bool,
}

impl Restarts {
    /// Starts with no failure. Equal seeds give equal pauses.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let backoff = Backoff::new(limits.pause_first, limits.pause_limit, seed);
        Self { limits, backoff, recent: VecDeque::new(), broken: false }
    }

    /// Notes a failure at `now` of a server that had been healthy for `healthy`; decides what next.
    pub fn failed(&mut self, kind: Kind, healthy: Duration, now: Duration) -> Next {
        if healthy >= self.limits.forgiven_after {
            self.backoff.reset();
            self.recent.clear();
            self.broken = false;
        }
        if kind == Kind::Blocked {
            // Not the server's fault: it is not counted, and the wait stays short.
            return Next::Backoff(self.backoff.after_failure().min(self.limits.blocked_pause));
        }
        self.recent.push_back(now);
        let window = self.limits.broken_window;
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) > window) {
            self.recent.pop_front();
        }
        let too_many = self.recent.len() >= self.limits.broken_failures;
        self.broken = self.broken || too_many || kind == Kind::Hopeless;
        if self.broken {
            return Next::Broken(self.limits.broken_pause);
        }
        Next::Backoff(self.backoff.after_failure())
    }
}

/// How a server that has answered once is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// The last probe, or one shortly before, was answered.
    Ready {
        /// Failed probes since.
        failures: u32,
    },
    /// Several probes in a row failed.
    Unhealthy {
        /// Since when.
        since: Duration,
    },
    /// Unhealthy for too long.
    Hung,
}

/// Returns how the server is doing after one more probe at `now`.
pub fn watch(state: Watch, answered: bool, limits: &Limits, now: Duration) -> Watch {
    match (state, answered) {
        (Watch::Ready { .. } | Watch::Unhealthy { .. }, true) => Watch::Ready { failures: 0 },
        (Watch::Ready { failures }, false) if failures + 1 >= limits.probe_failures => {
            Watch::Unhealthy { since: now }
        }
        (Watch::Ready { failures }, false) => Watch::Ready { failures: failures + 1 },
        (Watch::Unhealthy { since }, false) if now.saturating_sub(since) < limits.unhealthy => {
            state
        }
        (Watch::Unhealthy { .. }, false) | (Watch::Hung, _) => Watch::Hung,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn ten_quick_failures_break_it_and_a_minute_of_health_mends_it() {
        let mut restarts = Restarts::new(Limits::default(), 1);
        for second in 1..=9 {
            let next = restarts.failed(Kind::Ordinary, Duration::ZERO, seconds(second));
            assert!(matches!(next, Next::Backoff(pause) if pause <= seconds(30)), "{next:?}");
        }
        let broken = Next::Broken(seconds(300));
        assert_eq!(restarts.failed(Kind::Ordinary, Duration::ZERO, seconds(10)), broken);
        // For ever, though later failures are far apart.
        assert_eq!(restarts.failed(Kind::Ordinary, seconds(59), seconds(2000)), broken);
        let next = restarts.failed(Kind::Ordinary, seconds(60), seconds(4000));
        assert!(matches!(next, Next::Backoff(pause) if pause <= Duration::from_millis(200)));
    }

    #[test]
    fn ten_failures_over_more_than_the_window_do_not_break_it() {
        let mut restarts = Restarts::new(Limits::default(), 1);
        for failure in 1..=30 {
            let next = restarts.failed(Kind::Ordinary, seconds(30), seconds(failure * 70));
            assert!(matches!(next, Next::Backoff(_)), "failure {failure}: {next:?}");
        }
    }

    #[test]
    fn a_taken_port_never_breaks_it_and_a_damaged_root_does_at_once() {
        let mut restarts = Restarts::new(Limits::default(), 1);
        for second in 1..=100 {
            let next = restarts.failed(Kind::Blocked, Duration::ZERO, seconds(second));
            assert!(matches!(next, Next::Backoff(pause) if pause <= seconds(5)), "{next:?}");
        }
        let next = restarts.failed(Kind::Hopeless, Duration::ZERO, seconds(101));
        assert_eq!(next, Next::Broken(seconds(300)));
    }

    #[test]
    fn three_failed_probes_are_unhealthy_and_a_minute_of_that_is_hung() {
        let limits = Limits::default();
        let ready = Watch::Ready { failures: 0 };
        // (time, answered, expected)
        let steps = [
            (0, false, Watch::Ready { failures: 1 }),
            (2, true, ready),
            (4, false, Watch::Ready { failures: 1 }),
            (6, false, Watch::Ready { failures: 2 }),
            (8, false, Watch::Unhealthy { since: seconds(8) }),
            (67, false, Watch::Unhealthy { since: seconds(8) }),
            (68, false, Watch::Hung),
            (70, true, Watch::Hung),
        ];
        let mut state = ready;
        for (at, answered, expected) in steps {
            state = watch(state, answered, &limits, seconds(at));
            assert_eq!(state, expected, "at {at} s");
        }
        let unhealthy = Watch::Unhealthy { since: seconds(8) };
        assert_eq!(watch(unhealthy, true, &limits, seconds(60)), ready);
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Ordinary), Just(Kind::Blocked), Just(Kind::Hopeless)]
    }

    proptest! {
        /// Whatever fails when: no restart storm, no wait for ever, and broken only with a cause.
        #[test]
        fn restarts_are_neither_a_storm_nor_given_up(
            events in prop::collection::vec((kinds(), 0_u64..200, 0_u64..900), 1..200),
            seed: u64,
        ) {
            let limits = Limits::default();
            let mut restarts = Restarts::new(limits, seed);
            let (mut now, mut starts, mut counted) = (Duration::ZERO, 0_u32, 0_usize);
            let mut hopeless = false;
            for (kind, healthy, extra_ms) in events {
                now += Duration::from_millis(extra_ms) + seconds(healthy);
                if seconds(healthy) >= limits.forgiven_after {
                    (counted, hopeless) = (0, false);
                }
                counted += usize::from(kind != Kind::Blocked);
                hopeless |= kind == Kind::Hopeless;
                let pause = match restarts.failed(kind, seconds(healthy), now) {
                    Next::Backoff(pause) => pause,
                    Next::Broken(pause) => {
                        prop_assert!(hopeless || counted >= limits.broken_failures);
                        prop_assert_eq!(pause, limits.broken_pause);
                        pause
                    }
                };
                prop_assert!(pause >= limits.pause_first / 2 && pause <= limits.broken_pause);
                now += pause;
                starts += 1;
            }
            prop_assert!(now >= limits.pause_first / 2 * starts);
        }

        /// A server that answers is never ended.
        #[test]
        fn answering_servers_are_never_hung(answers in prop::collection::vec(any::<bool>(), 1..500)) {
            let limits = Limits::default();
            let mut state = Watch::Ready { failures: 0 };
            let mut silent = Duration::ZERO;
            for (probe, answered) in answers.into_iter().enumerate() {
                let now = limits.probe_interval * u32::try_from(probe).unwrap();
                silent = if answered { Duration::ZERO } else { silent + limits.probe_interval };
                state = watch(state, answered, &limits, now);
                if state == Watch::Hung {
                    prop_assert!(silent > limits.unhealthy);
                    break;
                }
                prop_assert_eq!(state == (Watch::Ready { failures: 0 }), answered);
            }
        }
    }
}

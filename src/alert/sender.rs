//! Who tells people: Grafana while it evaluates and can notify, else periscope. Pure.
//!
//! periscope evaluates always, so taking over costs no time. It says so only when Grafana stays away:
//! a restart within half a minute concerns nobody. Time is counted in steps of which none counts for
//! more than [`LONGEST_STEP`], so that a suspended machine takes nothing over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::book::{Path, passed};
use crate::base::time::Timestamp;

/// Longest time that one look at Grafana may count for.
pub const LONGEST_STEP: Duration = Duration::from_secs(10);
/// How long it must be away before people are told.
pub const NOTICE_AFTER: Duration = Duration::from_secs(30);
/// The same while periscope itself restarts it.
const PLANNED_NOTICE_AFTER: Duration = Duration::from_secs(120);
/// How long it must be back before it sends again; doubled for every other takeover of the last hour.
pub const SETTLE: Duration = Duration::from_secs(30);
const LONGEST_SETTLE: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3_600);

/// What one look at Grafana says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// There is no Grafana: periscope is the alerter.
    Off,
    /// It evaluates and can notify.
    Present,
    /// It does not, with the reason.
    Absent(String),
    /// Its process has ended.
    Exited(String),
    /// It answers, and has not done its work for so long that nothing is to be waited for.
    Stalled(String),
    /// periscope starts or restarts it.
    Planned,
}

/// Who sends, and how sure that is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sender {
    /// The state.
    pub phase: Phase,
    /// Takeovers of the last hour, oldest first.
    pub takeovers: Vec<Timestamp>,
}

/// See [`Sender`]; names are on disk and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// There is no Grafana.
    Off,
    /// Grafana sends.
    Grafana {
        /// For how long it has been absent, as far as that counts.
        absent: Duration,
        /// Last look.
        seen: Option<Timestamp>,
    },
    /// periscope sends.
    Fallback {
        /// Since when.
        since: Timestamp,
        /// For how long Grafana has been absent, as far as that counts.
        absent: Duration,
        /// For how long it has been back.
        present: Duration,
        /// Last look.
        seen: Timestamp,
        /// Whether people were told.
        told: bool,
        /// Why.
        reason: String,
    },
}

impl Default for Phase {
    fn default() -> Self {
        Self::Grafana { absent: Duration::ZERO, seen: None }
    }
}

/// What people are told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handover {
    /// periscope sends now.
    TookOver {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: String,
    },
    /// Grafana sends again.
    HandedBack {
        /// Since when periscope had been sending.
        since: Timestamp,
    },
}

impl Sender {
    /// Returns who sends.
    pub const fn path(&self) -> Path {
        match self.phase {
            Phase::Grafana { .. } => Path::Grafana,
            Phase::Off | Phase::Fallback { .. } => Path::Fallback,
        }
    }

    /// Returns for how long Grafana has been absent; `None` where there is none.
    pub const fn away(&self) -> Option<Duration> {
        match self.phase {
            Phase::Off => None,
            Phase::Grafana { absent, .. } => Some(absent),
            Phase::Fallback { absent, present, .. } if present.is_zero() => Some(absent),
            Phase::Fallback { .. } => Some(Duration::ZERO),
        }
    }

    /// Returns how much longer Grafana may be absent before periscope sends; `None`: it does already.
    pub fn left(&self, takeover_after: Duration) -> Option<Duration> {
        match self.phase {
            Phase::Grafana { absent, .. } => Some(takeover_after.saturating_sub(absent)),
            Phase::Off | Phase::Fallback { .. } => None,
        }
    }

    /// Returns the state after one look at `now`, and what people are told.
    pub fn step(
        &self,
        presence: &Presence,
        takeover_after: Duration,
        now: Timestamp,
    ) -> (Self, Option<Handover>) {
        let mut takeovers = self.takeovers.clone();
        takeovers.retain(|at| !passed(*at, HOUR, now));
        let reason = match presence {
            Presence::Off => {
                return (Self { phase: Phase::Off, takeovers: Vec::new() }, None);
            }
            Presence::Present => None,
            Presence::Absent(reason) | Presence::Exited(reason) | Presence::Stalled(reason) => {
                Some(reason.clone())
            }
            Presence::Planned => Some("periscope is starting it".to_owned()),
        };
        let (phase, handover) = match (&self.phase, reason) {
            (Phase::Off, None) => {
                (Phase::Grafana { absent: Duration::ZERO, seen: Some(now) }, None)
            }
            (Phase::Off, Some(reason)) => {
                missed(Phase::default(), reason, presence, takeover_after, now)
            }
            (Phase::Grafana { .. }, None) => {
                (Phase::Grafana { absent: Duration::ZERO, seen: Some(now) }, None)
            }
            (Phase::Grafana { .. } | Phase::Fallback { .. }, Some(reason)) => {
                missed(self.phase.clone(), reason, presence, takeover_after, now)
            }
            (Phase::Fallback { since, present, seen, told, reason, .. }, None) => {
                // Counted from the first look that finds it back.
                let present = if present.is_zero() {
                    Duration::from_nanos(1)
                } else {
                    present.saturating_add(step(Some(*seen), now))
                };
                let settle = settle(takeovers.len());
                if present >= settle {
                    let back = told.then_some(Handover::HandedBack { since: *since });
                    (Phase::Grafana { absent: Duration::ZERO, seen: Some(now) }, back)
                } else {
                    let phase = Phase::Fallback {
                        since: *since,
                        absent: Duration::ZERO,
                        present,
                        seen: now,
                        told: *told,
                        reason: reason.clone(),
                    };
                    (phase, None)
                }
            }
        };
        let was_grafana = self.path() == Path::Grafana;
        let sender = Self { phase, takeovers };
        if was_grafana && sender.path() == Path::Fallback {
            return (sender.taken(now), handover);
        }
        (sender, handover)
    }

    fn taken(mut self, now: Timestamp) -> Self {
        self.takeovers.push(now);
        self
    }
}

/// Returns the state after a look that found Grafana absent.
fn missed(
    phase: Phase,
    reason: String,
    presence: &Presence,
    takeover_after: Duration,
    now: Timestamp,
) -> (Phase, Option<Handover>) {
    match phase {
        Phase::Off => (Phase::Off, None),
        Phase::Grafana { absent, seen } => {
            let absent = absent.saturating_add(step(seen, now));
            let at_once = matches!(presence, Presence::Exited(_) | Presence::Stalled(_));
            if at_once || absent >= takeover_after {
                let phase = Phase::Fallback {
                    since: now,
                    absent,
                    present: Duration::ZERO,
                    seen: now,
                    told: false,
                    reason,
                };
                return (phase, None);
            }
            (Phase::Grafana { absent, seen: Some(now) }, None)
        }
        Phase::Fallback { since, absent, seen, told, .. } => {
            let absent = absent.saturating_add(step(Some(seen), now));
            let limit = match presence {
                Presence::Planned => PLANNED_NOTICE_AFTER,
                Presence::Off
                | Presence::Present
                | Presence::Absent(_)
                | Presence::Exited(_)
                | Presence::Stalled(_) => NOTICE_AFTER,
            };
            let tell = !told && absent >= limit;
            let handover = tell.then(|| Handover::TookOver { since, reason: reason.clone() });
            let phase = Phase::Fallback {
                since,
                absent,
                present: Duration::ZERO,
                seen: now,
                told: told || tell,
                reason,
            };
            (phase, handover)
        }
    }
}

/// The time since the last look, as far as it counts.
fn step(seen: Option<Timestamp>, now: Timestamp) -> Duration {
    seen.map_or(Duration::ZERO, |seen| now.since(seen).min(LONGEST_STEP))
}

fn settle(takeovers: usize) -> Duration {
    let doublings = u32::try_from(takeovers.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    SETTLE.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_SETTLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEOVER: Duration = Duration::from_secs(15);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn absent() -> Presence {
        Presence::Absent("no answer".to_owned())
    }

    /// Seconds and what happened then.
    type At<T> = Vec<(i64, T)>;

    /// Looks every 5 s at what `presence` says and returns `(second, "took over" or "back")` and
    /// `(second, path)` at every change.
    fn run(until: i64, presence: impl Fn(i64) -> Presence) -> (At<&'static str>, At<Path>) {
        let mut sender = Sender::default();
        let (mut told, mut paths) = (Vec::new(), vec![(0, Grafana)]);
        for second in (0..until).step_by(5) {
            let (next, handover) = sender.step(&presence(second), TAKEOVER, at(second));
            match handover {
                Some(Handover::TookOver { .. }) => told.push((second, "took over")),
                Some(Handover::HandedBack { .. }) => told.push((second, "back")),
                None => {}
            }
            if paths.last().is_some_and(|(_, path)| *path != next.path()) {
                paths.push((second, next.path()));
            }
            sender = next;
        }
        (told, paths)
    }

    use Path::{Fallback, Grafana};

    #[test]
    fn takes_over_tells_it_once_and_hands_back_once() {
        let presence =
            |second| if (100..400).contains(&second) { absent() } else { Presence::Present };
        let (told, paths) = run(600, presence);
        assert_eq!(paths, [(0, Grafana), (110, Fallback), (430, Grafana)]);
        assert_eq!(told, [(125, "took over"), (430, "back")]);
    }

    #[test]
    fn a_return_within_half_a_minute_is_told_to_nobody() {
        let presence =
            |second| if (100..125).contains(&second) { absent() } else { Presence::Present };
        let (told, paths) = run(600, presence);
        assert!(told.is_empty(), "{told:?}");
        // It sent what there was to send meanwhile, and gives it back when Grafana has settled.
        assert_eq!(paths, [(0, Grafana), (110, Fallback), (155, Grafana)]);
        let blink = |second| if second == 100 { absent() } else { Presence::Present };
        assert_eq!(run(600, blink).1, [(0, Grafana)]);
    }

    #[test]
    fn a_process_that_ended_is_replaced_at_once() {
        let presence = |second| match second {
            100..=115 => Presence::Exited("exit code 1".to_owned()),
            _ => Presence::Present,
        };
        let (told, paths) = run(600, presence);
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(paths, [(0, Grafana), (100, Fallback), (150, Grafana)]);
    }

    #[test]
    fn a_planned_restart_is_told_to_nobody() {
        let presence = |second| {
            if (100..190).contains(&second) { Presence::Planned } else { Presence::Present }
        };
        assert!(run(600, presence).0.is_empty());
        // One that goes wrong is.
        let stuck = |second| if second >= 100 { Presence::Planned } else { Presence::Present };
        assert_eq!(run(600, stuck).0, [(215, "took over")]);
    }

    #[test]
    fn one_that_comes_and_goes_has_to_settle_for_longer() {
        let presence = |second: i64| {
            if second % 100 < 50 { absent() } else { Presence::Present }
        };
        let (told, paths) = run(3_600, presence);
        // Back after 30 s for the first time; then 50 s are not enough any more.
        let changes: Vec<i64> = paths.iter().map(|(second, _)| *second).collect();
        assert_eq!(changes, [0, 15, 80, 110], "{told:?}");
    }

    #[test]
    fn a_suspended_machine_takes_nothing_over() {
        let (sender, _) = Sender::default().step(&Presence::Present, TAKEOVER, at(0));
        // Asleep for ten minutes; the first look after it finds Grafana not yet awake.
        let (sender, told) = sender.step(&absent(), TAKEOVER, at(600));
        assert_eq!((sender.path(), told), (Grafana, None));
        let (sender, _) = sender.step(&Presence::Present, TAKEOVER, at(605));
        assert_eq!(
            sender,
            Sender {
                phase: Phase::Grafana { absent: Duration::ZERO, seen: Some(at(605)) },
                takeovers: Vec::new(),
            }
        );
    }

    #[test]
    fn without_grafana_periscope_is_the_alerter() {
        let (sender, told) = Sender::default().step(&Presence::Off, TAKEOVER, at(0));
        assert_eq!((sender.path(), sender.away(), told), (Fallback, None, None));
        let (sender, _) = sender.step(&Presence::Present, TAKEOVER, at(5));
        assert_eq!(sender.path(), Grafana);
    }

    #[test]
    fn a_restart_of_periscope_keeps_who_sends() {
        let (sender, _) = Sender::default().step(&Presence::Exited("x".into()), TAKEOVER, at(0));
        let text = serde_json::to_string(&sender).unwrap();
        let read: Sender = serde_json::from_str(&text).unwrap();
        assert_eq!(read, sender);
        assert_eq!(read.path(), Fallback);
    }
}

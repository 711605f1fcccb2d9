//! A server that asked for a pause gets it, whoever wants to send meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Failure;

/// Longest pause that is believed: a nonsensical one must not silence a channel for days.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Until when a server wants to be left alone.
#[derive(Debug, Default)]
pub(super) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// Fails as long as the server wants to be left alone.
    pub(super) fn check(&self, now: Instant) -> Result<(), Failure> {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.map(|until| until.saturating_duration_since(now));
        match left.filter(|left| !left.is_zero()) {
            Some(left) => {
                let reason = "the server asked for a pause".to_owned();
                Err(Failure::Later { reason, after: Some(left) })
            }
            None => {
                *until = None;
                Ok(())
            }
        }
    }

    /// Leaves the server alone for `duration` from `now` on; returns how long that is at most.
    pub(super) fn set(&self, duration: Duration, now: Instant) -> Duration {
        let duration = duration.min(LONGEST);
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *until = now.checked_add(duration);
        duration
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_holds_for_everybody_and_ends() {
        let (pause, start) = (Pause::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pause.check(start), Ok(()));
        assert_eq!(pause.set(Duration::from_secs(30), start), Duration::from_secs(30));
        let Err(Failure::Later { after: left, .. }) = pause.check(after(10)) else {
            panic!("no pause")
        };
        assert_eq!(left, Some(Duration::from_secs(20)));
        assert_eq!(pause.check(after(30)), Ok(()));
        assert_eq!(pause.check(start), Ok(()), "it is over for good");
    }

    #[test]
    fn a_nonsensical_pause_is_an_hour() {
        let (pause, start) = (Pause::default(), Instant::now());
        assert_eq!(pause.set(Duration::MAX, start), LONGEST);
        assert!(pause.check(start + LONGEST / 2).is_err());
        assert_eq!(pause.check(start + LONGEST), Ok(()));
    }
}

//! When nobody wants to hear: windows of the configuration, and mutes by hand.

use std::time::Duration;

use super::super::book::HandMute;
use crate::base::time::Timestamp;
use crate::config::alerts::Mute;
use crate::rules::rule::{Labels, Rule};

const DAY: i64 = 86_400;

/// Whether messages about this alert are held back at `now`.
pub fn is_muted<'a>(
    rule: &Rule,
    labels: &Labels,
    windows: &[Mute],
    by_hand: impl IntoIterator<Item = &'a HandMute>,
    now: Timestamp,
) -> bool {
    let matches = |wanted_rule: Option<&String>, wanted_daemon: Option<&String>| {
        wanted_rule.is_none_or(|id| *id == rule.id)
            && wanted_daemon.is_none_or(|name| labels.get("daemon") == Some(name))
    };
    let by_window = windows.iter().any(|mute| {
        rule.severity <= mute.severity
            && matches(mute.rule.as_ref(), mute.daemon.as_ref())
            && is_open(mute, now)
    });
    by_window
        || by_hand.into_iter().any(|mute| {
            rule.severity <= mute.severity
                && matches(mute.rule.as_ref(), mute.daemon.as_ref())
                && now < mute.until
        })
}

/// Whether `now` lies in the window. One that ends at or before its begin ends on the next day.
fn is_open(mute: &Mute, now: Timestamp) -> bool {
    let seconds = now.millis().div_euclid(1_000);
    let minute = seconds.rem_euclid(DAY) / 60;
    // 1970-01-01 was a Thursday.
    let today = (seconds.div_euclid(DAY) + 3).rem_euclid(7);
    let begins_on = |day: i64| mute.days.iter().any(|listed| i64::from(*listed) == day);
    let (from, to) = (i64::from(mute.from), i64::from(mute.to));
    if from < to {
        return begins_on(today) && (from..to).contains(&minute);
    }
    (begins_on(today) && minute >= from) || (begins_on((today + 6) % 7) && minute < to)
}

/// The longest that a mute by hand lasts.
pub const LONGEST: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::severity::Severity;
    use crate::rules::catalog;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn window(days: &[u8], from: u16, to: u16) -> Mute {
        let severity = Severity::Warning;
        Mute { days: days.to_vec(), from, to, severity, rule: None, daemon: None }
    }

    fn labels() -> Labels {
        Labels::from([("daemon".to_owned(), "ccxt".to_owned())])
    }

    #[test]
    fn a_window_over_midnight_ends_on_the_next_day() {
        // 2026-11-27 is a Friday.
        let friday_night = window(&[4], 22 * 60, 6 * 60);
        for (at, open) in [
            ("2026-11-27T21:59:59Z", false),
            ("2026-11-27T22:00:00Z", true),
            ("2026-11-28T05:59:59Z", true),
            ("2026-11-28T06:00:00Z", false),
            ("2026-11-28T22:00:00Z", false),
            ("2026-11-27T05:00:00Z", false),
        ] {
            assert_eq!(is_open(&friday_night, time(at)), open, "{at}");
        }
        let noon = window(&[0, 1, 2, 3, 4, 5, 6], 12 * 60, 13 * 60);
        assert!(is_open(&noon, time("2026-11-25T12:30:00Z")));
        assert!(!is_open(&noon, time("2026-11-25T13:00:00Z")));
    }

    #[test]
    fn a_mute_has_a_highest_severity_and_may_name_rule_and_daemon() {
        let now = time("2026-11-25T12:30:00Z");
        let all_day = window(&[0, 1, 2, 3, 4, 5, 6], 0, 0);
        let warning = catalog::find("daemon_memory", Severity::Warning).unwrap();
        let critical = catalog::find("daemon_memory", Severity::Critical).unwrap();
        let muted = |rule: &Rule, mute: &Mute| {
            is_muted(rule, &labels(), std::slice::from_ref(mute), [], now)
        };
        assert!(muted(&warning, &all_day) && !muted(&critical, &all_day));
        let other = Mute { daemon: Some("bot".to_owned()), ..all_day.clone() };
        assert!(!muted(&warning, &other));
        let same = Mute { rule: Some("daemon_memory".to_owned()), ..all_day };
        assert!(muted(&warning, &same));
        let hand = HandMute {
            until: time("2026-11-25T13:00:00Z"),
            rule: None,
            daemon: Some("ccxt".to_owned()),
            severity: Severity::Critical,
            reason: String::new(),
        };
        assert!(is_muted(&critical, &labels(), &[], [&hand], now));
        assert!(!is_muted(&critical, &labels(), &[], [&hand], time("2026-11-25T13:00:00Z")));
    }
}

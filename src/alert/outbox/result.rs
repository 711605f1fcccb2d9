//! What the end of a delivery changes. Pure.

use std::time::Duration;

use super::super::book::{Book, Change, ChannelState, Entry, Route, RouteState};
use super::super::channel::Failure;
use super::pick::LONGEST_PAUSE;
use crate::base::time::Timestamp;

/// Failures after which a channel counts as failing; a refusal for good is that at once.
const REFUSED_COUNTS: u32 = 3;
/// Pauses after failures: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(120);
/// Pause after a refusal, for the next message may be refused as well.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// Returns the changes after the delivery of message `number` through `channel` ended at `now`.
/// `channels` are all, in order of preference; `jitter` is a number from 0 to 1.
pub fn ended(
    book: &Book,
    number: u64,
    channel: &str,
    result: &Result<(), Failure>,
    channels: &[&'static str],
    jitter: f64,
    now: Timestamp,
) -> Vec<Change> {
    let Some(entry) = book.entries.get(&number) else { return Vec::new() };
    let before = book.channels.get(channel).cloned().unwrap_or_default();
    let (state, route) = match result {
        Ok(()) => {
            let state = ChannelState { delivered_at: Some(now), ..ChannelState::default() };
            (state, RouteState::Delivered { at: now })
        }
        Err(Failure::Later { reason, after }) => {
            let failures = before.failures.saturating_add(1);
            let pause =
                after.map_or_else(|| pause(failures, jitter), |after| after.min(LONGEST_PAUSE));
            let state = ChannelState {
                failures,
                not_before: Some(now.plus(pause)),
                error: reason.clone(),
                delivered_at: before.delivered_at,
            };
            (state, RouteState::Waiting { tries: tries(entry, channel).saturating_add(1) })
        }
        Err(Failure::Never { reason, hint }) => {
            let reason = format!("{reason}; {hint}");
            let state = ChannelState {
                failures: before.failures.max(REFUSED_COUNTS - 1).saturating_add(1),
                not_before: Some(now.plus(REFUSED_PAUSE)),
                error: reason.clone(),
                delivered_at: before.delivered_at,
            };
            (state, RouteState::Refused { at: now, reason })
        }
    };
    let mut changes = vec![Change::Channel { name: channel.to_owned(), state }];
    changes.extend(settle(entry, number, channel, route, channels));
    changes
}

/// Puts `state` onto the route; a message that nobody has accepted goes on to the next channel, and
/// one that is through everywhere is forgotten.
fn settle(
    entry: &Entry,
    number: u64,
    channel: &str,
    state: RouteState,
    channels: &[&'static str],
) -> Option<Change> {
    let mut entry = entry.clone();
    let refused = matches!(state, RouteState::Refused { .. });
    let route = entry.routes.iter_mut().find(|route| route.channel == channel)?;
    route.state = state.clone();
    let hopeless =
        entry.routes.iter().all(|route| matches!(route.state, RouteState::Refused { .. }));
    if refused && hopeless {
        let is_new =
            |name: &&&'static str| !entry.routes.iter().any(|route| route.channel == **name);
        let next = channels.iter().find(is_new);
        // Without another one it stays, refused everywhere, until `revive`.
        entry.routes.extend(next.map(|name| Route::new(name)));
        return Some(Change::Entry { number, entry: Some(Box::new(entry)) });
    }
    if !entry.is_waiting() {
        return Some(Change::Entry { number, entry: None });
    }
    Some(Change::Route { number, channel: channel.to_owned(), state })
}

/// Returns the changes that give every message a channel that exists: after a start the
/// configuration may be another one, and what was refused everywhere may be accepted now.
pub fn revive(book: &Book, channels: &[&'static str]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (number, entry) in &book.entries {
        if channels.is_empty() {
            continue;
        }
        let mut routes: Vec<Route> = entry
            .routes
            .iter()
            .filter(|route| channels.contains(&route.channel.as_str()))
            .cloned()
            .collect();
        let accepted = entry.routes.iter().any(|route| {
            matches!(route.state, RouteState::Delivered { .. } | RouteState::Digested { .. })
        });
        let waits = routes.iter().any(Route::is_waiting);
        if !accepted && !waits {
            for route in &mut routes {
                route.state = RouteState::Waiting { tries: 0 };
            }
            if routes.is_empty() {
                routes.extend(channels.first().map(|name| Route::new(name)));
            }
        }
        let entry = Entry { routes, ..entry.clone() };
        let entry = entry.is_waiting().then(|| Box::new(entry));
        if entry.as_deref() != book.entries.get(number) {
            changes.push(Change::Entry { number: *number, entry });
        }
    }
    changes
}

fn tries(entry: &Entry, channel: &str) -> u32 {
    let route = entry.routes.iter().find(|route| route.channel == channel);
    match route.map(|route| &route.state) {
        Some(RouteState::Waiting { tries }) => *tries,
        Some(
            RouteState::Delivered { .. } | RouteState::Refused { .. } | RouteState::Digested { .. },
        )
        | None => 0,
    }
}

fn pause(failures: u32, jitter: f64) -> Duration {
    let doubled =
        FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1).min(20)));
    doubled.min(LAST_PAUSE).mul_f64(jitter.clamp(0.0, 1.0).mul_add(0.5, 0.5))
}

#[cfg(test)]
mod tests {
    use super::super::super::message::{Kind, Message};
    use super::super::pick::{Pick, pick};
    use super::*;
    use crate::model::severity::Severity;

    const CHANNELS: [&str; 2] = ["telegram", "webhook"];

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn book(channels: &[&str]) -> Book {
        let mut book = Book::new(1);
        let message = Message {
            id: book.id(0),
            kind: Kind::Firing,
            severity: Severity::Warning,
            title: "x".to_owned(),
            facts: Vec::new(),
            advice: None,
            link: None,
            children: Vec::new(),
            at: at(0),
        };
        let routes = channels.iter().map(|name| Route::new(name)).collect();
        let entry = Some(Box::new(Entry { message, alerts: Vec::new(), routes }));
        book.apply(Change::Entry { number: 0, entry });
        book
    }

    fn end(book: &mut Book, channel: &str, result: &Result<(), Failure>, second: i64) {
        for change in ended(book, 0, channel, result, &CHANNELS, 1.0, at(second)) {
            book.apply(change);
        }
    }

    fn later(after: Option<u64>) -> Result<(), Failure> {
        Err(Failure::Later { reason: "429".to_owned(), after: after.map(Duration::from_secs) })
    }

    fn never() -> Result<(), Failure> {
        Err(Failure::Never { reason: "401".to_owned(), hint: "look at the token".to_owned() })
    }

    #[test]
    fn accepted_everywhere_is_forgotten() {
        let mut book = book(&CHANNELS);
        end(&mut book, "telegram", &Ok(()), 1);
        assert_eq!(book.entries.len(), 1);
        end(&mut book, "webhook", &Ok(()), 2);
        assert!(book.entries.is_empty());
        assert_eq!(book.next, 1);
    }

    #[test]
    fn pauses_grow_and_what_the_server_says_counts() {
        let mut book = book(&["telegram"]);
        end(&mut book, "telegram", &later(Some(30)), 0);
        assert_eq!(pick(&book, "telegram", None, at(29)), Pick::Wait(Duration::from_secs(1)));
        assert_eq!(pick(&book, "telegram", None, at(30)), Pick::Send(0));
        end(&mut book, "telegram", &later(None), 30);
        assert_eq!(book.channels["telegram"].not_before, Some(at(32)));
        end(&mut book, "telegram", &later(Some(1_000_000)), 32);
        assert_eq!(book.channels["telegram"].not_before, Some(at(32 + 3_600)));
        assert_eq!(book.channels["telegram"].failures, 3);
        end(&mut book, "telegram", &Ok(()), 40);
        assert_eq!((book.channels["telegram"].failures, book.entries.len()), (0, 0));
    }

    /// Fault matrix, row 35.
    #[test]
    fn refused_for_good_goes_to_the_next_channel_and_counts_as_failing_at_once() {
        let mut book = book(&["telegram"]);
        end(&mut book, "telegram", &never(), 0);
        assert_eq!(book.channels["telegram"].failures, 3);
        assert_eq!(book.channels["telegram"].error, "401; look at the token");
        assert_eq!(pick(&book, "telegram", None, at(9)), Pick::Nothing);
        assert_eq!(pick(&book, "webhook", None, at(9)), Pick::Send(0));
        end(&mut book, "webhook", &never(), 9);
        // Nobody took it: it stays, and is tried again after a start.
        assert_eq!(book.entries.len(), 1);
        for change in revive(&book, &CHANNELS) {
            book.apply(change);
        }
        assert_eq!(pick(&book, "telegram", None, at(60)), Pick::Send(0));
    }

    #[test]
    fn a_channel_that_is_gone_hands_its_messages_on() {
        let mut book = book(&["discord"]);
        for change in revive(&book, &["webhook"]) {
            book.apply(change);
        }
        assert_eq!(pick(&book, "webhook", None, at(60)), Pick::Send(0));
        assert!(revive(&book, &["webhook"]).is_empty());
        // Without any channel it waits for one.
        assert!(revive(&book, &[]).is_empty());
    }
}

//! What a channel sends next, and when. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::book::{AlertRef, Book, Change, Entry, Route, RouteState};
use super::super::message::{Kind, Message};
use super::super::wording;
use crate::base::time::Timestamp;
use crate::model::severity::Severity;

/// Longest pause that a channel may ask for.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// So many waiting messages, the oldest of them this old, become one.
const DIGEST_MESSAGES: usize = 5;
const DIGEST_AGE: Duration = Duration::from_secs(600);

/// What a channel does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// Sends the message with this number.
    Send(u64),
    /// Nothing before this long.
    Wait(Duration),
    /// There is nothing to send.
    Nothing,
}

/// Shortest time between two messages of a channel: what its server allows, and somewhat less.
pub fn pace(channel: &str) -> Duration {
    match channel {
        // 20 a minute in a group; 1 a second in a chat.
        "telegram" => Duration::from_millis(1_100),
        // 30 a minute for a webhook, 5 at once.
        "discord" => Duration::from_millis(2_100),
        "email" => Duration::from_secs(3),
        "ntfy" => Duration::from_secs(1),
        _ => Duration::from_millis(50),
    }
}

/// Returns what `channel` does at `now`; it last sent something at `last`.
pub fn pick(book: &Book, channel: &str, last: Option<Timestamp>, now: Timestamp) -> Pick {
    let Some((number, _)) = first(book, channel) else { return Pick::Nothing };
    let state = book.channels.get(channel);
    let pause = state.and_then(|state| state.not_before).map(|until| until.since(now));
    // A pause that lies far ahead is one of before the clock went back.
    let pause = pause.filter(|pause| *pause <= LONGEST_PAUSE).unwrap_or_default();
    let pace =
        last.filter(|last| *last <= now).map(|last| pace(channel).saturating_sub(now.since(last)));
    match pause.max(pace.unwrap_or_default()) {
        Duration::ZERO => Pick::Send(number),
        wait => Pick::Wait(wait),
    }
}

/// The least goes first: severity, failed tries, number.
type Rank = (std::cmp::Reverse<Severity>, u32, u64);

/// Returns the waiting message that goes first: the most severe, of those the least tried, of those
/// the oldest; but none before an earlier one about the same alert.
fn first<'a>(book: &'a Book, channel: &str) -> Option<(u64, &'a Entry)> {
    let mut blocked: BTreeSet<&str> = BTreeSet::new();
    let mut best: Option<(Rank, &Entry)> = None;
    for (number, entry) in &book.entries {
        let Some(tries) = waiting(entry, channel) else { continue };
        let keys = || entry.alerts.iter().map(|alert| alert.key.as_str());
        let is_blocked = keys().any(|key| blocked.contains(key));
        blocked.extend(keys());
        if is_blocked {
            continue;
        }
        let rank = (std::cmp::Reverse(entry.message.severity), tries, *number);
        if best.as_ref().is_none_or(|(other, _)| rank < *other) {
            best = Some((rank, entry));
        }
    }
    best.map(|((_, _, number), entry)| (number, entry))
}

fn waiting(entry: &Entry, channel: &str) -> Option<u32> {
    entry.routes.iter().find(|route| route.channel == channel).and_then(|route| match route.state {
        RouteState::Waiting { tries } => Some(tries),
        RouteState::Delivered { .. } | RouteState::Refused { .. } | RouteState::Digested { .. } => {
            None
        }
    })
}

/// Returns the changes that make one message of many that wait for `channel` since long; empty when
/// there is no need.
pub fn digest(book: &Book, channel: &str, now: Timestamp) -> Vec<Change> {
    let waiting: Vec<(u64, &Entry)> = book
        .entries
        .iter()
        .filter(|(_, entry)| waiting(entry, channel).is_some())
        .map(|(number, entry)| (*number, entry))
        .collect();
    let oldest = waiting.iter().map(|(_, entry)| entry.message.at).min();
    let old = oldest.filter(|at| *at <= now && now.since(*at) >= DIGEST_AGE);
    let Some(since) = old.filter(|_| waiting.len() >= DIGEST_MESSAGES) else { return Vec::new() };
    let mut alerts: Vec<AlertRef> = Vec::new();
    for alert in waiting.iter().flat_map(|(_, entry)| &entry.alerts) {
        match alerts.iter_mut().find(|known| known.key == alert.key) {
            Some(known) => *known = alert.clone(),
            None => alerts.push(alert.clone()),
        }
    }
    let number = book.next;
    let id = book.id(number);
    let words = wording::digest(waiting.len(), since, &alerts, now);
    let severity = waiting.iter().map(|(_, entry)| entry.message.severity).max();
    let message = Message {
        id: id.clone(),
        kind: Kind::Notice,
        severity: severity.unwrap_or(Severity::Warning),
        title: words.title,
        facts: words.facts,
        advice: words.advice,
        link: waiting.last().and_then(|(_, entry)| entry.message.link.clone()),
        children: Vec::new(),
        at: now,
    };
    let entry = Entry { message, alerts, routes: vec![Route::new(channel)] };
    let mut changes = vec![Change::Entry { number, entry: Some(Box::new(entry)) }];
    for (number, entry) in waiting {
        let channel = channel.to_owned();
        let state = RouteState::Digested { id: id.clone() };
        if entry.routes.iter().any(|route| route.is_waiting() && route.channel != channel) {
            changes.push(Change::Route { number, channel, state });
        } else {
            changes.push(Change::Entry { number, entry: None });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::super::super::book::ChannelState;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn add(book: &mut Book, severity: Severity, key: &str, firing: bool, second: i64) -> u64 {
        let number = book.next;
        let message = Message {
            id: book.id(number),
            kind: if firing { Kind::Firing } else { Kind::Resolved },
            severity,
            title: format!("{key} {firing}"),
            facts: Vec::new(),
            advice: None,
            link: None,
            children: Vec::new(),
            at: at(second),
        };
        let alerts = vec![AlertRef {
            key: key.to_owned(),
            rule: String::new(),
            summary: key.to_owned(),
            severity,
            firing,
        }];
        let routes = vec![Route::new("webhook"), Route::new("telegram")];
        let entry = Some(Box::new(Entry { message, alerts, routes }));
        book.apply(Change::Entry { number, entry });
        number
    }

    use Severity::{Critical, Warning};

    #[test]
    fn the_most_severe_goes_first_but_no_alert_overtakes_itself() {
        let mut book = Book::new(1);
        add(&mut book, Warning, "a", true, 0);
        let critical = add(&mut book, Critical, "b", true, 1);
        // More severe, and about an alert whose earlier message still waits.
        add(&mut book, Critical, "a", false, 2);
        assert_eq!(pick(&book, "webhook", None, at(3)), Pick::Send(critical));
        let done = RouteState::Delivered { at: at(3) };
        book.apply(Change::Route { number: critical, channel: "webhook".into(), state: done });
        assert_eq!(pick(&book, "webhook", None, at(3)), Pick::Send(0));
        // The other channel has not sent it yet.
        assert_eq!(pick(&book, "telegram", None, at(3)), Pick::Send(critical));
        assert_eq!(pick(&book, "discord", None, at(3)), Pick::Nothing);
    }

    #[test]
    fn a_message_that_fails_lets_others_pass() {
        let mut book = Book::new(1);
        let bad = add(&mut book, Critical, "a", true, 0);
        let good = add(&mut book, Critical, "b", true, 1);
        let tried = RouteState::Waiting { tries: 1 };
        book.apply(Change::Route { number: bad, channel: "webhook".into(), state: tried });
        assert_eq!(pick(&book, "webhook", None, at(3)), Pick::Send(good));
    }

    #[test]
    fn pauses_and_paces_are_kept_and_a_clock_that_goes_back_holds_nothing_up() {
        let mut book = Book::new(1);
        add(&mut book, Warning, "a", true, 0);
        let wait = pick(&book, "telegram", Some(at(10)), at(10));
        assert_eq!(wait, Pick::Wait(Duration::from_millis(1_100)));
        assert_eq!(pick(&book, "telegram", Some(at(10)), at(12)), Pick::Send(0));
        assert_eq!(pick(&book, "telegram", Some(at(10)), at(5)), Pick::Send(0));
        let state = ChannelState { not_before: Some(at(30)), ..ChannelState::default() };
        book.apply(Change::Channel { name: "telegram".into(), state });
        assert_eq!(pick(&book, "telegram", None, at(12)), Pick::Wait(Duration::from_secs(18)));
        assert_eq!(pick(&book, "telegram", None, at(30)), Pick::Send(0));
        assert_eq!(pick(&book, "telegram", None, at(-10_000)), Pick::Send(0));
    }

    /// Fault matrix, row 37.
    #[test]
    fn after_a_long_outage_one_message_instead_of_four_hundred() {
        let mut book = Book::new(1);
        for n in 0..200 {
            add(&mut book, Warning, &format!("a{n}"), true, n * 10);
            add(&mut book, Warning, &format!("a{n}"), n % 2 == 0, n * 10 + 5);
        }
        assert!(digest(&book, "webhook", at(500)).is_empty(), "not yet");
        let now = at(6 * 3_600);
        for change in digest(&book, "webhook", now) {
            book.apply(change);
        }
        let Pick::Send(number) = pick(&book, "webhook", None, now) else { panic!("nothing") };
        let entry = &book.entries[&number];
        assert_eq!(entry.message.kind, Kind::Notice);
        assert!(entry.message.title.starts_with("400 messages"), "{}", entry.message.title);
        let fact = |name: &str| {
            entry.message.facts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        assert_eq!((fact("Still firing"), fact("Over")), (Some("100"), Some("100")));
        let left = book.entries.values().filter(|entry| waiting(entry, "webhook").is_some());
        assert_eq!(left.count(), 1);
        // The other channel has its own digest, and what both have told is forgotten.
        for change in digest(&book, "telegram", now) {
            book.apply(change);
        }
        assert_eq!(book.entries.len(), 2);
        assert!(digest(&book, "webhook", now).is_empty());
    }
}

//! All that alerting knows: series, messages on their way, channels, mutes, who sends. It changes by
//! [`Change`]s alone, which are in the journal before anything is done about them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::message::Message;
use super::sender::Sender;
use crate::base::time::Timestamp;
use crate::base::words::words;
use crate::model::severity::Severity;
use crate::rules::machine::State;
use crate::rules::rule::Labels;

/// Everything that survives a restart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Book {
    /// Makes short ids of one data folder differ from those of another.
    pub salt: u64,
    /// Number of the next entry.
    pub next: u64,
    /// Series that are not plainly normal, by fingerprint.
    pub series: BTreeMap<String, Series>,
    /// Messages that are not settled, by number.
    pub entries: BTreeMap<u64, Entry>,
    /// How delivery goes, by channel.
    pub channels: BTreeMap<String, ChannelState>,
    /// Times of the latest messages, by group.
    pub groups: BTreeMap<String, Vec<Timestamp>>,
    /// Mutes by hand, by id.
    pub mutes: BTreeMap<String, HandMute>,
    /// Who sends.
    pub sender: Sender,
}

words! {
    /// How a series was read.
    Via {
        /// The rule's SQL.
        Database = "database",
        /// The rows in memory.
        Memory = "memory",
        /// periscope's own knowledge.
        Own = "own",
    }
}

words! {
    /// Who tells people; as in the column `alert_events.path`.
    Path {
        /// Grafana.
        Grafana = "grafana",
        /// periscope.
        Fallback = "fallback",
    }
}

/// One alert series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Uid of its rule.
    pub rule: String,
    /// Its labels.
    pub labels: Labels,
    /// Its state.
    pub state: State,
    /// Latest value, where there was one.
    pub value: Option<f64>,
    /// How it was read.
    pub via: Via,
    /// When it fired lately, oldest first: flapping shows here.
    pub fired: Vec<Timestamp>,
    /// When it last stopped firing.
    pub over_at: Option<Timestamp>,
    /// What people were told; `None`: nothing, or that it is over.
    pub told: Option<Told>,
    /// When periscope told the end of what Grafana had told the begin of: Grafana must not tell the
    /// end again.
    #[serde(default)]
    pub ended_for_grafana: Option<Timestamp>,
}

/// What people know of a series that fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// When it fired that time.
    pub since: Timestamp,
    /// When they were last told.
    pub at: Timestamp,
    /// By whom.
    pub by: Path,
    /// Whether they were told that it comes and goes.
    pub flapping: bool,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The message.
    pub message: Message,
    /// The alerts that it is about; of one alert's messages the earlier goes out first.
    pub alerts: Vec<AlertRef>,
    /// Where it goes.
    pub routes: Vec<Route>,
}

/// An alert in a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRef {
    /// Fingerprint of the series.
    pub key: String,
    /// Id of its rule.
    pub rule: String,
    /// One line.
    pub summary: String,
    /// How bad it is.
    pub severity: Severity,
    /// Whether the message says that it fires.
    pub firing: bool,
}

/// A message on one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Name of the channel.
    pub channel: String,
    /// How far it is.
    pub state: RouteState,
}

/// How far a message is on one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RouteState {
    /// To be sent.
    Waiting {
        /// Failed tries so far.
        tries: u32,
    },
    /// Accepted.
    Delivered {
        /// When.
        at: Timestamp,
    },
    /// Refused for good.
    Refused {
        /// When.
        at: Timestamp,
        /// What the channel said.
        reason: String,
    },
    /// Told in a digest instead.
    Digested {
        /// Id of the digest.
        id: String,
    },
}

/// How delivery through a channel goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChannelState {
    /// Failures since the last success.
    pub failures: u32,
    /// Not tried before this.
    pub not_before: Option<Timestamp>,
    /// Why the last try failed; empty after a success.
    pub error: String,
    /// Last success.
    pub delivered_at: Option<Timestamp>,
}

/// A mute by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandMute {
    /// Not in force from this moment on.
    pub until: Timestamp,
    /// Id of the rule; `None`: any.
    pub rule: Option<String>,
    /// Name of the daemon; `None`: any.
    pub daemon: Option<String>,
    /// The highest severity that is muted.
    pub severity: Severity,
    /// Why, in the words of whoever did it.
    pub reason: String,
}

/// One change of the book; names are on disk and never changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A series is as given, or forgotten.
    Series {
        /// Fingerprint.
        key: String,
        /// The series.
        series: Option<Box<Series>>,
    },
    /// A message is as given, or settled and forgotten.
    Entry {
        /// Number.
        number: u64,
        /// The message.
        entry: Option<Box<Entry>>,
    },
    /// A message got further on one channel.
    Route {
        /// Number of the message.
        number: u64,
        /// Name of the channel.
        channel: String,
        /// How far it is now.
        state: RouteState,
    },
    /// Delivery through a channel is as given.
    Channel {
        /// Name.
        name: String,
        /// How it goes.
        state: ChannelState,
    },
    /// A group got messages at these times.
    Group {
        /// Name.
        name: String,
        /// Times of the latest messages; empty: forgotten.
        sent: Vec<Timestamp>,
    },
    /// A mute is as given, or gone.
    Mute {
        /// Id.
        id: String,
        /// The mute.
        mute: Option<HandMute>,
    },
    /// Who sends.
    Sender {
        /// The state.
        sender: Sender,
    },
}

impl Book {
    /// Makes an empty book.
    pub fn new(salt: u64) -> Self {
        Self { salt, ..Self::default() }
    }

    /// Makes one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Series { key, series: Some(series) } => {
                self.series.insert(key, *series);
            }
            Change::Series { key, series: None } => {
                self.series.remove(&key);
            }
            Change::Entry { number, entry: Some(entry) } => {
                self.next = self.next.max(number.saturating_add(1));
                self.entries.insert(number, *entry);
            }
            Change::Entry { number, entry: None } => {
                self.entries.remove(&number);
            }
            Change::Route { number, channel, state } => {
                let entry = self.entries.get_mut(&number);
                let routes = entry.into_iter().flat_map(|entry| &mut entry.routes);
                if let Some(route) = routes.into_iter().find(|route| route.channel == channel) {
                    route.state = state;
                }
            }
            Change::Channel { name, state } => {
                self.channels.insert(name, state);
            }
            Change::Group { name, sent } if sent.is_empty() => {
                self.groups.remove(&name);
            }
            Change::Group { name, sent } => {
                self.groups.insert(name, sent);
            }
            Change::Mute { id, mute: Some(mute) } => {
                self.mutes.insert(id, mute);
            }
            Change::Mute { id, mute: None } => {
                self.mutes.remove(&id);
            }
            Change::Sender { sender } => self.sender = sender,
        }
    }

    /// Returns the short id of the message with this number; equal numbers give equal ids.
    pub fn id(&self, number: u64) -> String {
        short_id(self.salt, number)
    }
}

impl Series {
    /// Returns a series that was never seen before.
    pub fn new(rule: String, labels: Labels) -> Self {
        Self {
            rule,
            labels,
            state: State::Normal,
            value: None,
            via: Via::Database,
            fired: Vec::new(),
            over_at: None,
            told: None,
            ended_for_grafana: None,
        }
    }
}

impl Entry {
    /// Whether something is still to be sent.
    pub fn is_waiting(&self) -> bool {
        self.routes.iter().any(Route::is_waiting)
    }
}

impl Route {
    /// Makes a route that was not tried yet.
    pub fn new(channel: &str) -> Self {
        Self { channel: channel.to_owned(), state: RouteState::Waiting { tries: 0 } }
    }

    /// Whether it is to be sent.
    pub const fn is_waiting(&self) -> bool {
        matches!(self.state, RouteState::Waiting { .. })
    }
}

/// Returns the fingerprint of a series: 16 hexadecimal digits that never change.
pub fn fingerprint(rule_uid: &str, labels: &Labels) -> String {
    let mut hash = Sha256::new();
    hash.update(rule_uid.as_bytes());
    for (name, value) in labels {
        for text in [name, value] {
            hash.update([0]);
            hash.update(text.as_bytes());
        }
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `span` has passed since `at`. A time that lies ahead, because the clock went back, counts
/// as long past: it must not hold anything up.
pub fn passed(at: Timestamp, span: Duration, now: Timestamp) -> bool {
    at > now || now.since(at) >= span
}

/// Letters that are not taken for one another.
const LETTERS: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
const ID_LENGTH: u32 = 6;

fn short_id(salt: u64, number: u64) -> String {
    let base = u64::try_from(LETTERS.len()).unwrap_or(31);
    let size = base.pow(ID_LENGTH);
    // A factor without a divisor in common with 31: different numbers give different ids.
    let mut rest = (number % size * 387_420_489 + salt % size) % size;
    let mut id = String::new();
    for _ in 0..ID_LENGTH {
        let index = usize::try_from(rest % base).unwrap_or(0);
        id.extend(LETTERS.get(index).map(|letter| char::from(*letter)));
        rest /= base;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_differ_and_stay_the_same() {
        let ids: std::collections::BTreeSet<String> =
            (0..50_000).map(|number| short_id(7, number)).collect();
        assert_eq!(ids.len(), 50_000);
        assert!(ids.iter().all(|id| id.len() == 6));
        assert_eq!(short_id(7, 1), short_id(7, 1));
        assert_ne!(short_id(7, 1), short_id(8, 1));
    }

    #[test]
    fn labels_and_rule_make_the_fingerprint() {
        let labels = |value: &str| Labels::from([("daemon".to_owned(), value.to_owned())]);
        let one = fingerprint("periscope-daemon-down-critical", &labels("a"));
        assert_eq!(one.len(), 16);
        assert_eq!(one, fingerprint("periscope-daemon-down-critical", &labels("a")));
        assert_ne!(one, fingerprint("periscope-daemon-down-critical", &labels("b")));
        assert_ne!(one, fingerprint("periscope-daemon-down-warning", &labels("a")));
    }

    #[test]
    fn a_time_ahead_holds_nothing_up() {
        let at = Timestamp::from_millis;
        let minute = Duration::from_secs(60);
        assert!(!passed(at(0), minute, at(59_999)));
        assert!(passed(at(0), minute, at(60_000)));
        assert!(passed(at(3_600_000), minute, at(0)));
    }
}

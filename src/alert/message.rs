//! What people are told, independent of the channel.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::base::time::Timestamp;
use crate::base::words::words;
use crate::model::severity::Severity;

words! {
    /// What a message is about.
    Kind {
        /// An alert began to fire.
        Firing = "firing",
        /// An alert is over.
        Resolved = "resolved",
        /// About periscope's own work: it took over, handed back, or sums up an outage.
        Notice = "notice",
        /// Somebody wanted to see that it arrives.
        Test = "test",
    }
}

/// One thing to tell. Its texts may be hostile; only [`super::layout`] makes them fit to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Short, and the same whenever this message is sent again: a duplicate can be recognised.
    pub id: String,
    /// What it is about.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// One line: what happened.
    pub title: String,
    /// Name and value, the most important first: since, value against threshold, last error, daemon,
    /// host.
    pub facts: Vec<(String, String)>,
    /// What to do.
    pub advice: Option<String>,
    /// Where to look, an http or https URL.
    pub link: Option<String>,
    /// Titles of the alerts that this one explains; they are not sent by themselves.
    pub children: Vec<String>,
    /// When it happened.
    pub at: Timestamp,
}

impl Message {
    /// Returns a message that shows that a channel works.
    pub fn test(host: &str, env: &str, at: Timestamp) -> Self {
        Self {
            id: short_id(&format!("test {} {host}", at.nanos())),
            kind: Kind::Test,
            severity: Severity::Info,
            title: "periscope can reach you here".to_owned(),
            facts: vec![
                ("Host".to_owned(), host.to_owned()),
                ("Env".to_owned(), env.to_owned()),
                ("Sent".to_owned(), clock_time(at)),
            ],
            advice: Some("Nothing to do: this is a test of the channel.".to_owned()),
            link: None,
            children: Vec::new(),
            at,
        }
    }
}

/// Returns `at` as people read it: `2026-11-24 03:55:27 UTC`.
pub fn clock_time(at: Timestamp) -> String {
    let text = at.to_string();
    let whole = text.split_once('.').map_or_else(|| text.trim_end_matches('Z'), |(whole, _)| whole);
    format!("{} UTC", whole.replacen('T', " ", 1))
}

/// Letters and digits that are not taken for one another when read aloud.
const ALPHABET: [char; 32] = [
    '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'j', 'k', 'm',
    'n', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', '0',
];

/// Returns six characters that stand for `identity`, always the same ones.
///
/// Two of 1,000 messages share theirs with a chance of 1 in 2,000.
pub fn short_id(identity: &str) -> String {
    let digest = Sha256::digest(identity.as_bytes());
    digest.iter().take(6).filter_map(|byte| ALPHABET.get(usize::from(byte % 32))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_tell_messages_apart() {
        let ids: std::collections::BTreeSet<String> =
            (0..1_000).map(|n| short_id(&format!("alert {n}"))).collect();
        assert!(ids.len() > 995 && ids.iter().all(|id| id.len() == 6), "{}", ids.len());
        assert_eq!(short_id("alert 1"), short_id("alert 1"));
    }

    #[test]
    fn a_message_survives_the_outbox() {
        let message = Message::test("vps-1", "prod", Timestamp::from_millis(1_795_492_527_827));
        let json = serde_json::to_string(&message).unwrap();
        assert!(json.contains(r#""kind":"test","severity":"info""#), "{json}");
        assert_eq!(serde_json::from_str::<Message>(&json).unwrap(), message);
    }

    #[test]
    fn times_are_read_by_people() {
        for (written, read) in [
            ("2026-11-24T03:55:27Z", "2026-11-24 03:55:27 UTC"),
            ("2026-11-24T03:55:27.000001Z", "2026-11-24 03:55:27 UTC"),
        ] {
            assert_eq!(clock_time(Timestamp::parse(written).unwrap()), read);
        }
    }
}

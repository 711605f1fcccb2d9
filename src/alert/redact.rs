//! Keys in texts of others, found by how they look: an exchange's error often repeats the request
//! that failed, signature and all. Pure.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What stands in place of a key.
pub(super) const REDACTED: &str = "[redacted]";

/// Returns `text` without anything that looks like a key, password or token.
pub(super) fn redacted(text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for pattern in PATTERNS.iter() {
        let replaced = pattern.expression.replace_all(&text, |found: &Captures<'_>| {
            let part = |name| found.name(name).map_or("", |found| found.as_str());
            let key = part("key");
            if !(pattern.is_key)(key) {
                return found.get(0).map_or("", |whole| whole.as_str()).to_owned();
            }
            format!("{}{REDACTED}{}", part("before"), part("after"))
        });
        if let Cow::Owned(replaced) = replaced {
            text = Cow::Owned(replaced);
        }
    }
    text.into_owned()
}

/// A form of key: `before` and `after` stay, `key` goes if it is one.
struct Pattern {
    expression: Regex,
    is_key: fn(&str) -> bool,
}

const fn always(_key: &str) -> bool {
    true
}

/// Whether the run of letters and digits `key` is random rather than a word: it has all kinds of
/// characters and more than one digit.
fn is_random(key: &str) -> bool {
    let count = |kind: fn(&u8) -> bool| key.bytes().filter(kind).count();
    count(u8::is_ascii_digit) >= 2
        && count(u8::is_ascii_uppercase) >= 2
        && count(u8::is_ascii_lowercase) >= 2
}

/// As [`is_random`], for runs that may also be several words with dashes between them.
fn is_random_with_dashes(key: &str) -> bool {
    let count = |kind: fn(&u8) -> bool| key.bytes().filter(kind).count();
    is_random(key) && count(u8::is_ascii_digit) >= 4 && count(u8::is_ascii_uppercase) >= 4
}

/// Whether a value after `Bearer` or `secret=` is worth hiding: `secret: null` and `token=***` are not.
fn is_value(key: &str) -> bool {
    key.len() >= 4
        && !["null", "None", "none"].contains(&key)
        && !key.contains("***")
        && !key.starts_with("[redacted")
}

/// The most particular first: a general one would leave a part of what they take whole.
static PATTERNS: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
    let pattern = |expression: &str, is_key: fn(&str) -> bool| {
        #[expect(clippy::expect_used, reason = "constants; a test uses each of them")]
        let expression = Regex::new(expression).expect("a valid expression");
        Pattern { expression, is_key }
    };
    vec![
        // Private keys in PEM.
        pattern(
            r"(?<key>-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$))",
            always,
        ),
        // https://user:password@host
        pattern(r"(?<before>://)(?<key>[^ /@:]*:[^ /@]+)(?<after>@)", always),
        // Tokens of Telegram bots, URLs of Discord and Slack webhooks.
        pattern(r"(?<key>[0-9]{6,12}:[0-9A-Za-z_\-]{30,})", always),
        pattern(r"(?<before>/api/webhooks/[0-9]{5,}/)(?<key>[0-9A-Za-z_\-]+)", always),
        pattern(r"(?<before>hooks\.slack\.com/services/)(?<key>[0-9A-Za-z/]+)", always),
        // JSON web tokens.
        pattern(r"(?<key>eyJ[0-9A-Za-z_\-]{8,}\.[0-9A-Za-z_\-]{8,}\.[0-9A-Za-z_\-]*)", always),
        pattern(
            r#"(?<before>(?i-u:\bbearer|\bauthorization["']?[=:] ?["']?(?:basic|token)) +)(?<key>[0-9A-Za-z_\-.~+/=]{8,})"#,
            is_value,
        ),
        // api_key=…, "secret": "…", X-MBX-APIKEY: …, passphrase '…'
        pattern(
            r#"(?<before>(?i-u:api[_\- ]?key|apikey|secret|password|passwd|passphrase|private[_\- ]?key|access[_\- ]?key|signature|listen[_\- ]?key|auth[_\- ]?token|access[_\- ]?token|(?-u:\b)token|(?-u:\b)sign|(?-u:\b)pwd)[0-9A-Za-z_\-]{0,16}["']?[ ]{0,2}[=:][ ]{0,2}["']?)(?<key>[^ "'&,;\)\]\}]+)"#,
            is_value,
        ),
        // 0x… of a private key or a signature; hashes go with them.
        pattern(r"(?-u:\b)(?<before>(?:0x)?)(?<key>[0-9a-fA-F]{32,})(?-u:\b)", is_long_hex),
        // base64: with its padding, and without.
        pattern(r"(?<key>[0-9A-Za-z+/]{38,}={1,2})", always),
        pattern(r"(?<key>[0-9A-Za-z+]{32,})", is_random),
        pattern(r"(?<key>[0-9A-Za-z_\-]{40,})", is_random_with_dashes),
    ]
});

/// Whether a run of hexadecimal digits is more than a long number.
fn is_long_hex(key: &str) -> bool {
    key.bytes().any(|byte| byte.is_ascii_alphabetic())
        && key.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_key_is_hidden() {
        let cases = [
            ("GET https://u:canary@h/x", "GET https://[redacted]@h/x"),
            (
                "https://api.telegram.org/bot123456789:AAcanaryAAcanaryAAcanaryAAcanary/getMe",
                "https://api.telegram.org/bot[redacted]/getMe",
            ),
            (
                "https://discord.com/api/webhooks/123456/canary-canary_canary",
                "https://discord.com/api/webhooks/123456/[redacted]",
            ),
            ("hooks.slack.com/services/T0/B0/canary", "hooks.slack.com/services/[redacted]"),
            ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.canary_canary", "jwt [redacted]"),
            ("Authorization: Bearer canary.canary.canary", "Authorization: Bearer [redacted]"),
            (r#"{"apiKey": "canary", "a": 1}"#, r#"{"apiKey": "[redacted]", "a": 1}"#),
            ("params secret='canary' x", "params secret='[redacted]' x"),
            ("?timestamp=1&signature=canary&x=2", "?timestamp=1&signature=[redacted]&x=2"),
            ("X-MBX-APIKEY: canary", "X-MBX-APIKEY: [redacted]"),
            ("PASSWORD=canary", "PASSWORD=[redacted]"),
            ("key 0123456789abcdef0123456789abcdef!", "key [redacted]!"),
            (
                "signed 0x0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "signed 0x[redacted]",
            ),
            ("b64 c2VjcmV0IGtleSBvZiBhbiBleGNoYW5nZSBhY2NvdW50/w==", "b64 [redacted]"),
            (
                "key vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A",
                "key [redacted]",
            ),
            ("id aB3_dE6-gH9_jK2-mN5_pQ8-sT1_vW4-yZ7_bC0-eF3", "id [redacted]"),
            (
                "-----BEGIN EC PRIVATE KEY----- canary canary -----END EC PRIVATE KEY----- x",
                "[redacted] x",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(redacted(text), expected);
            assert_eq!(redacted(expected), expected, "twice");
        }
    }

    #[test]
    fn what_people_need_to_read_stays() {
        for text in [
            "connect to binance: Connection refused (os error 111)",
            "order 3fa85f64-5717-4562-b3fc-2c963f66afa6 rejected: insufficient margin",
            "/usr/lib/python3.12/site-packages/nautilus_trader/adapters/binance/websocket/client.py",
            "BinanceFuturesUserDataStreamWebSocketClientError: closed",
            "daemon ccxt-liquidations-daemon-01-prod-eu-west-shard-7 is down",
            "exchange answered -1021: Timestamp for this request is outside of the recvWindow",
            "secret: null, token: ***, signature:",
            "12345678901234567890123456789012345678901234567890",
            "invalid API-key, IP, or permissions for action",
            "2026-11-24T03:55:27.827025+00:00",
            "日本語 ü 🚀 «quoted»",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn no_text_makes_it_fail_or_hang() {
        for unit in ["secret=", "a1B", "://a:", "0x", "eyJ", "-----BEGIN PRIVATE KEY-----", "é"] {
            let text = unit.repeat(20_000 / unit.len());
            assert!(!redacted(&text).is_empty());
        }
    }
}

//! From a message to text: the only way, so that nothing hostile gets past it. Every channel shows
//! the same words in the same order; how much of them fits is decided here. Pure.

use super::message::{Kind, Message, clock_time};
use super::text::{clean, cut, link};
use crate::model::severity::Severity;

/// Longest title, units.
const TITLE: usize = 200;
/// Longest name of a fact, units.
const NAME: usize = 60;
/// Longest link, units. A longer one is left out: cut off it would lead elsewhere.
const LINK: usize = 500;
/// Longest short id, units.
const ID: usize = 16;

/// How much is shown of what has no bound.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Facts.
    facts: usize,
    /// Longest value of a fact, units.
    value: usize,
    /// Longest advice, units.
    advice: usize,
    /// Explained alerts that are listed.
    children: usize,
    /// Longest title of an explained alert, units.
    child: usize,
}

/// From plenty to what fits everywhere.
const ROOMS: [Room; 4] = [
    Room { facts: 20, value: 1_000, advice: 1_000, children: 20, child: 200 },
    Room { facts: 20, value: 300, advice: 600, children: 10, child: 120 },
    Room { facts: 16, value: 120, advice: 400, children: 5, child: 80 },
    Room { facts: 10, value: 60, advice: 200, children: 3, child: 60 },
];

/// A message fit to be shown: cleaned, keys hidden, of limited length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// `🔴 CRITICAL`
    pub(super) mark: &'static str,
    /// `CRITICAL`, for headers.
    pub(super) word: &'static str,
    /// What happened.
    pub(super) title: String,
    /// Name and value; neither is empty.
    pub(super) facts: Vec<(String, String)>,
    /// What to do.
    pub(super) advice: Option<String>,
    /// Explained alerts; the last may count those that are not listed.
    pub(super) children: Vec<String>,
    /// Where to look.
    pub(super) link: Option<String>,
    /// Short id and time.
    pub(super) foot: String,
}

/// A piece of text and whose words it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) text: String,
    pub(super) style: Style,
}

/// How a piece of text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// periscope's own words.
    Own,
    /// periscope's own words, to be seen first.
    Strong,
    /// Words that may come from a daemon: nothing in them may be taken for markup.
    Foreign,
    /// As [`Style::Foreign`], to be seen first.
    Title,
    /// The link.
    Link,
}

impl Layout {
    /// Returns `message` with as much of it as `fits` accepts.
    ///
    /// The last try is short enough for every channel and is not asked about.
    pub(super) fn of(message: &Message, fits: impl Fn(&Self) -> bool) -> Self {
        let [plenty, .., least] = &ROOMS;
        // Cleaning takes far longer than cutting: once.
        let whole = Self::whole(message, plenty);
        let found = ROOMS.iter().map(|room| whole.in_room(message, room)).find(fits);
        found.unwrap_or_else(|| whole.in_room(message, least))
    }

    fn whole(message: &Message, room: &Room) -> Self {
        let (mark, word) = heading(message.kind, message.severity);
        let facts = message.facts.iter().take(room.facts);
        let facts = facts.map(|(name, value)| (clean(name, NAME), clean(value, room.value)));
        let children = message.children.iter().take(room.children);
        let advice = message.advice.as_deref().filter(|advice| !advice.trim().is_empty());
        Self {
            mark,
            word,
            title: clean(&message.title, TITLE),
            facts: facts.collect(),
            advice: advice.map(|advice| clean(advice, room.advice)),
            children: children.map(|child| clean(child, room.child)).collect(),
            link: message.link.as_deref().and_then(|url| link(url, LINK)),
            foot: format!("id {} · {}", clean(&message.id, ID), clock_time(message.at)),
        }
    }

    /// Returns as much of it as `room` has place for; what is left out of `message` is counted.
    fn in_room(&self, message: &Message, room: &Room) -> Self {
        let facts = self.facts.iter().take(room.facts);
        let mut facts: Vec<_> =
            facts.map(|(name, value)| (name.clone(), cut(value, room.value))).collect();
        if let Some(more) = more(message.facts.len(), room.facts) {
            facts.push(("More".to_owned(), format!("{more} not shown")));
        }
        let children = self.children.iter().take(room.children);
        let mut children: Vec<String> = children.map(|child| cut(child, room.child)).collect();
        if let Some(more) = more(message.children.len(), room.children) {
            children.push(format!("… and {more} more"));
        }
        let advice = self.advice.as_deref().map(|advice| cut(advice, room.advice));
        Self { facts, children, advice, ..self.clone() }
    }

    /// Returns the whole text in pieces, line breaks among them.
    pub(super) fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut push = |style, text: &str| spans.push(Span { text: text.to_owned(), style });
        push(Style::Strong, self.mark);
        push(Style::Own, " ");
        push(Style::Title, &self.title);
        push(Style::Own, "\n");
        for (name, value) in &self.facts {
            push(Style::Foreign, name);
            push(Style::Own, ": ");
            push(Style::Foreign, value);
            push(Style::Own, "\n");
        }
        if let Some(advice) = &self.advice {
            push(Style::Own, "\n");
            push(Style::Foreign, advice);
            push(Style::Own, "\n");
        }
        if !self.children.is_empty() {
            push(Style::Own, "\nExplains:\n");
            for child in &self.children {
                push(Style::Own, "- ");
                push(Style::Foreign, child);
                push(Style::Own, "\n");
            }
        }
        push(Style::Own, "\n");
        if let Some(link) = &self.link {
            push(Style::Link, link);
            push(Style::Own, "\n");
        }
        push(Style::Own, &self.foot);
        spans
    }

    /// Returns the whole text without any style.
    pub(super) fn plain(&self) -> String {
        self.spans().into_iter().map(|span| span.text).collect()
    }

    /// Returns one line: `[CRITICAL] ccxt on vps-1 is down`.
    pub(super) fn subject(&self) -> String {
        cut(&format!("[{}] {}", self.word, self.title), TITLE)
    }
}

/// Whether nothing in `text` can be taken for markup, a mention, a command or a link by any server:
/// letters, digits, spaces, and signs that mean nothing where they stand.
pub(super) fn is_inert(text: &str) -> bool {
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let next = characters.peek().copied().unwrap_or(' ');
        let inside = before.is_alphanumeric() && next.is_alphanumeric();
        let inert = match c {
            c if c.is_alphanumeric() => true,
            ' ' | ',' | ';' | '(' | ')' | '%' | '?' | '…' | '–' => true,
            // "1.5", not "example.org"; "down.", not "...".
            '.' => {
                (before.is_ascii_digit() && next.is_ascii_digit())
                    || (before.is_alphanumeric() && next == ' ')
            }
            // "well-known", not "- item".
            '-' | '\'' | '=' | '+' => inside,
            // "10:30" and "last: this", not "tg://" or ":smile:".
            ':' => {
                (before.is_ascii_digit() && next.is_ascii_digit())
                    || (before.is_alphanumeric() && characters.peek() == Some(&' '))
            }
            _ => false,
        };
        if !inert {
            return false;
        }
        before = c;
    }
    // Numbered lines ("1. …") are lists.
    !text.trim_start().starts_with(|c: char| c.is_ascii_digit()) || !text.contains(". ")
}

const fn heading(kind: Kind, severity: Severity) -> (&'static str, &'static str) {
    match (kind, severity) {
        (Kind::Firing, Severity::Critical) => ("🔴 CRITICAL", "CRITICAL"),
        (Kind::Firing, Severity::Warning) => ("🟠 WARNING", "WARNING"),
        (Kind::Firing, Severity::Info) => ("🔵 INFO", "INFO"),
        (Kind::Resolved, _) => ("✅ RESOLVED", "RESOLVED"),
        (Kind::Notice, _) => ("📣 NOTICE", "NOTICE"),
        (Kind::Test, _) => ("🔧 TEST", "TEST"),
    }
}

/// Returns how many of `count` are beyond `limit`, if any.
fn more(count: usize, limit: usize) -> Option<usize> {
    count.checked_sub(limit).filter(|more| *more > 0)
}

#[cfg(test)]
mod tests {
    use super::super::text::units;
    use super::*;
    use crate::base::time::Timestamp;

    fn message() -> Message {
        Message {
            id: "a7f3k2".to_owned(),
            kind: Kind::Firing,
            severity: Severity::Critical,
            title: "ccxt on vps-1 is down".to_owned(),
            facts: vec![
                ("Since".to_owned(), "2026-11-24 03:55:27 UTC".to_owned()),
                ("Last error".to_owned(), "\u{1b}[31mclosed\u{1b}[0m\n@everyone".to_owned()),
            ],
            advice: Some("Look at its log.".to_owned()),
            link: Some("http://127.0.0.1:7480/".to_owned()),
            children: vec!["ccxt binance is silent".to_owned()],
            at: Timestamp::parse("2026-11-24T03:55:57Z").unwrap(),
        }
    }

    #[test]
    fn the_words_are_the_same_for_all() {
        let plain = Layout::of(&message(), |_| true).plain();
        assert_eq!(
            plain,
            "🔴 CRITICAL ccxt on vps-1 is down\n\
             Since: 2026-11-24 03:55:27 UTC\n\
             Last error: closed @everyone\n\
             \n\
             Look at its log.\n\
             \n\
             Explains:\n\
             - ccxt binance is silent\n\
             \n\
             http://127.0.0.1:7480/\n\
             id a7f3k2 · 2026-11-24 03:55:57 UTC"
        );
        assert_eq!(Layout::of(&message(), |_| true).subject(), "[CRITICAL] ccxt on vps-1 is down");
    }

    #[test]
    fn what_does_not_fit_is_counted_and_the_least_is_short_enough_for_all() {
        let mut message = message();
        message.facts = (0..100).map(|n| (format!("fact {n}"), "🚀".repeat(5_000))).collect();
        message.children = vec!["x".repeat(100_000); 500];
        message.title = "t".repeat(100_000);
        message.advice = Some("a".repeat(100_000));
        message.link = Some(format!("http://h/{}", "x".repeat(400)));
        message.id = "i".repeat(1_000);
        let least = Layout::of(&message, |_| false);
        let plain = least.plain();
        assert!(units(&plain) <= 3_000, "{} units", units(&plain));
        assert!(plain.contains("… and 497 more"), "{plain}");
        assert!(plain.contains("More: 90 not shown"), "{plain}");
        assert!(plain.contains("id iiiiiiiiiiiiiii… · 2026"), "{plain}");
    }

    #[test]
    fn only_text_without_markup_is_inert() {
        for text in [
            "ccxt on vps-1 is down",
            "2026-11-24 03:55:27 UTC",
            "1m 15s (alert above 30s)",
            "5.3 % of 10.5",
            "größe 日本",
            "Look at its log.",
        ] {
            assert!(is_inert(text), "{text}");
        }
        for text in [
            "@everyone",
            "a@b",
            "#tag",
            "/stop",
            "t.me/x",
            "evil.com",
            "http://x",
            "tg://x",
            "*b*",
            "_i_",
            "a_b",
            "`c`",
            "<b>",
            "[a](b)",
            "~~s~~",
            "||s||",
            "- item",
            "> quote",
            "1. list",
            "\\",
            ":smile:",
            "evil:smile:",
            "a:smile: b",
            "$BTC",
            "&amp;",
            "-# small",
            "+1. x",
            "🚀",
        ] {
            assert!(!is_inert(text), "{text}");
        }
    }
}

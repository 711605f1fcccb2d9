//! Text of daemons and servers made fit for a message: no controls, no keys, of limited length.
//! Lengths are UTF-16 units, as Telegram counts them; other servers count characters, of which there
//! are never more. Pure.

use super::redact::redacted;
use crate::store::text::{first_bytes, without_controls};

/// How many bytes of a text are looked at for each unit that may be shown, so that it can be cut after
/// it was cleaned.
const LOOKED_AT: usize = 8;

/// What is shown for a text of which nothing is left: some servers refuse an empty one.
const NOTHING: &str = "–";

/// Returns the length of `text` as Telegram counts it.
pub(super) fn units(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Returns `raw` without controls, marks of direction and keys, at most `limit` units long; what was
/// cut off shows as `…`. Never empty.
pub(super) fn clean(raw: &str, limit: usize) -> String {
    // A key that is cut off here and was not found is far beyond what is shown.
    let start = first_bytes(raw, limit.saturating_mul(LOOKED_AT).max(2_048)).unwrap_or(raw);
    let plain = without_controls(start);
    let mut text = redacted(plain.as_deref().unwrap_or(start));
    if text.chars().any(is_invisible_mark) {
        text.retain(|c| !is_invisible_mark(c));
    }
    let shown = text.trim();
    if shown.chars().all(is_blank) {
        return NOTHING.to_owned();
    }
    cut(shown, limit)
}

/// Returns `text`, or as much of it as fits into `limit` units together with a `…`.
pub(super) fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit || units(text) <= limit {
        return text.to_owned();
    }
    let mut left = limit.saturating_sub(1);
    let mut kept = String::new();
    for character in text.chars() {
        let Some(rest) = left.checked_sub(character.len_utf16()) else { break };
        left = rest;
        kept.push(character);
    }
    let mut kept = kept.trim_end().to_owned();
    kept.push('…');
    kept
}

/// Characters that change how others are shown and that no name or error needs: deprecated format
/// marks, annotations, tags.
const fn is_invisible_mark(c: char) -> bool {
    matches!(c, '\u{206a}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether `c` shows nothing by itself; a text of such characters only counts as empty.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}'
                | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
                | '\u{e0100}'..='\u{e01ef}'
        )
}

/// Returns `link` if it is an http or https URL of at most `limit` units, every other character in
/// it escaped.
pub(super) fn link(link: &str, limit: usize) -> Option<String> {
    use std::fmt::Write as _;

    if !link.starts_with("http://") && !link.starts_with("https://") {
        return None;
    }
    let mut escaped = String::with_capacity(link.len());
    let mut buffer = [0_u8; 4];
    for character in link.chars().take(limit) {
        let plain =
            character.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(character);
        if plain {
            escaped.push(character);
            continue;
        }
        for byte in character.encode_utf8(&mut buffer).bytes() {
            // Writing to a String cannot fail.
            let _ignored = write!(escaped, "%{byte:02X}");
        }
    }
    // Cut off, it would lead elsewhere.
    (link.len() <= limit && escaped.len() <= limit).then_some(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_counted_as_telegram_does() {
        assert_eq!((units("a"), units("ü"), units("🚀")), (1, 1, 2));
        assert_eq!(cut("🚀🚀", 4), "🚀🚀");
        assert_eq!(cut("🚀🚀", 3), "🚀…");
        assert_eq!(cut("🚀🚀", 2), "…");
        assert_eq!(cut("one two", 5), "one…");
        assert_eq!(clean(&"x".repeat(100_000), 10), "xxxxxxxxx…");
    }

    #[test]
    fn hostile_text_becomes_plain_or_a_dash() {
        for (raw, expected) in [
            ("\u{1b}[31mred\u{1b}[0m\nnext", "red next"),
            ("a\0b\u{202e}c\u{9b}d", "abcd"),
            ("", "–"),
            (" \u{200b}\u{3164}\u{fe0f} ", "–"),
            ("\u{e0041}\u{e0042}", "–"),
            ("👩\u{200d}💻 works", "👩\u{200d}💻 works"),
            ("api_key=hunter2hunter2", "api_key=[redacted]"),
        ] {
            assert_eq!(clean(raw, 100), expected, "{raw:?}");
        }
    }

    #[test]
    fn a_link_is_an_http_url_or_nothing() {
        assert_eq!(link("http://h/d/x?a=b&c=ü d", 100).unwrap(), "http://h/d/x?a=b&c=%C3%BC%20d");
        assert_eq!(link("https://h/\"><b>`x`", 100).unwrap(), "https://h/%22%3E%3Cb%3E%60x%60");
        for refused in ["tg://resolve?domain=x", "javascript:alert(1)", "h/d", ""] {
            assert_eq!(link(refused, 100), None, "{refused}");
        }
        assert_eq!(link(&format!("http://h/{}", "x".repeat(100)), 100), None);
    }
}

//! Text from daemons is hostile: it is cleaned here, once, before it goes anywhere. Pure.

use std::sync::Arc;

/// Longest `last_error`, bytes.
pub(super) const ERROR_BYTES: usize = 4096;
/// Longest tag (venue, instrument, strategy), bytes.
pub(super) const TAG_BYTES: usize = 128;
/// Longest comma separated list, bytes.
pub(super) const LIST_BYTES: usize = 16 * 1024;

/// Returns `text` without control characters, terminal escapes and direction overrides, at most
/// `limit` bytes long; what was cut off shows as `…`.
pub(super) fn clean(text: &str, limit: usize) -> Arc<str> {
    if text.len() <= limit && text.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
        return text.into();
    }
    let mut cleaned = String::with_capacity(text.len().min(limit));
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let kept = match character {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
            '\u{1b}' => {
                skip_escape(&mut characters);
                continue;
            }
            other if other.is_control() || is_direction(other) => continue,
            other => other,
        };
        if cleaned.len() + kept.len_utf8() > limit.saturating_sub('…'.len_utf8()) {
            cleaned.push('…');
            break;
        }
        cleaned.push(kept);
    }
    cleaned.trim().into()
}

/// Skips the rest of a terminal escape: `[` parameters and one letter, or one character.
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    if characters.next_if_eq(&'[').is_none() {
        characters.next_if(|next| next.is_ascii_graphic());
        return;
    }
    while characters.next_if(|next| matches!(next, ' '..='?')).is_some() {}
    characters.next_if(|next| matches!(next, '@'..='~'));
}

/// Characters that turn the direction of the text around them, and the byte order mark.
const fn is_direction(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// Returns a tag out of `text`; `None` when nothing is left of it.
pub(super) fn tag(text: &str) -> Option<Arc<str>> {
    let cleaned = clean(text, TAG_BYTES);
    (!cleaned.is_empty()).then_some(cleaned)
}

/// Returns a venue out of `text`: a tag in lower case.
pub(super) fn venue(text: &str) -> Option<Arc<str>> {
    let cleaned = tag(text)?;
    if cleaned.bytes().any(|byte| !byte.is_ascii() || byte.is_ascii_uppercase()) {
        return Some(cleaned.to_lowercase().into());
    }
    Some(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_escapes_and_overrides_are_gone() {
        for (dirty, expected) in [
            ("plain text", "plain text"),
            ("two\nlines\r\n\tand a tab", "two lines   and a tab"),
            ("\u{1b}[31;1mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}", "0;title"),
            ("nul\0 bell\u{7} c1\u{85}\u{9b}", "nul bell c1"),
            ("\u{202e}evil\u{2066}", "evil"),
            ("\u{1b}", ""),
            ("größe 🚀", "größe 🚀"),
        ] {
            assert_eq!(&*clean(dirty, 100), expected, "{dirty:?}");
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        for limit in 3..12 {
            let cut = clean("ä🚀ö🚀ü🚀", limit);
            assert!(cut.len() <= limit && cut.ends_with('…'), "{limit}: {cut}");
        }
        assert_eq!(clean(&"x".repeat(5000), ERROR_BYTES).len(), ERROR_BYTES);
        assert_eq!(clean(&"x".repeat(ERROR_BYTES), ERROR_BYTES).len(), ERROR_BYTES);
    }

    #[test]
    fn venues_are_lower_case_and_never_empty() {
        assert_eq!(venue("BINANCE").as_deref(), Some("binance"));
        assert_eq!(venue("\u{7}"), None);
    }
}

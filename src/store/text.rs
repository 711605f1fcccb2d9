//! Hostile text made harmless. Pure.

/// Returns `text` without control characters, terminal sequences and marks that turn the direction
/// of writing; line breaks and tabs become spaces. `None` when there is nothing to change.
pub fn without_controls(text: &str) -> Option<String> {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte);
    // Without an early exit, so that it is done for many bytes at once.
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        return None;
    }
    if !text.chars().any(is_harmful) {
        return None;
    }
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                // A terminal sequence: ESC [ parameters letter.
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
                    let _letter = chars.next_if(|c| ('@'..='~').contains(c));
                }
            }
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => clean.push(' '),
            c if is_harmful(c) => {}
            c => clean.push(c),
        }
    }
    Some(clean)
}

/// Whether `c` is a control character or turns the direction of writing.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}' | '\u{2028}' | '\u{2029}'
                | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Returns the first `limit` characters of `text`; `None` when it has no more.
pub fn first_chars(text: &str, limit: usize) -> Option<&str> {
    if text.len() <= limit {
        return None;
    }
    let (end, _) = text.char_indices().nth(limit)?;
    text.get(..end)
}

/// Returns the start of `text` of at most `limit` bytes that ends between two characters; `None`
/// when it is no longer than that.
pub fn first_bytes(text: &str, limit: usize) -> Option<&str> {
    if text.len() <= limit {
        return None;
    }
    text.get(..text.floor_char_boundary(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_go_and_everything_else_stays() {
        for (text, expected) in [
            ("plain text ~", None),
            ("日本 ü 🚀", None),
            ("two\nlines\tand tab", Some("two lines and tab")),
            ("\u{1b}[31mred\u{1b}[0m", Some("red")),
            ("\u{1b}", Some("")),
            ("a\0b\u{7f}c\u{85}d", Some("abcd")),
            ("abc\u{202e}fed", Some("abcfed")),
        ] {
            assert_eq!(without_controls(text).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(first_chars("üüü", 3), None);
        assert_eq!(first_chars("üüü", 2), Some("üü"));
        assert_eq!(first_bytes("üü", 4), None);
        assert_eq!(first_bytes("üü", 3), Some("ü"));
        assert_eq!(first_bytes("🚀", 3), Some(""));
    }
}

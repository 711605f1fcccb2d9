//! Text for Telegram with the places of its styles. Pure.

use teloxide_core::types::MessageEntity;

use crate::alert::layout::{Span, Style, is_inert};
use crate::alert::text::units;

/// A text and where it is bold or of fixed width; places are UTF-16 units.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text {
    text: String,
    entities: Vec<MessageEntity>,
}

impl Text {
    /// Returns `spans` one after the other.
    ///
    /// Telegram makes links, mentions and commands out of everything that looks like one, except
    /// inside of fixed width: what could look like one is shown that way.
    pub(in crate::alert) fn of(spans: &[Span]) -> Self {
        let mut this = Self::default();
        for Span { text, style } in spans {
            let (offset, length) = (units(&this.text), units(text));
            let entity = match style {
                Style::Strong => Some(MessageEntity::bold(offset, length)),
                Style::Title if is_inert(text) => Some(MessageEntity::bold(offset, length)),
                Style::Foreign | Style::Title if !is_inert(text) => {
                    Some(MessageEntity::code(offset, length))
                }
                Style::Own | Style::Foreign | Style::Title | Style::Link => None,
            };
            this.entities.extend(entity.filter(|_| length > 0));
            this.text.push_str(text);
        }
        this
    }

    /// Returns the text alone.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(in crate::alert) fn entities(&self) -> &[MessageEntity] {
        &self.entities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str, style: Style) -> Span {
        Span { text: text.to_owned(), style }
    }

    #[test]
    fn places_are_counted_as_telegram_does_and_foreign_words_are_inert() {
        let text = Text::of(&[
            span("🔴 UP", Style::Strong),
            span(" ", Style::Own),
            span("ccxt is down", Style::Title),
            span("\n", Style::Own),
            span("fine", Style::Foreign),
            span("@everyone", Style::Foreign),
            span("", Style::Foreign),
            span("/stop", Style::Title),
            span("http://h/", Style::Link),
        ]);
        assert_eq!(text.as_str(), "🔴 UP ccxt is down\nfine@everyone/stophttp://h/");
        assert_eq!(
            text.entities(),
            [
                MessageEntity::bold(0, 5),
                MessageEntity::bold(6, 12),
                MessageEntity::code(23, 9),
                MessageEntity::code(32, 5),
            ]
        );
    }
}

//! The wording of an alert, once: `{{ $labels.daemon }}`, `{{ value }}`, `{{ threshold }}` and
//! `{{ for }}`. From it come our own messages and Grafana's annotations.

use std::fmt::Write as _;
use std::time::Duration;

use super::rule::{Labels, Limit, Unit};

/// A text with places for labels and figures.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Label(String),
    Value,
    Threshold,
    Hold,
}

/// What a template does not understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{{` without `}}`, or the other way round.
    #[error("braces do not match in {0:?}")]
    Braces(String),
    /// Something else between the braces.
    #[error("{{{{ {0} }}}} is not known")]
    Unknown(String),
}

/// The figures that a template shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// What the numbers measure.
    pub unit: Unit,
    /// Threshold.
    pub limit: Limit,
    /// How long it must be bad.
    pub hold: Duration,
}

impl Template {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text.trim();
        while let Some((before, after)) = rest.split_once("{{") {
            let (inside, next) =
                after.split_once("}}").ok_or_else(|| TemplateError::Braces(text.to_owned()))?;
            push_text(&mut pieces, before, text)?;
            let inside = inside.trim();
            pieces.push(match (inside, inside.strip_prefix("$labels.")) {
                ("value", _) => Piece::Value,
                ("threshold", _) => Piece::Threshold,
                ("for", _) => Piece::Hold,
                (_, Some(label)) if plain(label) => Piece::Label(label.to_owned()),
                _ => return Err(TemplateError::Unknown(inside.to_owned())),
            });
            rest = next;
        }
        push_text(&mut pieces, rest, text)?;
        Ok(Self { pieces })
    }

    /// Returns the labels that it names.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Label(label) => Some(label.as_str()),
            Piece::Text(_) | Piece::Value | Piece::Threshold | Piece::Hold => None,
        })
    }

    /// Whether there is nothing to say.
    pub const fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Returns the text for one series; a label that it lacks is left empty.
    pub fn render(&self, labels: &Labels, value: f64, figures: &Figures) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(words) => text.push_str(words),
                Piece::Label(label) => text.push_str(labels.get(label).map_or("", String::as_str)),
                Piece::Value => text.push_str(&figure(figures.unit, value)),
                Piece::Threshold => text.push_str(&figure(figures.unit, figures.limit.threshold)),
                Piece::Hold => text.push_str(&duration(figures.hold.as_secs_f64())),
            }
        }
        text
    }

    /// Returns the text for readers of a reference: `{daemon}` and `{value}` for what differs.
    pub fn words(&self, figures: &Figures) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(words) => words.clone(),
            Piece::Label(label) => format!("{{{label}}}"),
            Piece::Value => "{value}".to_owned(),
            Piece::Threshold => figure(figures.unit, figures.limit.threshold),
            Piece::Hold => duration(figures.hold.as_secs_f64()),
        };
        self.pieces.iter().map(piece).collect()
    }

    /// Returns the text as a template of Grafana, with `A` the query that gives the value.
    pub fn grafana(&self, figures: &Figures) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(words) => text.push_str(words),
                Piece::Label(label) => {
                    // Writing to a String cannot fail.
                    let _ignored = write!(text, "{{{{ $labels.{label} }}}}");
                }
                Piece::Value => text.push_str(value_template(figures.unit)),
                Piece::Threshold => text.push_str(&figure(figures.unit, figures.limit.threshold)),
                Piece::Hold => text.push_str(&duration(figures.hold.as_secs_f64())),
            }
        }
        text
    }
}

fn push_text(pieces: &mut Vec<Piece>, words: &str, whole: &str) -> Result<(), TemplateError> {
    if words.contains("}}") {
        return Err(TemplateError::Braces(whole.to_owned()));
    }
    if !words.is_empty() {
        pieces.push(Piece::Text(words.to_owned()));
    }
    Ok(())
}

fn plain(label: &str) -> bool {
    !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// How Grafana writes the value; the same form as [`figure`], as far as its functions go.
const fn value_template(unit: Unit) -> &'static str {
    match unit {
        Unit::Number => r#"{{ printf "%.2f" $values.A.Value }}"#,
        Unit::Count => r#"{{ printf "%.0f" $values.A.Value }}"#,
        Unit::Seconds => "{{ humanizeDuration $values.A.Value }}",
        Unit::Milliseconds => r#"{{ printf "%.0f" $values.A.Value }} ms"#,
        Unit::Bytes => "{{ humanize $values.A.Value }}B",
        Unit::Ratio => "{{ humanizePercentage $values.A.Value }}",
        Unit::PerMinute => r#"{{ printf "%.1f" $values.A.Value }} per minute"#,
        Unit::Gaps => r#"{{ printf "%.1f" $values.A.Value }} times"#,
    }
}

/// Returns `value` in words.
pub fn figure(unit: Unit, value: f64) -> String {
    if !value.is_finite() {
        return "unknown".to_owned();
    }
    match unit {
        Unit::Number => format!("{value:.2}"),
        Unit::Count => format!("{value:.0}"),
        Unit::Seconds => duration(value),
        Unit::Milliseconds => format!("{value:.0} ms"),
        Unit::Bytes => bytes(value),
        Unit::Ratio => format!("{}%", trimmed(value * 100.0, 2)),
        Unit::PerMinute => format!("{} per minute", trimmed(value, 1)),
        Unit::Gaps => format!("{} times", trimmed(value, 1)),
    }
}

/// Returns `seconds` as `1d 2h`, `5m`, `1m 15s`, `0.2s`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "unknown".to_owned();
    }
    if seconds.abs() < 10.0 && seconds.fract().abs() > 0.05 {
        return format!("{}s", trimmed(seconds, 1));
    }
    let sign = if seconds < 0.0 { "-" } else { "" };
    let mut rest = Duration::try_from_secs_f64(seconds.abs()).unwrap_or(Duration::MAX).as_secs();
    let mut parts = Vec::new();
    for (size, name) in [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")] {
        if rest >= size {
            parts.push(format!("{}{name}", rest / size));
            rest %= size;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { format!("{sign}{}", parts.join(" ")) }
}

fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value.abs() < 1_000.0 {
            return format!("{}{unit}", trimmed(value, 1));
        }
        value /= 1_000.0;
    }
    format!("{}PB", trimmed(value, 1))
}

/// Returns `value` with at most `digits` decimals and no trailing zeros.
fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::rule::Comparison;

    fn figures(unit: Unit, threshold: f64) -> Figures {
        let limit = Limit { comparison: Comparison::Above, threshold };
        Figures { unit, limit, hold: Duration::from_secs(300) }
    }

    #[test]
    fn one_wording_for_messages_and_for_grafana() {
        let template = Template::parse(
            "{{ $labels.daemon }} uses {{ value }}, limit {{ threshold }} for {{for}}",
        )
        .unwrap();
        let labels = Labels::from([("daemon".to_owned(), "ccxt".to_owned())]);
        let figures = figures(Unit::Bytes, 8e8);
        assert_eq!(
            template.render(&labels, 912_300_000.0, &figures),
            "ccxt uses 912.3MB, limit 800MB for 5m"
        );
        assert_eq!(
            template.grafana(&figures),
            "{{ $labels.daemon }} uses {{ humanize $values.A.Value }}B, limit 800MB for 5m"
        );
        assert_eq!(template.labels().collect::<Vec<_>>(), ["daemon"]);
    }

    #[test]
    fn a_label_is_text_and_never_a_template_again() {
        let template = Template::parse("{{ $labels.daemon }}!").unwrap();
        let labels = Labels::from([("daemon".to_owned(), "{{ value }}".to_owned())]);
        assert_eq!(template.render(&labels, 1.0, &figures(Unit::Count, 1.0)), "{{ value }}!");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let unknown = |text: &str| Template::parse(text).unwrap_err();
        assert_eq!(unknown("{{ valeu }}"), TemplateError::Unknown("valeu".to_owned()));
        assert_eq!(unknown("{{ $labels.a b }}"), TemplateError::Unknown("$labels.a b".to_owned()));
        assert_eq!(unknown("a {{ value"), TemplateError::Braces("a {{ value".to_owned()));
        assert_eq!(unknown("value }} b"), TemplateError::Braces("value }} b".to_owned()));
    }

    #[test]
    fn figures_read_as_people_write_them() {
        let cases = [
            (Unit::Seconds, 75.0, "1m 15s"),
            (Unit::Seconds, 0.25, "0.2s"),
            (Unit::Seconds, 0.0, "0s"),
            (Unit::Seconds, -3.0, "-3s"),
            (Unit::Seconds, 90_061.0, "1d 1h 1m 1s"),
            (Unit::Bytes, 5e9, "5GB"),
            (Unit::Bytes, 999.0, "999B"),
            (Unit::Ratio, 0.05, "5%"),
            (Unit::Ratio, 0.123_456, "12.35%"),
            (Unit::Milliseconds, 512.4, "512 ms"),
            (Unit::PerMinute, 10.0, "10 per minute"),
            (Unit::Gaps, 3.0, "3 times"),
            (Unit::Count, 20.0, "20"),
            (Unit::Number, 1.005, "1.00"),
            (Unit::Count, f64::NAN, "unknown"),
        ];
        for (unit, value, expected) in cases {
            assert_eq!(figure(unit, value), expected, "{unit:?} {value}");
        }
    }
}

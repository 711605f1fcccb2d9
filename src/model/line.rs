//! Influx line protocol (text) → rows of the declared tables, strictly: what does not fit is refused
//! with its line and reason, never guessed.
//!
//! `table,tag=value,… column=value,… [timestamp]`, one row a line. Values: `1i` LONG, `1.5` DOUBLE,
//! `t`/`f` BOOLEAN, `"text"` VARCHAR or SYMBOL, `1t` (microseconds) or `1n` (nanoseconds) TIMESTAMP.
//! A backslash takes the next character as it is. Source: `QuestDB`'s and `InfluxDB`'s references.

use std::str::Chars;

use super::row::{Row, Value};
use super::table::{self, Column, Kind, TABLES, Table};
use crate::base::time::Timestamp;

/// Unit of the timestamps at the ends of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Nanoseconds, the default.
    #[default]
    Nanos,
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
}

impl Precision {
    /// Parses the `precision` parameter of `POST /write`: `n`, `ns`, `u`, `us`, `ms`, `s`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "n" | "ns" => Some(Self::Nanos),
            "u" | "us" => Some(Self::Micros),
            "ms" => Some(Self::Millis),
            "s" => Some(Self::Seconds),
            _ => None,
        }
    }

    const fn time(self, count: i64) -> Timestamp {
        match self {
            Self::Nanos => Timestamp::from_nanos(count),
            Self::Micros => Timestamp::from_micros(count),
            Self::Millis => Timestamp::from_millis(count),
            Self::Seconds => Timestamp::from_millis(count.saturating_mul(1_000)),
        }
    }
}

/// What lines may leave out.
#[derive(Debug, Clone, Copy)]
pub struct Defaults<'a> {
    /// Tag `host` of rows without one.
    pub host: &'a str,
    /// Tag `env` of rows without one.
    pub env: &'a str,
    /// Time of rows without one.
    pub now: Timestamp,
    /// Unit of the timestamps.
    pub precision: Precision,
}

/// Why a line is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong and, where it can be told, what would be right.
    pub reason: String,
}

/// Rows and the numbers of the lines that they came from, in step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lines {
    /// The rows.
    pub rows: Vec<Row>,
    /// Number of each row's line, from 1.
    pub numbers: Vec<usize>,
}

/// Errors listed for one text; a client with the wrong table has one in every line.
const MAX_ERRORS: usize = 20;

/// Parses every line of `text`, or says what is wrong with each bad one (at most 20).
///
/// # Errors
/// Any bad line: then no row of the text may be stored, so that a client can repeat it whole.
pub fn parse(text: &[u8], defaults: &Defaults<'_>) -> Result<Lines, Vec<LineError>> {
    let mut lines = Lines::default();
    let mut errors = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(|byte| *byte == b' ') || line.starts_with(b"#") {
            continue;
        }
        let parsed = std::str::from_utf8(line)
            .map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))
            .and_then(|line| parse_line(line, defaults));
        match parsed {
            Ok(row) => {
                lines.rows.push(row);
                lines.numbers.push(index + 1);
            }
            Err(reason) => errors.push(LineError { line: index + 1, reason }),
        }
        if errors.len() == MAX_ERRORS {
            break;
        }
    }
    if errors.is_empty() { Ok(lines) } else { Err(errors) }
}

fn parse_line(line: &str, defaults: &Defaults<'_>) -> Result<Row, String> {
    let mut rest = line.trim_start_matches(' ').chars();
    let (name, mut end) = word(&mut rest, &[',', ' '])?;
    let table =
        table::find(&name).ok_or_else(|| unknown("table", &name, TABLES.map(|t| t.name)))?;
    let mut row = Row::new(table, defaults.now);
    while end == Some(',') {
        let (tag, separator) = word(&mut rest, &['=', ',', ' '])?;
        if separator != Some('=') {
            return Err(format!("tag {tag:?} has no value"));
        }
        let (value, next) = word(&mut rest, &[',', ' '])?;
        set(&mut row, table, &tag, Field::Text(value))?;
        end = next;
    }
    let mut end = match end {
        Some(' ') => Some(','),
        Some(_) | None => {
            return Err("no column: expected `table,tag=value column=value`".to_owned());
        }
    };
    while end == Some(',') {
        let (column, separator) = word(&mut rest, &['=', ',', ' '])?;
        if separator != Some('=') {
            return Err(format!("column {column:?} has no value"));
        }
        let (field, next) = field(&mut rest)?;
        set(&mut row, table, &column, field)?;
        end = next;
    }
    let time = rest.as_str().trim_matches(' ');
    if !time.is_empty() {
        let count =
            time.parse().map_err(|_| format!("{time:?} is no timestamp (a whole number)"))?;
        row.at = defaults.precision.time(count);
    }
    for (tag, value) in [("host", defaults.host), ("env", defaults.env)] {
        if *row.get(tag) == Value::Null {
            row.set(tag, value.into());
        }
    }
    match table.keys().find(|key| *row.get(key.name) == Value::Null) {
        Some(missing) => {
            Err(format!("{} needs the tag {}: {}", table.name, missing.name, missing.doc))
        }
        None => Ok(row),
    }
}

/// Reads up to one of `ends` or the end of the line; returns the text and which end it was.
fn word(rest: &mut Chars<'_>, ends: &[char]) -> Result<(String, Option<char>), String> {
    let mut text = String::new();
    while let Some(c) = rest.next() {
        match c {
            '\\' => text.push(rest.next().ok_or("the line ends after a backslash")?),
            c if ends.contains(&c) => return nonempty(text, Some(c)),
            c => text.push(c),
        }
    }
    nonempty(text, None)
}

fn nonempty(text: String, end: Option<char>) -> Result<(String, Option<char>), String> {
    if text.is_empty() { Err("a name or value is empty".to_owned()) } else { Ok((text, end)) }
}

/// A value as written.
enum Field {
    Text(String),
    Number(String),
}

fn field(rest: &mut Chars<'_>) -> Result<(Field, Option<char>), String> {
    if !rest.as_str().starts_with('"') {
        let (text, end) = word(rest, &[',', ' '])?;
        return Ok((Field::Number(text), end));
    }
    rest.next();
    let mut text = String::new();
    loop {
        match rest.next().ok_or("a text has no closing quote")? {
            '\\' => text.push(rest.next().ok_or("the line ends after a backslash")?),
            '"' => break,
            c => text.push(c),
        }
    }
    match rest.next() {
        end @ (Some(',' | ' ') | None) => Ok((Field::Text(text), end)),
        Some(c) => Err(format!("{c:?} after the closing quote")),
    }
}

fn set(row: &mut Row, table: &'static Table, name: &str, field: Field) -> Result<(), String> {
    let column = table
        .column(name)
        .ok_or_else(|| unknown("column", name, table.columns.iter().map(|column| column.name)))?;
    if *row.get(name) != Value::Null {
        return Err(format!("{name} stands twice"));
    }
    let value = match field {
        Field::Text(text) if matches!(column.kind, Kind::Symbol | Kind::Varchar) => text.into(),
        Field::Text(text) => return Err(mismatch(column, &format!("{text:?}"))),
        Field::Number(text) => number(column, &text).ok_or_else(|| mismatch(column, &text))?,
    };
    row.set(column.name, value);
    Ok(())
}

/// Reads `text` as a value of `column`; `None` when it is none.
fn number(column: &Column, text: &str) -> Option<Value> {
    let suffixed = |suffix: char| text.strip_suffix(suffix)?.parse::<i64>().ok();
    match column.kind {
        Kind::Boolean => match text {
            "t" | "T" | "true" | "True" | "TRUE" => Some(true.into()),
            "f" | "F" | "false" | "False" | "FALSE" => Some(false.into()),
            _ => None,
        },
        Kind::Long => suffixed('i').map(Value::Long),
        Kind::Double => {
            // A whole number in a column of floats loses nothing that the column could hold.
            let digits = text.strip_suffix('i').unwrap_or(text);
            digits.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Double)
        }
        Kind::Timestamp => suffixed('t')
            .map(Timestamp::from_micros)
            .or_else(|| suffixed('n').map(Timestamp::from_nanos))
            .map(Value::Time),
        Kind::Symbol | Kind::Varchar => None,
    }
}

fn mismatch(column: &Column, text: &str) -> String {
    let example = match column.kind {
        Kind::Symbol | Kind::Varchar => "\"text\"",
        Kind::Boolean => "t or f",
        Kind::Long => "42i",
        Kind::Double => "1.5, finite",
        Kind::Timestamp => "1700000000000000t (microseconds)",
    };
    format!("{} is {} ({example}), not {text}", column.name, column.kind.sql())
}

fn unknown(what: &str, name: &str, known: impl IntoIterator<Item = &'static str>) -> String {
    let near =
        known.into_iter().min_by_key(|candidate| strsim::damerau_levenshtein(candidate, name));
    format!("no {what} {name:?}: did you mean {:?}?", near.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::PIPELINE_METRICS;

    const DEFAULTS: Defaults<'static> = Defaults {
        host: "h",
        env: "dev",
        now: Timestamp::from_nanos(7),
        precision: Precision::Nanos,
    };

    fn reasons(text: &str) -> Vec<String> {
        parse(text.as_bytes(), &DEFAULTS).unwrap_err().iter().map(ToString::to_string).collect()
    }

    const GOOD: &str = "pipeline_metrics,exchange=x,symbol=a\\ b\\,c,data_type=oi,daemon=d records_count=5i,latency_ms=2i,gap_detected=t 1700000000000000000";

    #[test]
    fn reads_tags_columns_and_time() {
        let text = format!("# comment\n\n{GOOD}\r\n");
        let lines = parse(text.as_bytes(), &DEFAULTS).unwrap();
        let expected =
            Row::new(&PIPELINE_METRICS, Timestamp::from_nanos(1_700_000_000_000_000_000))
                .with("exchange", "x")
                .with("symbol", "a b,c")
                .with("data_type", "oi")
                .with("daemon", "d")
                .with("host", "h")
                .with("env", "dev")
                .with("records_count", 5_i64)
                .with("latency_ms", 2.0)
                .with("gap_detected", true);
        assert_eq!((lines.rows, lines.numbers), (vec![expected], vec![3]));
    }

    #[test]
    fn texts_may_hold_quotes_spaces_and_commas() {
        let text = "daemon_metrics,daemon=d,host=other last_error=\"say \\\"no\\\", a=b\\\\\",last_fetch_time=5t";
        let rows = parse(text.as_bytes(), &DEFAULTS).unwrap().rows;
        assert_eq!(*rows[0].get("last_error"), Value::from("say \"no\", a=b\\"));
        assert_eq!(*rows[0].get("last_fetch_time"), Timestamp::from_micros(5).into());
        assert_eq!(*rows[0].get("host"), Value::from("other"));
        assert_eq!(rows[0].at, DEFAULTS.now);
    }

    #[test]
    fn every_bad_line_is_named_with_its_reason() {
        let bad = [
            "pipeline_metric,a=b c=1i",
            "daemon_metrics,daemon=d",
            "daemon_metrics,daemon=d fetch_cuont=1i",
            "daemon_metrics,daemon=d fetch_count=1.5",
            "daemon_metrics,daemon=d fetch_count=99999999999999999999i",
            "daemon_metrics,daemon=d uptime_seconds=inf",
            "daemon_metrics,daemon=d running=yes",
            "daemon_metrics,daemon=d last_error=\"open",
            "daemon_metrics,daemon=d last_error=\"a\"b",
            "daemon_metrics,daemon=d fetch_count=1i yesterday",
            "daemon_metrics,daemon= fetch_count=1i",
            "daemon_metrics fetch_count=1i",
            "daemon_metrics,daemon=d fetch_count=1i,fetch_count=2i",
            "daemon_metrics,daemon=d fetch_count",
            "daemon_metrics,daemon=d fetch_count=1i\\",
        ];
        let reasons = reasons(&format!("{GOOD}\n{}", bad.join("\n")));
        assert_eq!(
            reasons,
            [
                "line 2: no table \"pipeline_metric\": did you mean \"pipeline_metrics\"?",
                "line 3: no column: expected `table,tag=value column=value`",
                "line 4: no column \"fetch_cuont\": did you mean \"fetch_count\"?",
                "line 5: fetch_count is LONG (42i), not 1.5",
                "line 6: fetch_count is LONG (42i), not 99999999999999999999i",
                "line 7: uptime_seconds is DOUBLE (1.5, finite), not inf",
                "line 8: running is BOOLEAN (t or f), not yes",
                "line 9: a text has no closing quote",
                "line 10: 'b' after the closing quote",
                "line 11: \"yesterday\" is no timestamp (a whole number)",
                "line 12: a name or value is empty",
                "line 13: daemon_metrics needs the tag daemon: name of the daemon, 1 to 255 characters",
                "line 14: fetch_count stands twice",
                "line 15: column \"fetch_count\" has no value",
                "line 16: the line ends after a backslash",
            ]
        );
        let many = "nonsense\n".repeat(100);
        assert_eq!(parse(many.as_bytes(), &DEFAULTS).unwrap_err().len(), MAX_ERRORS);
        assert_eq!(
            parse(b"daemon_metrics,daemon=\xff a=1", &DEFAULTS).unwrap_err()[0].reason,
            "not UTF-8 at byte 22"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _either = parse(&bytes, &DEFAULTS);
        }

        #[test]
        fn no_damaged_line_panics(at in 0..GOOD.len(), with in proptest::char::any()) {
            let mut text: String = GOOD.chars().take(at).collect();
            text.push(with);
            text.extend(GOOD.chars().skip(at + 1));
            let _either = parse(text.as_bytes(), &DEFAULTS);
        }
    }
}

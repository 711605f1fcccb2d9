//! Reading one TOML table key by key: types, units, columns; every mistake becomes a problem with
//! its place, unknown keys among them.

use std::time::Duration;

use super::condition::{Function, Literal, Match};
use super::problem::{Problem, one_of};
use super::rule::{Absence, Category, Comparison, Level, Severity, Signal, Unit};
use super::text::Template;
use crate::model::table::{Column, Kind, Table};

/// A value with a fixed set of words.
pub trait Word: Copy + 'static {
    /// The word.
    fn word_of(self) -> &'static str;
}

macro_rules! word_of {
    ($($name:ty),*) => {$(
        impl Word for $name {
            fn word_of(self) -> &'static str { self.word() }
        }
    )*};
}
word_of!(Absence, Category, Comparison, Function, Level, Severity, Signal, Unit);

/// Returns the words of `all`.
pub fn words_of<T: Word>(all: &[T]) -> Vec<&'static str> {
    all.iter().map(|value| value.word_of()).collect()
}

/// Reads a table key by key and remembers which keys were read.
#[derive(Debug)]
pub struct Fields<'a> {
    /// The table.
    pub table: &'a toml::Table,
    /// Its place.
    pub path: String,
    pub(super) used: Vec<&'static str>,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl<'a> Fields<'a> {
    /// Starts to read `table`, which is at `path`.
    pub const fn new(table: &'a toml::Table, path: String, problems: &'a mut Vec<Problem>) -> Self {
        Self { table, path, used: Vec::new(), problems }
    }

    /// Reports keys that nobody asked for.
    pub fn finish(self) {
        for key in self.table.keys().filter(|key| !self.used.contains(&key.as_str())) {
            self.problems.push(Problem::new(
                format!("{}.{key}", self.path),
                "is not a key that is used here",
                one_of(key, self.used.iter().copied()),
            ));
        }
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a toml::Value> {
        self.used.push(key);
        self.table.get(key)
    }

    pub(super) fn problem(
        &mut self,
        key: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.problems.push(Problem::new(format!("{}.{key}", self.path), message, hint));
    }

    pub(super) fn wrong(&mut self, key: &str, value: &toml::Value, wanted: &str) {
        self.problem(
            key,
            format!("{value} has the type {}", value.type_str()),
            format!("write {wanted}"),
        );
    }

    pub(super) fn missing(&mut self, key: &str) {
        self.problem(key, "is missing", "add it");
    }

    /// A text that may be missing.
    pub fn optional_text(&mut self, key: &'static str) -> Option<String> {
        let value = self.take(key)?;
        match value.as_str() {
            Some(text) => Some(text.to_owned()),
            None => {
                self.wrong(key, value, "a text");
                None
            }
        }
    }

    /// A text that must be there.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        if !self.table.contains_key(key) {
            self.used.push(key);
            self.missing(key);
            return None;
        }
        self.optional_text(key)
    }

    /// A list of texts that must be there.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let Some(value) = self.take(key) else {
            self.missing(key);
            return None;
        };
        self.list(key, value)
    }

    /// A list of texts that may be missing.
    pub(super) fn optional_texts(&mut self, key: &'static str) -> Vec<String> {
        let value = self.take(key);
        value.and_then(|value| self.list(key, value)).unwrap_or_default()
    }

    fn list(&mut self, key: &'static str, value: &toml::Value) -> Option<Vec<String>> {
        let texts = value.as_array().and_then(|list| {
            list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        if texts.is_none() {
            self.wrong(key, value, "a list of texts");
        }
        texts
    }

    /// A number that may be missing.
    pub fn number(&mut self, key: &'static str) -> Option<f64> {
        let value = self.take(key)?;
        let number = match value {
            toml::Value::Float(number) => Some(*number),
            // 53 bits are enough for any threshold; the text is the shortest way there.
            toml::Value::Integer(number) => number.to_string().parse().ok(),
            toml::Value::String(_)
            | toml::Value::Boolean(_)
            | toml::Value::Datetime(_)
            | toml::Value::Array(_)
            | toml::Value::Table(_) => None,
        };
        if number.is_none() {
            self.wrong(key, value, "a number");
        }
        number
    }

    pub(super) fn whole(&mut self, key: &str, number: f64) -> Option<u32> {
        let whole = format!("{number}").parse().ok().filter(|whole| *whole >= 1);
        if whole.is_none() {
            self.problem(key, format!("{number} is no count"), "use a whole number from 1 on");
        }
        whole
    }

    /// A boolean that may be missing.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let value = self.take(key)?;
        if value.as_bool().is_none() {
            self.wrong(key, value, "true or false");
        }
        value.as_bool()
    }

    /// A duration that may be missing.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let value = self.take(key)?;
        let duration = value.as_str().and_then(parse_duration);
        if duration.is_none() {
            self.problem(key, format!("{value} is no duration"), "write \"30s\", \"5m\" or \"1h\"");
        }
        duration
    }

    /// One of a set of words; may be missing.
    pub fn word<T>(
        &mut self,
        key: &'static str,
        from_word: fn(&str) -> Option<T>,
        known: &[&'static str],
    ) -> Option<T> {
        let word = self.optional_text(key)?;
        let value = from_word(&word);
        if value.is_none() {
            let hint = one_of(&word, known.iter().copied());
            self.problem(key, format!("{word:?} is not known"), hint);
        }
        value
    }

    pub(super) fn template(&mut self, key: &'static str) -> Option<Template> {
        let text = self.optional_text(key)?;
        match Template::parse(&text) {
            Ok(template) => Some(template),
            Err(error) => {
                let hint = "use {{ $labels.NAME }}, {{ value }}, {{ threshold }} or {{ for }}";
                self.problem(key, error.to_string(), hint);
                None
            }
        }
    }

    pub(super) fn find(
        &mut self,
        table: &'static Table,
        key: &str,
        name: &str,
    ) -> Option<&'static Column> {
        let column = table.column(name);
        if column.is_none() {
            let known: Vec<_> = table.columns.iter().map(|column| column.name).collect();
            let message = format!("{} has no column {name:?}", table.name);
            self.problem(key, message, one_of(name, known));
        }
        column
    }

    pub(super) fn column(
        &mut self,
        key: &'static str,
        table: &'static Table,
        kinds: &[Kind],
    ) -> Option<&'static Column> {
        let name = self.text(key)?;
        let column = self.find(table, key, &name)?;
        if kinds.contains(&column.kind) {
            return Some(column);
        }
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.sql()).collect();
        let message = format!("{name} is a {} column", column.kind.sql());
        self.problem(key, message, format!("name a {} column", kinds.join(" or ")));
        None
    }

    /// `{ column = value, … }`; empty when missing.
    pub(super) fn matches(
        &mut self,
        key: &'static str,
        table: &'static Table,
    ) -> Option<Vec<Match>> {
        let Some(value) = self.take(key) else { return Some(Vec::new()) };
        let Some(pairs) = value.as_table() else {
            self.wrong(key, value, "a table like { running = true }");
            return None;
        };
        let mut all = Some(Vec::new());
        for (name, value) in pairs {
            let one = self.find(table, key, name).and_then(|column| self.one(key, column, value));
            all = all.zip(one).map(|(mut list, one)| {
                list.push(one);
                list
            });
        }
        all
    }

    fn one(&mut self, key: &str, column: &'static Column, value: &toml::Value) -> Option<Match> {
        let literal = match (column.kind, value) {
            (Kind::Boolean, toml::Value::Boolean(value)) => Some(Literal::Bool(*value)),
            (Kind::Symbol | Kind::Varchar, toml::Value::String(text)) if harmless(text) => {
                Some(Literal::Text(text.clone()))
            }
            _ => None,
        };
        if literal.is_none() {
            let message = format!("{} cannot be {value}", column.name);
            let hint = "compare BOOLEAN columns with true or false, text columns with plain words";
            self.problem(key, message, hint);
        }
        literal.map(|value| Match { column, value })
    }
}

/// Whether `text` needs no escaping in SQL.
fn harmless(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_ .:/-".contains(c))
}

/// Parses `500ms`, `30s`, `5m`, `1h`, `1d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

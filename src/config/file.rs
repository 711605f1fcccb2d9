//! TOML as written: a tree in which every value knows its line. Nothing is judged here except the
//! syntax.

use std::ops::Range;

use toml_edit::{Document, Item, Value as TomlValue};

use super::check::{Place, Problems};

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text of the environment or of `--set`: it becomes what its key asks for.
    Word(String),
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Date or time.
    Time,
    List(Vec<Entry>),
    Table(Table),
}

impl Value {
    /// Returns the text, if it is text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Text(text) => Some(text),
            Self::Integer(_)
            | Self::Float(_)
            | Self::Boolean(_)
            | Self::Time
            | Self::List(_)
            | Self::Table(_) => None,
        }
    }

    /// Returns what kind of value it is, for messages: "a number".
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Word(_) | Self::Text(_) => "text",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Time => "a time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Keys and values in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Table(pub(super) Vec<(String, Entry)>);

impl Table {
    /// Returns the entry of `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, entry)| entry)
    }

    /// Returns the entry of `key`; one that is missing is made of `new`.
    pub(super) fn entry(&mut self, key: &str, new: impl FnOnce() -> Entry) -> &mut Entry {
        let index = self.0.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
            self.0.push((key.to_owned(), new()));
            self.0.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
        &mut self.0[index].1
    }
}

/// Reads the bytes of the file called `name`. A syntax error gives an empty table.
pub(super) fn parse(name: &str, bytes: &[u8], problems: &mut Problems) -> Table {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            let place = Place::Line { name: name.to_owned(), line, column: None };
            problems.error(&place, "", "not UTF-8", Some("save the file as UTF-8".to_owned()));
            return Table::default();
        }
    };
    let lines = Lines { name, text };
    match Document::parse(text) {
        Ok(document) => lines.table(document.as_table().iter().map(|(key, item)| {
            let span = document.as_table().key(key).and_then(toml_edit::Key::span);
            (key, item, span)
        })),
        Err(error) => {
            let place = lines.position(error.span());
            let message = error.message().trim().replace('\n', ", ");
            problems.error(&place, "", format!("no valid TOML: {message}"), None);
            Table::default()
        }
    }
}

/// Reads `text` as one TOML value written at `place`; `None` when it is none.
pub(super) fn parse_value(text: &str, place: &Place) -> Option<Value> {
    let value: TomlValue = text.parse().ok()?;
    let mut entry = Lines { name: "", text: "" }.value(&value, None);
    relocate(&mut entry, place);
    Some(entry.value)
}

fn relocate(entry: &mut Entry, place: &Place) {
    entry.place = place.clone();
    match &mut entry.value {
        Value::List(entries) => entries.iter_mut().for_each(|entry| relocate(entry, place)),
        Value::Table(table) => table.0.iter_mut().for_each(|(_, entry)| relocate(entry, place)),
        Value::Word(_)
        | Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Time => {}
    }
}

/// The text that spans point into.
struct Lines<'a> {
    name: &'a str,
    text: &'a str,
}

impl Lines<'_> {
    fn table<'t>(
        &self,
        items: impl Iterator<Item = (&'t str, &'t Item, Option<Range<usize>>)>,
    ) -> Table {
        Table(items.map(|(key, item, span)| (key.to_owned(), self.item(item, span))).collect())
    }

    fn item(&self, item: &Item, key: Option<Range<usize>>) -> Entry {
        match item {
            Item::None => Entry { place: self.line(key), value: Value::Table(Table::default()) },
            Item::Value(value) => self.value(value, key),
            Item::Table(table) => self.section(table, key),
            Item::ArrayOfTables(tables) => {
                let entries = tables.iter().map(|table| self.section(table, None)).collect();
                Entry { place: self.line(key), value: Value::List(entries) }
            }
        }
    }

    fn section(&self, table: &toml_edit::Table, key: Option<Range<usize>>) -> Entry {
        let place = self.line(table.span().or(key));
        let items = table.iter().map(|(key, item)| {
            let span = table.key(key).and_then(toml_edit::Key::span);
            (key, item, span)
        });
        Entry { place, value: Value::Table(self.table(items)) }
    }

    fn value(&self, value: &TomlValue, key: Option<Range<usize>>) -> Entry {
        let place = self.line(key.or_else(|| value.span()));
        let value = match value {
            TomlValue::String(text) => Value::Text(text.value().clone()),
            TomlValue::Integer(number) => Value::Integer(*number.value()),
            TomlValue::Float(number) => Value::Float(*number.value()),
            TomlValue::Boolean(flag) => Value::Boolean(*flag.value()),
            TomlValue::Datetime(_) => Value::Time,
            TomlValue::Array(array) => {
                Value::List(array.iter().map(|value| self.value(value, value.span())).collect())
            }
            TomlValue::InlineTable(table) => {
                let entries = table.iter().map(|(name, value)| {
                    let span = table.key(name).and_then(toml_edit::Key::span);
                    (name.to_owned(), self.value(value, span))
                });
                Value::Table(Table(entries.collect()))
            }
        };
        Entry { place, value }
    }

    fn line(&self, span: Option<Range<usize>>) -> Place {
        match self.position(span) {
            Place::Line { name, line, .. } => Place::Line { name, line, column: None },
            place @ (Place::File { .. }
            | Place::Environment { .. }
            | Place::Set
            | Place::Option { .. }
            | Place::Default) => place,
        }
    }

    fn position(&self, span: Option<Range<usize>>) -> Place {
        let name = self.name.to_owned();
        let Some(before) = span.and_then(|span| self.text.get(..span.start)) else {
            return Place::File { name };
        };
        let line = 1 + before.matches('\n').count();
        let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
        Place::Line { name, line, column: Some(column) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(line: usize) -> Place {
        Place::Line { name: "p.toml".to_owned(), line, column: None }
    }

    #[test]
    fn every_value_knows_its_line() {
        let text = "[a]\nb = 1\nc = { d = true }\ne.f = \"x\"\n\n[[g]]\nh = [\n 1,\n 2.5]\n[[g]]\n";
        let mut problems = Problems::default();
        let table = parse("p.toml", text.as_bytes(), &mut problems);
        assert_eq!(problems, Problems::default());
        let Value::Table(a) = &table.get("a").unwrap().value else { panic!("{table:?}") };
        assert_eq!(a.get("b"), Some(&Entry { place: line(2), value: Value::Integer(1) }));
        let Value::Table(e) = &a.get("e").unwrap().value else { panic!("{a:?}") };
        let text = Value::Text("x".to_owned());
        assert_eq!(e.get("f"), Some(&Entry { place: line(4), value: text }));
        let Value::List(g) = &table.get("g").unwrap().value else { panic!("{table:?}") };
        assert_eq!([&g[0].place, &g[1].place], [&line(6), &line(10)]);
        let Value::Table(first) = &g[0].value else { panic!("{g:?}") };
        let Value::List(h) = &first.get("h").unwrap().value else { panic!("{first:?}") };
        assert_eq!([&h[0].place, &h[1].place], [&line(8), &line(9)]);
    }

    #[test]
    fn byte_order_mark_and_crlf_are_no_problem() {
        let mut problems = Problems::default();
        let table = parse("p.toml", b"\xef\xbb\xbf[a]\r\nb = 1\r\n", &mut problems);
        assert_eq!(problems, Problems::default());
        let Value::Table(a) = &table.get("a").unwrap().value else { panic!("{table:?}") };
        assert_eq!(a.get("b"), Some(&Entry { place: line(2), value: Value::Integer(1) }));
    }

    #[test]
    fn syntax_errors_have_line_and_column() {
        let mut problems = Problems::default();
        parse("p.toml", b"[a]\nb = = 1\n", &mut problems);
        parse("p.toml", b"a = 1\nb = \"\xff\"\n", &mut problems);
        let places: Vec<String> = problems.all().iter().map(|p| p.place.to_string()).collect();
        assert_eq!(places, ["p.toml:2:5", "p.toml:2"]);
    }
}

//! Reads `[daemon.map]`. What can give no value is refused here, not found out by an empty column.

use serde_json::Value as Json;

use super::{Field, Form, Map, Origin, Path, RowKind, Rows, plain_columns};
use crate::config::check::{Problems, quoted};
use crate::config::file::{Entry, Value};
use crate::config::reader::{Section, wrong_kind};
use crate::config::values::Fault;
use crate::model::table::{Column, Kind};

/// The words of `type`.
const FORMS: [(&str, Form); 6] = [
    ("text", Form::Text),
    ("length", Form::Length),
    ("seconds", Form::Unix(1)),
    ("milliseconds", Form::Unix(1_000)),
    ("microseconds", Form::Unix(1_000_000)),
    ("nanoseconds", Form::Unix(1_000_000_000)),
];

/// Where a column stands: what it may refer to.
#[derive(Debug, Clone, Copy)]
enum Scope {
    Document,
    /// Within an entry whose selector has so many `*`.
    Entry(usize),
}

/// Reads a map.
pub(in crate::config) fn map(mut section: Section<'_>, problems: &mut Problems) -> Map {
    let mut map = Map::default();
    for column in plain_columns() {
        map.plain.extend(field(&mut section, column, Scope::Document, problems));
    }
    for kind in RowKind::ALL {
        for rows in row_sections(&mut section, kind, problems) {
            map.rows.extend(self::rows(rows, kind, problems).map(|rows| (kind, rows)));
        }
    }
    section.finish(problems);
    map
}

/// Returns the sections of one kind of rows: one table, or a list of them.
fn row_sections<'a>(
    section: &mut Section<'a>,
    kind: RowKind,
    problems: &mut Problems,
) -> Vec<Section<'a>> {
    let key = kind.key();
    match section.take(key).map(|entry| &entry.value) {
        None => Vec::new(),
        Some(Value::List(_)) => section.sections(key, problems),
        Some(
            Value::Word(_)
            | Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Time
            | Value::Table(_),
        ) => vec![section.section(key, problems)],
    }
}

fn rows(mut section: Section<'_>, kind: RowKind, problems: &mut Problems) -> Option<Rows> {
    section.know("rows");
    let select = match section.plain("rows") {
        // The document itself is one entry.
        None | Some("") => Path::default(),
        Some(_) => section.parsed("rows", |text| Path::parse(text, true), problems)?,
    };
    if section.has("rows") && section.plain("rows").is_none() {
        let hint = "write a JSON pointer: rows = \"/strategies/*\"";
        section.refuse("rows", "is no text", hint, problems);
    }
    let scope = Scope::Entry(select.any());
    let mut fields = Vec::new();
    for column in kind.columns() {
        fields.extend(field(&mut section, column, scope, problems));
    }
    for name in kind.required() {
        if !section.has(name) {
            let hint = format!("without {name} there is no row of {}", kind.table().name);
            section.refuse(name, "is missing", hint, problems);
        }
    }
    section.finish(problems);
    Some(Rows { select, fields })
}

/// Reads one column: a pointer, or a table that says more.
fn field(
    section: &mut Section<'_>,
    column: &'static Column,
    scope: Scope,
    problems: &mut Problems,
) -> Option<Field> {
    let entry = section.take(column.name)?;
    if let Value::Table(_) = entry.value {
        let section = section.section(column.name, problems);
        return detailed(section, column, scope, problems);
    }
    if entry.value.text().is_none() {
        let hint = format!(
            "write where it is, {0} = \"/a/pointer\", or {0} = {{ value = … }} for what never changes",
            column.name
        );
        section.refuse(column.name, wrong_kind(entry), hint, problems);
        return None;
    }
    let path = pointer(section, column.name, problems)?;
    Some(Field {
        column,
        origin: Origin::Entry(path),
        form: Form::Plain,
        age: false,
        equals: None,
        minus: None,
        scale: None,
        default: None,
    })
}

fn detailed(
    mut section: Section<'_>,
    column: &'static Column,
    scope: Scope,
    problems: &mut Problems,
) -> Option<Field> {
    let origin = origin(&mut section, scope, problems);
    let form = section.choice("type", &FORMS, problems).unwrap_or(Form::Plain);
    let age = section.boolean("age", problems).unwrap_or(false);
    let equals = scalar(&mut section, "equals", problems);
    let minus = pointer(&mut section, "minus", problems).map(|path| match origin {
        Some(Origin::Document(_)) => Origin::Document(path),
        Some(Origin::Entry(_) | Origin::Keys(_) | Origin::Constant(_)) | None => {
            Origin::Entry(path)
        }
    });
    let scale = number(&mut section, "scale", problems);
    let default = scalar(&mut section, "default", problems);
    let is_number = matches!(column.kind, Kind::Long | Kind::Double);
    let mut only = |key: &'static str, fits: bool, what: &str| {
        if section.has(key) && !fits {
            let message = format!("is for columns of {what} only");
            let hint = format!("{} is {}", column.name, words(column.kind));
            section.refuse(key, message, hint, problems);
        }
    };
    only("equals", column.kind == Kind::Boolean, "true or false");
    only("scale", is_number, "numbers");
    only("minus", is_number, "numbers");
    only("age", is_number, "numbers");
    match form {
        Form::Unix(_) => only("type", column.kind == Kind::Timestamp || age, "times"),
        Form::Length => only("type", is_number, "numbers"),
        Form::Text => only("type", is_number || column.kind == Kind::Boolean, "numbers"),
        Form::Plain => {}
    }
    section.finish(problems);
    Some(Field { column, origin: origin?, form, age, equals, minus, scale, default })
}

/// Reads the one key of four that says where the value is.
fn origin(section: &mut Section<'_>, scope: Scope, problems: &mut Problems) -> Option<Origin> {
    const KEYS: [&str; 4] = ["path", "document", "key", "value"];
    let written: Vec<&str> = KEYS.into_iter().filter(|key| section.has(key)).collect();
    KEYS.into_iter().for_each(|key| section.know(key));
    match written.as_slice() {
        [] => {
            let hint = "write path = \"/a/pointer\"";
            section.refuse("path", "is missing", hint, problems);
            None
        }
        [_, second, ..] => {
            let hint = "one of path, document, key and value says where the value is";
            section.refuse(second, "is one too many", hint, problems);
            None
        }
        ["path"] => pointer(section, "path", problems).map(Origin::Entry),
        ["document"] => pointer(section, "document", problems).map(Origin::Document),
        ["key"] => keys(section, scope, problems),
        [_value] => scalar(section, "value", problems).map(Origin::Constant),
    }
}

/// Reads a pointer; the empty one is the entry itself.
fn pointer(section: &mut Section<'_>, key: &'static str, problems: &mut Problems) -> Option<Path> {
    let entry = section.take(key)?;
    let Some(text) = entry.value.text() else {
        section.refuse(key, wrong_kind(entry), "write a JSON pointer: \"/a/pointer\"", problems);
        return None;
    };
    match Path::parse(text, false) {
        Ok(path) => Some(path),
        Err(Fault { message, hint }) => {
            section.refuse(key, format!("{} {message}", quoted(text)), hint, problems);
            None
        }
    }
}

/// Reads the number of a `*`, or a list of such numbers.
fn keys(section: &mut Section<'_>, scope: Scope, problems: &mut Problems) -> Option<Origin> {
    let most = match scope {
        Scope::Document => 0,
        Scope::Entry(any) => any,
    };
    if most == 0 {
        let hint = "a key is what a * in `rows` stands for: rows = \"/strategies/*\"";
        section.refuse("key", "has no * to stand for", hint, problems);
        return None;
    }
    let entry = section.take("key")?;
    let Value::List(entries) = &entry.value else {
        return section.integer("key", 1..=most, problems).map(|key| Origin::Keys(vec![key]));
    };
    let number = |entry: &Entry| match entry.value {
        Value::Integer(number) => {
            usize::try_from(number).ok().filter(|number| (1..=most).contains(number))
        }
        Value::Word(_)
        | Value::Text(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Time
        | Value::List(_)
        | Value::Table(_) => None,
    };
    let keys: Option<Vec<usize>> = entries.iter().map(number).collect();
    let keys = keys.filter(|keys| !keys.is_empty());
    if keys.is_none() {
        let hint = format!("write numbers of * in `rows`, from 1 to {most}: key = [1, {most}]");
        section.refuse("key", "is no list of such numbers", hint, problems);
    }
    keys.map(Origin::Keys)
}

/// Reads a text, a number, or true or false.
fn scalar(section: &mut Section<'_>, key: &'static str, problems: &mut Problems) -> Option<Json> {
    let entry = section.take(key)?;
    match &entry.value {
        Value::Word(text) | Value::Text(text) => Some(Json::from(text.as_str())),
        Value::Integer(number) => Some(Json::from(*number)),
        Value::Float(number) if number.is_finite() => Some(Json::from(*number)),
        Value::Boolean(flag) => Some(Json::from(*flag)),
        Value::Float(_) | Value::Time | Value::List(_) | Value::Table(_) => {
            let hint = "write a text, a number, or true or false";
            section.refuse(key, wrong_kind(entry), hint, problems);
            None
        }
    }
}

fn number(section: &mut Section<'_>, key: &'static str, problems: &mut Problems) -> Option<f64> {
    let value = scalar(section, key, problems)?;
    let number = value.as_f64().filter(|number| *number != 0.0);
    if number.is_none() {
        let message = format!("{} is no number to multiply with", quoted(&value.to_string()));
        section.refuse(key, message, "write a number other than 0: scale = 0.001", problems);
    }
    number
}

const fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Symbol | Kind::Varchar => "a text",
        Kind::Boolean => "true or false",
        Kind::Long => "a count",
        Kind::Double => "a number",
        Kind::Timestamp => "a time",
    }
}

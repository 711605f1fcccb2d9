//! Reads keys out of one section of the tree: type, range and spelling are checked here, and a key
//! that nobody asked for is a problem. So the known keys are the keys that are read, no list apart.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::check::{Place, Problems, quoted, suggestion};
use super::file::{Entry, Table, Value};
use super::values::{self, Fault};

/// One section, or one entry of `[[daemon]]`.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// TOML path; empty for the whole file.
    path: String,
    /// Where it begins.
    place: Place,
    table: Option<&'a Table>,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a Table, place: Place) -> Self {
        Self { path: String::new(), place, table: Some(table), asked: Vec::new() }
    }

    /// Returns the section called `key`, empty when it is missing.
    pub(super) fn section(&mut self, key: &'static str, problems: &mut Problems) -> Self {
        let path = self.path_of(key);
        let (place, table) = match self.take(key) {
            None => (self.place.clone(), None),
            Some(Entry { place, value: Value::Table(table) }) => (place.clone(), Some(table)),
            Some(entry) => {
                let hint = Some(format!("write [{}]", without_indices(&path)));
                problems.error(&entry.place, path.as_str(), wrong_kind(entry), hint);
                (entry.place.clone(), None)
            }
        };
        Self { path, place, table, asked: Vec::new() }
    }

    /// Returns the section called `key`, where any key is allowed; empty when it is no table.
    pub(super) fn named(&self, key: &str) -> Self {
        let table = match self.table.and_then(|table| table.get(key)).map(|entry| &entry.value) {
            Some(Value::Table(table)) => Some(table),
            Some(_) | None => None,
        };
        let (path, place) = (self.path_of(key), self.place_of(key).clone());
        Self { path, place, table, asked: Vec::new() }
    }

    /// Returns the sections of the list called `key` (`[[key]]`).
    pub(super) fn sections(&mut self, key: &'static str, problems: &mut Problems) -> Vec<Self> {
        let path = self.path_of(key);
        let Some(entry) = self.take(key) else { return Vec::new() };
        let hint = || Some(format!("write [[{path}]]"));
        let Value::List(entries) = &entry.value else {
            problems.error(&entry.place, path.as_str(), wrong_kind(entry), hint());
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let place = entry.place.clone();
            if let Value::Table(table) = &entry.value {
                sections.push(Self { path, place, table: Some(table), asked: Vec::new() });
            } else {
                problems.error(&place, path, wrong_kind(entry), hint());
            }
        }
        sections
    }

    /// Returns the entry of `key` as written and remembers that the key is known.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.asked.push(key);
        self.table?.get(key)
    }

    /// Remembers that `key` is known, without reading it.
    pub(super) fn know(&mut self, key: &'static str) {
        self.asked.push(key);
    }

    /// Returns `key` if it is plain text.
    pub(super) fn plain(&self, key: &str) -> Option<&'a str> {
        self.table?.get(key)?.value.text()
    }

    /// Whether `key` is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.get(key).is_some())
    }

    /// Whether the section is written anywhere.
    pub(super) const fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Returns every key as written.
    pub(super) fn entries(&self) -> &'a [(String, Entry)] {
        self.table.map_or(&[], |table| table.0.as_slice())
    }

    /// TOML path of the section.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where the section begins.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// TOML path of `key`.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Where `key` is written; the section's place when it is not.
    pub(super) fn place_of(&self, key: &str) -> &Place {
        self.table.and_then(|table| table.get(key)).map_or(&self.place, |entry| &entry.place)
    }

    /// Reports what is wrong with the value of `key`.
    pub(super) fn refuse(
        &self,
        key: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
        problems: &mut Problems,
    ) {
        problems.error(self.place_of(key), self.path_of(key), message, Some(hint.into()));
    }

    /// Whether `user` and `password` are both written or both not; reports one without the other.
    pub(super) fn has_whole_login(&self, problems: &mut Problems) -> bool {
        let (there, missing) = match (self.has("user"), self.has("password")) {
            (true, false) => ("user", "password"),
            (false, true) => ("password", "user"),
            (true, true) | (false, false) => return true,
        };
        self.refuse(there, format!("there is no {missing}"), "set both or none", problems);
        false
    }

    /// Reads text; it must not be empty.
    pub(super) fn text(&mut self, key: &'static str, problems: &mut Problems) -> Option<String> {
        let entry = self.take(key)?;
        let Some(text) = entry.value.text() else {
            self.refuse(key, wrong_kind(entry), "write text in quotes", problems);
            return None;
        };
        if text.trim().is_empty() {
            self.refuse(key, "is empty", "write a value, or leave the key out", problems);
            return None;
        }
        Some(text.to_owned())
    }

    /// Reads text and turns it into a value with `parse`.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(key, problems)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(Fault { message, hint }) => {
                self.refuse(key, format!("{} {message}", quoted(&text)), hint, problems);
                None
            }
        }
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let parse = |text: &str| match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(*value),
            None => Err(Fault {
                message: "is not allowed".to_owned(),
                hint: suggestion(text, names.iter().copied()),
            }),
        };
        self.parsed(key, parse, problems)
    }

    /// Reads a duration within `range`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        problems: &mut Problems,
    ) -> Option<Duration> {
        self.refuse_bare_number(key, "duration", "write text with a unit: \"5s\"", problems)?;
        let parse = |text: &str| {
            let value = values::duration(text)?;
            within(value, &range, ["short", "long"], values::show_duration)
        };
        self.parsed(key, parse, problems)
    }

    /// Reads a size in bytes within `range`.
    pub(super) fn size(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        problems: &mut Problems,
    ) -> Option<u64> {
        self.refuse_bare_number(key, "size", "write text with a unit: \"256MB\"", problems)?;
        let parse = |text: &str| {
            let value = values::size(text)?;
            within(value, &range, ["small", "large"], values::show_size)
        };
        self.parsed(key, parse, problems)
    }

    /// `None` when the key is missing or holds a number without a unit, which is reported.
    fn refuse_bare_number(
        &mut self,
        key: &'static str,
        what: &str,
        hint: &str,
        problems: &mut Problems,
    ) -> Option<()> {
        let entry = self.take(key)?;
        let Value::Integer(number) = &entry.value else { return Some(()) };
        self.refuse(key, format!("{number} has no unit and is no {what}"), hint, problems);
        None
    }

    /// Reads a whole number within `range`.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<usize>,
        problems: &mut Problems,
    ) -> Option<usize> {
        let entry = self.take(key)?;
        let (message, number) = match &entry.value {
            Value::Integer(number) => {
                (format!("{number} is not allowed"), usize::try_from(*number).ok())
            }
            Value::Word(text) => {
                (format!("{} is not allowed", quoted(text)), text.trim().parse().ok())
            }
            Value::Text(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Time
            | Value::List(_)
            | Value::Table(_) => (wrong_kind(entry), None),
        };
        let valid = number.filter(|number| range.contains(number));
        if valid.is_none() {
            let hint = format!("write a whole number from {} to {}", range.start(), range.end());
            self.refuse(key, message, hint, problems);
        }
        valid
    }

    /// Reads a whole number that may be negative.
    pub(super) fn signed(&mut self, key: &'static str, problems: &mut Problems) -> Option<i64> {
        let entry = self.take(key)?;
        let number = if let Value::Integer(number) = &entry.value {
            Some(*number)
        } else if let Value::Word(text) = &entry.value {
            text.trim().parse().ok()
        } else {
            None
        };
        if number.is_none() {
            self.refuse(key, wrong_kind(entry), "write a whole number without quotes", problems);
        }
        number
    }

    /// Reads true or false.
    pub(super) fn boolean(&mut self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        let entry = self.take(key)?;
        let flag = if let Value::Word(text) = &entry.value {
            text.trim().parse().ok()
        } else if let Value::Boolean(flag) = &entry.value {
            Some(*flag)
        } else {
            None
        };
        if flag.is_none() {
            self.refuse(key, wrong_kind(entry), "write true or false, without quotes", problems);
        }
        flag
    }

    /// Reads a list of texts; one text with commas in the environment or `--set`.
    pub(super) fn texts(&mut self, key: &'static str, problems: &mut Problems) -> Vec<String> {
        const HINT: &str = "write a list of texts, such as [\"a\", \"b\"]";
        let Some(entry) = self.take(key) else { return Vec::new() };
        if let Value::Word(text) = &entry.value {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            return parts.map(str::to_owned).collect();
        }
        let Value::List(entries) = &entry.value else {
            self.refuse(key, wrong_kind(entry), HINT, problems);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match entry.value.text() {
                Some(text) => texts.push(text.to_owned()),
                None => {
                    let path = format!("{}[{index}]", self.path_of(key));
                    problems.error(&entry.place, path, wrong_kind(entry), Some(HINT.to_owned()));
                }
            }
        }
        texts
    }

    /// Reads a path that exists; relative to `folders` by where it was written.
    pub(super) fn path_buf(
        &mut self,
        key: &'static str,
        folders: &Folders,
        must_be_folder: bool,
        problems: &mut Problems,
    ) -> Option<PathBuf> {
        let text = self.text(key, problems)?;
        let path = folders.of(self.place_of(key)).join(&text);
        let (right, hint) = if must_be_folder {
            (path.is_dir(), format!("there is no folder {}", path.display()))
        } else {
            (path.exists(), format!("there is no file {}", path.display()))
        };
        if !right {
            self.refuse(key, format!("{} does not exist", quoted(&text)), hint, problems);
            return None;
        }
        Some(path)
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(self, problems: &mut Problems) {
        for (key, entry) in self.entries() {
            if !self.asked.contains(&key.as_str()) {
                let what = if self.path.is_empty() { "unknown section" } else { "unknown key" };
                let mut known = self.asked.clone();
                known.sort_unstable();
                known.dedup();
                let hint = suggestion(key, known);
                problems.error(&entry.place, self.path_of(key), what, Some(hint));
            }
        }
    }
}

/// Returns a path as its section is headed in the file: `daemon[1].map` is under `[daemon.map]`.
fn without_indices(path: &str) -> String {
    let parts = path.split('.').map(|part| part.split('[').next().unwrap_or_default());
    parts.collect::<Vec<_>>().join(".")
}

/// What relative paths are relative to.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    /// Paths in the file: the folder of the file.
    pub(super) file: PathBuf,
    /// Paths in the environment and the command line: the current folder.
    pub(super) current: PathBuf,
}

impl Folders {
    /// Returns the folder for a path that is written at `place`.
    pub(super) fn of(&self, place: &Place) -> &std::path::Path {
        match place {
            Place::File { .. } | Place::Line { .. } => &self.file,
            Place::Environment { .. } | Place::Set | Place::Option { .. } | Place::Default => {
                &self.current
            }
        }
    }
}

/// Holds `value` against `range`; `words` are what it is too much of below and above.
fn within<T: PartialOrd + Copy>(
    value: T,
    range: &RangeInclusive<T>,
    words: [&str; 2],
    show: impl Fn(T) -> String,
) -> Result<T, Fault> {
    let [below, above] = words;
    let (word, limit, most) = if value < *range.start() {
        (below, range.start(), "least")
    } else if value > *range.end() {
        (above, range.end(), "most")
    } else {
        return Ok(value);
    };
    let hint = format!("use at {most} \"{}\"", show(*limit));
    Err(Fault { message: format!("is too {word}"), hint })
}

/// Says what stands in place of the right kind of value. Text is not shown: it may be a secret.
pub(super) fn wrong_kind(entry: &Entry) -> String {
    if let Value::Integer(number) = &entry.value {
        return format!("{number} is a number");
    }
    format!("is {}", entry.value.kind())
}

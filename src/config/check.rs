//! What is wrong with a configuration: place, path, message and hint. Problems are collected, never
//! thrown one by one.

use std::fmt;

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file as a whole.
    File {
        /// Its name, as it was found.
        name: String,
    },
    /// A line of a file, the first being 1.
    Line {
        /// Name of the file, as it was found.
        name: String,
        /// Line.
        line: usize,
        /// Column in characters, the first being 1; set for syntax errors only.
        column: Option<usize>,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// `--set`.
    Set,
    /// Another command-line option.
    Option {
        /// Its name, with the dashes.
        name: &'static str,
    },
    /// Nowhere: the value is a default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name } => f.write_str(name),
            Self::Line { name, line, column: None } => write!(f, "{name}:{line}"),
            Self::Line { name, line, column: Some(column) } => write!(f, "{name}:{line}:{column}"),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::Set => f.write_str("--set"),
            Self::Option { name } => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Whether a problem stops the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can, but not as its author may think.
    Warning,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the program.
    pub severity: Severity,
    /// Where the setting was written.
    pub place: Place,
    /// TOML path, such as `daemon[2].interval`; empty for a file that cannot be read.
    pub path: String,
    /// What is wrong, with the value unless it may be a secret.
    pub message: String,
    /// The next step: a near name, the allowed values, an example.
    pub hint: Option<String>,
}

/// `PLACE: PATH: MESSAGE`, and the hint on a line of its own.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match self.severity {
            Severity::Error => {}
            Severity::Warning => f.write_str("warning: ")?,
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n    {hint}"),
            None => Ok(()),
        }
    }
}

/// Every problem of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems {
    all: Vec<Problem>,
}

impl Problems {
    /// Adds an error.
    pub(super) fn error(
        &mut self,
        place: &Place,
        path: impl Into<String>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.add(Severity::Error, place, path.into(), message.into(), hint);
    }

    /// Adds a warning.
    pub(super) fn warn(
        &mut self,
        place: &Place,
        path: impl Into<String>,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.add(Severity::Warning, place, path.into(), message.into(), hint);
    }

    fn add(
        &mut self,
        severity: Severity,
        place: &Place,
        path: String,
        message: String,
        hint: Option<String>,
    ) {
        self.all.push(Problem { severity, place: place.clone(), path, message, hint });
    }

    /// Returns the problems, errors and warnings mixed.
    pub fn all(&self) -> &[Problem] {
        &self.all
    }

    /// Whether at least one problem stops the program.
    pub fn has_errors(&self) -> bool {
        self.all.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Puts the problems of the file first, by line.
    pub(super) fn sort(&mut self) {
        self.all.sort_by_key(|problem| match &problem.place {
            Place::Option { .. } => (0, 0),
            Place::File { .. } => (1, 0),
            Place::Line { line, .. } => (1, *line),
            Place::Environment { .. } => (2, 0),
            Place::Set => (3, 0),
            Place::Default => (4, 0),
        });
    }

    /// Takes the problems out.
    pub(super) fn into_all(self) -> Vec<Problem> {
        self.all
    }
}

/// One problem after the other, errors first.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for severity in [Severity::Error, Severity::Warning] {
            for problem in self.all.iter().filter(|problem| problem.severity == severity) {
                if !first {
                    f.write_str("\n")?;
                }
                first = false;
                write!(f, "{problem}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Returns `did you mean "…"?` for the name of `known` that is nearest to `written`, or else the
/// list of all.
pub(super) fn suggestion<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = written.to_lowercase();
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&lower, name), *name))
        // Below this, words share little more than their first letter.
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, name)) => format!("did you mean \"{name}\"?"),
        None => format!("known: {}", known.join(", ")),
    }
}

/// Returns `text` in quotes, control characters escaped, cut after 80 characters.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(SHOWN).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_strange_one_gets_the_list() {
        let known = ["interval", "timeout", "url"];
        assert_eq!(suggestion("intervall", known), "did you mean \"interval\"?");
        assert_eq!(suggestion("TIMEOUT", known), "did you mean \"timeout\"?");
        assert_eq!(suggestion("zzz", known), "known: interval, timeout, url");
    }

    #[test]
    fn errors_come_before_warnings_and_control_characters_are_escaped() {
        let mut problems = Problems::default();
        problems.warn(&Place::Set, "a", "odd", None);
        let place = Place::Line { name: "p.toml".to_owned(), line: 3, column: None };
        problems.error(&place, "b.c", format!("{} is bad", quoted("\u{1b}[31m")), None);
        assert_eq!(
            problems.to_string(),
            "p.toml:3: b.c: \"\\u{1b}[31m\" is bad\n--set: warning: a: odd"
        );
        assert_eq!(quoted(&"x".repeat(90)).chars().count(), 83);
    }
}

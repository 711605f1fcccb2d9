//! Text inside YAML and INI: quoted, so that nothing a user writes becomes syntax.

use std::path::Path;

/// Something that cannot stand in Grafana's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// Grafana's INI and its `$__file{…}` know no way to escape these.
    #[error(
        "write the path {path:?} into Grafana's files: it holds {character:?}; use another data folder"
    )]
    Path {
        /// The path.
        path: String,
        /// What it must not hold.
        character: char,
    },
    /// A path that is no UTF-8, or relative.
    #[error("write the path {0:?} into Grafana's files: it is not absolute, or not UTF-8")]
    NoPath(String),
    /// A control character in a value.
    #[error("write {what} into Grafana's files: it holds a control character")]
    Control {
        /// Which value.
        what: &'static str,
    },
    /// An empty value; Grafana ends with an error on one.
    #[error("write {what} into Grafana's files: it is empty")]
    Empty {
        /// Which value.
        what: &'static str,
    },
}

/// Returns `value` as a double-quoted YAML scalar that Grafana does not expand: `$` is doubled.
///
/// # Errors
/// An empty value or a control character.
pub fn quoted(what: &'static str, value: &str) -> Result<String, Unwritable> {
    check(what, value)?;
    // JSON's strings are YAML's double-quoted scalars.
    Ok(serde_json::Value::from(value.replace('$', "$$")).to_string())
}

/// Returns `value` as a value of an INI file, quoted where it would be cut at a comment.
///
/// # Errors
/// An empty value, a control character, or one that INI or Grafana's expansion would act on.
pub fn ini_value(what: &'static str, value: &str) -> Result<String, Unwritable> {
    check(what, value)?;
    let active = |c: char| matches!(c, '"' | '`' | '\\' | '$' | '%');
    if let Some(character) = value.chars().find(|c| active(*c)) {
        return Err(Unwritable::Path { path: value.to_owned(), character });
    }
    let cut = value.contains(['#', ';', '\'']) || value.trim() != value;
    Ok(if cut { format!("`{value}`") } else { value.to_owned() })
}

fn check(what: &'static str, value: &str) -> Result<(), Unwritable> {
    if value.trim().is_empty() {
        return Err(Unwritable::Empty { what });
    }
    if value.chars().any(char::is_control) {
        return Err(Unwritable::Control { what });
    }
    Ok(())
}

/// Returns an absolute path that stands for itself in YAML, INI and `$__file{…}`.
///
/// # Errors
/// A relative path, one that is no UTF-8, or one with a character that any of them acts on.
pub fn plain_path(path: &Path) -> Result<String, Unwritable> {
    let Some(text) = path.to_str().filter(|_| path.is_absolute()) else {
        return Err(Unwritable::NoPath(path.display().to_string()));
    };
    let active = |c: char| {
        c.is_control() || matches!(c, '"' | '\'' | '`' | '\\' | '$' | '%' | '#' | ';' | '{' | '}')
    };
    match text.chars().find(|c| active(*c)) {
        Some(character) => Err(Unwritable::Path { path: text.to_owned(), character }),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_never_becomes_syntax_or_an_expansion() {
        assert_eq!(quoted("x", "a: $B #c").unwrap(), r#""a: $$B #c""#);
        assert_eq!(quoted("x", r#"quote " and \"#).unwrap(), r#""quote \" and \\""#);
        assert_eq!(quoted("x", " "), Err(Unwritable::Empty { what: "x" }));
        assert_eq!(quoted("x", "a\nb: c"), Err(Unwritable::Control { what: "x" }));
        assert_eq!(ini_value("x", "a;b#c").unwrap(), "`a;b#c`");
        assert_eq!(ini_value("x", "127.0.0.1").unwrap(), "127.0.0.1");
        assert!(ini_value("x", "$__env{HOME}").is_err());
        assert!(ini_value("x", "a\n[security]").is_err());
    }

    #[test]
    fn a_path_stands_for_itself_or_is_refused() {
        assert_eq!(plain_path(Path::new("/var/lib/a b")).unwrap(), "/var/lib/a b");
        assert!(matches!(plain_path(Path::new("data")), Err(Unwritable::NoPath(_))));
        for bad in ["/a$b", "/a}b", "/a#b", "/a\"b", "/a\nb", "/a%b"] {
            assert!(matches!(plain_path(Path::new(bad)), Err(Unwritable::Path { .. })), "{bad:?}");
        }
    }
}

//! The little YAML that Grafana's files need: block mappings and lists in the given order, every
//! text in double quotes or, over several lines, as a literal block. No text can become a number,
//! a boolean or a reference by accident.
//!
//! Own code, because the YAML crates are either unmaintained or bring a translated C library into
//! the binary, and none of them lets the caller say how a text is quoted.

use std::fmt::Write as _;

/// A YAML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Text.
    Text(String),
    /// Whole number.
    Int(i64),
    /// Number; must be finite.
    Number(f64),
    /// true or false.
    Bool(bool),
    /// List.
    List(Vec<Self>),
    /// Mapping with plain keys, in this order.
    Map(Vec<(&'static str, Self)>),
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Node {
    /// Returns the same value as JSON.
    pub fn json(&self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Self::Text(text) => text.clone().into(),
            Self::Int(number) => (*number).into(),
            Self::Number(number) => (*number).into(),
            Self::Bool(value) => (*value).into(),
            Self::List(items) => items.iter().map(Self::json).collect(),
            Self::Map(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.json()));
                Value::Object(pairs.collect())
            }
        }
    }
}

/// Returns `node` as a document, with `comment` on top.
pub fn document(comment: &str, node: &Node) -> String {
    let mut text = String::new();
    for line in comment.lines() {
        text.push_str("# ");
        text.push_str(line);
        text.push('\n');
    }
    write_block(&mut text, node, 0, false);
    text
}

/// Writes `node` at `depth`; `inline` when the line has been begun by a list's dash.
fn write_block(out: &mut String, node: &Node, depth: usize, inline: bool) {
    let mut begun = inline;
    let mut begin = |out: &mut String| {
        if !std::mem::replace(&mut begun, false) {
            out.push_str(&"  ".repeat(depth));
        }
    };
    match node {
        Node::Map(pairs) if !pairs.is_empty() => {
            for (key, value) in pairs {
                begin(out);
                out.push_str(key);
                out.push(':');
                write_value(out, value, depth);
            }
        }
        Node::List(items) if !items.is_empty() => {
            for item in items {
                begin(out);
                out.push_str("- ");
                write_block(out, item, depth + 1, true);
            }
        }
        Node::Map(_)
        | Node::List(_)
        | Node::Text(_)
        | Node::Int(_)
        | Node::Number(_)
        | Node::Bool(_) => {
            begin(out);
            out.push_str(&scalar(node, depth));
            out.push('\n');
        }
    }
}

/// Writes what follows `key:`.
fn write_value(out: &mut String, value: &Node, depth: usize) {
    match value {
        Node::Map(pairs) if !pairs.is_empty() => {
            out.push('\n');
            write_block(out, value, depth + 1, false);
        }
        Node::List(items) if !items.is_empty() => {
            out.push('\n');
            write_block(out, value, depth + 1, false);
        }
        Node::Map(_)
        | Node::List(_)
        | Node::Text(_)
        | Node::Int(_)
        | Node::Number(_)
        | Node::Bool(_) => {
            out.push(' ');
            out.push_str(&scalar(value, depth + 1));
            out.push('\n');
        }
    }
}

fn scalar(node: &Node, depth: usize) -> String {
    match node {
        Node::Text(text) if fits_block(text) => {
            let mut block = "|-".to_owned();
            for line in text.lines() {
                block.push('\n');
                if !line.is_empty() {
                    block.push_str(&"  ".repeat(depth));
                    block.push_str(line);
                }
            }
            block
        }
        Node::Text(text) => quoted(text),
        Node::Int(number) => number.to_string(),
        Node::Number(number) => number.to_string(),
        Node::Bool(value) => value.to_string(),
        Node::List(_) => "[]".to_owned(),
        Node::Map(_) => "{}".to_owned(),
    }
}

/// Whether a literal block holds `text` unchanged: several lines of printable ASCII, the first
/// neither empty nor indented, no spaces at the ends of lines, no line break at the end.
fn fits_block(text: &str) -> bool {
    let printable = text.chars().all(|c| c == '\n' || (' '..='~').contains(&c));
    printable
        && text.contains('\n')
        && !text.starts_with([' ', '\n'])
        && !text.ends_with('\n')
        && text.split('\n').all(|line| !line.ends_with(' '))
}

/// Returns `text` in double quotes, everything escaped that is not printable.
fn quoted(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ignored = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            ' '..='~' => write!(out, "{c}"),
            c if u32::from(c) > 0xffff => write!(out, "\\U{:08x}", u32::from(c)),
            c if c.is_alphanumeric() => write!(out, "{c}"),
            c => write!(out, "\\u{:04x}", u32::from(c)),
        };
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> serde_yaml_ng::Value {
        serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn reads_well() {
        let node = Node::Map(vec![
            ("apiVersion", Node::Int(1)),
            ("empty", Node::List(Vec::new())),
            (
                "groups",
                Node::List(vec![
                    Node::Map(vec![
                        ("name", "a: \"b\"".into()),
                        ("sql", "SELECT 1\n\nFROM t".into()),
                        ("on", Node::Bool(true)),
                        ("list", Node::List(vec![Node::Number(0.05), Node::Number(8e8)])),
                    ]),
                    Node::List(vec!["x".into()]),
                ]),
            ),
        ]);
        let expected = "\
# made
apiVersion: 1
empty: []
groups:
  - name: \"a: \\\"b\\\"\"
    sql: |-
      SELECT 1

      FROM t
    on: true
    list:
      - 0.05
      - 800000000
  - - \"x\"
";
        assert_eq!(document("made", &node), expected);
        let back = read(expected);
        assert_eq!(back["groups"][0]["sql"], "SELECT 1\n\nFROM t");
        assert_eq!(back["groups"][1][0], "x");
    }

    proptest! {
        /// Any text comes back as it was, wherever it stands.
        #[test]
        fn any_text_comes_back(text in any::<String>(), lines in "[ -~\n]{0,40}") {
            for text in [text, lines] {
                let node = Node::Map(vec![
                    ("a", Node::Text(text.clone())),
                    ("b", Node::List(vec![
                        Node::Text(text.clone()),
                        Node::Map(vec![("c", Node::Text(text.clone())), ("d", Node::Bool(true))]),
                    ])),
                ]);
                let back = read(&document("", &node));
                prop_assert_eq!(back["a"].as_str(), Some(text.as_str()));
                prop_assert_eq!(back["b"][0].as_str(), Some(text.as_str()));
                prop_assert_eq!(back["b"][1]["c"].as_str(), Some(text.as_str()));
                prop_assert_eq!(back["b"][1]["d"].as_bool(), Some(true));
            }
        }
    }
}

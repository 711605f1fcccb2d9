//! A JSON pointer (RFC 6901) in which `*` stands for every entry of an object or list.

use std::fmt;

use serde_json::Value;

use crate::config::values::Fault;

/// One step down into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The entry of this name, or of this index.
    Name(String),
    /// Every entry.
    Any,
}

/// Steps from the top of a document; none of them is the document itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// Reads a pointer; `*` is a step like any other unless `has_any`.
    pub(super) fn parse(text: &str, has_any: bool) -> Result<Self, Fault> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let Some(steps) = text.strip_prefix('/') else {
            return Err(Fault {
                message: "does not begin with a /".to_owned(),
                hint: format!("write a JSON pointer: \"/{text}\""),
            });
        };
        let step = |step: &str| {
            if has_any && step == "*" {
                return Step::Any;
            }
            Step::Name(step.replace("~1", "/").replace("~0", "~"))
        };
        Ok(Self(steps.split('/').map(step).collect()))
    }

    /// Number of steps that stand for every entry.
    pub(super) fn any(&self) -> usize {
        self.0.iter().filter(|step| **step == Step::Any).count()
    }

    /// Returns the value at this path; none where a step is [`Step::Any`].
    pub fn get<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(document, |value, step| match step {
            Step::Name(name) => entry(value, name),
            Step::Any => None,
        })
    }

    /// Returns every value at this path with the keys or indices that its `*` stand for.
    pub fn all<'a>(&self, document: &'a Value) -> Vec<(Vec<String>, &'a Value)> {
        let mut found = vec![(Vec::new(), document)];
        for step in &self.0 {
            found = found
                .into_iter()
                .flat_map(|(keys, value)| match step {
                    Step::Name(name) => {
                        entry(value, name).map(|entry| (keys, entry)).into_iter().collect()
                    }
                    Step::Any => entries(&keys, value),
                })
                .collect();
        }
        found
    }
}

fn entry<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn entries<'a>(keys: &[String], value: &'a Value) -> Vec<(Vec<String>, &'a Value)> {
    let with = |key: String| keys.iter().cloned().chain([key]).collect();
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (with(name.clone()), value)).collect()
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, value)| (with(index.to_string()), value))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Name(name) => {
                write!(f, "/{}", name.replace('~', "~0").replace('/', "~1"))
            }
            Step::Any => f.write_str("/*"),
        })
    }
}

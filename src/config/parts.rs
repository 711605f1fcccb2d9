//! `[daemon.parts]`: a status that takes several requests, each a part of one document.

use super::check::Problems;
use super::file::Value;
use super::reader::{Section, wrong_kind};
use super::values::Fault;

/// Most requests of one poll.
const MOST: usize = 16;

/// What a daemon is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ask {
    /// Body of a POST; `None` asks with GET.
    pub body: Option<String>,
}

/// One request of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name in the document.
    pub name: String,
    /// Path and query, put behind the URL of the daemon.
    pub path: String,
    /// How it is asked for.
    pub ask: Ask,
    /// Whether the document may lack it.
    pub optional: bool,
}

/// Reads `method` and `body`.
pub(super) fn ask(section: &mut Section<'_>, problems: &mut Problems) -> Ask {
    let methods = [("GET", false), ("POST", true)];
    let post = section.choice("method", &methods, problems);
    let body = section.text("body", problems);
    match (post, body) {
        (Some(false), Some(_)) | (None, Some(_)) => {
            section.refuse("body", "is for method = \"POST\" only", "add the method", problems);
            Ask::default()
        }
        (Some(true), body) => Ask { body: Some(body.unwrap_or_default()) },
        (Some(false) | None, None) => Ask::default(),
    }
}

/// Reads the parts; their names are the section's keys.
pub(super) fn parts(section: Section<'_>, problems: &mut Problems) -> Vec<Part> {
    let entries = section.entries();
    if entries.len() > MOST {
        let (message, hint) =
            (format!("has {} entries", entries.len()), format!("use at most {MOST}"));
        problems.error(section.place(), section.path(), message, Some(hint));
        return Vec::new();
    }
    let mut parts = Vec::new();
    for (name, entry) in entries {
        match &entry.value {
            Value::Table(_) => parts.extend(detailed(section.named(name), name, problems)),
            Value::Word(text) | Value::Text(text) => match request(text) {
                Ok(path) => parts.push(Part {
                    name: name.clone(),
                    path,
                    ask: Ask::default(),
                    optional: false,
                }),
                Err(Fault { message, hint }) => {
                    let message = format!("\"{text}\" {message}");
                    problems.error(&entry.place, section.path_of(name), message, Some(hint));
                }
            },
            Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Time
            | Value::List(_) => {
                let hint = format!("write {name} = \"/api/{name}\"");
                problems.error(&entry.place, section.path_of(name), wrong_kind(entry), Some(hint));
            }
        }
    }
    parts
}

fn detailed(mut section: Section<'_>, name: &str, problems: &mut Problems) -> Option<Part> {
    if !section.has("path") {
        let hint = format!("write path = \"/api/{name}\"");
        section.refuse("path", "is missing", hint, problems);
    }
    let path = section.parsed("path", request, problems);
    let ask = ask(&mut section, problems);
    let optional = section.boolean("optional", problems).unwrap_or(false);
    section.finish(problems);
    Some(Part { name: name.to_owned(), path: path?, ask, optional })
}

/// Reads the path of a request: `/status?short=1`.
pub(super) fn request(text: &str) -> Result<String, Fault> {
    let valid = text.starts_with('/') && text.parse::<hyper::Uri>().is_ok();
    let fault = || Fault {
        message: "is no path of a request".to_owned(),
        hint: "write a path such as \"/status\"".to_owned(),
    };
    valid.then(|| text.to_owned()).ok_or_else(fault)
}

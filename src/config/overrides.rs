//! Environment variables and `--set` into the tree: later sources replace earlier ones, key by key.

use std::collections::BTreeMap;

use super::check::{Place, Problems, quoted};
use super::file::{Entry, Table, Value, parse_value};

/// What every variable that is a setting begins with.
const PREFIX: &str = "PERISCOPE_";

/// One part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    /// Index into a list, the first being 0.
    Index(usize),
}

/// Puts `PERISCOPE_SECTION__KEY=value` of `environment` into `tree`.
///
/// Other variables with the prefix are not settings (`PERISCOPE_CONFIG`); one that begins with the
/// name of a section gets a warning, since the second underscore is easily forgotten.
pub(super) fn apply_environment(
    tree: &mut Table,
    environment: &BTreeMap<String, String>,
    sections: &[&str],
    problems: &mut Problems,
) {
    for (variable, value) in environment {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        let name = name.to_lowercase();
        let place = Place::Environment { variable: variable.clone() };
        if !name.contains("__") {
            let section = sections.iter().find(|section| {
                name.strip_prefix(**section).is_some_and(|rest| rest.starts_with('_'))
            });
            if let Some(section) = section {
                let key = name.get(section.len() + 1..).unwrap_or_default().to_uppercase();
                let section = section.to_uppercase();
                let hint = format!("did you mean {PREFIX}{section}__{key}?");
                problems.warn(&place, "", "has no effect", Some(hint));
            }
            continue;
        }
        let steps: Vec<Step> = name.split("__").map(step).collect();
        if steps.contains(&Step::Key(String::new())) {
            let hint = format!("write {PREFIX}QUESTDB__HTTP_PORT for questdb.http_port");
            problems.error(&place, "", "names no key", Some(hint));
            continue;
        }
        put(tree, &steps, word(value, &place), &place, problems);
    }
}

/// Puts each `key.path=value` of `--set` into `tree`.
pub(super) fn apply_set(tree: &mut Table, settings: &[String], problems: &mut Problems) {
    const HINT: &str = "write --set questdb.http_port=9001";
    for setting in settings {
        let place = Place::Set;
        let Some((path, value)) = setting.split_once('=') else {
            let message = format!("{} has no =", quoted(setting));
            problems.error(&place, "", message, Some(HINT.to_owned()));
            continue;
        };
        // `daemon[0].url` and `daemon.0.url` are the same.
        let plain = path.trim().replace('[', ".").replace(']', "");
        let steps: Vec<Step> = plain.split('.').map(|part| step(part.trim())).collect();
        if steps.contains(&Step::Key(String::new())) {
            let message = format!("{} is no path of a key", quoted(path));
            problems.error(&place, "", message, Some(HINT.to_owned()));
            continue;
        }
        let value = unquoted(value.trim(), &place);
        put(tree, &steps, value, &place, problems);
    }
}

fn step(part: &str) -> Step {
    match part.parse() {
        Ok(index) => Step::Index(index),
        Err(_) => Step::Key(part.to_owned()),
    }
}

/// A list or table in TOML becomes one; all other text stays text until its key is known.
fn word(text: &str, place: &Place) -> Value {
    let structured = text.starts_with(['[', '{']);
    let parsed = if structured { parse_value(text, place) } else { None };
    parsed.unwrap_or_else(|| Value::Word(text.to_owned()))
}

/// As [`word`]; text in TOML quotes loses them, since people copy lines of the file.
fn unquoted(text: &str, place: &Place) -> Value {
    let parsed = if text.starts_with(['"', '\'']) { parse_value(text, place) } else { None };
    match parsed {
        Some(Value::Text(text)) => Value::Word(text),
        Some(_) | None => word(text, place),
    }
}

fn put(tree: &mut Table, steps: &[Step], value: Value, place: &Place, problems: &mut Problems) {
    let path = show(steps);
    let Some((Step::Key(first), rest)) = steps.split_first() else {
        problems.error(place, path, "begins with a number", None);
        return;
    };
    let mut entry = tree.entry(first, || empty(rest.first(), place));
    for (depth, step) in rest.iter().enumerate() {
        let next = rest.get(depth + 1);
        let parent = show(steps.get(..=depth).unwrap_or_default());
        entry = match (step, &mut entry.value) {
            (Step::Key(key), Value::Table(table)) => table.entry(key, || empty(next, place)),
            (Step::Index(index), Value::List(list)) => {
                let length = list.len();
                if *index == length {
                    list.push(empty(next, place));
                }
                match list.get_mut(*index) {
                    Some(entry) => entry,
                    None => {
                        let message = format!("there is no entry {index}, only {length}");
                        problems.error(place, path, message, Some("the first is 0".to_owned()));
                        return;
                    }
                }
            }
            (Step::Index(_), Value::Table(_)) => {
                let hint = "write the name of a key".to_owned();
                problems.error(place, path, format!("{parent} is no list"), Some(hint));
                return;
            }
            (Step::Key(key), Value::List(_)) => {
                let hint = format!("write {parent}[0].{key}");
                problems.error(place, path, format!("{parent} is a list"), Some(hint));
                return;
            }
            (Step::Key(_) | Step::Index(_), other) => {
                problems.error(place, path, format!("{parent} is {}", other.kind()), None);
                return;
            }
        };
    }
    *entry = Entry { place: place.clone(), value };
}

/// Returns what a path that goes on with `next` needs at this point.
fn empty(next: Option<&Step>, place: &Place) -> Entry {
    let value = match next {
        Some(Step::Index(_)) => Value::List(Vec::new()),
        Some(Step::Key(_)) | None => Value::Table(Table::default()),
    };
    Entry { place: place.clone(), value }
}

fn show(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) if path.is_empty() => path.push_str(key),
            Step::Key(key) => {
                path.push('.');
                path.push_str(key);
            }
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn applied(text: &str, environment: &[(&str, &str)], set: &[&str]) -> (Table, Problems) {
        let mut problems = Problems::default();
        let mut tree = file::parse("p.toml", text.as_bytes(), &mut problems);
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        apply_environment(&mut tree, &environment.collect(), &["questdb"], &mut problems);
        let set: Vec<String> = set.iter().map(|setting| (*setting).to_owned()).collect();
        apply_set(&mut tree, &set, &mut problems);
        (tree, problems)
    }

    fn at<'a>(tree: &'a Table, section: &str, key: &str) -> &'a Entry {
        let Value::Table(table) = &tree.get(section).unwrap().value else { panic!("{tree:?}") };
        table.get(key).unwrap()
    }

    #[test]
    fn the_environment_replaces_the_file_and_set_replaces_both() {
        let file = "[questdb]\nmemory = \"1GB\"\nmode = \"managed\"\nversion = \"9.3.4\"\n";
        let environment = [("PERISCOPE_QUESTDB__MEMORY", "2GB"), ("PERISCOPE_QUESTDB__MODE", "m")];
        let (tree, problems) = applied(file, &environment, &["questdb.memory='3GB'"]);
        assert_eq!(problems, Problems::default());
        assert_eq!(at(&tree, "questdb", "memory").place, Place::Set);
        assert_eq!(at(&tree, "questdb", "memory").value, Value::Word("3GB".to_owned()));
        assert_eq!(at(&tree, "questdb", "mode").value, Value::Word("m".to_owned()));
        assert_eq!(at(&tree, "questdb", "version").value, Value::Text("9.3.4".to_owned()));
    }

    #[test]
    fn entries_of_lists_are_reached_by_number() {
        let environment = [("PERISCOPE_DAEMON__0__URL", "b")];
        let set = ["daemon[1].name=c", "listen.allowed_hosts=[\"x\", \"y\"]"];
        let (tree, problems) = applied("[[daemon]]\nname = \"a\"\n", &environment, &set);
        assert_eq!(problems, Problems::default());
        let Value::List(daemons) = &tree.get("daemon").unwrap().value else { panic!("{tree:?}") };
        let [Value::Table(first), Value::Table(second)] = [&daemons[0].value, &daemons[1].value]
        else {
            panic!("{daemons:?}")
        };
        assert_eq!(first.get("name").unwrap().value, Value::Text("a".to_owned()));
        assert_eq!(first.get("url").unwrap().value, Value::Word("b".to_owned()));
        assert_eq!(second.get("name").unwrap().value, Value::Word("c".to_owned()));
        let Value::List(hosts) = &at(&tree, "listen", "allowed_hosts").value else {
            panic!("{tree:?}")
        };
        assert_eq!(hosts.len(), 2);
    }

    #[test]
    fn paths_that_lead_nowhere_are_problems() {
        let environment = [("PERISCOPE_QUESTDB____X", "1"), ("PERISCOPE_QUESTDB_HTTP_PORT", "1")];
        let set = ["nothing", "=1", "daemon[3].name=x", "daemon.name=x", "questdb[0]=x", "a.b.c=1"];
        let file = "a = { b = 1 }\n[questdb]\n[[daemon]]\n";
        let (_, problems) = applied(file, &environment, &set);
        insta::assert_snapshot!(problems, @r#"
        environment PERISCOPE_QUESTDB____X: names no key
            write PERISCOPE_QUESTDB__HTTP_PORT for questdb.http_port
        --set: "nothing" has no =
            write --set questdb.http_port=9001
        --set: "" is no path of a key
            write --set questdb.http_port=9001
        --set: daemon[3].name: there is no entry 3, only 1
            the first is 0
        --set: daemon.name: daemon is a list
            write daemon[0].name
        --set: questdb[0]: questdb is no list
            write the name of a key
        --set: a.b.c: a.b is a number
        environment PERISCOPE_QUESTDB_HTTP_PORT: warning: has no effect
            did you mean PERISCOPE_QUESTDB__HTTP_PORT?
        "#);
    }

    #[test]
    fn variables_that_are_no_settings_are_left_alone() {
        let environment = [("PERISCOPE_CONFIG", "x"), ("PERISCOPE_INSTANCE", "y"), ("PATH", "z")];
        assert_eq!(applied("", &environment, &[]), (Table::default(), Problems::default()));
    }
}

//! Holds the direction of dependencies between the folders of `src/`: every allowed edge is listed
//! here, any other fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Folder (or file) of `src/` → what of `src/` it may use besides itself.
const ALLOWED: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("config", &["base", "model"]),
    ("model", &["base"]),
    ("rules", &["base", "config", "model"]),
    ("artifact", &["base", "config"]),
    ("supervise", &["artifact", "base", "config", "model"]),
    ("store", &["base", "config", "model"]),
    ("collect", &["base", "config", "model", "store"]),
    ("grafana", &["artifact", "base", "config", "model", "rules", "supervise"]),
    ("alert", &["base", "config", "model", "rules", "store", "grafana"]),
    // grafana: the viewer knows panels and their SQL, which stays on the server.
    ("web", &["base", "config", "grafana", "model", "rules", "store"]),
    ("bench", &["base", "cli", "collect", "config", "model", "store", "supervise"]),
    (
        "doctor",
        &[
            "alert",
            "artifact",
            "base",
            "cli",
            "collect",
            "config",
            "grafana",
            "model",
            "store",
            "supervise",
        ],
    ),
    (
        "cli",
        &[
            "alert",
            "app",
            "bench",
            "artifact",
            "base",
            "collect",
            "config",
            "doctor",
            "grafana",
            "model",
            "rules",
            "store",
            "supervise",
            "web",
        ],
    ),
    (
        "app",
        &[
            "alert",
            "artifact",
            "base",
            "cli",
            "collect",
            "config",
            "grafana",
            "model",
            "rules",
            "store",
            "supervise",
            "web",
        ],
    ),
];

/// Text that no file of a layer may hold, with the reason.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("model", &["tokio::", "hyper::", "std::fs", "std::net"], "model does no I/O"),
    ("rules", &["tokio::", "hyper::", "std::fs", "std::net"], "rules do no I/O"),
];

fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns every `name` that `text` mentions as `crate::name`, comments left out.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (index, _) in line.match_indices("crate::") {
            let rest = &line[index + "crate::".len()..];
            let rest = rest.trim_start_matches('{');
            let name = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap();
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn every_dependency_between_folders_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&root).unwrap();
        let first = relative.iter().next().unwrap().to_str().unwrap();
        let layer = first.trim_end_matches(".rs");
        // Tests of a layer may join it with those above, as the program does.
        if matches!(layer, "main" | "lib") || relative.ends_with("tests.rs") {
            continue;
        }
        let Some(allowed) = allowed.get(layer) else {
            wrong.push(format!("{}: folder {layer} is not in the list", relative.display()));
            continue;
        };
        let text = std::fs::read_to_string(file).unwrap();
        for used in uses(&text) {
            if used != layer && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: uses crate::{used}", relative.display()));
            }
        }
        for (folder, words, reason) in FORBIDDEN {
            for word in words.iter().filter(|_| *folder == layer) {
                if text.contains(word) {
                    wrong.push(format!("{}: {word} ({reason})", relative.display()));
                }
            }
        }
    }
    assert!(files.len() > 10, "found only {} files under {}", files.len(), root.display());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_search_for_uses_finds_them() {
    let text = "use crate::{base::time, x};\n// crate::app\nlet a = crate::store::queue::f();";
    assert_eq!(uses(text), BTreeSet::from(["base".to_owned(), "store".to_owned()]));
}

use super::*;
use crate::base::embed::Assets;
use crate::config::check::{Place, Problems};
use crate::config::file;
use crate::config::reader::Section;

fn read(text: &str) -> (Map, Problems) {
    let mut problems = Problems::default();
    let table = file::parse("p.toml", text.as_bytes(), &mut problems);
    let root = Section::root(&table, Place::File { name: "p.toml".to_owned() });
    let map = map(root, &mut problems);
    (map, problems)
}

#[test]
fn every_preset_is_valid_and_every_preset_file_is_one() {
    for (name, path) in PRESETS {
        let mut problems = Problems::default();
        let preset = Preset::load(path, &mut problems);
        assert_eq!(problems, Problems::default(), "{name}");
        assert_eq!(preset.parts.is_empty(), path.is_empty(), "{name}");
        let map = preset.map.unwrap_or_default();
        assert_eq!(map.plain.is_empty(), path.is_empty(), "{name}");
        // Every path begins with a part that is asked for.
        let rows = map.rows.iter().flat_map(|(_, rows)| &rows.fields);
        for field in map.plain.iter().chain(rows) {
            let Origin::Document(path) = &field.origin else { continue };
            let Some(Step::Name(first)) = path.0.first() else { panic!("{name}: {path}") };
            assert!(preset.parts.iter().any(|part| part.name == *first), "{name}: {path}");
        }
    }
    for file in Assets::iter().filter(|file| file.starts_with("presets/")) {
        assert!(PRESETS.iter().any(|(_, path)| *path == file), "{file} is no preset");
    }
}

#[test]
fn own_columns_and_rows_take_the_place_of_those_of_a_preset() {
    let mut problems = Problems::default();
    let preset = Preset::load("presets/freqtrade.toml", &mut problems);
    let before = preset.map.clone().unwrap();
    let (own, problems) = read(
        "running = \"/x\"\nfetch_count = \"/y\"\n\
         [[exchange_status]]\nrows = \"/z/*\"\nexchange = { key = 1 }\nconnected = \"\"\n",
    );
    assert_eq!(problems, Problems::default());
    let map = preset.with(Some(own)).unwrap();
    assert_eq!(map.plain.len(), before.plain.len() + 1);
    let running = map.plain.iter().find(|field| field.column.name == "running").unwrap();
    assert_eq!(running.origin, Origin::Entry(Path::parse("/x", false).unwrap_or_default()));
    let kinds: Vec<RowKind> = map.rows.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [RowKind::Trading, RowKind::Exchange]);
}

#[test]
fn the_columns_are_those_of_the_tables_less_what_is_periscopes_own() {
    let names: Vec<&str> = plain_columns().map(|column| column.name).collect();
    assert!(names.contains(&"memory_bytes") && names.contains(&"last_error"), "{names:?}");
    assert!(!names.contains(&"reachable") && !names.contains(&"host"), "{names:?}");
    for own in OWN {
        assert!(DAEMON_METRICS.column(own).is_some(), "{own} is no column");
    }
    for kind in RowKind::ALL {
        let names: Vec<&str> = kind.columns().map(|column| column.name).collect();
        assert!(kind.required().iter().all(|name| names.contains(name)), "{kind:?}: {names:?}");
    }
}

#[test]
fn pointers_are_those_of_the_standard_with_a_star_for_every_entry() {
    let document = serde_json::json!({"a": {"x/y": {"n": 1}, "z": {"n": 2}}, "l": [[5], [6, 7]]});
    let get = |text: &str| {
        let path = Path::parse(text, false).unwrap_or_default();
        assert_eq!(path.to_string(), text);
        path.get(&document).cloned()
    };
    assert_eq!(get("/a/x~1y/n"), Some(serde_json::json!(1)));
    assert_eq!(get("/l/1/0"), Some(serde_json::json!(6)));
    assert_eq!((get("/l/2"), get("/a/n"), get("/l/1/0/x")), (None, None, None));
    assert_eq!(get(""), Some(document.clone()));
    let all = |text: &str| {
        let path = Path::parse(text, true).unwrap_or_default();
        let found = path.all(&document);
        found
            .into_iter()
            .map(|(keys, value)| (keys.join("/"), value.to_string()))
            .collect::<Vec<_>>()
    };
    let pair = |keys: &str, value: &str| (keys.to_owned(), value.to_owned());
    assert_eq!(all("/a/*/n"), [pair("x/y", "1"), pair("z", "2")]);
    assert_eq!(all("/l/*/*"), [pair("0/0", "5"), pair("1/0", "6"), pair("1/1", "7")]);
    assert_eq!(all("/nothing/*"), []);
}

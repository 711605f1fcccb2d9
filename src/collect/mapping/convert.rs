//! A document of any form → a status document, by a [`Map`]. Pure.

use serde_json::{Map as Object, Number, Value};

use super::super::text;
use super::{MAX_ROWS, float};
use crate::base::time::Timestamp;
use crate::config::map::{Field, Form, Map, Origin, Path, Rows, Step};
use crate::model::table::Kind;

/// Most paths that are named as missing or ignored.
const MAX_NAMED: usize = 50;

/// A status document and what the map did not find for it.
#[derive(Debug, PartialEq)]
pub(super) struct Converted {
    pub(super) document: Value,
    /// Paths without a value and without a default, with their columns.
    pub(super) missing: Vec<String>,
    /// Whether anything of the map is in the document.
    pub(super) found: bool,
}

/// Makes a status document out of `document`, read at `now`.
pub(super) fn convert(map: &Map, document: &Value, now: Timestamp) -> Converted {
    let mut converter = Converter { document, now, missing: Vec::new(), found: false };
    let mut status = converter.columns(&map.plain, document, &[]);
    for (kind, rows) in &map.rows {
        let entries = converter.rows(rows);
        let list = status.entry(kind.key()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.extend(entries);
        }
    }
    let Converter { missing, found, .. } = converter;
    Converted { document: Value::Object(status), missing, found }
}

struct Converter<'a> {
    document: &'a Value,
    now: Timestamp,
    missing: Vec<String>,
    found: bool,
}

impl Converter<'_> {
    fn rows(&mut self, rows: &Rows) -> Vec<Value> {
        let mut made = Vec::new();
        for (keys, entry) in rows.select.all(self.document) {
            let single = std::slice::from_ref(entry);
            let entries = match entry {
                // A selector that ends at a list means its items.
                Value::Array(items) if rows.select.0.last() != Some(&Step::Any) => items,
                Value::Null => continue,
                Value::Array(_)
                | Value::Object(_)
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_) => single,
            };
            for entry in entries {
                // One more than are taken: so the reader sees that there are too many.
                if made.len() > MAX_ROWS {
                    return made;
                }
                made.push(Value::Object(self.columns(&rows.fields, entry, &keys)));
            }
        }
        made
    }

    fn columns(
        &mut self,
        fields: &[Field],
        entry: &Value,
        keys: &[String],
    ) -> Object<String, Value> {
        let mut object = Object::new();
        for field in fields {
            if let Some(value) = self.value(field, entry, keys) {
                object.insert(field.column.name.to_owned(), value);
            }
        }
        object
    }

    fn value(&mut self, field: &Field, entry: &Value, keys: &[String]) -> Option<Value> {
        let found = self.at(&field.origin, entry, keys);
        let is_read = matches!(field.origin, Origin::Entry(_) | Origin::Document(_));
        self.found |= is_read && found.is_some();
        let value = found.filter(|value| !value.is_null()).or_else(|| field.default.clone());
        let Some(value) = value else {
            self.note_missing(field, entry, keys);
            return None;
        };
        if let Some(expected) = &field.equals {
            return Some(Value::Bool(is_equal(&value, expected)));
        }
        let value = self.formed(field, value);
        let value = match &field.minus {
            None => value,
            Some(other) => {
                let other = self.at(other, entry, keys).and_then(|other| other.as_f64());
                number(value.as_f64().zip(other).map(|(value, other)| value - other))
            }
        };
        Some(match field.scale {
            Some(scale) => number(value.as_f64().map(|value| value * scale)),
            None => value,
        })
    }

    /// A path that leads nowhere is worth a word; one that leads to null is not.
    fn note_missing(&mut self, field: &Field, entry: &Value, keys: &[String]) {
        let (Origin::Entry(path) | Origin::Document(path)) = &field.origin else { return };
        if self.at(&field.origin, entry, keys).is_some() {
            return;
        }
        let words = format!("{path} ({})", field.column.name);
        if self.missing.len() < MAX_NAMED && !self.missing.contains(&words) {
            self.missing.push(words);
        }
    }

    fn at(&self, origin: &Origin, entry: &Value, keys: &[String]) -> Option<Value> {
        match origin {
            Origin::Entry(path) => path.get(entry).cloned(),
            Origin::Document(path) => path.get(self.document).cloned(),
            Origin::Keys(numbers) => {
                let key = |number: &usize| keys.get(number.checked_sub(1)?).map(String::as_str);
                let keys: Option<Vec<&str>> = numbers.iter().map(key).collect();
                Some(Value::String(keys?.join("/")))
            }
            Origin::Constant(value) => Some(value.clone()),
        }
    }

    /// Returns the value as the column has it; one that cannot be so stays as it is, which the
    /// reader then names.
    fn formed(&self, field: &Field, value: Value) -> Value {
        let value = match field.form {
            Form::Plain => value,
            Form::Text => value.as_str().and_then(inside).unwrap_or(value),
            Form::Length => match &value {
                Value::Array(items) => Value::from(items.len()),
                Value::Object(fields) => Value::from(fields.len()),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
            },
            Form::Unix(units) => value
                .as_f64()
                .and_then(|number| Timestamp::from_seconds_f64(number / f64::from(units)))
                .map_or(value, |time| Value::String(time.to_string())),
        };
        if field.age {
            let since = value.as_str().and_then(Timestamp::parse);
            return number(since.map(|since| {
                float(self.now.micros().saturating_sub(since.micros()).max(0)) / 1e6
            }));
        }
        match field.column.kind {
            Kind::Symbol => name(value),
            Kind::Varchar if is_list(field) => list(value),
            Kind::Varchar => name(value),
            Kind::Boolean | Kind::Long | Kind::Double | Kind::Timestamp => value,
        }
    }
}

fn is_list(field: &Field) -> bool {
    matches!(field.column.name, "exchanges" | "symbols")
}

/// A name that is a number is a name all the same.
fn name(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::String(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            value
        }
    }
}

/// One name is a list of one; the names of an object's entries are a list.
fn list(value: Value) -> Value {
    match value {
        Value::String(_) => Value::Array(vec![value]),
        Value::Object(fields) => {
            Value::Array(fields.into_iter().map(|(name, _)| Value::String(name)).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => value,
    }
}

/// Returns the number or the true or false that is written inside a text.
fn inside(text: &str) -> Option<Value> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Ok(whole) = text.parse::<i64>() {
        return Some(Value::from(whole));
    }
    let number = text.parse::<f64>().ok()?;
    Number::from_f64(number).map(Value::Number)
}

fn number(number: Option<f64>) -> Value {
    number.and_then(Number::from_f64).map_or(Value::Null, Value::Number)
}

fn is_equal(value: &Value, expected: &Value) -> bool {
    match (value.as_f64(), expected.as_f64()) {
        #[expect(clippy::float_cmp, reason = "what is written in both places is the same number")]
        (Some(value), Some(expected)) => value == expected,
        _ => value == expected,
    }
}

/// Returns the paths of `document` that no column is read from; the items of a list share `*`.
pub(super) fn ignored(map: &Map, document: &Value) -> Vec<String> {
    let mut leaves = Vec::new();
    walk(document, &mut Vec::new(), &mut leaves);
    let used = used(map);
    leaves.retain(|leaf| !used.iter().any(|path| covers(path, leaf)));
    let mut named: Vec<String> = leaves.iter().map(|leaf| shown(leaf)).collect();
    named.dedup();
    if named.len() > MAX_NAMED {
        let more = named.len() - MAX_NAMED;
        named.truncate(MAX_NAMED);
        named.push(format!("and {more} more"));
    }
    named
}

/// Collects the paths of all values that hold no others.
fn walk<'a>(
    value: &'a Value,
    at: &mut Vec<Option<&'a str>>,
    leaves: &mut Vec<Vec<Option<&'a str>>>,
) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                at.push(Some(name));
                walk(value, at, leaves);
                at.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                at.push(None);
                walk(item, at, leaves);
                at.pop();
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            if leaves.last() != Some(at) {
                leaves.push(at.clone());
            }
        }
    }
}

/// Returns the paths that columns are read from, from the top of the document; `None` is any step.
fn used(map: &Map) -> Vec<Vec<Option<String>>> {
    let steps = |path: &Path| -> Vec<Option<String>> {
        let name = |step: &Step| match step {
            Step::Name(name) => Some(name.clone()),
            Step::Any => None,
        };
        path.0.iter().map(name).collect()
    };
    let mut paths = Vec::new();
    let mut add = |before: &[Option<String>], field: &Field| {
        for origin in std::iter::once(&field.origin).chain(&field.minus) {
            match origin {
                Origin::Entry(path) => paths.push([before.to_vec(), steps(path)].concat()),
                Origin::Document(path) => paths.push(steps(path)),
                Origin::Keys(_) | Origin::Constant(_) => {}
            }
        }
    };
    map.plain.iter().for_each(|field| add(&[], field));
    for (_, rows) in &map.rows {
        let select = steps(&rows.select);
        rows.fields.iter().for_each(|field| add(&select, field));
        // Without a * at its end the selector may end at a list.
        let items = [select, vec![None]].concat();
        rows.fields.iter().for_each(|field| add(&items, field));
    }
    paths
}

/// Whether the value at `leaf` is at `path` or inside what is there.
fn covers(path: &[Option<String>], leaf: &[Option<&str>]) -> bool {
    path.len() <= leaf.len()
        && path.iter().zip(leaf).all(|(step, at)| match (step, at) {
            (Some(step), Some(at)) => step == at,
            // An index of a list.
            (Some(step), None) => step.bytes().all(|byte| byte.is_ascii_digit()),
            (None, _) => true,
        })
}

fn shown(leaf: &[Option<&str>]) -> String {
    let step = |step: &Option<&str>| match step {
        Some(name) => {
            format!("/{}", text::clean(name, text::TAG_BYTES))
        }
        None => "/*".to_owned(),
    };
    leaf.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::mapping::{Mapped, Mapper};
    use crate::config::load::{Request, load};
    use crate::config::{self, Profile};

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-26T20:00:00Z").unwrap()
    }

    /// The daemon that `text`, keys and sections of one `[[daemon]]`, describes.
    fn daemon(text: &str) -> config::Daemon {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("[[daemon]]\nname = \"a\"\nsource = \"http\"\n{text}");
        std::fs::write(folder.path().join("periscope.toml"), text).unwrap();
        let request = Request {
            file: None,
            data_dir: Some("data".into()),
            set: Vec::new(),
            remote: false,
            profile: Profile::Up,
            environment: std::collections::BTreeMap::new(),
            directory: folder.path().to_owned(),
            machine: "vps-1".to_owned(),
            check_rules: None,
        };
        let mut loaded = load(&request).unwrap_or_else(|problems| panic!("{problems}"));
        loaded.config.daemons.remove(0)
    }

    fn mapper(text: &str) -> Mapper {
        Mapper::new(daemon(&format!("url = \"http://127.0.0.1:1\"\n{text}")).map.as_ref())
    }

    fn recorded(part: &str) -> Value {
        let path = format!("{}/tests/data/freqtrade/{part}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// The document of the preset's parts, as a real freqtrade answered them.
    fn freqtrade() -> (config::Daemon, Value) {
        let daemon = daemon("preset = \"freqtrade\"\nurl = \"http://127.0.0.1:1\"\n");
        let config::Source::Http { parts, .. } = &daemon.source else { panic!("{daemon:?}") };
        let document = parts.iter().map(|part| (part.name.clone(), recorded(&part.name)));
        let document = Value::Object(document.collect());
        (daemon, document)
    }

    #[test]
    fn the_example_of_the_configuration_does_what_it_says() {
        let map = mapper(
            "[daemon.map]\n\
             running = { path = \"/state\", equals = \"ok\" }\n\
             fetch_count = { path = \"/counters/fetched\", type = \"text\", default = 0 }\n\
             last_fetch_time = { path = \"/last_ms\", type = \"milliseconds\" }\n\
             uptime_seconds = { path = \"/started\", type = \"seconds\", age = true }\n\
             memory_bytes = { path = \"/mem_mb\", scale = 1e6 }\n\
             exchanges = \"/venues\"\n\
             [daemon.map.exchange_status]\nrows = \"/venues/*\"\nexchange = { key = 1 }\n\
             connected = \"/up\"\nlatency_ms = { path = \"/latency_s\", scale = 1000 }\n\
             [daemon.map.pipeline]\nrows = \"/feeds/*/*\"\nexchange = { key = 1 }\n\
             data_type = { key = 2 }\nrecords_count = \"\"\n\
             [daemon.map.trading]\nrows = \"/strategies\"\nstrategy = \"/id\"\n\
             venue = { value = \"OKX\" }\ncurrency = { document = \"/account/currency\" }\n\
             pnl = { path = \"/gross\", minus = \"/fees\" }\n\
             orders_open = { path = \"/orders\", type = \"length\" }\n",
        );
        let document = json!({
            "state": "ok", "counters": {"fetched": "12"}, "last_ms": 1_795_723_199_500_i64,
            "started": 1_795_723_100, "mem_mb": 64.5, "account": {"currency": "USDT"},
            "venues": {"OKX": {"up": true, "latency_s": 0.025}, "bybit": {"up": false}},
            "feeds": {"okx": {"oi": 5, "funding": 6}},
            "strategies": [
                {"id": 7, "gross": 10.5, "fees": 0.5, "orders": [1, 2]},
                {"id": "b", "gross": 3, "fees": null, "orders": "none"},
            ],
            "extra": {"list": [{"x": 1}, {"x": 2}]},
        });
        let Mapped { status, drift, missing, .. } = map.status(&document, now()).unwrap();
        assert_eq!((status.running, status.fetch_count), (Some(true), Some(12)));
        assert_eq!(status.last_fetch_time.unwrap().millis(), 1_795_723_199_500);
        assert_eq!((status.uptime_seconds, status.memory_bytes), (Some(100.0), Some(64_500_000)));
        assert_eq!(status.exchanges.as_deref(), Some("okx,bybit"));
        let venues: Vec<_> = status.exchange_status.iter().collect();
        assert_eq!((&*venues[0].exchange, venues[0].connected), ("okx", true));
        assert_eq!((venues[0].latency_ms, venues[1].connected), (Some(25.0), false));
        let feeds: Vec<_> = status
            .pipelines
            .iter()
            .map(|feed| (&*feed.exchange, &*feed.data_type, feed.records_count))
            .collect();
        assert_eq!(feeds, [("okx", "funding", Some(6)), ("okx", "oi", Some(5))]);
        let [a, b] = status.trading.as_slice() else { panic!("{status:?}") };
        assert_eq!((&*a.strategy, a.pnl, a.orders_open), ("7", Some(10.0), Some(2)));
        assert_eq!((a.venue.as_deref(), a.currency.as_deref()), (Some("okx"), Some("USDT")));
        assert_eq!((&*b.strategy, b.pnl, b.orders_open), ("b", None, None));
        assert_eq!(drift, ["orders_open"], "a text has no number of entries");
        assert_eq!(missing, ["/latency_s (latency_ms)"], "of bybit");
        assert_eq!(map.ignored(&document), ["/extra/list/*/x"]);
    }

    #[test]
    fn what_a_real_freqtrade_answered_becomes_its_rows() {
        let (daemon, document) = freqtrade();
        let mapper = Mapper::new(daemon.map.as_ref());
        let at = Timestamp::parse("2026-11-26T19:31:06Z").unwrap();
        let Mapped { status, drift, missing, .. } = mapper.status(&document, at).unwrap();
        assert_eq!((drift, missing), (vec![], vec![]));
        assert_eq!(status.running, Some(true));
        assert_eq!(status.exchanges.as_deref(), Some("binance"));
        assert_eq!(status.symbols.as_deref(), Some("BTC/USDT,ETH/USDT"));
        let health = &document["health"];
        let seconds = |key: &str| health[key].as_i64().unwrap();
        assert_eq!(status.last_fetch_time.unwrap().millis(), seconds("last_process_ts") * 1000);
        let uptime = float(at.millis() / 1000 - seconds("bot_startup_ts"));
        assert_eq!(status.uptime_seconds, Some(uptime));
        let [row] = status.trading.as_slice() else { panic!("{status:?}") };
        assert_eq!((&*row.strategy, row.venue.as_deref()), ("Walker", Some("binance")));
        assert_eq!(row.currency.as_deref(), Some("USDT"));
        let profit = |key: &str| document["profit"][key].as_f64().unwrap();
        assert_eq!(row.pnl, Some(profit("profit_closed_coin")));
        let open = profit("profit_all_coin") - profit("profit_closed_coin");
        assert_eq!(row.unrealized_pnl, Some(open));
        assert_eq!(row.exposure, document["count"]["total_stake"].as_f64());
        assert_eq!(row.equity, document["balance"]["total_bot"].as_f64());
        assert_eq!(row.drawdown, Some(profit("current_drawdown")));
        assert!(row.pnl.is_some_and(|pnl| pnl != 0.0) && row.exposure.is_some_and(|e| e > 0.0));
    }

    #[test]
    fn a_stopped_freqtrade_is_not_running_and_one_that_says_less_is_no_error() {
        let (daemon, mut document) = freqtrade();
        document["config"]["state"] = json!("stopped");
        document.as_object_mut().unwrap().remove("balance");
        let mapper = Mapper::new(daemon.map.as_ref());
        let Mapped { status, missing, .. } = mapper.status(&document, now()).unwrap();
        assert_eq!(status.running, Some(false));
        assert_eq!((status.trading[0].equity, status.trading.len()), (None, 1));
        assert_eq!(missing, ["/balance/total_bot (equity)"]);
    }

    /// The form is that of the service's own source (get_bot_status).
    #[test]
    fn every_controller_of_a_hummingbot_api_is_a_row() {
        let daemon = daemon("preset = \"hummingbot-api\"\nurl = \"http://127.0.0.1:1\"\n");
        let performance = |realized: f64| {
            json!({"status": "running", "custom_info": {},
                   "performance": {"realized_pnl_quote": realized, "unrealized_pnl_quote": -1.5,
                                   "volume_traded": 100.0, "close_type_counts": {}}})
        };
        let document = json!({"bots": {"status": "success", "data": {
            "maker": {"status": "running", "recently_active": true, "error_logs": [],
                      "performance": {"pmm": performance(2.0), "dman": performance(3.0)}},
            "idle": {"status": "stopped", "performance": {}, "recently_active": false},
        }}});
        let mapper = Mapper::new(daemon.map.as_ref());
        let Mapped { status, drift, missing, .. } = mapper.status(&document, now()).unwrap();
        assert_eq!((drift, missing), (vec![], vec![]));
        assert_eq!((status.running, status.symbols.as_deref()), (Some(true), Some("idle,maker")));
        let mut rows: Vec<_> = status
            .trading
            .iter()
            .map(|row| (&*row.strategy, row.pnl, row.unrealized_pnl))
            .collect();
        rows.sort_by(|a, b| a.0.cmp(b.0));
        let loss = Some(-1.5);
        assert_eq!(rows, [("maker/dman", Some(3.0), loss), ("maker/pmm", Some(2.0), loss)]);
    }

    #[test]
    fn a_document_with_nothing_of_the_map_is_no_status() {
        let map = mapper("[daemon.map]\nrunning = \"/ok\"\nsymbols = { value = \"BTC\" }\n");
        for document in [json!({}), json!([]), json!({"error": "x"}), json!(5), json!(null)] {
            assert_eq!(map.status(&document, now()), None, "{document}");
        }
        let status = map.status(&json!({"ok": null}), now()).unwrap().status;
        assert_eq!((status.running, status.symbols.as_deref()), (None, Some("BTC")));
    }

    #[test]
    fn a_million_entries_are_not_more_rows_than_allowed() {
        let map = mapper("[daemon.map]\n[daemon.map.trading]\nrows = \"/s\"\nstrategy = \"/n\"\n");
        let many: Vec<Value> = (0..5_000).map(|n| json!({"n": n})).collect();
        let Mapped { status, drift, .. } = map.status(&json!({"s": many}), now()).unwrap();
        assert_eq!((status.trading.len(), drift), (MAX_ROWS, vec!["trading"]));
    }
}

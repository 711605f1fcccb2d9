//! Document → [`Status`]. Pure. A document of another form is made one of this form first, by the
//! daemon's map (`convert`): so there is one reader and one judgement of types and values.
//!
//! A field of another type than expected, or with a value that cannot be true, is null and counts as
//! drift: a number inside a string is not a number, a counter below zero or beyond 64 bits is no
//! counter, a time without an offset, before the year 2000 or more than five minutes ahead is no time.
//! A number with a fraction is no count; `5.0` is 5. Values that are merely surprising are kept.

mod convert;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::text;
use crate::base::time::Timestamp;
use crate::config::map;
use crate::model::status::{Exchange, Pipeline, Status, Trading};

/// Most rows of one kind that one document gives.
const MAX_ROWS: usize = 1_000;
/// 2000-01-01, UTC: no daemon has fetched anything before.
const EARLIEST: Timestamp = Timestamp::from_millis(946_684_800_000);
/// How far the daemon's clock may be ahead.
const AHEAD: Duration = Duration::from_secs(300);

/// The fields of the plain document.
const FIELDS: [&str; 13] = [
    "running",
    "shutdown_requested",
    "fetch_count",
    "error_count",
    "liquidation_count",
    "uptime_seconds",
    "last_fetch_time",
    "last_error",
    "symbols",
    "exchanges",
    "memory_bytes",
    "cpu_percent",
    "event_loop_lag_ms",
];
/// The fields of richer documents.
const RICHER: [&str; 3] = ["exchange_status", "pipeline", "trading"];

/// A status and what was wrong with its document.
#[derive(Debug, PartialEq)]
pub(super) struct Mapped {
    /// The status.
    pub(super) status: Status,
    /// Fields that are null because of their type or value.
    pub(super) drift: Vec<&'static str>,
    /// Which of the known fields the document has, one bit each.
    pub(super) fields: u16,
    /// How many other fields it has; 0 for a daemon with a map, which names what it wants.
    pub(super) unknown: usize,
    /// Paths of the daemon's map that lead nowhere.
    pub(super) missing: Vec<String>,
}

/// How the documents of one daemon are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Mapper(Option<Arc<map::Map>>);

impl Mapper {
    /// Reads documents by `map`; without one they are status documents.
    pub(super) fn new(map: Option<&map::Map>) -> Self {
        Self(map.map(|map| Arc::new(map.clone())))
    }

    /// Reads a document at `now`; `None` when nothing of a status is in it.
    pub(super) fn status(&self, document: &Value, now: Timestamp) -> Option<Mapped> {
        let Some(map) = &self.0 else { return status(document, now) };
        let converted = convert::convert(map, document, now);
        if !converted.found {
            return None;
        }
        let mapped = status(&converted.document, now)?;
        Some(Mapped { missing: converted.missing, ..mapped })
    }

    /// Says that nothing of a status is in a document.
    pub(super) const fn no_status(&self) -> &'static str {
        match &self.0 {
            Some(_) => "nothing that `map` or `preset` of this daemon names is in the document",
            None => "the document has no field of a status; say where they are with `[daemon.map]`",
        }
    }

    /// Returns what of `document` is in no row; a long list ends with how many more there are.
    pub(super) fn ignored(&self, document: &Value) -> Vec<String> {
        match &self.0 {
            Some(map) => convert::ignored(map, document),
            None => ignored(document),
        }
    }
}

/// Returns the names of the fields that are in `fields`.
pub(super) fn field_names(fields: u16) -> impl Iterator<Item = &'static str> {
    FIELDS
        .iter()
        .chain(&RICHER)
        .enumerate()
        .filter_map(move |(bit, name)| (fields & (1_u16 << bit) != 0).then_some(*name))
}

/// Reads a status document at `now`; `None` when it is no object or has no field of a status.
pub(super) fn status(document: &Value, now: Timestamp) -> Option<Mapped> {
    let object = document.as_object()?;
    let mut fields = 0;
    let mut known = 0;
    for (bit, name) in FIELDS.iter().chain(&RICHER).enumerate() {
        if object.contains_key(*name) {
            fields |= 1_u16 << bit;
            known += 1;
        }
    }
    if known == 0 {
        return None;
    }
    let mut reader = Reader { object, now, drift: Vec::new() };
    let plain = Status {
        running: reader.bool("running"),
        shutdown_requested: reader.bool("shutdown_requested"),
        fetch_count: reader.count("fetch_count"),
        error_count: reader.count("error_count"),
        liquidation_count: reader.count("liquidation_count"),
        uptime_seconds: reader.at_least_zero("uptime_seconds"),
        last_fetch_time: reader.time("last_fetch_time"),
        last_error: reader.text("last_error"),
        exchanges: reader
            .list("exchanges", |item| text::venue(item).filter(|venue| &**venue != "all")),
        symbols: reader.list("symbols", text::tag),
        memory_bytes: reader.count("memory_bytes"),
        cpu_percent: reader.at_least_zero("cpu_percent"),
        event_loop_lag_ms: reader.at_least_zero("event_loop_lag_ms"),
        ..Status::default()
    };
    let Reader { mut drift, .. } = reader;
    let status = Status {
        exchange_status: exchanges(object, now, &mut drift),
        pipelines: pipelines(object, now, &mut drift),
        trading: trading(object, now, &mut drift),
        ..plain
    };
    let unknown = object.len() - known;
    Some(Mapped { status, drift, fields, unknown, missing: Vec::new() })
}

/// Returns the fields of a status document that are in no row.
fn ignored(document: &Value) -> Vec<String> {
    const MOST: usize = 50;
    let Some(object) = document.as_object() else { return Vec::new() };
    let is_unknown = |name: &&String| !FIELDS.iter().chain(&RICHER).any(|known| known == *name);
    let mut names: Vec<String> = object
        .keys()
        .filter(is_unknown)
        .map(|name| text::clean(name, text::TAG_BYTES).to_string())
        .collect();
    if names.len() > MOST {
        let more = names.len() - MOST;
        names.truncate(MOST);
        names.push(format!("and {more} more"));
    }
    names
}

/// `exchange_status: {venue: {connected | ws_connected | rest_connected, …}}`, or a list of such
/// objects that name their `exchange`.
fn exchanges(
    document: &Map<String, Value>,
    now: Timestamp,
    drift: &mut Vec<&'static str>,
) -> Vec<Exchange> {
    let entries: Vec<(Option<&str>, &Value)> = match document.get("exchange_status") {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Object(venues)) => {
            venues.iter().map(|(name, value)| (Some(name.as_str()), value)).collect()
        }
        Some(Value::Array(entries)) if entries.len() <= MAX_ROWS => entries
            .iter()
            .map(|entry| (entry.get("exchange").and_then(Value::as_str), entry))
            .collect(),
        Some(Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            drift.push("exchange_status");
            return Vec::new();
        }
    };
    let mut found = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let (Some(exchange), Some(object)) = (name.and_then(text::venue), value.as_object()) else {
            drift.push("exchange_status");
            continue;
        };
        let mut reader = Reader { object, now, drift: std::mem::take(drift) };
        // QuestDB's BOOLEAN has no null: a venue whose state is unknown would show as disconnected.
        let connected = reader
            .bool("connected")
            .or_else(|| reader.bool("ws_connected"))
            .or_else(|| reader.bool("rest_connected"));
        let entry = connected.map(|connected| Exchange {
            exchange,
            connected,
            latency_ms: reader.at_least_zero("latency_ms"),
            reconnect_count: reader.count("reconnect_count"),
            last_message_at: reader.time("last_message_at"),
            disconnected_at: reader.time("disconnected_at"),
            rate_limit_used: reader.at_least_zero("rate_limit_used"),
        });
        *drift = reader.drift;
        match entry {
            Some(entry) => found.push(entry),
            None => drift.push("connected"),
        }
    }
    found
}

/// `pipeline: [{exchange, symbol, data_type, records, …}]`
fn pipelines(
    document: &Map<String, Value>,
    now: Timestamp,
    drift: &mut Vec<&'static str>,
) -> Vec<Pipeline> {
    let Some(entries) = document.get("pipeline").filter(|value| !value.is_null()) else {
        return Vec::new();
    };
    let Some(entries) = entries.as_array().filter(|entries| entries.len() <= MAX_ROWS) else {
        drift.push("pipeline");
        return Vec::new();
    };
    let mut found = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(object) = entry.as_object() else {
            drift.push("pipeline");
            continue;
        };
        let mut reader = Reader { object, now, drift: std::mem::take(drift) };
        let tags = (reader.tag("exchange", text::venue), reader.tag("data_type", text::tag));
        if let (Some(exchange), Some(data_type)) = tags {
            found.push(Pipeline {
                exchange,
                data_type,
                symbol: reader.tag("symbol", text::tag),
                records_count: reader.either(Reader::count, ["records", "records_count"]),
                error_count: reader.either(Reader::count, ["errors", "error_count"]),
                bytes_written: reader.count("bytes_written"),
                latency_ms: reader.at_least_zero("latency_ms"),
                gap_detected: reader.either(Reader::bool, ["gap_detected", "gap"]),
                gap_duration_seconds: reader
                    .either(Reader::at_least_zero, ["gap_duration_seconds", "gap_seconds"]),
            });
        } else {
            reader.drift.push("pipeline");
        }
        *drift = reader.drift;
    }
    found
}

/// `trading: {strategy: {symbol, venue, pnl, …}}`, or a list of such objects for each strategy, or one
/// list of objects that name their `strategy`.
fn trading(
    document: &Map<String, Value>,
    now: Timestamp,
    drift: &mut Vec<&'static str>,
) -> Vec<Trading> {
    let entries: Vec<(Option<&str>, &Value)> = match document.get("trading") {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Object(strategies)) => {
            let mut entries = Vec::with_capacity(strategies.len());
            for (name, value) in strategies {
                let of_one = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                entries.extend(of_one.iter().map(|entry| (Some(name.as_str()), entry)));
            }
            entries
        }
        Some(Value::Array(entries)) => entries
            .iter()
            .map(|entry| (entry.get("strategy").and_then(Value::as_str), entry))
            .collect(),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            drift.push("trading");
            return Vec::new();
        }
    };
    let mut found = Vec::with_capacity(entries.len().min(MAX_ROWS));
    for (name, entry) in entries {
        let (Some(strategy), Some(object)) = (name.and_then(text::tag), entry.as_object()) else {
            drift.push("trading");
            continue;
        };
        if found.len() >= MAX_ROWS {
            drift.push("trading");
            return found;
        }
        let mut reader = Reader { object, now, drift: std::mem::take(drift) };
        found.push(one_trading(strategy, &mut reader));
        *drift = reader.drift;
    }
    found
}

fn one_trading(strategy: Arc<str>, reader: &mut Reader<'_>) -> Trading {
    let (placed, filled) = (reader.count("orders_placed"), reader.count("orders_filled"));
    let fill_rate = reader.at_least_zero("fill_rate").or_else(|| {
        let (placed, filled) = (placed.filter(|placed| *placed > 0)?, filled?);
        Some(float(filled) / float(placed))
    });
    Trading {
        strategy,
        symbol: reader.tag("symbol", text::tag),
        venue: reader.tag("venue", text::venue),
        currency: reader.tag("currency", text::tag),
        pnl: reader.number("pnl"),
        unrealized_pnl: reader.number("unrealized_pnl"),
        position_size: reader.number("position_size"),
        exposure: reader.number("exposure"),
        equity: reader.number("equity"),
        drawdown: reader.number("drawdown"),
        fill_rate,
        orders_placed: placed,
        orders_filled: filled,
        orders_open: reader.count("orders_open"),
    }
}

/// Reads fields of one object and notes those that are not what they should be.
struct Reader<'a> {
    object: &'a Map<String, Value>,
    now: Timestamp,
    drift: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// Returns `name` as `read` sees it; missing and null are `None`, what `read` refuses is drift.
    fn field<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.object.get(name).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            self.drift.push(name);
        }
        read
    }

    /// Returns the first of `names` that is there.
    fn either<T>(
        &mut self,
        read: impl Fn(&mut Self, &'static str) -> Option<T>,
        [first, second]: [&'static str; 2],
    ) -> Option<T> {
        read(self, first).or_else(|| read(self, second))
    }

    fn bool(&mut self, name: &'static str) -> Option<bool> {
        self.field(name, Value::as_bool)
    }

    fn count(&mut self, name: &'static str) -> Option<i64> {
        self.field(name, |value| {
            value.as_i64().or_else(|| whole(value.as_f64()?)).filter(|count| *count >= 0)
        })
    }

    fn number(&mut self, name: &'static str) -> Option<f64> {
        self.field(name, Value::as_f64)
    }

    fn at_least_zero(&mut self, name: &'static str) -> Option<f64> {
        self.field(name, |value| value.as_f64().filter(|number| *number >= 0.0))
    }

    fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        let latest = self.now.plus(AHEAD);
        self.field(name, |value| {
            Timestamp::parse(value.as_str()?).filter(|at| (EARLIEST..=latest).contains(at))
        })
    }

    fn text(&mut self, name: &'static str) -> Option<Arc<str>> {
        self.field(name, |value| Some(text::clean(value.as_str()?, text::ERROR_BYTES)))
    }

    fn tag(
        &mut self,
        name: &'static str,
        clean: impl FnOnce(&str) -> Option<Arc<str>>,
    ) -> Option<Arc<str>> {
        self.field(name, |value| clean(value.as_str()?))
    }

    /// Reads a list of strings into one text; items that `clean` drops are left out.
    fn list(
        &mut self,
        name: &'static str,
        clean: impl Fn(&str) -> Option<Arc<str>>,
    ) -> Option<Arc<str>> {
        let joined = self.field(name, |value| {
            let mut joined = String::new();
            for item in value.as_array()? {
                let Some(item) = clean(item.as_str()?) else { continue };
                if joined.len() + item.len() >= text::LIST_BYTES {
                    break;
                }
                if !joined.is_empty() {
                    joined.push(',');
                }
                joined.push_str(&item);
            }
            Some(joined)
        })?;
        (!joined.is_empty()).then(|| joined.into())
    }
}

/// Returns a float without a fraction as an integer; `None` beyond 2^53, where floats skip integers.
fn whole(float: f64) -> Option<i64> {
    #[expect(clippy::as_conversions, reason = "the range is checked in the same expression")]
    (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i64)
}

/// Returns the nearest float.
#[expect(
    clippy::as_conversions,
    reason = "nearest is what is wanted; the standard has no other way"
)]
pub(super) const fn float(whole: i64) -> f64 {
    whole as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-24T04:00:00Z").unwrap()
    }

    fn mapped(document: Value) -> Mapped {
        status(&document, now()).unwrap()
    }

    #[test]
    fn the_documents_of_a_real_daemon() {
        let running = json!({"running":true,"shutdown_requested":false,"fetch_count":1,"error_count":6,"liquidation_count":0,"uptime_seconds":17.429723024368286,"last_fetch_time":"2026-11-24T03:55:27.827025+00:00","last_error":"BINANCE not connected. Call connect() first.","symbols":["BTCUSDT-PERP"],"exchanges":["binance"]});
        let Mapped { status, drift, unknown, .. } = mapped(running);
        assert!(drift.is_empty() && unknown == 0, "{drift:?}");
        assert_eq!(status.running, Some(true));
        assert_eq!((status.fetch_count, status.error_count), (Some(1), Some(6)));
        assert_eq!(status.uptime_seconds, Some(17.429_723_024_368_286));
        assert_eq!(status.last_fetch_time.unwrap().micros(), 1_795_492_527_827_025);
        assert_eq!(status.exchanges.as_deref(), Some("binance"));
        let idle = json!({"running":false,"shutdown_requested":false,"fetch_count":0,"error_count":0,"liquidation_count":0,"uptime_seconds":0,"last_fetch_time":null,"last_error":null,"symbols":["BTCUSDT-PERP","ETHUSDT-PERP"],"exchanges":["all"]});
        let Mapped { status, drift, .. } = mapped(idle);
        assert!(drift.is_empty(), "{drift:?}");
        assert_eq!(status.uptime_seconds, Some(0.0));
        assert_eq!(status.exchanges, None, "`all` is no venue");
        assert_eq!(status.symbols.as_deref(), Some("BTCUSDT-PERP,ETHUSDT-PERP"));
    }

    #[test]
    fn wrong_types_and_impossible_values_are_null_and_named() {
        for (name, values) in [
            ("running", vec![json!("true"), json!(1), json!([])]),
            (
                "fetch_count",
                vec![
                    json!("12"),
                    json!(-1),
                    json!(1.5),
                    json!(true),
                    json!(9_223_372_036_854_775_808_u64),
                    json!(1e300),
                ],
            ),
            ("uptime_seconds", vec![json!("1.5"), json!(-0.5), json!({})]),
            (
                "last_fetch_time",
                vec![
                    json!("1970-01-01T00:00:00Z"),
                    json!("2026-11-24T04:05:01Z"),
                    json!("2026-11-24T03:00:00"),
                    json!(1_795_492_527),
                    json!("soon"),
                ],
            ),
            ("last_error", vec![json!(5), json!({"a": 1})]),
            ("symbols", vec![json!("BTC"), json!([1]), json!({})]),
        ] {
            for value in values {
                let Mapped { status, drift, .. } = mapped(json!({name: value}));
                assert_eq!(status, Status::default(), "{name}: {value}");
                assert_eq!(drift, [name], "{name}: {value}");
            }
        }
        let kept = mapped(json!({"fetch_count": 5.0, "last_fetch_time": "2026-11-24T04:04:59Z"}));
        assert_eq!(kept.status.fetch_count, Some(5));
        assert!(kept.drift.is_empty() && kept.status.last_fetch_time.is_some());
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for document in [json!([]), json!(5), json!({}), json!({"error": "x"}), json!(null)] {
            assert_eq!(status(&document, now()), None, "{document}");
        }
    }

    #[test]
    fn richer_documents() {
        let Mapped { status, drift, .. } = mapped(json!({
            "exchange_status": {
                "BINANCE": {"ws_connected": true, "latency_ms": 12, "reconnect_count": 3, "last_message_at": "2026-11-24T03:59:59Z"},
                "okx": {"connected": false, "disconnected_at": "2026-11-24T03:00:00Z", "rate_limit_used": 0.5},
                "bybit": {"rest_connected": true},
                "unknown": {"latency_ms": 1},
            },
            "pipeline": [
                {"exchange": "OKX", "symbol": "BTC", "data_type": "oi", "records": 5, "errors": 1, "gap": true, "gap_duration_seconds": 3},
                {"exchange": "okx", "symbol": null, "data_type": "liquidation", "records_count": 7},
                {"exchange": "okx"}, 5,
            ],
            "trading": {
                "ema": {"symbol": "BTC", "venue": "SIM", "pnl": -1.5, "orders_placed": 4, "orders_filled": 3},
                "pair": [{"symbol": "A", "equity": 10}, {"symbol": "B", "fill_rate": 0.25}],
            },
        }));
        let venues: Vec<_> =
            status.exchange_status.iter().map(|e| (&*e.exchange, e.connected)).collect();
        assert_eq!(venues, [("binance", true), ("bybit", true), ("okx", false)]);
        assert_eq!(status.exchange_status[2].rate_limit_used, Some(0.5));
        assert_eq!(status.pipelines.len(), 2);
        assert_eq!(status.pipelines[0].gap_detected, Some(true));
        assert_eq!(status.pipelines[1].symbol, None);
        assert_eq!(status.trading.len(), 3);
        assert_eq!(status.trading[0].fill_rate, Some(0.75));
        assert_eq!(drift, ["connected", "pipeline", "pipeline"]);
    }

    #[test]
    fn lists_are_bounded_and_cleaned() {
        let many: Vec<String> = (0..5000).map(|n| format!("S{n}\n")).collect();
        let joined = mapped(json!({"symbols": many})).status.symbols.unwrap();
        assert!(joined.len() < text::LIST_BYTES && joined.starts_with("S0,S1,S2"), "{joined}");
    }
}

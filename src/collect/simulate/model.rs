//! What the simulated daemons say. Pure: the same options, daemon and time give the same document.
//!
//! Every daemon lives for some twenty minutes, is away for a moment and starts anew. Its venues
//! disconnect now and then; while they do, fetches fail and pipelines have gaps. Every third daemon
//! trades.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::base::time::Timestamp;
use crate::collect::mapping::float;

/// Which daemons there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many daemons.
    pub daemons: usize,
    /// Equal seeds give equal documents.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { daemons: 4, seed: 1 }
    }
}

const VENUES: [&str; 4] = ["binance", "bybit", "okx", "hyperliquid"];
const SYMBOLS: [&str; 3] = ["BTCUSDT-PERP", "ETHUSDT-PERP", "SOLUSDT-PERP"];
const STRATEGIES: [(&str, &str, &str); 2] =
    [("ema-cross", "BTCUSDT-PERP", "binance"), ("mean-revert", "ETHUSDT-PERP", "bybit")];
/// Seconds between fetches of one symbol at one venue.
const FETCH_SECONDS: i64 = 5;
/// Venues disconnect at most once in this many seconds.
const OUTAGE_CELL: i64 = 300;
/// Seconds that a daemon is away at a restart.
const AWAY_SECONDS: i64 = 8;

/// Returns the daemons' names: `ccxt-1`, `ccxt-2`, `nautilus-1`, `ccxt-3`, …
pub fn names(options: Options) -> Vec<String> {
    (0..options.daemons)
        .map(|index| {
            let (round, place) = (index / 3, index % 3);
            if place == 2 {
                format!("nautilus-{}", round + 1)
            } else {
                format!("ccxt-{}", round * 2 + place + 1)
            }
        })
        .collect()
}

/// Returns the document of `daemon` at `at`; `None` when there is no such daemon, `Some(Null)` while
/// it restarts.
pub fn document(options: Options, daemon: &str, at: Timestamp) -> Option<Value> {
    let index = names(options).iter().position(|name| name == daemon)?;
    let simulated = Simulated::new(options.seed, index, at);
    Some(if simulated.uptime() < 0 { Value::Null } else { simulated.document() })
}

/// One daemon at one moment.
#[derive(Debug)]
struct Simulated {
    /// Source of everything that is random about it.
    seed: u64,
    trades: bool,
    venues: &'static [&'static str],
    /// Seconds since 1970.
    now: i64,
    /// Start of its present life, seconds since 1970.
    started: i64,
    at: Timestamp,
}

impl Simulated {
    fn new(seed: u64, index: usize, at: Timestamp) -> Self {
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let seed = mix(&[seed, index]);
        let now = at.millis().div_euclid(1000);
        // A life of 15 to 30 minutes; how far into it the first moment of 1970 was is random too.
        let life = 900 + below(&[seed, 1], 900);
        let offset = below(&[seed, 2], life);
        let began = now - (now + offset).rem_euclid(life);
        let venues =
            if index.is_multiple_of(2) { VENUES.split_at(3).0 } else { VENUES.split_at(2).1 };
        Self { seed, trades: index % 3 == 2, venues, now, started: began + AWAY_SECONDS, at }
    }

    /// Seconds since its start; negative while it is away.
    const fn uptime(&self) -> i64 {
        self.now - self.started
    }

    fn document(&self) -> Value {
        let uptime_millis = self.at.millis() - self.started * 1000;
        let errors: i64 = self.venues.iter().map(|venue| self.errors(venue)).sum();
        let symbols = i64::try_from(SYMBOLS.len()).unwrap_or(0);
        let venues = i64::try_from(self.venues.len()).unwrap_or(0);
        let last_fetch = self.started + self.fetches() * FETCH_SECONDS;
        let mut document = json!({
            "running": true,
            "shutdown_requested": false,
            "fetch_count": self.fetches() * symbols * venues,
            "error_count": errors,
            "liquidation_count": self.liquidations(),
            "uptime_seconds": float(uptime_millis) / 1e3,
            "last_fetch_time": iso(last_fetch),
            "last_error": self.last_error(),
            "symbols": SYMBOLS,
            "exchanges": self.venues,
            "exchange_status": self.exchanges(),
            "pipeline": self.pipelines(),
        });
        if let Some(document) = document.as_object_mut().filter(|_| self.trades) {
            document.insert("trading".to_owned(), self.trading());
        }
        document
    }

    /// Rounds of fetches since the start.
    const fn fetches(&self) -> i64 {
        self.uptime() / FETCH_SECONDS
    }

    /// Outages of `venue` since the daemon's start, oldest first: (from, to), seconds since 1970.
    fn outages(&self, venue: &str) -> Vec<(i64, i64)> {
        let first = self.started.div_euclid(OUTAGE_CELL);
        let last = self.now.div_euclid(OUTAGE_CELL);
        let outage = |cell: i64| {
            let key = [self.seed, hash(venue), u64::try_from(cell).unwrap_or(0)];
            let happens = below(&[mix(&key), 3], 100) < 30;
            let from = cell * OUTAGE_CELL + below(&[mix(&key), 4], 150);
            let to = from + 20 + below(&[mix(&key), 5], 100);
            (happens && from >= self.started && from <= self.now).then_some((from, to))
        };
        (first..=last).filter_map(outage).collect()
    }

    /// Start of the outage that `venue` is in now.
    fn away_since(&self, venue: &str) -> Option<i64> {
        self.outages(venue).last().filter(|(_, to)| *to > self.now).map(|(from, _)| *from)
    }

    /// Seconds that `venue` was away since the daemon's start.
    fn seconds_away(&self, venue: &str) -> i64 {
        self.outages(venue).iter().map(|(from, to)| self.now.min(*to) - from).sum()
    }

    fn errors(&self, venue: &str) -> i64 {
        // Each failed fetch fails for every symbol; one slip in ten minutes besides.
        let failed = self.seconds_away(venue) / FETCH_SECONDS;
        failed * i64::try_from(SYMBOLS.len()).unwrap_or(0) + self.uptime() / 600
    }

    fn liquidations(&self) -> i64 {
        // Bursts: the count of a minute is squared, so that most are quiet and some are not.
        let minutes = self.uptime() / 60;
        let count = |minute: i64| {
            let key = u64::try_from(self.started + minute).unwrap_or(0);
            below(&[self.seed, key, 6], 6).pow(2)
        };
        (0..minutes).map(count).sum()
    }

    fn last_error(&self) -> Option<String> {
        let newest = |venue: &&str| {
            let (from, _) = self.outages(venue).pop()?;
            Some((from, (*venue).to_uppercase()))
        };
        let (_, venue) = self.venues.iter().filter_map(newest).max()?;
        Some(format!("{venue} not connected. Call connect() first."))
    }

    fn exchanges(&self) -> Value {
        let exchange = |venue: &str| {
            let away = self.away_since(venue);
            let reconnects = self.outages(venue).len() - usize::from(away.is_some());
            json!({
                "connected": away.is_none(),
                "latency_ms": away.is_none().then(|| self.noise(venue, 7, 20.0, 120.0)),
                "reconnect_count": reconnects,
                "last_message_at": iso(away.unwrap_or(self.now)),
                "disconnected_at": away.map(iso),
                "rate_limit_used": self.noise(venue, 8, 0.05, 0.6),
            })
        };
        let entries = self.venues.iter().map(|venue| ((*venue).to_owned(), exchange(venue)));
        Value::Object(entries.collect::<Map<_, _>>())
    }

    fn pipelines(&self) -> Value {
        let mut entries = Vec::new();
        for venue in self.venues {
            let away = self.away_since(venue);
            let records = (self.uptime() - self.seconds_away(venue)) / FETCH_SECONDS;
            for symbol in SYMBOLS {
                for data_type in ["oi", "funding"] {
                    entries.push(json!({
                        "exchange": venue,
                        "symbol": symbol,
                        "data_type": data_type,
                        "records": records,
                        "errors": self.errors(venue),
                        "bytes_written": records * 96,
                        "latency_ms": self.noise(venue, hash(data_type), 30.0, 250.0),
                        "gap_detected": away.is_some(),
                        "gap_duration_seconds": away.map_or(0, |since| self.now - since),
                    }));
                }
            }
        }
        Value::Array(entries)
    }

    fn trading(&self) -> Value {
        let entry = |(strategy, symbol, venue): (&str, &str, &str)| {
            let equity = self.equity(strategy, self.now);
            // The peak of the last half hour, once a minute.
            let past = (0..30).map(|minute| self.equity(strategy, self.now - minute * 60));
            let peak = past.fold(equity, f64::max);
            let placed = self.uptime() / 7;
            let filled = placed * (70 + below(&[self.seed, hash(strategy), 9], 25)) / 100;
            let size = self.wave(strategy, self.now, 240.0);
            let fields = json!({
                "symbol": symbol,
                "venue": venue,
                "currency": "USDT",
                "pnl": equity - 10_000.0,
                "unrealized_pnl": 40.0 * self.wave(strategy, self.now, 90.0),
                "position_size": size,
                "exposure": (size * 9_000.0).abs(),
                "equity": equity,
                "drawdown": (peak - equity) / peak,
                "orders_placed": placed,
                "orders_filled": filled,
                "orders_open": below(&[self.seed, u64::try_from(self.now / 10).unwrap_or(0)], 6),
            });
            (strategy.to_owned(), fields)
        };
        Value::Object(STRATEGIES.into_iter().map(entry).collect::<Map<_, _>>())
    }

    fn equity(&self, strategy: &str, second: i64) -> f64 {
        let slow = 250.0 * self.wave(strategy, second, 3600.0);
        10_000.0 + slow + 60.0 * self.wave(strategy, second, 420.0)
    }

    /// A sine between -1 and 1 with its own phase for each strategy.
    fn wave(&self, strategy: &str, second: i64, period_seconds: f64) -> f64 {
        let phase = float(below(&[self.seed, hash(strategy), 10], 10_000));
        ((float(second) + phase) / period_seconds * std::f64::consts::TAU).sin()
    }

    /// A value between `low` and `high` that is another every two seconds.
    fn noise(&self, of: &str, kind: u64, low: f64, high: f64) -> f64 {
        let key = [self.seed, hash(of), kind, u64::try_from(self.now / 2).unwrap_or(0)];
        let share = float(below(&key, 1000)) / 1000.0;
        // Squared: mostly low, with peaks.
        share.mul_add(share * (high - low), low)
    }
}

fn iso(second: i64) -> String {
    Timestamp::EPOCH.plus(Duration::from_secs(u64::try_from(second).unwrap_or(0))).to_string()
}

/// Returns a number below `limit` that depends on `key` alone.
fn below(key: &[u64], limit: i64) -> i64 {
    let limit = u64::try_from(limit.max(1)).unwrap_or(1);
    i64::try_from(mix(key) % limit).unwrap_or(0)
}

/// Mixes numbers into one that looks random.
fn mix(key: &[u64]) -> u64 {
    key.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        fastrand::Rng::with_seed(state.rotate_left(23) ^ part).u64(..)
    })
}

fn hash(text: &str) -> u64 {
    mix(&text.bytes().map(u64::from).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::mapping;

    const OPTIONS: Options = Options { daemons: 3, seed: 7 };

    fn second(second: i64) -> Timestamp {
        Timestamp::from_millis((1_795_492_800 + second) * 1000)
    }

    #[test]
    fn names_say_what_kind_a_daemon_is() {
        let expected = ["ccxt-1", "ccxt-2", "nautilus-1", "ccxt-3", "ccxt-4", "nautilus-2"];
        assert_eq!(names(Options { daemons: 6, seed: 1 }), expected);
        assert_eq!(document(OPTIONS, "nobody", second(0)), None);
    }

    #[test]
    fn the_same_seed_gives_the_same_documents_and_another_seed_others() {
        let other = Options { seed: 8, ..OPTIONS };
        for name in names(OPTIONS) {
            assert_eq!(document(OPTIONS, &name, second(5)), document(OPTIONS, &name, second(5)));
            assert_ne!(document(OPTIONS, &name, second(5)), document(other, &name, second(5)));
        }
    }

    /// Two hours of every daemon: no drift, counters only fall at a restart, and everything that the
    /// dashboards show does happen.
    #[test]
    fn documents_are_valid_and_eventful() {
        let (mut restarts, mut outages, mut gaps, mut trades) = (0, 0, 0, 0);
        for name in names(OPTIONS) {
            let mut before: Option<crate::model::status::Status> = None;
            for step in (0..7200).step_by(5) {
                let document = document(OPTIONS, &name, second(step)).unwrap();
                if document.is_null() {
                    continue;
                }
                let mapped = mapping::status(&document, second(step)).unwrap();
                assert!(mapped.drift.is_empty() && mapped.unknown == 0, "{:?}", mapped.drift);
                let status = mapped.status;
                if let Some(before) = before {
                    let restarted = status.uptime_seconds < before.uptime_seconds;
                    restarts += usize::from(restarted);
                    for (now, then) in [
                        (status.fetch_count, before.fetch_count),
                        (status.error_count, before.error_count),
                        (status.liquidation_count, before.liquidation_count),
                    ] {
                        assert!(restarted || now >= then, "{name} at {step}: {now:?} < {then:?}");
                    }
                }
                outages += status.exchange_status.iter().filter(|venue| !venue.connected).count();
                gaps += status.pipelines.iter().filter(|p| p.gap_detected == Some(true)).count();
                trades += status.trading.len();
                before = Some(status);
            }
        }
        assert!(restarts >= 9, "{restarts} restarts");
        assert!(outages > 50 && gaps > 50 && trades > 1000, "{outages} {gaps} {trades}");
    }
}

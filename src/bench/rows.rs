//! Rows as a few daemons, venues, pipelines and strategies make them; seeded, unique in time.

use std::sync::Arc;

use crate::base::time::Timestamp;
use crate::model::row::Row;
use crate::model::table::{
    DAEMON_METRICS, EXCHANGE_STATUS, PIPELINE_METRICS, TRADING_METRICS, Table,
};

/// Makes batches of rows of one table each, the tables in turn.
#[derive(Debug)]
pub struct Source {
    random: fastrand::Rng,
    names: Vec<Arc<str>>,
    next: Timestamp,
    batch: usize,
    made: i64,
}

/// Distance of two rows in time: every row is another one for DEDUP.
const STEP_NANOS: i64 = 1_000;

impl Source {
    /// Starts at `start`; `tag` keeps the rows of two sources apart.
    pub fn new(seed: u64, tag: &str, start: Timestamp) -> Self {
        let names = (0..8).map(|index| Arc::from(format!("{tag}-{index}"))).collect();
        Self { random: fastrand::Rng::with_seed(seed), names, next: start, batch: 0, made: 0 }
    }

    /// Returns `rows` rows of the next table.
    pub fn batch(&mut self, rows: usize) -> Vec<Row> {
        let tables: [&'static Table; 4] =
            [&DAEMON_METRICS, &EXCHANGE_STATUS, &PIPELINE_METRICS, &TRADING_METRICS];
        let table = tables.get(self.batch % tables.len()).copied().unwrap_or(&DAEMON_METRICS);
        self.batch = self.batch.wrapping_add(1);
        (0..rows).map(|_| self.row(table)).collect()
    }

    /// Rows made so far.
    pub const fn made(&self) -> i64 {
        self.made
    }

    fn row(&mut self, table: &'static Table) -> Row {
        self.made += 1;
        self.next = Timestamp::from_nanos(self.next.nanos().saturating_add(STEP_NANOS));
        let name = self.random.choice(&self.names).map_or_else(|| Arc::from("none"), Arc::clone);
        let row = Row::new(table, self.next)
            .with("daemon", &name)
            .with("host", "bench")
            .with("env", "dev");
        let number = self.made;
        match table.name {
            "daemon_metrics" => row
                .with("reachable", true)
                .with("running", true)
                .with("shutdown_requested", false)
                .with("fetch_count", number)
                .with("error_count", number / 100)
                .with("liquidation_count", 3_i64)
                .with("uptime_seconds", self.random.f64() * 1e5)
                .with("last_fetch_time", self.next)
                .with("exchanges", "binance,bybit")
                .with("symbols", "BTCUSDT-PERP,ETHUSDT-PERP")
                .with("memory_bytes", 123_456_789_i64)
                .with("cpu_percent", self.random.f64() * 100.0)
                .with("poll_ms", self.random.f64()),
            "exchange_status" => row
                .with("exchange", "binance")
                .with("connected", true)
                .with("latency_ms", self.random.f64() * 200.0)
                .with("reconnect_count", number / 1_000)
                .with("last_message_at", self.next),
            "pipeline_metrics" => row
                .with("exchange", "bybit")
                .with("symbol", "BTCUSDT-PERP")
                .with("data_type", "oi")
                .with("records_count", number)
                .with("bytes_written", number.saturating_mul(120))
                .with("latency_ms", self.random.f64() * 200.0)
                .with("gap_detected", false),
            _ => row
                .with("strategy", "ema-cross")
                .with("symbol", "BTCUSDT-PERP")
                .with("venue", "binance")
                .with("currency", "USDT")
                .with("pnl", self.random.f64() * 1e3)
                .with("unrealized_pnl", self.random.f64() * 1e2)
                .with("position_size", self.random.f64())
                .with("exposure", self.random.f64() * 1e4)
                .with("orders_placed", number)
                .with("orders_filled", number / 2)
                .with("orders_open", 4_i64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_rows_and_no_two_rows_share_a_time() {
        let start = Timestamp::from_millis(1_700_000_000_000);
        let (mut a, mut b) = (Source::new(1, "a", start), Source::new(1, "a", start));
        let (first, second) = (a.batch(50), a.batch(50));
        assert_eq!(first, b.batch(50));
        let mut times: Vec<_> = first.iter().chain(&second).map(|row| row.at).collect();
        times.dedup();
        assert_eq!(times.len(), 100);
        assert_eq!(
            (first[0].table.name, second[0].table.name),
            ("daemon_metrics", "exchange_status")
        );
        assert_eq!(a.made(), 100);
    }
}

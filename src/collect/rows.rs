//! Observation → rows. Pure.

use std::sync::Arc;

use crate::base::time::Timestamp;
use crate::config::Node;
use crate::model::observation::Observation;
use crate::model::row::Row;
use crate::model::status::{Exchange, Pipeline, Status, Trading};
use crate::model::table::{
    DAEMON_METRICS, EXCHANGE_STATUS, PIPELINE_METRICS, TRADING_METRICS, Table,
};

/// The tags that all rows of this machine share.
#[derive(Debug, Clone)]
pub(super) struct Tags {
    host: Arc<str>,
    env: Arc<str>,
}

impl Tags {
    /// Takes them from `[node]`.
    pub(super) fn of(node: &Node) -> Self {
        Self { host: node.host.as_str().into(), env: node.env.as_str().into() }
    }

    /// Starts a row of one daemon.
    fn row(&self, table: &'static Table, at: Timestamp, daemon: &Arc<str>) -> Row {
        Row::new(table, at).with("daemon", daemon).with("host", &self.host).with("env", &self.env)
    }
}

/// Returns the rows of one observation: one of `daemon_metrics`, and one for every venue, pipeline
/// and strategy of the status. A failed poll has `reachable=false` and nulls, never zeros.
pub(super) fn rows(observation: &Observation, tags: &Tags) -> Vec<Row> {
    let (at, daemon) = (observation.at, &observation.daemon);
    let mut rows = vec![daemon_row(observation, tags)];
    if let Ok(status) = &observation.outcome {
        rows.extend(
            status
                .exchange_status
                .iter()
                .map(|exchange| exchange_row(exchange, tags.row(&EXCHANGE_STATUS, at, daemon))),
        );
        rows.extend(
            status
                .pipelines
                .iter()
                .map(|pipeline| pipeline_row(pipeline, tags.row(&PIPELINE_METRICS, at, daemon))),
        );
        rows.extend(
            status
                .trading
                .iter()
                .map(|trading| trading_row(trading, tags.row(&TRADING_METRICS, at, daemon))),
        );
    }
    rows
}

fn daemon_row(observation: &Observation, tags: &Tags) -> Row {
    let restarts = i64::try_from(observation.restarts).unwrap_or(i64::MAX);
    let row = tags
        .row(&DAEMON_METRICS, observation.at, &observation.daemon)
        .with("reachable", observation.outcome.is_ok())
        .with("restarts", restarts)
        .with("poll_ms", observation.poll_ms);
    // What periscope has measured itself counts for more than what a daemon says of itself.
    let told = observation.outcome.as_ref().ok();
    let process = observation.process.as_ref();
    let memory = process.and_then(|process| process.memory_bytes);
    let cpu = process.and_then(|process| process.cpu_percent);
    let lag = observation.event_loop_lag_ms;
    let row = row
        .with("instance", process.map(|process| &process.instance))
        .with("memory_bytes", memory.or_else(|| told?.memory_bytes))
        .with("cpu_percent", cpu.or_else(|| told?.cpu_percent))
        .with("event_loop_lag_ms", lag.or_else(|| told?.event_loop_lag_ms));
    match &observation.outcome {
        Ok(status) => status_columns(status, row),
        Err(failure) => {
            let row = row.with("poll_error", failure.reason.code());
            if failure.reason.is_the_daemons_own() {
                row.with("last_error", failure.words.as_str())
            } else {
                row
            }
        }
    }
}

fn status_columns(status: &Status, row: Row) -> Row {
    row.with("running", status.running)
        .with("shutdown_requested", status.shutdown_requested)
        .with("fetch_count", status.fetch_count)
        .with("error_count", status.error_count)
        .with("liquidation_count", status.liquidation_count)
        .with("uptime_seconds", status.uptime_seconds)
        .with("last_fetch_time", status.last_fetch_time)
        .with("last_error", status.last_error.as_ref())
        .with("exchanges", status.exchanges.as_ref())
        .with("symbols", status.symbols.as_ref())
}

fn exchange_row(exchange: &Exchange, row: Row) -> Row {
    row.with("exchange", &exchange.exchange)
        .with("connected", exchange.connected)
        .with("latency_ms", exchange.latency_ms)
        .with("reconnect_count", exchange.reconnect_count)
        .with("last_message_at", exchange.last_message_at)
        .with("disconnected_at", exchange.disconnected_at)
        .with("rate_limit_used", exchange.rate_limit_used)
}

fn pipeline_row(pipeline: &Pipeline, row: Row) -> Row {
    row.with("exchange", &pipeline.exchange)
        .with("symbol", pipeline.symbol.as_ref())
        .with("data_type", &pipeline.data_type)
        .with("records_count", pipeline.records_count)
        .with("error_count", pipeline.error_count)
        .with("bytes_written", pipeline.bytes_written)
        .with("latency_ms", pipeline.latency_ms)
        .with("gap_detected", pipeline.gap_detected)
        .with("gap_duration_seconds", pipeline.gap_duration_seconds)
}

fn trading_row(trading: &Trading, row: Row) -> Row {
    row.with("strategy", &trading.strategy)
        .with("symbol", trading.symbol.as_ref())
        .with("venue", trading.venue.as_ref())
        .with("currency", trading.currency.as_ref())
        .with("pnl", trading.pnl)
        .with("unrealized_pnl", trading.unrealized_pnl)
        .with("position_size", trading.position_size)
        .with("exposure", trading.exposure)
        .with("equity", trading.equity)
        .with("drawdown", trading.drawdown)
        .with("fill_rate", trading.fill_rate)
        .with("orders_placed", trading.orders_placed)
        .with("orders_filled", trading.orders_filled)
        .with("orders_open", trading.orders_open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::mapping;
    use crate::model::observation::{Failure, FailureReason, Process};
    use crate::model::row::Value;

    fn tags() -> Tags {
        Tags::of(&Node { host: "vps-1".into(), env: "prod".into() })
    }

    fn observation(outcome: Result<Status, Failure>) -> Observation {
        Observation {
            at: Timestamp::from_millis(1_795_492_800_000),
            daemon: "ccxt".into(),
            outcome,
            poll_ms: None,
            event_loop_lag_ms: None,
            process: None,
            restarts: 2,
        }
    }

    #[test]
    fn a_failed_poll_writes_nulls_and_never_zeros() {
        let failure = Failure::new(FailureReason::Timeout, "no answer");
        let rows = rows(&observation(Err(failure)), &tags());
        assert_eq!(rows.len(), 1);
        let set: Vec<_> = DAEMON_METRICS
            .columns
            .iter()
            .filter(|column| *rows[0].get(column.name) != Value::Null)
            .map(|column| column.name)
            .collect();
        assert_eq!(set, ["daemon", "host", "env", "reachable", "poll_error", "restarts"]);
        assert_eq!(*rows[0].get("reachable"), Value::Bool(false));
        assert_eq!(*rows[0].get("poll_error"), Value::from("timeout"));
    }

    #[test]
    fn an_exception_of_the_status_method_is_the_last_error() {
        let failure = Failure::new(FailureReason::StatusError, "KeyError: 'x'");
        let rows = rows(&observation(Err(failure)), &tags());
        assert_eq!(*rows[0].get("last_error"), Value::from("KeyError: 'x'"));
    }

    #[test]
    fn every_part_of_a_rich_status_is_a_row_with_the_same_time_and_tags() {
        let document = serde_json::json!({
            "running": true, "fetch_count": 3, "uptime_seconds": 5,
            "exchange_status": {"okx": {"connected": true, "latency_ms": 3}},
            "pipeline": [{"exchange": "okx", "symbol": "BTC", "data_type": "oi", "records": 5}],
            "trading": {"ema": {"symbol": "BTC", "venue": "SIM", "currency": "USD", "pnl": 1.5}},
        });
        let mut seen =
            observation(Ok(mapping::status(&document, Timestamp::EPOCH).unwrap().status));
        seen.process = Some(Process {
            pid: 7,
            instance: "7@99".into(),
            memory_bytes: Some(5),
            cpu_percent: None,
        });
        let rows = rows(&seen, &tags());
        let tables: Vec<_> = rows.iter().map(|row| row.table.name).collect();
        assert_eq!(
            tables,
            ["daemon_metrics", "exchange_status", "pipeline_metrics", "trading_metrics"]
        );
        for row in &rows {
            assert_eq!(row.at, seen.at);
            for (tag, value) in [("daemon", "ccxt"), ("host", "vps-1"), ("env", "prod")] {
                assert_eq!(*row.get(tag), Value::from(value));
            }
        }
        assert_eq!(*rows[0].get("fetch_count"), Value::Long(3));
        assert_eq!(*rows[0].get("uptime_seconds"), Value::Double(5.0));
        assert_eq!(*rows[0].get("instance"), Value::from("7@99"));
        assert_eq!(*rows[1].get("connected"), Value::Bool(true));
        assert_eq!(*rows[2].get("records_count"), Value::Long(5));
        assert_eq!(*rows[3].get("pnl"), Value::Double(1.5));
    }
}

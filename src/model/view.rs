//! Hourly summaries of the tables, once: materialized views that `QuestDB` keeps up to date by
//! itself. Dashboards read them for ranges beyond [`LONG_RANGE_MS`], where raw rows are too many.

use std::fmt::Write as _;

use super::table::{
    DAEMON_METRICS, EXCHANGE_STATUS, PIPELINE_METRICS, SYSTEM_HEALTH, TIMESTAMP, TRADING_METRICS,
    Table,
};

/// Longest range that is read from the tables themselves, milliseconds: 7 days.
pub const LONG_RANGE_MS: u64 = 7 * 24 * 3_600_000;

/// One column of a view: an aggregate over an hour.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// Name, `[a-z0-9_]{1,64}`.
    pub name: &'static str,
    /// Aggregate over columns of the base table.
    pub expression: &'static str,
}

const fn summary(name: &'static str, expression: &'static str) -> Summary {
    Summary { name, expression }
}

/// One view: a row for every hour and every combination of the base table's keys.
#[derive(Debug, PartialEq, Eq)]
pub struct View {
    /// Name, `[a-z0-9_]{1,64}`.
    pub name: &'static str,
    /// The table that it summarises.
    pub base: &'static Table,
    /// Columns besides the designated timestamp (start of the hour), the keys and `at`.
    pub columns: &'static [Summary],
}

macro_rules! daemon_state {
    () => {
        "CASE WHEN NOT reachable THEN 0 WHEN NOT running THEN 1 WHEN shutdown_requested THEN 2 \
         ELSE 3 END"
    };
}
macro_rules! component_state {
    () => {
        "CASE WHEN status = 'down' THEN 0 WHEN status = 'degraded' THEN 1 \
         WHEN status = 'starting' THEN 2 WHEN status = 'off' THEN 3 ELSE 4 END"
    };
}
macro_rules! connected {
    () => {
        "CASE WHEN connected THEN 1 ELSE 0 END"
    };
}
macro_rules! disconnected_seconds {
    () => {
        "CASE WHEN connected THEN 0 ELSE datediff('s', disconnected_at, timestamp) END"
    };
}
macro_rules! message_age_seconds {
    () => {
        "datediff('s', last_message_at, timestamp)"
    };
}
macro_rules! gap {
    () => {
        "CASE WHEN gap_detected THEN 1 ELSE 0 END"
    };
}

/// State of a daemon as a number, worst first: 0 unreachable, 1 not running, 2 stopping, 3 running.
pub const DAEMON_STATE: &str = daemon_state!();
/// State of a part, worst first: 0 down, 1 degraded, 2 starting, 3 off, 4 ok.
pub const COMPONENT_STATE: &str = component_state!();
/// 1 while connected, else 0.
pub const CONNECTED: &str = connected!();
/// Seconds since the connection was lost; 0 while connected.
pub const DISCONNECTED_SECONDS: &str = disconnected_seconds!();
/// Seconds since the last message.
pub const MESSAGE_AGE_SECONDS: &str = message_age_seconds!();
/// 1 while data is missing, else 0.
pub const GAP: &str = gap!();

/// Daemons by hour.
pub static DAEMON_METRICS_1H: View = View {
    name: "daemon_metrics_1h",
    base: &DAEMON_METRICS,
    columns: &[
        summary("state_min", concat!("min(", daemon_state!(), ")")),
        summary("state_last", concat!("last(", daemon_state!(), ")")),
        summary("fetch_count", "last_not_null(fetch_count)"),
        summary("error_count", "last_not_null(error_count)"),
        summary("liquidation_count", "last_not_null(liquidation_count)"),
        summary("uptime_seconds", "last_not_null(uptime_seconds)"),
        summary("last_fetch_time", "last_not_null(last_fetch_time)"),
        summary("last_error", "last_not_null(last_error)"),
        summary("poll_error", "last_not_null(poll_error)"),
        summary("instance", "last_not_null(instance)"),
        summary("restarts", "last_not_null(restarts)"),
        summary("memory_bytes", "avg(memory_bytes)"),
        summary("memory_bytes_last", "last_not_null(memory_bytes)"),
        summary("cpu_percent", "avg(cpu_percent)"),
        summary("poll_ms", "avg(poll_ms)"),
        summary("event_loop_lag_ms", "max(event_loop_lag_ms)"),
    ],
};

/// Venues by hour.
pub static EXCHANGE_STATUS_1H: View = View {
    name: "exchange_status_1h",
    base: &EXCHANGE_STATUS,
    columns: &[
        summary("connected_min", concat!("min(", connected!(), ")")),
        summary("connected_last", concat!("last(", connected!(), ")")),
        summary("connected_share", concat!("avg(", connected!(), ")")),
        summary("disconnected_seconds", concat!("max(", disconnected_seconds!(), ")")),
        summary("disconnected_seconds_last", concat!("last(", disconnected_seconds!(), ")")),
        summary("message_age_seconds", concat!("max(", message_age_seconds!(), ")")),
        summary("message_age_seconds_last", concat!("last(", message_age_seconds!(), ")")),
        summary("latency_ms", "avg(latency_ms)"),
        summary("reconnect_count", "last_not_null(reconnect_count)"),
        summary("rate_limit_used", "max(rate_limit_used)"),
    ],
};

/// Pipelines by hour.
pub static PIPELINE_METRICS_1H: View = View {
    name: "pipeline_metrics_1h",
    base: &PIPELINE_METRICS,
    columns: &[
        summary("records_count", "last_not_null(records_count)"),
        summary("error_count", "last_not_null(error_count)"),
        summary("bytes_written", "last_not_null(bytes_written)"),
        summary("latency_ms", "avg(latency_ms)"),
        summary("gap", concat!("max(", gap!(), ")")),
        summary("gap_last", concat!("last(", gap!(), ")")),
        summary("gap_duration_seconds", "max(gap_duration_seconds)"),
    ],
};

/// Results of strategies by hour.
pub static TRADING_METRICS_1H: View = View {
    name: "trading_metrics_1h",
    base: &TRADING_METRICS,
    columns: &[
        summary("pnl", "last_not_null(pnl)"),
        summary("unrealized_pnl", "last_not_null(unrealized_pnl)"),
        summary("position_size", "last_not_null(position_size)"),
        summary("exposure", "last_not_null(exposure)"),
        summary("equity", "last_not_null(equity)"),
        summary("drawdown", "max(drawdown)"),
        summary("drawdown_last", "last_not_null(drawdown)"),
        summary("fill_rate", "last_not_null(fill_rate)"),
        summary("orders_placed", "last_not_null(orders_placed)"),
        summary("orders_filled", "last_not_null(orders_filled)"),
        summary("orders_open", "last_not_null(orders_open)"),
    ],
};

/// The machine and periscope's parts by hour.
pub static SYSTEM_HEALTH_1H: View = View {
    name: "system_health_1h",
    base: &SYSTEM_HEALTH,
    columns: &[
        summary("state_min", concat!("min(", component_state!(), ")")),
        summary("state_last", concat!("last(", component_state!(), ")")),
        summary("cpu_percent", "avg(cpu_percent)"),
        summary("memory_bytes", "avg(memory_bytes)"),
        summary("memory_total_bytes", "last_not_null(memory_total_bytes)"),
        summary("disk_free_bytes", "last_not_null(disk_free_bytes)"),
        summary("disk_total_bytes", "last_not_null(disk_total_bytes)"),
        summary("restarts", "last_not_null(restarts)"),
        summary("pending_rows", "max(pending_rows)"),
        summary("pending_rows_last", "last_not_null(pending_rows)"),
        summary("pending_bytes", "max(pending_bytes)"),
        summary("oldest_seconds", "max(oldest_seconds)"),
        summary("rows_total", "last_not_null(rows_total)"),
        summary("refused_total", "last_not_null(refused_total)"),
        summary("latency_ms", "avg(latency_ms)"),
        summary("wal_lag", "max(wal_lag)"),
    ],
};

/// All views. `alert_events` and `sample_gaps` hold few rows and need none.
pub static VIEWS: [&View; 5] = [
    &DAEMON_METRICS_1H,
    &EXCHANGE_STATUS_1H,
    &PIPELINE_METRICS_1H,
    &TRADING_METRICS_1H,
    &SYSTEM_HEALTH_1H,
];

impl View {
    /// Returns the query that the view keeps, as it stands in [`View::ddl`].
    pub fn query(&self) -> String {
        let mut sql = format!("SELECT {TIMESTAMP}");
        // Writing to a String cannot fail.
        for key in self.base.keys() {
            let _ignored = write!(sql, ", {}", key.name);
        }
        let _ignored = write!(sql, ",\n        last({TIMESTAMP}) AS at");
        for column in self.columns {
            let _ignored = write!(sql, ",\n        {} AS {}", column.expression, column.name);
        }
        let _ignored = write!(sql, "\n    FROM {} SAMPLE BY 1h", self.base.name);
        sql
    }

    /// Returns the statement that creates the view if it is missing, keeping rows `ttl_days`.
    ///
    /// The base table must exist. The server needs a refresh worker
    /// (`mat.view.refresh.worker.count` of 1 or more), else the view stays empty.
    pub fn ddl(&self, ttl_days: u32) -> String {
        format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS {} WITH BASE {} REFRESH IMMEDIATE AS (\n    \
             {}\n) PARTITION BY DAY TTL {ttl_days} DAYS;\n",
            self.name,
            self.base.name,
            self.query()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table;

    #[test]
    fn names_say_the_base_and_never_meet_a_table_or_a_key() {
        for view in VIEWS {
            assert_eq!(view.name, format!("{}_1h", view.base.name));
            assert!(table::find(view.name).is_none());
            let mut seen = std::collections::HashSet::from([TIMESTAMP, "at"]);
            for name in view.base.keys().map(|key| key.name) {
                assert!(seen.insert(name), "{}.{name}", view.name);
            }
            for column in view.columns {
                assert!(seen.insert(column.name), "{}.{} twice", view.name, column.name);
            }
        }
    }

    #[test]
    fn the_statement_groups_by_every_key_of_the_base() {
        let sql = EXCHANGE_STATUS_1H.ddl(90);
        assert!(sql.contains("SELECT timestamp, exchange, daemon, host, env,\n"), "{sql}");
        assert!(sql.ends_with("SAMPLE BY 1h\n) PARTITION BY DAY TTL 90 DAYS;\n"), "{sql}");
    }
}

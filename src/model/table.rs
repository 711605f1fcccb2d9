//! Every table, once: columns, types, units, keys, retention. DDL, encoding, validation, docs and
//! dashboard checks come from here.

use std::fmt::Write as _;

/// Type of a column, in `QuestDB`'s words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Repeated text, kept in a dictionary; used for tags.
    Symbol,
    /// true or false; `QuestDB` has no null for it (null reads as false).
    Boolean,
    /// 64-bit integer.
    Long,
    /// 64-bit float.
    Double,
    /// Microseconds since 1970.
    Timestamp,
    /// Free text.
    Varchar,
}

impl Kind {
    /// The name in DDL.
    pub const fn sql(self) -> &'static str {
        match self {
            Self::Symbol => "SYMBOL",
            Self::Boolean => "BOOLEAN",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::Timestamp => "TIMESTAMP",
            Self::Varchar => "VARCHAR",
        }
    }
}

/// One column.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    /// Name, `[a-z0-9_]{1,64}`.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Whether it is part of the row's identity (and so of the DEDUP key).
    pub key: bool,
    /// What it means, with unit and range.
    pub doc: &'static str,
}

const fn tag(name: &'static str, doc: &'static str) -> Column {
    Column { name, kind: Kind::Symbol, key: true, doc }
}

const fn column(name: &'static str, kind: Kind, doc: &'static str) -> Column {
    Column { name, kind, key: false, doc }
}

/// One table. The designated timestamp `timestamp` (`TIMESTAMP_NS`) comes on top of `columns`.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Name, `[a-z0-9_]{1,64}`.
    pub name: &'static str,
    /// What a row is.
    pub doc: &'static str,
    /// Columns besides the designated timestamp; keys first.
    pub columns: &'static [Column],
    /// Days that rows are kept unless `[retention]` says otherwise.
    pub ttl_days: u32,
}

/// Name of the designated timestamp of every table.
pub const TIMESTAMP: &str = "timestamp";

const DAEMON: Column = tag("daemon", "name of the daemon, 1 to 255 characters");
const HOST: Column = tag("host", "machine that periscope runs on");
const ENV: Column = tag("env", "prod, staging or dev");
const EXCHANGE: Column = tag("exchange", "venue, lower case");
const SYMBOL: Column = tag("symbol", "instrument");

use Kind::{Boolean, Double, Long, Timestamp, Varchar};

/// A poll of a daemon, answered or not.
pub static DAEMON_METRICS: Table = Table {
    name: "daemon_metrics",
    doc: "One row for every poll of a daemon; a failed poll has reachable=false and nulls.",
    ttl_days: 90,
    columns: &[
        DAEMON,
        HOST,
        ENV,
        column("reachable", Boolean, "whether the poll was answered with a valid document"),
        column("running", Boolean, "the daemon says that it runs"),
        column("shutdown_requested", Boolean, "the daemon says that it is about to stop"),
        column("fetch_count", Long, "fetches since the daemon's start; falls at a restart"),
        column("error_count", Long, "errors since the daemon's start; falls at a restart"),
        column("liquidation_count", Long, "liquidation events since the daemon's start"),
        column("uptime_seconds", Double, "seconds since the daemon's start"),
        column("last_fetch_time", Timestamp, "when the daemon last fetched"),
        column("last_error", Varchar, "the daemon's last error, at most 4 KiB"),
        column("poll_error", Varchar, "why the poll failed: one of a small fixed set of reasons"),
        column("exchanges", Varchar, "venues, comma separated"),
        column("symbols", Varchar, "instruments, comma separated"),
        column("instance", Varchar, "pid and start time of the process; changes at a restart"),
        column("memory_bytes", Long, "resident memory of the process"),
        column("restarts", Long, "restarts that periscope has seen"),
        column("cpu_percent", Double, "CPU since the last poll, 100 = one core"),
        column("poll_ms", Double, "time from request to answer, milliseconds"),
        column(
            "event_loop_lag_ms",
            Double,
            "delay of the daemon's event loop; while it is blocked, for how long: a lower bound",
        ),
    ],
};

/// State of one venue as a daemon sees it.
pub static EXCHANGE_STATUS: Table = Table {
    name: "exchange_status",
    doc: "One row for every poll, daemon and exchange.",
    ttl_days: 90,
    columns: &[
        EXCHANGE,
        DAEMON,
        HOST,
        ENV,
        column("connected", Boolean, "whether the daemon is connected to the venue"),
        column("latency_ms", Double, "round trip or message latency, milliseconds"),
        column("reconnect_count", Long, "reconnects since the daemon's start"),
        column("last_message_at", Timestamp, "when the last message came"),
        column("disconnected_at", Timestamp, "since when it is disconnected; null while connected"),
        column("rate_limit_used", Double, "used share of the rate limit, 0 to 1; null if unknown"),
    ],
};

/// Progress of one data pipeline.
pub static PIPELINE_METRICS: Table = Table {
    name: "pipeline_metrics",
    doc: "One row for every poll, daemon, exchange, symbol and kind of data.",
    ttl_days: 90,
    columns: &[
        EXCHANGE,
        SYMBOL,
        tag("data_type", "oi, funding, liquidation, …"),
        DAEMON,
        HOST,
        ENV,
        column("records_count", Long, "records since the daemon's start"),
        column("error_count", Long, "errors since the daemon's start"),
        column("bytes_written", Long, "bytes written since the daemon's start"),
        column("latency_ms", Double, "duration of the last fetch, milliseconds"),
        column("gap_detected", Boolean, "whether data is missing right now"),
        column("gap_duration_seconds", Double, "length of the gap so far, seconds"),
    ],
};

/// Results of one strategy on one instrument.
pub static TRADING_METRICS: Table = Table {
    name: "trading_metrics",
    doc: "One row for every poll, strategy, symbol, venue and currency.",
    ttl_days: 365,
    columns: &[
        tag("strategy", "strategy id"),
        SYMBOL,
        tag("venue", "venue, lower case"),
        tag("currency", "currency of the amounts"),
        DAEMON,
        HOST,
        ENV,
        column("pnl", Double, "realised profit and loss, in `currency`"),
        column("unrealized_pnl", Double, "profit and loss of open positions, in `currency`"),
        column("position_size", Double, "signed size of the position, in units of the instrument"),
        column("exposure", Double, "net exposure, in `currency`"),
        column("equity", Double, "equity, in `currency`"),
        column("drawdown", Double, "loss from the peak of equity, 0.05 = 5 %"),
        column("fill_rate", Double, "filled orders / placed orders, 0 to 1"),
        column("orders_placed", Long, "orders since the daemon's start"),
        column("orders_filled", Long, "filled orders since the daemon's start"),
        column("orders_open", Long, "open orders"),
    ],
};

/// Figures of the machine and of periscope's parts.
pub static SYSTEM_HEALTH: Table = Table {
    name: "system_health",
    doc: "One row every 10 s for the host and for every part of periscope.",
    ttl_days: 90,
    columns: &[
        tag("component", "host, periscope, questdb, grafana, spool, writer, canary"),
        HOST,
        ENV,
        column("status", Varchar, "ok, starting, degraded, down or off"),
        column("detail", Varchar, "what is wrong, at most 4 KiB"),
        column("cpu_percent", Double, "CPU since the last row, 100 = one core"),
        column("memory_bytes", Long, "resident memory; of the host: used memory"),
        column("memory_total_bytes", Long, "memory of the host"),
        column("disk_free_bytes", Long, "free bytes on the file system of the data folder"),
        column("disk_total_bytes", Long, "size of that file system"),
        column("restarts", Long, "restarts of the component since periscope's start"),
        column("pending_rows", Long, "spool: rows not yet delivered"),
        column("pending_bytes", Long, "spool: bytes not yet delivered"),
        column("oldest_seconds", Double, "spool: age of the oldest record not yet delivered"),
        column("rows_total", Long, "writer: rows acknowledged by QuestDB since start"),
        column("refused_total", Long, "writer: rows in the dead-letter folder since start"),
        column("latency_ms", Double, "writer: duration of the last request; questdb: of a query"),
        column("wal_lag", Long, "questdb: transactions accepted but not yet visible"),
    ],
};

/// Changes of alert states.
pub static ALERT_EVENTS: Table = Table {
    name: "alert_events",
    doc: "One row for every change of an alert and for every notification of it.",
    ttl_days: 365,
    columns: &[
        tag("rule", "id of the rule"),
        tag("fingerprint", "hash of rule and labels; one alert series"),
        tag("state", "pending, alerting, recovering, normal, no_data, error"),
        tag("path", "grafana or fallback"),
        HOST,
        ENV,
        column("severity", Varchar, "critical, warning or info"),
        column("labels", Varchar, "labels as JSON"),
        column("summary", Varchar, "one line"),
        column("value", Double, "value that was compared with the threshold"),
        column("sent_to", Varchar, "channels that accepted it, comma separated"),
        column("delivered_at", Timestamp, "when the first channel accepted it"),
        column("notification", Varchar, "short id that stands in the message"),
    ],
};

/// What was lost, and why.
pub static SAMPLE_GAPS: Table = Table {
    name: "sample_gaps",
    doc: "One row for every loss of samples that the spool's cap or damage caused.",
    ttl_days: 365,
    columns: &[
        tag("reason", "cap, min_free, damage, memory_ring or queue_full"),
        tag("table_name", "table of the lost rows, or * when unknown"),
        HOST,
        ENV,
        column("gap_from", Timestamp, "time of the first lost record"),
        column("gap_to", Timestamp, "time of the last lost record"),
        column("first_seq", Long, "sequence number of the first lost record"),
        column("last_seq", Long, "sequence number of the last lost record"),
        column("rows", Long, "rows lost"),
    ],
};

/// All tables; the order is the table id in the spool's records, so only append.
pub static TABLES: [&Table; 7] = [
    &DAEMON_METRICS,
    &EXCHANGE_STATUS,
    &PIPELINE_METRICS,
    &TRADING_METRICS,
    &SYSTEM_HEALTH,
    &ALERT_EVENTS,
    &SAMPLE_GAPS,
];

/// Returns the table called `name`.
pub fn find(name: &str) -> Option<&'static Table> {
    TABLES.into_iter().find(|table| table.name == name)
}

impl Table {
    /// Returns the columns of the DEDUP key besides the timestamp.
    pub fn keys(&self) -> impl Iterator<Item = &'static Column> {
        self.columns.iter().filter(|column| column.key)
    }

    /// Returns the column called `name`.
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Returns the statement that creates the table if it is missing, keeping rows `ttl_days`.
    pub fn ddl(&self, ttl_days: u32) -> String {
        let mut sql = format!("CREATE TABLE IF NOT EXISTS {} (\n", self.name);
        // Writing to a String cannot fail.
        let _ignored = write!(sql, "    {TIMESTAMP} TIMESTAMP_NS");
        for column in self.columns {
            let _ignored = write!(sql, ",\n    {} {}", column.name, column.kind.sql());
        }
        let keys: String = self.keys().map(|column| format!(", {}", column.name)).collect();
        let _ignored = write!(
            sql,
            "\n) TIMESTAMP({TIMESTAMP}) PARTITION BY DAY TTL {ttl_days} DAYS WAL\n\
             DEDUP UPSERT KEYS({TIMESTAMP}{keys});\n"
        );
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_unique_and_keys_come_first() {
        for table in TABLES {
            let mut seen = std::collections::HashSet::from([TIMESTAMP]);
            for column in table.columns {
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(column.name.chars().all(plain), "{}.{}", table.name, column.name);
                assert!(seen.insert(column.name), "{}.{} twice", table.name, column.name);
            }
            let keys = table.keys().count();
            assert!(table.columns[..keys].iter().all(|column| column.key), "{}", table.name);
            for key in ["host", "env"] {
                assert!(table.column(key).is_some_and(|column| column.key), "{}", table.name);
            }
        }
    }
}

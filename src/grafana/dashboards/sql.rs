//! The SQL of panels, in the one dialect that Grafana's PostgreSQL data source, the QuestDB plugin
//! and periscope's own viewer understand:
//!
//! - `$__timeFilter(timestamp)`, `$__interval`, `${__from}`, `${__to}` (milliseconds) and
//!   `${name:sqlstring}`; nothing else is expanded;
//! - every query reads its range from the table up to 7 days and from the hourly view beyond. Both
//!   halves stand in one statement, each behind a comparison of constants. `QuestDB` folds the
//!   false one: its plan says `Empty table`, and 26 million rows behind it cost 2 ms instead of 4 s.

use std::fmt::Write as _;

use super::panel::{Format, Query, Variable};
use crate::model::table::{
    DAEMON_METRICS, EXCHANGE_STATUS, PIPELINE_METRICS, SYSTEM_HEALTH, TRADING_METRICS, Table,
};
use crate::model::view::{
    DAEMON_METRICS_1H, EXCHANGE_STATUS_1H, LONG_RANGE_MS, PIPELINE_METRICS_1H, SYSTEM_HEALTH_1H,
    TRADING_METRICS_1H, View,
};

/// A table, its view, and the variables that narrow it on one dashboard.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    table: &'static Table,
    view: &'static View,
    variables: &'static [&'static str],
}

/// Variables of every dashboard about daemons.
const COMMON: &[&str] = &["env", "host", "daemon"];

/// Polls of daemons.
pub const DAEMONS: Source =
    Source { table: &DAEMON_METRICS, view: &DAEMON_METRICS_1H, variables: COMMON };
/// Venues.
pub const EXCHANGES: Source = Source {
    table: &EXCHANGE_STATUS,
    view: &EXCHANGE_STATUS_1H,
    variables: &["env", "host", "daemon", "exchange"],
};
/// Pipelines.
pub const PIPELINES: Source = Source {
    table: &PIPELINE_METRICS,
    view: &PIPELINE_METRICS_1H,
    variables: &["env", "host", "daemon", "exchange", "symbol"],
};
/// Strategies.
pub const TRADING: Source = Source {
    table: &TRADING_METRICS,
    view: &TRADING_METRICS_1H,
    variables: &["env", "host", "daemon", "strategy", "symbol"],
};
/// The machine and periscope's parts.
pub const PARTS: Source =
    Source { table: &SYSTEM_HEALTH, view: &SYSTEM_HEALTH_1H, variables: &["env", "host"] };

/// One value read from the table and from the view.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    /// Name in the result.
    pub name: &'a str,
    /// Aggregate over rows of the table.
    pub raw: &'a str,
    /// Aggregate over rows of the view.
    pub hourly: &'a str,
}

/// Returns a [`Value`].
pub const fn value<'a>(name: &'a str, raw: &'a str, hourly: &'a str) -> Value<'a> {
    Value { name, raw, hourly }
}

impl Source {
    /// Returns the source narrowed by `variables` alone.
    pub const fn narrowed(self, variables: &'static [&'static str]) -> Self {
        Self { variables, ..self }
    }

    /// Returns the keys of the table, comma separated: what tells one series from another.
    pub fn keys(&self) -> String {
        self.table.keys().map(|key| key.name).collect::<Vec<_>>().join(", ")
    }

    /// Returns the conditions of range and variables, and `filter` if it says something.
    fn scope(&self, filter: &str) -> String {
        scope(self.variables, filter)
    }

    /// Returns `SELECT select FROM table … UNION ALL SELECT select FROM view …`, one half of which
    /// is empty.
    fn halves(&self, raw: &Half<'_>, hourly: &Half<'_>) -> String {
        format!(
            "SELECT {}\nFROM {}\nWHERE ${{__to}} - ${{__from}} <= {LONG_RANGE_MS}\n  AND {}{}\n\
             UNION ALL\n\
             SELECT {}\nFROM {}\nWHERE ${{__to}} - ${{__from}} > {LONG_RANGE_MS}\n  AND {}{}",
            raw.select,
            self.table.name,
            self.scope(raw.filter),
            raw.tail,
            hourly.select,
            self.view.name,
            self.scope(hourly.filter),
            hourly.tail,
        )
    }

    /// Returns the query of lines over time: `outer` (an aggregate over `inner`) by `labels`.
    ///
    /// `inner` is taken for every key and bucket first, so that a sum never adds two samples of one
    /// series. Buckets without a sample are null, so that an outage is a gap in the line.
    pub fn lines(&self, labels: &str, outer: &str, inner: Value<'_>, filter: &str) -> Query {
        let keys = self.keys();
        let name = inner.name;
        let halves = self.halves(
            &Half {
                select: &format!("timestamp AS time, {keys}, {} AS {name}", inner.raw),
                filter,
                tail: "\nSAMPLE BY $__interval FILL(NULL)",
            },
            &Half {
                select: &format!("timestamp AS time, {keys}, {} AS {name}", inner.hourly),
                filter,
                tail: "\nSAMPLE BY 1h FILL(NULL)",
            },
        );
        Query {
            sql: format!(
                "SELECT time, {labels}, {outer} AS value FROM (\n{halves}\n)\n\
                 GROUP BY time, {labels} ORDER BY time"
            ),
            format: Format::TimeSeries,
        }
    }

    /// Returns the query of the newest value in the range: `outer` over `inner` by `labels`, at the
    /// time of its newest sample.
    pub fn newest(&self, labels: &str, outer: &str, inner: Value<'_>, filter: &str) -> Query {
        let halves = self.newest_by_key(&[inner], filter);
        Query {
            sql: format!(
                "SELECT max(at) AS time, {labels}, {outer} AS value FROM (\n{halves}\n)\n\
                 GROUP BY {labels} ORDER BY time"
            ),
            format: Format::TimeSeries,
        }
    }

    /// Returns the statement of the newest values of every key: the keys, `at`, and `values`.
    pub fn newest_by_key(&self, values: &[Value<'_>], filter: &str) -> String {
        let keys = self.keys();
        let mut raw = format!("{keys}, last(timestamp) AS at");
        let mut hourly = format!("{keys}, last(at) AS at");
        for value in values {
            // Writing to a String cannot fail.
            let _ignored = write!(raw, ",\n  {} AS {}", value.raw, value.name);
            let _ignored = write!(hourly, ",\n  {} AS {}", value.hourly, value.name);
        }
        self.halves(
            &Half { select: &raw, filter, tail: "" },
            &Half { select: &hourly, filter, tail: "" },
        )
    }

    /// Returns the statement of `value` for every process of every daemon: keys, `instance`, `value`.
    pub fn by_instance(&self, value: Value<'_>) -> String {
        let keys = self.keys();
        let filter = "instance IS NOT NULL";
        let select = |expression: &str| format!("{keys}, instance, {expression} AS {}", value.name);
        self.halves(
            &Half { select: &select(value.raw), filter, tail: "" },
            &Half { select: &select(value.hourly), filter, tail: "" },
        )
    }

    /// Returns the statement of what `counters` grew by from bucket to bucket, for every key:
    /// `time`, the keys, `elapsed` (ms between the two samples), and the counters.
    ///
    /// A counter that fell was restarted, so it grew by all that it shows now. Elapsed time is that
    /// of the samples, not of the buckets: the newest bucket is never full.
    pub fn growth(&self, counters: &[&str], filter: &str) -> String {
        let keys = self.keys();
        let series = format!("OVER (PARTITION BY {keys} ORDER BY time)");
        let first = counters.first().copied().unwrap_or("timestamp");
        let mut totals = String::new();
        let mut before = String::new();
        let mut grown = String::new();
        for counter in counters {
            let _ignored = write!(totals, ", last({counter}) AS {counter}");
            let _ignored = write!(before, ",\n  {counter}, lag({counter}) {series} AS {counter}_0");
            let _ignored = write!(
                grown,
                ",\n  CASE WHEN {counter} >= {counter}_0 THEN {counter} - {counter}_0 \
                 ELSE {counter} END AS {counter}"
            );
        }
        let filter = match filter {
            "" => format!("{first} IS NOT NULL"),
            filter => format!("{filter} AND {first} IS NOT NULL"),
        };
        let halves = self.halves(
            &Half {
                select: &format!("timestamp AS time, {keys}, last(timestamp) AS at{totals}"),
                filter: &filter,
                tail: "\nSAMPLE BY $__interval",
            },
            &Half {
                select: &format!("timestamp AS time, {keys}, last(at) AS at{totals}"),
                filter: &filter,
                tail: "\nSAMPLE BY $__interval",
            },
        );
        format!(
            "SELECT time, {keys}, datediff('T', at_0, at) AS elapsed{grown}\nFROM (\n\
             SELECT time, {keys}, at, lag(at) {series} AS at_0{before}\nFROM (\n{halves}\n)\n)\n\
             WHERE at_0 IS NOT NULL AND at > at_0"
        )
    }

    /// Returns the query of a counter's rate per `per_ms` milliseconds, summed by `labels`.
    pub fn rate(&self, labels: &str, counter: &str, per_ms: u64, filter: &str) -> Query {
        let growth = self.growth(&[counter], filter);
        Query {
            sql: format!(
                "SELECT time, {labels}, sum({counter} * {per_ms}.0 / elapsed) AS value FROM (\n\
                 {growth}\n)\nGROUP BY time, {labels} ORDER BY time"
            ),
            format: Format::TimeSeries,
        }
    }

    /// Returns the query of what a counter grew by over the whole range, summed by `labels`.
    pub fn increase(&self, labels: &str, counter: &str, filter: &str) -> Query {
        let growth = self.growth(&[counter], filter);
        Query {
            sql: format!(
                "SELECT max(time) AS time, {labels}, sum({counter}) AS value FROM (\n{growth}\n)\n\
                 GROUP BY {labels} ORDER BY time"
            ),
            format: Format::TimeSeries,
        }
    }

    /// Returns the statement of episodes, newest first: stretches of rows for which `raw` (or
    /// `hourly`) holds, with at most 10 minutes between two: keys, `started`, `ended`, `seconds`.
    ///
    /// Beyond 7 days an episode is known to the hour only. `seconds` is the larger of what the rows
    /// say and of what lies between the first and the last of them.
    pub fn episodes(&self, raw: (&str, &str), hourly: (&str, &str)) -> String {
        let keys = self.keys();
        let series = format!("OVER (PARTITION BY {keys} ORDER BY ended");
        let halves = self.halves(
            &Half {
                select: &format!(
                    "timestamp AS started, timestamp AS ended, {keys}, {} AS said",
                    raw.1
                ),
                filter: raw.0,
                tail: "",
            },
            &Half {
                select: &format!("timestamp AS started, at AS ended, {keys}, {} AS said", hourly.1),
                filter: hourly.0,
                tail: "",
            },
        );
        format!(
            "SELECT {keys}, min(started) AS started, max(ended) AS ended,\n  \
             greatest(max(said), datediff('s', min(started), max(ended))) AS seconds\nFROM (\n\
             SELECT started, ended, {keys}, said, sum(fresh) {series} \
             ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS episode\nFROM (\n\
             SELECT started, ended, {keys}, said, CASE WHEN ended_0 IS NULL \
             OR datediff('s', ended_0, started) > 600 THEN 1 ELSE 0 END AS fresh\nFROM (\n\
             SELECT started, ended, {keys}, said, lag(ended) {series}) AS ended_0\nFROM (\n\
             {halves}\n)\n)\n)\n)\nGROUP BY {keys}, episode"
        )
    }

    /// Returns the variable `name`: the values of that key in the range, under the parents' choice.
    pub fn variable(&self, name: &'static str, label: &'static str) -> Variable {
        let parents: Vec<&str> =
            self.variables.iter().copied().take_while(|variable| *variable != name).collect();
        let scope = scope(&parents, "");
        let inner = format!(
            "SELECT DISTINCT {name} FROM {}\n\
             WHERE ${{__to}} - ${{__from}} <= {LONG_RANGE_MS} AND {scope}\n\
             UNION ALL\n\
             SELECT DISTINCT {name} FROM {}\n\
             WHERE ${{__to}} - ${{__from}} > {LONG_RANGE_MS} AND {scope}",
            self.table.name, self.view.name
        );
        variable(name, label, &inner)
    }
}

/// One half of a query.
struct Half<'a> {
    select: &'a str,
    filter: &'a str,
    tail: &'a str,
}

/// Returns the conditions of range and variables, and `filter` if it says something.
pub fn scope(variables: &[&str], filter: &str) -> String {
    let mut sql = "$__timeFilter(timestamp)".to_owned();
    for name in variables {
        let _ignored = write!(sql, "\n  AND {name} IN (${{{name}:sqlstring}})");
    }
    if !filter.is_empty() {
        let _ignored = write!(sql, "\n  AND {filter}");
    }
    sql
}

/// Returns a variable with the values of `inner`, and with `none` when there is no value: an empty
/// list would become `IN ()`, which is no SQL, and every panel would show an error.
pub fn variable(name: &'static str, label: &'static str, inner: &str) -> Variable {
    let sql = format!(
        "SELECT coalesce(found.{name}, 'none') AS {name}\n\
         FROM (SELECT 1 AS one FROM long_sequence(1)) always\n\
         LEFT JOIN (SELECT {name}, 1 AS one FROM (\n{inner}\n)) found ON found.one = always.one\n\
         ORDER BY {name}"
    );
    Variable { name, label, sql }
}

/// Returns a table's query.
pub const fn table(sql: String) -> Query {
    Query { sql, format: Format::Table }
}

/// Returns a query whose result has a column `time`.
pub const fn series(sql: String) -> Query {
    Query { sql, format: Format::TimeSeries }
}

/// End of the range, or now if that is earlier (a range may end tonight).
pub const RANGE_END: &str = "least(cast(${__to}000L AS TIMESTAMP), now())";

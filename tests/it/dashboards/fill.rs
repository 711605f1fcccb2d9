//! Rows for dashboards: five daemons, ten connections, fifty pipelines, twenty strategies.

use std::time::Duration;

use super::super::support::questdb::QuestDb;
use super::super::support::wait::until;

/// One table's rows: how many series, the seconds between two of them, columns, and values with `@T`
/// (time), `@I` (number of the sample) and `@E` (number of the series).
struct Fill {
    table: &'static str,
    series: i64,
    step_s: i64,
    columns: &'static str,
    values: &'static str,
}

/// The default rates of 590,400 rows a day, and some rows of the small tables. Everything that panels
/// look for happens within every hour: gaps (each series has some in one hour of twelve), disconnections,
/// restarts, errors.
const FILLS: &[Fill] = &[
    Fill {
        table: "daemon_metrics",
        series: 5,
        step_s: 10,
        columns: "daemon, host, env, reachable, running, shutdown_requested, fetch_count, \
                  error_count, liquidation_count, uptime_seconds, last_fetch_time, last_error, \
                  poll_error, exchanges, symbols, instance, memory_bytes, restarts, cpu_percent, \
                  poll_ms, event_loop_lag_ms",
        values: "@T, 'daemon-' || @E, 'vps-1', 'prod', (@I % 300) > 5, (@I % 300) > 8, false, \
                 (@I % 170) * 7, (@I % 170) / 9, (@I % 170) / 5, (@I % 170) * 10.0, @T, \
                 CASE WHEN (@I % 30) = 0 THEN 'timeout' END, \
                 CASE WHEN (@I % 300) <= 5 THEN 'refused' END, 'binance,bybit', 'BTCUSDT,ETHUSDT', \
                 'instance-' || (@I / 170), 300000000L + (@I % 1000) * 100000, @I / 170, \
                 rnd_double() * 40, rnd_double() * 10, rnd_double() * 50",
    },
    Fill {
        table: "exchange_status",
        series: 10,
        step_s: 10,
        columns: "exchange, daemon, host, env, connected, latency_ms, reconnect_count, \
                  last_message_at, disconnected_at, rate_limit_used",
        values: "@T, 'exchange-' || (@E / 2), 'daemon-' || (@E % 5), 'vps-1', 'prod', \
                 (@I + @E * 10) % 200 > 6, 50 + rnd_double() * 200, @I / 200, @T, \
                 CASE WHEN (@I + @E * 10) % 200 <= 6 \
                 THEN dateadd('s', -cast(((@I + @E * 10) % 200) * 10 AS INT), @T) END, rnd_double()",
    },
    Fill {
        table: "pipeline_metrics",
        series: 50,
        step_s: 15,
        columns: "exchange, symbol, data_type, daemon, host, env, records_count, error_count, \
                  bytes_written, latency_ms, gap_detected, gap_duration_seconds",
        values: "@T, 'exchange-' || (@E % 5), 'S' || ((@E / 5) % 5), \
                 CASE WHEN @E < 20 THEN 'oi' WHEN @E < 40 THEN 'funding' ELSE 'liquidation' END, \
                 'daemon-' || (@E % 5), 'vps-1', 'prod', @I * 3, @I / 100, @I * 300, \
                 20 + rnd_double() * 100, \
                 (@I / 240 + @E) % 12 = 0 AND (@I + @E * 3) % 150 < 5, \
                 CASE WHEN (@I / 240 + @E) % 12 = 0 AND (@I + @E * 3) % 150 < 5 \
                 THEN ((@I + @E * 3) % 150) * 15.0 ELSE 0.0 END",
    },
    Fill {
        table: "trading_metrics",
        series: 20,
        step_s: 10,
        columns: "strategy, symbol, venue, currency, daemon, host, env, pnl, unrealized_pnl, \
                  position_size, exposure, equity, drawdown, fill_rate, orders_placed, \
                  orders_filled, orders_open",
        values: "@T, 'strategy-' || (@E / 4), 'S' || (@E % 4), 'binance', 'USDT', \
                 'daemon-' || (@E % 5), 'vps-1', 'prod', @I * 0.01, rnd_double() * 100 - 50, \
                 rnd_double(), rnd_double() * 10000, 10000 + @I * 0.01, rnd_double() * 0.1, 0.9, \
                 @I / 6, @I / 7, @E % 3",
    },
    Fill {
        table: "system_health",
        series: 6,
        step_s: 10,
        columns: "component, host, env, status, detail, cpu_percent, memory_bytes, \
                  memory_total_bytes, disk_free_bytes, disk_total_bytes, restarts, pending_rows, \
                  pending_bytes, oldest_seconds, rows_total, refused_total, latency_ms, wal_lag",
        values: "@T, CASE WHEN @E = 0 THEN 'host' WHEN @E = 1 THEN 'periscope' \
                 WHEN @E = 2 THEN 'questdb' WHEN @E = 3 THEN 'grafana' WHEN @E = 4 THEN 'spool' \
                 ELSE 'writer' END, 'vps-1', 'prod', \
                 CASE WHEN (@I % 200) < 4 THEN 'down' ELSE 'ok' END, '', rnd_double() * 30, \
                 200000000L, 8000000000L, 50000000000L - @I * 1000, 100000000000L, @I / 200, \
                 CASE WHEN @E = 4 THEN @I % 100 END, CASE WHEN @E = 4 THEN (@I % 100) * 100 END, \
                 CASE WHEN @E = 4 THEN rnd_double() END, CASE WHEN @E = 5 THEN @I * 70 END, \
                 CASE WHEN @E = 5 THEN @I / 1000 END, rnd_double() * 10, \
                 CASE WHEN @E = 2 THEN @I % 3 END",
    },
    Fill {
        table: "alert_events",
        series: 1,
        step_s: 300,
        columns: "rule, fingerprint, state, path, host, env, severity, labels, summary, value, \
                  sent_to, delivered_at, notification",
        values: "@T, CASE WHEN (@I / 2) % 2 = 0 THEN 'daemon_down' ELSE 'pipeline_gap' END, \
                 'f' || ((@I / 2) % 7), CASE WHEN @I % 4 < 3 THEN 'alerting' ELSE 'normal' END, \
                 CASE WHEN @I % 10 = 0 THEN 'fallback' ELSE 'grafana' END, 'vps-1', 'prod', \
                 CASE WHEN (@I / 2) % 2 = 0 THEN 'critical' ELSE 'warning' END, \
                 '{\"daemon\":\"daemon-1\"}', 'daemon-1 is down', 1.0, 'telegram', @T, 'a1b2'",
    },
    Fill {
        table: "sample_gaps",
        series: 1,
        step_s: 1200,
        columns: "reason, table_name, host, env, gap_from, gap_to, first_seq, last_seq, rows",
        values: "@T, 'cap', 'daemon_metrics', 'vps-1', 'prod', @T, @T, 1L, 2L, 100L",
    },
];

/// Fills `from..to` (ms) of every table, newest chunk first, one sample in `thinned`.
pub(super) async fn fill(questdb: &QuestDb, from_ms: i64, to_ms: i64, thinned: i64) {
    for one in FILLS {
        let step_ms = one.step_s * 1000 * thinned;
        let chunk_ms = (4_000_000 / one.series) * step_ms;
        let mut end = to_ms;
        while end > from_ms {
            let start = (end - chunk_ms).max(from_ms);
            let samples = (end - start) / step_ms;
            let first = (start - from_ms) / step_ms;
            let values = one
                .values
                .replace(
                    "@T",
                    &format!(
                        "cast({}L + ((x - 1) / {}) * {}L AS TIMESTAMP)",
                        start * 1000,
                        one.series,
                        step_ms * 1000
                    ),
                )
                .replace("@I", &format!("({first} + (x - 1) / {})", one.series))
                .replace("@E", &format!("((x - 1) % {})", one.series));
            let sql = format!(
                "INSERT INTO {} (timestamp, {}) SELECT {values} FROM long_sequence({})",
                one.table,
                one.columns,
                samples * one.series
            );
            questdb.sql(&sql).await.unwrap_or_else(|error| panic!("{}: {error}", one.table));
            end = start;
        }
    }
    until("tables and views to catch up", Duration::from_secs(600), || async {
        let behind = "SELECT name FROM wal_tables() WHERE suspended OR writerTxn < sequencerTxn";
        let tables = questdb.sql(behind).await?;
        let stale = "SELECT view_name, view_status, invalidation_reason FROM materialized_views() \
                     WHERE view_status <> 'valid' OR refresh_base_table_txn < base_table_txn";
        let views = questdb.sql(stale).await?;
        if tables.is_empty() && views.is_empty() {
            return Ok(());
        }
        Err(format!("{tables:?} {views:?}"))
    })
    .await;
}

//! Pipeline: does data keep coming, and where is it missing?

use super::marks;
use super::panel::{About, Dashboard, Kind, MANY_SERIES_POINTS, Panel, Section};
use super::sql::{DAEMONS, PIPELINES, Source, Value, table, value};
use super::style::{BLUE, Column, GREEN, RED, Scale, State, Unit, state};
use crate::model::view::GAP;

const STATES: [State; 2] = [state("0", "complete", GREEN), state("1", "gap", RED)];

const SOURCE: Source = PIPELINES;
const BY_EXCHANGE: &str = "exchange";
const BY_KIND: &str = "exchange, data_type";
const EXCHANGE: &str = "${__field.labels.exchange}";
const KIND: &str = "${__field.labels.exchange} · ${__field.labels.data_type}";
const DAEMON: &str = "${__field.labels.daemon} · ${__field.labels.host}";
const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

const LATENCY: Value = value("latency", "avg(latency_ms)", "avg(latency_ms)");

/// Returns the dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "pipeline",
        title: "Pipeline",
        description: "Does data keep coming, and where is it missing?",
        refresh: "10s",
        since: "6h",
        variables: vec![
            DAEMONS.variable("env", "Environment"),
            DAEMONS.variable("host", "Host"),
            DAEMONS.variable("daemon", "Daemon"),
            SOURCE.variable("exchange", "Exchange"),
            SOURCE.variable("symbol", "Symbol"),
        ],
        annotations: vec![marks::restarts(DAEMONS), marks::alerts()],
        sections: vec![
            Section { id: 100, title: "Records", panels: records() },
            Section { id: 101, title: "Gaps", panels: gaps() },
            Section { id: 102, title: "Storage and speed", panels: storage() },
        ],
    }
}

fn records() -> Vec<Panel> {
    vec![
        Panel::new(
            1,
            "oi_fetches",
            Kind::TimeSeries,
            "Open-interest fetches per hour",
            Unit::Count,
            About {
                what: "Open-interest records that came in, per hour and exchange.",
                healthy: "Level: symbols times fetches per hour.",
                act: "A fall to 0 for one exchange is that venue or its credentials; for all, the \
                      daemon.",
            },
            vec![SOURCE.rate(BY_EXCHANGE, "records_count", HOUR_MS, "data_type = 'oi'")],
        )
        .points(MANY_SERIES_POINTS)
        .named(EXCHANGE)
        .range(Some(0.0), None),
        Panel::new(
            2,
            "funding_fetches",
            Kind::TimeSeries,
            "Funding fetches per hour",
            Unit::Count,
            About {
                what: "Funding-rate records that came in, per hour and exchange.",
                healthy: "Level: symbols times fetches per hour.",
                act: "A fall to 0 for one exchange is that venue or its credentials; for all, the \
                      daemon.",
            },
            vec![SOURCE.rate(BY_EXCHANGE, "records_count", HOUR_MS, "data_type = 'funding'")],
        )
        .points(MANY_SERIES_POINTS)
        .named(EXCHANGE)
        .range(Some(0.0), None),
        Panel::new(
            3,
            "liquidations",
            Kind::TimeSeries,
            "Liquidations per minute",
            Unit::PerMinute,
            About {
                what: "Liquidation events that came in, per minute and exchange.",
                healthy: "Low, with bursts when the market moves.",
                act: "A burst on one exchange alone deserves a look at its feed; silence on all \
                      in a moving market is a dead stream.",
            },
            vec![SOURCE.rate(BY_EXCHANGE, "records_count", MINUTE_MS, "data_type = 'liquidation'")],
        )
        .points(MANY_SERIES_POINTS)
        .named(EXCHANGE)
        .range(Some(0.0), None),
        Panel::new(
            4,
            "daemon_liquidations",
            Kind::TimeSeries,
            "Liquidations per minute, as the daemons count",
            Unit::PerMinute,
            About {
                what: "The daemons' own count of liquidation events, per minute: also for daemons \
                       that report no pipelines.",
                healthy: "Follows the panel beside it.",
                act: "A difference between the two means events that are counted but not stored.",
            },
            vec![DAEMONS.rate("daemon, host, env", "liquidation_count", MINUTE_MS, "")],
        )
        .named(DAEMON)
        .range(Some(0.0), None),
        Panel::new(
            5,
            "records",
            Kind::TimeSeries,
            "Records per minute by kind",
            Unit::PerMinute,
            About {
                what: "Records of every kind of data that came in, per minute and exchange.",
                healthy: "Never 0 for longer than the fetch interval.",
                act: "A line at 0 is a pipeline that stands still though its daemon runs: see its \
                      errors, then the Exchange dashboard.",
            },
            vec![SOURCE.rate(BY_KIND, "records_count", MINUTE_MS, "")],
        )
        .points(MANY_SERIES_POINTS)
        .named(KIND)
        .range(Some(0.0), None)
        .explains(&["pipeline_stalled"]),
        Panel::new(
            6,
            "errors",
            Kind::TimeSeries,
            "Pipeline errors per minute",
            Unit::PerMinute,
            About {
                what: "Errors that the pipelines count, per minute and exchange.",
                healthy: "0.",
                act: "See Last errors on the Health dashboard.",
            },
            vec![SOURCE.rate(BY_KIND, "error_count", MINUTE_MS, "")],
        )
        .points(MANY_SERIES_POINTS)
        .named(KIND)
        .range(Some(0.0), None),
    ]
}

fn gaps() -> Vec<Panel> {
    let raw = format!("max({GAP})");
    let gap = Value { name: "gap", raw: &raw, hourly: "max(gap)" };
    let episodes = SOURCE
        .episodes(("gap_detected", "gap_duration_seconds"), ("gap = 1", "gap_duration_seconds"));
    let list = format!(
        "SELECT started, ended, exchange, symbol, data_type, daemon, host, seconds AS duration\n\
         FROM (\n{episodes}\n)\nORDER BY started DESC LIMIT 200"
    );
    vec![
        Panel::new(
            7,
            "gaps",
            Kind::StateTimeline,
            "Gaps over time",
            Unit::None,
            About {
                what: "Whether any symbol of an exchange and kind of data misses records.",
                healthy: "One green bar.",
                act: "The table below names symbols and durations; backfill what is missing once \
                      the venue answers again.",
            },
            vec![SOURCE.lines(BY_KIND, "max(gap)", gap, "")],
        )
        .size(24, 9)
        .named(KIND)
        .states(&STATES)
        .explains(&["pipeline_gap"]),
        Panel::new(
            8,
            "gap_list",
            Kind::Table,
            "Gaps",
            Unit::None,
            About {
                what: "Every gap in the range with its symbol and duration, newest first. Beyond \
                       7 days a gap is known to the hour.",
                healthy: "Empty.",
                act: "Same symbol again and again: its listing changed. All symbols of a venue at \
                      once: the venue was away; see the Exchange dashboard.",
            },
            vec![table(list)],
        )
        .column(Column::unit("duration", Unit::Seconds).scale(Scale::rule("pipeline_gap")))
        .empty("no gap in the range"),
    ]
}

fn storage() -> Vec<Panel> {
    vec![
        Panel::new(
            9,
            "storage_growth",
            Kind::TimeSeries,
            "Storage growth per hour",
            Unit::Bytes,
            About {
                what: "Bytes that the pipelines wrote to their Parquet files, per hour and \
                       exchange.",
                healthy: "Level, and small against the free disk.",
                act: "A jump is a new symbol or a loop that writes the same again; 0 with records \
                      coming in is a writer that fails.",
            },
            vec![SOURCE.rate(BY_EXCHANGE, "bytes_written", HOUR_MS, "")],
        )
        .points(MANY_SERIES_POINTS)
        .size(10, 8)
        .named(EXCHANGE)
        .range(Some(0.0), None),
        Panel::new(
            10,
            "storage_written",
            Kind::Stat,
            "Written in the range",
            Unit::Bytes,
            About {
                what: "Bytes that the pipelines wrote in the range, by exchange.",
                healthy: "In line with earlier days.",
                act: "Compare with free disk on the System dashboard.",
            },
            vec![SOURCE.increase(BY_EXCHANGE, "bytes_written", "")],
        )
        .size(4, 8)
        .named(EXCHANGE)
        .scale(Scale::plain(BLUE)),
        Panel::new(
            11,
            "latency",
            Kind::TimeSeries,
            "Fetch duration",
            Unit::Milliseconds,
            About {
                what: "How long a fetch takes, average by exchange and kind of data.",
                healthy: "Below the dashed mark.",
                act: "One exchange: the venue is slow or limits you. All: the machine or its \
                      network.",
            },
            vec![SOURCE.lines(BY_KIND, "avg(latency)", LATENCY, "")],
        )
        .size(10, 8)
        .named(KIND)
        .scale(Scale::rule("pipeline_latency"))
        .range(Some(0.0), None)
        .explains(&["pipeline_latency"]),
    ]
}

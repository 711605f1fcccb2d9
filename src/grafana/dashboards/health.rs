//! Health: are the daemons alive, what do they cost, do they make errors?

use super::marks;
use super::panel::{About, Dashboard, Kind, Panel, Section};
use super::sql::{DAEMONS, RANGE_END, Source, Value, series, table, value};
use super::style::{BLUE, Column, GREEN, GREY, ORANGE, RED, Scale, State, Unit, state};
use crate::model::view::{DAEMON_STATE, LONG_RANGE_MS};

/// `DAEMON_STATE`, and 4 for a daemon without a sample for three minutes.
const STATES: [State; 5] = [
    state("0", "unreachable", RED),
    state("1", "stopped", RED),
    state("2", "stopping", ORANGE),
    state("3", "running", GREEN),
    state("4", "no samples", GREY),
];

const SOURCE: Source = DAEMONS;
const LABELS: &str = "daemon, host, env";
const NAME: &str = "${__field.labels.daemon} · ${__field.labels.host}";

const UPTIME: Value =
    value("uptime", "last_not_null(uptime_seconds)", "last_not_null(uptime_seconds)");
const MEMORY: Value = value("memory", "avg(memory_bytes)", "avg(memory_bytes)");
const MEMORY_NOW: Value =
    value("memory", "last_not_null(memory_bytes)", "last_not_null(memory_bytes_last)");
const CPU: Value = value("cpu", "avg(cpu_percent)", "avg(cpu_percent)");
const LAG: Value = value("lag_ms", "max(event_loop_lag_ms)", "max(event_loop_lag_ms)");
const POLL: Value = value("poll", "avg(poll_ms)", "avg(poll_ms)");

/// Returns the dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "health",
        title: "Health",
        description: "Are the daemons alive, what do they cost, do they make errors?",
        refresh: "10s",
        since: "1h",
        variables: vec![
            SOURCE.variable("env", "Environment"),
            SOURCE.variable("host", "Host"),
            SOURCE.variable("daemon", "Daemon"),
        ],
        annotations: vec![marks::restarts(DAEMONS), marks::alerts()],
        sections: vec![
            Section { id: 100, title: "Now", panels: now() },
            Section { id: 101, title: "Resources", panels: resources() },
            Section { id: 102, title: "Errors and progress", panels: errors() },
        ],
    }
}

fn now() -> Vec<Panel> {
    let state_raw = format!("last({DAEMON_STATE})");
    let newest = SOURCE
        .newest_by_key(&[Value { name: "state", raw: &state_raw, hourly: "last(state_last)" }], "");
    let status = format!(
        "SELECT at AS time, {LABELS},\n  \
         CASE WHEN datediff('s', at, {RANGE_END}) > 180 THEN 4 ELSE state END AS value FROM (\n\
         {newest}\n)\nORDER BY time"
    );
    let worst_raw = format!("min({DAEMON_STATE})");
    let worst = Value { name: "state", raw: &worst_raw, hourly: "min(state_min)" };
    vec![
        Panel::new(
            1,
            "status",
            Kind::Stat,
            "Status",
            Unit::None,
            About {
                what: "State of every daemon at the end of the range.",
                healthy: "running. \"no samples\" means that for three minutes nothing reported \
                          for it, not even that it cannot be reached.",
                act: "Read the daemon's log and start it again; \"no samples\" for all daemons of \
                      a host points at periscope or the host itself.",
            },
            vec![series(status)],
        )
        .size(12, 6)
        .named(NAME)
        .states(&STATES)
        .empty("no daemon has reported yet")
        .explains(&["daemon_down", "daemon_unreachable"]),
        Panel::new(
            2,
            "uptime",
            Kind::Stat,
            "Uptime",
            Unit::Seconds,
            About {
                what: "Time since the daemon's process started, as it says itself.",
                healthy: "Grows steadily.",
                act: "A small value after a while means restarts: see Restarts and Last errors.",
            },
            vec![SOURCE.newest(LABELS, "min(uptime)", UPTIME, "")],
        )
        .size(6, 6)
        .named(NAME)
        .scale(Scale::plain(BLUE))
        .decimals(1),
        Panel::new(
            3,
            "memory_now",
            Kind::BarGauge,
            "Memory now",
            Unit::Bytes,
            About {
                what: "Resident memory of the daemon's process at the end of the range.",
                healthy: "Below the yellow mark.",
                act: "Look at the trend: a steady rise is a leak; restart the daemon before the \
                      machine runs out.",
            },
            vec![SOURCE.newest(LABELS, "sum(memory)", MEMORY_NOW, "")],
        )
        .size(6, 6)
        .named(NAME)
        .scale(Scale::rule("daemon_memory"))
        .range(Some(0.0), None),
        Panel::new(
            4,
            "state_timeline",
            Kind::StateTimeline,
            "Status over time",
            Unit::None,
            About {
                what: "The worst state of every daemon in each bucket; holes are times without \
                       any sample.",
                healthy: "One green bar.",
                act: "Compare the red stretches with Last errors and with the other daemons of \
                      the same host.",
            },
            vec![SOURCE.lines(LABELS, "min(state)", worst, "")],
        )
        .size(16, 8)
        .named(NAME)
        .states(&STATES),
        Panel::new(
            5,
            "restarts",
            Kind::Stat,
            "Restarts in the range",
            Unit::Count,
            About {
                what: "How often periscope saw a new process of the daemon in the range.",
                healthy: "0 apart from planned restarts.",
                act: "Last errors shows what came before; check for the kernel's out-of-memory \
                      killer.",
            },
            vec![SOURCE.increase(LABELS, "restarts", "")],
        )
        .size(8, 8)
        .named(NAME)
        .scale(Scale::rule("daemon_restarted"))
        .explains(&["daemon_restarted"]),
    ]
}

fn resources() -> Vec<Panel> {
    vec![
        Panel::new(
            6,
            "memory",
            Kind::TimeSeries,
            "Memory",
            Unit::Bytes,
            About {
                what: "Resident memory of the daemons' processes.",
                healthy: "Level, below the dashed marks.",
                act: "A line that only rises is a leak: restart the daemon, then look for what \
                      it keeps.",
            },
            vec![SOURCE.lines(LABELS, "sum(memory)", MEMORY, "")],
        )
        .named(NAME)
        .scale(Scale::rule("daemon_memory"))
        .range(Some(0.0), None)
        .explains(&["daemon_memory"]),
        Panel::new(
            7,
            "cpu",
            Kind::TimeSeries,
            "CPU",
            Unit::Percent,
            About {
                what: "CPU of the daemons' processes; 100 is one core.",
                healthy: "Well below 100: a Python daemon has one core to use.",
                act: "Near 100 the event loop falls behind: see Event-loop lag; fetch less or \
                      split the daemon.",
            },
            vec![SOURCE.lines(LABELS, "sum(cpu)", CPU, "")],
        )
        .named(NAME)
        .range(Some(0.0), None),
        Panel::new(
            8,
            "event_loop_lag",
            Kind::TimeSeries,
            "Event-loop lag",
            Unit::Milliseconds,
            About {
                what: "How late the daemon's event loop runs its callbacks, the worst in each \
                       bucket; 1000 means that it did not answer for a second.",
                healthy: "Below 100 ms.",
                act: "Something blocks the loop: a synchronous call, a long computation, a slow \
                      disk.",
            },
            vec![SOURCE.lines(LABELS, "max(lag_ms)", LAG, "")],
        )
        .named(NAME)
        .scale(Scale::rule("event_loop_blocked"))
        .range(Some(0.0), None)
        .explains(&["event_loop_blocked"]),
        Panel::new(
            9,
            "poll_time",
            Kind::TimeSeries,
            "Time to answer a poll",
            Unit::Milliseconds,
            About {
                what: "Time from periscope's request to the daemon's answer.",
                healthy: "A few milliseconds.",
                act: "Slow answers mean a busy event loop or machine.",
            },
            vec![SOURCE.lines(LABELS, "max(poll)", POLL, "")],
        )
        .named(NAME)
        .range(Some(0.0), None),
    ]
}

fn errors() -> Vec<Panel> {
    let growth = SOURCE.growth(&["fetch_count", "error_count"], "");
    let ratio = format!(
        "SELECT time, {LABELS},\n  CASE WHEN sum(fetch_count) > 0 \
         THEN sum(error_count) * 1.0 / sum(fetch_count) END AS value FROM (\n{growth}\n)\n\
         GROUP BY time, {LABELS} ORDER BY time"
    );
    vec![
        Panel::new(
            10,
            "error_rate",
            Kind::TimeSeries,
            "Errors per minute",
            Unit::PerMinute,
            About {
                what: "Errors that the daemons count, per minute; failed exchange results and \
                       retries count too.",
                healthy: "Near 0, below the dashed mark.",
                act: "Last errors shows the text; if all daemons rise at once, look at the \
                      network or the venue.",
            },
            vec![SOURCE.rate(LABELS, "error_count", 60_000, "")],
        )
        .named(NAME)
        .scale(Scale::rule("daemon_error_rate"))
        .range(Some(0.0), None)
        .explains(&["daemon_error_rate"]),
        Panel::new(
            11,
            "error_ratio",
            Kind::TimeSeries,
            "Errors per fetch",
            Unit::Share,
            About {
                what: "Errors divided by fetches in each bucket. A daemon whose venues all fail \
                       goes on counting fetches; this shows it.",
                healthy: "Below 5 %.",
                act: "Above the mark most of what it fetches fails: check the venues on the \
                      Exchange dashboard.",
            },
            vec![series(ratio)],
        )
        .named(NAME)
        .scale(Scale::rule("daemon_error_ratio"))
        .range(Some(0.0), None)
        .explains(&["daemon_error_ratio"]),
        Panel::new(
            12,
            "fetch_rate",
            Kind::TimeSeries,
            "Fetches per minute",
            Unit::PerMinute,
            About {
                what: "Fetches that the daemons count, per minute.",
                healthy: "A level of its own for every daemon, without falls to 0.",
                act: "0 while the status is running: the daemon hangs; restart it and keep its \
                      log.",
            },
            vec![SOURCE.rate(LABELS, "fetch_count", 60_000, "")],
        )
        .named(NAME)
        .range(Some(0.0), None)
        .explains(&["daemon_stuck"]),
        Panel::new(
            13,
            "last_errors",
            Kind::Table,
            "Last errors",
            Unit::None,
            About {
                what: "What the daemons reported as their last error, or why they could not be \
                       asked; each text once, with the times of its first and last sample in the \
                       range. A daemon never clears its last error, so an old one stays.",
                healthy: "Nothing recent.",
                act: "Start with the newest first sample: that is when something changed.",
            },
            vec![table(last_errors())],
        )
        .size(12, 8)
        .column(Column::width("daemon", 120))
        .column(Column::unit("samples", Unit::Count))
        .scale(Scale { base: GREEN, steps: Vec::new() })
        .empty("no error in the range"),
    ]
}

/// Each text of an error once, newest first.
fn last_errors() -> String {
    let scope = super::sql::scope(
        &["env", "host", "daemon"],
        "(last_error IS NOT NULL OR poll_error IS NOT NULL)",
    );
    let half = |table: &str, at: &str, comparison: &str| {
        format!(
            "SELECT daemon, host, env, coalesce(last_error, poll_error) AS error, \
             timestamp AS first_at, {at} AS last_at\nFROM {table}\n\
             WHERE ${{__to}} - ${{__from}} {comparison} {LONG_RANGE_MS}\n  AND {scope}"
        )
    };
    format!(
        "SELECT max(last_at) AS last_seen, min(first_at) AS first_seen, daemon, host, error, \
         count() AS samples\nFROM (\n{}\nUNION ALL\n{}\n)\n\
         GROUP BY daemon, host, env, error ORDER BY first_seen DESC LIMIT 100",
        half("daemon_metrics", "timestamp", "<="),
        half("daemon_metrics_1h", "at", ">"),
    )
}

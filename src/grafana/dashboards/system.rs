//! System: periscope itself, its database, its queue, its machine.

use super::marks;
use super::panel::{About, Dashboard, Kind, Panel, Section};
use super::sql::{DAEMONS, PARTS, RANGE_END, Source, Value, scope, series, table, value};
use super::style::{At, BLUE, Column, GREEN, GREY, RED, Scale, State, Unit, YELLOW, state};
use crate::model::view::COMPONENT_STATE;

/// `COMPONENT_STATE`, and 5 for a part without a row for three minutes.
const STATES: [State; 6] = [
    state("0", "down", RED),
    state("1", "degraded", YELLOW),
    state("2", "starting", BLUE),
    state("3", "off", GREY),
    state("4", "ok", GREEN),
    state("5", "no rows", GREY),
];

const SOURCE: Source = PARTS;
const BY_PART: &str = "component, host, env";
const PART: &str = "${__field.labels.component} · ${__field.labels.host}";
const BY_HOST: &str = "host, env";
const HOST: &str = "${__field.labels.host}";

const PENDING_NOW: Value =
    value("pending", "last_not_null(pending_rows)", "last_not_null(pending_rows_last)");
const BYTES: Value = value("bytes", "max(pending_bytes)", "max(pending_bytes)");
const OLDEST: Value = value("oldest", "max(oldest_seconds)", "max(oldest_seconds)");
const LATENCY: Value = value("latency", "avg(latency_ms)", "avg(latency_ms)");
const WAL_LAG: Value = value("lag_txn", "max(wal_lag)", "max(wal_lag)");
const DISK_FREE: Value =
    value("disk", "last_not_null(disk_free_bytes)", "last_not_null(disk_free_bytes)");
const DISK_USED: Value = value(
    "used",
    "1 - last_not_null(disk_free_bytes) * 1.0 / last_not_null(disk_total_bytes)",
    "1 - last_not_null(disk_free_bytes) * 1.0 / last_not_null(disk_total_bytes)",
);
const CPU: Value = value("cpu", "avg(cpu_percent)", "avg(cpu_percent)");
const MEMORY: Value = value("memory", "avg(memory_bytes)", "avg(memory_bytes)");

/// Returns the dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "system",
        title: "System",
        description: "periscope itself: its parts, its queue, its database, its machine.",
        refresh: "10s",
        since: "1h",
        variables: vec![SOURCE.variable("env", "Environment"), SOURCE.variable("host", "Host")],
        annotations: vec![marks::restarts(DAEMONS.narrowed(&["env", "host"])), marks::alerts()],
        sections: vec![
            Section { id: 100, title: "Parts", panels: parts() },
            Section { id: 101, title: "Queue and writer", panels: writer() },
            Section { id: 102, title: "Database", panels: database() },
            Section { id: 103, title: "Machine", panels: machine() },
        ],
    }
}

fn parts() -> Vec<Panel> {
    let raw = format!("last({COMPONENT_STATE})");
    let newest =
        SOURCE.newest_by_key(&[Value { name: "state", raw: &raw, hourly: "last(state_last)" }], "");
    let status = format!(
        "SELECT at AS time, {BY_PART},\n  \
         CASE WHEN datediff('s', at, {RANGE_END}) > 180 THEN 5 ELSE state END AS value FROM (\n\
         {newest}\n)\nORDER BY time"
    );
    let worst_raw = format!("min({COMPONENT_STATE})");
    let worst = Value { name: "state", raw: &worst_raw, hourly: "min(state_min)" };
    vec![
        Panel::new(
            1,
            "children",
            Kind::Stat,
            "Parts",
            Unit::None,
            About {
                what: "State of periscope's parts and children at the end of the range.",
                healthy: "ok, or off for what is switched off.",
                act: "Run periscope status: it names the cause.",
            },
            vec![series(status)],
        )
        .size(8, 6)
        .named(PART)
        .states(&STATES)
        .explains(&["questdb_down", "grafana_down"]),
        Panel::new(
            2,
            "parts",
            Kind::StateTimeline,
            "Parts over time",
            Unit::None,
            About {
                what: "The worst state of every part in each bucket; holes are times when \
                       periscope did not run or the database could not be reached for longer than \
                       the queue holds.",
                healthy: "Green.",
                act: "Run periscope status; the log names every change.",
            },
            vec![SOURCE.lines(BY_PART, "min(state)", worst, "")],
        )
        .size(12, 6)
        .named(PART)
        .states(&STATES),
        Panel::new(
            3,
            "part_restarts",
            Kind::Stat,
            "Restarts in the range",
            Unit::Count,
            About {
                what: "How often a child process was started again in the range.",
                healthy: "0.",
                act: "See the child's log in the data folder.",
            },
            vec![SOURCE.increase(BY_PART, "restarts", "")],
        )
        .size(4, 6)
        .named(PART)
        .scale(Scale { base: GREEN, steps: vec![(At::Value(1.0), YELLOW)] }),
    ]
}

fn writer() -> Vec<Panel> {
    let gaps = format!(
        "SELECT timestamp, reason, table_name, gap_from, gap_to, rows, host\nFROM sample_gaps\n\
         WHERE {}\nORDER BY timestamp DESC LIMIT 200",
        scope(&["env", "host"], "")
    );
    vec![
        Panel::new(
            4,
            "spool_now",
            Kind::Stat,
            "Rows waiting",
            Unit::Count,
            About {
                what: "Rows in the queue on disk that are not delivered, at the end of the range.",
                healthy: "Near 0; thousands only while the database is away.",
                act: "Check the database: nothing is lost while there is room for the queue.",
            },
            vec![SOURCE.newest(BY_HOST, "sum(pending)", PENDING_NOW, "component = 'spool'")],
        )
        .size(4, 8)
        .named(HOST)
        .scale(Scale::plain(BLUE)),
        Panel::new(
            5,
            "spool",
            Kind::TimeSeries,
            "Age of the oldest waiting row",
            Unit::Seconds,
            About {
                what: "How long the oldest undelivered record has waited in the queue on disk.",
                healthy: "Below a second; it grows while the database is away.",
                act: "Above the mark: the database does not answer or refuses; see Parts and \
                      Write latency.",
            },
            vec![SOURCE.lines(BY_HOST, "max(oldest)", OLDEST, "component = 'spool'")],
        )
        .size(10, 8)
        .named(HOST)
        .scale(Scale::rule("spool_growing"))
        .range(Some(0.0), None)
        .explains(&["spool_growing", "samples_lost"]),
        Panel::new(
            6,
            "spool_size",
            Kind::TimeSeries,
            "Queue on disk",
            Unit::Bytes,
            About {
                what: "Size of what waits in the queue on disk.",
                healthy: "Near 0, far below [spool] max_bytes.",
                act: "At max_bytes the oldest rows are dropped and listed below: bring the \
                      database back before, or raise the limit.",
            },
            vec![SOURCE.lines(BY_HOST, "sum(bytes)", BYTES, "component = 'spool'")],
        )
        .size(10, 8)
        .named(HOST)
        .range(Some(0.0), None),
        Panel::new(
            7,
            "written",
            Kind::TimeSeries,
            "Rows written",
            Unit::PerSecond,
            About {
                what: "Rows that the database acknowledged, per second.",
                healthy: "Level: what the daemons produce.",
                act: "0 with rows waiting: delivery stands still; the log names the reason.",
            },
            vec![SOURCE.rate(BY_HOST, "rows_total", 1_000, "component = 'writer'")],
        )
        .size(8, 8)
        .named(HOST)
        .range(Some(0.0), None),
        Panel::new(
            8,
            "write_latency",
            Kind::TimeSeries,
            "Write latency",
            Unit::Milliseconds,
            About {
                what: "Duration of the last write request, average of each bucket.",
                healthy: "Below 50 ms.",
                act: "High: the database or its disk is busy; see CPU and Free disk.",
            },
            vec![SOURCE.lines(BY_HOST, "avg(latency)", LATENCY, "component = 'writer'")],
        )
        .size(8, 8)
        .named(HOST)
        .scale(Scale { base: GREEN, steps: vec![(At::Value(500.0), YELLOW)] })
        .range(Some(0.0), None)
        .explains(&["canary_lost"]),
        Panel::new(
            9,
            "writer",
            Kind::Stat,
            "Rows refused in the range",
            Unit::Count,
            About {
                what: "Rows that the database refused for good; they lie in the dead-letter \
                       folder.",
                healthy: "0.",
                act: "periscope spool dead-letter lists them with the reason.",
            },
            vec![SOURCE.increase(BY_HOST, "refused_total", "component = 'writer'")],
        )
        .size(8, 8)
        .named(HOST)
        .scale(Scale::rule("rows_refused"))
        .explains(&["rows_refused"]),
        Panel::new(
            10,
            "sample_gaps",
            Kind::Table,
            "Samples lost",
            Unit::None,
            About {
                what: "Every loss of samples: the queue's limit, too little disk, or damage.",
                healthy: "Empty.",
                act: "cap: raise [spool] max_bytes; min_free: make room; damage: check the disk.",
            },
            vec![table(gaps)],
        )
        .size(24, 6)
        .column(Column::unit("rows", Unit::Count))
        .empty("no sample was lost"),
    ]
}

fn database() -> Vec<Panel> {
    vec![
        Panel::new(
            11,
            "questdb",
            Kind::TimeSeries,
            "Query latency",
            Unit::Milliseconds,
            About {
                what: "Duration of periscope's own check query, average of each bucket.",
                healthy: "Below 50 ms.",
                act: "High: the machine is busy, or dashboards with long ranges are open.",
            },
            vec![SOURCE.lines(BY_HOST, "avg(latency)", LATENCY, "component = 'questdb'")],
        )
        .named(HOST)
        .scale(Scale { base: GREEN, steps: vec![(At::Value(500.0), YELLOW)] })
        .range(Some(0.0), None),
        Panel::new(
            12,
            "wal_lag",
            Kind::TimeSeries,
            "WAL lag",
            Unit::Count,
            About {
                what: "Transactions that the database accepted and does not show yet.",
                healthy: "0 to a few.",
                act: "A rising line is a suspended table: periscope status names it; it answers \
                      writes with success while it shows nothing new.",
            },
            vec![SOURCE.lines(BY_HOST, "max(lag_txn)", WAL_LAG, "component = 'questdb'")],
        )
        .named(HOST)
        .scale(Scale { base: GREEN, steps: vec![(At::Value(100.0), YELLOW)] })
        .range(Some(0.0), None)
        .explains(&["questdb_wal_suspended"]),
    ]
}

fn machine() -> Vec<Panel> {
    vec![
        Panel::new(
            13,
            "disk",
            Kind::TimeSeries,
            "Free disk",
            Unit::Bytes,
            About {
                what: "Free bytes on the file system of the data folder.",
                healthy: "Above both marks.",
                act: "Shorten [retention] or add disk: below the second mark the queue stops \
                      growing, and a full disk stops the database.",
            },
            vec![SOURCE.lines(BY_HOST, "min(disk)", DISK_FREE, "component = 'host'")],
        )
        .named(HOST)
        .scale(Scale::rule_below("disk_low"))
        .range(Some(0.0), None)
        .explains(&["disk_low"]),
        Panel::new(
            14,
            "disk_used",
            Kind::BarGauge,
            "Used disk",
            Unit::Share,
            About {
                what: "Used share of the file system of the data folder, at the end of the range.",
                healthy: "Below 85 %.",
                act: "Shorten [retention] or add disk.",
            },
            vec![SOURCE.newest(BY_HOST, "max(used)", DISK_USED, "component = 'host'")],
        )
        .named(HOST)
        .scale(Scale {
            base: GREEN,
            steps: vec![(At::Value(0.85), YELLOW), (At::Value(0.95), RED)],
        })
        .range(Some(0.0), Some(1.0)),
        Panel::new(
            15,
            "cpu",
            Kind::TimeSeries,
            "CPU",
            Unit::Percent,
            About {
                what: "CPU of the host and of periscope's parts; 100 is one core.",
                healthy: "periscope below 5; the host below its number of cores times 100.",
                act: "The daemons come first: lengthen poll intervals if the machine is full.",
            },
            vec![SOURCE.lines(BY_PART, "sum(cpu)", CPU, "cpu_percent IS NOT NULL")],
        )
        .named(PART)
        .range(Some(0.0), None),
        Panel::new(
            16,
            "memory",
            Kind::TimeSeries,
            "Memory",
            Unit::Bytes,
            About {
                what: "Used memory of the host and resident memory of periscope's parts.",
                healthy: "Level.",
                act: "QuestDB's heap is [questdb] memory; the rest of its size is file cache.",
            },
            vec![SOURCE.lines(BY_PART, "sum(memory)", MEMORY, "memory_bytes IS NOT NULL")],
        )
        .named(PART)
        .range(Some(0.0), None),
    ]
}

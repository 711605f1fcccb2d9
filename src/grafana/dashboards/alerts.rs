//! Alerts: what is firing, what was, and who was told by whom?

use super::marks;
use super::panel::{About, Dashboard, Kind, Panel, Section, Variable};
use super::sql::{DAEMONS, scope, series, table, variable};
use super::style::{At, BLUE, Column, GREEN, GREY, ORANGE, RED, Scale, State, Unit, YELLOW, state};

const VARIABLES: &[&str] = &["env", "host", "rule"];

const SEVERITIES: [State; 3] = [
    state("critical", "critical", RED),
    state("warning", "warning", YELLOW),
    state("info", "info", BLUE),
];
const STATES: [State; 6] = [
    state("alerting", "firing", RED),
    state("pending", "pending", YELLOW),
    state("recovering", "recovering", ORANGE),
    state("normal", "resolved", GREEN),
    state("no_data", "no data", GREY),
    state("error", "error", ORANGE),
];
/// Worst first, as numbers for lanes.
const LANES: [State; 6] = [
    state("0", "firing", RED),
    state("1", "error", ORANGE),
    state("2", "recovering", ORANGE),
    state("3", "no data", GREY),
    state("4", "pending", YELLOW),
    state("5", "resolved", GREEN),
];
const LANE: &str = "CASE WHEN state = 'alerting' THEN 0 WHEN state = 'error' THEN 1 \
                    WHEN state = 'recovering' THEN 2 WHEN state = 'no_data' THEN 3 \
                    WHEN state = 'pending' THEN 4 ELSE 5 END";

/// Returns the dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "alerts",
        title: "Alerts",
        description: "What is firing, what was, and who was told by whom?",
        refresh: "10s",
        since: "24h",
        variables: vec![
            choice("env", "Environment", &[]),
            choice("host", "Host", &["env"]),
            choice("rule", "Rule", &["env", "host"]),
        ],
        annotations: vec![marks::restarts(DAEMONS.narrowed(&["env", "host"])), marks::alerts()],
        sections: vec![
            Section { id: 100, title: "Now", panels: now() },
            Section { id: 101, title: "History", panels: history() },
        ],
    }
}

/// The table holds few rows, so the values come from it for every range.
fn choice(name: &'static str, label: &'static str, parents: &[&str]) -> Variable {
    let inner = format!("SELECT DISTINCT {name} FROM alert_events WHERE {}", scope(parents, ""));
    variable(name, label, &inner)
}

/// The newest state of every alert.
fn newest() -> String {
    format!(
        "SELECT timestamp, rule, fingerprint, severity, state, path, summary, value, labels, \
         host, env, sent_to\nFROM alert_events\nWHERE {}\n\
         LATEST ON timestamp PARTITION BY rule, fingerprint, host, env",
        scope(VARIABLES, "")
    )
}

fn now() -> Vec<Panel> {
    let newest = newest();
    let count = format!(
        "SELECT now() AS time, sum(CASE WHEN severity = 'critical' THEN 1 ELSE 0 END) AS critical, \
         sum(CASE WHEN severity = 'critical' THEN 0 ELSE 1 END) AS other\nFROM (\n{newest}\n)\n\
         WHERE state IN ('alerting', 'recovering')"
    );
    let firing = format!(
        "SELECT timestamp AS since, severity, rule, summary, value, state, path, sent_to, host, \
         labels\nFROM (\n{newest}\n)\nWHERE state IN ('alerting', 'recovering')\n\
         ORDER BY timestamp DESC LIMIT 200"
    );
    vec![
        Panel::new(
            1,
            "firing_count",
            Kind::Stat,
            "Firing",
            Unit::Count,
            About {
                what: "Alerts that fire at the end of the range, critical and other.",
                healthy: "0.",
                act: "Work through the list beside, critical ones first.",
            },
            vec![series(count)],
        )
        .size(4, 8)
        .scale(Scale { base: GREEN, steps: vec![(At::Value(1.0), RED)] })
        .empty("0"),
        Panel::new(
            2,
            "firing",
            Kind::Table,
            "Firing now",
            Unit::None,
            About {
                what: "Every alert that began to fire in the range and has not resolved.",
                healthy: "Empty.",
                act: "The summary says what is wrong; the README has a section for each rule.",
            },
            vec![table(firing)],
        )
        .size(20, 8)
        .column(Column::states("severity", &SEVERITIES))
        .column(Column::states("state", &STATES))
        .column(Column::width("since", 170))
        .column(Column::unit("value", Unit::Count))
        .empty("nothing is firing"),
    ]
}

fn history() -> Vec<Panel> {
    let lanes = format!(
        "SELECT timestamp AS time, rule, host, env, min({LANE}) AS value\nFROM alert_events\n\
         WHERE {}\nSAMPLE BY $__interval",
        scope(VARIABLES, "")
    );
    let by_path = format!(
        "SELECT timestamp AS time, path, count() AS value\nFROM alert_events\nWHERE {}\n\
         SAMPLE BY $__interval FILL(0)",
        scope(VARIABLES, "sent_to IS NOT NULL AND sent_to <> ''")
    );
    let delay = format!(
        "SELECT timestamp AS time, path, \
         max(datediff('T', timestamp, delivered_at)) / 1000.0 AS value\nFROM alert_events\n\
         WHERE {}\nSAMPLE BY $__interval",
        scope(VARIABLES, "delivered_at IS NOT NULL")
    );
    let list = format!(
        "SELECT timestamp, state, severity, rule, summary, value, path, sent_to, delivered_at, \
         host, labels, notification\nFROM alert_events\nWHERE {}\n\
         ORDER BY timestamp DESC LIMIT 500",
        scope(VARIABLES, "")
    );
    vec![
        Panel::new(
            3,
            "lanes",
            Kind::StateTimeline,
            "Alerts over time",
            Unit::None,
            About {
                what: "One lane for every rule: its worst state whenever something changed; a \
                       state holds until the next change.",
                healthy: "Mostly \"resolved\".",
                act: "A lane that flips again and again needs another threshold or a longer wait: \
                      set them under [[alerts.rule]].",
            },
            vec![series(lanes)],
        )
        .size(24, 9)
        .named("${__field.labels.rule} · ${__field.labels.host}")
        .states(&LANES)
        .empty("no alert in the range"),
        Panel::new(
            4,
            "by_path",
            Kind::TimeSeries,
            "Notifications by path",
            Unit::Count,
            About {
                what: "Notifications sent, by who sent them: Grafana, or periscope's fallback \
                       while Grafana is away.",
                healthy: "All by grafana.",
                act: "Sent by fallback: Grafana was away; see Parts on the System dashboard.",
            },
            vec![series(by_path)],
        )
        .named("${__field.labels.path}")
        .every("1m")
        .range(Some(0.0), None)
        .empty("no notification in the range"),
        Panel::new(
            5,
            "delay",
            Kind::TimeSeries,
            "Delay of notifications",
            Unit::Seconds,
            About {
                what: "Time from the change of an alert until the first channel accepted the \
                       message, the longest in each bucket.",
                healthy: "Below 60 s.",
                act: "Longer: a channel refuses or limits; see the log for its answer.",
            },
            vec![series(delay)],
        )
        .named("${__field.labels.path}")
        .every("1m")
        .scale(Scale { base: GREEN, steps: vec![(At::Value(60.0), YELLOW)] })
        .range(Some(0.0), None)
        .empty("no notification in the range"),
        Panel::new(
            6,
            "history",
            Kind::Table,
            "History",
            Unit::None,
            About {
                what: "Every change of an alert and every notification in the range, newest first.",
                healthy: "Each firing is followed by its end, and each has a channel in sent_to.",
                act: "Empty sent_to on a firing: no channel accepted it; run periscope alerts \
                      test.",
            },
            vec![table(list)],
        )
        .size(24, 12)
        .column(Column::states("severity", &SEVERITIES))
        .column(Column::states("state", &STATES))
        .column(Column::width("timestamp", 170))
        .column(Column::unit("value", Unit::Count))
        .empty("no alert in the range")
        .explains(&["channel_failing"]),
    ]
}

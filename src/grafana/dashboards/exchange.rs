//! Exchange: is every venue connected, fast, and talking?

use super::marks;
use super::panel::{About, Dashboard, Kind, Panel, Section};
use super::sql::{DAEMONS, EXCHANGES, RANGE_END, Source, Value, series, table, value};
use super::style::{
    At, Column, GREEN, GREY, ORANGE, RED, Scale, Severity, State, Unit, YELLOW, state,
};
use crate::model::view::{CONNECTED, DISCONNECTED_SECONDS, MESSAGE_AGE_SECONDS};

/// `CONNECTED`, and 2 for a venue without a sample for three minutes.
const STATES: [State; 3] = [
    state("0", "disconnected", RED),
    state("1", "connected", GREEN),
    state("2", "no samples", GREY),
];

const SOURCE: Source = EXCHANGES;
const LABELS: &str = "exchange, daemon, host, env";
const NAME: &str = "${__field.labels.exchange} · ${__field.labels.daemon}";

const LATENCY: Value = value("latency", "avg(latency_ms)", "avg(latency_ms)");
const RATE_LIMIT: Value = value("used", "max(rate_limit_used)", "max(rate_limit_used)");

/// Returns the dashboard.
pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "exchange",
        title: "Exchange",
        description: "Is every venue connected, fast, and talking?",
        refresh: "5s",
        since: "1h",
        variables: vec![
            SOURCE.variable("env", "Environment"),
            SOURCE.variable("host", "Host"),
            SOURCE.variable("daemon", "Daemon"),
            SOURCE.variable("exchange", "Exchange"),
        ],
        annotations: vec![marks::restarts(DAEMONS), marks::alerts()],
        sections: vec![
            Section { id: 100, title: "Connection", panels: connection() },
            Section { id: 101, title: "Speed and limits", panels: speed() },
            Section { id: 102, title: "Downtime", panels: downtime() },
        ],
    }
}

/// Yellow and red once the loss of a connection has lasted as long as the alert waits.
fn lost() -> Scale {
    Scale {
        base: GREEN,
        steps: vec![
            (At::Hold("exchange_disconnected", Severity::Warning, 30.0), YELLOW),
            (At::Hold("exchange_disconnected", Severity::Critical, 300.0), RED),
        ],
    }
}

fn connection() -> Vec<Panel> {
    let raw = format!("last({CONNECTED})");
    let newest = SOURCE.newest_by_key(
        &[Value { name: "connected", raw: &raw, hourly: "last(connected_last)" }],
        "",
    );
    let status = format!(
        "SELECT at AS time, {LABELS},\n  \
         CASE WHEN datediff('s', at, {RANGE_END}) > 180 THEN 2 ELSE connected END AS value FROM (\n\
         {newest}\n)\nORDER BY time"
    );
    let lost_raw = format!("last({DISCONNECTED_SECONDS})");
    let lost_for =
        Value { name: "lost", raw: &lost_raw, hourly: "last(disconnected_seconds_last)" };
    let age_raw = format!("last({MESSAGE_AGE_SECONDS})");
    let age = Value { name: "age", raw: &age_raw, hourly: "last(message_age_seconds_last)" };
    vec![
        Panel::new(
            1,
            "connection",
            Kind::Stat,
            "Connection",
            Unit::None,
            About {
                what: "Whether each daemon is connected to each of its exchanges at the end of \
                       the range.",
                healthy: "All green.",
                act: "One red exchange: its status page, then the daemon's log. All red: this \
                      machine's network.",
            },
            vec![series(status)],
        )
        .size(12, 6)
        .named(NAME)
        .states(&STATES)
        .empty("no exchange has been reported")
        .explains(&["exchange_disconnected"]),
        Panel::new(
            2,
            "disconnected_for",
            Kind::BarGauge,
            "Disconnected for",
            Unit::Seconds,
            About {
                what: "Time since the connection was lost; 0 while connected.",
                healthy: "0. Yellow and red begin where the alert does.",
                act: "Restart the daemon if the venue is up again and the bar still grows: its \
                      reconnect is stuck.",
            },
            vec![SOURCE.newest(LABELS, "max(lost)", lost_for, "")],
        )
        .size(6, 6)
        .named(NAME)
        .scale(lost())
        .range(Some(0.0), None),
        Panel::new(
            3,
            "last_message_age",
            Kind::BarGauge,
            "Last message age",
            Unit::Seconds,
            About {
                what: "Time since the last message of each exchange, at the end of the range.",
                healthy: "Seconds, for a venue that trades. The alert learns the usual gap of \
                          every exchange and fires at three times that.",
                act: "Connected but silent: the subscription is lost; restart the stream.",
            },
            vec![SOURCE.newest(LABELS, "max(age)", age, "")],
        )
        .size(6, 6)
        .named(NAME)
        .scale(Scale {
            base: GREEN,
            steps: vec![(At::Value(60.0), YELLOW), (At::Value(300.0), RED)],
        })
        .range(Some(0.0), None)
        .explains(&["exchange_silent"]),
    ]
}

fn speed() -> Vec<Panel> {
    vec![
        Panel::new(
            4,
            "latency",
            Kind::TimeSeries,
            "Latency",
            Unit::Milliseconds,
            About {
                what: "Round trip or message latency, average of each bucket.",
                healthy: "Below 100 ms for a near venue; 300 ms is slow; the last mark is the \
                          alert's.",
                act: "All exchanges at once: this machine's network. One: the venue, or too many \
                      subscriptions.",
            },
            vec![SOURCE.lines(LABELS, "avg(latency)", LATENCY, "")],
        )
        .named(NAME)
        .scale(Scale {
            base: GREEN,
            steps: vec![
                (At::Value(100.0), YELLOW),
                (At::Value(300.0), ORANGE),
                (At::Rule("exchange_latency", Severity::Warning), RED),
            ],
        })
        .range(Some(0.0), None)
        .explains(&["exchange_latency"]),
        Panel::new(
            5,
            "rate_limit",
            Kind::TimeSeries,
            "Rate limit used",
            Unit::Share,
            About {
                what: "Used share of the exchange's rate limit, the highest in each bucket; empty \
                       where the daemon does not know it.",
                healthy: "Below 80 %.",
                act: "Near 100 % the exchange bans for minutes: fetch less often or fewer symbols.",
            },
            vec![SOURCE.lines(LABELS, "max(used)", RATE_LIMIT, "")],
        )
        .named(NAME)
        .scale(Scale { base: GREEN, steps: vec![(At::Value(0.8), YELLOW), (At::Value(0.95), RED)] })
        .range(Some(0.0), Some(1.0))
        .empty("no daemon reports its rate limits"),
        Panel::new(
            6,
            "reconnection_rate",
            Kind::TimeSeries,
            "Reconnections per hour",
            Unit::Count,
            About {
                what: "Reconnects that the daemons count, per hour and exchange.",
                healthy: "0; a few a day are normal for venues that close long connections.",
                act: "Above the mark: the venue refuses after login (key, IP list, limit), or the \
                      network flaps.",
            },
            vec![SOURCE.rate(LABELS, "reconnect_count", 3_600_000, "")],
        )
        .named(NAME)
        .range(Some(0.0), None)
        // A single reconnect in a bucket of seconds is hundreds per hour.
        .every("10m"),
        Panel::new(
            7,
            "reconnections",
            Kind::BarGauge,
            "Reconnections in the range",
            Unit::Count,
            About {
                what: "Reconnects that the daemons counted in the range.",
                healthy: "0 to a few. The mark is the alert's, which counts the last hour.",
                act: "Above the mark: the venue refuses after login (key, IP list, limit), or the \
                      network flaps.",
            },
            vec![SOURCE.increase(LABELS, "reconnect_count", "")],
        )
        .named(NAME)
        .scale(Scale::rule("exchange_reconnect_storm"))
        .range(Some(0.0), None)
        .explains(&["exchange_reconnect_storm"]),
    ]
}

fn downtime() -> Vec<Panel> {
    let raw = format!("min({CONNECTED})");
    let worst = Value { name: "connected", raw: &raw, hourly: "min(connected_min)" };
    let episodes = SOURCE.episodes(
        ("NOT connected", "datediff('s', disconnected_at, timestamp)"),
        ("connected_min = 0", "disconnected_seconds"),
    );
    let list = format!(
        "SELECT dateadd('s', -cast(greatest(seconds - datediff('s', started, ended), 0) AS INT), \
         started) AS disconnected,\n  ended AS last_seen_disconnected, exchange, daemon, host, \
         seconds AS downtime\nFROM (\n{episodes}\n)\nORDER BY disconnected DESC LIMIT 200"
    );
    vec![
        Panel::new(
            8,
            "downtime",
            Kind::StateTimeline,
            "Connection over time",
            Unit::None,
            About {
                what: "The worst state of every connection in each bucket; holes are times \
                       without any sample.",
                healthy: "One green bar.",
                act: "Red at the same time for several exchanges is this machine; for one daemon \
                      only, the daemon.",
            },
            vec![SOURCE.lines(LABELS, "min(connected)", worst, "")],
        )
        .size(24, 9)
        .named(NAME)
        .states(&STATES),
        Panel::new(
            9,
            "downtimes",
            Kind::Table,
            "Downtimes",
            Unit::None,
            About {
                what: "Every loss of a connection in the range: since when, and how long; newest \
                       first. Beyond 7 days it is known to the hour.",
                healthy: "Empty or short.",
                act: "Compare the times with Last errors on the Health dashboard.",
            },
            vec![table(list)],
        )
        .column(Column::unit("downtime", Unit::Seconds).scale(lost()))
        .empty("no loss of a connection in the range"),
    ]
}

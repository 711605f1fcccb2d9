//! Marks on every time axis: restarts of daemons, and alerts.

use super::panel::Annotation;
use super::sql::{self, Source, Value, value};
use super::style::{BLUE, RED};

/// Most marks of one kind.
const LIMIT: u32 = 200;

const INSTANCE_START: Value = value("started", "min(timestamp)", "min(timestamp)");

/// Returns the mark of every first sample of a new process. The first process in the range is no
/// restart: it was there before. `daemons` are the polls, narrowed by the dashboard's variables.
pub(super) fn restarts(daemons: Source) -> Annotation {
    let starts = daemons.by_instance(INSTANCE_START);
    Annotation {
        name: "Daemon restarts",
        color: BLUE,
        sql: format!(
            "SELECT started AS time, concat('restart of ', daemon) AS text, \
             concat(daemon, ',', host) AS tags FROM (\n\
             SELECT started, daemon, host, env, \
             row_number() OVER (PARTITION BY daemon, host, env ORDER BY started) AS number FROM (\n\
             {starts}\n)\n)\nWHERE number > 1 ORDER BY started DESC LIMIT {LIMIT}"
        ),
    }
}

/// Returns the mark of every alert that began to fire.
pub(super) fn alerts() -> Annotation {
    Annotation {
        name: "Alerts",
        color: RED,
        sql: format!(
            "SELECT timestamp AS time, summary AS text, concat(rule, ',', severity) AS tags\n\
             FROM alert_events\nWHERE {}\nORDER BY timestamp DESC LIMIT {LIMIT}",
            sql::scope(&["env", "host"], "state = 'alerting'")
        ),
    }
}

//! Rows of `alert_events`: every change of an alert, and every message that a channel accepted.

use super::book::{AlertRef, Path};
use super::engine::evaluate::Moved;
use super::grafana::Notified;
use super::message::Message;
use crate::base::time::Timestamp;
use crate::config::Node;
use crate::model::row::{Row, Value};
use crate::model::table::ALERT_EVENTS;
use crate::rules::machine::Phase;
use crate::rules::rule::{Labels, Rule};

/// Returns the row of a change of phase.
pub fn change(moved: &Moved, rule: &Rule, path: Path, node: &Node) -> Row {
    let value = moved.transition.value.or(moved.series.value);
    let figures = rule.figures();
    let summary = rule.summary.render(&moved.series.labels, value.unwrap_or(f64::NAN), &figures);
    row(moved.transition.at, node)
        .with("rule", rule.id.as_str())
        .with("fingerprint", moved.key.as_str())
        .with("state", moved.transition.to.word())
        .with("path", path.word())
        .with("severity", rule.severity.word())
        .with("labels", json(&moved.series.labels))
        .with("summary", summary)
        .with("value", value.filter(|value| value.is_finite()))
}

/// Returns the rows of a message that `channel` accepted at `now`: one for each alert in it.
pub fn delivered(
    message: &Message,
    alerts: &[AlertRef],
    channel: &str,
    node: &Node,
    now: Timestamp,
) -> Vec<Row> {
    let sent = |at: Timestamp| {
        row(at, node)
            .with("path", Path::Fallback.word())
            .with("severity", message.severity.word())
            .with("sent_to", channel)
            .with("delivered_at", Value::Time(now))
            .with("notification", message.id.as_str())
    };
    if alerts.is_empty() {
        let row = sent(now).with("rule", "periscope").with("state", message.kind.word());
        return vec![row.with("summary", message.title.as_str())];
    }
    let rows = alerts.iter().map(|alert| {
        let state = if alert.firing { Phase::Alerting } else { Phase::Normal };
        sent(now)
            .with("rule", alert.rule.as_str())
            .with("fingerprint", alert.key.as_str())
            .with("state", state.word())
            .with("summary", alert.summary.as_str())
    });
    rows.collect()
}

/// Returns the row of an alert that Grafana has told at `now`.
pub fn told_by_grafana(alert: &Notified, rule: &Rule, node: &Node, now: Timestamp) -> Row {
    let state = if alert.firing { Phase::Alerting } else { Phase::Normal };
    row(now, node)
        .with("rule", rule.id.as_str())
        .with("fingerprint", alert.key.as_str())
        .with("state", state.word())
        .with("path", Path::Grafana.word())
        .with("severity", rule.severity.word())
        .with("labels", json(&alert.labels))
        .with("summary", rule.summary.render(&alert.labels, f64::NAN, &rule.figures()))
        .with("sent_to", "grafana")
        .with("delivered_at", Value::Time(now))
}

fn row(at: Timestamp, node: &Node) -> Row {
    Row::new(&ALERT_EVENTS, at).with("host", node.host.as_str()).with("env", node.env.as_str())
}

fn json(labels: &Labels) -> String {
    serde_json::to_string(labels).unwrap_or_default()
}

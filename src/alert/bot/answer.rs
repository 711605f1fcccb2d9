//! Answers of the bot, out of the report. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

use super::command::COMMANDS;
use crate::alert::channel::telegram::{LONGEST, Text};
use crate::alert::layout::{Span, Style};
use crate::alert::text::{clean, units};
use crate::base::health::Health;
use crate::base::time::Timestamp;
use crate::model::report::{Daemon, Report};
use crate::rules::text::duration;

/// Longest foreign text in a line, units.
const FOREIGN: usize = 160;
/// Room for the line that counts what is not shown, units.
const MORE: usize = 40;

/// One line of an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Vec<Span>);

impl Line {
    fn own(text: impl Into<String>) -> Self {
        Self::default().then(text)
    }

    fn strong(text: impl Into<String>) -> Self {
        Self(vec![Span { text: text.into(), style: Style::Strong }])
    }

    /// Adds periscope's own words.
    fn then(mut self, text: impl Into<String>) -> Self {
        self.0.push(Span { text: text.into(), style: Style::Own });
        self
    }

    /// Adds words that may come from a daemon.
    fn foreign(mut self, text: &str) -> Self {
        self.0.push(Span { text: clean(text, FOREIGN), style: Style::Foreign });
        self
    }

    fn units(&self) -> usize {
        self.0.iter().map(|span| units(&span.text)).sum::<usize>() + 1
    }
}

/// Returns as many `lines` as fit into one message; the rest is counted.
pub(super) fn text(lines: &[Line]) -> Text {
    let mut spans = Vec::new();
    let mut used = 0;
    for (index, line) in lines.iter().enumerate() {
        used += line.units();
        // Telegram takes 100 styled places at most.
        let styled = spans.iter().filter(|span: &&Span| span.style != Style::Own).count();
        if used > LONGEST - MORE || styled + line.0.len() > 100 {
            let more = format!("… and {} lines more", lines.len() - index);
            spans.push(Span { text: more, style: Style::Own });
            break;
        }
        spans.extend(line.0.iter().cloned());
        spans.push(Span { text: "\n".to_owned(), style: Style::Own });
    }
    Text::of(&spans)
}

pub(super) fn help() -> Vec<Line> {
    COMMANDS.iter().map(|(name, does)| Line::own(format!("{name} – {does}"))).collect()
}

/// Returns `words` alone.
pub(super) fn said(words: &str) -> Vec<Line> {
    vec![Line::default().foreign(words)]
}

pub(super) fn status(report: &Report, now: Timestamp) -> Vec<Line> {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for daemon in &report.daemons {
        *states.entry(daemon.state.as_str()).or_default() += 1;
    }
    let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let daemons = if states.is_empty() { "none".to_owned() } else { states.join(", ") };
    let ill = report.parts.values().filter(|entry| !entry.health.is_ok()).count();
    let parts = if ill == 0 { "all ok".to_owned() } else { format!("{ill} not ok, see /health") };
    let up = duration(now.since(report.started_at).as_secs_f64().round());
    vec![
        Line::strong("periscope")
            .then(" on ")
            .foreign(&report.host)
            .then(format!(" ({}), version {}, up {up}", report.env, report.version)),
        Line::own(format!("Daemons: {daemons}")),
        Line::own(format!(
            "Alerts: {} firing, sent by {}",
            report.alerts.firing.len(),
            report.alerts.path
        )),
        Line::own(format!("QuestDB: {}, Grafana: {}", report.questdb.state, report.grafana.state)),
        Line::own(format!("Spool: {} rows wait", report.spool.rows)),
        Line::own(format!("Parts: {parts}")),
    ]
}

pub(super) fn daemons(report: &Report, now: Timestamp) -> Vec<Line> {
    let mut lines: Vec<Line> = report.daemons.iter().map(|daemon| one(daemon, now)).collect();
    if lines.is_empty() {
        lines.push(Line::own("No daemon is known yet."));
    }
    lines
}

fn one(daemon: &Daemon, now: Timestamp) -> Line {
    let mark = if daemon.state == "up" { "🟢 " } else { "🔴 " };
    let line = Line::own(mark).foreign(&daemon.name).then(format!(" {}", daemon.state));
    let line = match daemon.last_success_at {
        Some(at) => line.then(format!(", sample {} ago", age(at, now))),
        None => line.then(", no sample yet"),
    };
    match &daemon.poll_error {
        Some(error) => line.then(", ").foreign(error),
        None => line,
    }
}

fn age(at: Timestamp, now: Timestamp) -> String {
    duration(now.since(at).as_secs_f64().round())
}

/// Returns the object under `key` of the document of `daemon`.
fn section<'a>(daemon: &'a Daemon, key: &str) -> Option<&'a serde_json::Map<String, Value>> {
    daemon.status.as_ref()?.get(key)?.as_object()
}

pub(super) fn exchanges(report: &Report) -> Vec<Line> {
    let mut lines = Vec::new();
    for daemon in &report.daemons {
        for (venue, state) in section(daemon, "exchange_status").into_iter().flatten() {
            let flag = |key: &str| state.get(key).and_then(Value::as_bool);
            let connected = flag("connected").or_else(|| flag("ws_connected"));
            let (mark, word) = match connected.or_else(|| flag("rest_connected")) {
                // An old document says nothing about now.
                _ if daemon.state != "up" => ("⚪ ", " unknown: the daemon is not up"),
                Some(true) => ("🟢 ", " connected"),
                Some(false) => ("🔴 ", " disconnected"),
                None => ("⚪ ", " unknown"),
            };
            let line = Line::own(mark).foreign(&daemon.name).then(": ").foreign(venue).then(word);
            let latency = state.get("latency_ms").and_then(Value::as_f64);
            lines.push(match latency.filter(|_| word == " connected") {
                Some(latency) => line.then(format!(", {latency:.0} ms")),
                None => line,
            });
        }
    }
    if lines.is_empty() {
        lines.push(Line::own("No daemon says anything about its exchanges."));
    }
    lines
}

pub(super) fn pnl(report: &Report) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut totals: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for daemon in &report.daemons {
        for (strategy, entries) in section(daemon, "trading").into_iter().flatten() {
            let entries = entries.as_array().map_or(std::slice::from_ref(entries), Vec::as_slice);
            for entry in entries {
                let number = |key: &str| entry.get(key).and_then(Value::as_f64);
                let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
                let (pnl, open) = (number("pnl"), number("unrealized_pnl"));
                if pnl.is_none() && open.is_none() {
                    continue;
                }
                let total = totals.entry(text("currency").to_owned()).or_default();
                total.0 += pnl.unwrap_or(0.0);
                total.1 += open.unwrap_or(0.0);
                let line = Line::own("- ").foreign(strategy);
                let symbol = text("symbol");
                let line = if symbol.is_empty() { line } else { line.then(" ").foreign(symbol) };
                let line = line.then(format!(": {}, open {} ", amount(pnl), amount(open)));
                let stale = if daemon.state == "up" { "" } else { " (the daemon is not up)" };
                let currency = text("currency");
                let line = if currency.is_empty() { line } else { line.foreign(currency) };
                lines.push(line.then(stale));
            }
        }
    }
    for (currency, (pnl, open)) in totals.into_iter().rev() {
        let line = Line::strong("Total").then(format!(
            ": {}, open {} ",
            amount(Some(pnl)),
            amount(Some(open))
        ));
        let line = if currency.is_empty() { line } else { line.foreign(&currency) };
        lines.insert(0, line);
    }
    if lines.is_empty() {
        lines.push(Line::own("No daemon reports profit or loss."));
    }
    lines
}

fn amount(value: Option<f64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:+.2}"))
}

/// An alert that fires, as the report lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Firing {
    pub(super) rule: String,
    pub(super) daemon: Option<String>,
}

/// Returns what fires, of `rule` or of any.
pub(super) fn firing(report: &Report, rule: Option<&str>) -> Vec<Firing> {
    let all = report.alerts.firing.iter().filter_map(|alert| {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let daemon = text(alert.get("labels").and_then(|labels| labels.get("daemon")));
        Some(Firing { rule: text(alert.get("rule"))?, daemon })
    });
    let mut found: Vec<Firing> = Vec::new();
    for one in all.filter(|one| rule.is_none_or(|rule| one.rule == rule)) {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

pub(super) fn alerts(report: &Report, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    for alert in &report.alerts.firing {
        let text = |key: &str| alert.get(key).and_then(Value::as_str).unwrap_or_default();
        let mark = match text("severity") {
            "critical" => "🔴 ",
            "warning" => "🟠 ",
            _ => "🔵 ",
        };
        let line = Line::own(mark).foreign(text("summary"));
        let line = match Timestamp::parse(text("since")) {
            Some(since) => line.then(format!(", for {}", age(since, now))),
            None => line,
        };
        lines.push(line.then(" – ").foreign(text("rule")));
    }
    if lines.is_empty() {
        lines.push(Line::own(if report.alerts.path == "off" {
            "Alerting is off."
        } else {
            "✅ Nothing fires."
        }));
    }
    lines
}

pub(super) fn health(report: &Report, now: Timestamp) -> Vec<Line> {
    let parts = report.parts.iter().map(|(part, entry)| {
        let name = format!("{part:?}").to_lowercase();
        let (mark, word, reason) = match &entry.health {
            Health::Ok => ("🟢", "ok", None),
            Health::Off => ("⚪", "off", None),
            Health::Starting { doing } => ("🟡", "starting", Some(doing)),
            Health::Degraded { reason } => ("🟠", "degraded", Some(reason)),
            Health::Down { reason } => ("🔴", "down", Some(reason)),
        };
        let line = Line::own(format!("{mark} {name} {word} for {}", age(entry.since, now)));
        match reason.filter(|reason| !reason.is_empty()) {
            Some(reason) => line.then(": ").foreign(reason),
            None => line,
        }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_cut_between_lines_and_the_rest_is_counted() {
        let line = |n: usize| Line::own("🟢 ").foreign(&format!("daemon_{n}")).then(" up");
        let lines: Vec<Line> = (0..500).map(line).collect();
        let text = text(&lines);
        let shown = text.as_str();
        assert!(units(shown) <= LONGEST && text.entities().len() <= 100, "{}", units(shown));
        let last = shown.lines().last().unwrap();
        let count = shown.lines().count() - 1;
        assert_eq!(last, format!("… and {} lines more", 500 - count));
        let long: Vec<Line> = (0..50).map(|_| Line::default().foreign(&"💥".repeat(900))).collect();
        assert!(units(super::text(&long).as_str()) <= LONGEST);
        assert_eq!(super::text(&lines[..2]).as_str(), "🟢 daemon_0 up\n🟢 daemon_1 up\n");
    }

    #[test]
    fn amounts_have_a_sign_and_what_is_not_known_is_no_zero() {
        assert_eq!(amount(Some(12.5)), "+12.50");
        assert_eq!(amount(Some(-0.256)), "-0.26");
        assert_eq!(amount(None), "unknown");
    }
}

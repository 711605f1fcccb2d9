//! Alerts as words: title, facts and advice of a message, out of the rule's own texts. Pure.

use std::collections::BTreeMap;

use super::book::{AlertRef, Series};
use super::message::clock_time;
use super::sender::Handover;
use crate::base::time::Timestamp;
use crate::rules::rule::Rule;
use crate::rules::text;

/// Alerts that a message names; the rest is counted.
const NAMED: usize = 20;
/// Longest last error in a message, characters.
const ERROR_LENGTH: usize = 300;

/// One alert of a message.
#[derive(Debug, Clone, Copy)]
pub struct Alert<'a> {
    /// Fingerprint.
    pub key: &'a str,
    /// The series.
    pub series: &'a Series,
    /// Its rule.
    pub rule: &'a Rule,
}

/// Title, facts and advice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    /// One line.
    pub title: String,
    /// Names and values.
    pub facts: Vec<(String, String)>,
    /// What to do.
    pub advice: Option<String>,
}

impl Alert<'_> {
    /// Returns the one line that tells of it.
    pub fn summary(&self) -> String {
        let value = self.series.value.unwrap_or(f64::NAN);
        self.rule.summary.render(&self.series.labels, value, &self.rule.figures())
    }

    /// Returns it as an entry of a message names it.
    pub fn reference(&self, firing: bool) -> AlertRef {
        AlertRef {
            key: self.key.to_owned(),
            rule: self.rule.id.clone(),
            summary: self.summary(),
            severity: self.rule.severity,
            firing,
        }
    }

    fn value(&self) -> Option<String> {
        let value = self.series.value?;
        let figure = |value| text::figure(self.rule.unit, value);
        let side = self.rule.limit.comparison.word();
        let threshold = figure(self.rule.limit.threshold);
        Some(format!("{} (alert {side} {threshold})", figure(value)))
    }
}

/// How a message of firing alerts differs from the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extra {
    /// It was told before and still fires.
    pub again: bool,
    /// It comes and goes.
    pub flapping: bool,
}

/// Returns the words for alerts that fire; `errors` are the last errors by daemon.
pub fn firing(
    alerts: &[Alert<'_>],
    errors: &BTreeMap<String, String>,
    extra: Extra,
    now: Timestamp,
) -> Words {
    let mut words = match alerts {
        [alert] => {
            let mut facts = Vec::new();
            let since = alert.series.state.firing_since().unwrap_or(now);
            facts.push(("Since".to_owned(), clock_time(since)));
            facts.extend(alert.value().map(|value| ("Value".to_owned(), value)));
            facts.extend(labels(alert.series));
            let error = alert.series.labels.get("daemon").and_then(|daemon| errors.get(daemon));
            facts.extend(error.map(|error| ("Last error".to_owned(), cut(error))));
            let value = alert.series.value.unwrap_or(f64::NAN);
            let figures = alert.rule.figures();
            let advice = alert.rule.description.render(&alert.series.labels, value, &figures);
            Words {
                title: alert.summary(),
                facts,
                advice: Some(advice).filter(|advice| !advice.is_empty()),
            }
        }
        _ => several(alerts, "fire"),
    };
    if extra.again {
        words.facts.insert(0, ("Still firing".to_owned(), "told before, not over yet".to_owned()));
    }
    if extra.flapping {
        let text = "comes and goes; no more messages until it is steady for 10m";
        words.facts.insert(0, ("Flapping".to_owned(), text.to_owned()));
    }
    words
}

/// Returns the words for alerts that are over.
pub fn resolved(alerts: &[Alert<'_>], now: Timestamp) -> Words {
    let [alert] = alerts else { return several(alerts, "are over") };
    let told = alert.series.told.as_ref();
    let since = told.map_or(now, |told| told.since);
    let over = alert.series.over_at.unwrap_or(now);
    let mut facts = vec![
        ("Lasted".to_owned(), text::duration(over.since(since).as_secs_f64().round())),
        ("Since".to_owned(), clock_time(since)),
        ("Over at".to_owned(), clock_time(over)),
    ];
    facts.extend(labels(alert.series));
    Words { title: alert.summary(), facts, advice: None }
}

fn several(alerts: &[Alert<'_>], what: &str) -> Words {
    let mut titles: Vec<&str> = alerts.iter().map(|alert| alert.rule.title.as_str()).collect();
    titles.dedup();
    let title = match titles.as_slice() {
        [one] => format!("{one}: {} alerts {what}", alerts.len()),
        _ => format!("{} alerts {what}", alerts.len()),
    };
    let mut facts: Vec<(String, String)> = alerts
        .iter()
        .take(NAMED)
        .map(|alert| (alert.rule.title.clone(), alert.summary()))
        .collect();
    if alerts.len() > NAMED {
        facts.push(("And".to_owned(), format!("{} more", alerts.len() - NAMED)));
    }
    let descriptions: Vec<&Rule> = alerts.iter().map(|alert| alert.rule).collect();
    let advice = match descriptions.as_slice() {
        [first, rest @ ..] if rest.iter().all(|rule| rule.id == first.id) && what == "fire" => {
            Some("`periscope alerts list` names them all.".to_owned())
        }
        _ => None,
    };
    Words { title, facts, advice }
}

/// Returns what a cause explains, as lines.
pub fn children(alerts: &[Alert<'_>]) -> Vec<String> {
    let mut lines: Vec<String> = alerts.iter().take(NAMED).map(Alert::summary).collect();
    if alerts.len() > NAMED {
        lines.push(format!("and {} more", alerts.len() - NAMED));
    }
    lines
}

/// Returns the words of a change of who sends.
pub fn handover(handover: &Handover, open: usize) -> Words {
    let open = ("Open alerts".to_owned(), open.to_string());
    match handover {
        Handover::TookOver { since, reason } => Words {
            title: "periscope sends alerts now, because Grafana does not".to_owned(),
            facts: vec![
                ("Since".to_owned(), clock_time(*since)),
                ("Reason".to_owned(), reason.clone()),
                open,
            ],
            advice: Some(
                "Nothing is missed meanwhile. `periscope status` says what is wrong with Grafana."
                    .to_owned(),
            ),
        },
        Handover::HandedBack { since } => Words {
            title: "Grafana sends alerts again".to_owned(),
            facts: vec![("periscope sent since".to_owned(), clock_time(*since)), open],
            advice: Some("What periscope told of, it also tells the end of.".to_owned()),
        },
    }
}

/// Returns the words of a digest of messages that could not be delivered in time.
pub fn digest(messages: usize, since: Timestamp, alerts: &[AlertRef], now: Timestamp) -> Words {
    let firing: Vec<&AlertRef> = alerts.iter().filter(|alert| alert.firing).collect();
    let mut facts = vec![
        ("From".to_owned(), clock_time(since)),
        ("To".to_owned(), clock_time(now)),
        ("Still firing".to_owned(), firing.len().to_string()),
        ("Over".to_owned(), (alerts.len() - firing.len()).to_string()),
    ];
    let lines = firing.iter().take(NAMED);
    facts.extend(lines.map(|alert| (alert.severity.word().to_owned(), alert.summary.clone())));
    if firing.len() > NAMED {
        facts.push(("And".to_owned(), format!("{} more", firing.len() - NAMED)));
    }
    Words {
        title: format!("{messages} messages could not be delivered here in time"),
        facts,
        advice: Some("`periscope alerts history` has them all.".to_owned()),
    }
}

/// Labels that people look for first, in this order.
const FIRST: [&str; 6] = ["daemon", "exchange", "venue", "symbol", "strategy", "channel"];
const LAST: [&str; 2] = ["host", "env"];

fn labels(series: &Series) -> Vec<(String, String)> {
    let rank = |name: &str| match FIRST.iter().position(|first| *first == name) {
        Some(place) => place,
        None => FIRST.len() + LAST.iter().position(|last| *last == name).map_or(0, |at| at + 1),
    };
    let mut told: Vec<(&String, &String)> =
        series.labels.iter().filter(|(_, value)| !value.is_empty()).collect();
    told.sort_by_key(|(name, _)| rank(name));
    told.into_iter().map(|(name, value)| (capital(name), value.clone())).collect()
}

/// Returns `data_type` as `Data type`.
fn capital(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters.map(|c| if c == '_' { ' ' } else { c })).collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(ERROR_LENGTH) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

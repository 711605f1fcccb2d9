//! What pages, API and commands see of alerts; and what they may ask for. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::book::{Book, Change, HandMute, Series};
use super::noise::cause::{self, Firing};
use super::noise::mute;
use crate::base::time::Timestamp;
use crate::model::severity::Severity;
use crate::rules::rule::Rule;

/// Returns the alerts that fire, as `GET /api/v1/status` lists them.
pub fn firing(book: &Book, rules: &BTreeMap<String, Rule>) -> Vec<Value> {
    let firing = alerts(book, rules, |series| series.state.firing_since().is_some());
    let causes = cause::causes(&firing);
    let mut list: Vec<(&Firing<'_>, Value)> =
        firing.iter().map(|alert| (alert, one(alert, causes.get(alert.key).copied()))).collect();
    list.sort_by(|(left, _), (right, _)| {
        (right.rule.severity, &left.rule.id, left.key).cmp(&(
            left.rule.severity,
            &right.rule.id,
            right.key,
        ))
    });
    list.into_iter().map(|(_, value)| value).collect()
}

fn alerts<'a>(
    book: &'a Book,
    rules: &'a BTreeMap<String, Rule>,
    wanted: impl Fn(&Series) -> bool,
) -> Vec<Firing<'a>> {
    book.series
        .iter()
        .filter(|(_, series)| wanted(series))
        .filter_map(|(key, series)| {
            rules.get(&series.rule).map(|rule| Firing { key, series, rule })
        })
        .collect()
}

fn one(alert: &Firing<'_>, cause: Option<&str>) -> Value {
    let Firing { key, series, rule } = alert;
    let value = series.value.unwrap_or(f64::NAN);
    json!({
        "fingerprint": key,
        "rule": rule.id,
        "title": rule.title,
        "severity": rule.severity.word(),
        "state": series.state.phase().word(),
        "since": series.state.firing_since(),
        "summary": rule.summary.render(&series.labels, value, &rule.figures()),
        "labels": series.labels,
        "value": series.value,
        "read_from": series.via.word(),
        "told_at": series.told.as_ref().map(|told| told.at),
        "told_by": series.told.as_ref().map(|told| told.by.word()),
        "explained_by": cause,
    })
}

/// Returns everything, as `GET /api/v1/alerts` does.
pub fn everything(
    book: &Book,
    rules: &BTreeMap<String, Rule>,
    channels: &[&'static str],
    now: Timestamp,
) -> Value {
    let pending =
        alerts(book, rules, |series| series.state.phase() == crate::rules::machine::Phase::Pending);
    let channels: BTreeMap<&str, Value> = channels
        .iter()
        .map(|name| {
            let state = book.channels.get(*name).cloned().unwrap_or_default();
            let value = json!({
                "failures": state.failures,
                "error": state.error,
                "delivered_at": state.delivered_at,
            });
            (*name, value)
        })
        .collect();
    let mutes: Vec<Value> = book
        .mutes
        .iter()
        .filter(|(_, mute)| mute.until > now)
        .map(|(id, mute)| {
            json!({
                "id": id,
                "until": mute.until,
                "rule": mute.rule,
                "daemon": mute.daemon,
                "severity": mute.severity.word(),
                "reason": mute.reason,
            })
        })
        .collect();
    json!({
        "path": book.sender.path().word(),
        "firing": firing(book, rules),
        "pending": pending.iter().map(|alert| one(alert, None)).collect::<Vec<_>>(),
        "mutes": mutes,
        "channels": channels,
        "waiting_messages": book.entries.values().filter(|entry| entry.is_waiting()).count(),
    })
}

/// What `POST /api/v1/alerts/mute` takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MuteRequest {
    /// For how long, seconds.
    pub seconds: u64,
    /// Id of the rule; without it any.
    pub rule: Option<String>,
    /// Name of the daemon; without it any.
    pub daemon: Option<String>,
    /// The highest severity that is muted; without it all.
    pub severity: Option<Severity>,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// What `POST /api/v1/alerts/unmute` takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmuteRequest {
    /// Id of the mute; without it all.
    pub id: Option<String>,
}

/// Mutes by hand; more are refused.
const MUTES: usize = 100;

/// Returns the change that mutes, and the id of the mute.
///
/// # Errors
/// The request makes no sense, with the reason.
pub fn muted(
    book: &Book,
    request: MuteRequest,
    rules: &BTreeMap<String, Rule>,
    now: Timestamp,
) -> Result<(Vec<Change>, String), String> {
    if request.seconds == 0 || request.seconds > mute::LONGEST.as_secs() {
        let days = mute::LONGEST.as_secs() / 86_400;
        return Err(format!("a mute lasts from a second to {days} days"));
    }
    if let Some(id) = &request.rule
        && !rules.values().any(|rule| rule.id == *id)
    {
        return Err(format!("there is no rule {id:?}"));
    }
    if book.mutes.len() >= MUTES {
        return Err(format!("there are {MUTES} mutes already: end some of them"));
    }
    let taken = |number: &u64| book.mutes.contains_key(&format!("m{number}"));
    let number = (1..).find(|number| !taken(number)).unwrap_or(0);
    let id = format!("m{number}");
    let mute = HandMute {
        until: now.plus(Duration::from_secs(request.seconds)),
        rule: request.rule,
        daemon: request.daemon,
        severity: request.severity.unwrap_or(Severity::Critical),
        reason: request.reason.chars().take(200).collect(),
    };
    Ok((vec![Change::Mute { id: id.clone(), mute: Some(mute) }], id))
}

/// Returns the changes that end mutes, and how many.
///
/// # Errors
/// There is no such mute.
pub fn unmuted(book: &Book, request: &UnmuteRequest) -> Result<(Vec<Change>, usize), String> {
    let ids: Vec<&String> = match &request.id {
        Some(id) => vec![
            book.mutes
                .get_key_value(id)
                .map(|(id, _)| id)
                .ok_or_else(|| format!("there is no mute {id:?}"))?,
        ],
        None => book.mutes.keys().collect(),
    };
    let changes: Vec<Change> =
        ids.into_iter().map(|id| Change::Mute { id: id.clone(), mute: None }).collect();
    let count = changes.len();
    Ok((changes, count))
}

#[cfg(test)]
mod tests {
    use super::super::noise::tests::{World, daemon, labels};
    use super::*;

    #[test]
    fn what_fires_is_listed_with_its_cause_the_worst_first() {
        let mut world = World::new();
        world.set("daemon_unreachable", &[daemon("ccxt")], 42.0);
        let venue = labels(&[("daemon", "ccxt"), ("exchange", "binance")]);
        world.set("exchange_disconnected", &[venue], 42.0);
        world.run(120);
        let list = firing(&world.book, &world.rules);
        let told: Vec<_> = list.iter().map(|alert| (&alert["rule"], &alert["severity"])).collect();
        assert_eq!(
            told,
            [("daemon_unreachable", "critical"), ("exchange_disconnected", "warning")]
                .map(|(rule, severity)| (Value::from(rule), Value::from(severity)))
                .iter()
                .map(|(rule, severity)| (rule, severity))
                .collect::<Vec<_>>()
        );
        assert_eq!(list[1]["explained_by"], list[0]["fingerprint"]);
        let all = everything(&world.book, &world.rules, &["webhook"], world.now);
        assert_eq!(all["path"], "fallback");
        assert_eq!(all["pending"][0]["rule"], "exchange_disconnected");
        assert_eq!(all["channels"]["webhook"]["failures"], 0);
    }

    #[test]
    fn mutes_are_checked_and_ended() {
        let mut world = World::new();
        let mut mute = |text: &str| {
            let request: MuteRequest = serde_json::from_str(text).map_err(|e| e.to_string())?;
            let (changes, id) = muted(&world.book, request, &world.rules, world.now)?;
            changes.into_iter().for_each(|change| world.book.apply(change));
            Ok::<String, String>(id)
        };
        assert_eq!(mute(r#"{"seconds":60,"severity":"warning"}"#).as_deref(), Ok("m1"));
        assert_eq!(mute(r#"{"seconds":60,"rule":"daemon_down"}"#).as_deref(), Ok("m2"));
        assert!(mute(r#"{"seconds":60,"rule":"nonsense"}"#).unwrap_err().contains("no rule"));
        assert!(mute(r#"{"seconds":0}"#).unwrap_err().contains("30 days"));
        assert!(mute(r#"{"seconds":1,"what":2}"#).unwrap_err().contains("unknown field"));
        let end = |id: &str| UnmuteRequest { id: Some(id.to_owned()) };
        assert!(unmuted(&world.book, &end("m9")).unwrap_err().contains("no mute"));
        assert_eq!(unmuted(&world.book, &end("m1")).unwrap().1, 1);
        assert_eq!(unmuted(&world.book, &UnmuteRequest { id: None }).unwrap().1, 2);
    }
}

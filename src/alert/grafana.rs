//! Looking at Grafana: does it live, does it evaluate, can it notify, and what has it told.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use serde::Deserialize;
use tokio::sync::watch;

use super::book::{Book, Change, Path, Series, Told, fingerprint};
use super::sender::Presence;
use crate::base::http::{Client, HttpError, Limits};
use crate::base::time::Timestamp;
use crate::config::{Login, Mode};
use crate::model::server::{Phase, ServerState};
use crate::model::severity::Severity;
use crate::rules::rule::{Labels, Rule};

const LIMITS: Limits = Limits { time: Duration::from_secs(4), body: 16 << 20 };
/// How long the newest evaluation may stay the same, beyond the time after which periscope takes
/// over: rules are evaluated every 10 s, and a look may see one some seconds late.
const EVALUATION_PACE: Duration = Duration::from_secs(8);
/// How long the heartbeat may be missing; it comes every 10 s.
const HEARTBEAT_AGE: Duration = Duration::from_secs(90);
/// Severity of the rule that always fires.
const HEARTBEAT: &str = "heartbeat";

/// Where to learn how Grafana is.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Child, elsewhere, or none.
    pub mode: Mode,
    /// Of one elsewhere: its base URL.
    pub url: Option<String>,
    /// Of one elsewhere: how to log in.
    pub login: Option<Login>,
    /// Of a child: what its owner says.
    pub state: watch::Receiver<ServerState>,
}

impl Watched {
    /// Returns how to ask it now.
    pub fn access(&mut self) -> Access {
        let state = self.state.borrow_and_update().clone();
        match self.mode {
            Mode::Off => Access::default(),
            Mode::Remote => {
                let url = self.url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
                Access { url, login: self.login.clone(), ..Access::default() }
            }
            Mode::Managed => child(&state),
        }
    }
}

/// Returns how to ask a child in this state.
fn child(state: &ServerState) -> Access {
    let endpoint = state.endpoint.as_ref();
    let admin = endpoint.and_then(|endpoint| endpoint.admin.as_ref());
    let login = admin
        .map(|login| Login::Basic { user: login.user.clone(), password: login.password.clone() });
    // Without an address nothing is asked, but there is one.
    let url = endpoint.map_or_else(String::new, |endpoint| endpoint.http.clone());
    let (exited, is_planned) = match state.phase {
        Phase::Ready | Phase::Unhealthy => (None, false),
        Phase::Absent | Phase::Downloading | Phase::Starting | Phase::Stopping => (None, true),
        Phase::Backoff | Phase::Broken => (Some(state.reason.clone()), false),
    };
    Access { url: Some(url), login, exited, is_planned }
}

/// How Grafana can be asked, and what its owner knows of its process.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Base URL without a slash at its end; `None`: there is no Grafana.
    pub url: Option<String>,
    /// How to log in.
    pub login: Option<Login>,
    /// The process has ended by itself, with the cause.
    pub exited: Option<String>,
    /// periscope starts or restarts it.
    pub is_planned: bool,
}

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub struct Observer {
    evaluated: Option<(String, Timestamp)>,
}

impl Observer {
    /// Looks at Grafana once, at most four seconds for each question. What it did not do for
    /// `takeover_after` counts as not done.
    pub async fn look(
        &mut self,
        client: &Client,
        access: &Access,
        heartbeat_at: Option<Timestamp>,
        takeover_after: Duration,
        now: Timestamp,
    ) -> Presence {
        let Some(url) = &access.url else { return Presence::Off };
        if access.is_planned {
            return Presence::Planned;
        }
        if let Some(cause) = &access.exited {
            return Presence::Exited(format!("its process has ended: {cause}"));
        }
        let ask = |path: &'static str| ask(client, url, access.login.as_ref(), path);
        let seen = async {
            health(&ask("/api/health").await?)?;
            let rules = ask("/api/prometheus/grafana/api/v1/rules").await?;
            let stalled = self.evaluations(&rules, takeover_after, now)?;
            receivers(&ask("/api/alertmanager/grafana/config/api/v1/receivers").await?)?;
            Ok(stalled)
        };
        let late = heartbeat_at.filter(|at| *at <= now && now.since(*at) > HEARTBEAT_AGE);
        let late = late.map(|at| format!("its heartbeat is missing since {at}"));
        match seen.await {
            Ok(stalled) => stalled.or(late).map_or(Presence::Present, Presence::Stalled),
            Err(reason) => Presence::Absent(reason),
        }
    }

    /// Judges the answer of the rules' API; returns why it counts as not evaluating any more. Ages are
    /// counted by our own clock, from when the newest evaluation was last seen to move.
    fn evaluations(
        &mut self,
        body: &[u8],
        takeover_after: Duration,
        now: Timestamp,
    ) -> Result<Option<String>, String> {
        let evaluations = parse_rules(body)?;
        if evaluations.total > 0 && evaluations.failing == evaluations.total {
            return Err(format!("all its rules fail: {}", evaluations.error));
        }
        let Some(newest) = evaluations.newest else { return Ok(None) };
        let limit = takeover_after.saturating_add(EVALUATION_PACE);
        match &self.evaluated {
            Some((known, since)) if *known == newest => {
                let is_late = *since <= now && now.since(*since) > limit;
                Ok(is_late.then(|| format!("it has not evaluated a rule since {newest}")))
            }
            Some(_) | None => {
                self.evaluated = Some((newest, now));
                Ok(None)
            }
        }
    }
}

async fn ask(
    client: &Client,
    url: &str,
    login: Option<&Login>,
    path: &str,
) -> Result<Bytes, String> {
    send(client, url, login, Method::GET, path, Bytes::new()).await
}

/// Sends one request to Grafana and returns the body of its answer.
pub(super) async fn send(
    client: &Client,
    url: &str,
    login: Option<&Login>,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes, String> {
    let mut request = hyper::Request::builder().method(method).uri(format!("{url}{path}"));
    if !body.is_empty() {
        request = request.header(hyper::header::CONTENT_TYPE, "application/json");
    }
    let authorization = login.map(|login| match login {
        Login::Token(token) => format!("Bearer {}", token.reveal()),
        Login::Basic { user, password } => {
            let pair = format!("{user}:{}", password.reveal());
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
    });
    if let Some(value) = authorization {
        request = request.header(hyper::header::AUTHORIZATION, value);
    }
    let request =
        request.body(Full::new(body)).map_err(|_| "its URL cannot be asked".to_owned())?;
    let answer =
        client.send(request, LIMITS).await.map_err(|error: HttpError| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("it answers {} to {path}", answer.status));
    }
    Ok(answer.body)
}

fn health(body: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Health {
        database: String,
    }
    let health: Health = serde_json::from_slice(body)
        .map_err(|_| "what answers at its address is not Grafana".to_owned())?;
    if health.database == "ok" {
        Ok(())
    } else {
        Err(format!("its database is {}", health.database))
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Evaluations {
    newest: Option<String>,
    total: usize,
    failing: usize,
    error: String,
}

fn parse_rules(body: &[u8]) -> Result<Evaluations, String> {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(default)]
        groups: Vec<Group>,
    }
    #[derive(Deserialize)]
    struct Group {
        #[serde(default)]
        rules: Vec<One>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct One {
        #[serde(default)]
        health: String,
        #[serde(default)]
        last_error: String,
        #[serde(default)]
        last_evaluation: String,
    }
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| format!("its list of rules cannot be read: {error}"))?;
    let mut found = Evaluations::default();
    for rule in answer.data.groups.into_iter().flat_map(|group| group.rules) {
        found.total += 1;
        if rule.health == "error" {
            found.failing += 1;
            found.error = rule.last_error;
        }
        // RFC 3339 in UTC: the order of the text is that of the times. Never evaluated is year 1.
        if !rule.last_evaluation.is_empty() && Some(&rule.last_evaluation) > found.newest.as_ref() {
            found.newest = Some(rule.last_evaluation);
        }
    }
    Ok(found)
}

/// Whether some receiver reached nobody at its last try.
fn receivers(body: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Receiver {
        #[serde(default)]
        active: bool,
        #[serde(default)]
        integrations: Vec<Integration>,
        #[serde(default)]
        name: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Integration {
        #[serde(default)]
        name: String,
        #[serde(default)]
        last_notify_attempt: String,
        #[serde(default)]
        last_notify_attempt_error: String,
    }
    let Ok(receivers) = serde_json::from_slice::<Vec<Receiver>>(body) else {
        return Err("its list of receivers cannot be read".to_owned());
    };
    for receiver in receivers.iter().filter(|receiver| receiver.active) {
        let tried: Vec<&Integration> = receiver
            .integrations
            .iter()
            .filter(|one| !one.last_notify_attempt.is_empty())
            .filter(|one| !one.last_notify_attempt.starts_with("0001"))
            .collect();
        // Our own webhook reaches nobody: it counts only where there is nothing else.
        let people: Vec<&&Integration> = tried.iter().filter(|one| one.name != "webhook").collect();
        let judged: Vec<&Integration> =
            if people.is_empty() { tried.clone() } else { people.into_iter().copied().collect() };
        let failed = |one: &&Integration| !one.last_notify_attempt_error.is_empty();
        if let Some(first) = judged.first().filter(|_| judged.iter().all(failed)) {
            // The error may hold the URL of a webhook: it is not passed on.
            return Err(format!("{} of {} cannot deliver", first.name, receiver.name));
        }
    }
    Ok(())
}

/// An alert in what Grafana sent to `POST /grafana/webhook`.
#[derive(Debug, Clone, PartialEq)]
pub struct Notified {
    /// Fingerprint of the series; the uid of the rule and its labels.
    pub key: String,
    /// Uid of the rule.
    pub rule: String,
    /// Labels of the series.
    pub labels: Labels,
    /// Whether it fires.
    pub firing: bool,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// What Grafana sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Webhook {
    /// Whether the heartbeat was among it.
    pub heartbeat: bool,
    /// Alerts of known rules.
    pub alerts: Vec<Notified>,
    /// Alerts of other rules.
    pub unknown: usize,
}

/// Labels that Grafana and its rules add to those of a series.
const ADDED: [&str; 5] = ["alertname", "grafana_folder", "rule", "severity", "category"];

/// Reads the body of a notification.
///
/// # Errors
/// It is no notification of Grafana, with the reason.
pub fn webhook<'a>(
    body: &[u8],
    rules: impl Iterator<Item = &'a Rule> + Clone,
) -> Result<Webhook, String> {
    #[derive(Deserialize)]
    struct Body {
        alerts: Vec<One>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct One {
        status: String,
        labels: Labels,
        #[serde(default)]
        starts_at: String,
    }
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| format!("not a notification of Grafana: {error}"))?;
    let mut found = Webhook::default();
    for One { status, labels, starts_at } in body.alerts {
        let get = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        if get("severity") == HEARTBEAT {
            found.heartbeat = true;
            continue;
        }
        let severity = Severity::from_word(get("severity"));
        let is_it = |rule: &&Rule| rule.id == get("rule") && Some(rule.severity) == severity;
        let Some(rule) = rules.clone().find(is_it) else {
            found.unknown += 1;
            continue;
        };
        let mine = labels.iter().filter(|(name, _)| !ADDED.contains(&name.as_str()));
        let labels: Labels = mine.map(|(name, value)| (name.clone(), value.clone())).collect();
        found.alerts.push(Notified {
            key: fingerprint(&rule.uid(), &labels),
            rule: rule.uid(),
            labels,
            firing: status == "firing",
            since: Timestamp::parse(&starts_at),
        });
    }
    Ok(found)
}

/// Returns the changes that note what Grafana has told.
pub fn noted(book: &Book, alerts: &[Notified], now: Timestamp) -> Vec<Change> {
    let mut changes = Vec::new();
    for alert in alerts {
        let known = book.series.get(&alert.key);
        let series = match (known, alert.firing) {
            (None, false) => continue,
            (None, true) => Series::new(alert.rule.clone(), alert.labels.clone()),
            (Some(series), _) => series.clone(),
        };
        let told = alert.firing.then(|| Told {
            since: alert.since.unwrap_or(now),
            at: now,
            by: Path::Grafana,
            flapping: false,
        });
        let over_at = if alert.firing { series.over_at } else { Some(now) };
        let ended_for_grafana = series.ended_for_grafana.filter(|_| !alert.firing);
        let series = Some(Box::new(Series { told, over_at, ended_for_grafana, ..series }));
        changes.push(Change::Series { key: alert.key.clone(), series });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::catalog;

    fn recorded(name: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/grafana");
        std::fs::read(path.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    #[test]
    fn recorded_answers_are_understood() {
        health(&recorded("health.json")).unwrap();
        let rules = parse_rules(&recorded("rules-firing.json")).unwrap();
        assert_eq!((rules.total, rules.failing), (1, 0));
        assert_eq!(rules.newest.as_deref(), Some("2026-11-24T05:12:00Z"));
        let error = receivers(&recorded("receivers-failing.json")).unwrap_err();
        assert_eq!(error, "webhook of local-webhook cannot deliver");
        assert!(health(b"<html>another program").unwrap_err().contains("not Grafana"));
        assert!(health(br#"{"database":"failing"}"#).unwrap_err().contains("failing"));
    }

    #[test]
    fn a_child_is_asked_where_its_owner_says_and_as_its_admin() {
        let endpoint = crate::model::server::Endpoint {
            http: "http://127.0.0.1:3000".to_owned(),
            pg: String::new(),
            database: String::new(),
            admin: Some(crate::model::server::Login {
                user: "admin".to_owned(),
                password: crate::base::secret::Secret::new("x"),
            }),
            reader: None,
        };
        let (sender, state) = watch::channel(ServerState::absent());
        let mut watched = Watched { mode: Mode::Managed, url: None, login: None, state };
        assert!(watched.access().is_planned, "a first start is no outage");
        let ready =
            ServerState { phase: Phase::Ready, endpoint: Some(endpoint), ..ServerState::absent() };
        sender.send_replace(ready.clone());
        let access = watched.access();
        assert_eq!(access.url.as_deref(), Some("http://127.0.0.1:3000"));
        assert!(matches!(access.login, Some(Login::Basic { user, .. }) if user == "admin"));
        sender.send_replace(ServerState {
            phase: Phase::Backoff,
            reason: "exit code 1".to_owned(),
            ..ready
        });
        assert_eq!(watched.access().exited.as_deref(), Some("exit code 1"));
        watched.mode = Mode::Off;
        assert!(watched.access().url.is_none());
    }

    #[test]
    fn a_scheduler_that_stopped_shows_by_our_own_clock() {
        const TAKEOVER: Duration = Duration::from_secs(15);
        let mut observer = Observer::default();
        let body = recorded("rules-firing.json");
        assert_eq!(observer.evaluations(&body, TAKEOVER, at(0)), Ok(None));
        assert_eq!(observer.evaluations(&body, TAKEOVER, at(23)), Ok(None));
        let reason = observer.evaluations(&body, TAKEOVER, at(24)).unwrap().unwrap();
        assert!(reason.contains("has not evaluated"), "{reason}");
        let moved = String::from_utf8(body).unwrap().replace("05:12:00", "05:12:10");
        assert_eq!(observer.evaluations(moved.as_bytes(), TAKEOVER, at(25)), Ok(None));
        let failing = moved.replace("\"health\": \"ok\"", "\"health\": \"error\"");
        let error = observer.evaluations(failing.as_bytes(), TAKEOVER, at(26)).unwrap_err();
        assert!(error.contains("all its rules fail"), "{error}");
    }

    #[test]
    fn one_channel_of_a_receiver_that_works_is_enough() {
        let list = |telegram: &str, discord: &str| {
            let one = |name: &str, error: &str| {
                format!(
                    r#"{{"name":"{name}","lastNotifyAttempt":"2026-11-24T05:14:56Z","lastNotifyAttemptError":"{error}"}}"#
                )
            };
            let all = [one("telegram", telegram), one("discord", discord), one("webhook", "")];
            format!(r#"[{{"active":true,"name":"periscope","integrations":[{}]}}]"#, all.join(","))
        };
        assert_eq!(receivers(list("", "x").as_bytes()), Ok(()));
        let error = receivers(list("bot123:secret", "x").as_bytes()).unwrap_err();
        assert_eq!(error, "telegram of periscope cannot deliver");
    }

    #[test]
    fn what_grafana_told_is_found_by_rule_and_labels() {
        let rules = catalog::shipped().unwrap();
        let labels: Labels = [("daemon", "ccxt"), ("env", "dev"), ("host", "h")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let text = String::from_utf8(recorded("webhook-firing.json")).unwrap();
        // As our own rules label it.
        let text = text.replace("\"dollars\": \"$5\",", "\"rule\": \"daemon_down\", \"category\": \"daemon\", \"daemon\": \"ccxt\", \"env\": \"dev\",").replace("\"host\": \"h1\"", "\"host\": \"h\"");
        let found = webhook(text.as_bytes(), rules.iter()).unwrap();
        let key = fingerprint("periscope-daemon-down-critical", &labels);
        assert_eq!(found.alerts.len(), 1, "{found:?}");
        assert_eq!((&found.alerts[0].key, found.alerts[0].firing), (&key, true));
        let mut book = Book::new(1);
        for change in noted(&book, &found.alerts, at(0)) {
            book.apply(change);
        }
        let told = book.series[&key].told.clone().unwrap();
        assert_eq!(told.by, Path::Grafana);
        let over = Notified { firing: false, ..found.alerts[0].clone() };
        for change in noted(&book, &[over], at(9)) {
            book.apply(change);
        }
        assert_eq!(book.series[&key].told, None);
        // Of rules that are not ours nothing is noted.
        let other = webhook(&recorded("webhook-resolved.json"), rules.iter()).unwrap();
        assert_eq!((other.alerts.len(), other.unknown), (0, 1));
        assert!(webhook(b"[]", rules.iter()).unwrap_err().contains("not a notification"));
        let beat = br#"{"alerts":[{"status":"firing","labels":{"severity":"heartbeat"}}]}"#;
        assert!(webhook(beat, rules.iter()).unwrap().heartbeat);
    }
}

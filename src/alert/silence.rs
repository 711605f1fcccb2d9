//! What periscope has told, Grafana does not tell again: while such an alert fires, a silence in
//! Grafana's alertmanager holds it back. It lasts for ten minutes and is renewed, so that a periscope
//! that is gone silences nothing for long.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::book::{Book, Path, Series, passed};
use super::grafana::{Access, send};
use crate::base::http::Client;
use crate::base::time::Timestamp;
use crate::rules::condition::Condition;
use crate::rules::rule::Rule;

/// How long a silence lasts.
const LASTS: Duration = Duration::from_secs(600);
/// How long after its end an alert is held back of which periscope told the end for Grafana.
pub const HUSHED: Duration = Duration::from_secs(3_600);
/// Age at which it is renewed.
const RENEWED: Duration = Duration::from_secs(300);
/// Silences at a time; a storm beyond that is told twice rather than not at all.
const LIMIT: usize = 500;

/// The silences that there are.
#[derive(Debug, Default)]
pub struct Silences {
    known: BTreeMap<String, (String, Timestamp)>,
}

impl Silences {
    /// Makes and renews silences of what periscope told and what still fires, and ends the others.
    pub async fn renew(
        &mut self,
        book: &Book,
        rules: &BTreeMap<String, Rule>,
        client: &Client,
        access: &Access,
        now: Timestamp,
    ) {
        let Some(url) = &access.url else { return };
        let wanted = wanted(book, rules, now);
        let ended: Vec<String> =
            self.known.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for key in ended {
            let Some((id, _)) = self.known.remove(&key) else { continue };
            let path = format!("/api/alertmanager/grafana/api/v2/silence/{id}");
            let login = access.login.as_ref();
            // It ends by itself if this fails.
            if let Err(reason) = send(client, url, login, Method::DELETE, &path, Bytes::new()).await
            {
                tracing::debug!(%reason, "end a silence in grafana");
            }
        }
        for (key, (rule, series)) in wanted.into_iter().take(LIMIT) {
            let known = self.known.get(&key);
            let is_fresh = |at: Timestamp| at <= now && now.since(at) < RENEWED;
            if known.is_some_and(|(_, at)| is_fresh(*at)) {
                continue;
            }
            let body = silence(rule, series, known.map(|(id, _)| id.as_str()), now).to_string();
            let path = "/api/alertmanager/grafana/api/v2/silences";
            let login = access.login.as_ref();
            match send(client, url, login, Method::POST, path, body.into()).await {
                Ok(answer) => {
                    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
                    let id = answer.get("silenceID").or_else(|| answer.get("id"));
                    if let Some(id) = id.and_then(Value::as_str) {
                        self.known.insert(key, (id.to_owned(), now));
                    }
                }
                Err(reason) => {
                    tracing::warn!(%reason, rule = %rule.id, "silence what was told already in grafana");
                    return;
                }
            }
        }
    }
}

/// Returns the alerts that Grafana must not tell, by fingerprint: those of which periscope told the
/// begin and that still fire, and those of which it told the end.
pub(super) fn wanted<'a>(
    book: &'a Book,
    rules: &'a BTreeMap<String, Rule>,
    now: Timestamp,
) -> BTreeMap<String, (&'a Rule, &'a Series)> {
    let told = book.series.iter().filter(|(_, series)| {
        let fires = series.state.firing_since().is_some();
        let ours = series.told.as_ref().is_some_and(|told| told.by == Path::Fallback);
        let ended = series.ended_for_grafana.is_some_and(|at| !passed(at, HUSHED, now));
        if fires { ours } else { ended }
    });
    told.filter_map(|(key, series)| {
        let rule = rules.get(&series.rule)?;
        let known = !matches!(rule.condition, Condition::Own(_));
        known.then(|| (key.clone(), (rule, series)))
    })
    .collect()
}

fn silence(rule: &Rule, series: &Series, id: Option<&str>, now: Timestamp) -> Value {
    let labels = series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let own = [("rule", rule.id.as_str()), ("severity", rule.severity.word())];
    let matchers: Vec<Value> = own
        .into_iter()
        .chain(labels)
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            json!({ "name": name, "value": value, "isRegex": false, "isEqual": true })
        })
        .collect();
    let mut silence = json!({
        "matchers": matchers,
        "startsAt": now,
        "endsAt": now.plus(LASTS),
        "createdBy": "periscope",
        "comment": "told by periscope while Grafana was away; it tells the end too",
    });
    if let (Some(id), Some(object)) = (id, silence.as_object_mut()) {
        object.insert("id".to_owned(), id.into());
    }
    silence
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::book::Via;
    use super::super::noise::tests::{World, daemon};
    use super::*;
    use crate::base::tasks::spawn_detached;
    use crate::config::Login;

    /// Answers every request with a silence's id and keeps the requests.
    async fn alertmanager() -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&requests);
        drop(spawn_detached(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = String::new();
                let is_whole = |text: &str| {
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
                    let length = head.lines().find_map(|line| {
                        line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()
                    });
                    body.len() >= length.unwrap_or(0)
                };
                while !is_whole(&text) {
                    let mut chunk = [0; 4_096];
                    let read = stream.read(&mut chunk).await.unwrap();
                    text.push_str(&String::from_utf8_lossy(&chunk[..read]));
                }
                kept.lock().unwrap().push(text);
                let answer = "HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 17\r\n\r\n{\"silenceID\":\"7\"}";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }));
        (url, requests)
    }

    #[tokio::test]
    async fn what_periscope_told_is_silenced_once_renewed_and_ended() {
        let (url, requests) = alertmanager().await;
        let login = Some(Login::Token(crate::base::secret::Secret::new("secret")));
        let access = Access { url: Some(url), login, ..Access::default() };
        let client = Client::new().unwrap();
        let mut world = World { via: Via::Memory, ..World::new() };
        world.set("daemon_down", &[daemon("ccxt")], 42.0);
        world.set("questdb_down", &[super::super::noise::tests::labels(&[])], 42.0);
        world.run(60);
        let mut silences = Silences::default();
        let now = world.now;
        for seconds in [0, 3, 299, 300] {
            let at = now.plus(Duration::from_secs(seconds));
            silences.renew(&world.book, &world.rules, &client, &access, at).await;
        }
        let sent = requests.lock().unwrap().clone();
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert!(sent[0].starts_with("POST /api/alertmanager/grafana/api/v2/silences"), "{sent:?}");
        assert!(sent[0].to_lowercase().contains("authorization: bearer secret"));
        for part in [r#""value":"daemon_down""#, r#""value":"ccxt""#, r#""value":"critical""#] {
            assert!(sent[0].contains(part), "{part} in {}", sent[0]);
        }
        assert!(sent[1].contains(r#""id":"7""#), "renewed: {}", sent[1]);
        world.bad.remove("daemon_down");
        world.run(60);
        silences.renew(&world.book, &world.rules, &client, &access, now).await;
        silences.renew(&world.book, &world.rules, &client, &access, now).await;
        let sent = requests.lock().unwrap().clone();
        assert_eq!(sent.len(), 3, "{sent:?}");
        assert!(sent[2].starts_with("DELETE /api/alertmanager/grafana/api/v2/silence/7"));
    }
}

//! `[notify.ntfy]`: a push message. It is published as JSON and not by headers, so that no text can
//! become a header.

use serde::Serialize;

use super::{Failure, server};
use crate::alert::layout::Layout;
use crate::alert::message::{Kind, Message};
use crate::base::http::Client;
use crate::base::secret::Secret;
use crate::config::notify;
use crate::model::severity::Severity;
use crate::store::text::first_bytes;

/// Longest message, bytes; a longer one would become an attachment.
const LONGEST: usize = 4_096;

/// The channel.
#[derive(Debug)]
pub struct Ntfy {
    config: notify::Ntfy,
    client: Client,
}

#[derive(Debug, Serialize)]
struct Body<'a> {
    topic: &'a str,
    title: String,
    message: String,
    priority: u8,
    tags: [&'a str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    click: Option<&'a str>,
}

impl Ntfy {
    pub(super) fn new(config: &notify::Ntfy, client: &Client) -> Self {
        Self { config: config.clone(), client: client.clone() }
    }

    /// Connects; what the topic takes is seen by a message alone.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let url = self.config.url.reveal();
        server::ask(&self.client, hyper::Method::HEAD, url).await.map(|_any_status| ())
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), Failure> {
        let notify::Ntfy { url, token } = &self.config;
        let Some((root, topic)) = split(url.reveal()) else {
            let reason = "notify.ntfy.url names no topic".to_owned();
            let hint = "write https://SERVER/TOPIC".to_owned();
            return Err(Failure::Never { reason, hint });
        };
        let body = body(message, topic);
        let answer = server::post(&self.client, &root, token.as_ref(), body).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let topic = Secret::new(topic);
        let secrets: Vec<&Secret> = [url, &topic].into_iter().chain(token).collect();
        let hint = match answer.status.as_u16() {
            401 | 403 => "check notify.ntfy.token and who may write to the topic",
            404 => "check notify.ntfy.url: https://SERVER/TOPIC",
            _ => "see the server's log",
        };
        Err(server::refusal(&answer, &secrets, hint))
    }
}

/// Returns the URL of the server and the topic out of `https://server/topic?query`.
fn split(url: &str) -> Option<(String, &str)> {
    let (path, query) =
        url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let (scheme, rest) = path.split_once("://")?;
    let (server, topic) = rest.trim_end_matches('/').rsplit_once('/')?;
    if topic.is_empty() {
        return None;
    }
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    Some((format!("{scheme}://{server}/{query}"), topic))
}

pub(super) fn body(message: &Message, topic: &str) -> Vec<u8> {
    let layout = Layout::of(message, |layout| layout.plain().len() <= LONGEST);
    let text = layout.plain();
    let (priority, tag) = match (message.kind, message.severity) {
        (Kind::Firing, Severity::Critical) => (5, "rotating_light"),
        (Kind::Firing, Severity::Warning) => (4, "warning"),
        (Kind::Resolved, _) => (3, "white_check_mark"),
        (Kind::Firing | Kind::Notice | Kind::Test, _) => (3, "information_source"),
    };
    let body = Body {
        topic,
        title: layout.subject(),
        message: first_bytes(&text, LONGEST).unwrap_or(&text).to_owned(),
        priority,
        tags: [tag],
        click: layout.link.as_deref(),
    };
    // Nothing in it can fail to be written.
    serde_json::to_vec(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_topic_are_told_apart() {
        for (url, expected) in [
            ("https://ntfy.sh/alerts", Some(("https://ntfy.sh/", "alerts"))),
            ("https://h:1/sub/alerts/", Some(("https://h:1/sub/", "alerts"))),
            ("https://h/alerts?auth=x/y", Some(("https://h/?auth=x/y", "alerts"))),
            ("https://ntfy.sh/", None),
            ("https://ntfy.sh", None),
        ] {
            let expected = expected.map(|(root, topic)| (root.to_owned(), topic));
            assert_eq!(split(url), expected, "{url}");
        }
    }
}

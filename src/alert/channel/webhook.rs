//! `[notify.webhook]`: the message as JSON, for programs of the user's own.

use serde::Serialize;

use super::{Failure, server};
use crate::alert::layout::Layout;
use crate::alert::message::{Kind, Message};
use crate::base::http::Client;
use crate::base::secret::Secret;
use crate::base::time::Timestamp;
use crate::config::notify;
use crate::model::severity::Severity;

/// The channel.
#[derive(Debug)]
pub struct Webhook {
    config: notify::Webhook,
    client: Client,
}

/// What is posted. Names are never changed, only added.
#[derive(Debug, Serialize)]
struct Body<'a> {
    version: u32,
    id: &'a str,
    kind: Kind,
    severity: Severity,
    at: Timestamp,
    title: &'a str,
    facts: Vec<Fact<'a>>,
    advice: Option<&'a str>,
    children: &'a [String],
    link: Option<&'a str>,
    /// All of it as text.
    text: String,
}

#[derive(Debug, Serialize)]
struct Fact<'a> {
    name: &'a str,
    value: &'a str,
}

impl Webhook {
    pub(super) fn new(config: &notify::Webhook, client: &Client) -> Self {
        Self { config: config.clone(), client: client.clone() }
    }

    /// Connects; what would be posted is known to the receiver alone.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let url = self.config.url.reveal();
        server::ask(&self.client, hyper::Method::HEAD, url).await.map(|_any_status| ())
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), Failure> {
        let notify::Webhook { url, token } = &self.config;
        let body = body(message);
        let answer = server::post(&self.client, url.reveal(), token.as_ref(), body).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let secrets: Vec<&Secret> = [Some(url), token.as_ref()].into_iter().flatten().collect();
        let hint = match answer.status.as_u16() {
            401 | 403 => "check notify.webhook.token",
            404 | 410 => "check notify.webhook.url",
            _ => "see what the receiver of notify.webhook.url expects",
        };
        Err(server::refusal(&answer, &secrets, hint))
    }
}

fn body(message: &Message) -> Vec<u8> {
    let layout = Layout::of(message, |_| true);
    let facts = layout.facts.iter().map(|(name, value)| Fact { name, value }).collect();
    let body = Body {
        version: 1,
        id: &message.id,
        kind: message.kind,
        severity: message.severity,
        at: message.at,
        title: &layout.title,
        facts,
        advice: layout.advice.as_deref(),
        children: &layout.children,
        link: layout.link.as_deref(),
        text: layout.plain(),
    };
    // Nothing in it can fail to be written.
    serde_json::to_vec(&body).unwrap_or_default()
}

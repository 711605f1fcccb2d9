//! `[notify.discord]`: an embed posted to a webhook. Nobody is pinged by it, whatever a daemon
//! writes, and nothing in it is taken for Markdown.

use std::time::{Duration, Instant};

use hyper::HeaderMap;
use serde::{Deserialize, Serialize};

use super::pause::Pause;
use super::{Failure, server};
use crate::alert::layout::{Layout, is_inert};
use crate::alert::message::{Kind, Message};
use crate::alert::text::units;
use crate::base::http::{Answer, Client};
use crate::base::secret::Secret;
use crate::base::time::Timestamp;
use crate::config::notify;
use crate::model::severity::Severity;

/// Longest description of an embed, characters.
const DESCRIPTION: usize = 4_096;
/// Longest of all texts of an embed together, characters.
const EMBED: usize = 6_000;

/// The channel.
#[derive(Debug)]
pub struct Discord {
    url: Secret,
    client: Client,
    pause: Pause,
}

#[derive(Debug, Serialize)]
struct Post {
    embeds: [Embed; 1],
    allowed_mentions: Mentions,
}

/// Nobody.
#[derive(Debug, Serialize)]
struct Mentions {
    parse: [&'static str; 0],
}

#[derive(Debug, Serialize)]
struct Embed {
    title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    color: u32,
    fields: Vec<Field>,
    footer: Footer,
    timestamp: Timestamp,
}

#[derive(Debug, Serialize)]
struct Field {
    name: String,
    value: String,
}

#[derive(Debug, Serialize)]
struct Footer {
    text: String,
}

/// What Discord answers when it refuses.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    message: Option<String>,
    retry_after: Option<f64>,
}

impl Discord {
    pub(super) fn new(config: &notify::Discord, client: &Client) -> Self {
        let url = config.webhook_url.clone();
        Self { url, client: client.clone(), pause: Pause::default() }
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), Failure> {
        self.pause.check(Instant::now())?;
        // Without `wait` an answer says nothing about whether the message was stored.
        let url = self.url.reveal();
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}wait=true");
        let answer = server::post(&self.client, &url, None, body(message)).await?;
        if answer.status.is_success() {
            if let Some(pause) = exhausted(&answer.headers) {
                self.pause.set(pause, Instant::now());
            }
            return Ok(());
        }
        let failure = self.refusal(&answer);
        if let Failure::Later { reason, after: Some(after) } = failure {
            let after = Some(self.pause.set(after, Instant::now()));
            return Err(Failure::Later { reason, after });
        }
        Err(failure)
    }

    /// Reads the webhook, which shows that it exists.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let answer = server::ask(&self.client, hyper::Method::GET, self.url.reveal()).await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.refusal(&answer)) }
    }

    fn refusal(&self, answer: &Answer) -> Failure {
        let hint = match answer.status.as_u16() {
            401 | 403 | 404 => {
                "the webhook was deleted or its URL is wrong: make one in the channel's settings \
                 (Integrations, Webhooks) and set notify.discord.webhook_url"
            }
            _ => "run `periscope alerts test`; if it fails too, report it with this text",
        };
        let secrets = [&self.url];
        let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
        match server::refusal(answer, &secrets, hint) {
            Failure::Later { reason, after } => {
                let asked = refusal.retry_after.and_then(seconds);
                Failure::Later { reason, after: asked.or(after) }
            }
            Failure::Never { reason, hint } => {
                let words = refusal.message.map(|words| server::quoted(&words, &secrets));
                let status = answer.status;
                let reason = words.map_or(reason, |words| format!("answered {status}: {words}"));
                Failure::Never { reason, hint }
            }
        }
    }
}

/// Returns how long to wait after an answer that says that no further request is allowed now.
fn exhausted(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    (number("x-ratelimit-remaining")? < 1.0).then_some(())?;
    seconds(number("x-ratelimit-reset-after")?)
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

pub(super) fn body(message: &Message) -> Vec<u8> {
    let fits = |layout: &Layout| {
        let embed = embed(layout, message);
        units(&embed.description) <= DESCRIPTION && embed.length() <= EMBED
    };
    let embed = embed(&Layout::of(message, fits), message);
    let post = Post { embeds: [embed], allowed_mentions: Mentions { parse: [] } };
    // Nothing in it can fail to be written.
    serde_json::to_vec(&post).unwrap_or_default()
}

fn embed(layout: &Layout, message: &Message) -> Embed {
    let mut description = layout.advice.as_deref().map_or_else(String::new, literal);
    if !layout.children.is_empty() {
        description.push_str("\n\nExplains:");
        for child in &layout.children {
            description.push_str("\n- ");
            description.push_str(&literal(child));
        }
    }
    if let Some(link) = &layout.link {
        // In angle brackets, so that Discord does not fetch it for a preview.
        description.push_str(&format!("\n\n<{link}>"));
    }
    let field =
        |(name, value): &(String, String)| Field { name: literal(name), value: literal(value) };
    Embed {
        title: format!("{} {}", layout.mark, literal(&layout.title)),
        description: description.trim().to_owned(),
        color: color(message.kind, message.severity),
        fields: layout.facts.iter().map(field).collect(),
        footer: Footer { text: layout.foot.clone() },
        timestamp: message.at,
    }
}

impl Embed {
    fn length(&self) -> usize {
        let fields = self.fields.iter().map(|field| units(&field.name) + units(&field.value));
        let fields: usize = fields.sum();
        units(&self.title) + units(&self.description) + units(&self.footer.text) + fields
    }
}

/// Returns `text` so that Discord shows it as it is: as code where anything in it could be markup,
/// a mention or a link. A backtick would end the code and becomes an apostrophe.
fn literal(text: &str) -> String {
    if is_inert(text) { text.to_owned() } else { format!("`{}`", text.replace('`', "'")) }
}

/// The colour of the bar at the left side.
const fn color(kind: Kind, severity: Severity) -> u32 {
    match (kind, severity) {
        (Kind::Firing, Severity::Critical) => 0xD9_30_25,
        (Kind::Firing, Severity::Warning) => 0xF2_99_00,
        (Kind::Resolved, _) => 0x1E_8E_3E,
        (Kind::Firing | Kind::Notice | Kind::Test, _) => 0x1A_73_E8,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn what_could_be_markup_is_shown_as_code() {
        assert_eq!(literal("ccxt on vps-1 is down"), "ccxt on vps-1 is down");
        assert_eq!(literal("@everyone **x** `y`"), "`@everyone **x** 'y'`");
    }

    #[test]
    fn the_last_allowed_request_is_followed_by_a_pause() {
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-remaining", HeaderValue::from_static("0"));
        headers.insert("x-ratelimit-reset-after", HeaderValue::from_static("1.25"));
        assert_eq!(exhausted(&headers), Some(Duration::from_millis(1_250)));
        headers.insert("x-ratelimit-remaining", HeaderValue::from_static("3"));
        assert_eq!(exhausted(&headers), None);
        headers.insert("x-ratelimit-remaining", HeaderValue::from_static("0"));
        headers.insert("x-ratelimit-reset-after", HeaderValue::from_static("-1"));
        assert_eq!(exhausted(&headers), None);
    }
}

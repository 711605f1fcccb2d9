//! A Discord webhook as strict as the real one: limits, empty fields, unknown fields. It says what
//! of a message would be more than text.

use std::sync::{Arc, Mutex};

use hyper::Method;
use regex::Regex;
use serde_json::{Value, json};

use super::site::{self, Asked, Fault, Reply, Site};

pub const KEY: &str = "CANARY-discord-webhook-key_0123456789abcdef";

#[derive(Debug, Clone)]
pub struct Sent {
    pub title: String,
    pub description: String,
    pub fields: Vec<(String, String)>,
    pub footer: String,
    /// Markup, mentions and links outside of code and of `<http…>`.
    pub marked: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    sent: Vec<Sent>,
    refused: Vec<String>,
}

pub struct Discord {
    site: Site,
    state: Arc<Mutex<State>>,
}

impl Discord {
    pub async fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let site = Site::serve(Arc::new(move |asked| {
            let reply = answer(&asked, &shared);
            Box::pin(async move { reply })
        }))
        .await;
        Self { site, state }
    }

    /// The URL for `notify.discord.webhook_url`.
    pub fn url(&self) -> String {
        format!("{}/api/webhooks/123456/{KEY}", self.site.origin)
    }

    pub fn fail(&self, faults: &[Fault]) {
        self.site.fail("/api/webhooks/", faults);
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.state.lock().unwrap().sent.clone()
    }

    pub fn refused(&self) -> Vec<String> {
        self.state.lock().unwrap().refused.clone()
    }
}

fn answer(asked: &Asked, state: &Mutex<State>) -> Reply {
    let refuse = |status: u16, code: u32, message: &str| {
        state.lock().unwrap().refused.push(message.to_owned());
        site::json(status, &json!({ "message": message, "code": code }))
    };
    match asked.path.strip_prefix("/api/webhooks/123456/") {
        None => return refuse(404, 10_015, "Unknown Webhook"),
        Some(key) if key != KEY => return refuse(401, 50_027, "Invalid Webhook Token"),
        Some(_) => {}
    }
    if asked.method == Method::GET {
        return site::json(200, &json!({ "id": "123456", "type": 1 }));
    }
    let kind = asked.headers.get("content-type").and_then(|kind| kind.to_str().ok());
    if asked.method != Method::POST || kind != Some("application/json") {
        return refuse(400, 50_035, "not a JSON post");
    }
    let body = match serde_json::from_slice(&asked.body) {
        Ok(body) => body,
        Err(error) => return refuse(400, 50_109, &error.to_string()),
    };
    match take(&body) {
        Ok(sent) => {
            state.lock().unwrap().sent.push(sent);
            // Without `wait` nobody learns whether it was stored.
            let status = if asked.query == "wait=true" { 200 } else { 204 };
            let mut reply = site::json(status, &json!({ "id": "1" }));
            reply.headers_mut().insert("x-ratelimit-remaining", 4.into());
            reply.headers_mut().insert("x-ratelimit-reset-after", 2.into());
            reply
        }
        Err(reason) => refuse(400, 50_035, &format!("Invalid Form Body: {reason}")),
    }
}

fn take(body: &Value) -> Result<Sent, String> {
    let post = site::object(body, &["embeds", "allowed_mentions"])?;
    if post.get("allowed_mentions") != Some(&json!({ "parse": [] })) {
        return Err("allowed_mentions would let somebody be pinged".to_owned());
    }
    let embeds = post.get("embeds").and_then(Value::as_array).ok_or("no embeds")?;
    let [embed] = embeds.as_slice() else { return Err(format!("{} embeds", embeds.len())) };
    let known = ["title", "description", "color", "fields", "footer", "timestamp"];
    let embed = site::object(embed, &known)?;
    let mut total = 0;
    let mut text = |value: Option<&Value>, name: &str, limit: usize| -> Result<String, String> {
        let text = value.and_then(Value::as_str).ok_or(format!("{name}: is required"))?;
        let length = text.encode_utf16().count();
        total += length;
        if text.trim().is_empty() || length > limit {
            return Err(format!("{name}: must be between 1 and {limit} in length"));
        }
        Ok(text.to_owned())
    };
    let title = text(embed.get("title"), "title", 256)?;
    let description = match embed.get("description") {
        Some(description) => text(Some(description), "description", 4_096)?,
        None => String::new(),
    };
    let footer = site::object(embed.get("footer").ok_or("no footer")?, &["text"])?;
    let footer = text(footer.get("text"), "footer.text", 2_048)?;
    let list = embed.get("fields").and_then(Value::as_array).ok_or("no fields")?;
    if list.len() > 25 {
        return Err("fields: must be 25 or fewer in length".to_owned());
    }
    let mut fields = Vec::new();
    for field in list {
        let field = site::object(field, &["name", "value", "inline"])?;
        let name = text(field.get("name"), "name", 256)?;
        fields.push((name, text(field.get("value"), "value", 1_024)?));
    }
    if total > 6_000 {
        return Err(format!("embed size {total} exceeds 6000"));
    }
    let color = embed.get("color").and_then(Value::as_u64).ok_or("no color")?;
    if color > 0xFF_FF_FF {
        return Err("color: too large".to_owned());
    }
    let time = embed.get("timestamp").and_then(Value::as_str).ok_or("no timestamp")?;
    periscope::base::time::Timestamp::parse(time).ok_or("timestamp: not ISO 8601")?;
    let shown = fields.iter().flat_map(|(name, value)| [name, value]);
    let marked = shown.chain([&title, &description]).flat_map(|text| marked(text)).collect();
    Ok(Sent { title, description, fields, footer, marked })
}

/// Returns what Discord would not show as it stands.
fn marked(text: &str) -> Vec<String> {
    let code = Regex::new(r"`[^`]*`|<https?://[^ >]+>").unwrap();
    let outside = code.replace_all(text, "");
    // Our own list.
    let outside = outside.replace("\n- ", "\n");
    let found = Regex::new(r"[*_~|`<>\[\]\\#@]|://|:[a-z_]+:|(?m)^(-|\d+\.) ").unwrap();
    found.find_iter(&outside).map(|found| found.as_str().to_owned()).collect()
}

//! A Bot API server as strict as the real one, and stricter where that one forgives: limits, UTF-8,
//! entities, unknown fields. It says what the real one would turn into links, mentions and commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use periscope::base::time::Clock;
use regex::Regex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::site::{self, Asked, Fault, Reply, Site};

pub const TOKEN: &str = "123456789:CANARY-telegram-token_0123456789abc";
pub const CHAT: i64 = -100_123;
/// When everybody writes, seconds since 1970.
pub const DATE: i64 = 1_795_492_527;

/// A message that was taken.
#[derive(Debug, Clone)]
pub struct Sent {
    pub chat: i64,
    pub text: String,
    /// What would be more than text outside of fixed width: links, mentions, commands, hashtags.
    pub marked: Vec<String>,
}

#[derive(Debug)]
struct State {
    chats: BTreeSet<i64>,
    moved: BTreeMap<i64, i64>,
    sent: Vec<Sent>,
    refused: Vec<String>,
    /// Not yet confirmed.
    updates: Vec<Value>,
    /// Updates there ever were.
    written: i64,
    polls: u64,
}

pub struct Telegram {
    pub site: Site,
    state: Arc<Mutex<State>>,
    fresh: Arc<Notify>,
}

impl Telegram {
    /// Starts with the bot of [`TOKEN`] in the chat [`CHAT`].
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            chats: BTreeSet::from([CHAT]),
            moved: BTreeMap::new(),
            sent: Vec::new(),
            refused: Vec::new(),
            updates: Vec::new(),
            written: 0,
            polls: 0,
        }));
        let fresh = Arc::new(Notify::new());
        let (shared, waker) = (Arc::clone(&state), Arc::clone(&fresh));
        let site = Site::serve(Arc::new(move |asked| {
            Box::pin(answer(asked, Arc::clone(&shared), Arc::clone(&waker)))
        }))
        .await;
        Self { site, state, fresh }
    }

    /// The base URL for `notify.telegram.api_url`.
    pub fn url(&self) -> &str {
        &self.site.origin
    }

    pub fn fail(&self, method: &str, faults: &[Fault]) {
        self.site.fail(method, faults);
    }

    /// The group becomes a supergroup of another number.
    pub fn move_chat(&self, from: i64, to: i64) {
        let mut state = self.state.lock().unwrap();
        state.chats.remove(&from);
        state.chats.insert(to);
        state.moved.insert(from, to);
    }

    /// Somebody writes `text` in the chat `chat` at [`DATE`].
    pub fn says(&self, chat: i64, text: &str) {
        self.says_at(DATE, chat, text);
    }

    /// Somebody writes `text` in the chat `chat` now.
    pub fn says_now(&self, chat: i64, text: &str) {
        self.says_at(Clock::system().now().millis() / 1_000, chat, text);
    }

    fn says_at(&self, date: i64, chat: i64, text: &str) {
        let mut state = self.state.lock().unwrap();
        state.written += 1;
        let id = 1_000 + state.written;
        let kind = if chat < 0 {
            json!({ "id": chat, "type": "supergroup", "title": "Traders <3" })
        } else {
            json!({ "id": chat, "type": "private", "first_name": "Ada" })
        };
        state.updates.push(json!({ "update_id": id, "message": {
            "message_id": id, "date": date, "chat": kind, "text": text,
            "from": { "id": 7, "is_bot": false, "first_name": "Ada" },
        }}));
        drop(state);
        self.fresh.notify_waiters();
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.state.lock().unwrap().sent.clone()
    }

    /// Why requests were refused.
    pub fn refused(&self) -> Vec<String> {
        self.state.lock().unwrap().refused.clone()
    }

    /// Requests for updates so far.
    pub fn polls(&self) -> u64 {
        self.state.lock().unwrap().polls
    }
}

async fn answer(asked: Asked, state: Arc<Mutex<State>>, fresh: Arc<Notify>) -> Reply {
    let refuse = |code: u16, description: String| {
        state.lock().unwrap().refused.push(description.clone());
        site::json(code, &json!({ "ok": false, "error_code": code, "description": description }))
    };
    let Some((token, method)) =
        asked.path.strip_prefix("/bot").and_then(|rest| rest.split_once('/'))
    else {
        return refuse(404, "Not Found".to_owned());
    };
    if token != TOKEN {
        let code = if token.contains(':') { 401 } else { 404 };
        return refuse(code, if code == 401 { "Unauthorized" } else { "Not Found" }.to_owned());
    }
    let kind = asked.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    if asked.method != Method::POST || kind.as_deref() != Some("application/json") {
        return refuse(400, format!("Bad Request: {} {kind:?}", asked.method));
    }
    let Ok(text) = std::str::from_utf8(&asked.body) else {
        return refuse(400, "Bad Request: strings must be encoded in UTF-8".to_owned());
    };
    let Ok(body) = serde_json::from_str::<Value>(text) else {
        return refuse(400, "Bad Request: can't parse JSON".to_owned());
    };
    match method.to_lowercase().as_str() {
        "getme" => site::json(
            200,
            &json!({ "ok": true, "result": { "id": 123_456_789, "is_bot": true,
                "first_name": "periscope", "username": "periscope_test_bot" } }),
        ),
        "sendmessage" => match take(&body) {
            Ok(sent) => store(sent, &state),
            Err(reason) => refuse(400, format!("Bad Request: {reason}")),
        },
        "sendchataction" => match body["chat_id"].as_i64() {
            Some(chat) if state.lock().unwrap().chats.contains(&chat) => {
                site::json(200, &json!({ "ok": true, "result": true }))
            }
            _ => refuse(400, "Bad Request: chat not found".to_owned()),
        },
        "getupdates" => updates(&body, &state, &fresh).await,
        other => refuse(404, format!("Not Found: {other}")),
    }
}

fn store(sent: Sent, state: &Mutex<State>) -> Reply {
    let mut state = state.lock().unwrap();
    if let Some(to) = state.moved.get(&sent.chat) {
        return site::json(
            400,
            &json!({ "ok": false, "error_code": 400,
                "description": "Bad Request: group chat was upgraded to a supergroup chat",
                "parameters": { "migrate_to_chat_id": to } }),
        );
    }
    if !state.chats.contains(&sent.chat) {
        state.refused.push("chat not found".to_owned());
        return site::json(
            400,
            &json!({ "ok": false, "error_code": 400, "description": "Bad Request: chat not found" }),
        );
    }
    let id = state.sent.len() + 1;
    let result = json!({ "message_id": id, "date": DATE, "text": sent.text,
        "chat": { "id": sent.chat, "type": "supergroup", "title": "Traders" } });
    state.sent.push(sent);
    site::json(200, &json!({ "ok": true, "result": result }))
}

fn take(body: &Value) -> Result<Sent, String> {
    let known = ["chat_id", "text", "entities", "link_preview_options", "disable_notification"];
    let object = site::object(body, &known)?;
    let chat = object.get("chat_id").and_then(Value::as_i64).ok_or("chat_id is empty")?;
    let text = object.get("text").and_then(Value::as_str).ok_or("message text is empty")?;
    if text.trim().is_empty() {
        return Err("message text is empty".to_owned());
    }
    if let Some(c) = text.chars().find(|c| c.is_control() && *c != '\n') {
        return Err(format!("control character {c:?}"));
    }
    let units: Vec<u16> = text.encode_utf16().collect();
    if units.len() > 4_096 {
        return Err("message is too long".to_owned());
    }
    if let Some(options) = object.get("link_preview_options") {
        let known = ["is_disabled", "url"];
        site::object(options, &known)?;
    }
    let no_entities = Vec::new();
    let entities = object.get("entities").map_or(Ok(&no_entities), |entities| {
        entities.as_array().ok_or("entities are no list".to_owned())
    })?;
    if entities.len() > 100 {
        return Err("too many entities".to_owned());
    }
    let mut outside = units.clone();
    for entity in entities {
        let entity = site::object(entity, &["type", "offset", "length"])?;
        let number = |key: &str| {
            let number = entity.get(key).and_then(Value::as_u64);
            number.map(|number| number as usize).ok_or(format!("entity without {key}"))
        };
        let (offset, length) = (number("offset")?, number("length")?);
        let end = offset + length;
        if length == 0 || end > units.len() || String::from_utf16(&units[offset..end]).is_err() {
            return Err(format!("entity {offset}+{length} of {} units", units.len()));
        }
        match entity.get("type").and_then(Value::as_str) {
            Some("bold") => {}
            // Nothing inside is looked at.
            Some("code" | "pre") => outside[offset..end].fill(u16::from(b' ')),
            other => return Err(format!("entity of type {other:?}")),
        }
    }
    let outside = String::from_utf16(&outside).unwrap();
    Ok(Sent { chat, text: text.to_owned(), marked: marked(&outside) })
}

/// Returns what Telegram finds by itself in text: URLs, mentions, commands, hashtags, cashtags, mail
/// addresses.
fn marked(text: &str) -> Vec<String> {
    let found = Regex::new(concat!(
        r"[A-Za-z]+://[^ \n]+|[@#$/][A-Za-z0-9_]+|[A-Za-z0-9_.\-]+@[A-Za-z0-9]",
        r"|[A-Za-z0-9\-]+\.[A-Za-z]{2,}[^ \n]*"
    ))
    .unwrap();
    found.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

async fn updates(body: &Value, state: &Mutex<State>, fresh: &Notify) -> Reply {
    let object = site::object(body, &["offset", "limit", "timeout", "allowed_updates"]).unwrap();
    let offset = object.get("offset").and_then(Value::as_i64).unwrap_or(0);
    let seconds = object.get("timeout").and_then(Value::as_u64).unwrap_or(0);
    let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
    state.lock().unwrap().polls += 1;
    loop {
        let woken = fresh.notified();
        let found: Vec<Value> = {
            let mut state = state.lock().unwrap();
            state.updates.retain(|update| update["update_id"].as_i64().unwrap() >= offset);
            state.updates.clone()
        };
        if !found.is_empty() || tokio::time::timeout_at(end, woken).await.is_err() {
            return site::json(200, &json!({ "ok": true, "result": found }));
        }
    }
}

//! What takes JSON: a webhook of the user's own at `/hook/KEY`, and an ntfy server with one topic.

use std::sync::{Arc, Mutex};

use hyper::Method;
use serde_json::{Value, json};

use super::site::{self, Asked, Fault, Reply, Site};

pub const TOKEN: &str = "CANARY-topic-token";
const KEY: &str = "CANARY-hook";
const TOPIC: &str = "CANARY-topic";

pub struct Topic {
    site: Site,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Topic {
    pub async fn start() -> Self {
        let taken: Arc<Mutex<Vec<Value>>> = Arc::default();
        let shared = Arc::clone(&taken);
        let site = Site::serve(Arc::new(move |asked| {
            let reply = match take(&asked) {
                Ok(body) => {
                    shared.lock().unwrap().push(body);
                    site::json(200, &json!({ "id": "1" }))
                }
                Err((status, reason)) => site::json(status, &json!({ "error": reason })),
            };
            Box::pin(async move { reply }) as std::pin::Pin<Box<dyn Future<Output = Reply> + Send>>
        }))
        .await;
        Self { site, taken }
    }

    pub fn webhook_url(&self) -> String {
        format!("{}/hook/{KEY}", self.site.origin)
    }

    pub fn ntfy_url(&self) -> String {
        format!("{}/{TOPIC}", self.site.origin)
    }

    pub fn fail(&self, faults: &[Fault]) {
        self.site.fail("/", faults);
    }

    pub fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap().clone()
    }
}

fn take(asked: &Asked) -> Result<Value, (u16, String)> {
    let header = |name| asked.headers.get(name).and_then(|value| value.to_str().ok());
    if header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return Err((401, "unauthorized".to_owned()));
    }
    if asked.method != Method::POST || header("content-type") != Some("application/json") {
        return Err((400, "not a JSON post".to_owned()));
    }
    let body: Value =
        serde_json::from_slice(&asked.body).map_err(|error| (400, error.to_string()))?;
    let known: &[&str] = if asked.path == format!("/hook/{KEY}") {
        &[
            "version", "id", "kind", "severity", "at", "title", "facts", "advice", "children",
            "link", "text",
        ]
    } else if asked.path == "/" && body["topic"] == TOPIC {
        &["topic", "title", "message", "priority", "tags", "click"]
    } else {
        return Err((404, "page not found".to_owned()));
    };
    site::object(&body, known).map_err(|reason| (400, reason))?;
    let message = body["message"].as_str().unwrap_or("-");
    if message.is_empty() || message.len() > 4_096 {
        return Err((413, "message too large".to_owned()));
    }
    Ok(body)
}

//! Dashboards as a browser asks for them.

use std::collections::BTreeMap;
use std::time::Duration;

use periscope::base::http::{Client, Limits};
use serde_json::{Value, json};

use super::periscope::Periscope;

/// Values of the variables, by name.
pub type Values = BTreeMap<String, Vec<String>>;

/// periscope, and the client of whoever looks at its dashboards.
pub struct Seen {
    pub periscope: Periscope,
    pub client: Client,
}

impl Seen {
    pub fn of(periscope: Periscope) -> Self {
        Self { periscope, client: Client::new().unwrap() }
    }
}

/// Sends a request to the listener; returns the status and the body.
pub async fn send(seen: &Seen, path: &str, body: Option<&Value>) -> (u16, String) {
    let url = format!("{}{path}", seen.periscope.listener().unwrap());
    let text = body.map(ToString::to_string).unwrap_or_default();
    let request = || {
        let request = match body {
            Some(_) => hyper::Request::post(&url),
            None => hyper::Request::get(&url),
        };
        request.body(http_body_util::Full::from(text.clone())).unwrap()
    };
    let limits = Limits { time: Duration::from_secs(60), body: 64 << 20 };
    let answer = match seen.client.send(request(), limits).await {
        Ok(answer) => answer,
        // A connection that was idle for long is closed by the listener, as a browser knows.
        Err(_) => seen.client.send(request(), limits).await.unwrap(),
    };
    (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
}

pub async fn model(seen: &Seen, uid: &str) -> Value {
    let (status, body) = send(seen, &format!("/api/v1/dashboards/{uid}"), None).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Asks one query over the last `range_ms`; returns its frame or its error.
pub async fn ask(
    seen: &Seen,
    uid: &str,
    query: Value,
    values: &Values,
    range_ms: i64,
) -> Result<Value, Value> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let question = json!({
        "from": now_ms - range_ms, "to": now_ms, "values": values, "queries": [query],
    });
    let (status, body) = send(seen, &format!("/api/v1/query/{uid}"), Some(&question)).await;
    assert_eq!(status, 200, "{body}");
    let mut answer: Value = serde_json::from_str(&body).unwrap();
    let mut result = answer["results"][0].take();
    if result["error"].is_object() {
        Err(result["error"].take())
    } else {
        Ok(result["frame"].take())
    }
}

/// Returns the values of all variables of a dashboard, each under those before it; those that have
/// none are not among them.
pub async fn variables(seen: &Seen, uid: &str, model: &Value, range_ms: i64) -> Values {
    let mut values = Values::new();
    for one in model["templating"]["list"].as_array().unwrap() {
        if one["type"] != "query" {
            continue;
        }
        let name = one["name"].as_str().unwrap().to_owned();
        let frame = ask(seen, uid, json!({"variable": name}), &values, range_ms)
            .await
            .unwrap_or_else(|error| panic!("{uid} {name}: {error}"));
        let found: Vec<String> =
            serde_json::from_value(frame["columns"][0]["values"].clone()).unwrap();
        assert!(!found.is_empty(), "{uid} {name}");
        values.insert(name, found);
    }
    values
}

/// Number of rows of a frame.
pub fn rows(frame: &Value) -> usize {
    frame["columns"][0]["values"].as_array().unwrap().len()
}

/// Returns what the panel with this title shows of the last quarter of an hour, a row each: the
/// values under the names of their columns.
pub async fn panel(seen: &Seen, uid: &str, title: &str) -> Result<Vec<Value>, String> {
    const RANGE_MS: i64 = 15 * 60_000;
    let model = model(seen, uid).await;
    let panels = model["panels"].as_array().unwrap();
    let panel = panels.iter().find(|panel| panel["title"] == title && panel["type"] != "row");
    let panel = panel.unwrap_or_else(|| panic!("{uid} has no panel {title}"));
    let values = variables(seen, uid, &model, RANGE_MS).await;
    let query = json!({"panel": panel["id"], "refId": "A"});
    let frame =
        ask(seen, uid, query, &values, RANGE_MS).await.map_err(|error| error.to_string())?;
    let columns = frame["columns"].as_array().unwrap();
    let row = |index: usize| {
        let cell = |column: &Value| {
            (column["name"].as_str().unwrap().to_owned(), column["values"][index].clone())
        };
        Value::Object(columns.iter().map(cell).collect())
    };
    Ok((0..rows(&frame)).map(row).collect())
}

//! A stand-in for Grafana's HTTP API: it keeps what it is given and answers as the recorded one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct State {
    /// Objects by path: `/api/folders/UID`.
    objects: BTreeMap<String, Value>,
    policies: Value,
    /// Method and path of every request that changes something.
    writes: Vec<String>,
    /// Status that every request gets, instead of an answer.
    refuse: Option<u16>,
    authorization: String,
}

pub struct GrafanaApi {
    pub url: String,
    state: Arc<Mutex<State>>,
    server: tokio::task::JoinHandle<()>,
}

impl GrafanaApi {
    /// Serves an empty Grafana with the recorded tree of policies.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let recorded = include_str!("../../data/grafana/policies.json");
        let policies = serde_json::from_str(recorded).unwrap();
        let state = Arc::new(Mutex::new(State { policies, ..State::default() }));
        let shared = Arc::clone(&state);
        let server = periscope::base::tasks::spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                periscope::base::tasks::spawn_detached(async move {
                    let _closed = serve(stream, &state).await;
                });
            }
        });
        Self { url, state, server }
    }

    /// Requests since the last call that changed something.
    pub fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().writes)
    }

    /// Puts an object there that periscope has not made.
    pub fn put(&self, path: &str, body: Value) {
        self.state.lock().unwrap().objects.insert(path.to_owned(), body);
    }

    pub fn object(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub fn policies(&self) -> Value {
        self.state.lock().unwrap().policies.clone()
    }

    /// Answers everything with `status` from now on.
    pub fn refuse(&self, status: Option<u16>) {
        self.state.lock().unwrap().refuse = status;
    }

    /// The last Authorization header.
    pub fn authorization(&self) -> String {
        self.state.lock().unwrap().authorization.clone()
    }
}

impl Drop for GrafanaApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let header = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    while bytes.len() < head + length {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
    let mut words = text.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let body = serde_json::from_slice(&bytes[head..]).unwrap_or(Value::Null);
    let (status, answer) = {
        let mut state = state.lock().unwrap();
        state.authorization = header("authorization").unwrap_or_default();
        match state.refuse {
            Some(status) => (status, json!({"message": "stand-in refuses as told"})),
            None => answer(&mut state, method, path, body),
        }
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{answer}",
        answer.len()
    );
    stream.write_all(head.as_bytes()).await
}

fn answer(state: &mut State, method: &str, path: &str, body: Value) -> (u16, Value) {
    const POLICIES: &str = "/api/v1/provisioning/policies";
    const CONTACTS: &str = "/api/v1/provisioning/contact-points";
    let missing = || (404, json!({"message": "not found"}));
    if method != "GET" {
        state.writes.push(format!("{method} {path}"));
    }
    let uid = body["uid"].as_str().unwrap_or_default().to_owned();
    match (method, path) {
        ("GET", "/api/health") => (200, json!({"database": "ok", "version": "12.4.2"})),
        ("GET", POLICIES) => (200, state.policies.clone()),
        ("PUT", POLICIES) => {
            state.policies = body;
            (202, json!({"message": "policies updated"}))
        }
        ("GET", CONTACTS) => {
            let points = state.objects.iter().filter(|(path, _)| path.starts_with(CONTACTS));
            let points: Vec<Value> = points.map(|(_, point)| redacted(point.clone())).collect();
            (200, points.into())
        }
        ("POST", CONTACTS) => stored(state, format!("{CONTACTS}/{uid}"), body),
        ("POST", "/api/folders") => stored(state, format!("/api/folders/{uid}"), body),
        ("POST", "/api/datasources") => {
            stored(state, format!("/api/datasources/uid/{uid}"), redacted(body))
        }
        ("POST", "/api/dashboards/db") => {
            let uid = body["dashboard"]["uid"].as_str().unwrap().to_owned();
            let mut model = body["dashboard"].clone();
            model["id"] = 7.into();
            model["version"] = 3.into();
            let meta = json!({"folderUid": body["folderUid"]});
            let whole = json!({"dashboard": model, "meta": meta});
            stored(state, format!("/api/dashboards/uid/{uid}"), whole)
        }
        ("GET", search) if search.starts_with("/api/search") => {
            let found = state.objects.iter().filter(|(path, _)| path.contains("/dashboards/uid/"));
            let found: Vec<Value> = found
                .map(|(_, one)| {
                    json!({
                        "uid": one["dashboard"]["uid"], "title": one["dashboard"]["title"],
                        "type": "dash-db", "folderUid": one["meta"]["folderUid"],
                    })
                })
                .collect();
            (200, found.into())
        }
        ("PUT", group) if group.contains("/rule-groups/") => {
            let mut body = body;
            for rule in body["rules"].as_array_mut().unwrap() {
                // As Grafana writes durations.
                let seconds: u64 =
                    rule["for"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
                rule["for"] = format!("{}m{}s", seconds / 60, seconds % 60).into();
                rule["provenance"] = "api".into();
                let path =
                    format!("/api/v1/provisioning/alert-rules/{}", rule["uid"].as_str().unwrap());
                state.objects.insert(path, rule.clone());
            }
            stored(state, path.to_owned(), body)
        }
        ("PUT", path) => {
            if state.objects.contains_key(path) {
                stored(state, path.to_owned(), redacted(body))
            } else {
                missing()
            }
        }
        ("DELETE", path) => match state.objects.remove(path) {
            Some(_) => (204, Value::Null),
            None => missing(),
        },
        ("GET", path) => state.objects.get(path).map_or_else(missing, |found| (200, found.clone())),
        _ => missing(),
    }
}

fn stored(state: &mut State, path: String, body: Value) -> (u16, Value) {
    state.objects.insert(path, body.clone());
    (200, body)
}

/// Hides secrets as Grafana does.
fn redacted(mut body: Value) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.remove("secureJsonData");
    }
    if let Some(settings) = body.get_mut("settings").and_then(Value::as_object_mut) {
        for key in ["bottoken", "authorization_credentials"] {
            if settings.contains_key(key) {
                settings.insert(key.to_owned(), "[REDACTED]".into());
            }
        }
    }
    body
}

//! Dashboards without Grafana: the page, the models, and the answers of their queries.
//!
//! The browser names a dashboard, places of queries in it, a time range and values of variables. The
//! SQL is the dashboard's own; of what the browser sends only checked numbers and quoted values
//! reach it. What keeps a query from being answered is part of the answer and stands on its panel.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::api::{self, JSON, json};
use super::page;
use super::question::{self, Question, Trouble, shown};
use super::routes::{Answer, answer};
use crate::base::embed;
use crate::grafana::catalog::{Catalog, Entry, Place};
use crate::model::report::Server;
use crate::model::server::{Endpoint, ServerState};
use crate::store::frame::{self, Frame, Limits};
use crate::store::read::ReadError;

/// Largest question: all values of all variables.
pub(super) const BODY_LIMIT: usize = 256 * 1024;
/// Queries that run at a time: the database has its own work to do.
const PARALLEL: usize = 4;
/// Time of one question, with its wait for others.
const TIME: Duration = Duration::from_secs(15);
/// Size of one answer.
const LIMITS: Limits = Limits { time: TIME, rows: 100_000, bytes: 8 << 20 };

/// What the viewer shows and asks.
#[derive(Debug, Clone)]
pub struct Viewer {
    catalog: Arc<Catalog>,
    questdb: watch::Receiver<ServerState>,
    slots: Arc<Semaphore>,
}

/// Answer to one query.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Frame(Frame),
    Error(Trouble),
}

impl Viewer {
    /// Makes a viewer of `catalog` that asks the database that `questdb` tells of.
    pub fn new(catalog: Catalog, questdb: watch::Receiver<ServerState>) -> Self {
        let slots = Arc::new(Semaphore::new(PARALLEL));
        Self { catalog: Arc::new(catalog), questdb, slots }
    }

    /// Answers `GET /d/{uid}`.
    pub(super) fn page(&self, uid: &str) -> Answer {
        let Some(entry) = self.catalog.get(uid) else {
            let (message, hint) = self.missing(uid);
            let text = format!("{message}. {hint}\n");
            return answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", text);
        };
        match embed::asset_text("web/viewer.html") {
            Some(template) => {
                let html = page::fill(&template, &[("title", page::text(&entry.title))]);
                answer(StatusCode::OK, "text/html; charset=utf-8", html)
            }
            None => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "page not embedded\n"),
        }
    }

    /// Answers `GET /api/v1/dashboards`.
    pub(super) fn list(&self) -> Answer {
        let entries = self.catalog.entries().iter();
        let list: Vec<_> = entries
            .map(|entry| serde_json::json!({"uid": entry.uid, "title": entry.title}))
            .collect();
        json(StatusCode::OK, &serde_json::json!({ "dashboards": list }))
    }

    /// Returns uid and title of every dashboard, for links.
    pub(super) fn links(&self) -> Vec<(&str, &str)> {
        let entries = self.catalog.entries().iter();
        entries.map(|entry| (entry.uid.as_str(), entry.title.as_str())).collect()
    }

    /// Answers `GET /api/v1/dashboards/{uid}`.
    pub(super) fn model(&self, uid: &str) -> Answer {
        match self.catalog.get(uid) {
            Some(entry) => answer(StatusCode::OK, JSON, entry.model.clone()),
            None => self.unknown(uid),
        }
    }

    /// Answers `POST /api/v1/query/{uid}`.
    pub(super) async fn query(&self, uid: &str, body: &Bytes) -> Answer {
        let Some(entry) = self.catalog.get(uid) else { return self.unknown(uid) };
        let question = match question::checked(entry, body) {
            Ok(question) => question,
            Err(trouble) => return json(StatusCode::BAD_REQUEST, &Outcome::Error(trouble)),
        };
        let deadline = Instant::now() + TIME;
        let mut results = Vec::new();
        for wanted in &question.queries {
            results.push(match self.ask(entry, &question, &wanted.place(), deadline).await {
                Ok(frame) => Outcome::Frame(frame),
                Err(trouble) => Outcome::Error(trouble),
            });
        }
        json(StatusCode::OK, &serde_json::json!({ "results": results }))
    }

    async fn ask(
        &self,
        entry: &Entry,
        question: &Question,
        place: &Place,
        deadline: Instant,
    ) -> Result<Frame, Trouble> {
        let sql = question::expanded(entry, question, place)?;
        let endpoint = self.endpoint()?;
        let answered = tokio::time::timeout_at(deadline, async {
            // Never closed.
            let _slot = self.slots.acquire().await;
            frame::query(&endpoint, &sql, LIMITS).await
        });
        let result = answered.await.unwrap_or_else(|_elapsed| {
            Err(ReadError::Timeout { pg: endpoint.pg.clone(), limit: TIME })
        });
        result.map_err(|error| self.trouble(&error, sql))
    }

    fn endpoint(&self) -> Result<Endpoint, Trouble> {
        let endpoint = self.questdb.borrow().endpoint.clone();
        endpoint.ok_or_else(|| self.away("QuestDB is not there yet".to_owned()))
    }

    fn trouble(&self, error: &ReadError, sql: String) -> Trouble {
        match error {
            ReadError::Connect { .. } => self.away(error.to_string()),
            ReadError::Timeout { .. } => Trouble {
                kind: "slow",
                message: error.to_string(),
                hint: "Choose a shorter range or fewer values. If QuestDB has stopped answering, \
                       the status page says so."
                    .to_owned(),
                sql: None,
            },
            ReadError::Statement(_) => Trouble {
                kind: "failed",
                message: error.to_string(),
                hint: "A table or column that is missing is made by periscope once QuestDB is \
                       ready: see the part schema on the status page."
                    .to_owned(),
                sql: Some(sql),
            },
        }
    }

    fn away(&self, message: String) -> Trouble {
        let state = self.questdb.borrow();
        let reason = match state.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let phase = Server::state_name(state.phase);
        let hint = format!("QuestDB is {phase}{reason}. The panel comes back by itself.");
        Trouble { kind: "away", message, hint, sql: None }
    }

    fn unknown(&self, uid: &str) -> Answer {
        let (message, hint) = self.missing(uid);
        let trouble = Trouble { kind: "request", message, hint, sql: None };
        json(StatusCode::NOT_FOUND, &Outcome::Error(trouble))
    }

    /// What is wrong with a uid that does not exist, and what to do.
    fn missing(&self, uid: &str) -> (String, String) {
        let known: Vec<&str> = self.links().into_iter().map(|(uid, _)| uid).collect();
        let message = format!("there is no dashboard {}", shown(uid));
        (message, format!("There are: {}.", known.join(", ")))
    }
}

/// Answers with one of the page's scripts.
pub(super) fn module(file: &str) -> Answer {
    // A debug build looks into a folder: only names of its files go there.
    let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase());
    match file.strip_suffix(".js") {
        Some(name) if plain(name) => api::asset(&format!("web/viewer/{file}")),
        Some(_) | None => answer(StatusCode::NOT_FOUND, "text/plain", "not embedded\n"),
    }
}

//! `GET /api/v1/alerts`, `POST /api/v1/alerts/mute` and `/unmute`, and what Grafana sends to
//! `POST /grafana/webhook`.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::routes::Answer;

/// Largest body of a mute, bytes.
pub(super) const MUTE_LIMIT: usize = 4 << 10;
/// Largest notification of Grafana, bytes.
pub(super) const WEBHOOK_LIMIT: usize = 4 << 20;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// To mute.
    Mute,
    /// To end mutes.
    Unmute,
    /// To take what Grafana has told.
    Webhook,
}

/// The end of asking: an answer, or what is wrong with the request.
pub type Asked = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

/// Where alerts are looked at and asked for.
#[derive(Clone)]
pub struct Alerts {
    /// Everything about alerts.
    pub list: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Takes a request.
    pub ask: Arc<dyn Fn(Ask, Bytes) -> Asked + Send + Sync>,
}

impl std::fmt::Debug for Alerts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alerts").finish_non_exhaustive()
    }
}

/// Answers with everything.
pub(super) fn list(alerts: &Alerts) -> Answer {
    super::api::json(StatusCode::OK, &(alerts.list)())
}

/// Passes a request on.
pub(super) async fn ask(alerts: &Alerts, what: Ask, body: Bytes) -> Answer {
    match (alerts.ask)(what, body).await {
        Ok(value) => super::api::json(StatusCode::OK, &value),
        Err(message) => super::api::json(StatusCode::BAD_REQUEST, &json!({ "message": message })),
    }
}

//! What programs ask: probes, metrics, the report as JSON; and the page's own files.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{ACCEPT, CACHE_CONTROL, HeaderValue, VARY};
use hyper::{HeaderMap, StatusCode};

use super::alerts::Alerts;
use super::prometheus;
use super::push::{Intake, Statuses};
use super::routes::{Answer, Door, answer};
use super::viewer::Viewer;
use crate::base::embed;
use crate::base::health::{Board, Part};
use crate::base::metrics::Metrics;
use crate::base::time::Clock;
use crate::model::report::Report;

pub(super) const JSON: &str = "application/json";

/// Metrics change all the time; scrapers that ask more often get the same text.
const METRICS_AGE: Duration = Duration::from_secs(1);

/// Parts without which samples are lost or not visible.
const NEEDED: [Part; 3] = [Part::Spool, Part::Collect, Part::Questdb];

/// Everything that handlers use; all connections share one.
pub(super) struct Site {
    pub(super) door: Door,
    /// Where the listener is, for links.
    pub(super) address: SocketAddr,
    pub(super) report: Arc<dyn Fn() -> Report + Send + Sync>,
    pub(super) board: Board,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) intake: Intake,
    pub(super) statuses: Statuses,
    pub(super) sockets: super::socket::Sockets,
    pub(super) viewer: Viewer,
    /// The page of runbooks, as HTML.
    pub(super) runbooks: Bytes,
    pub(super) alerts: Alerts,
    pub(super) rendered: Mutex<Option<Rendered>>,
}

/// Metrics as text, and when they were read.
#[derive(Debug, Clone)]
pub(super) struct Rendered {
    at: Instant,
    openmetrics: Bytes,
    text: Bytes,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Site {
    /// Answers `/metrics`.
    pub(super) fn metrics(&self, headers: &HeaderMap, now: Instant) -> Answer {
        let Some(rendered) = self.rendered(now) else {
            return answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "cannot format\n");
        };
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let mut response = if prometheus::wants_openmetrics(accept) {
            answer(StatusCode::OK, prometheus::OPENMETRICS, rendered.openmetrics)
        } else {
            answer(StatusCode::OK, prometheus::TEXT, rendered.text)
        };
        response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        response
    }

    fn rendered(&self, now: Instant) -> Option<Rendered> {
        let mut kept = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |rendered: &&Rendered| now.saturating_duration_since(rendered.at) < METRICS_AGE;
        if let Some(rendered) = kept.as_ref().filter(fresh) {
            return Some(rendered.clone());
        }
        let openmetrics = self.metrics.render().ok()?;
        let text = prometheus::from_openmetrics(&openmetrics).into();
        let rendered = Rendered { at: now, openmetrics: openmetrics.into(), text };
        Some(kept.insert(rendered).clone())
    }
}

/// Answers `/readyz`: 503 while a needed part is not well.
pub(super) fn readyz(board: &Board) -> Answer {
    let parts = board.entries();
    let well = |part: &&Part| parts.get(part).is_some_and(|entry| entry.health.is_ok());
    let waiting_for: Vec<&Part> = NEEDED.iter().filter(|part| !well(part)).collect();
    let ready = waiting_for.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &serde_json::json!({ "ready": ready, "waiting_for": waiting_for, "parts": parts }))
}

/// Answers `/api/v1/status`.
pub(super) fn status(report: &Report) -> Answer {
    json(StatusCode::OK, report)
}

pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            answer(status, JSON, body)
        }
        Err(error) => {
            tracing::error!(%error, "cannot write the answer as JSON");
            answer(StatusCode::INTERNAL_SERVER_ERROR, JSON, "{}\n")
        }
    }
}

/// Answers with an embedded file.
pub(super) fn asset(path: &str) -> Answer {
    let kind = match path.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some(_) | None => "application/octet-stream",
    };
    match embed::Assets::get(path) {
        Some(file) => {
            let mut response = answer(StatusCode::OK, kind, file.data.into_owned());
            // Asked for again after an upgrade, at once.
            let fresh = HeaderValue::from_static("no-cache");
            response.headers_mut().insert(CACHE_CONTROL, fresh);
            response
        }
        None => answer(StatusCode::NOT_FOUND, "text/plain", "not embedded\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::health::Health;

    #[test]
    fn ready_means_spool_collect_and_questdb() {
        let board = Board::new(Clock::system());
        assert_eq!(readyz(&board).status(), StatusCode::SERVICE_UNAVAILABLE);
        for part in NEEDED {
            board.set(part, Health::Ok);
        }
        assert_eq!(readyz(&board).status(), StatusCode::OK);
        board.set(Part::Grafana, Health::Down { reason: "gone".to_owned() });
        assert_eq!(readyz(&board).status(), StatusCode::OK);
        for part in NEEDED {
            for health in [
                Health::Starting { doing: "x".to_owned() },
                Health::Degraded { reason: "x".to_owned() },
                Health::Down { reason: "x".to_owned() },
            ] {
                board.set(part, health);
                assert_eq!(readyz(&board).status(), StatusCode::SERVICE_UNAVAILABLE, "{part:?}");
            }
            board.set(part, Health::Ok);
        }
    }
}

//! `POST /write` and `GET /settings`: what line-protocol clients need to push rows of the known
//! tables; `POST /api/v1/push/{daemon}` and the messages of a WebSocket for status documents. A
//! request is stored whole or not at all, and is answered 204 only once it is on disk.

use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::sync::Semaphore;

use super::routes::{Answer, answer};
use crate::base::time::Clock;
use crate::config::Node;
use crate::model::line::{Defaults, LineError, Lines, Precision, parse};
use crate::model::observation::PushRefusal;
use crate::store::queue::{PushError, RowQueue};
use crate::store::validate::Invalid;

/// Largest accepted body as sent, bytes.
pub(super) const BODY_LIMIT: usize = 16 << 20;

/// Largest accepted body after unpacking, bytes.
const UNPACKED_LIMIT: usize = 32 << 20;

/// Requests parsed at the same time; further ones wait, so that pushes cannot eat all memory.
static PARSING: Semaphore = Semaphore::const_new(2);

/// Where pushed rows go.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) queue: RowQueue,
    /// Tags of rows that leave them out.
    pub(super) node: Node,
    pub(super) clock: Clock,
}

/// The end of taking a status document: its rows are on disk, or why not.
pub type Taken = Pin<Box<dyn Future<Output = Result<(), PushRefusal>> + Send>>;

/// Where pushed status documents go.
#[derive(Clone)]
pub struct Statuses {
    /// Takes the document of a daemon, given by name.
    pub take: Arc<dyn Fn(String, Bytes) -> Taken + Send + Sync>,
    /// Largest accepted document, bytes, packed or not.
    pub limit: usize,
}

impl std::fmt::Debug for Statuses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Statuses").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A refusal: status, words and, where lines are to blame, each bad line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    message: String,
    lines: Vec<LineError>,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), lines: Vec::new() }
    }

    fn lines(lines: Vec<LineError>) -> Self {
        let first = lines.first().map(ToString::to_string).unwrap_or_default();
        let message = format!("{first}; no line of this request was stored");
        Self { status: StatusCode::BAD_REQUEST, message, lines }
    }

    /// Returns the words of the answer: JSON as `QuestDB`'s clients read it, and every bad line.
    fn body(&self) -> serde_json::Value {
        let code = if self.status.is_server_error() { "unavailable" } else { "invalid" };
        let mut body = json!({ "code": code, "message": self.message });
        if let (Some(first), Some(object)) = (self.lines.first(), body.as_object_mut()) {
            object.insert("line".into(), first.line.into());
            let lines: Vec<_> = self
                .lines
                .iter()
                .map(|error| json!({ "line": error.line, "reason": error.reason }))
                .collect();
            object.insert("errors".into(), lines.into());
        }
        body
    }

    fn answer(&self) -> Answer {
        let mut response = answer(self.status, super::api::JSON, self.body().to_string());
        if self.status.is_server_error() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Stores the lines of one request, all or none.
pub(super) async fn write(intake: &Intake, parts: &Parts, body: Bytes) -> Answer {
    answered(store(intake, parts, body).await)
}

fn answered(stored: Result<(), Refusal>) -> Answer {
    match stored {
        Ok(()) => {
            let mut response = answer(StatusCode::NO_CONTENT, super::api::JSON, Bytes::new());
            response.headers_mut().remove(CONTENT_TYPE);
            response
        }
        Err(refusal) => refusal.answer(),
    }
}

/// Stores the status document of the daemon whose name is `segment` of the path.
pub(super) async fn status(
    statuses: &Statuses,
    segment: &str,
    parts: &Parts,
    body: Bytes,
) -> Answer {
    answered(take_status(statuses, segment, &parts.headers, body).await)
}

async fn take_status(
    statuses: &Statuses,
    segment: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<(), Refusal> {
    let name = daemon(segment).map_err(|words| Refusal::new(StatusCode::BAD_REQUEST, words))?;
    let limit = statuses.limit;
    let body = if is_gzip(headers)? {
        let unpacked = tokio::task::spawn_blocking(move || unpack(&body, limit)).await;
        unpacked.map_err(|error| {
            tracing::error!(%error, "unpack a pushed document");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "unpacking failed")
        })??
    } else {
        body
    };
    (statuses.take)(name, body).await.map_err(|refusal| refused(&refusal))
}

fn refused(refusal: &PushRefusal) -> Refusal {
    let status = match refusal {
        PushRefusal::Invalid(_) => StatusCode::BAD_REQUEST,
        PushRefusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        PushRefusal::Taken(_) => StatusCode::CONFLICT,
        PushRefusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(status, refusal.to_string())
}

/// Returns what a document is answered on a WebSocket: `{"ok":true}` once it is on disk, else the words
/// of the HTTP answer.
pub(super) fn message(taken: Result<(), PushRefusal>) -> String {
    let body = match taken {
        Ok(()) => json!({ "ok": true }),
        Err(refusal) => {
            let mut body = refused(&refusal).body();
            if let Some(object) = body.as_object_mut() {
                object.insert("ok".into(), false.into());
            }
            body
        }
    };
    body.to_string()
}

/// Returns the daemon whose name is `segment` of a path, or why there is none.
pub(super) fn daemon(segment: &str) -> Result<String, &'static str> {
    percent_decoded(segment).ok_or("the daemon's name in the path is no percent-encoded UTF-8")
}

/// Reads `%41` as `A`; `None` when a `%` stands alone or the result is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

async fn store(intake: &Intake, parts: &Parts, body: Bytes) -> Result<(), Refusal> {
    let precision = precision(parts.uri.query().unwrap_or_default())?;
    let gzip = is_gzip(&parts.headers)?;
    let (node, now) = (intake.node.clone(), intake.clock.now());
    let unavailable = |words: &str| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, words);
    let permit = PARSING.acquire().await.map_err(|_| unavailable("periscope is stopping"))?;
    let parsed = tokio::task::spawn_blocking(move || {
        let text = if gzip { unpack(&body, UNPACKED_LIMIT)? } else { body };
        let defaults = Defaults { host: &node.host, env: &node.env, now, precision };
        parse(&text, &defaults).map_err(Refusal::lines)
    })
    .await;
    drop(permit);
    let Lines { rows, numbers } = match parsed {
        Ok(parsed) => parsed?,
        Err(error) => {
            tracing::error!(%error, "parse pushed lines");
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the parser failed"));
        }
    };
    if rows.len() > intake.queue.limit() {
        let message = format!(
            "{} rows at once: send at most {}, or raise writer.queue_rows",
            rows.len(),
            intake.queue.limit()
        );
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    intake.queue.push_durable(rows).await.map_err(|error| match error {
        PushError::Invalid(rows) => {
            let line = |index: usize| numbers.get(index).copied().unwrap_or_default();
            let bad = |(index, reason): (usize, Invalid)| LineError {
                line: line(index),
                reason: reason.to_string(),
            };
            Refusal::lines(rows.into_iter().map(bad).collect())
        }
        PushError::Full | PushError::Closed | PushError::NotDurable(_) => {
            unavailable(&error.to_string())
        }
    })
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(false),
        Some(b"gzip" | b"x-gzip") => Ok(true),
        Some(_) => Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "this content-encoding is not known: send gzip or none",
        )),
    }
}

fn precision(query: &str) -> Result<Precision, Refusal> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("precision="));
    value.map_or(Ok(Precision::default()), |text| {
        Precision::parse(text).ok_or_else(|| {
            let message = format!("precision {text:?} is not one of n, ns, u, us, ms, s");
            Refusal::new(StatusCode::BAD_REQUEST, message)
        })
    })
}

/// Unpacks a gzip body; one that would grow beyond `limit` bytes is refused before it does.
fn unpack(body: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let mut text = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut decoder = flate2::read::MultiGzDecoder::new(body).take(most);
    decoder.read_to_end(&mut text).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the body is no gzip: {error}"))
    })?;
    if text.len() > limit {
        let message = format!("the body unpacks to more than {limit} bytes: send less at once");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    Ok(text.into())
}

/// What clients ask before they write. Only the text protocol is offered: it is what the spool keeps.
pub(super) fn settings() -> String {
    json!({
        "config": {
            "release.type": "periscope",
            "release.version": env!("CARGO_PKG_VERSION"),
            "line.proto.support.versions": [1],
            "cairo.max.file.name.length": 127,
            "accepting.writes": ["http"],
        },
        "preferences.version": 0,
        "preferences": {},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_is_read_from_the_query() {
        assert_eq!(precision("db=x&precision=ms"), Ok(Precision::Millis));
        assert_eq!(precision(""), Ok(Precision::Nanos));
        assert_eq!(precision("precision=w").unwrap_err().status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn names_in_paths_are_decoded_or_refused() {
        for (text, name) in [
            ("ccxt", Some("ccxt")),
            ("a%2Fb%20c", Some("a/b c")),
            ("%C3%BC", Some("ü")),
            ("%C3", None),
            ("%", None),
            ("%+1", None),
            ("%4", None),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn a_refusal_names_every_bad_line() {
        let lines = vec![LineError { line: 3, reason: "bad".into() }];
        let refusal = Refusal::lines(lines.clone());
        assert_eq!((refusal.status, &refusal.lines), (StatusCode::BAD_REQUEST, &lines));
        assert_eq!(refusal.message, "line 3: bad; no line of this request was stored");
    }

    #[test]
    fn an_outage_says_when_to_try_again() {
        let response = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "full").answer();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }
}

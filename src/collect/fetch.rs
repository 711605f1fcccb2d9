//! One poll: asks a daemon for its document within the limits.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION};
use hyper::{Request, Uri};

use super::json::{self, Document, Malformed};
use crate::base::http::{self, Answer, Client, ConnectCause, HttpError, Limits};
use crate::base::secret::Secret;
use crate::model::observation::{Failure, FailureReason};

/// A daemon that is polled over HTTP.
#[derive(Debug)]
pub(super) struct Endpoint {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl Endpoint {
    /// Checks a URL and a secret header.
    ///
    /// # Errors
    /// Words for the user, without the secret and without the URL's path.
    pub(super) fn new(url: &str, authorization: Option<&Secret>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("the URL is invalid: {error}"))?;
        if uri.host().is_none() || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("the URL needs http:// or https:// and a host".to_owned());
        }
        let authorization = match authorization {
            None => None,
            Some(secret) => {
                let mut value = HeaderValue::from_str(secret.reveal())
                    .map_err(|_invalid| "the authorization is no valid header".to_owned())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { uri, authorization })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        request
    }
}

/// Polls over HTTP.
///
/// # Errors
/// See [`FailureReason`].
pub(super) async fn http(
    client: &Client,
    endpoint: &Endpoint,
    limits: Limits,
) -> Result<Document, Failure> {
    let started = Instant::now();
    let mut answer = client.send(endpoint.request(), limits).await;
    if matches!(answer, Err(HttpError::Broken { .. })) {
        // Servers close idle connections, often after the very interval that they are polled at: a
        // kept connection may break just as it is used. Once more, on a new one.
        let rest = limits.time.saturating_sub(started.elapsed());
        if rest > Duration::from_millis(10) {
            answer = client.send(endpoint.request(), Limits { time: rest, ..limits }).await;
        }
    }
    document(&answer.map_err(|error| failure(&error))?)
}

/// Polls the shim's socket.
///
/// # Errors
/// See [`FailureReason`].
pub(super) async fn unix(path: &Path, limits: Limits) -> Result<Document, Failure> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = Uri::from_static("/status");
    let headers = request.headers_mut();
    headers.insert(hyper::header::HOST, HeaderValue::from_static("shim"));
    if let Ok(millis) = u32::try_from(limits.time.as_millis()) {
        headers.insert("x-periscope-limit-ms", HeaderValue::from(millis));
    }
    let answer = http::send_unix(path, request, limits).await;
    document(&answer.map_err(|error| failure(&error))?)
}

fn failure(error: &HttpError) -> Failure {
    let reason = match error {
        HttpError::Connect { cause, .. } => match cause {
            ConnectCause::Refused => FailureReason::Refused,
            ConnectCause::Dns => FailureReason::Dns,
            ConnectCause::Tls => FailureReason::Tls,
            ConnectCause::Missing => FailureReason::SocketMissing,
            ConnectCause::Permission => FailureReason::Permission,
            ConnectCause::Other => FailureReason::Unreachable,
        },
        HttpError::Timeout { .. } => FailureReason::Timeout,
        HttpError::TooLarge { .. } => FailureReason::TooLarge,
        HttpError::Broken { .. } => FailureReason::Broken,
    };
    Failure::new(reason, error.to_string())
}

fn document(answer: &Answer) -> Result<Document, Failure> {
    let status = answer.status;
    if status.is_redirection() {
        let target = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let target = target.and_then(|target| target.parse::<Uri>().ok());
        let target = match target.filter(|target| target.host().is_some()) {
            Some(target) => http::origin(&target),
            None => "another path".to_owned(),
        };
        let words =
            format!("HTTP {status} to {target}; redirects are not followed, set the final url");
        return Err(Failure::new(FailureReason::Redirect, words));
    }
    if !status.is_success() {
        return Err(Failure::new(FailureReason::HttpStatus, format!("HTTP {status}")));
    }
    let body = answer.body.trim_ascii();
    if body.is_empty() {
        return Err(Failure::new(FailureReason::Empty, "the answer has no content"));
    }
    if body.first() == Some(&b'<') {
        let words = "the answer is a web page; is this the status url?";
        return Err(Failure::new(FailureReason::Html, words));
    }
    json::parse(body).map_err(|malformed| match malformed {
        Malformed::Syntax(at) => {
            Failure::new(FailureReason::NotJson, format!("no JSON at byte {at} of {}", body.len()))
        }
        Malformed::TooDeep => Failure::new(
            FailureReason::TooDeep,
            format!("nested more than {} levels deep", json::MAX_DEPTH),
        ),
        Malformed::TooManyFields => Failure::new(
            FailureReason::BadDocument,
            format!("more than {} fields in one object, or too many values", json::MAX_FIELDS),
        ),
    })
}

//! What HTTP channels share: one request, and what an answer that is no success means.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};

use super::Failure;
use crate::alert::text::clean;
use crate::base::http::{Answer, Client, HttpError, Limits};
use crate::base::secret::Secret;

/// What one request may cost. Answers of these servers are short.
const LIMITS: Limits = Limits { time: Duration::from_secs(20), body: 1 << 20 };

/// Longest part of a server's answer that is repeated, units.
const REASON: usize = 200;

/// What a server is asked with.
pub(super) const AGENT: &str = concat!("periscope/", env!("CARGO_PKG_VERSION"));

/// Posts `body` to `url`, which is secret. The answer may have any status.
///
/// # Errors
/// There was no answer; the reason names no more than scheme, host and port.
pub(super) async fn post(
    client: &Client,
    url: &str,
    token: Option<&Secret>,
    body: Vec<u8>,
) -> Result<Answer, Failure> {
    let mut request =
        Request::post(url).header(CONTENT_TYPE, "application/json").header(USER_AGENT, AGENT);
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()));
        let mut value = value.map_err(|_invalid| Failure::Never {
            reason: "the token cannot be sent in a header".to_owned(),
            hint: "use letters, digits and signs of ASCII".to_owned(),
        })?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|_invalid| {
        // The library's words could repeat the URL.
        let reason = "the URL is not one that can be asked".to_owned();
        Failure::Never { reason, hint: "copy it again from where it was made".to_owned() }
    })?;
    client.send(request, LIMITS).await.map_err(|error| no_answer(&error))
}

/// Asks for `url`, which is secret, without a body. The answer may have any status.
///
/// # Errors
/// As [`post`].
pub(super) async fn ask(
    client: &Client,
    method: hyper::Method,
    url: &str,
) -> Result<Answer, Failure> {
    let request = Request::builder().method(method).uri(url).header(USER_AGENT, AGENT);
    let request = request.body(Full::default()).map_err(|_invalid| {
        // The library's words could repeat the URL.
        let reason = "the URL is not one that can be asked".to_owned();
        Failure::Never { reason, hint: "copy it again from where it was made".to_owned() }
    })?;
    client.send(request, LIMITS).await.map_err(|error| no_answer(&error))
}

/// Returns what the lack of an answer means: always to try again, since nobody refused anything.
pub(super) fn no_answer(error: &HttpError) -> Failure {
    Failure::Later { reason: clean(&error.to_string(), REASON), after: None }
}

/// Returns what `answer`, which is no success, means where the service has no rules of its own.
pub(super) fn refusal(answer: &Answer, secrets: &[&Secret], hint: &str) -> Failure {
    let status = answer.status;
    let reason = format!("answered {status}{}", words(&answer.body, secrets));
    match status.as_u16() {
        300..=399 => Failure::Never {
            reason: format!("answered {status}, a redirect"),
            hint: "redirects are not followed: set the URL that it leads to".to_owned(),
        },
        408 | 425 | 429 | 500.. => Failure::Later { reason, after: answer.retry_after() },
        _ => Failure::Never { reason, hint: hint.to_owned() },
    }
}

/// Returns the start of a server's answer to be read by people: `: no such topic`, or nothing.
pub(super) fn words(body: &[u8], secrets: &[&Secret]) -> String {
    let text = String::from_utf8_lossy(body);
    if text.trim().is_empty() {
        return String::new();
    }
    format!(": {}", quoted(&text, secrets))
}

/// Returns words of a server without `secrets`: some repeat the request.
pub(super) fn quoted(text: &str, secrets: &[&Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        // Of a URL, the part after the host is the key, and so may be each piece of it.
        let whole = secret.reveal();
        let path = whole.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
        let path = path.map_or("", |(_, path)| path);
        let pieces = path.split(['/', '?', '&', '=']).filter(|piece| piece.len() >= 16);
        for part in [whole, path].into_iter().filter(|part| part.len() >= 4).chain(pieces) {
            text = text.replace(part, "***");
        }
    }
    clean(&text, REASON)
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, StatusCode};

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("7"));
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers, body: Bytes::from(body.to_owned()) }
    }

    #[test]
    fn each_status_has_its_meaning() {
        for status in [408, 425, 429, 500, 502, 503, 599] {
            let failure = refusal(&answer(status, "busy"), &[], "hint");
            let Failure::Later { after, reason } = failure else { panic!("{status}: {failure:?}") };
            assert_eq!(after, Some(Duration::from_secs(7)), "{status}");
            assert!(reason.ends_with(": busy"), "{reason}");
        }
        for status in [301, 307, 400, 401, 403, 404, 410, 413, 422] {
            let failure = refusal(&answer(status, ""), &[], "hint");
            assert!(matches!(failure, Failure::Never { .. }), "{status}: {failure:?}");
        }
    }

    #[test]
    fn words_of_a_server_hold_no_secret_and_nothing_hostile() {
        let url = Secret::new("https://h:1/canary/key?x=canary2");
        let token = Secret::new("canary-token");
        let body = "POST /canary/key?x=canary2 with canary-token\u{1b}[31m\nrefused";
        assert_eq!(words(body.as_bytes(), &[&url, &token]), ": POST /*** with *** refused");
        assert_eq!(words(b" \n", &[]), "");
        assert_eq!(words(b"\xff\xfe", &[]), ": \u{fffd}\u{fffd}");
    }
}

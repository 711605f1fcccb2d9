//! Asks a `QuestDB` whether it works: a real query, with the password.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use serde_json::Value;

use crate::base::http::{Answer, Client, HttpError, Limits};
use crate::model::server::{Endpoint, Login};

/// Largest accepted answer; the real ones have some hundred bytes.
const BODY_LIMIT: usize = 1 << 20;

/// Why a server is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The login is refused.
    #[error("wrong user or password (questdb.user, questdb.password): {origin} answers {status}")]
    Login {
        /// Base URL.
        origin: String,
        /// 401 or 403.
        status: StatusCode,
    },
    /// It answers something else than a query's result.
    #[error("{origin} answers {status} to a query: {text}")]
    Answer {
        /// Base URL.
        origin: String,
        /// The status.
        status: StatusCode,
        /// Beginning of the body, control characters removed.
        text: String,
    },
    /// The URL is none.
    #[error("questdb.http is no URL: {0}")]
    Url(String),
}

/// Runs `select 1` as the administrator.
///
/// # Errors
/// See [`NotReady`].
pub async fn probe(client: &Client, endpoint: &Endpoint, limit: Duration) -> Result<(), NotReady> {
    let login = endpoint.admin.as_ref();
    let answer = get(client, endpoint, "/exec?query=select%201", login, limit).await?;
    if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let (origin, status) = (endpoint.http.clone(), answer.status);
        return Err(NotReady::Login { origin, status });
    }
    let result: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let one = result.as_ref().and_then(|result| result.pointer("/dataset/0/0")?.as_i64());
    if answer.status.is_success() && one == Some(1) {
        return Ok(());
    }
    let text: String = String::from_utf8_lossy(&answer.body)
        .chars()
        .filter(|character| !character.is_control())
        .take(200)
        .collect();
    Err(NotReady::Answer { origin: endpoint.http.clone(), status: answer.status, text })
}

/// Whether the server refuses a query without a password.
///
/// # Errors
/// See [`NotReady`].
pub async fn is_protected(
    client: &Client,
    endpoint: &Endpoint,
    limit: Duration,
) -> Result<bool, NotReady> {
    let answer = get(client, endpoint, "/exec?query=select%201", None, limit).await?;
    Ok(answer.status == StatusCode::UNAUTHORIZED)
}

/// Returns the version that the server tells; `None` when it tells none.
///
/// # Errors
/// See [`NotReady`].
pub async fn version(
    client: &Client,
    endpoint: &Endpoint,
    limit: Duration,
) -> Result<Option<String>, NotReady> {
    let answer = get(client, endpoint, "/settings", endpoint.admin.as_ref(), limit).await?;
    Ok(settings_version(&answer.body))
}

fn settings_version(body: &[u8]) -> Option<String> {
    let settings: Value = serde_json::from_slice(body).ok()?;
    // Older servers have the keys at the top.
    let version = settings
        .get("config")
        .and_then(|config| config.get("release.version"))
        .or_else(|| settings.get("release.version"))?
        .as_str()?;
    let plausible = version.len() <= 40 && version.bytes().all(|byte| byte.is_ascii_graphic());
    plausible.then(|| version.to_owned())
}

async fn get(
    client: &Client,
    endpoint: &Endpoint,
    path: &str,
    login: Option<&Login>,
    limit: Duration,
) -> Result<Answer, NotReady> {
    let mut request = Request::get(format!("{}{path}", endpoint.http));
    if let Some(Login { user, password }) = login {
        let token = base64::engine::general_purpose::STANDARD
            .encode(format!("{user}:{}", password.reveal()));
        request = request.header(header::AUTHORIZATION, format!("Basic {token}"));
    }
    let request: Request<Full<Bytes>> =
        request.body(Full::default()).map_err(|error| NotReady::Url(error.to_string()))?;
    Ok(client.send(request, Limits { time: limit, body: BODY_LIMIT }).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_both_forms_of_the_settings() {
        let new = br#"{"config":{"release.type":"OSS","release.version":"9.3.4"}}"#;
        assert_eq!(settings_version(new).as_deref(), Some("9.3.4"));
        let old = br#"{"release.version":"8.1.0"}"#;
        assert_eq!(settings_version(old).as_deref(), Some("8.1.0"));
        for other in [&b"<html>"[..], br#"{"config":{}}"#, br#"{"release.version":"a\nb"}"#] {
            assert_eq!(settings_version(other), None);
        }
    }
}

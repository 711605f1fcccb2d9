//! Requests to a Grafana, managed or remote. Errors name the next step and never hold a secret.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::Value;

use crate::base::http::{Client, HttpError, Limits};
use crate::config::Login;

/// Largest accepted answer: a dashboard has some 100 KB, the list of all rules more.
const BODY_LIMIT: usize = 32 << 20;

/// Why Grafana has not done what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer.
    #[error("{0}; start Grafana there, or mend [grafana]")]
    Http(#[from] HttpError),
    /// URL or login cannot stand in a request.
    #[error("{0} cannot be used in a request")]
    Unusable(&'static str),
    /// It refuses.
    #[error("{origin} answers {status} to {method} {path}: {words}{step}")]
    Refused {
        /// Base URL.
        origin: String,
        /// The status.
        status: StatusCode,
        /// Method of the request.
        method: Method,
        /// Path of the request.
        path: String,
        /// Its message, control characters removed.
        words: String,
        /// The next step.
        step: &'static str,
    },
    /// The answer is none that it should be.
    #[error("{origin} answers {path} with something else than JSON: is it a Grafana?")]
    Foreign {
        /// Base URL.
        origin: String,
        /// Path of the request.
        path: String,
    },
}

impl ApiError {
    /// Whether it says that there is no such object.
    pub fn is_missing(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Returns the status of its refusal.
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Http(_) | Self::Unusable(_) | Self::Foreign { .. } => None,
        }
    }
}

/// One Grafana and who asks it. The login does not print.
#[derive(Debug, Clone)]
pub struct Api {
    client: Client,
    base: String,
    host: Option<HeaderValue>,
    authorization: Option<HeaderValue>,
    limit: Duration,
}

impl Api {
    /// Prepares requests to the Grafana at `base`, each answered within `limit`.
    ///
    /// # Errors
    /// The login cannot stand in a header.
    pub fn new(
        client: Client,
        base: &str,
        login: Option<&Login>,
        limit: Duration,
    ) -> Result<Self, ApiError> {
        let authorization = login.map(|login| {
            let text = match login {
                Login::Token(token) => format!("Bearer {}", token.reveal()),
                Login::Basic { user, password } => {
                    let pair = format!("{user}:{}", password.reveal());
                    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
                }
            };
            let value = HeaderValue::from_str(&text);
            let mut value = value.map_err(|_| ApiError::Unusable("the login of [grafana]"))?;
            value.set_sensitive(true);
            Ok::<_, ApiError>(value)
        });
        let base = base.trim_end_matches('/').to_owned();
        Ok(Self { client, base, host: None, authorization: authorization.transpose()?, limit })
    }

    /// Names `host` in every request: a Grafana behind a proxy answers to its public name alone.
    ///
    /// # Errors
    /// It cannot stand in a header.
    pub fn called(mut self, host: &str) -> Result<Self, ApiError> {
        let value = HeaderValue::from_str(host).map_err(|_| ApiError::Unusable("grafana.url"))?;
        self.host = Some(value);
        Ok(self)
    }

    /// Returns the base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET path`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.send(Method::GET, path, None).await
    }

    /// `GET path`; `None` when there is no such object.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn find(&self, path: &str) -> Result<Option<Value>, ApiError> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and returns the JSON of its answer; null where there is no body.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let body_bytes = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body_bytes)));
        let uri = format!("{}{path}", self.base).parse();
        *request.uri_mut() = uri.map_err(|_| ApiError::Unusable("the url of [grafana]"))?;
        *request.method_mut() = method.clone();
        let headers = request.headers_mut();
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let limits = Limits { time: self.limit, body: BODY_LIMIT };
        let answer = self.client.send(request, limits).await?;
        let value: Option<Value> = match answer.body.as_ref() {
            [] => Some(Value::Null),
            bytes => serde_json::from_slice(bytes).ok(),
        };
        if !answer.status.is_success() {
            return Err(ApiError::Refused {
                origin: self.base.clone(),
                status: answer.status,
                method,
                path: path.to_owned(),
                words: words(value.as_ref()),
                step: step(answer.status, self.authorization.is_some()),
            });
        }
        let foreign = || ApiError::Foreign { origin: self.base.clone(), path: path.to_owned() };
        value.ok_or_else(foreign)
    }
}

/// Returns what Grafana says of a refusal.
fn words(body: Option<&Value>) -> String {
    let message = body.and_then(|body| body.get("message")?.as_str());
    let text = message.filter(|text| !text.is_empty()).unwrap_or("no reason given");
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Returns the next step after a refusal.
fn step(status: StatusCode, has_login: bool) -> &'static str {
    match (status.as_u16(), has_login) {
        (401, false) => "; set grafana.token, or grafana.user and grafana.password",
        (401, true) => "; grafana.token (or user and password) is wrong or has expired",
        (403, _) => "; the service account of grafana.token needs the role Admin",
        (404, _) => "; grafana.url may lack a part of its path, or the Grafana is too old",
        (429, _) => "; it has had too many requests: try again in a minute",
        (500..=599, _) => "; see the log of that Grafana",
        _ => "",
    }
}

/// Returns the version in the answer of `/api/health`; `None` when it is none of a Grafana that
/// works.
pub fn healthy_version(answer: &Value) -> Option<String> {
    let is_ok = answer.get("database").and_then(Value::as_str) == Some("ok");
    let version = answer.get("version").and_then(Value::as_str).unwrap_or_default();
    is_ok.then(|| version.chars().filter(char::is_ascii_graphic).take(40).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_next_step() {
        let cases = [
            (401, true, "has expired"),
            (401, false, "set grafana.token"),
            (403, true, "role Admin"),
            (404, true, "grafana.url"),
            (503, true, "see the log"),
        ];
        for (status, login, expected) in cases {
            let text = step(StatusCode::from_u16(status).unwrap(), login);
            assert!(text.contains(expected), "{status}: {text}");
        }
    }

    #[test]
    fn the_recorded_health_is_read_and_others_are_none() {
        let recorded = include_str!("../../tests/data/grafana/health.json");
        let recorded: Value = serde_json::from_str(recorded).unwrap();
        assert_eq!(healthy_version(&recorded).as_deref(), Some("9.2.0"));
        for other in [r#"{"database":"failing"}"#, "{}", "[1]", r#""ok""#] {
            assert_eq!(healthy_version(&serde_json::from_str(other).unwrap()), None, "{other}");
        }
    }
}

//! SQL over QuestDB's HTTP interface, as the administrator: for tables and their state. The
//! statements are the program's own; no text of a daemon is ever part of one.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, Uri};
use serde_json::Value;

use crate::base::http::{Client, HttpError, Limits};
use crate::model::server::Endpoint;

/// Time and size limits of a statement.
const LIMITS: Limits = Limits { time: Duration::from_secs(30), body: 4 << 20 };

/// A server as requests are made to it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Value of the Authorization header.
    authorization: Option<HeaderValue>,
    /// Where rows are posted to.
    write: Uri,
}

/// Why a statement did not work.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// There was no answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The base URL or the password cannot be used.
    #[error("{0} cannot be used in a request")]
    Endpoint(&'static str),
    /// User or password are wrong, or it is no `QuestDB`.
    #[error("questdb at {http} answers {status}: check user, password and url in [questdb]")]
    Refused {
        /// Base URL.
        http: String,
        /// Status of the answer.
        status: u16,
    },
    /// The statement failed.
    #[error("questdb at {http} fails on {statement:?}: {reason}")]
    Statement {
        /// Base URL.
        http: String,
        /// The statement.
        statement: String,
        /// The server's words.
        reason: String,
    },
}

/// Rows of an answer, by name of the column.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Target {
    /// Prepares requests to `endpoint`.
    ///
    /// # Errors
    /// The URL or the login cannot stand in a request.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ExecError> {
        use base64::Engine as _;
        let write = format!("{}/write", endpoint.http).parse();
        let write = write.map_err(|_| ExecError::Endpoint("the url"))?;
        let authorization = endpoint.admin.as_ref().map(|login| {
            let pair = format!("{}:{}", login.user, login.password.reveal());
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            let mut value = HeaderValue::from_str(&format!("Basic {encoded}"))
                .map_err(|_| ExecError::Endpoint("the login"))?;
            value.set_sensitive(true);
            Ok::<_, ExecError>(value)
        });
        Ok(Self { endpoint: endpoint.clone(), authorization: authorization.transpose()?, write })
    }

    /// Returns the request that posts `body` to `/write`.
    pub fn write_request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = self.write.clone();
        self.authorize(&mut request);
        request
    }

    /// Returns the request for all rows of `sql` as CSV, RFC 4180 with a header.
    ///
    /// # Errors
    /// The URL cannot stand in a request.
    pub fn export_request(&self, sql: &str) -> Result<Request<Full<Bytes>>, ExecError> {
        let http = &self.endpoint.http;
        let uri: Uri = format!("{http}/exp?query={}", percent_encoded(sql))
            .parse()
            .map_err(|_| ExecError::Endpoint("the url"))?;
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        self.authorize(&mut request);
        Ok(request)
    }

    fn authorize(&self, request: &mut Request<Full<Bytes>>) {
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
    }

    /// Runs `statement` and returns its rows; none for DDL.
    ///
    /// # Errors
    /// See [`ExecError`].
    pub async fn exec(&self, client: &Client, statement: &str) -> Result<Rows, ExecError> {
        let http = &self.endpoint.http;
        let uri: Uri = format!("{http}/exec?query={}", percent_encoded(statement))
            .parse()
            .map_err(|_| ExecError::Endpoint("the url"))?;
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        self.authorize(&mut request);
        let answer = client.send(request, LIMITS).await?;
        let parsed: Option<Value> = serde_json::from_slice(&answer.body).ok();
        match parsed {
            Some(body) if answer.status.is_success() => Ok(rows(&body)),
            Some(body) if answer.status.as_u16() == 400 => {
                let reason = body.get("error").and_then(Value::as_str).unwrap_or("no reason given");
                Err(ExecError::Statement {
                    http: http.clone(),
                    statement: statement.to_owned(),
                    reason: reason.to_owned(),
                })
            }
            Some(_) | None => {
                Err(ExecError::Refused { http: http.clone(), status: answer.status.as_u16() })
            }
        }
    }
}

fn rows(body: &Value) -> Rows {
    let list = |key| body.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let name =
        |column: &Value| column.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Rows {
        columns: list("columns").iter().map(name).collect(),
        rows: list("dataset").iter().filter_map(|row| row.as_array().cloned()).collect(),
    }
}

/// One row of an answer.
#[derive(Debug, Clone, Copy)]
pub struct NamedRow<'a> {
    columns: &'a [String],
    values: &'a [Value],
}

impl<'a> NamedRow<'a> {
    /// Returns the value of `column`; null when there is no such column.
    pub fn get(&self, column: &str) -> &'a Value {
        const NULL: &Value = &Value::Null;
        let index = self.columns.iter().position(|name| name == column);
        index.and_then(|index| self.values.get(index)).unwrap_or(NULL)
    }
}

impl Rows {
    /// Returns the rows in order.
    pub fn iter(&self) -> impl Iterator<Item = NamedRow<'_>> {
        self.rows.iter().map(|values| NamedRow { columns: &self.columns, values })
    }
}

/// Encodes everything but letters and digits for use in a query.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len().saturating_mul(2));
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ignored = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::model::server::Login;

    #[test]
    fn requests_carry_the_login_and_errors_do_not() {
        let login = Login { user: "admin".into(), password: Secret::new("canary") };
        let endpoint = Endpoint {
            http: "http://127.0.0.1:9000".into(),
            pg: String::new(),
            database: "qdb".into(),
            admin: Some(login),
            reader: None,
        };
        let target = Target::new(&endpoint).unwrap();
        let request = target.write_request(Bytes::from_static(b"x"));
        assert_eq!(request.uri(), "http://127.0.0.1:9000/write");
        assert_eq!(request.headers()["authorization"], "Basic YWRtaW46Y2FuYXJ5");
        assert!(!format!("{target:?}").contains("canary"), "{target:?}");
        let bad = Endpoint { http: "http://a b".into(), ..endpoint };
        assert!(matches!(Target::new(&bad), Err(ExecError::Endpoint(_))));
        assert_eq!(percent_encoded("a b'ü"), "a%20b%27%C3%BC");
    }

    #[test]
    fn rows_are_read_by_name() {
        let body = serde_json::json!({
            "columns": [{"name": "a"}, {"name": "b"}], "dataset": [[1, "x"], [2, null]]
        });
        let rows = rows(&body);
        let values: Vec<_> =
            rows.iter().map(|row| (row.get("b").clone(), row.get("c").clone())).collect();
        assert_eq!(values, [("x".into(), Value::Null), (Value::Null, Value::Null)]);
    }
}

//! The one HTTP client. Time and size limits are parameters of every request, redirects are never
//! followed, and errors never print more of a URL than scheme, host and port.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

/// What a request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first byte sent to the last byte received.
    pub time: Duration,
    /// Largest accepted body of the answer, bytes.
    pub body: usize,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body, at most [`Limits::body`] bytes.
    pub body: Bytes,
}

impl Answer {
    /// Returns the `Retry-After` header in whole seconds, if there is a valid one.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.headers.get(hyper::header::RETRY_AFTER)?.to_str().ok()?;
        text.trim().parse().ok().map(Duration::from_secs)
    }
}

/// Why there is no answer. No variant holds a path, query, header or body of the request.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection: refused, unreachable, name unknown, TLS failed.
    #[error("connect to {origin}: {reason}")]
    Connect {
        /// What kept it from connecting.
        cause: ConnectCause,
        /// Scheme, host and port.
        origin: String,
        /// The system's words.
        reason: String,
    },
    /// The time limit passed.
    #[error("no whole answer from {origin} within {limit:?}")]
    Timeout {
        /// Scheme, host and port.
        origin: String,
        /// The limit.
        limit: Duration,
    },
    /// The answer is larger than allowed.
    #[error("answer of {origin} is larger than {limit} bytes")]
    TooLarge {
        /// Scheme, host and port.
        origin: String,
        /// The limit, bytes.
        limit: usize,
    },
    /// The connection broke or the answer is no HTTP.
    #[error("talk to {origin}: {reason}")]
    Broken {
        /// Scheme, host and port.
        origin: String,
        /// The library's words.
        reason: String,
    },
}

/// What kept a client from connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectCause {
    /// Nobody listens there.
    Refused,
    /// The name has no address.
    Dns,
    /// The certificate or the handshake.
    Tls,
    /// The unix socket does not exist.
    Missing,
    /// The unix socket belongs to somebody else.
    Permission,
    /// No route, no memory, no free descriptor, a full backlog.
    Other,
}

impl ConnectCause {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            // hyper-util keeps its connect error private; its words for a failed lookup are fixed.
            if error.to_string().starts_with("dns error") {
                return Self::Dns;
            }
            if error.is::<rustls::Error>() {
                return Self::Tls;
            }
            next = match error.downcast_ref::<std::io::Error>() {
                Some(error) => {
                    let cause = Self::of_kind(error.kind());
                    if cause != Self::Other {
                        return cause;
                    }
                    // `source` would skip the error that this one wraps.
                    error.get_ref().map(|inner| -> &(dyn std::error::Error + 'static) { inner })
                }
                None => error.source(),
            };
        }
        Self::Other
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the standard library may add kinds")]
    const fn of_kind(kind: std::io::ErrorKind) -> Self {
        match kind {
            std::io::ErrorKind::ConnectionRefused => Self::Refused,
            std::io::ErrorKind::NotFound => Self::Missing,
            std::io::ErrorKind::PermissionDenied => Self::Permission,
            _ => Self::Other,
        }
    }
}

/// Makes ring the TLS provider of libraries that ask for the process's own. May be called often.
pub fn install_tls_provider() {
    // An error means that it was done before.
    let _done = rustls::crypto::ring::default_provider().install_default();
}

/// A pooled client for http and https.
#[derive(Debug, Clone)]
pub struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// Makes a client that trusts the system's certificates, or the built-in ones where the system
    /// has none.
    ///
    /// # Errors
    /// The TLS provider refuses its own configuration.
    pub fn new() -> Result<Self, rustls::Error> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        let provider = rustls::crypto::ring::default_provider;
        let builder = match hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider())
        {
            Ok(builder) => builder,
            Err(error) => {
                tracing::debug!(%error, "no system certificates, using the built-in ones");
                hyper_rustls::HttpsConnectorBuilder::new()
                    .with_provider_and_webpki_roots(provider())?
            }
        };
        let https = builder.https_or_http().enable_http1().wrap_connector(connector);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(2)
            .pool_timer(TokioTimer::new())
            .build(https);
        Ok(Self { inner })
    }

    /// Sends `request` and reads the whole answer within `limits`.
    ///
    /// # Errors
    /// See [`HttpError`]. An answer with any status is `Ok`.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Answer, HttpError> {
        let origin = origin(request.uri());
        let exchange = async {
            let response = self.head(request, &origin).await?;
            whole(response, &origin, limits).await
        };
        within(limits.time, &origin, exchange).await
    }

    /// Sends `request` and returns once the head of the answer is there, at the latest after
    /// `limit`. For bodies that do not fit into memory: the caller reads the frames and limits
    /// their time and size.
    ///
    /// # Errors
    /// See [`HttpError`]. An answer with any status is `Ok`.
    pub async fn open(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<hyper::Response<hyper::body::Incoming>, HttpError> {
        let origin = origin(request.uri());
        within(limit, &origin, self.head(request, &origin)).await
    }

    async fn head(
        &self,
        request: Request<Full<Bytes>>,
        origin: &str,
    ) -> Result<hyper::Response<hyper::body::Incoming>, HttpError> {
        self.inner.request(request).await.map_err(|error| {
            let (origin, reason) = (origin.to_owned(), root_cause(&error));
            if error.is_connect() {
                HttpError::Connect { cause: ConnectCause::of(&error), origin, reason }
            } else {
                HttpError::Broken { origin, reason }
            }
        })
    }
}

/// Sends `request` over the unix socket at `path`, on a connection of its own.
///
/// # Errors
/// See [`HttpError`]; the origin is `unix:` and the path.
pub async fn send_unix(
    path: &Path,
    request: Request<Full<Bytes>>,
    limits: Limits,
) -> Result<Answer, HttpError> {
    let origin = format!("unix:{}", path.display());
    let broken = |error: hyper::Error| HttpError::Broken {
        origin: origin.clone(),
        reason: root_cause(&error),
    };
    let exchange = async {
        let stream =
            tokio::net::UnixStream::connect(path).await.map_err(|error| HttpError::Connect {
                cause: ConnectCause::of_kind(error.kind()),
                origin: origin.clone(),
                reason: error.to_string(),
            })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            whole(response, &origin, limits).await
        };
        // The connection is polled here and not in a task of its own: nothing outlives the request.
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(broken(error)),
            },
        }
    };
    within(limits.time, &origin, exchange).await
}

async fn within<T>(
    limit: Duration,
    origin: &str,
    exchange: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    match tokio::time::timeout(limit, exchange).await {
        Ok(result) => result,
        Err(_elapsed) => Err(HttpError::Timeout { origin: origin.to_owned(), limit }),
    }
}

async fn whole(
    response: hyper::Response<hyper::body::Incoming>,
    origin: &str,
    limits: Limits,
) -> Result<Answer, HttpError> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, limits.body).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            HttpError::TooLarge { origin: origin.to_owned(), limit: limits.body }
        } else {
            HttpError::Broken { origin: origin.to_owned(), reason: root_cause(error.as_ref()) }
        }
    })?;
    Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
}

/// Returns scheme, host and port of `uri`: tokens often stand in path, query or user part.
pub fn origin(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let host = uri.host().unwrap_or("?");
    match uri.port_u16() {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    }
}

/// Returns the text of the innermost source: "connection refused" instead of "client error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(url: &str) -> Request<Full<Bytes>> {
        Request::get(url).body(Full::default()).unwrap()
    }

    const LIMITS: Limits = Limits { time: Duration::from_millis(300), body: 16 };

    /// Serves `answer` to one connection, then keeps it open.
    async fn serve(answer: &'static str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        crate::base::tasks::spawn_detached(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0_u8; 1024];
            let _read = stream.read(&mut buffer).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        format!("http://{address}/path?token=canary")
    }

    #[tokio::test]
    async fn limits_hold_and_errors_hide_the_path() {
        let client = Client::new().unwrap();
        let url = serve("HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n12345678901234567").await;
        let error = client.send(get(&url), LIMITS).await.unwrap_err();
        assert!(matches!(error, HttpError::TooLarge { limit: 16, .. }), "{error}");
        let url = serve("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").await;
        let error = client.send(get(&url), LIMITS).await.unwrap_err();
        assert!(matches!(error, HttpError::Timeout { .. }), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
        let error = client.send(get("http://127.0.0.1:1/canary"), LIMITS).await.unwrap_err();
        let refused = ConnectCause::Refused;
        assert!(matches!(error, HttpError::Connect { cause, .. } if cause == refused), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }

    #[tokio::test]
    async fn the_cause_of_a_missing_connection_is_told_apart() {
        let client = Client::new().unwrap();
        let limits = Limits { time: Duration::from_secs(10), body: 16 };
        let name = client.send(get("http://name.invalid/"), limits).await.unwrap_err();
        assert!(matches!(name, HttpError::Connect { cause: ConnectCause::Dns, .. }), "{name}");
        let url = serve("not TLS at all").await.replace("http:", "https:");
        let tls = client.send(get(&url), limits).await.unwrap_err();
        assert!(matches!(tls, HttpError::Connect { cause: ConnectCause::Tls, .. }), "{tls}");
        let socket = send_unix(Path::new("/nowhere/a.sock"), get("/status"), limits).await;
        let socket = socket.unwrap_err();
        assert!(matches!(socket, HttpError::Connect { cause: ConnectCause::Missing, .. }));
    }
}

//! One poll: asks a daemon for its document within the limits.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Method, Request, StatusCode, Uri};

use super::json::{self, Document, Malformed};
use crate::base::http::{self, Answer, Client, ConnectCause, HttpError, Limits};
use crate::base::secret::Secret;
use crate::config::parts::Ask;
use crate::model::observation::{Failure, FailureReason};

/// A daemon that is polled over HTTP.
#[derive(Debug)]
pub(super) struct Endpoint {
    uri: Uri,
    authorization: Option<HeaderValue>,
    /// Body of a POST.
    body: Option<Bytes>,
}

impl Endpoint {
    /// Checks a URL and a secret header.
    ///
    /// # Errors
    /// Words for the user, without the secret and without the URL's path.
    pub(super) fn new(
        url: &str,
        authorization: Option<&Secret>,
        ask: &Ask,
    ) -> Result<Self, String> {
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
        Ok(Self { uri, authorization, body: ask.body.clone().map(Bytes::from) })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone().unwrap_or_default()));
        *request.uri_mut() = self.uri.clone();
        if self.body.is_some() {
            *request.method_mut() = Method::POST;
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
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
    sized(client, endpoint, limits).await.map(|(document, _)| document)
}

/// Polls over HTTP; returns the size of the answer too, bytes.
///
/// # Errors
/// See [`FailureReason`].
pub(super) async fn sized(
    client: &Client,
    endpoint: &Endpoint,
    limits: Limits,
) -> Result<(Document, usize), Failure> {
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
    let answer = answer.map_err(|error| failure(&error))?;
    Ok((document(&answer)?, answer.body.len()))
}

/// Polls the shim's socket.
///
/// # Errors
/// See [`FailureReason`].
pub(super) async fn unix(path: &Path, limits: Limits) -> Result<Document, Failure> {
    let mut request = socket_request(&Uri::from_static("/status"), "shim");
    let headers = request.headers_mut();
    if let Ok(millis) = u32::try_from(limits.time.as_millis()) {
        headers.insert("x-periscope-limit-ms", HeaderValue::from(millis));
    }
    let answer = http::send_unix(path, request, limits).await;
    document(&answer.map_err(|error| failure(&error))?)
}

/// A daemon that answers HTTP on a unix socket.
#[derive(Debug, Clone)]
pub(super) struct SocketEndpoint {
    /// Where the socket is.
    pub(super) path: PathBuf,
    /// What is asked for, such as `/status`.
    pub(super) request: Uri,
}

/// Polls a daemon over HTTP on its unix socket.
///
/// # Errors
/// See [`FailureReason`].
pub(super) async fn socket(endpoint: &SocketEndpoint, limits: Limits) -> Result<Document, Failure> {
    let request = socket_request(&endpoint.request, "localhost");
    let answer = http::send_unix(&endpoint.path, request, limits).await;
    document(&answer.map_err(|error| failure(&error))?)
}

fn socket_request(uri: &Uri, host: &'static str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert(hyper::header::HOST, HeaderValue::from_static(host));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    request
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
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "; set `authorization` of this daemon"
            }
            StatusCode::NOT_FOUND => "; is this the status url?",
            _ => "",
        };
        return Err(Failure::new(FailureReason::HttpStatus, format!("HTTP {status}{hint}")));
    }
    read(&answer.body)
}

/// Reads the document in `body`.
///
/// # Errors
/// See [`FailureReason`]; the reasons are those of a body.
pub(super) fn read(body: &[u8]) -> Result<Document, Failure> {
    let body = body.trim_ascii();
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::base::tasks::spawn_detached;
    use crate::base::time::Timestamp;
    use crate::collect::mapping;

    const LIMITS: Limits = Limits { time: Duration::from_millis(700), body: 1 << 20 };

    /// What a server does once it has read a request.
    #[derive(Debug, Clone)]
    enum Answering {
        /// Sends this and closes.
        Bytes(Vec<u8>),
        /// Sends this and then nothing.
        Hangs(&'static str),
        /// Sends one byte a second of an endless answer.
        Drips,
        /// Sends chunks for ever.
        Floods,
    }

    async fn serve(answering: Answering) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/status?token=canary", listener.local_addr().unwrap());
        spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_detached(answer_one(stream, answering.clone()));
            }
        });
        Endpoint::new(&url, None, &Ask::default()).unwrap()
    }

    async fn answer_one(mut stream: TcpStream, answering: Answering) -> std::io::Result<()> {
        let mut request = [0_u8; 4096];
        let _read = stream.read(&mut request).await?;
        match answering {
            Answering::Bytes(bytes) => stream.write_all(&bytes).await,
            Answering::Hangs(bytes) => {
                stream.write_all(bytes.as_bytes()).await?;
                std::future::pending().await
            }
            Answering::Drips => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n").await?;
                loop {
                    stream.write_all(b"[").await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Answering::Floods => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                let chunk = format!("10000\r\n{}\r\n", "[".repeat(0x1_0000));
                loop {
                    stream.write_all(chunk.as_bytes()).await?;
                }
            }
        }
    }

    fn with_body(status: &str, body: &str) -> Answering {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        Answering::Bytes(format!("{head}{body}").into_bytes())
    }

    fn ok(body: &str) -> Answering {
        with_body("200 OK", body)
    }

    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn every_bad_answer_has_its_reason() {
        use FailureReason as R;
        let client = Client::new().unwrap();
        let before = resident_kib();
        for (answering, reason) in [
            (ok("<!DOCTYPE html><html></html>"), R::Html),
            (ok(""), R::Empty),
            (ok(" \r\n"), R::Empty),
            (ok(r#"{"running":tr"#), R::NotJson),
            (ok("hello"), R::NotJson),
            (ok("\u{feff}{}"), R::NotJson),
            (ok(&"[".repeat(100_000)), R::TooDeep),
            (ok(&r#"{"a":"#.repeat(100_000)), R::TooDeep),
            (ok(&"x".repeat((1 << 20) + 1)), R::TooLarge),
            (Answering::Floods, R::TooLarge),
            (Answering::Hangs(""), R::Timeout),
            (Answering::Hangs("HTTP/1.1 200 OK\r\n"), R::Timeout),
            (Answering::Hangs("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), R::Timeout),
            (Answering::Drips, R::Timeout),
            (Answering::Bytes(Vec::new()), R::Broken),
            (Answering::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()), R::Broken),
            (
                Answering::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec()),
                R::Broken,
            ),
            (with_body("500 Internal Server Error", "{}"), R::HttpStatus),
            (with_body("404 Not Found", "<html>"), R::HttpStatus),
            (with_body("401 Unauthorized", ""), R::HttpStatus),
            (with_body("302 Found\r\nlocation: http://169.254.169.254/latest", ""), R::Redirect),
            (with_body("301 Moved\r\nlocation: file:///etc/passwd", ""), R::Redirect),
        ] {
            let endpoint = serve(answering.clone()).await;
            let started = Instant::now();
            let failure = http(&client, &endpoint, LIMITS).await.unwrap_err();
            let shown: String = format!("{answering:?}").chars().take(80).collect();
            assert_eq!(failure.reason, reason, "{shown}: {failure}");
            assert!(started.elapsed() < LIMITS.time * 3, "{shown} took {:?}", started.elapsed());
            for hidden in ["canary", "latest", "passwd"] {
                assert!(!failure.words.contains(hidden), "{failure}");
            }
        }
        let grown = resident_kib().saturating_sub(before);
        assert!(grown < 64 * 1024, "memory grew by {grown} KiB");
    }

    #[tokio::test]
    async fn nobody_listening_is_refused() {
        let client = Client::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(
            &format!("http://{}/", listener.local_addr().unwrap()),
            None,
            &Ask::default(),
        );
        drop(listener);
        let failure = http(&client, &endpoint.unwrap(), LIMITS).await.unwrap_err();
        assert_eq!(failure.reason, FailureReason::Refused);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a-1.sock");
        let reason = async || unix(&path, LIMITS).await.unwrap_err().reason;
        assert_eq!(reason().await, FailureReason::SocketMissing);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(reason().await, FailureReason::Timeout, "accepts and never answers");
        drop(listener);
        assert_eq!(reason().await, FailureReason::Refused);
    }

    /// Odd values cost their field, not the document.
    #[tokio::test]
    async fn odd_values_are_null_and_the_rest_stays() {
        let client = Client::new().unwrap();
        let body = r#"{"running":true,"fetch_count":"12","error_count":-3,"liquidation_count":9223372036854775808,
            "uptime_seconds":NaN,"last_fetch_time":"1970-01-01T00:00:00Z","last_error":"\ud800","symbols":["A"],"symbols":["B"],"exchanges":1e999}"#;
        let endpoint = serve(ok(body)).await;
        let document = http(&client, &endpoint, LIMITS).await.unwrap();
        assert_eq!(document.oddities, ["uptime_seconds", "last_error", "symbols", "exchanges"]);
        let mapped = mapping::status(&document.value, Timestamp::EPOCH).unwrap();
        let expected = ["fetch_count", "error_count", "liquidation_count", "last_fetch_time"];
        assert_eq!(mapped.drift, expected);
        let running = crate::model::status::Status { running: Some(true), ..Default::default() };
        assert_eq!(mapped.status, running);
    }

    /// A server may close a kept connection just as the next poll uses it.
    #[tokio::test]
    async fn a_kept_connection_that_breaks_is_no_failed_poll() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        spawn_detached(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0_u8; 4096];
                let _read = stream.read(&mut request).await.unwrap();
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                stream.write_all(answer).await.unwrap();
                // Takes the next request of this connection and closes without an answer.
                let _read = stream.read(&mut request).await.unwrap();
            }
        });
        let client = Client::new().unwrap();
        let endpoint = Endpoint::new(&url, None, &Ask::default()).unwrap();
        for _poll in 0..4 {
            http(&client, &endpoint, LIMITS).await.unwrap();
        }
    }

    #[test]
    fn only_http_urls_with_a_host_and_clean_headers() {
        for url in ["file:///etc/passwd", "ftp://x/", "/status", "http://", "http://a b/"] {
            assert!(Endpoint::new(url, None, &Ask::default()).is_err(), "{url}");
        }
        let secret = Secret::new("Bearer can\nary");
        let words = Endpoint::new("http://localhost/", Some(&secret), &Ask::default()).unwrap_err();
        assert!(!words.contains("can"), "{words}");
        let shown = Endpoint::new(
            "http://localhost/",
            Some(&Secret::new("Bearer canary")),
            &Ask::default(),
        );
        assert!(!format!("{shown:?}").contains("canary"));
    }
}

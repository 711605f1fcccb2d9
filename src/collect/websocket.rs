//! A daemon that sends its status over a WebSocket: one connection that is kept, the newest message
//! becomes a row at every interval.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::header::AUTHORIZATION;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError, UrlError};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use super::fetch;
use super::mapping::Mapper;
use super::poll::Pace;
use super::record::{Poll, Series, Sink};
use crate::base::backoff::Backoff;
use crate::base::http;
use crate::base::secret::Secret;
use crate::base::time::Timestamp;
use crate::model::observation::{Failure, FailureReason};

/// Intervals without a message after which the daemon counts as silent, and without any sign of
/// life after which the connection is given up.
const SILENT_INTERVALS: u32 = 3;
/// Shortest silence that counts: a ping has to have come back by then.
const SHORTEST_SILENCE: Duration = Duration::from_secs(2);

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A daemon that is listened to.
#[derive(Debug)]
pub(super) struct WebSocketDaemon {
    /// Name of the daemon.
    pub(super) name: Arc<str>,
    /// `ws://` or `wss://`.
    pub(super) url: String,
    /// Value of the Authorization header, if any.
    pub(super) authorization: Option<Secret>,
    /// Sent after every connect, if any.
    pub(super) subscribe: Option<String>,
    /// How often a message becomes a row, and the limits.
    pub(super) pace: Pace,
    /// How its messages are read.
    pub(super) mapper: Mapper,
    /// Seed of the waiting times.
    pub(super) seed: u64,
}

/// What has come over the connection.
struct Heard {
    /// The newest message that is not yet a row.
    newest: Option<(Timestamp, Bytes)>,
    /// When the last message came or, before the first one, when the loop began.
    message: Instant,
    /// When the last frame of any kind came.
    anything: Instant,
    /// Whether there ever was a message.
    is_known: bool,
}

/// Listens to the daemon until `stop`.
pub(super) async fn run(daemon: WebSocketDaemon, sink: Sink, stop: CancellationToken) {
    let mut this = Loop {
        series: Series::new(&daemon.name, &daemon.mapper, &sink.metrics),
        ticks: daemon.pace.ticks(),
        heard: Heard {
            newest: None,
            message: Instant::now(),
            anything: Instant::now(),
            is_known: false,
        },
        failure: Failure::new(FailureReason::Unreachable, "not connected yet"),
        sink,
    };
    let mut backoff = Backoff::new(
        Duration::from_millis(200),
        Duration::from_secs(30),
        daemon.seed ^ u64::try_from(daemon.name.len()).unwrap_or(0),
    );
    loop {
        let connected = tokio::select! {
            () = stop.cancelled() => return,
            connected = connect(&daemon) => connected,
        };
        let failure = match connected {
            Ok(stream) => {
                this.heard.anything = Instant::now();
                let before = this.heard.message;
                let ended = tokio::select! {
                    () = stop.cancelled() => return,
                    ended = this.listen(stream, &daemon) => ended,
                };
                // A server that accepts and closes at once is not to be hit without a pause.
                if this.heard.message > before {
                    backoff.reset();
                }
                ended
            }
            Err(failure) => failure,
        };
        this.failure = failure;
        let wait = tokio::time::sleep(backoff.after_failure());
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut wait => break,
                _ = this.ticks.tick() => this.failed(),
            }
        }
    }
}

/// The loop's state.
struct Loop {
    series: Series,
    ticks: tokio::time::Interval,
    heard: Heard,
    /// Why there is no connection.
    failure: Failure,
    sink: Sink,
}

impl Loop {
    /// Takes messages until the connection ends; returns why it did.
    async fn listen(&mut self, mut stream: Stream, daemon: &WebSocketDaemon) -> Failure {
        let origin = origin(&daemon.url);
        let limit = (daemon.pace.interval * SILENT_INTERVALS).max(SHORTEST_SILENCE);
        loop {
            tokio::select! {
                frame = stream.next() => {
                    self.heard.anything = Instant::now();
                    match frame {
                        Some(Ok(Message::Text(text))) => self.message(text.into()),
                        Some(Ok(Message::Binary(bytes))) => self.message(bytes),
                        // Pongs are answered by the library.
                        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                        Some(Ok(Message::Close(frame))) => {
                            let why = frame.map(|frame| format!(" ({})", frame.code));
                            let words = format!("{origin} closed the connection{}", why.unwrap_or_default());
                            return Failure::new(FailureReason::Broken, words);
                        }
                        Some(Err(error)) => return failure(&error, &origin, daemon.pace.limits.body),
                        None => {
                            let words = format!("{origin} closed the connection");
                            return Failure::new(FailureReason::Broken, words);
                        }
                    }
                }
                _ = self.ticks.tick() => {
                    self.tick(limit, &origin);
                    if self.heard.anything.elapsed() > limit {
                        let words = format!("{origin} did not answer a ping for {} s", limit.as_secs());
                        return Failure::new(FailureReason::Broken, words);
                    }
                    // A connection whose other end is gone is only noticed when something is sent.
                    let ping = stream.send(Message::Ping(Bytes::new()));
                    match tokio::time::timeout(daemon.pace.limits.time, ping).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => return failure(&error, &origin, daemon.pace.limits.body),
                        Err(_elapsed) => {
                            let words = format!("{origin} does not read any more");
                            return Failure::new(FailureReason::Timeout, words);
                        }
                    }
                }
            }
        }
    }

    fn message(&mut self, bytes: Bytes) {
        self.heard.message = Instant::now();
        self.heard.is_known = true;
        self.heard.newest = Some((self.sink.now(), bytes));
    }

    /// Makes a row of the newest message, or of a silence that lasts longer than `limit`.
    fn tick(&mut self, limit: Duration, origin: &str) {
        if let Some((at, bytes)) = self.heard.newest.take() {
            let poll = Poll {
                at,
                document: fetch::read(&bytes),
                poll_ms: None,
                event_loop_lag_ms: None,
                process: None,
                waits: false,
            };
            self.sink.record(&mut self.series, poll);
            return;
        }
        let silence = self.heard.message.elapsed();
        if silence > limit {
            let words =
                format!("{origin} is connected and has sent nothing for {} s", silence.as_secs());
            self.record(Failure::new(FailureReason::Silent, words));
        }
    }

    /// Makes a row of there being no connection; of a last message before it first.
    fn failed(&mut self) {
        if self.heard.newest.is_some() {
            self.tick(Duration::MAX, "");
        } else {
            self.record(self.failure.clone());
        }
    }

    fn record(&mut self, failure: Failure) {
        let poll = Poll { waits: !self.heard.is_known, ..Poll::failed(self.sink.now(), failure) };
        self.sink.record(&mut self.series, poll);
    }
}

async fn connect(daemon: &WebSocketDaemon) -> Result<Stream, Failure> {
    let origin = origin(&daemon.url);
    let limit = daemon.pace.limits.body;
    let mut request = daemon
        .url
        .as_str()
        .into_client_request()
        .map_err(|error| failure(&error, &origin, limit))?;
    if let Some(secret) = &daemon.authorization {
        let mut value =
            hyper::header::HeaderValue::from_str(secret.reveal()).map_err(|_invalid| {
                Failure::new(FailureReason::Unreachable, "the authorization is no valid header")
            })?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    http::install_tls_provider();
    let config =
        WebSocketConfig::default().max_message_size(Some(limit)).max_frame_size(Some(limit));
    let opened = async {
        let (mut stream, _answer) =
            tokio_tungstenite::connect_async_with_config(request, Some(config), true).await?;
        if let Some(text) = &daemon.subscribe {
            stream.send(Message::text(text.clone())).await?;
        }
        Ok::<_, WsError>(stream)
    };
    match tokio::time::timeout(daemon.pace.limits.time, opened).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failure(&error, &origin, limit)),
        Err(_elapsed) => {
            let words = format!("no WebSocket at {origin} within {:?}", daemon.pace.limits.time);
            Err(Failure::new(FailureReason::Timeout, words))
        }
    }
}

/// Scheme, host and port: tokens often stand in path or query.
fn origin(url: &str) -> String {
    url.parse().map_or_else(|_| "the URL".to_owned(), |uri| http::origin(&uri))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add errors")]
fn failure(error: &WsError, origin: &str, limit: usize) -> Failure {
    let reason = match error {
        WsError::Io(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => FailureReason::Refused,
            std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::BrokenPipe
            | std::io::ErrorKind::UnexpectedEof => FailureReason::Broken,
            _ => FailureReason::Unreachable,
        },
        WsError::Tls(_) => FailureReason::Tls,
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
            let words =
                format!("{origin} sent more than {limit} bytes; raise collect.max_document");
            return Failure::new(FailureReason::TooLarge, words);
        }
        WsError::Http(response) => {
            let status = response.status();
            let words = format!("HTTP {status} from {origin}; is this a WebSocket?");
            return Failure::new(FailureReason::HttpStatus, words);
        }
        WsError::Url(UrlError::UnableToConnect(_)) => FailureReason::Unreachable,
        _ => FailureReason::Broken,
    };
    Failure::new(reason, format!("{origin}: {error}"))
}

//! `GET /ws/push/{daemon}`: status documents over one WebSocket, each message one document and each
//! answered in its turn, with the limits and words of `POST /api/v1/push/{daemon}`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

use super::api::{self, Site};
use super::guard::{self, Refusal};
use super::push::{self, Statuses};
use super::routes::{Answer, Ends, answer, line};
use crate::base::tasks;

/// Open WebSockets at a time.
const SOCKETS: usize = 256;
/// How often the other end is asked for a sign of life.
const PING: Duration = Duration::from_secs(30);
/// Silence after which it is given up; a daemon that sends rarely answers pings.
const SILENCE: Duration = Duration::from_secs(75);
/// Time for an answer to be taken.
const SEND_TIME: Duration = Duration::from_secs(10);
/// Buffers of a connection, bytes: a thousand daemons must not cost much.
const BUFFER: usize = 4 * 1024;

type Stream = WebSocketStream<TokioIo<Upgraded>>;

/// What open WebSockets share.
#[derive(Debug)]
pub(super) struct Sockets {
    slots: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Sockets {
    /// Makes one whose WebSockets end at `stop`.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { slots: Arc::new(Semaphore::new(SOCKETS)), stop }
    }
}

/// Answers the request for a WebSocket on which daemon `segment` pushes.
pub(super) fn open(site: &Site, ends: Ends, segment: &str, parts: &Parts) -> Answer {
    accept(site, ends, segment, parts).unwrap_or_else(|(status, words)| line(status, words))
}

fn accept(site: &Site, ends: Ends, segment: &str, parts: &Parts) -> Result<Answer, Refusal> {
    let headers = &parts.headers;
    // The request is a GET, but what comes after it changes something.
    guard::check_origin(&Method::POST, headers, ends.local.ip(), &site.door.allowed_hosts)?;
    let name = push::daemon(segment).map_err(|words| (StatusCode::BAD_REQUEST, words))?;
    let is = |name, wanted: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| is(&UPGRADE, "websocket"));
    let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
    let (Some(key), Some(upgrade)) = (key, upgrade) else {
        let words = "this path is a WebSocket; POST /api/v1/push/{daemon} takes a document by HTTP";
        return Err((StatusCode::UPGRADE_REQUIRED, words));
    };
    if !is(&SEC_WEBSOCKET_VERSION, "13") {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Version 13 is needed"));
    }
    let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| (StatusCode::BAD_REQUEST, "the Sec-WebSocket-Key cannot be used"))?;
    let slot = Arc::clone(&site.sockets.slots)
        .try_acquire_owned()
        .map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "too many WebSockets are open"))?;
    let (statuses, stop) = (site.statuses.clone(), site.sockets.stop.clone());
    let _detached = tasks::spawn_detached(Socket { name, statuses, stop }.run(upgrade, slot));
    let mut response = answer(StatusCode::SWITCHING_PROTOCOLS, api::JSON, Bytes::new());
    let headers = response.headers_mut();
    headers.remove(hyper::header::CONTENT_TYPE);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    Ok(response)
}

/// One open WebSocket.
struct Socket {
    name: String,
    statuses: Statuses,
    stop: CancellationToken,
}

impl Socket {
    async fn run(self, upgrade: OnUpgrade, slot: OwnedSemaphorePermit) {
        let upgraded = match timeout(SEND_TIME, upgrade).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a WebSocket was not opened");
                return;
            }
            Err(_elapsed) => return,
        };
        let limit = Some(self.statuses.limit);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER)
            .write_buffer_size(0)
            .max_message_size(limit)
            .max_frame_size(limit);
        let io = TokioIo::new(upgraded);
        let mut stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        let close = self.serve(&mut stream).await;
        if let Some((code, reason)) = close {
            let frame = CloseFrame { code, reason: reason.into() };
            // Best effort: the other end may be gone.
            let _ended = timeout(SEND_TIME, stream.close(Some(frame))).await;
        }
        drop(slot);
    }

    /// Takes documents to the end; returns what the other end is told, if it is still there.
    async fn serve(&self, stream: &mut Stream) -> Option<(CloseCode, String)> {
        let mut pings = interval_at(Instant::now() + PING, PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let answer = tokio::select! {
                () = self.stop.cancelled() => {
                    return Some((CloseCode::Away, "periscope stops".to_owned()));
                }
                message = stream.next() => {
                    heard = Instant::now();
                    match message? {
                        Ok(Message::Text(text)) => self.take(text.into()).await,
                        Ok(Message::Binary(bytes)) => self.take(bytes).await,
                        Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
                        Ok(Message::Close(_)) => return None,
                        Err(WsError::Capacity(CapacityError::MessageTooLong { .. })) => {
                            let limit = self.statuses.limit;
                            let words = format!("more than {limit} bytes: raise collect.max_document");
                            return Some((CloseCode::Size, words));
                        }
                        Err(error) => {
                            tracing::debug!(daemon = %self.name, %error, "WebSocket ended");
                            return None;
                        }
                    }
                }
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE {
                        return None;
                    }
                    Message::Ping(Bytes::new())
                }
            };
            // A daemon that does not read its answers is not waited for.
            if !matches!(timeout(SEND_TIME, stream.send(answer)).await, Ok(Ok(()))) {
                return None;
            }
        }
    }

    /// Stores a document; returns the answer to it.
    async fn take(&self, document: Bytes) -> Message {
        let taken = (self.statuses.take)(self.name.clone(), document).await;
        Message::text(push::message(taken))
    }
}

//! The HTTP side of the simulated daemons: `GET /NAME/status`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::model::{self, Options};
use crate::base::tasks::spawn_detached;
use crate::base::time::Clock;

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 64;
/// Longest time between two requests of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves the simulated daemons until `stop`.
pub async fn serve(listener: TcpListener, options: Options, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let stop = stop.clone();
        spawn_detached(async move {
            let service = service_fn(move |request| async move { answer(options, &request) });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                }
            }
            drop(permit);
        });
    }
}

fn answer(
    options: Options,
    request: &Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let name = request.uri().path().strip_prefix('/').and_then(|path| path.strip_suffix("/status"));
    let (status, body) = if request.method() == Method::GET {
        match name.and_then(|name| model::document(options, name, Clock::system().now())) {
            Some(document) if document.is_null() => {
                (StatusCode::SERVICE_UNAVAILABLE, r#"{"error":"restarting"}"#.to_owned())
            }
            Some(document) => (StatusCode::OK, document.to_string()),
            None => (StatusCode::NOT_FOUND, r#"{"error":"no such daemon"}"#.to_owned()),
        }
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, r#"{"error":"only GET"}"#.to_owned())
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::http::{Client, Limits};

    #[tokio::test]
    async fn every_daemon_answers_under_its_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = Options { daemons: 3, seed: 1 };
        let stop = CancellationToken::new();
        let server = spawn_detached(serve(listener, options, stop.clone()));
        let client = Client::new().unwrap();
        let get = async |path: &str| {
            let request = Request::get(format!("http://{address}{path}")).body(Full::default());
            let limits = Limits { time: Duration::from_secs(10), body: 1 << 20 };
            client.send(request.unwrap(), limits).await.unwrap()
        };
        for name in model::names(options) {
            let answer = get(&format!("/{name}/status")).await;
            let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            match answer.status {
                StatusCode::OK => assert_eq!(document["running"], true),
                // In the middle of a restart.
                other => assert_eq!(other, StatusCode::SERVICE_UNAVAILABLE),
            }
        }
        assert_eq!(get("/nobody/status").await.status, StatusCode::NOT_FOUND);
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
    }
}

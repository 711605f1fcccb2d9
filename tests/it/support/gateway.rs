//! An HTTP gateway in front of a real server that answers some writes itself, as reverse proxies do.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use periscope::base::http::{Client, Limits};
use periscope::base::tasks::spawn_detached;
use tokio::net::TcpListener;

/// Answers a write with this body; `None` passes it on.
pub type Answer = fn(&[u8]) -> Option<Response<Full<Bytes>>>;

#[derive(Default)]
struct State {
    answers: Vec<Answer>,
    writes: Vec<Instant>,
    connections: u64,
    always: Option<Answer>,
    /// What connections below this number answer to every write.
    old: Option<(u64, Answer)>,
}

pub struct Gateway {
    pub port: u16,
    state: Arc<Mutex<State>>,
    server: tokio::task::JoinHandle<()>,
}

impl Gateway {
    /// Listens on a free port and passes requests on to `port` of loopback.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let client = Client::new().unwrap();
        let server = spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, client) = (Arc::clone(&shared), client.clone());
                let number = {
                    let mut state = shared.lock().unwrap();
                    state.connections += 1;
                    state.connections
                };
                spawn_detached(async move {
                    let service = service_fn(move |request| {
                        answer(request, port, number, Arc::clone(&state), client.clone())
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    let _closed = connection.await;
                });
            }
        });
        Self { port: own, state, server }
    }

    /// Answers the next writes with these, one each.
    pub fn answer_next(&self, answers: &[Answer]) {
        self.state.lock().unwrap().answers.extend_from_slice(answers);
    }

    /// Answers every write with this from now on.
    pub fn answer_always(&self, answer: Answer) {
        self.state.lock().unwrap().always = Some(answer);
    }

    /// Answers all writes on the connections that are open now with this.
    pub fn answer_on_open_connections(&self, answer: Answer) {
        let mut state = self.state.lock().unwrap();
        state.old = Some((state.connections + 1, answer));
    }

    /// Returns when writes came.
    pub fn writes(&self) -> Vec<Instant> {
        self.state.lock().unwrap().writes.clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Returns an answer with `status` and `body`.
pub fn answered(status: u16, body: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(body)).unwrap()
}

async fn answer(
    request: Request<Incoming>,
    port: u16,
    connection: u64,
    state: Arc<Mutex<State>>,
    client: Client,
) -> Result<Response<Full<Bytes>>, String> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    if parts.uri.path() == "/write" {
        let mut state = state.lock().unwrap();
        state.writes.push(Instant::now());
        let next = (!state.answers.is_empty()).then(|| state.answers.remove(0));
        let old = state.old.filter(|(first, _)| connection < *first).map(|(_, answer)| answer);
        if let Some(response) = next.or(old).or(state.always).and_then(|answer| answer(&body)) {
            return Ok(response);
        }
    }
    let path = parts.uri.path_and_query().unwrap().clone();
    parts.uri = format!("http://127.0.0.1:{port}{path}").parse().unwrap();
    let limits = Limits { time: Duration::from_secs(30), body: 16 << 20 };
    let request = Request::from_parts(parts, Full::new(body));
    let answer = client.send(request, limits).await.map_err(|error| error.to_string())?;
    Ok(Response::builder().status(answer.status).body(Full::new(answer.body)).unwrap())
}

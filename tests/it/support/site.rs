//! An HTTP server on loopback whose answers a test writes, and that can fail, delay and cut.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use periscope::base::tasks::spawn_detached;
use serde_json::Value;
use tokio::net::TcpListener;

/// A whole request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub type Reply = Response<Full<Bytes>>;
pub type Handler = Arc<dyn Fn(Asked) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// What happens to a request instead of its answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This answer; the request is not taken.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: String },
    /// The connection ends; the request is not taken.
    Cut,
    /// The request is taken, then the connection ends.
    Lost,
    /// The answer comes this much later.
    Delay(Duration),
}

impl Fault {
    pub fn status(status: u16, body: &str) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.to_owned() }
    }
}

/// Says which fault the next request to a path meets, if any.
pub type Chance = Box<dyn FnMut(&str) -> Option<Fault> + Send>;

/// What requests meet: what was said for one after the other, else what chance wants.
#[derive(Default)]
struct Faults {
    said: Vec<(String, Fault)>,
    chance: Option<Chance>,
}

impl Faults {
    fn next(&mut self, path: &str) -> Option<Fault> {
        let low = path.to_lowercase();
        match self.said.iter().position(|(part, _)| low.contains(part.as_str())) {
            Some(index) => Some(self.said.remove(index).1),
            None => self.chance.as_mut().and_then(|chance| chance(path)),
        }
    }
}

pub struct Site {
    /// `http://127.0.0.1:PORT`
    pub origin: String,
    faults: Arc<Mutex<Faults>>,
    server: tokio::task::JoinHandle<()>,
}

impl Site {
    pub async fn serve(handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let faults: Arc<Mutex<Faults>> = Arc::default();
        let shared = Arc::clone(&faults);
        let server = spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, faults) = (Arc::clone(&handler), Arc::clone(&shared));
                spawn_detached(async move {
                    let service = service_fn(move |request| {
                        answer(request, Arc::clone(&handler), Arc::clone(&faults))
                    });
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    let _closed = connection.await;
                });
            }
        });
        Self { origin, faults, server }
    }

    /// The next requests whose path contains `part`, in any case, meet these faults, one each.
    pub fn fail(&self, part: &str, faults: &[Fault]) {
        let part = part.to_lowercase();
        let faults = faults.iter().map(|fault| (part.clone(), fault.clone()));
        self.faults.lock().unwrap().said.extend(faults);
    }

    /// Lets chance decide about every request that [`fail`](Self::fail) says nothing of.
    pub fn set_chance(&self, chance: Chance) {
        self.faults.lock().unwrap().chance = Some(chance);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: Handler,
    faults: Arc<Mutex<Faults>>,
) -> Result<Reply, String> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    let path = parts.uri.path().to_owned();
    let fault = faults.lock().unwrap().next(&path);
    let asked = Asked {
        method: parts.method,
        path,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    match fault {
        None => Ok(handler(asked).await),
        Some(Fault::Answer { status, headers, body }) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Full::from(body)).unwrap())
        }
        Some(Fault::Cut) => Err("cut on purpose".to_owned()),
        Some(Fault::Lost) => {
            handler(asked).await;
            Err("cut on purpose".to_owned())
        }
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(handler(asked).await)
        }
    }
}

pub fn json(status: u16, body: &Value) -> Reply {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// Reads an object whose keys are all among `known`; the error names the fault.
pub fn object<'a>(
    value: &'a Value,
    known: &[&str],
) -> Result<&'a serde_json::Map<String, Value>, String> {
    let object = value.as_object().ok_or("is no object")?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown field {key}")),
        None => Ok(object),
    }
}

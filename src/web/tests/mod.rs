//! The listener as clients meet it: real sockets, hostile requests, hostile daemons.

mod answers;
mod limits;
mod viewer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::task::{self, BindError, Setup};
use crate::base::health::{Board, Entry, Health, Part};
use crate::base::metrics::{Child, Metrics, PollFailure, Reason, Table, Target};
use crate::base::secret::Secret;
use crate::base::tasks;
use crate::base::time::{Clock, Timestamp};
use crate::config::{Listen, Node};
use crate::model::observation::PushRefusal;
use crate::model::report::{Alerts, Daemon, Database, Report, Server, Spool, Writer};
use crate::model::server::{Endpoint, ServerState};

/// Text that would be dangerous on a page, in an attribute and on a terminal.
const HOSTILE: &str =
    "</td><script>alert(\"1\")</script>'\" onload='x' \u{202e}\u{1b}[31m{{rows}}&";

/// A report in which every text of a daemon is hostile.
pub(super) fn report() -> Report {
    let started_at = Timestamp::parse("2026-11-24T03:55:27Z").unwrap();
    let server = |state: &str| Server {
        state: state.to_owned(),
        version: Some("9.3.4".to_owned()),
        pid: Some(7),
        http: Some("http://127.0.0.1:9000".to_owned()),
        pg: Some("127.0.0.1:8812".to_owned()),
        url: None,
        restarts: 0,
        reason: String::new(),
    };
    let down = Entry { health: Health::Down { reason: HOSTILE.to_owned() }, since: started_at };
    Report {
        version: "0.1.0".to_owned(),
        pid: 1,
        host: HOSTILE.to_owned(),
        env: "dev".to_owned(),
        mode: "managed".to_owned(),
        started_at,
        questdb: server("ready"),
        grafana: Server { http: Some(format!("javascript:{HOSTILE}")), ..server("off") },
        spool: Spool { rows: 12, bytes: 3_456, ..Spool::default() },
        writer: Writer { rows_total: 34_567, ..Writer::default() },
        database: Database::default(),
        daemons: vec![
            Daemon {
                name: HOSTILE.to_owned(),
                state: HOSTILE.to_owned(),
                source: "http".to_owned(),
                last_sample_at: Some(started_at),
                last_durable_at: None,
                last_success_at: None,
                poll_error: Some(HOSTILE.to_owned()),
                pid: None,
                restarts: 3,
                interval_seconds: 5.0,
                beats: vec![true, false, true],
                status: None,
            },
            Daemon {
                name: "ccxt".to_owned(),
                state: "up".to_owned(),
                source: "shim".to_owned(),
                last_sample_at: None,
                last_durable_at: None,
                last_success_at: None,
                poll_error: None,
                pid: None,
                restarts: 0,
                interval_seconds: 5.0,
                beats: Vec::new(),
                status: Some(serde_json::json!({ "instances": [{ "status": {
                    "last_error": HOSTILE, "fetch_count": 4_711, "error_count": [HOSTILE],
                } }] })),
            },
        ],
        alerts: Alerts { path: "off".to_owned(), firing: Vec::new() },
        parts: BTreeMap::from([(Part::Questdb, down)]),
    }
}

/// A running listener.
struct Running {
    address: SocketAddr,
    board: Board,
    metrics: Metrics,
    reports: Arc<AtomicUsize>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

fn listen(token: Option<&str>) -> Listen {
    Listen {
        address: "127.0.0.1:0".parse().unwrap(),
        token: token.map(Secret::new),
        allowed_hosts: vec!["status.example.org".to_owned()],
    }
}

fn start(token: Option<&str>) -> Running {
    start_over(token, None)
}

/// As [`start`], with a database at `pg`.
fn start_over(token: Option<&str>, pg: Option<String>) -> Running {
    let listen = listen(token);
    let listener = task::bind(&listen).unwrap();
    let address = listener.local_addr().unwrap();
    let (board, metrics) = (Board::new(Clock::system()), Metrics::new());
    let reports = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reports);
    let report = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        report()
    };
    // Nobody takes rows out: pushes wait, everything else is as in the running program.
    let (queue, _rows) = crate::store::queue::channel(10, &metrics);
    let setup = Setup {
        listen,
        report: Arc::new(report),
        board: board.clone(),
        metrics: metrics.clone(),
        queue,
        statuses: task::Statuses {
            take: Arc::new(|name, body| {
                Box::pin(async move {
                    match name.as_str() {
                        "echo" => Err(PushRefusal::Invalid(format!("{} bytes", body.len()))),
                        "polled" => Err(PushRefusal::Taken("polled".to_owned())),
                        "full" => Err(PushRefusal::Unavailable("full".to_owned())),
                        _ => Ok(()),
                    }
                })
            }),
            limit: 1_000,
        },
        viewer: viewer_over(pg),
        rules: crate::rules::catalog::shipped().unwrap().into(),
        alerts: task::Alerts {
            list: Arc::new(|| serde_json::json!({ "path": "fallback" })),
            ask: Arc::new(|_, body| {
                let text = String::from_utf8_lossy(&body).into_owned();
                Box::pin(async move { Err(text) })
            }),
        },
        node: Node { host: "test".to_owned(), env: "dev".to_owned() },
        clock: Clock::system(),
    };
    let stop = CancellationToken::new();
    let ended = tasks::spawn_detached(task::run(listener, setup, stop.clone()));
    Running { address, board, metrics, reports, stop, ended }
}

/// Dashboards over a database at `pg`, or over none.
fn viewer_over(pg: Option<String>) -> task::Viewer {
    let files = crate::grafana::dashboards::render(&|_, _| None);
    let catalog = crate::grafana::catalog::Catalog::new(&files).unwrap();
    let endpoint = pg.map(|pg| Endpoint {
        http: String::new(),
        pg,
        database: "qdb".to_owned(),
        admin: None,
        reader: None,
    });
    let state = ServerState { endpoint, ..ServerState::absent() };
    let (_gone, questdb) = tokio::sync::watch::channel(state);
    task::Viewer::new(catalog, questdb)
}

impl Running {
    /// Sends `bytes` and reads until the other end closes; a reset ends the answer too.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The listener may answer and close before it has read everything.
        let _ignored = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ignored = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Sends a request of one line and further header lines.
    async fn ask(&self, line: &str, headers: &str) -> String {
        let host =
            if headers.to_lowercase().contains("host:") { "" } else { "Host: localhost\r\n" };
        let request = format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n{headers}\r\n");
        self.raw(request.as_bytes()).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path}"), "").await
    }
}

#[track_caller]
fn assert_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "expected {status}:\n{answer}");
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

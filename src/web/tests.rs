//! The listener as clients meet it: real sockets, hostile requests, hostile daemons.

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
use crate::config::Listen;
use crate::model::report::{Alerts, Daemon, Report, Server, Spool, Writer};

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
    let setup =
        Setup { listen, report: Arc::new(report), board: board.clone(), metrics: metrics.clone() };
    let stop = CancellationToken::new();
    let ended = tasks::spawn_detached(task::run(listener, setup, stop.clone()));
    Running { address, board, metrics, reports, stop, ended }
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

#[tokio::test]
async fn every_answer_has_the_security_headers() {
    let running = start(None);
    for path in ["/", "/healthz", "/readyz", "/metrics", "/api/v1/status", "/nothing"] {
        let answer = running.get(path).await.to_lowercase();
        for header in [
            "content-security-policy: default-src 'self';",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.contains(header), "{path} lacks {header}:\n{answer}");
        }
        assert!(!answer.contains("unsafe-inline"), "{answer}");
    }
}

#[tokio::test]
async fn paths_and_methods_are_told_apart() {
    let running = start(None);
    assert_status(&running.get("/healthz").await, 200);
    assert_status(&running.get("/healthz?x=1").await, 200);
    assert_status(&running.get("/nothing").await, 404);
    assert_status(&running.get("/web/../Cargo.toml").await, 404);
    assert_status(&running.get("/web/%2e%2e/periscope.toml").await, 404);
    let refused = running.ask("DELETE /metrics", "").await;
    assert_status(&refused, 405);
    assert!(refused.contains("allow: GET, HEAD"), "{refused}");
    let head = running.ask("HEAD /api/v1/status", "").await;
    assert_status(&head, 200);
    assert_eq!(body(&head), "");
    assert_status(&running.get(&format!("/{}", "x".repeat(9_000))).await, 414);
}

#[tokio::test]
async fn the_page_shows_hostile_text_as_text() {
    let running = start(None);
    let answer = running.get("/").await;
    assert_status(&answer, 200);
    let page = body(&answer);
    assert!(
        page.contains("&lt;/td&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;"),
        "{page}"
    );
    assert!(page.contains("{{rows}}&amp;"), "values are not filled again: {page}");
    for dangerous in ["<script>", "alert(\"1\")", "onload='x'", "\u{202e}", "\u{1b}"] {
        assert!(!page.contains(dangerous), "{dangerous:?} in:\n{page}");
    }
    assert!(!page.contains("href=\"javascript:"), "{page}");
    // Own markup: one external script, no style attribute, no event handler.
    assert_eq!(page.matches("<script ").count(), 1, "{page}");
    assert!(!page.contains("style=") && !page.contains("onclick="), "{page}");
    for shown in ["ccxt", "4711", "12 rows, 3.3 KiB", "34567 rows", "http://127.0.0.1:9000"] {
        assert!(page.contains(shown), "{shown} is not on the page:\n{page}");
    }
    for (path, kind) in [
        ("/web/status.css", "text/css"),
        ("/web/status.js", "text/javascript"),
        ("/web/icon.svg", "image/svg+xml"),
    ] {
        let answer = running.get(path).await;
        assert_status(&answer, 200);
        assert!(answer.contains(&format!("content-type: {kind}")), "{answer}");
        assert!(page.contains(path), "{path} is not used");
    }
}

/// The same texts reach the page a second time through the script.
#[test]
fn the_script_never_reads_text_as_html() {
    let script = crate::base::embed::asset_text("web/status.js").unwrap();
    for forbidden in
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
    {
        assert!(!script.contains(forbidden), "{forbidden}");
    }
    let page = crate::base::embed::asset_text("web/status.html").unwrap();
    for (_, after) in
        script.match_indices("byId(\"").map(|(at, found)| script.split_at(at + found.len()))
    {
        let id = after.split('"').next().unwrap();
        assert!(page.contains(&format!("id=\"{id}\"")), "the page has no {id}");
    }
}

#[tokio::test]
async fn the_report_is_served_as_it_is() {
    let running = start(None);
    let answer = running.get("/api/v1/status").await;
    assert_status(&answer, 200);
    let served: Report = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(served, report());
}

#[tokio::test]
async fn ready_follows_the_board_and_alive_does_not() {
    let running = start(None);
    let answer = running.get("/readyz").await;
    assert_status(&answer, 503);
    let parts: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(parts["waiting_for"], serde_json::json!(["spool", "collect", "questdb"]));
    assert_eq!(parts["parts"]["web"]["state"], "ok");
    assert_status(&running.get("/healthz").await, 200);
    for part in [Part::Spool, Part::Collect, Part::Questdb] {
        running.board.set(part, Health::Ok);
    }
    assert_status(&running.get("/readyz").await, 200);
}

#[tokio::test]
async fn other_names_are_misdirected() {
    let running = start(None);
    let port = running.address.port();
    for good in [
        "localhost".to_owned(),
        format!("127.0.0.1:{port}"),
        "[::1]:80".to_owned(),
        "STATUS.example.org:443".to_owned(),
    ] {
        assert_status(&running.ask("GET /healthz", &format!("Host: {good}\r\n")).await, 200);
    }
    for bad in ["evil.example", "evil.example:7480", "127.0.0.1.evil.example", "192.168.0.1"] {
        for path in ["/healthz", "/", "/api/v1/status", "/nothing"] {
            let answer = running.ask(&format!("GET {path}"), &format!("Host: {bad}\r\n")).await;
            assert_status(&answer, 421);
        }
    }
    let absolute = running.ask("GET http://evil.example/healthz", "").await;
    assert_status(&absolute, 421);
    assert_status(&running.raw(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n").await, 400);
    assert_eq!(running.reports.load(Ordering::SeqCst), 0, "nothing was looked up for strangers");
}

#[tokio::test]
async fn other_sites_cannot_post() {
    let running = start(None);
    let evil = "Origin: https://evil.example\r\nContent-Length: 0\r\n";
    assert_status(&running.ask("POST /api/v1/status", evil).await, 403);
    let own = "Origin: http://localhost\r\nContent-Length: 0\r\n";
    assert_status(&running.ask("POST /api/v1/status", own).await, 405);
}

#[tokio::test]
async fn a_token_guards_everything_but_healthz() {
    let running = start(Some("s3cret"));
    assert_status(&running.get("/healthz").await, 200);
    for path in ["/", "/readyz", "/metrics", "/api/v1/status", "/web/status.js", "/nothing"] {
        let answer = running.get(path).await;
        assert_status(&answer, 401);
        assert!(answer.contains("www-authenticate: Basic"), "{answer}");
        let right = "Authorization: Bearer s3cret\r\n";
        let answer = running.ask(&format!("GET {path}"), right).await;
        assert!(!answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
    }
    // "any:s3cret": what a browser sends after it has asked for a password.
    let browser = "Authorization: Basic YW55OnMzY3JldA==\r\n";
    assert_status(&running.ask("GET /", browser).await, 200);
}

#[tokio::test]
async fn guessing_tokens_is_stopped_after_ten_tries() {
    let running = start(Some("s3cret"));
    // Questions without a token are no guesses.
    for _ in 0..20 {
        assert_status(&running.get("/").await, 401);
    }
    for _ in 0..10 {
        assert_status(&running.ask("GET /", "Authorization: Bearer guess\r\n").await, 401);
    }
    let refused = running.ask("GET /", "Authorization: Bearer s3cret\r\n").await;
    assert_status(&refused, 429);
    assert!(refused.contains("retry-after: "), "{refused}");
    assert_status(&running.get("/healthz").await, 200);
    let metrics = running.metrics.http_requests.get_or_create(&Reason { reason: "429" }).get();
    assert_eq!(metrics, 1);
}

#[tokio::test]
async fn large_heads_and_bodies_are_refused() {
    let running = start(None);
    let large = format!("X-Large: {}\r\n", "x".repeat(40_000));
    assert_status(&running.ask("GET /healthz", &large).await, 431);
    let many: String = (0..200).map(|index| format!("X-{index}: 1\r\n")).collect();
    assert_status(&running.ask("GET /healthz", &many).await, 431);
    let fits = format!("X-Large: {}\r\n", "x".repeat(16_000));
    assert_status(&running.ask("GET /healthz", &fits).await, 200);
    let body = "Content-Length: 5\r\n\r\nhello";
    assert_status(&running.ask("GET /healthz", body).await, 413);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_status(&running.ask("GET /healthz", chunked).await, 413);
    assert_status(&running.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").await, 400);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let running = start(None);
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\
        GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n\
        GET /healthz HTTP/1.1\r\nHost: evil\r\nConnection: close\r\n\r\n";
    let answers = running.raw(request).await;
    let lines = answers.lines().filter(|line| line.starts_with("HTTP/1.1"));
    let codes: Vec<&str> = lines.filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(codes, ["200", "404", "421"]);
}

/// Two hundred clients that dribble their heads: all are cut, and others are served soon again.
#[tokio::test]
async fn a_slow_loris_is_cut_and_does_not_keep_others_out() {
    let running = start(None);
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        // Those beyond the limit are closed by the other end already.
        let _ignored = stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").await;
        clients.push(stream);
    }
    let dribble = async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            for client in &mut clients {
                let _ignored = client.write_all(b"a").await;
            }
        }
    };
    let served = async {
        let mut last = String::new();
        while begun.elapsed() < Duration::from_secs(15) {
            last = running.get("/healthz").await;
            if last.starts_with("HTTP/1.1 200") {
                return begun.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never served: {last:?}")
    };
    let after = tokio::select! {
        () = dribble => unreachable!("it never ends"),
        after = served => after,
    };
    // The time limit of heads is five seconds.
    assert!(after < Duration::from_secs(8), "served after {after:?}");
    let mut cut = 0;
    for client in &mut clients {
        let mut rest = Vec::new();
        let read = client.read_to_end(&mut rest);
        let ended = tokio::time::timeout(Duration::from_secs(8), read).await;
        cut += usize::from(ended.is_ok());
    }
    assert_eq!(cut, 200);
}

#[tokio::test]
async fn the_sixty_fifth_connection_is_turned_away_and_a_free_place_is_used() {
    let running = start(None);
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        open.push(stream);
    }
    let mut refused = TcpStream::connect(running.address).await.unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).await.unwrap();
    assert_status(&answer, 503);
    drop(open.pop());
    let begun = Instant::now();
    loop {
        let answer = running.get("/healthz").await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{answer:?}");
    }
}

fn fill_every_family(metrics: &Metrics) {
    metrics.polls.get_or_create(&Target { target: HOSTILE.to_owned() }).inc();
    metrics.polls.get_or_create(&Target { target: "back\\slash\nline \"q\"".to_owned() }).inc();
    let failure = PollFailure { target: HOSTILE.to_owned(), reason: "timeout" };
    metrics.poll_failures.get_or_create(&failure).inc();
    metrics.schema_drift.get_or_create(&Target { target: "ünï".to_owned() }).inc();
    let (reason, table) = (Reason { reason: "cap" }, Table { table: "daemon_metrics" });
    metrics.spool_lost_rows.get_or_create(&reason).inc();
    metrics.spool_faults.get_or_create(&reason).inc();
    metrics.rows_written.get_or_create(&table).inc();
    metrics.rows_refused.get_or_create(&table).inc();
    metrics.rows_invalid.get_or_create(&reason).inc();
    metrics.write_retries.get_or_create(&reason).inc();
    metrics.wal_lag.get_or_create(&table).set(3);
    metrics.wal_suspended.get_or_create(&table).set(1);
    let child = Child { child: "questdb" };
    metrics.child_restarts.get_or_create(&child).inc();
    metrics.child_ready.get_or_create(&child).set(1);
    metrics.spool_oldest_age.set(1.5);
}

/// `promtool check metrics` reads the text and finds nothing to say.
#[tokio::test]
async fn promtool_accepts_the_metrics() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let running = start(None);
    fill_every_family(&running.metrics);
    let answer = running.get("/metrics").await;
    assert_status(&answer, 200);
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    let text = body(&answer);
    let families = text.matches("# TYPE ").count();
    assert!(families >= 20, "{families} families:\n{text}");
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        let sample = |line: &str| line.starts_with(name) && !line.starts_with('#');
        assert!(text.lines().any(sample), "{name} has no sample:\n{text}");
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed: install Debian's package prometheus");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[tokio::test]
async fn metrics_are_rendered_once_a_second_and_in_the_asked_format() {
    let running = start(None);
    let first = running.get("/metrics").await;
    running.metrics.queue_dropped_rows.inc();
    assert_eq!(body(&running.get("/metrics").await), body(&first));
    let begun = Instant::now();
    while !running.get("/metrics").await.contains("periscope_queue_dropped_rows_total 1") {
        assert!(begun.elapsed() < Duration::from_secs(5), "never renewed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let accept = "Accept: application/openmetrics-text;version=1.0.0\r\n";
    let answer = running.ask("GET /metrics", accept).await;
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_frees_the_port() {
    let running = start(None);
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    running.stop.cancel();
    tokio::time::timeout(Duration::from_secs(1), running.ended).await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn a_taken_port_names_its_holder() {
    let running = start(None);
    let mut listen = listen(None);
    listen.address = running.address;
    let error = task::bind(&listen).unwrap_err();
    assert!(matches!(error, BindError::Taken { holder: Some(_), .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    assert!(text.contains("127.0.0.1:auto"), "{text}");
}

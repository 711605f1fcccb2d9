//! What is answered to friendly clients, with hostile texts of daemons in it.

use super::*;

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
async fn a_pushed_status_is_answered_as_it_is_taken() {
    let running = start(Some("canary"));
    let token = "Authorization: Bearer canary\r\n";
    let push = async |name: &str, headers: &str, size: usize| {
        let headers = format!("{headers}Content-Length: {size}\r\n");
        let text = " ".repeat(size);
        let line = format!("POST /api/v1/push/{name} HTTP/1.1");
        let head = format!("{line}\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
        running.raw(format!("{head}{text}").as_bytes()).await
    };
    assert_status(&push("ccxt", "", 5).await, 401);
    assert_status(&push("ccxt", token, 5).await, 204);
    let elsewhere = format!("{token}Origin: http://evil.example\r\n");
    assert_status(&push("ccxt", &elsewhere, 5).await, 403);
    let echoed = push("ech%6F", token, 5).await;
    assert_status(&echoed, 400);
    assert!(body(&echoed).contains("5 bytes"), "{echoed}");
    assert_status(&push("polled", token, 5).await, 409);
    let full = push("full", token, 5).await;
    assert_status(&full, 503);
    assert!(full.contains("retry-after: 1"), "{full}");
    assert_status(&push("%zz", token, 5).await, 400);
    assert_status(&push("ccxt", token, 1_001).await, 413);
    let packed = format!("{token}Content-Encoding: br\r\n");
    assert_status(&push("ccxt", &packed, 5).await, 415);
    assert_status(&push("a/b", token, 5).await, 404);
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

//! Strangers, guessers, large and slow clients.

use super::*;

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

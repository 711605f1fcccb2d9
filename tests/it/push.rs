//! `POST /write`: rows of other programs with the same durability.

use std::time::Duration;

use periscope::base::http::{Answer, Client, Limits};
use serde_json::Value;

use super::support::periscope::Periscope;
use super::support::wait::until;

const LIMITS: Limits = Limits { time: Duration::from_secs(20), body: 1 << 20 };

pub(crate) async fn request(
    periscope: &Periscope,
    method: &str,
    path: &str,
    body: Vec<u8>,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = hyper::Request::builder()
        .method(method)
        .uri(format!("{}{path}", periscope.listener().unwrap()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(http_body_util::Full::from(body)).unwrap();
    Client::new().unwrap().send(request, LIMITS).await.unwrap()
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn lines_are_durable_or_refused_whole_with_line_and_reason() {
    let periscope = Periscope::up("[node]\nhost = \"it\"\n");
    periscope.ready().await;
    let good = "pipeline_metrics,exchange=x,symbol=s,data_type=push,daemon=p records_count=1i\n";
    let answer = request(&periscope, "POST", "/write", good.into(), &[]).await;
    assert_eq!(answer.status, 204);
    let body = gzip(&good.replace("symbol=s", "symbol=zipped"));
    let answer = request(
        &periscope,
        "POST",
        "/api/v2/write?precision=ns",
        body,
        &[("content-encoding", "gzip")],
    )
    .await;
    assert_eq!(answer.status, 204, "{:?}", answer.body);

    let bad = format!("{good}pipeline_metrics,exchange=x nonsense=1i\n{good}");
    let answer = request(&periscope, "POST", "/write", bad.into(), &[]).await;
    assert_eq!(answer.status, 400);
    let refusal: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(refusal["line"], 2, "{refusal}");
    assert!(refusal["message"].as_str().unwrap().contains("nonsense"), "{refusal}");

    let huge = vec![b'x'; 32 << 20];
    let answer = request(&periscope, "POST", "/write", huge, &[]).await;
    assert_eq!(answer.status, 413);
    let bomb = gzip(&"#".repeat(200 << 20));
    let answer = request(&periscope, "POST", "/write", bomb, &[("content-encoding", "gzip")]).await;
    assert_eq!(answer.status, 413, "a small body that unpacks to a large one");
    let answer = request(&periscope, "POST", "/write?precision=weeks", good.into(), &[]).await;
    assert_eq!(answer.status, 400);
    let answer =
        request(&periscope, "POST", "/write", good.into(), &[("origin", "http://evil.example")])
            .await;
    assert_eq!(answer.status, 403, "a page of another origin cannot write");

    let settings = request(&periscope, "GET", "/settings", Vec::new(), &[]).await;
    let settings: Value = serde_json::from_slice(&settings.body).unwrap();
    assert_eq!(
        settings["config"]["line.proto.support.versions"],
        serde_json::json!([1]),
        "{settings}"
    );
    periscope.until_count("select count() from pipeline_metrics", |count| count == 2).await;
}

#[tokio::test]
async fn a_token_is_demanded_when_set() {
    let periscope = Periscope::up("[listen]\ntoken = \"canary-token\"\n");
    until("the listener", Duration::from_secs(20), || std::future::ready(periscope.listener()))
        .await;
    let good = "daemon_metrics,daemon=p fetch_count=1i\n";
    let answer = request(&periscope, "POST", "/write", good.into(), &[]).await;
    assert_eq!(answer.status, 401);
    let wrong = [("authorization", "Bearer wrong")];
    assert_eq!(request(&periscope, "POST", "/write", good.into(), &wrong).await.status, 401);
    let right = [("authorization", "Bearer canary-token")];
    assert_eq!(request(&periscope, "POST", "/write", good.into(), &right).await.status, 204);
    let socket = async |headers: &[(&str, &str)]| {
        request(&periscope, "GET", "/ws/push/a", Vec::new(), headers).await.status
    };
    assert_eq!(socket(&[]).await, 401);
    assert_eq!(socket(&wrong).await, 401);
    assert_eq!(socket(&right).await, 426, "no WebSocket was asked for");
    assert!(!periscope.log().contains("canary-token"), "{}", periscope.log());
}

#[tokio::test]
async fn a_pushed_status_is_durable_and_shown_and_its_silence_too() {
    let config = "[[daemon]]\nname = \"collector\"\nsource = \"push\"\ninterval = \"2s\"\n";
    let mut periscope = Periscope::up(config);
    let path = "/api/v1/push/collector";
    until("the listener", Duration::from_secs(20), || std::future::ready(periscope.listener()))
        .await;
    let document =
        r#"{"running": true, "fetch_count": 7, "exchange_status": {"okx": {"connected": true}}}"#;
    let answer = request(&periscope, "POST", path, document.into(), &[]).await;
    assert_eq!(answer.status, 204, "{:?}", answer.body);
    // The database is not even up yet: what was answered with 204 must survive this.
    periscope.kill();
    periscope.start();
    periscope.ready().await;
    periscope
        .until_count(
            "select count() from daemon_metrics where daemon = 'collector' and fetch_count = 7",
            |count| count == 1,
        )
        .await;
    periscope.until_count("select count() from exchange_status", |count| count == 1).await;
    let answer =
        request(&periscope, "POST", path, gzip(document), &[("content-encoding", "gzip")]).await;
    assert_eq!(answer.status, 204, "{:?}", answer.body);
    let daemon = |status: &Value| status["daemons"][0].clone();
    let seen = daemon(&periscope.status().await.unwrap());
    assert_eq!((seen["state"].as_str(), seen["source"].as_str()), (Some("up"), Some("push")));
    let silent = until("the silence to be noticed", Duration::from_secs(30), || async {
        let seen = daemon(&periscope.status().await?);
        if seen["state"] == "unreachable" { Ok(seen) } else { Err(seen.to_string()) }
    })
    .await;
    assert!(silent["poll_error"].as_str().unwrap().starts_with("silent: "), "{silent}");
    assert_eq!(silent["status"]["fetch_count"], 7, "the last document stays");
    periscope
        .until_count(
            "select count() from daemon_metrics where daemon = 'collector' and not reachable \
             and poll_error = 'silent'",
            |count| count >= 1,
        )
        .await;
    for (path, body, status) in [
        (path, "{", 400),
        (path, "[]", 400),
        ("/api/v1/push/", document, 404),
        ("/api/v1/push/%ff", document, 400),
    ] {
        let answer = request(&periscope, "POST", path, body.into(), &[]).await;
        assert_eq!(answer.status, status, "{path} {body}");
    }
    let large = format!("{{\"running\": true, \"x\": \"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(request(&periscope, "POST", path, large.into(), &[]).await.status, 413);
}

/// What clients of InfluxDB 2 send: bucket, organisation, milliseconds, their own word for a token.
#[tokio::test]
async fn a_plain_client_of_influxdb_writes_in_milliseconds() {
    let periscope = Periscope::up("[listen]\ntoken = \"canary-token\"\n[node]\nhost = \"it\"\n");
    until("the listener", Duration::from_secs(20), || std::future::ready(periscope.listener()))
        .await;
    let at = periscope::base::time::Clock::system().now().millis();
    let line = format!(
        "trading_metrics,strategy=ema,symbol=BTC,venue=sim,currency=USD,daemon=p pnl=1.5 {at}"
    );
    let path = "/api/v2/write?org=me&bucket=x&precision=ms";
    let token = [("authorization", "Token canary-token")];
    let answer = request(&periscope, "POST", path, line.into(), &token).await;
    assert_eq!(answer.status, 204, "{:?}", answer.body);
    let sql = "select pnl, timestamp::timestamp::long / 1000 from trading_metrics";
    let http = until("questdb", Duration::from_secs(90), || async {
        let (code, out, err) = periscope.run(&[
            "query",
            sql,
            "--format",
            "csv",
            "--set",
            "listen.token=\"canary-token\"",
        ]);
        let rows: Vec<&str> = out.lines().skip(1).collect();
        if code == 0 && !rows.is_empty() { Ok(rows.join("\n")) } else { Err(format!("{out}{err}")) }
    })
    .await;
    assert_eq!(http, format!("1.5,{at}"));
}

/// Each message on a WebSocket is one document, answered in its turn once it is on disk.
#[tokio::test]
async fn documents_come_over_a_websocket_and_each_is_answered() {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    use tokio_tungstenite::tungstenite::{Error, Message};

    let mut periscope = Periscope::up(
        "[collect]\nmax_document = \"64KiB\"\n\
         [[daemon]]\nname = \"polled\"\nsource = \"file\"\npath = \"/nonexistent/status.json\"\n",
    );
    periscope.ready().await;
    let url = |name: &str| {
        format!("{}/ws/push/{name}", periscope.listener().unwrap().replace("http://", "ws://"))
    };
    let open = async |url: String, headers: &[(&'static str, &str)]| {
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request).await.map(|(stream, _answer)| stream)
    };
    for (headers, expected) in [
        (&[("origin", "http://evil.example")][..], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("host", "evil.example")], 421),
        (&[("sec-websocket-version", "8")], 400),
    ] {
        match open(url("a"), headers).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), expected, "{headers:?}"),
            other => panic!("{headers:?}: {other:?}"),
        }
    }
    let plain = request(&periscope, "GET", "/ws/push/a", Vec::new(), &[]).await;
    assert_eq!(plain.status, 426);

    let mut stream = open(url("col%6Cector"), &[]).await.unwrap();
    let said = async |stream: &mut tokio_tungstenite::WebSocketStream<_>, message: Message| {
        stream.send(message).await.unwrap();
        loop {
            match stream.next().await.unwrap().unwrap() {
                Message::Text(text) => break serde_json::from_str::<Value>(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    for count in 1..=20 {
        let document = format!("{{\"running\": true, \"fetch_count\": {count}}}");
        let message = if count % 2 == 0 {
            Message::text(document)
        } else {
            Message::binary(document.into_bytes())
        };
        assert_eq!(said(&mut stream, message).await, serde_json::json!({"ok": true}));
    }
    for (document, word) in [("{", "not_json"), ("[1]", "bad_document"), ("", "empty")] {
        let answer = said(&mut stream, Message::text(document)).await;
        assert_eq!(
            (&answer["ok"], &answer["code"]),
            (&false.into(), &"invalid".into()),
            "{answer}"
        );
        assert!(answer["message"].as_str().unwrap().starts_with(word), "{answer}");
    }
    let count = "select count() from daemon_metrics where daemon = 'collector' and reachable";
    periscope.until_count(count, |count| count == 20).await;

    // A name that is taken, and a document that is too large: the one is answered, the other ends it.
    let mut other = open(url("polled"), &[]).await.unwrap();
    let answer = said(&mut other, Message::text("{\"running\": true}")).await;
    assert!(answer["message"].as_str().unwrap().contains("\"file\""), "{answer}");
    other.send(Message::text("x".repeat(65 << 10))).await.unwrap();
    let last = loop {
        match other.next().await {
            Some(Ok(Message::Ping(_))) => {}
            last => break last,
        }
    };
    match last {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1009, "{frame}"),
        // The close frame may be lost when the rest of the message is still on its way.
        Some(Err(_)) | None => {}
        last => panic!("{last:?}"),
    }

    // A stop says so.
    let (_, ended) =
        tokio::join!(async { periscope.signal(rustix::process::Signal::TERM) }, async {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Close(frame) = message {
                    return frame;
                }
            }
            None
        });
    assert_eq!(u16::from(ended.unwrap().code), 1001);
    assert_eq!(periscope.ended(Duration::from_secs(60)).await.code(), Some(0));
}

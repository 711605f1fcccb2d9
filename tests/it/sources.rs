//! Daemons of every source that is configured, seen by a real periscope, stored in a real server.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use periscope::base::tasks::spawn_detached;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio_tungstenite::tungstenite::Message;

use crate::push::request;
use crate::support::periscope::{Periscope, VERSIONS};
use crate::support::questdb::QuestDb;
use crate::support::wait::until;

/// Serves a status on a unix socket, with its own count.
fn serve_socket(listener: UnixListener) {
    spawn_detached(async move {
        let mut count = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            assert!(request[..read].starts_with(b"GET /api/status HTTP/1.1\r\n"));
            count += 1;
            let body = format!("{{\"running\": true, \"fetch_count\": {count}}}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _sent = stream.write_all(answer.as_bytes()).await;
        }
    });
}

/// Sends a status every 50 ms to whoever connects; of the first connection only three.
fn serve_websocket(listener: TcpListener) {
    spawn_detached(async move {
        let mut connections = 0;
        while let Ok((stream, _)) = listener.accept().await {
            connections += 1;
            let messages = if connections == 1 { 3 } else { 10_000 };
            spawn_detached(async move {
                let mut stream = tokio_tungstenite::accept_async(stream).await.unwrap();
                let hello = stream.next().await.unwrap().unwrap();
                assert_eq!(hello.to_text().unwrap(), "status please");
                for count in 1..=messages {
                    let text = format!("{{\"running\": true, \"fetch_count\": {count}}}");
                    if stream.send(Message::text(text)).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_source_becomes_rows() {
    let folder = tempfile::Builder::new().prefix("periscope-sources-").tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    serve_socket(UnixListener::bind(at("bot.sock")).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serve_websocket(listener);
    let program = at("bot-status");
    fs::write(&program, "#!/bin/sh\necho \"{\\\"running\\\": true, \\\"fetch_count\\\": $1}\"\n")
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let lines = at("status.jsonl");
    fs::write(&lines, "{\"running\": true, \"fetch_count\": 1}\n").unwrap();

    let questdb = QuestDb::start(VERSIONS[0]).await;
    let config = format!(
        "{}[collect]\ninterval = \"200ms\"\n\
         [[daemon]]\nname = \"socket\"\nsource = \"socket\"\npath = \"{}\"\n\
         request = \"/api/status\"\n\
         [[daemon]]\nname = \"websocket\"\nsource = \"websocket\"\nurl = \"ws://127.0.0.1:{port}/\"\n\
         subscribe = \"status please\"\n\
         [[daemon]]\nname = \"exec\"\nsource = \"exec\"\ncommand = [\"{}\", \"41\"]\n\
         [[daemon]]\nname = \"file\"\nsource = \"file\"\npath = \"{}\"\nstale_after = \"2s\"\n",
        questdb.remote_config(),
        at("bot.sock").display(),
        program.display(),
        lines.display(),
    );
    let periscope = Periscope::up_remote(&config);
    periscope.ready().await;
    // A line that is being written does not count.
    let text =
        "{\"running\": true, \"fetch_count\": 1}\n{\"running\": true, \"fetch_count\": 2}\n{\"ru";
    let replaced = at("status.new");
    fs::write(&replaced, text).unwrap();
    fs::rename(&replaced, &lines).unwrap();
    let newest =
        "select daemon, max(fetch_count) from daemon_metrics where reachable group by daemon";
    let expected = |found: &BTreeMap<String, i64>| {
        let of = |name: &str| found.get(name).copied().unwrap_or(0);
        // The websocket's second connection counts further than the first.
        of("socket") >= 5 && of("websocket") > 3 && of("exec") == 41 && of("file") == 2
    };
    until("rows of every source", Duration::from_secs(60), || async {
        let rows = questdb.sql(newest).await?;
        let pair =
            |row: &Vec<serde_json::Value>| Some((row[0].as_str()?.to_owned(), row[1].as_i64()?));
        let found: BTreeMap<String, i64> = rows.iter().filter_map(pair).collect();
        if expected(&found) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    // Nobody writes the file any more, and the program is taken away.
    fs::remove_file(&program).unwrap();
    for (name, reason) in [("file", "silent"), ("exec", "missing")] {
        let sql = format!(
            "select count() from daemon_metrics where daemon = '{name}' and \
             poll_error = '{reason}' and fetch_count is null and not reachable"
        );
        until(reason, Duration::from_secs(60), || async {
            let rows = questdb.number(&sql).await;
            if rows > 1 { Ok(()) } else { Err(rows) }
        })
        .await;
    }
    let status = periscope.status().await.unwrap();
    let error = status["daemons"].as_array().unwrap().iter().find(|d| d["name"] == "exec").unwrap();
    assert!(error["poll_error"].as_str().unwrap().starts_with("missing: "), "{error}");
}

/// Answers as freqtrade's API did when it was recorded; only with its login. `balance` is not there.
fn serve_freqtrade(listener: TcpListener) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/freqtrade");
    spawn_detached(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 8192];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let part = path.strip_prefix("/bot/api/v1/").unwrap_or_default();
            let file = if part == "show_config" { "config" } else { part };
            let body = fs::read_to_string(format!("{folder}/{file}.json")).unwrap_or_default();
            // "freqtrader:canary" in base64.
            let status = if !request.contains("basic znjlcxryywrlcjpjyw5hcnk=") {
                "401 Unauthorized"
            } else if body.is_empty() || part == "balance" {
                "404 Not Found"
            } else {
                "200 OK"
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _sent = stream.write_all(answer.as_bytes()).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_lines_make_rows_of_a_freqtrade() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serve_freqtrade(listener);
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let bot = |name: &str, password: &str| {
        format!(
            "[[daemon]]\nname = \"{name}\"\npreset = \"freqtrade\"\n\
             url = \"http://127.0.0.1:{port}/bot\"\nuser = \"freqtrader\"\n\
             password = \"{password}\"\n"
        )
    };
    let config = format!(
        "{}[collect]\ninterval = \"500ms\"\n{}{}\
         [[daemon]]\nname = \"slip\"\nsource = \"push\"\n\
         [daemon.map]\nrunning = \"/ok\"\nfetch_count = \"/fetched\"\n",
        questdb.remote_config(),
        bot("bot", "canary"),
        bot("locked", "wrong"),
    );
    let periscope = Periscope::up_remote(&config);
    periscope.ready().await;
    let recorded = |part: &str| -> serde_json::Value {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/freqtrade");
        let text = fs::read_to_string(format!("{folder}/{part}.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (profit, count) = (recorded("profit"), recorded("count"));
    let sql = "select strategy, venue, currency, daemon, pnl, unrealized_pnl, exposure, drawdown, \
               equity from trading_metrics limit -1";
    until("a row of the strategy", Duration::from_secs(60), || async {
        let rows = questdb.sql(sql).await?;
        let Some(row) = rows.first() else { return Err("no row".to_owned()) };
        let names: Vec<&str> = row[..4].iter().filter_map(serde_json::Value::as_str).collect();
        assert_eq!(names, ["Walker", "binance", "USDT", "bot"]);
        let number = |key: &str| profit[key].as_f64().unwrap();
        let closed = number("profit_closed_coin");
        let expected = [
            closed,
            number("profit_all_coin") - closed,
            count["total_stake"].as_f64().unwrap(),
            number("current_drawdown"),
        ];
        for (value, expected) in row[4..8].iter().zip(expected) {
            assert!((value.as_f64().unwrap() - expected).abs() < 1e-9, "{row:?}");
        }
        assert!(row[8].is_null(), "what is optional and not there is null: {row:?}");
        Ok(())
    })
    .await;
    until("the reason of the other", Duration::from_secs(60), || async {
        let status = periscope.status().await.map_err(|error| format!("{error:?}"))?;
        let daemons = status["daemons"].as_array().unwrap();
        let locked = daemons.iter().find(|daemon| daemon["name"] == "locked").unwrap();
        let error = locked["poll_error"].as_str().unwrap_or_default();
        let told = error.contains("part config (/api/v1/show_config)") && error.contains("401");
        if told && !error.contains("canary") { Ok(()) } else { Err(error.to_owned()) }
    })
    .await;
    assert_drift_is_named(&periscope).await;
}

/// A field that gets another name is counted and named.
async fn assert_drift_is_named(periscope: &Periscope) {
    for document in ["{\"ok\": true, \"fetched\": 5}", "{\"ok\": true, \"fetches\": 6}"] {
        let body = document.to_owned().into_bytes();
        let answer = request(periscope, "POST", "/api/v1/push/slip", body, &[]).await;
        assert_eq!(answer.status, 204, "{document}");
    }
    until("the drift", Duration::from_secs(20), || async {
        let counter = "periscope_schema_drift_total{target=\"slip\"}";
        let counted = periscope.metric(counter).await? >= 1.0;
        let named = periscope.log().contains("nothing is at /fetched (fetch_count)");
        if counted && named { Ok(()) } else { Err(periscope.log()) }
    })
    .await;
}

//! Dashboards as browsers ask for them, while there is no database.

use serde_json::{Value, json};

use super::*;

async fn ask(running: &Running, uid: &str, question: &Value) -> String {
    let text = question.to_string();
    let headers = format!("Host: localhost\r\nContent-Length: {}\r\n", text.len());
    let line = format!("POST /api/v1/query/{uid} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    running.raw(format!("{line}{text}").as_bytes()).await
}

fn question() -> Value {
    json!({
        "from": 1_764_108_000_000_i64,
        "to": 1_764_111_600_000_i64,
        "values": {"env": ["x"], "host": ["x"], "daemon": ["x"]},
        "queries": [{"panel": 1, "refId": "A"}, {"panel": 999, "refId": "A"}, {"variable": "env"}],
    })
}

#[tokio::test]
async fn a_dashboard_has_a_page_and_a_model_and_unknown_ones_name_those_that_are_there() {
    let running = start(None);
    let page = running.get("/d/periscope-health").await;
    assert_status(&page, 200);
    assert!(page.contains("content-type: text/html") && page.contains("<h1>Health</h1>"), "{page}");
    assert!(!page.contains("style=") && page.matches("<script ").count() == 2, "{page}");
    let model: Value =
        serde_json::from_str(body(&running.get("/api/v1/dashboards/periscope-health").await))
            .unwrap();
    assert_eq!(model["uid"], "periscope-health");
    let list: Value = serde_json::from_str(body(&running.get("/api/v1/dashboards").await)).unwrap();
    assert_eq!(list["dashboards"].as_array().unwrap().len(), 6);
    for path in ["/d/nothing", "/d/%2e%2e", "/d/%3Cscript%3E", "/api/v1/dashboards/nothing"] {
        let answer = running.get(path).await;
        assert_status(&answer, 404);
        assert!(answer.contains("periscope-health"), "{answer}");
        let kind = if path.starts_with("/d/") { "text/plain" } else { "application/json" };
        assert!(answer.contains(&format!("content-type: {kind}")), "{answer}");
    }
    let status = running.get("/").await;
    assert!(status.contains("<a href=\"/d/periscope-health\">Health</a>"), "{status}");
}

#[tokio::test]
async fn every_script_is_served_and_nothing_else() {
    let running = start(None);
    let scripts = crate::base::embed::Assets::iter().filter(|path| path.starts_with("web/viewer/"));
    let scripts: Vec<_> = scripts.collect();
    assert!(scripts.len() > 10, "{scripts:?}");
    for path in scripts {
        let answer = running.get(&format!("/{path}")).await;
        assert_status(&answer, 200);
        assert!(answer.contains("content-type: text/javascript"), "{answer}");
    }
    for path in
        ["..", "%2e%2e", "../status.js", "nothing.js", ".js", "main.js%00", "main", "MAIN.js"]
    {
        assert_status(&running.get(&format!("/web/viewer/{path}")).await, 404);
    }
}

#[tokio::test]
async fn without_a_database_every_panel_says_so_and_the_page_still_loads() {
    let running = start(None);
    let answer = ask(&running, "periscope-health", &question()).await;
    assert_status(&answer, 200);
    let results: Value = serde_json::from_str(body(&answer)).unwrap();
    let kind = |index: usize| results["results"][index]["error"]["kind"].clone();
    assert_eq!((kind(0), kind(1), kind(2)), (json!("away"), json!("request"), json!("away")));
    let hint = results["results"][0]["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("QuestDB is absent"), "{hint}");
    assert_status(&running.get("/d/periscope-health").await, 200);
}

#[tokio::test]
async fn bad_questions_are_refused_before_anything_is_asked() {
    let running = start(None);
    let mut sql = question();
    sql["queries"][0]["sql"] = json!("select 1");
    let mut hostile = question();
    hostile["values"]["daemon"] = json!(["a\u{0}b"]);
    for bad in [sql, hostile, json!([]), json!({"from": 1})] {
        let answer = ask(&running, "periscope-health", &bad).await;
        assert_status(&answer, 400);
        let error: Value = serde_json::from_str(body(&answer)).unwrap();
        assert_eq!(error["error"]["kind"], "request", "{error}");
    }
    assert_status(&ask(&running, "nothing", &question()).await, 404);
    let mut large = question();
    large["values"]["env"] = json!(["x".repeat(300_000)]);
    assert_status(&ask(&running, "periscope-health", &large).await, 413);
}

#[tokio::test]
async fn the_viewer_stands_behind_the_same_door_as_everything() {
    let running = start(Some("s3cret"));
    for path in ["/d/periscope-health", "/api/v1/dashboards", "/web/viewer/main.js"] {
        assert_status(&running.get(path).await, 401);
    }
    assert_status(&ask(&running, "periscope-health", &question()).await, 401);
    let open = start(None);
    let elsewhere = "Origin: https://evil.example\r\nContent-Length: 0\r\n";
    assert_status(&open.ask("POST /api/v1/query/periscope-health", elsewhere).await, 403);
}

/// Ten panels ask at once; the database never sees more than four connections. Nobody answers them
/// here: they are held until no further one comes, then cut.
#[tokio::test]
async fn the_database_is_asked_four_things_at_a_time() {
    let database = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pg = database.local_addr().unwrap().to_string();
    let held = tasks::spawn_detached(async move {
        let (mut most, mut seen) = (0, 0);
        while seen < 10 {
            let mut open = vec![database.accept().await.unwrap().0];
            let more = Duration::from_millis(300);
            while let Ok(accepted) = tokio::time::timeout(more, database.accept()).await {
                open.push(accepted.unwrap().0);
            }
            seen += open.len();
            most = most.max(open.len());
        }
        (seen, most)
    });
    let running = start_over(None, Some(pg));
    let mut question = question();
    question["queries"] = json!([{"variable": "env"}]);
    let ask = || ask(&running, "periscope-health", &question);
    let ask5 = || async { tokio::join!(ask(), ask(), ask(), ask(), ask()) };
    let (first, second) = tokio::join!(ask5(), ask5());
    for answer in [first.0, first.4, second.0, second.4] {
        assert!(answer.contains(r#""kind":"away""#), "{answer}");
    }
    assert_eq!(held.await.unwrap(), (10, 4));
}

/// Texts of daemons reach the page through the scripts, so none may read text as HTML, and nothing
/// may be asked of another host.
#[test]
fn no_script_of_the_viewer_reads_text_as_html_or_leaves_the_host() {
    let mut count = 0;
    for path in crate::base::embed::Assets::iter().filter(|path| path.starts_with("web/viewer")) {
        let text = crate::base::embed::asset_text(&path).unwrap();
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "style=",
            "\"style\"",
            "http:",
            "https:",
            "@import",
        ] {
            assert!(!text.contains(forbidden), "{path}: {forbidden}");
        }
        count += 1;
    }
    assert!(count > 10, "only {count} files");
}

#[test]
fn the_vendored_charts_are_those_that_their_readme_names() {
    use sha2::Digest as _;
    let readme = crate::base::embed::asset_text("web/vendor/uplot/README.md").unwrap();
    let sums: Vec<(&str, &str)> = readme
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .filter(|(sum, _)| sum.len() == 64)
        .collect();
    assert_eq!(sums.len(), 3, "{readme}");
    for (sum, file) in sums {
        let path = format!("web/vendor/uplot/{file}");
        let bytes = crate::base::embed::Assets::get(&path).unwrap().data;
        let found: String =
            sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, sum, "{file}");
    }
}

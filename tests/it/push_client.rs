//! The official Python client of `QuestDB`, pointed at periscope.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::support::periscope::Periscope;
use super::support::questdb::free_port;
use super::support::venv;

const ROWS: u64 = 100_000;

/// Returns a Python with the client.
fn python() -> PathBuf {
    let requirements = "tests/python_client/requirements.txt";
    let wanted = std::fs::read_to_string(requirements).unwrap();
    let version = wanted.trim().strip_prefix("questdb==").unwrap();
    let check = format!("import questdb; assert questdb.__version__ == '{version}'");
    venv::python("venv", requirements, &check)
}

/// 100,000 rows in auto-flush, periscope killed in the middle: the table is exact.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_pushes_through_a_kill_of_periscope() {
    let python = python();
    // The client keeps its address through the restart.
    let address = format!("127.0.0.1:{}", free_port());
    let mut periscope =
        Periscope::up_set("[node]\nhost = \"it\"\n", &[&format!("listen.address=\"{address}\"")]);
    periscope.ready().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_client/push_rows.py");
    let mut client = Command::new(python)
        .arg(script)
        .args([&address, &ROWS.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut resent = None;
    while let Some(line) = lines.next().transpose().unwrap() {
        if line == "chunk 3" {
            // Some rows into the next chunk, between two answers.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            periscope.kill();
            periscope.start();
        }
        resent = line.strip_prefix("done ").map(str::to_owned).or(resent);
    }
    assert!(client.wait().unwrap().success(), "the client gave up");
    println!("{ROWS} rows, {} chunks sent again by the loop around the client", resent.unwrap());
    periscope.ready().await;
    let rows = i64::try_from(ROWS).unwrap();
    periscope.until_count("select count() from pipeline_metrics", |count| count >= rows).await;
    let sql = "select count(), count_distinct(records_count), min(records_count), \
               max(records_count), sum(latency_ms), count_distinct(symbol), count_distinct(host) \
               from pipeline_metrics where daemon = 'py'";
    let stored = periscope.sql(sql).await.unwrap();
    let sum = (rows - 1) as f64 * rows as f64 / 4.0;
    let expected = serde_json::json!([rows, rows, 0, rows - 1, sum, 1, 1]);
    assert_eq!(serde_json::Value::from(stored[0].clone()), expected);
}

//! The viewer in headless Chromium, on the rows of `dev`; what is done there is in
//! `tests/browser/viewer.py`.

use std::process::Command;
use std::time::Duration;

use super::support::periscope::Periscope;
use super::support::wait::until;

#[tokio::test]
async fn the_viewer_works_in_a_real_browser() {
    let periscope = Periscope::dev();
    periscope.ready().await;
    periscope.well("schema").await;
    for table in ["daemon_metrics", "trading_metrics", "system_health"] {
        periscope.until_count(&format!("select count() from {table}"), |count| count > 0).await;
    }
    let daemons = "select count_distinct(daemon) from daemon_metrics";
    periscope.until_count(daemons, |count| count >= 4).await;
    ruin_a_table(&periscope).await;
    let questdb = periscope.questdb_pids().first().copied().unwrap().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/viewer.py");
    let listener = periscope.listener().unwrap();
    let run = move || Command::new("python3").args([script, &listener, &questdb]).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

/// Puts a table of another form in the place of one, so that the query of one panel fails.
async fn ruin_a_table(periscope: &Periscope) {
    until("a table of another form", Duration::from_secs(60), || async {
        ddl(periscope, "drop table if exists sample_gaps").await?;
        let other = "create table sample_gaps (timestamp timestamp, host double) \
                     timestamp(timestamp) partition by day wal";
        // periscope may have been quicker and made the right one.
        ddl(periscope, other).await
    })
    .await;
    periscope.told("schema", "sample_gaps").await;
}

async fn ddl(periscope: &Periscope, statement: &str) -> Result<(), String> {
    match periscope.sql(statement).await {
        // The answer to DDL has no rows.
        Err(said) if !said.contains(r#""ddl":"OK""#) => Err(said),
        Ok(_) | Err(_) => Ok(()),
    }
}

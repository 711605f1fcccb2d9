//! `periscope export` from real servers: equal to the server's own answer, small in memory.

use std::fs;
use std::process::Command;
use std::time::Duration;

use super::support::periscope::VERSIONS;
use super::support::questdb::QuestDb;
use super::support::scale::scaled;
use periscope::model::table::DAEMON_METRICS;

/// Most memory that an export may take, bytes.
const RESIDENT: u64 = 64 << 20;

/// Fills `daemon_metrics` with rows of the last day, some values null and some text awkward.
async fn fill(questdb: &QuestDb, rows: u64) {
    questdb.sql(&DAEMON_METRICS.ddl(90)).await.unwrap();
    let step = 86_400_000_000_000 / rows;
    let sql = format!(
        "insert into daemon_metrics (timestamp, daemon, host, env, reachable, fetch_count, poll_ms, \
         last_error) select cast(cast(cast(dateadd('m', -1, now()) as timestamp_ns) as long) - {step} \
         * ({rows} - x) as timestamp_ns), 'd' || (x % 7), 'it', 'dev', x % 3 = 0, \
         case when x % 5 = 0 then null else x end, x * 0.125, \
         case when x % 11 = 0 then 'said \"no\", then\nended' else null end from long_sequence({rows})"
    );
    questdb.sql(&sql).await.unwrap();
    super::support::wait::until("the rows", Duration::from_secs(120), || async {
        let count = questdb.number("select count() from daemon_metrics").await;
        if count == i64::try_from(rows).unwrap() { Ok(()) } else { Err(count) }
    })
    .await;
}

/// Runs the command and returns its most memory, bytes.
async fn export(questdb: &QuestDb, arguments: &[&str]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("periscope.toml");
    fs::write(&config, questdb.remote_config()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_periscope"));
    command.arg("export").args(arguments).arg("--config").arg(&config);
    command.arg("--data-dir").arg(folder.path().join("data")).env_remove("PERISCOPE_CONFIG");
    let mut child = command.spawn().unwrap();
    let mut most = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return most;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_becomes_the_csv_that_the_server_itself_gives() {
    let rows = scaled("rows to export", 200_000, 10_000_000);
    for version in VERSIONS {
        let questdb = QuestDb::start(version).await;
        fill(&questdb, rows).await;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (csv, part) = (file("rows.csv"), file("part.csv"));
        let resident = export(&questdb, &["daemon_metrics", "--output", &csv]).await;
        assert!(resident <= RESIDENT, "{version}: {resident} bytes");
        let sql = "SELECT * FROM daemon_metrics";
        let path = format!("/exp?query={}", sql.replace(' ', "%20").replace('*', "%2A"));
        let own = questdb.request(&path, None).await.unwrap();
        assert!(own.body == fs::read(&csv).unwrap(), "{version}: not the server's own answer");
        export(&questdb, &["daemon_metrics", "--from", "1h", "--output", &part]).await;
        let size = |path: &str| fs::metadata(path).unwrap().len();
        assert!(size(&part) > 1_000 && size(&part) < size(&csv) / 10, "{version}");
        assert!(!fs::exists(folder.path().join("rows.csv.partial")).unwrap());
    }
}

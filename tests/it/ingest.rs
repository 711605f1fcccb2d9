//! The main job: from a daemon's status to rows in `QuestDB`, whatever ends in between.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use periscope::model::table::Kind;
use rustix::process::Signal;
use serde_json::Value;

use super::support::daemon::{Daemon, counting_status, ok_json};
use super::support::periscope::{Periscope, VERSIONS, processes_naming, send_signal};
use super::support::scale::{scaled, seed};
use super::support::wait::until;

/// Configuration with one http daemon that is polled every 200 ms.
fn polled(daemon: &Daemon) -> String {
    format!(
        "[node]\nhost = \"it\"\n[writer]\nflush_interval = \"200ms\"\n\
         [[daemon]]\nname = \"counter\"\nsource = \"http\"\nurl = \"{}\"\ninterval = \"200ms\"\n",
        daemon.url
    )
}

/// Asserts that the rows of daemon `counter` hold every answered poll up to the newest durable one
/// exactly once, and returns how many rows there are.
async fn assert_exactly_once(periscope: &Periscope, durable_at: &str) -> usize {
    let rows = until("all durable rows to be visible", Duration::from_secs(60), || async {
        let sql = "select fetch_count, timestamp from daemon_metrics where daemon = 'counter' and \
                   reachable = true order by timestamp";
        let rows = periscope.sql(sql).await?;
        let last = rows.last().and_then(|row| row[1].as_str()).unwrap_or_default();
        // Both are RFC 3339 in UTC; the digits behind the second differ in number.
        if comparable(last) >= comparable(durable_at) { Ok(rows) } else { Err(last.to_owned()) }
    })
    .await;
    let counts: Vec<i64> = rows.iter().map(|row| row[0].as_i64().unwrap()).collect();
    let mut seen = BTreeMap::new();
    for count in &counts {
        *seen.entry(*count).or_insert(0) += 1;
    }
    let doubled: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "doubled: {doubled:?}");
    counts.len()
}

/// Rows of polls that failed: on a busy machine an answer can come too late.
async fn failed_polls(periscope: &Periscope) -> i64 {
    let sql = "select count() from daemon_metrics where not reachable";
    periscope.sql(sql).await.unwrap()[0][0].as_i64().unwrap()
}

fn comparable(time: &str) -> String {
    let digits: String = time.chars().filter(char::is_ascii_digit).collect();
    format!("{digits:0<23}")
}

fn counter(status: &Value) -> &Value {
    let daemons = status["daemons"].as_array().unwrap();
    daemons.iter().find(|daemon| daemon["name"] == "counter").unwrap_or(&Value::Null)
}

/// Columns that only something unusual fills.
const UNUSUAL: [(&str, &[&str]); 5] = [
    (
        "daemon_metrics",
        &[
            "last_error",
            "poll_error",
            // Of daemons with the shim; those of `dev` are asked over HTTP.
            "instance",
            "memory_bytes",
            "cpu_percent",
            "event_loop_lag_ms",
        ],
    ),
    ("exchange_status", &["disconnected_at"]),
    ("pipeline_metrics", &[]),
    ("trading_metrics", &[]),
    ("system_health", &["detail"]),
];

/// No column is declared, shown and yet always empty, as `wal_lag` and two kinds of `latency_ms`
/// once were.
async fn every_figure_is_written(periscope: &Periscope) {
    for (name, unusual) in UNUSUAL {
        let table = periscope::model::table::find(name).unwrap();
        // A boolean of the database is never null.
        let columns = table.columns.iter().filter(|column| column.kind != Kind::Boolean);
        let columns: Vec<&str> = columns.map(|column| column.name).collect();
        let counts: Vec<String> = columns.iter().map(|name| format!("count({name})")).collect();
        let sql = format!("select {} from {name}", counts.join(", "));
        until(&format!("a value in every column of {name}"), Duration::from_secs(60), || async {
            let counts = periscope.sql(&sql).await?.remove(0);
            let is_empty =
                |(column, count): &(&&str, Value)| *count == 0 && !unusual.contains(*column);
            let empty: Vec<_> = columns.iter().zip(counts).filter(is_empty).collect();
            if empty.is_empty() { Ok(()) } else { Err(format!("{empty:?}")) }
        })
        .await;
    }
    for (component, figure) in
        [("writer", "latency_ms"), ("questdb", "latency_ms"), ("questdb", "wal_lag")]
    {
        let sql =
            format!("select count({figure}) from system_health where component = '{component}'");
        periscope.until_count(&sql, |count| count > 0).await;
    }
}

/// The first command of the README: rows of every simulated daemon, then an orderly end.
#[tokio::test]
async fn dev_shows_growing_rows_of_every_simulated_daemon_and_leaves_no_process() {
    let mut periscope = Periscope::dev();
    let status = periscope.ready().await;
    let started = Instant::now();
    let names: Vec<String> = status["daemons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|daemon| daemon["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.len() >= 3, "{names:?}");
    let query = "select daemon, count() from daemon_metrics order by daemon";
    let mut first = BTreeMap::new();
    until("rows of every simulated daemon, growing", Duration::from_secs(60), || {
        let (code, out, err) = periscope.run(&["query", query, "--format", "csv"]);
        let now: BTreeMap<String, u64> = out
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(','))
            .map(|(name, count)| (name.to_owned(), count.parse().unwrap()))
            .collect();
        if first.is_empty() && names.iter().all(|name| now.contains_key(name)) {
            first.clone_from(&now);
        }
        let grown = !first.is_empty() && names.iter().all(|name| now[name] > first[name]);
        std::future::ready(if grown { Ok(()) } else { Err(format!("{code} {out} {err}")) })
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(60));
    let tagged = periscope.sql("select distinct env from daemon_metrics").await.unwrap();
    assert_eq!(tagged, [[Value::from("dev")]], "simulated rows are marked as such");
    for table in ["exchange_status", "pipeline_metrics", "trading_metrics", "system_health"] {
        periscope.until_count(&format!("select count() from {table}"), |count| count > 0).await;
    }
    every_figure_is_written(&periscope).await;
    assert!(periscope.log().contains("status page   http://127.0.0.1:"), "{}", periscope.log());
    periscope.signal(Signal::INT);
    assert_eq!(periscope.ended(Duration::from_secs(60)).await.code(), Some(0));
    assert_eq!(processes_naming(&periscope.data()), []);
}

/// `up` never invents daemons.
#[tokio::test]
async fn up_without_daemons_writes_no_daemon_rows() {
    let periscope = Periscope::up("");
    let status = periscope.ready().await;
    assert_eq!(status["daemons"], Value::Array(Vec::new()));
    periscope.until_count("select count() from system_health", |count| count > 0).await;
    let rows = periscope.sql("select count() from daemon_metrics").await.unwrap();
    assert_eq!(rows[0][0], 0);
}

async fn values_of_a_shim_daemon(version: &str, in_module: bool) {
    const CLASS: &str = "\
import sys, time
class Bot:
    def __init__(self):
        self.n = 41
    def get_status(self):
        self.n += 1
        return {'running': True, 'shutdown_requested': False, 'fetch_count': self.n, 'error_count': 3,
                'liquidation_count': 7, 'uptime_seconds': 12.5, 'last_fetch_time': '2026-11-24T03:55:27.827025+00:00',
                'last_error': 'said \"no\", then =', 'symbols': ['BTCUSDT-PERP', 'ETHUSDT-PERP'], 'exchanges': ['binance']}
";
    const MAIN: &str = "
bot = Bot()
print('ready', flush=True)
line = sys.stdin.readline()
print('goodbye ' + line.strip(), flush=True)
sys.exit(7)
";
    let periscope = Periscope::up_with("[collect]\ninterval = \"500ms\"\n", version);
    periscope.ready().await;
    let code = periscope.data().with_file_name("code");
    fs::create_dir_all(&code).unwrap();
    let (target, script) = if in_module {
        fs::write(code.join("bot.py"), CLASS).unwrap();
        ("bot:Bot", format!("import sys\nfrom bot import Bot\n{MAIN}"))
    } else {
        ("__main__:Bot", format!("{CLASS}{MAIN}"))
    };
    fs::write(code.join("main.py"), script).unwrap();
    let main = code.join("main.py");
    let mut child = Command::new(env!("CARGO_BIN_EXE_periscope"))
        .arg("--data-dir")
        .arg(periscope.data())
        .args(["run", "--name", "bot", "--target", target, "--", "python3"])
        .arg(&main)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let daemon = until("the daemon to be in status", Duration::from_secs(10), || async {
        let status = periscope.status().await?;
        let found =
            status["daemons"].as_array().unwrap().iter().find(|d| d["name"] == "bot").cloned();
        found.filter(|daemon| daemon["state"] == "up").ok_or_else(|| status["daemons"].to_string())
    })
    .await;
    assert_eq!(daemon["pid"], pid, "exec keeps the pid");
    periscope
        .until_count("select count() from daemon_metrics where daemon = 'bot' and reachable", |n| {
            n >= 3
        })
        .await;
    let rows = periscope
        .sql(
            "select running, shutdown_requested, error_count, liquidation_count, uptime_seconds, \
             last_fetch_time, last_error, exchanges, symbols, memory_bytes > 1000000, instance, \
             fetch_count from daemon_metrics where daemon = 'bot' order by timestamp",
        )
        .await
        .unwrap();
    let row = Value::from(rows[0][..10].to_vec());
    assert_eq!(
        row,
        serde_json::json!([
            true,
            false,
            3,
            7,
            12.5,
            "2026-11-24T03:55:27.827025Z",
            "said \"no\", then =",
            "binance",
            "BTCUSDT-PERP,ETHUSDT-PERP",
            true
        ])
    );
    assert!(rows[0][10].as_str().unwrap().starts_with(&pid.to_string()), "{rows:?}");
    let counts: Vec<i64> = rows.iter().map(|row| row[11].as_i64().unwrap()).collect();
    assert!(counts[0] >= 42 && counts.windows(2).all(|pair| pair[0] < pair[1]), "{counts:?}");

    // Its own stdin, stdout and exit code are untouched.
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"world\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\ngoodbye world\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[tokio::test]
async fn a_class_in_main_is_read_with_equal_values_and_its_process_is_untouched() {
    values_of_a_shim_daemon(VERSIONS[0], false).await;
}

#[tokio::test]
async fn a_class_in_a_module_is_read_with_equal_values_on_the_oldest_server() {
    values_of_a_shim_daemon(VERSIONS[1], true).await;
}

#[tokio::test]
async fn a_killed_shim_daemon_is_unreachable_and_its_socket_is_removed() {
    let periscope = Periscope::up("[collect]\ninterval = \"200ms\"\n");
    periscope.ready().await;
    let script = periscope.data().with_file_name("bot.py");
    fs::write(
        &script,
        "import time\nclass Bot:\n    def get_status(self):\n        return {'running': True, 'fetch_count': 1}\n\
         bot = Bot()\nwhile True:\n    time.sleep(1)\n",
    )
    .unwrap();
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_periscope"))
            .arg("--data-dir")
            .arg(periscope.data())
            .args(["run", "--name", "bot", "--target", "__main__:Bot", "--", "python3"])
            .arg(&script)
            .spawn()
            .unwrap()
    };
    let state = |wanted: &'static str| {
        let periscope = &periscope;
        async move {
            until(wanted, Duration::from_secs(20), || async {
                let status = periscope.status().await?;
                let daemon = status["daemons"][0].clone();
                if daemon["state"] == wanted { Ok(daemon) } else { Err(daemon.to_string()) }
            })
            .await
        }
    };
    let mut child = start();
    state("up").await;
    let sockets = || {
        let entries = fs::read_dir(periscope.data().join("run")).unwrap().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".sock")).count()
    };
    assert_eq!(sockets(), 1);
    send_signal(child.id(), Signal::KILL);
    child.wait().unwrap();
    state("unreachable").await;
    until("the stale socket to be removed", Duration::from_secs(10), || {
        let left = sockets();
        std::future::ready(if left == 0 { Ok(()) } else { Err(left) })
    })
    .await;
    let unreachable = "select count() from daemon_metrics where daemon = 'bot' and not reachable and \
                       fetch_count is null and poll_error is not null";
    periscope.until_count(unreachable, |count| count > 0).await;

    // Started again, it is the same daemon with one restart.
    let mut child = start();
    let daemon = state("up").await;
    assert_eq!(daemon["restarts"], 1, "{daemon}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Documents that are none: a reason in the row, nulls instead of values, and no zero.
#[tokio::test]
async fn a_bad_document_is_a_row_with_a_reason_and_without_values() {
    let bodies: Vec<Vec<u8>> = vec![
        ok_json("<html>sorry</html>"),
        ok_json(""),
        ok_json("{\"running\":tru"),
        ok_json(&"[".repeat(100_000)),
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
            .to_vec(),
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{{", 1_u64 << 30).into_bytes(),
    ];
    let count = u64::try_from(bodies.len()).unwrap();
    let daemon =
        Daemon::serving(move |n| bodies[usize::try_from((n - 1) % count).unwrap()].clone()).await;
    let periscope = Periscope::up(&polled(&daemon));
    periscope.ready().await;
    periscope
        .until_count(
            "select count_distinct(poll_error) from daemon_metrics where not reachable",
            |n| n >= 6,
        )
        .await;
    let zeros = "select count() from daemon_metrics where reachable or running or fetch_count is not null \
                 or error_count is not null or uptime_seconds is not null";
    assert_eq!(periscope.sql(zeros).await.unwrap()[0][0], 0);
    let status = periscope.status().await.unwrap();
    assert_eq!(counter(&status)["state"], "unreachable");
}

/// A `QuestDB` outage costs delay, never rows.
#[tokio::test]
async fn every_durable_sample_survives_three_kills_of_questdb_exactly_once() {
    let seconds = scaled("seconds of polls at 200 ms", 24, 300);
    let daemon = Daemon::counting().await;
    let periscope = Periscope::up(&polled(&daemon));
    let mut random = fastrand::Rng::with_seed(seed());
    periscope.ready().await;
    let slice = seconds * 1000 / 4;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(random.u64(slice / 2..slice))).await;
        let status = periscope.ready().await;
        let pid = u32::try_from(status["questdb"]["pid"].as_u64().unwrap()).unwrap();
        send_signal(pid, Signal::KILL);
        until("the loss to be noticed", Duration::from_secs(20), || async {
            let status = periscope.status().await?;
            let same = status["questdb"]["pid"] == pid && status["questdb"]["state"] == "ready";
            if same { Err(status["questdb"].to_string()) } else { Ok(()) }
        })
        .await;
    }
    periscope.ready().await;
    tokio::time::sleep(Duration::from_millis(slice / 2)).await;
    let status = periscope.status().await.unwrap();
    let durable_at = counter(&status)["last_durable_at"].as_str().unwrap().to_owned();
    let answered = daemon.answered();
    let rows = assert_exactly_once(&periscope, &durable_at).await;
    println!("{answered} polls answered, {rows} rows");
    let counts = periscope
        .sql("select min(fetch_count), max(fetch_count), count() from daemon_metrics where reachable")
        .await
        .unwrap();
    let number = |index: usize| counts[0][index].as_i64().unwrap();
    // A poll that was answered too late is a row without values: its number is missing.
    let missing = number(1) - number(0) + 1 - number(2);
    let late = failed_polls(&periscope).await;
    assert!((0..=late).contains(&missing), "{missing} missing, {late} late: {counts:?}");
    assert!(i64::try_from(answered).unwrap() - number(1) <= 10 + late, "{answered}, {counts:?}");
}

/// periscope itself killed under load: one server at any time, nothing durable lost or doubled.
#[tokio::test]
async fn kills_of_periscope_lose_nothing_durable_and_leave_one_server() {
    let kills = scaled("kills of periscope", 5, 20);
    let daemon = Daemon::serving(|n| ok_json(&counting_status(n))).await;
    let mut periscope = Periscope::up(&polled(&daemon));
    let mut random = fastrand::Rng::with_seed(seed());
    let mut durable_at = String::new();
    for _ in 0..kills {
        let lives = Instant::now() + Duration::from_millis(random.u64(500..9_000));
        while Instant::now() < lives {
            let servers = periscope.questdb_pids();
            assert!(servers.len() <= 1, "{servers:?}\n{}", periscope.log());
            if let Ok(status) = periscope.status().await
                && let Some(at) = counter(&status)["last_durable_at"].as_str()
            {
                durable_at = at.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        periscope.kill();
        periscope.start();
    }
    periscope.ready().await;
    assert!(!durable_at.is_empty(), "no sample was ever durable");
    let rows = assert_exactly_once(&periscope, &durable_at).await;
    assert_eq!(periscope.questdb_pids().len(), 1);
    println!("{rows} rows, newest durable before a kill at {durable_at}");
    // Every sample that was called durable is there: polls that were answered but not yet durable
    // may be missing, so gaps are allowed only where a kill was, and there are that many at most.
    let sql = "select fetch_count from daemon_metrics where reachable order by fetch_count";
    let counts: Vec<i64> =
        periscope.sql(sql).await.unwrap().iter().map(|row| row[0].as_i64().unwrap()).collect();
    let gaps = counts.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    let late = failed_polls(&periscope).await;
    let allowed = i64::try_from(kills).unwrap() + late;
    assert!(i64::try_from(gaps).unwrap() <= allowed, "{gaps} gaps, {late} late, in {counts:?}");
}

/// A kill during the first boot of `QuestDB` can ruin its root; the next start must not care.
#[tokio::test]
async fn kills_in_the_first_boot_leave_a_healthy_next_start() {
    let rounds = scaled("kills in the first boot", 4, 20);
    let mut random = fastrand::Rng::with_seed(seed());
    for round in 0..rounds {
        let mut periscope = Periscope::up("");
        let wait = Duration::from_millis(random.u64(300..6_000));
        let both = random.bool();
        tokio::time::sleep(wait).await;
        for pid in periscope.questdb_pids() {
            send_signal(pid, Signal::KILL);
        }
        if both {
            periscope.kill();
            periscope.start();
        }
        periscope.ready().await;
        println!("round {round}: killed after {wait:?}, periscope too: {both}");
        // The tables are made right after the server answers.
        periscope.until_count("select count() from daemon_metrics", |count| count >= 0).await;
        periscope.signal(Signal::TERM);
        assert_eq!(periscope.ended(Duration::from_secs(60)).await.code(), Some(0));
    }
}

/// A server that is stopped, not dead, holds nothing up.
#[tokio::test]
async fn a_stopped_questdb_delays_rows_and_loses_none() {
    let daemon = Daemon::counting().await;
    let periscope = Periscope::up(&polled(&daemon));
    let status = periscope.ready().await;
    let pid = u32::try_from(status["questdb"]["pid"].as_u64().unwrap()).unwrap();
    periscope.until_count("select count() from daemon_metrics", |count| count > 3).await;
    send_signal(pid, Signal::STOP);
    let before = daemon.answered();
    until("polls to go on and the state to be told", Duration::from_secs(40), || async {
        let status = periscope.status().await?;
        let told = status["questdb"]["state"] == "unhealthy";
        let waiting = status["spool"]["rows"].as_u64().unwrap();
        if told && waiting > 5 && daemon.answered() > before + 10 {
            Ok(())
        } else {
            Err(format!("{} {waiting}", status["questdb"]))
        }
    })
    .await;
    send_signal(pid, Signal::CONT);
    periscope.ready().await;
    until("the backlog to be delivered", Duration::from_secs(40), || async {
        let status = periscope.status().await?;
        if status["spool"]["rows"].as_u64().unwrap() < 5 {
            Ok(())
        } else {
            Err(status["spool"].to_string())
        }
    })
    .await;
    let status = periscope.status().await.unwrap();
    let durable_at = counter(&status)["last_durable_at"].as_str().unwrap().to_owned();
    assert_exactly_once(&periscope, &durable_at).await;
}

//! The store in-process, with a server that a test moves about.

use std::time::Duration;

use periscope::base::health::{Board, Health, Part};
use periscope::base::http::Client;
use periscope::base::metrics::Metrics;
use periscope::base::secret::Secret;
use periscope::base::tasks::spawn_detached;
use periscope::base::time::{Clock, Timestamp};
use periscope::config;
use periscope::model::row::Row;
use periscope::model::server::{Endpoint, Login, Phase, ServerState};
use periscope::model::table::DAEMON_METRICS;
use periscope::store::queue::{self, RowQueue};
use periscope::store::task::{Setup, Stats, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::questdb::{PASSWORD, QuestDb};
use super::wait::until;

pub const LONG: Duration = Duration::from_secs(60);

/// A running store with a data folder of its own.
pub struct Running {
    pub folder: tempfile::TempDir,
    pub queue: Option<RowQueue>,
    pub server: watch::Sender<ServerState>,
    pub board: Board,
    pub metrics: Metrics,
    pub stats: Stats,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub fn login(user: &str, password: &str) -> Option<Login> {
    Some(Login { user: user.to_owned(), password: Secret::new(password) })
}

pub fn endpoint(questdb: &QuestDb, http_port: u16) -> Endpoint {
    Endpoint {
        http: format!("http://127.0.0.1:{http_port}"),
        pg: format!("127.0.0.1:{}", questdb.pg_port),
        database: "qdb".to_owned(),
        admin: login("admin", PASSWORD),
        reader: login("reader", PASSWORD),
    }
}

pub fn ready(endpoint: Endpoint, generation: u64) -> ServerState {
    let absent = ServerState::absent();
    ServerState { phase: Phase::Ready, endpoint: Some(endpoint), generation, ..absent }
}

impl Running {
    pub fn start() -> Self {
        Self::start_in(tempfile::Builder::new().prefix("periscope-store-").tempdir().unwrap())
    }

    pub fn start_in(folder: tempfile::TempDir) -> Self {
        let (clock, metrics) = (Clock::system(), Metrics::new());
        let board = Board::new(clock.clone());
        let setup = Setup {
            writer: config::Writer {
                batch_rows: 500,
                flush_interval: Duration::from_millis(100),
                queue_rows: 100_000,
                timeout: Duration::from_secs(10),
            },
            spool: config::Spool {
                max_bytes: 1 << 30,
                min_free: 0,
                replay_window: Duration::from_secs(900),
                replay_bytes: 64 << 20,
            },
            retention: config::Retention::default(),
            node: config::Node { host: "machine".into(), env: "dev".into() },
            data_dir: folder.path().to_owned(),
            clock,
            metrics: metrics.clone(),
            board: board.clone(),
            client: Client::new().unwrap(),
            seed: 7,
        };
        let (queue, rows) = queue::channel(100_000, &metrics);
        let (server, state) = watch::channel(ServerState::absent());
        let stop = CancellationToken::new();
        let store = Store::open(setup).unwrap();
        let stats = store.stats();
        let task = spawn_detached(store.run(rows, state, stop.clone()));
        Self { folder, queue: Some(queue), server, board, metrics, stats, stop, task }
    }

    pub fn push(&self, rows: Vec<Row>) {
        self.queue.as_ref().unwrap().push(rows);
    }

    pub fn ready(&self, questdb: &QuestDb, generation: u64) {
        self.server.send(ready(endpoint(questdb, questdb.http_port), generation)).unwrap();
    }

    pub async fn health(&self, part: Part, expected: &str) -> String {
        until(expected, LONG, || async {
            match self.board.get(part) {
                Some(Health::Degraded { reason } | Health::Down { reason })
                    if reason.contains(expected) =>
                {
                    Ok(reason)
                }
                other => Err(other),
            }
        })
        .await
    }

    pub async fn health_ok(&self, part: Part) {
        until("ok", LONG, || async {
            match self.board.get(part) {
                Some(Health::Ok) => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    /// Ends the store once everything is delivered.
    pub async fn end(mut self) -> tempfile::TempDir {
        self.queue = None;
        tokio::time::timeout(LONG, &mut self.task).await.expect("the store ends").unwrap();
        self.folder
    }

    /// Ends the store with whatever is not delivered.
    pub async fn stop(mut self) -> tempfile::TempDir {
        self.queue = None;
        self.stop.cancel();
        tokio::time::timeout(LONG, &mut self.task).await.expect("the store ends").unwrap();
        self.folder
    }
}

/// Rows `numbers` of one daemon, a millisecond apart, in the past.
pub fn rows(numbers: std::ops::Range<i64>) -> Vec<Row> {
    numbers.map(row).collect()
}

pub fn row(number: i64) -> Row {
    Row::new(&DAEMON_METRICS, start().plus(Duration::from_millis(number.unsigned_abs())))
        .with("daemon", "d")
        .with("host", "machine")
        .with("env", "dev")
        .with("reachable", true)
        .with("fetch_count", number)
        .with("cpu_percent", 0.5)
        .with("last_error", "a \"quoted\" text, with = and \\")
}

pub fn start() -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000)
}

pub async fn wait_for_rows(questdb: &QuestDb, expected: i64) {
    let sql = "select count() from daemon_metrics";
    until("all rows", LONG, || async {
        match questdb.sql(sql).await {
            Ok(rows) if rows[0][0].as_i64() == Some(expected) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

/// Every number of `0..expected` is there exactly once.
pub async fn exactly_once(questdb: &QuestDb, expected: i64) {
    wait_for_rows(questdb, expected).await;
    let sql = "select fetch_count from daemon_metrics order by timestamp";
    let found = questdb.sql(sql).await.unwrap();
    let found: Vec<i64> = found.iter().map(|row| row[0].as_i64().unwrap()).collect();
    assert_eq!(found, (0..expected).collect::<Vec<i64>>());
}

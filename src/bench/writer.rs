//! The whole write path (rows in memory → spool on disk → POST → 204) against a bare questdb-rs
//! `Sender` with the same rows, the same batch size and one connection.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use questdb::ingress::{Buffer, ProtocolVersion, Sender, TimestampNanos};
use serde_json::{Value as Json, json};

use super::figures::{Stretch, Watch, median};
use super::rows::Source;
use super::server::{Folder, Running, Server};
use super::spool::{BATCH, IN_FLIGHT, push_all, rows_of};
use crate::base::time::Clock;
use crate::config::{self, Config};
use crate::model::row::{Row, Value};
use crate::model::table::TIMESTAMP;

/// Batches in one stretch; the two sides take turns.
const BATCHES: usize = 60;
/// Rows that may be on disk and not yet acknowledged by QuestDB before the next are pushed.
const WINDOW: u64 = 16_000;
/// Longest wait for rows to be acknowledged or visible.
const LIMIT: Duration = Duration::from_secs(120);
/// Stretches that warm up server and caches and do not count.
const WARM_UP: usize = 2;

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    ours: Vec<Stretch>,
    client: Vec<Stretch>,
    rows: i64,
    version: String,
}

impl Report {
    /// Rows per second, ours through the client's: the median over pairs of stretches.
    pub fn ratio(&self) -> f64 {
        let pairs = self.ours.iter().zip(&self.client);
        median(pairs.map(|(ours, client)| ours.per_second() / client.per_second()))
    }

    /// CPU per row, ours through the client's: the median over pairs of stretches.
    pub fn cpu_ratio(&self) -> f64 {
        let pairs = self.ours.iter().zip(&self.client);
        median(pairs.map(|(ours, client)| ours.cpu_per_million() / client.cpu_per_million()))
    }

    /// The figures as JSON.
    pub fn json(&self) -> Json {
        let middle = |side: &[Stretch], of: fn(&Stretch) -> f64| median(side.iter().map(of));
        json!({ "writer": {
            "ratio": self.ratio(),
            "rows_per_second": middle(&self.ours, Stretch::per_second),
            "client_rows_per_second": middle(&self.client, Stretch::per_second),
            "cpu_ratio": self.cpu_ratio(),
            "cpu_seconds_per_million_rows": middle(&self.ours, Stretch::cpu_per_million),
            "client_cpu_seconds_per_million_rows": middle(&self.client, Stretch::cpu_per_million),
            "batch_rows": BATCH,
            "stretches": self.ours.len(),
            "rows_counted": self.rows,
            "questdb": self.version,
        }})
    }
}

/// Measures for about `seconds`.
///
/// # Errors
/// QuestDB cannot be had, a row is missing or doubled, or the client fails.
pub async fn run(config: &Config, seconds: u64) -> anyhow::Result<Report> {
    let folder = Folder::new(&config.data_dir)?;
    let server = Server::start(config, folder.path()).await?;
    let report = measure(config, &folder, &server, seconds).await;
    server.stop().await;
    report
}

async fn measure(
    config: &Config,
    folder: &Folder,
    server: &Server,
    seconds: u64,
) -> anyhow::Result<Report> {
    let writer =
        config::Writer { batch_rows: BATCH, queue_rows: 2 * BATCH * IN_FLIGHT, ..config.writer };
    let running = Running::start(config, folder.path(), writer, server.state.clone()).await?;
    let start = Clock::system().now().minus(Duration::from_secs(3_600));
    let mut ours_rows = Source::new(1, "ours", start);
    let mut client_rows = Source::new(1, "client", start);
    let mut client = Client::connect(server)?;
    let mut report =
        Report { ours: Vec::new(), client: Vec::new(), rows: 0, version: server.version.clone() };
    // The tables are there once the first rows are acknowledged.
    let mut turn = 0;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end || turn < WARM_UP + 1 {
        let batches = |source: &mut Source| (0..BATCHES).map(|_| source.batch(BATCH)).collect();
        let ours = stretch_of_ours(&running, batches(&mut ours_rows)).await?;
        let (back, theirs) = client.stretch(batches(&mut client_rows)).await?;
        client = back;
        if turn >= WARM_UP {
            report.ours.push(ours);
            report.client.push(theirs);
        }
        turn += 1;
    }
    running.stop().await;
    report.rows = counted(server, "ours", ours_rows.made()).await?;
    counted(server, "client", client_rows.made()).await?;
    Ok(report)
}

/// Pushes `batches` and waits until QuestDB has acknowledged them all.
async fn stretch_of_ours(running: &Running, batches: Vec<Vec<Row>>) -> anyhow::Result<Stretch> {
    let before = running.stats.writer().rows_total;
    let count = u64::try_from(BATCH * batches.len()).unwrap_or(u64::MAX);
    let watch = Watch::start();
    let mut pushed = before;
    let mut batches = batches.into_iter();
    loop {
        let window: Vec<Vec<Row>> = batches.by_ref().take(IN_FLIGHT).collect();
        if window.is_empty() {
            break;
        }
        pushed += rows_of(&window);
        push_all(running, window).await?;
        // As a source that does not run ahead of the database for long.
        acknowledged(running, pushed.saturating_sub(WINDOW)).await?;
    }
    acknowledged(running, pushed).await?;
    Ok(watch.stop(count))
}

/// Waits until QuestDB has acknowledged `rows` rows in all.
async fn acknowledged(running: &Running, rows: u64) -> anyhow::Result<()> {
    let limit = Instant::now() + LIMIT;
    while running.stats.writer().rows_total < rows {
        anyhow::ensure!(Instant::now() < limit, "rows were not acknowledged within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The yardstick: a bare questdb-rs sender over HTTP.
struct Client {
    sender: Sender,
}

impl Client {
    fn connect(server: &Server) -> anyhow::Result<Self> {
        let login = server.endpoint.admin.as_ref().context("the server has no login")?;
        let address = server.endpoint.http.trim_start_matches("http://");
        // The text protocol: it costs the client less than the binary one on rows like these.
        let settings = format!(
            "http::addr={address};username={};password={};protocol_version=1;",
            login.user,
            login.password.reveal()
        );
        Ok(Self { sender: Sender::from_conf(settings).context("set up the client")? })
    }

    /// Encodes and flushes `batches`, one request each.
    async fn stretch(mut self, batches: Vec<Vec<Row>>) -> anyhow::Result<(Self, Stretch)> {
        tokio::task::spawn_blocking(move || {
            let count = u64::try_from(BATCH * batches.len()).unwrap_or(u64::MAX);
            let mut buffer = Buffer::new(ProtocolVersion::V1);
            let watch = Watch::start();
            for batch in batches {
                for row in &batch {
                    encode(&mut buffer, row)?;
                }
                self.sender.flush(&mut buffer)?;
            }
            Ok((self, watch.stop(count)))
        })
        .await?
    }
}

fn encode(buffer: &mut Buffer, row: &Row) -> questdb::Result<()> {
    buffer.table(row.table.name)?;
    let cells = || row.table.columns.iter().zip(row.values());
    for (column, value) in cells().filter(|(column, _)| column.key) {
        if let Value::Text(text) = value {
            buffer.symbol(column.name, text)?;
        }
    }
    for (column, value) in cells().filter(|(column, _)| !column.key) {
        match value {
            Value::Null => {}
            Value::Bool(value) => drop(buffer.column_bool(column.name, *value)?),
            Value::Long(value) => drop(buffer.column_i64(column.name, *value)?),
            Value::Double(value) => drop(buffer.column_f64(column.name, *value)?),
            Value::Text(text) => drop(buffer.column_str(column.name, text)?),
            Value::Time(time) => {
                let time = questdb::ingress::TimestampMicros::new(time.micros());
                buffer.column_ts(column.name, time)?;
            }
        }
    }
    buffer.at(TimestampNanos::new(row.at.nanos()))
}

/// Waits until all rows of `tag` are visible and returns how many there are.
async fn counted(server: &Server, tag: &str, wanted: i64) -> anyhow::Result<i64> {
    let limit = Instant::now() + LIMIT;
    loop {
        let mut rows = 0;
        for table in ["daemon_metrics", "exchange_status", "pipeline_metrics", "trading_metrics"] {
            let sql = format!(
                "select count() from {table} where daemon like '{tag}-%' and {TIMESTAMP} > 0"
            );
            rows += server.number(&sql).await?;
        }
        if rows == wanted {
            return Ok(rows);
        }
        anyhow::ensure!(
            Instant::now() < limit && rows < wanted,
            "{rows} rows of {tag} are stored instead of {wanted}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

//! Starts a loop for every daemon: the configured ones at once, those of the shim when their socket
//! appears.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

pub use super::directory::Directory;
use super::discover::{self, Socket};
use super::exec::Program;
use super::fetch::SocketEndpoint;
use super::file::Watched;
use super::mapping::Mapper;
use super::parts::Endpoints;
use super::peaks::Peaks;
use super::poll::{self, Asked, Pace, PolledDaemon, ShimDaemon};
use super::push::Pushes;
use super::record::Sink;
use super::rows::Tags;
use super::websocket::{self, WebSocketDaemon};
use crate::base::health::{Board, Health, Part};
use crate::base::http::{Client, Limits};
use crate::base::metrics::Metrics;
use crate::base::tasks::{OnPanic, Tasks};
use crate::base::time::Clock;
use crate::config;
use crate::config::Source;
use crate::store::queue::RowQueue;

/// How often the folder of sockets is read, at most.
const SCAN_INTERVAL: Duration = Duration::from_millis(500);
/// Longest time until the first poll of a configured daemon.
const MAX_JITTER: Duration = Duration::from_secs(5);
/// Longest time that a poll may take, whatever the interval.
const MAX_TIMEOUT: Duration = Duration::from_secs(5);
/// Most daemons that are found by their sockets.
const MAX_FOUND: usize = 1_000;

/// What the poll loops need.
#[derive(Debug)]
pub struct Setup {
    /// `[collect]`
    pub collect: config::Collect,
    /// `[[daemon]]`
    pub daemons: Vec<config::Daemon>,
    /// `[node]`
    pub node: config::Node,
    /// Folder of the shim's sockets.
    pub run_dir: PathBuf,
    /// Folder of what outlives a restart.
    pub data_dir: PathBuf,
    /// Clock of the rows.
    pub clock: Clock,
    /// Own metrics.
    pub metrics: Metrics,
    /// Where the health of the poll loops is shown.
    pub board: Board,
    /// Client for daemons over HTTP.
    pub client: Client,
    /// Seed of the jitter.
    pub seed: u64,
}

/// All poll loops.
#[derive(Debug)]
pub struct Collector {
    setup: Setup,
    sink: Sink,
    pushes: Pushes,
}

impl Collector {
    /// Makes the collector and lists the configured daemons.
    pub fn new(setup: Setup, queue: RowQueue) -> Self {
        let sink = Sink {
            clock: setup.clock.clone(),
            directory: Directory::default(),
            metrics: setup.metrics.clone(),
            queue,
            tags: Tags::of(&setup.node),
            peaks: Peaks::load(&setup.data_dir),
        };
        for daemon in &setup.daemons {
            let source = daemon.source.word();
            sink.directory.expect(&daemon.name.as_str().into(), source, daemon.interval);
        }
        let pushes = Pushes::new(sink.clone(), &setup.daemons, setup.collect.max_document);
        Self { setup, sink, pushes }
    }

    /// Returns where daemons push their documents to.
    pub fn pushes(&self) -> Pushes {
        self.pushes.clone()
    }

    /// Returns the list of daemons.
    pub fn directory(&self) -> Directory {
        self.sink.directory.clone()
    }

    /// Runs all loops until the stop token of `tasks`.
    pub async fn run(self, tasks: Tasks) {
        let mut random = fastrand::Rng::with_seed(self.setup.seed);
        let mut shims = Shims::new(&self.setup, &self.sink, &tasks);
        for daemon in &self.setup.daemons {
            let first = daemon.interval.min(MAX_JITTER).mul_f64(random.f64());
            let mut pace = pace(first, daemon.interval, daemon.timeout, &self.setup.collect);
            if daemon.interval != self.setup.collect.interval {
                // Somebody has chosen it.
                pace.trading = daemon.interval;
            }
            let mapper = Mapper::new(daemon.map.as_ref());
            match &daemon.source {
                Source::Shim => shims.start(&daemon.name, pace, mapper),
                Source::Push => {}
                Source::Websocket { url, authorization, subscribe } => {
                    let daemon = WebSocketDaemon {
                        name: daemon.name.as_str().into(),
                        url: url.clone(),
                        authorization: authorization.clone(),
                        subscribe: subscribe.clone(),
                        pace,
                        mapper,
                        seed: random.u64(..),
                    };
                    let (sink, stop) = (self.sink.clone(), tasks.stop_token());
                    tasks.spawn("poll", OnPanic::Log, websocket::run(daemon, sink, stop));
                }
                source @ (Source::Http { .. }
                | Source::Socket { .. }
                | Source::Exec { .. }
                | Source::File { .. }) => {
                    let Some(asked) = asked(source, &self.setup.client) else { continue };
                    let name = daemon.name.as_str().into();
                    let daemon = PolledDaemon { name, asked, pace, mapper };
                    let (sink, stop) = (self.sink.clone(), tasks.stop_token());
                    tasks.spawn("poll", OnPanic::Log, poll::run(daemon, sink, stop));
                }
            }
        }
        let watch = self.pushes.watch(tasks.stop_token());
        tasks.spawn("push", OnPanic::Log, watch);
        tasks.spawn("peaks", OnPanic::Log, self.sink.peaks.clone().keep(tasks.stop_token()));
        self.setup.board.set(Part::Collect, Health::Ok);
        discover(&self.setup, shims).await;
    }
}

/// Returns what is asked at every poll; `None` for a source that is not polled.
pub(super) fn asked(source: &Source, client: &Client) -> Option<Asked> {
    Some(match source {
        Source::Http { url, authorization, ask, parts } => {
            let endpoints = Endpoints::new(url, authorization.as_ref(), ask, parts);
            Asked::Http(client.clone(), endpoints)
        }
        Source::Socket { path, request } => Asked::Socket(SocketEndpoint {
            path: path.clone(),
            request: request.parse().unwrap_or_else(|_| hyper::Uri::from_static("/")),
        }),
        Source::Exec { command } => {
            let (path, arguments) = command.split_first()?;
            Asked::Exec(Program { path: path.into(), arguments: arguments.to_vec() })
        }
        Source::File { path, stale_after } => {
            Asked::File(Watched { path: path.clone(), stale_after: *stale_after })
        }
        Source::Shim | Source::Websocket { .. } | Source::Push => return None,
    })
}

/// Makes a pace out of settings; a poll has to end before the next one is due.
fn pace(first: Duration, interval: Duration, timeout: Duration, collect: &config::Collect) -> Pace {
    let time = timeout.min(interval.mul_f64(0.9)).min(MAX_TIMEOUT);
    let limits = Limits { time, body: collect.max_document };
    Pace { first, interval, trading: collect.trading_interval.min(interval), limits }
}

/// The loops of shim daemons, by name.
struct Shims<'a> {
    setup: &'a Setup,
    sink: &'a Sink,
    tasks: &'a Tasks,
    sockets: BTreeMap<String, watch::Sender<Option<Socket>>>,
}

impl<'a> Shims<'a> {
    const fn new(setup: &'a Setup, sink: &'a Sink, tasks: &'a Tasks) -> Self {
        Self { setup, sink, tasks, sockets: BTreeMap::new() }
    }

    /// Starts the loop of a daemon.
    fn start(&mut self, name: &str, pace: Pace, mapper: Mapper) {
        let (sender, receiver) = watch::channel(None);
        let (name, run_dir) = (Arc::from(name), self.setup.run_dir.clone());
        let daemon = ShimDaemon::new(&name, run_dir, pace, mapper, &self.setup.metrics);
        let (sink, stop) = (self.sink.clone(), self.tasks.stop_token());
        self.tasks.spawn("poll", OnPanic::Log, daemon.run(receiver, sink, stop));
        self.sockets.insert(name.to_string(), sender);
    }

    /// Starts loops for new names and tells every loop its socket.
    fn apply(&mut self, mut chosen: BTreeMap<String, Socket>) {
        for name in chosen.keys() {
            if !self.sockets.contains_key(name) && self.sockets.len() < MAX_FOUND {
                let interval = self.setup.collect.interval;
                tracing::info!(daemon = %name, "daemon found");
                self.sink.directory.expect(&name.as_str().into(), "shim", interval);
                // The first poll is that for the new socket, at once; the ticks follow.
                let pace = pace(interval, interval, interval / 2, &self.setup.collect);
                self.start(name, pace, Mapper::default());
            }
        }
        for (name, sender) in &self.sockets {
            let socket = chosen.remove(name);
            sender.send_if_modified(|known| {
                let changed = *known != socket;
                if changed {
                    *known = socket;
                }
                changed
            });
        }
    }
}

async fn discover(setup: &Setup, mut shims: Shims<'_>) {
    let stop = shims.tasks.stop_token();
    let every = (setup.collect.interval / 2).clamp(Duration::from_millis(20), SCAN_INTERVAL);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clashes = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match discover::scan(&setup.run_dir) {
            Ok(sockets) => {
                let mut chosen = discover::choose(sockets, discover::parent);
                chosen.retain(|name, _| {
                    let other = shims.sink.directory.source(name).filter(|known| *known != "shim");
                    if other.is_some() && clashes.insert(name.clone()) {
                        tracing::warn!(
                            daemon = %name,
                            source = other,
                            "a socket has the name of a daemon with another source; \
                             start it with another --name"
                        );
                    }
                    other.is_none()
                });
                shims.apply(chosen);
                setup.board.set(Part::Collect, Health::Ok);
            }
            Err(error) => {
                let folder = setup.run_dir.display();
                let reason = format!("read {folder}: {error}; daemons of the shim are not found");
                setup.board.set(Part::Collect, Health::Degraded { reason });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::base::tasks::spawn_detached;
    use crate::base::time::Timestamp;
    use crate::collect::shim;
    use crate::config::Node;
    use crate::model::report;
    use crate::model::row::{Row, Value};
    use crate::store::queue::{self, Next, RowStream};

    const WAIT: Duration = Duration::from_secs(20);
    const INTERVAL: Duration = Duration::from_millis(200);

    /// Poll loops that run, ended with the test.
    struct Running {
        directory: Directory,
        rows: RowStream,
        seen: Vec<Row>,
        metrics: Metrics,
        tasks: Tasks,
    }

    fn start(run_dir: &Path, daemons: Vec<config::Daemon>) -> Running {
        let (clock, metrics) = (Clock::system(), Metrics::new());
        let setup = Setup {
            collect: config::Collect {
                interval: INTERVAL,
                trading_interval: INTERVAL,
                max_document: 1 << 20,
            },
            daemons,
            node: Node { host: "vps-1".into(), env: "dev".into() },
            run_dir: run_dir.to_owned(),
            data_dir: run_dir.to_owned(),
            board: Board::new(clock.clone()),
            clock,
            metrics: metrics.clone(),
            client: Client::new().unwrap(),
            seed: 1,
        };
        let (queue, rows) = queue::channel(100_000, &metrics);
        let collector = Collector::new(setup, queue);
        let directory = collector.directory();
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("collect", OnPanic::Fatal, collector.run(tasks.clone()));
        Running { directory, rows, seen: Vec::new(), metrics, tasks }
    }

    impl Running {
        /// Waits until the daemon's entry is as `is` wants it.
        async fn daemon(&self, name: &str, is: impl Fn(&report::Daemon) -> bool) -> report::Daemon {
            let started = Instant::now();
            loop {
                let report = self.directory.report();
                let found = report.iter().find(|daemon| daemon.name == name);
                if let Some(daemon) = found.filter(|daemon| is(daemon)) {
                    return daemon.clone();
                }
                assert!(started.elapsed() < WAIT, "{name} never became so: {report:#?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }

        /// Waits for a row of the daemon that `is` what is wanted.
        async fn row(&mut self, name: &str, is: impl Fn(&Row) -> bool) -> Row {
            let started = Instant::now();
            loop {
                if let Next::Rows(entries) = self.rows.next(Duration::ZERO) {
                    self.seen.extend(entries.into_iter().flat_map(|entry| entry.rows));
                }
                let mut of_daemon =
                    self.seen.iter().filter(|row| *row.get("daemon") == Value::from(name));
                if let Some(row) = of_daemon.find(|row| is(row)) {
                    return row.clone();
                }
                assert!(started.elapsed() < WAIT, "no such row among {:#?}", self.seen);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn daemon(name: &str, source: Source) -> config::Daemon {
        config::Daemon {
            name: name.into(),
            source,
            interval: INTERVAL,
            timeout: INTERVAL,
            map: None,
        }
    }

    /// A Python program started as `periscope run` does; killed with the test.
    struct Python(Child);

    impl Python {
        fn start(data_dir: &Path, name: &str, code: &str) -> Self {
            let (run_dir, shim_dir) = (data_dir.join("run"), data_dir.join("shim"));
            shim::install(&shim_dir).unwrap();
            let launch = shim::Launch {
                name: Some(name),
                target: "__main__:DaemonRunner",
                command: &[],
                run_dir: &run_dir,
                shim_dir: &shim_dir,
                python_path: None,
                listen: None,
            };
            let script = data_dir.join("daemon.py");
            std::fs::write(&script, code).unwrap();
            let mut command = Command::new("python3");
            command.arg(&script).stdin(Stdio::piped()).envs(shim::environment(&launch).unwrap());
            Self(command.spawn().expect("python3 is needed for this test"))
        }

        fn kill(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    impl Drop for Python {
        fn drop(&mut self) {
            let _gone = self.0.kill();
            let _ended = self.0.wait();
        }
    }

    const RUNNER: &str = "
import sys
class DaemonRunner:
    fetches = 0
    def get_status(self):
        self.fetches += 1
        return {'running': True, 'fetch_count': self.fetches, 'uptime_seconds': float('nan'),
                'exchange_status': {'okx': {'connected': True}}}
runner = DaemonRunner()
";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_python_daemon_is_found_lost_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = folder.path().join("run");
        let mut running = start(&run_dir, vec![daemon("expected", Source::Shim)]);
        assert_eq!(running.directory.report()[0].state, "waiting");
        let missing = Value::from("socket_missing");
        running.row("expected", |row| *row.get("poll_error") == missing).await;

        let code = format!("{RUNNER}sys.stdin.read()");
        let mut python = Python::start(folder.path(), "ccxt", &code);
        let up = running.daemon("ccxt", |daemon| daemon.state == "up").await;
        assert_eq!((up.pid, up.restarts), (Some(python.0.id()), 0));
        let socket = run_dir.join(format!("ccxt-{}.sock", python.0.id()));
        assert!(socket.exists());
        let age = |row: &Row, socket: &Path| {
            let made = std::fs::metadata(socket).unwrap().modified().unwrap();
            let made = made.duration_since(std::time::UNIX_EPOCH).unwrap();
            row.at.since(Timestamp::EPOCH.plus(made))
        };
        let reachable = |row: &Row| *row.get("reachable") == Value::Bool(true);
        let first = running.row("ccxt", reachable).await;
        let waited = age(&first, &socket);
        assert!(waited < INTERVAL + Duration::from_millis(100), "found after {waited:?}");
        assert!(matches!(first.get("instance"), Value::Text(_)), "{first:?}");
        assert!(matches!(first.get("memory_bytes"), Value::Long(1..)), "{first:?}");
        running.row("ccxt", |row| row.table.name == "exchange_status").await;

        python.kill();
        let gone = running.daemon("ccxt", |daemon| daemon.state == "unreachable").await;
        assert!(gone.status.is_some(), "the last document stays");
        running.daemon("ccxt", |_| !socket.exists()).await;
        let failed = running.row("ccxt", |row| *row.get("poll_error") == missing).await;
        assert_eq!(*failed.get("fetch_count"), Value::Null);

        let python = Python::start(folder.path(), "ccxt", &code);
        let back = running.daemon("ccxt", |daemon| daemon.state == "up").await;
        assert_eq!((back.pid, back.restarts), (Some(python.0.id()), 1));
        assert!(running.tasks.stop(WAIT).await.is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn several_instances_and_failing_ones() {
        let folder = tempfile::tempdir().unwrap();
        let mut running = start(&folder.path().join("run"), Vec::new());
        let code = format!(
            "{RUNNER}
class Failing(DaemonRunner):
    def get_status(self): raise KeyError('x')
second, third = Failing(), DaemonRunner()
sys.stdin.readline()
del second
sys.stdin.readline()
"
        );
        let mut python = Python::start(folder.path(), "ccxt", &code);
        let failing = running.daemon("ccxt/Failing", |daemon| daemon.poll_error.is_some()).await;
        assert_eq!(failing.poll_error.as_deref(), Some("status_error: KeyError: 'x'"));
        running.daemon("ccxt", |daemon| daemon.state == "up").await;
        running.daemon("ccxt/DaemonRunner", |daemon| daemon.state == "up").await;
        let row = running.row("ccxt/Failing", |_| true).await;
        assert_eq!(*row.get("last_error"), Value::from("KeyError: 'x'"));
        assert_eq!(*row.get("reachable"), Value::Bool(false));
        std::io::Write::write_all(python.0.stdin.as_mut().unwrap(), b"\n").unwrap();
        let no_instance = Value::from("no_instance");
        running.row("ccxt/Failing", |row| *row.get("poll_error") == no_instance).await;
        let names = |running: &Running| -> Vec<String> {
            running.directory.report().into_iter().map(|daemon| daemon.name).collect()
        };
        running.daemon("ccxt", |_| names(&running) == ["ccxt", "ccxt/DaemonRunner"]).await;
    }

    /// Serves the n-th document to the n-th request, the last one for ever; an empty one hangs.
    async fn serve(documents: &'static [&'static str]) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/status", listener.local_addr().unwrap());
        spawn_detached(async move {
            for n in 0_usize.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0_u8; 4096];
                let _read = stream.read(&mut request).await.unwrap();
                let document = documents[n.min(documents.len() - 1)];
                if document.is_empty() {
                    spawn_detached(async move {
                        let _closed = stream.read(&mut request).await;
                    });
                    continue;
                }
                let length = document.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{document}"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_daemon_over_http_that_hangs_and_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let url = serve(&[
            r#"{"running":true,"fetch_count":5,"uptime_seconds":50,"error_count":"7"}"#,
            "",
            r#"{"running":true,"fetch_count":1,"uptime_seconds":2,"error_count":7}"#,
        ])
        .await;
        let source = Source::http(url);
        let other = serve(&[r#"{"running":false}"#]).await;
        let other = Source::http(other);
        let mut running = start(folder.path(), vec![daemon("a", source), daemon("b", other)]);
        let restarted = running.daemon("a", |daemon| daemon.restarts == 1).await;
        assert_eq!((restarted.state.as_str(), restarted.source.as_str()), ("up", "http"));
        assert_eq!(restarted.beats.get(..3), Some([true, false, true].as_slice()));
        running.daemon("b", |daemon| daemon.state == "stopped" && daemon.beats.len() > 2).await;
        let hung = running.row("a", |row| *row.get("reachable") == Value::Bool(false)).await;
        assert_eq!(*hung.get("poll_error"), Value::from("timeout"));
        assert_eq!(*hung.get("uptime_seconds"), Value::Null);
        let first = running.row("a", |row| *row.get("fetch_count") == Value::Long(5)).await;
        assert_eq!(*first.get("error_count"), Value::Null, "a string is no number");
        assert_eq!(first.at.nanos() % 1000, 0, "whole microseconds");
        let text = running.metrics.render().unwrap();
        assert!(text.contains(r#"schema_drift_total{target="a"} 1"#), "{text}");
        let counted = r#"poll_failures_total{target="a",reason="timeout"} 1"#;
        assert!(text.contains(counted), "{text}");
        assert!(running.tasks.stop(WAIT).await.is_empty());
    }
}

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
use super::fetch::Endpoint;
use super::poll::{self, HttpDaemon, Pace, ShimDaemon};
use super::record::Sink;
use super::rows::Tags;
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
        };
        for daemon in &setup.daemons {
            let source = match daemon.source {
                Source::Shim => "shim",
                Source::Http { .. } => "http",
            };
            sink.directory.expect(&daemon.name.as_str().into(), source, daemon.interval);
        }
        Self { setup, sink }
    }

    /// Returns the list of daemons.
    pub fn directory(&self) -> Directory {
        self.sink.directory.clone()
    }

    /// Runs all loops until the stop token of `tasks`.
    pub async fn run(self, tasks: Tasks) {
        let mut random = fastrand::Rng::with_seed(self.setup.seed);
        let mut http_names = BTreeSet::new();
        let mut shims = Shims::new(&self.setup, &self.sink, &tasks);
        for daemon in &self.setup.daemons {
            let first = daemon.interval.min(MAX_JITTER).mul_f64(random.f64());
            let pace = pace(first, daemon.interval, daemon.timeout, &self.setup.collect);
            match &daemon.source {
                Source::Shim => shims.start(&daemon.name, pace),
                Source::Http { url, authorization } => {
                    http_names.insert(daemon.name.clone());
                    let daemon = HttpDaemon {
                        name: daemon.name.as_str().into(),
                        endpoint: Endpoint::new(url, authorization.as_ref()),
                        pace,
                        client: self.setup.client.clone(),
                    };
                    let (sink, stop) = (self.sink.clone(), tasks.stop_token());
                    tasks.spawn("poll", OnPanic::Log, poll::run_http(daemon, sink, stop));
                }
            }
        }
        self.setup.board.set(Part::Collect, Health::Ok);
        discover(&self.setup, shims, &http_names).await;
    }
}

/// Makes a pace out of settings; a poll has to end before the next one is due.
fn pace(first: Duration, interval: Duration, timeout: Duration, collect: &config::Collect) -> Pace {
    let time = timeout.min(interval.mul_f64(0.9)).min(MAX_TIMEOUT);
    Pace { first, interval, limits: Limits { time, body: collect.max_document } }
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
    fn start(&mut self, name: &str, pace: Pace) {
        let (sender, receiver) = watch::channel(None);
        let daemon = ShimDaemon::new(&Arc::from(name), self.setup.run_dir.clone(), pace);
        let (sink, stop) = (self.sink.clone(), self.tasks.stop_token());
        self.tasks.spawn("poll", OnPanic::Log, daemon.run(receiver, sink, stop));
        self.sockets.insert(name.to_owned(), sender);
    }

    /// Starts loops for new names and tells every loop its socket.
    fn apply(&mut self, mut chosen: BTreeMap<String, Socket>) {
        for name in chosen.keys() {
            if !self.sockets.contains_key(name) && self.sockets.len() < MAX_FOUND {
                let interval = self.setup.collect.interval;
                tracing::info!(daemon = %name, "daemon found");
                self.sink.directory.expect(&name.as_str().into(), "shim", interval);
                // The first poll is that for the new socket, at once; the ticks follow.
                self.start(name, pace(interval, interval, interval / 2, &self.setup.collect));
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

async fn discover(setup: &Setup, mut shims: Shims<'_>, http_names: &BTreeSet<String>) {
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
                    let clash = http_names.contains(name);
                    if clash && clashes.insert(name.clone()) {
                        tracing::warn!(
                            daemon = %name,
                            "a socket has the name of a daemon that is polled over http; \
                             start it with another --name"
                        );
                    }
                    !clash
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

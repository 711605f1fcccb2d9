//! The loop of one daemon that is asked: one poll in flight, ticks that were missed
//! are not made up for, and a poll never outlives its interval.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::discover::Socket;
use super::exec::{self, Program};
use super::fetch::{self, SocketEndpoint};
use super::file::{self, Watched};
use super::json::Document;
use super::mapping::Mapper;
use super::parts::{self, Endpoints};
use super::process::{self, ProcessWatch};
use super::record::{Poll, Series, Sink};
use super::wire::{self, Answer, Names};
use crate::base::http::{Client, Limits};
use crate::base::metrics::Metrics;
use crate::base::time::Timestamp;
use crate::model::observation::{Failure, FailureReason, Process};

/// How often and how long a daemon is polled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Time until the first poll, so that daemons are not all polled at once.
    pub(super) first: Duration,
    /// Time between polls.
    pub(super) interval: Duration,
    /// Time between polls of a daemon that reports trading results, at most `interval`.
    pub(super) trading: Duration,
    /// What one poll may cost; its time is below the interval.
    pub(super) limits: Limits,
}

impl Pace {
    pub(super) fn ticks(&self) -> tokio::time::Interval {
        let first = tokio::time::Instant::now() + self.first;
        let mut ticks = tokio::time::interval_at(first, self.interval);
        // A slow daemon must not be hit by a burst of catch-up polls once it recovers.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }
}

/// What is asked at every poll.
#[derive(Debug)]
pub(super) enum Asked {
    /// URLs; the words say why one cannot be used.
    Http(Client, Result<Endpoints, String>),
    /// HTTP on a unix socket.
    Socket(SocketEndpoint),
    /// A program.
    Exec(Program),
    /// A file.
    File(Watched),
}

/// A daemon that is polled.
#[derive(Debug)]
pub(super) struct PolledDaemon {
    /// Name of the daemon.
    pub(super) name: Arc<str>,
    /// What is asked.
    pub(super) asked: Asked,
    /// How often.
    pub(super) pace: Pace,
    /// How its documents are read.
    pub(super) mapper: Mapper,
}

impl Asked {
    /// Asks once at `now`.
    ///
    /// # Errors
    /// See [`FailureReason`].
    pub(super) async fn document(
        &self,
        limits: Limits,
        now: Timestamp,
    ) -> Result<Document, Failure> {
        match self {
            Self::Http(_, Err(words)) => {
                Err(Failure::new(FailureReason::Unreachable, words.as_str()))
            }
            Self::Http(client, Ok(endpoints)) => parts::http(client, endpoints, limits).await,
            Self::Socket(endpoint) => fetch::socket(endpoint, limits).await,
            Self::Exec(program) => exec::exec(program, limits).await,
            Self::File(watched) => file::file(watched, limits, now).await,
        }
    }
}

/// Polls a daemon until `stop`.
pub(super) async fn run(daemon: PolledDaemon, sink: Sink, stop: CancellationToken) {
    let mut series = Series::new(&daemon.name, &daemon.mapper, &sink.metrics);
    let mut ticks = daemon.pace.ticks();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let started = Instant::now();
        // A poll changes nothing at the daemon: a stop may cut it short.
        let document = tokio::select! {
            () = stop.cancelled() => return,
            document = daemon.asked.document(daemon.pace.limits, sink.now()) => document,
        };
        let poll_ms = document.is_ok().then(|| started.elapsed().as_secs_f64() * 1e3);
        let (document, event_loop_lag_ms) = wire::opened(document);
        let (process, waits) = (None, false);
        let at = sink.now();
        let poll = Poll { at, document, poll_ms, event_loop_lag_ms, process, waits };
        sink.record(&mut series, poll);
    }
}

/// A daemon that is found by the socket of its shim.
#[derive(Debug)]
pub(super) struct ShimDaemon {
    name: Arc<str>,
    run_dir: PathBuf,
    pace: Pace,
    /// Whether there ever was a socket.
    seen: bool,
    watch: ProcessWatch,
    pid: Option<u32>,
    names: Names,
    mapper: Mapper,
    series: BTreeMap<Arc<str>, Series>,
}

impl ShimDaemon {
    /// Makes the loop's state; the directory must know `name`.
    pub(super) fn new(
        name: &Arc<str>,
        run_dir: PathBuf,
        pace: Pace,
        mapper: Mapper,
        metrics: &Metrics,
    ) -> Self {
        let own = Series::new(name, &mapper, metrics);
        Self {
            name: Arc::clone(name),
            run_dir,
            pace,
            seen: false,
            watch: ProcessWatch::default(),
            pid: None,
            names: Names::default(),
            series: BTreeMap::from([(Arc::clone(name), own)]),
            mapper,
        }
    }

    /// Polls the daemon until `stop`, at once whenever its socket is another than before.
    pub(super) async fn run(
        mut self,
        mut sockets: watch::Receiver<Option<Socket>>,
        sink: Sink,
        stop: CancellationToken,
    ) {
        let mut ticks = self.pace.ticks();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = sockets.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    ticks.reset();
                }
                _ = ticks.tick() => {}
            }
            let (socket, before) = (sockets.borrow_and_update().clone(), self.pace.interval);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.poll(socket, &sink) => {}
            }
            if self.pace.interval != before {
                for name in self.series.keys() {
                    sink.directory.set_interval(name, self.pace.interval);
                }
                ticks = Pace { first: self.pace.interval, ..self.pace }.ticks();
            }
        }
    }

    async fn poll(&mut self, socket: Option<Socket>, sink: &Sink) {
        let Some(socket) = socket else {
            let words = format!(
                "no socket {}-PID.sock in {}; start the daemon with `periscope run --name {} …`",
                self.name,
                self.run_dir.display(),
                self.name
            );
            self.failed(&Failure::new(FailureReason::SocketMissing, words), None, sink);
            return;
        };
        self.seen = true;
        if self.pid.replace(socket.pid) != Some(socket.pid) {
            self.names = Names::default();
        }
        let started = Instant::now();
        let document = fetch::unix(&socket.path, self.pace.limits).await;
        let poll_ms = started.elapsed().as_secs_f64() * 1e3;
        let process = self.watch.look(socket.pid);
        match document.and_then(answer) {
            Ok((answer, oddities)) => {
                self.answered(answer, &oddities, poll_ms, process.as_ref(), sink);
            }
            Err(failure) => {
                let failure = if failure.reason == FailureReason::Refused {
                    without_listener(&socket, failure)
                } else {
                    failure
                };
                self.failed(&failure, process.as_ref(), sink);
            }
        }
    }

    /// Records the same failure for every series of the daemon.
    fn failed(&mut self, failure: &Failure, process: Option<&Process>, sink: &Sink) {
        let at = sink.now();
        for series in self.series.values_mut() {
            let (process, waits) = (process.cloned(), !self.seen);
            sink.record(series, Poll { process, waits, ..Poll::failed(at, failure.clone()) });
        }
    }

    fn answered(
        &mut self,
        answer: Answer,
        oddities: &[String],
        poll_ms: f64,
        process: Option<&Process>,
        sink: &Sink,
    ) {
        let at = sink.now();
        let names = self.names.assign(&self.name, &answer.instances);
        for (name, instance) in names.iter().zip(answer.instances) {
            let series = self.series.entry(Arc::clone(name)).or_insert_with(|| {
                sink.directory.expect(name, "shim", self.pace.interval);
                Series::new(name, &self.mapper, &sink.metrics)
            });
            let document =
                instance.status.map(|value| Document { value, oddities: oddities.to_vec() });
            let poll = Poll {
                at,
                document,
                poll_ms: Some(poll_ms),
                event_loop_lag_ms: answer.event_loop_lag_ms,
                process: process.cloned(),
                waits: false,
            };
            if sink.record(series, poll) {
                self.pace.interval = self.pace.trading;
            }
        }
        self.without_instance(&names, process, sink);
    }

    /// Records that series have no instance any more. The daemon itself stays, further instances are
    /// forgotten: a program may make and drop them as it likes.
    fn without_instance(&mut self, names: &[Arc<str>], process: Option<&Process>, sink: &Sink) {
        let at = sink.now();
        for (name, series) in &mut self.series {
            if !names.contains(name) {
                let (process, failure) = (process.cloned(), wire::no_instance());
                sink.record(series, Poll { process, ..Poll::failed(at, failure) });
            }
        }
        let daemon = &self.name;
        self.series.retain(|name, _| {
            let stays = name == daemon || names.contains(name);
            if !stays {
                sink.directory.remove(name);
            }
            stays
        });
    }
}

fn answer(document: Document) -> Result<(Answer, Vec<String>), Failure> {
    let Document { value, oddities } = document;
    let answer = wire::answer(value).ok_or_else(|| {
        Failure::new(FailureReason::BadDocument, "the socket does not speak the shim's protocol")
    })?;
    Ok((answer, oddities))
}

/// Says what a socket without listener means; that of a process which has ended is removed.
fn without_listener(socket: &Socket, failure: Failure) -> Failure {
    if process::runs(socket.pid) {
        return failure;
    }
    if let Err(error) = std::fs::remove_file(&socket.path) {
        tracing::debug!(path = %socket.path.display(), %error, "stale socket not removed");
    }
    Failure::new(FailureReason::Refused, format!("process {} has ended", socket.pid))
}

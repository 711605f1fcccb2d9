//! All loops of alerting, joined: engine, sender, planner, channels.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::book::{Book, Change, Path as Sends};
use super::canary::{self, Canary};
use super::engine::memory::Inbox;
use super::engine::quick;
use super::engine::task::{self as engine, Engine, Shown};
use super::grafana::{self, Observer, Watched};
use super::history;
use super::keeper::{Keeper, View};
use super::noise::plan::{self, Policy};
use super::outbox::deliver::{self, Transport};
use super::outbox::result;
use super::sender::{Presence, Sender};
use super::show::{self, MuteRequest, UnmuteRequest};
use super::silence::Silences;
use super::vitals::{Beat, Beats};
use crate::base::files::Files;
use crate::base::health::{Board, Health, Part};
use crate::base::http::Client;
use crate::base::metrics::{Metrics, OfSeverity};
use crate::base::tasks::{OnPanic, Tasks};
use crate::base::time::{Clock, Timestamp};
use crate::config::Node;
use crate::config::alerts::Alerts;
use crate::model::report;
use crate::model::row::Row;
use crate::model::server::ServerState;
use crate::model::severity::Severity;
use crate::rules::rule::Rule;
use crate::rules::text::duration as words;
use crate::store::queue::RowQueue;
use crate::store::stats::Stats;

/// Time between two looks at Grafana.
const LOOK: Duration = Duration::from_secs(2);
/// The same while it is absent.
const LOOK_CLOSER: Duration = Duration::from_secs(1);
/// Time between two looks for what is due.
const PLAN: Duration = Duration::from_secs(1);
/// Failures in a row of a heartbeat URL that people should know of.
const HEARTBEAT_FAILURES: i64 = 3;
/// Time after which what every channel refused is tried again.
const REVIVE: Duration = Duration::from_secs(600);

/// What alerting is made with.
pub struct Setup {
    /// `[alerts]`
    pub alerts: Alerts,
    /// All rules.
    pub rules: Vec<Rule>,
    /// `[node]`
    pub node: Node,
    /// Whether alerts of other hosts in the database are told too.
    pub all_hosts: bool,
    /// Where the journal is: `journal/` in the data folder.
    pub files: Arc<dyn Files>,
    /// The data folder.
    pub data_dir: std::path::PathBuf,
    /// Channels in order of preference.
    pub channels: Vec<Arc<dyn Transport>>,
    /// How Grafana is.
    pub grafana: Watched,
    /// The database.
    pub questdb: watch::Receiver<ServerState>,
    /// How far it lags.
    pub stats: Stats,
    /// Where rows come in.
    pub inbox: Inbox,
    /// Where the history goes.
    pub queue: RowQueue,
    /// The status page, for links.
    pub link: Option<String>,
    /// Asks Grafana.
    pub client: Client,
    /// Time.
    pub clock: Clock,
    /// Figures.
    pub metrics: Metrics,
    /// Health.
    pub board: Board,
    /// Of random things.
    pub seed: u64,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

/// What the planner and everybody who asks need; clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    keeper: Keeper,
    rules: Arc<BTreeMap<String, Rule>>,
    alerts: Arc<Alerts>,
    node: Arc<Node>,
    channels: Arc<[&'static str]>,
    link: Option<Arc<str>>,
    shown: Shown,
    heartbeat_at: Arc<Mutex<Option<Timestamp>>>,
    wake: Arc<Notify>,
    beats: Beats,
    clock: Clock,
}

/// Alerting, ready to run.
#[derive(Debug)]
pub struct Alerting {
    setup: Setup,
    handle: Handle,
}

impl Alerting {
    /// Opens the journal. Blocks: it reads and writes files.
    pub fn open(setup: Setup) -> Self {
        let folder = setup.data_dir.join("journal");
        let files = Arc::clone(&setup.files);
        let (keeper, found) =
            Keeper::open(files, Path::new(&folder), setup.clock.clone(), setup.seed);
        if let Some((name, reason)) = &found.aside {
            tracing::error!(%name, %reason, "the alert journal was put aside: alerts that fire are told again");
        }
        if found.unknown > 0 {
            tracing::warn!(
                changes = found.unknown,
                "the alert journal holds changes of a later version"
            );
        }
        let beat = || Beat::new(setup.clock.clone());
        let interval = setup.alerts.evaluation_interval;
        let mut names: Vec<&'static str> =
            setup.channels.iter().map(|channel| channel.name()).collect();
        names.dedup();
        let beats = Beats {
            engine: (beat(), interval),
            planner: beat(),
            channels: names.iter().map(|name| (*name, beat())).collect(),
        };
        let rules = setup.rules.iter().map(|rule| {
            let rule = Rule { interval, ..rule.clone() };
            (rule.uid(), rule)
        });
        let handle = Handle {
            keeper,
            rules: Arc::new(rules.collect()),
            alerts: Arc::new(setup.alerts.clone()),
            node: Arc::new(setup.node.clone()),
            channels: names.into(),
            link: setup.link.as_deref().map(Arc::from),
            shown: Shown::default(),
            heartbeat_at: Arc::default(),
            wake: Arc::default(),
            beats,
            clock: setup.clock.clone(),
        };
        Self { setup, handle }
    }

    /// Returns the handle for those who look or ask.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts every loop in `tasks`; they end when its token is cancelled, and then drop the queue.
    pub fn start(self, tasks: &Tasks) {
        let Self { setup, handle } = self;
        let (stop, questdb) = (tasks.stop_token(), setup.questdb.clone());
        let engine = Engine::new(
            engine::Setup {
                rules: handle.rules.values().cloned().collect(),
                interval: setup.alerts.evaluation_interval,
                node: setup.node.clone(),
                all_hosts: setup.all_hosts,
                keeper: handle.keeper.clone(),
                inbox: setup.inbox,
                questdb: setup.questdb,
                stats: setup.stats,
                queue: setup.queue.clone(),
                channels: Arc::clone(&handle.channels),
                clock: setup.clock.clone(),
                metrics: setup.metrics.clone(),
            },
            handle.shown.clone(),
        );
        let evaluating = evaluating(engine, handle.clone(), stop.clone());
        tasks.spawn("alert engine", OnPanic::Fatal, evaluating);
        let canary = Canary {
            queue: setup.queue.clone(),
            questdb,
            keeper: handle.keeper.clone(),
            beats: handle.beats.clone(),
            shown: handle.shown.clone(),
            node: setup.node.clone(),
            clock: setup.clock.clone(),
            metrics: setup.metrics.clone(),
        };
        tasks.spawn("canary", OnPanic::Log, canary::run(canary, stop.clone()));
        let (queue, node) = (setup.queue, setup.node);
        let shared = deliver::Shared {
            keeper: handle.keeper.clone(),
            channels: Arc::clone(&handle.channels),
            clock: setup.clock.clone(),
            metrics: setup.metrics.clone(),
            on_delivered: Arc::new(move |entry, channel, now| {
                let (message, alerts) = (&entry.message, &entry.alerts);
                queue.push(history::delivered(message, alerts, channel, &node, now));
            }),
        };
        let planning = planning(handle.clone(), setup.metrics, setup.board, stop.clone());
        tasks.spawn("alert planner", OnPanic::Fatal, planning);
        let watching = watching(handle.clone(), setup.grafana, setup.client, stop.clone());
        tasks.spawn("alert sender", OnPanic::Fatal, watching);
        for (channel, (_, beat)) in setup.channels.into_iter().zip(handle.beats.channels) {
            let run = deliver::run(channel, shared.clone(), beat, stop.clone());
            tasks.spawn("alert channel", OnPanic::Fatal, run);
        }
    }
}

/// Evaluates at every interval, and looks in between, until `stop`.
async fn evaluating(mut engine: Engine, handle: Handle, stop: CancellationToken) {
    let mut tick = tokio::time::interval(handle.alerts.evaluation_interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut rest = quick::PACE;
    loop {
        let is_look = tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => false,
            () = tokio::time::sleep(rest) => true,
        };
        let started = Instant::now();
        let found = tokio::select! {
            // What it has found is written down or not; it is found again at the next start.
            () = stop.cancelled() => return,
            found = engine.run(is_look) => found,
        };
        rest = quick::pause(if is_look { started.elapsed() } else { Duration::ZERO });
        if !is_look {
            handle.beats.engine.0.now();
        }
        if found {
            handle.wake.notify_one();
        }
    }
}

/// Makes messages of what is due until `stop`.
async fn planning(handle: Handle, metrics: Metrics, board: Board, stop: CancellationToken) {
    let mut revived: Option<tokio::time::Instant> = None;
    loop {
        if revived.is_none_or(|at| at.elapsed() >= REVIVE) {
            let channels = Arc::clone(&handle.channels);
            handle.keeper.change(move |book| (result::revive(book, &channels), ())).await;
            revived = Some(tokio::time::Instant::now());
        }
        handle.plan().await;
        handle.beats.planner.now();
        let view = handle.keeper.watch().borrow().clone();
        show_metrics(&view.book, &handle.rules, &metrics);
        let heartbeat_failures = metrics.heartbeat_failures.get();
        board.set(Part::Alerts, handle.health(&view, heartbeat_failures));
        tokio::select! {
            () = stop.cancelled() => return,
            () = handle.wake.notified() => {}
            () = tokio::time::sleep(PLAN) => {}
        }
    }
}

/// Looks at Grafana until `stop` and decides who sends.
async fn watching(handle: Handle, mut grafana: Watched, client: Client, stop: CancellationToken) {
    let (mut observer, mut silences) = (Observer::default(), Silences::default());
    let mut sender = handle.keeper.book().sender.clone();
    let mut looked = tokio::time::Instant::now();
    loop {
        let access = grafana.access();
        let heartbeat = *handle.heartbeat_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = handle.clock.now();
        let takeover_after = handle.alerts.takeover_after;
        let look = observer.look(&client, &access, heartbeat, takeover_after, now);
        // A look must not outlast the time after which periscope sends.
        let left = sender
            .left(takeover_after)
            .map_or(Duration::MAX, |left| left.saturating_sub(looked.elapsed()).max(LOOK_CLOSER));
        let presence = tokio::select! {
            () = stop.cancelled() => return,
            presence = look => presence,
            () = tokio::time::sleep(left) => {
                Presence::Absent(format!("it has not answered for {}", words(left.as_secs_f64().round())))
            }
        };
        looked = tokio::time::Instant::now();
        if presence == Presence::Present {
            // Before it has evaluated for long enough to tell by itself.
            silences.renew(&handle.keeper.book(), &handle.rules, &client, &access, now).await;
        }
        let now = handle.clock.now();
        let (next, told) = sender.step(&presence, takeover_after, now);
        handle.shown.set_grafana_away(next.away());
        if is_news(&handle.keeper.book().sender, &next) || told.is_some() {
            tracing::info!(path = next.path().word(), ?presence, "who sends alerts");
            let (this, sender) = (handle.clone(), next.clone());
            let errors = BTreeMap::new();
            let decide = move |book: &Book| {
                let mut changes = vec![Change::Sender { sender }];
                if let Some(told) = told {
                    changes.extend(plan::handover(book, this.policy(&errors), &told, now));
                }
                (changes, ())
            };
            handle.keeper.change(decide).await;
            handle.wake.notify_one();
        }
        sender = next;
        let pause = if presence == Presence::Present { LOOK } else { LOOK_CLOSER };
        tokio::select! {
            () = stop.cancelled() => return,
            // The end of the process is known at once.
            changed = grafana.state.changed() => if changed.is_err() {
                // Its owner has ended: what it said last stands.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Whether a restart should know of the difference.
fn is_news(known: &Sender, next: &Sender) -> bool {
    use super::sender::Phase;
    let told = |sender: &Sender| match sender.phase {
        Phase::Off => None,
        Phase::Grafana { .. } => Some((Sends::Grafana, false)),
        Phase::Fallback { told, .. } => Some((Sends::Fallback, told)),
    };
    told(known) != told(next)
}

fn show_metrics(book: &Book, rules: &BTreeMap<String, Rule>, metrics: &Metrics) {
    let count = |severity: Severity| {
        let firing = book.series.values().filter(|series| {
            series.state.firing_since().is_some()
                && rules.get(&series.rule).is_some_and(|rule| rule.severity == severity)
        });
        i64::try_from(firing.count()).unwrap_or(i64::MAX)
    };
    for severity in Severity::ALL {
        let labels = OfSeverity { severity: severity.word() };
        metrics.alerts_firing.get_or_create(&labels).set(count(*severity));
    }
    metrics.alert_fallback.set(i64::from(book.sender.path() == Sends::Fallback));
    let waiting = book.entries.values().filter(|entry| entry.is_waiting()).count();
    metrics.alert_outbox.set(i64::try_from(waiting).unwrap_or(i64::MAX));
}

impl Handle {
    fn policy<'a>(&'a self, errors: &'a BTreeMap<String, String>) -> Policy<'a> {
        Policy {
            rules: &self.rules,
            windows: &self.alerts.mutes,
            channels: &self.channels,
            interval: self.alerts.evaluation_interval,
            link: self.link.as_deref(),
            errors,
        }
    }

    async fn plan(&self) {
        let (errors, now) = (self.shown.errors(), self.clock.now());
        if plan::plan(&self.keeper.book(), self.policy(&errors), now).is_empty() {
            return;
        }
        let this = self.clone();
        let decide = move |book: &Book| (plan::plan(book, this.policy(&errors), now), ());
        self.keeper.change(decide).await;
    }

    fn health(&self, view: &View, heartbeat_failures: i64) -> Health {
        let mut reasons: Vec<String> = view.fault.iter().cloned().collect();
        for name in self.channels.iter() {
            let state = view.book.channels.get(*name).filter(|state| state.failures > 0);
            reasons.extend(state.map(|state| format!("{name}: {}", state.error)));
        }
        if heartbeat_failures >= HEARTBEAT_FAILURES {
            let words = "a heartbeat URL has not taken the last";
            reasons.push(format!("{words} {heartbeat_failures} requests: look at the log"));
        }
        let problems = self.shown.problems();
        if let [first, rest @ ..] = problems.as_slice() {
            let more =
                if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            reasons.push(format!("not evaluated: {first}{more}"));
        }
        if reasons.is_empty() {
            Health::Ok
        } else {
            Health::Degraded { reason: reasons.join("; ") }
        }
    }

    /// Returns what `GET /api/v1/status` says of alerts.
    pub fn report(&self) -> report::Alerts {
        let book = self.keeper.book();
        report::Alerts {
            path: book.sender.path().word().to_owned(),
            firing: show::firing(&book, &self.rules),
        }
    }

    /// Returns what `GET /api/v1/alerts` says.
    pub fn everything(&self) -> Value {
        show::everything(&self.keeper.book(), &self.rules, &self.channels, self.clock.now())
    }

    /// Returns what stands still.
    pub fn stuck(&self) -> Vec<String> {
        self.beats.stuck(self.clock.now())
    }

    /// Mutes; returns the id of the mute.
    ///
    /// # Errors
    /// The request makes no sense, with the reason.
    pub async fn mute(&self, request: MuteRequest) -> Result<String, String> {
        let (rules, now) = (Arc::clone(&self.rules), self.clock.now());
        self.ask(move |book| show::muted(book, request, &rules, now)).await
    }

    /// Ends mutes; returns how many.
    ///
    /// # Errors
    /// There is no such mute.
    pub async fn unmute(&self, request: UnmuteRequest) -> Result<usize, String> {
        self.ask(move |book| show::unmuted(book, &request)).await
    }

    /// Takes what Grafana sent; also returns the rows of the history.
    ///
    /// # Errors
    /// It is no notification of Grafana.
    pub async fn webhook(&self, body: &[u8]) -> Result<(Value, Vec<Row>), String> {
        let found = grafana::webhook(body, self.rules.values())?;
        let now = self.clock.now();
        if found.heartbeat {
            *self.heartbeat_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        let answer = serde_json::json!({ "taken": found.alerts.len(), "unknown": found.unknown });
        let rows = found.alerts.iter().filter_map(|alert| {
            let rule = self.rules.get(&alert.rule)?;
            Some(history::told_by_grafana(alert, rule, &self.node, now))
        });
        let rows = rows.collect();
        if !found.alerts.is_empty() {
            self.ask(move |book| Ok((grafana::noted(book, &found.alerts, now), ()))).await?;
        }
        Ok((answer, rows))
    }

    async fn ask<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&Book) -> Result<(Vec<Change>, T), String> + Send + 'static,
    ) -> Result<T, String> {
        let decide = |book: &Book| match decide(book) {
            Ok((changes, result)) => (changes, Ok(result)),
            Err(reason) => (Vec::new(), Err(reason)),
        };
        let result = self.keeper.change(decide).await;
        self.wake.notify_one();
        result.unwrap_or_else(|| Err("periscope is stopping".to_owned()))
    }
}

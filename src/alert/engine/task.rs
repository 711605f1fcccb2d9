//! The loop that evaluates: asks, judges, writes down, tells the history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::book::{Book, Change, Path, Via};
use super::super::history;
use super::super::keeper::Keeper;
use super::evaluate::{Evaluated, Others, Outcome, evaluate};
use super::memory::{Inbox, Memory};
use super::quick;
use super::read::{self, Asked};
use super::signals::{self, Database, Known};
use crate::base::metrics::{Metrics, Reason};
use crate::base::time::{Clock, Timestamp};
use crate::config::Node;
use crate::model::server::ServerState;
use crate::rules::condition::Condition;
use crate::rules::rule::Rule;
use crate::rules::window::Sample;
use crate::store::queue::RowQueue;
use crate::store::read::Session;
use crate::store::stats::Stats;

/// Age of the oldest row not yet in the database at which its answers are too old to be judged.
const LAG_LIMIT: f64 = 15.0;

/// What the engine is made with.
pub struct Setup {
    /// All rules, evaluated in one pace.
    pub rules: Arc<[Rule]>,
    /// That pace.
    pub interval: Duration,
    /// Labels of periscope's own alerts, and tags of the history.
    pub node: Node,
    /// Whether series of other hosts are judged too: several periscopes may share a database, and each
    /// tells of its own daemons.
    pub all_hosts: bool,
    /// The book.
    pub keeper: Keeper,
    /// Where rows come in.
    pub inbox: Inbox,
    /// The database.
    pub questdb: watch::Receiver<ServerState>,
    /// How far it lags.
    pub stats: Stats,
    /// Where the history goes.
    pub queue: RowQueue,
    /// Names of the channels.
    pub channels: Arc<[&'static str]>,
    /// Time.
    pub clock: Clock,
    /// Evaluations are counted here.
    pub metrics: Metrics,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

/// What the rest of alerting takes from the engine; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shown(Arc<Mutex<Figures>>);

#[derive(Debug, Default)]
struct Figures {
    errors: BTreeMap<String, String>,
    problems: Vec<String>,
    grafana_away: Option<Duration>,
    canaries_lost: u32,
}

impl Shown {
    fn with<T>(&self, look: impl FnOnce(&mut Figures) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the last errors by daemon.
    pub fn errors(&self) -> BTreeMap<String, String> {
        self.with(|figures| figures.errors.clone())
    }

    /// Returns what is wrong with the evaluation.
    pub fn problems(&self) -> Vec<String> {
        self.with(|figures| figures.problems.clone())
    }

    /// Says how many canaries in a row did not arrive.
    pub fn set_canaries_lost(&self, lost: u32) {
        self.with(|figures| figures.canaries_lost = lost);
    }

    /// Says for how long Grafana has been away; `None`: there is none.
    pub fn set_grafana_away(&self, away: Option<Duration>) {
        self.with(|figures| figures.grafana_away = away);
    }
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    setup: Setup,
    memory: Memory,
    database: Database,
    shown: Shown,
    /// Places of the rules that the database said to be near their limits.
    near: BTreeSet<usize>,
    /// When a look last asked the database.
    asked: Option<Instant>,
}

impl Engine {
    /// Makes the engine; rows come from now on.
    pub fn new(setup: Setup, shown: Shown) -> Self {
        let memory = Memory::new(setup.inbox.clone(), setup.clock.now());
        let (database, near) = (Database::default(), BTreeSet::new());
        Self { setup, memory, database, shown, near, asked: None }
    }

    /// Looks, or evaluates every rule once; says whether there may be something new.
    pub async fn run(&mut self, is_look: bool) -> bool {
        if is_look {
            return self.look().await;
        }
        self.tick().await;
        true
    }

    /// Evaluates every rule once.
    pub async fn tick(&mut self) {
        let started = Instant::now();
        let now = self.setup.clock.now();
        self.memory.refresh(now);
        let (outcomes, is_asked) = self.outcomes(now).await;
        for outcome in &outcomes {
            let reason = word(outcome);
            self.setup.metrics.alert_evaluations.get_or_create(&Reason { reason }).inc();
        }
        let places = 0..self.setup.rules.len();
        let Some((evaluated, failed)) = self.judge(places.zip(outcomes).collect(), now).await
        else {
            return;
        };
        // That the database does not answer is told where it is watched.
        let mut problems = if is_asked { failed } else { Vec::new() };
        if evaluated.left_out > 0 {
            problems.push(format!("{} alerts beyond the limit of a rule", evaluated.left_out));
        }
        let errors = self.memory.errors();
        let errors = errors.map(|(name, error)| (name.to_owned(), error.to_owned())).collect();
        self.shown.with(|figures| {
            figures.errors = errors;
            figures.problems = problems;
        });
        self.setup.metrics.alert_evaluation.set(started.elapsed().as_secs_f64());
    }

    /// Looks for what has gone bad since the last evaluation; says whether it found something.
    pub async fn look(&mut self) -> bool {
        let now = self.setup.clock.now();
        self.memory.refresh(now);
        let book = self.setup.keeper.book();
        let near = self.ask_near().await;
        let mut outcomes = Vec::new();
        for (place, rule) in self.setup.rules.iter().enumerate() {
            let found = quick::read(rule, &self.memory, now).map(|samples| (samples, Via::Memory));
            let asked = near.iter().find(|(asked, _)| *asked == place);
            let found = found.or_else(|| asked.map(|(_, s)| (s.clone(), Via::Database)));
            let Some((samples, via)) = found else { continue };
            let samples = quick::news(&book, rule, samples, now);
            if !samples.is_empty() {
                let others = Others::Untouched;
                outcomes.push((place, Outcome::Samples { samples, via, others }));
            }
        }
        if outcomes.is_empty() {
            return false;
        }
        self.judge(outcomes, now).await.is_some()
    }

    /// Asks the database for the rules that are near their limits, or have a series that waits to
    /// fire, and that memory cannot answer.
    async fn ask_near(&mut self) -> Vec<(usize, Vec<Sample>)> {
        let state = self.setup.questdb.borrow().clone();
        let rested = self.asked.is_none_or(|at| at.elapsed() >= quick::DATABASE_PACE);
        let lags = self.setup.stats.spool().oldest_age_seconds > LAG_LIMIT;
        let Some(endpoint) = state.ready().filter(|_| rested && !lags) else { return Vec::new() };
        let now = self.setup.clock.now();
        let mut session = Session::new(endpoint);
        let mut found = Vec::new();
        for (place, rule) in self.setup.rules.iter().enumerate() {
            let is_meant =
                self.near.contains(&place) && quick::read(rule, &self.memory, now).is_none();
            if !is_meant {
                continue;
            }
            self.asked = Some(Instant::now());
            match read::ask(&mut session, rule).await {
                Some(Asked::Samples(samples)) => found.push((place, samples)),
                // The next evaluation says what is wrong.
                Some(Asked::Refused(_) | Asked::Away(_)) | None => break,
            }
        }
        found
    }

    /// Judges the outcomes of rules, given by their places, and tells the history; `None` when the
    /// program is ending.
    async fn judge(
        &self,
        mut outcomes: Vec<(usize, Outcome)>,
        now: Timestamp,
    ) -> Option<(Evaluated, Vec<String>)> {
        if !self.setup.all_hosts {
            outcomes.iter_mut().for_each(|(_, outcome)| keep_host(outcome, &self.setup.node.host));
        }
        let rules = Arc::clone(&self.setup.rules);
        let decide = move |book: &Book| judge(book, &rules, &outcomes, now);
        let (evaluated, path, failed) = self.setup.keeper.change(decide).await?;
        let rows = evaluated.moved.iter().filter_map(|moved| {
            let rule = self.setup.rules.iter().find(|rule| rule.uid() == moved.series.rule)?;
            Some(history::change(moved, rule, path, &self.setup.node))
        });
        self.setup.queue.push(rows.collect());
        Some((evaluated, failed))
    }

    /// Reads every rule, in their order; also says whether the database answered all along.
    async fn outcomes(&mut self, now: Timestamp) -> (Vec<Outcome>, bool) {
        let state = self.setup.questdb.borrow().clone();
        let mut session = state.ready().map(Session::new);
        let lags = self.setup.stats.spool().oldest_age_seconds > LAG_LIMIT;
        let mut away = None;
        let mut read = Vec::with_capacity(self.setup.rules.len());
        for rule in self.setup.rules.iter() {
            let by_rows = matches!(rule.condition, Condition::Rows(_));
            let asked = match (&mut session, &away) {
                (Some(session), None) if !(lags && by_rows) => read::ask(session, rule).await,
                (_, Some(reason)) => Some(Asked::Away(String::clone(reason))),
                (Some(_) | None, None) => None,
            };
            if let Some(Asked::Away(reason)) = &asked {
                away = Some(reason.clone());
            }
            read.push(asked);
        }
        let longest = self.setup.interval.saturating_mul(3);
        self.database.observe(state.phase, away.is_none(), longest, now);
        let known = Known {
            host: &self.setup.node.host,
            env: &self.setup.node.env,
            database: self.database,
            grafana_away: self.shown.with(|figures| figures.grafana_away),
            canaries_lost: self.shown.with(|figures| figures.canaries_lost),
            channels: &self.setup.channels,
        };
        let book = self.setup.keeper.book();
        let is_asked = session.is_some() && away.is_none() && !lags;
        self.near.clear();
        for (place, (rule, asked)) in self.setup.rules.iter().zip(&mut read).enumerate() {
            let Some(Asked::Samples(samples)) = asked else { continue };
            if quick::is_near(rule, samples) {
                self.near.insert(place);
            }
            quick::correct(&book, rule, samples, &self.memory, now);
        }
        let rules = self.setup.rules.iter().zip(read);
        let outcomes = rules.map(|(rule, asked)| match &rule.condition {
            Condition::Own(signal) => signals::outcome(*signal, &known, &book),
            Condition::Rows(_) | Condition::Sql { .. } => {
                read::outcome(rule, asked, &self.memory, now)
            }
        });
        (outcomes.collect(), is_asked)
    }
}

/// Leaves only series of `host`, and those that name none.
fn keep_host(outcome: &mut Outcome, host: &str) {
    if let Outcome::Samples { samples, .. } = outcome {
        samples.retain(|sample| sample.labels.get("host").is_none_or(|name| name == host));
    }
}

const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Samples { via: Via::Database, .. } => "database",
        Outcome::Samples { via: Via::Memory, .. } => "memory",
        Outcome::Samples { via: Via::Own, .. } => "own",
        Outcome::Failed(_) => "failed",
    }
}

/// Judges all outcomes on one book.
fn judge(
    book: &Book,
    rules: &[Rule],
    outcomes: &[(usize, Outcome)],
    now: Timestamp,
) -> (Vec<Change>, (Evaluated, Path, Vec<String>)) {
    let mut all = Evaluated::default();
    let mut failed = Vec::new();
    for (place, outcome) in outcomes {
        let Some(rule) = rules.get(*place) else { continue };
        let one = evaluate(book, rule, outcome, now);
        all.changes.extend(one.changes);
        all.moved.extend(one.moved);
        all.left_out += one.left_out;
        if let Outcome::Failed(reason) = outcome
            && matches!(rule.condition, Condition::Rows(_) | Condition::Sql { .. })
        {
            failed.push(format!("{}: {reason}", rule.id));
        }
    }
    let changes = std::mem::take(&mut all.changes);
    (changes, (all, book.sender.path(), failed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::rule::Labels;

    /// Two periscopes on one database told of each other's daemons.
    #[test]
    fn series_of_other_hosts_are_left_to_them() {
        let series = |labels: &[(&str, &str)]| Sample {
            labels: labels
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect::<Labels>(),
            value: 1.0,
        };
        let (mine, other) = (series(&[("host", "a")]), series(&[("host", "b")]));
        let none = series(&[("strategy", "ema")]);
        let samples = vec![mine.clone(), other, none.clone()];
        let mut outcome = Outcome::Samples { samples, via: Via::Database, others: Others::None };
        keep_host(&mut outcome, "a");
        let samples = vec![mine, none];
        assert_eq!(outcome, Outcome::Samples { samples, via: Via::Database, others: Others::None });
    }
}

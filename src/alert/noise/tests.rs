//! What people are told, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::book::{Book, Change, Entry, Path, RouteState, Told, Via};
use super::super::engine::evaluate::{Others, Outcome, evaluate};
use super::super::message::{Kind, Message};
use super::super::sender::{Phase as SenderPhase, Presence};
use super::super::{grafana, silence};
use super::plan::{Policy, REPEAT, plan};
use crate::base::time::Timestamp;
use crate::config::alerts::Mute;
use crate::model::severity::Severity;
use crate::rules::catalog;
use crate::rules::condition::Condition;
use crate::rules::rule::{Labels, Rule};
use crate::rules::window::Sample;

/// Series by hand, evaluated and planned at steps of 10 s.
pub(in super::super) struct World {
    pub(in super::super) book: Book,
    pub(in super::super) rules: BTreeMap<String, Rule>,
    pub(in super::super) windows: Vec<Mute>,
    pub(in super::super) now: Timestamp,
    /// What is bad, by id of the rule: labels and value.
    pub(in super::super) bad: BTreeMap<String, Vec<(Labels, f64)>>,
    pub(in super::super) via: Via,
    pub(in super::super) channels: Vec<&'static str>,
}

impl World {
    pub(in super::super) fn new() -> Self {
        let rules = catalog::shipped().unwrap().into_iter().map(|rule| (rule.uid(), rule));
        let mut book = Book::new(1);
        book.sender.phase = SenderPhase::Off;
        Self {
            book,
            rules: rules.collect(),
            windows: Vec::new(),
            now: Timestamp::parse("2026-11-25T12:00:00Z").unwrap(),
            bad: BTreeMap::new(),
            via: Via::Database,
            channels: vec!["telegram", "webhook"],
        }
    }

    /// Evaluates every rule, plans, and returns the new messages.
    pub(in super::super) fn tick(&mut self) -> Vec<Entry> {
        self.now = self.now.plus(Duration::from_secs(10));
        for rule in self.rules.values() {
            let bad = self.bad.get(&rule.id).cloned().unwrap_or_default();
            let samples = bad.into_iter().map(|(labels, value)| Sample { labels, value });
            let samples = samples.collect();
            let outcome = Outcome::Samples { samples, via: self.via, others: Others::None };
            for change in evaluate(&self.book, rule, &outcome, self.now).changes {
                self.book.apply(change);
            }
        }
        self.plan()
    }

    fn plan(&mut self) -> Vec<Entry> {
        let errors = BTreeMap::from([("ccxt".to_owned(), "boom".to_owned())]);
        let policy = Policy {
            rules: &self.rules,
            windows: &self.windows,
            channels: &self.channels,
            interval: Duration::from_secs(10),
            link: Some("http://127.0.0.1:7480/"),
            errors: &errors,
        };
        let changes = plan(&self.book, policy, self.now);
        let mut entries = Vec::new();
        for change in changes {
            if let Change::Entry { entry: Some(entry), .. } = &change {
                entries.push((**entry).clone());
            }
            self.book.apply(change);
        }
        entries
    }

    /// Ticks for `seconds` and returns `(second, message)`.
    pub(in super::super) fn run(&mut self, seconds: u64) -> Vec<(u64, Message)> {
        let mut messages = Vec::new();
        for tick in 1..=seconds / 10 {
            messages.extend(self.tick().into_iter().map(|entry| (tick * 10, entry.message)));
        }
        messages
    }

    pub(in super::super) fn set(&mut self, id: &str, labels: &[Labels], value: f64) {
        let bad = labels.iter().map(|labels| (labels.clone(), value)).collect();
        self.bad.insert(id.to_owned(), bad);
    }
}

pub(in super::super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    let host = [("env", "dev"), ("host", "h")];
    let all = host.iter().chain(pairs);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(in super::super) fn daemon(name: &str) -> Labels {
    labels(&[("daemon", name)])
}

fn kinds(messages: &[(u64, Message)]) -> Vec<(u64, Kind)> {
    messages.iter().map(|(second, message)| (*second, message.kind)).collect()
}

fn fact<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.facts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[test]
fn an_alert_is_told_as_soon_as_it_fires_and_its_end_with_how_long_it_lasted() {
    let mut world = World::new();
    world.set("daemon_down", &[daemon("ccxt")], 42.0);
    let messages = world.run(120);
    assert_eq!(kinds(&messages), [(40, Kind::Firing)]);
    let message = &messages[0].1;
    assert_eq!(message.title, "ccxt on h is down");
    assert_eq!(fact(message, "Value"), Some("42s (alert above 30s)"));
    assert_eq!(fact(message, "Since"), Some("2026-11-25 12:00:40 UTC"));
    assert_eq!(fact(message, "Daemon"), Some("ccxt"));
    assert_eq!(fact(message, "Last error"), Some("boom"));
    assert_eq!(message.link.as_deref(), Some("http://127.0.0.1:7480/"));
    assert!(message.advice.as_ref().unwrap().contains("start it again"));
    world.set("daemon_down", &[daemon("ccxt")], 1.0);
    let messages = world.run(120);
    assert_eq!(kinds(&messages), [(10, Kind::Resolved)]);
    assert_eq!(fact(&messages[0].1, "Lasted"), Some("1m 30s"));
    assert_eq!(world.run(4_000), []);
    assert!(world.book.series.is_empty(), "all is forgotten");
}

#[test]
fn critical_goes_to_every_channel_and_a_warning_to_telegram_else_the_first() {
    let routes = |channels: Vec<&'static str>, id: &str, value: f64| {
        let mut world = World { channels, ..World::new() };
        world.set(id, &[daemon("ccxt")], value);
        let entries: Vec<Entry> = (0..60).flat_map(|_| world.tick()).collect();
        entries[0].routes.iter().map(|route| route.channel.clone()).collect::<Vec<_>>()
    };
    assert_eq!(routes(vec!["webhook", "telegram"], "daemon_down", 99.0), ["webhook", "telegram"]);
    assert_eq!(routes(vec!["webhook", "telegram"], "daemon_stuck", 9.0), ["telegram"]);
    assert_eq!(routes(vec!["webhook", "email"], "daemon_stuck", 9.0), ["webhook"]);
}

/// Fault matrix, row 38: one cause, at most two messages.
#[test]
fn five_hundred_daemons_down_are_at_most_two_messages() {
    let mut world = World::new();
    let all: Vec<Labels> = (0..500).map(|n| daemon(&format!("d{n}"))).collect();
    // Polls are not in step: they cross the threshold over two evaluations.
    world.set("daemon_down", &all[..317], 42.0);
    let mut messages = world.run(10);
    world.set("daemon_down", &all, 42.0);
    messages.extend(world.run(600));
    assert_eq!(kinds(&messages), [(40, Kind::Firing)], "{messages:?}");
    let message = &messages[0].1;
    assert_eq!(message.title, "Daemon down: 500 alerts fire");
    assert_eq!(fact(message, "And"), Some("480 more"));
    world.set("daemon_down", &all[..100], 42.0);
    let mut messages = world.run(10);
    world.bad.clear();
    messages.extend(world.run(600));
    assert!(messages.len() <= 2, "{messages:?}");
}

#[test]
fn a_group_that_goes_on_growing_has_a_budget() {
    let mut world = World::new();
    let all: Vec<Labels> = (0..60).map(|n| daemon(&format!("d{n}"))).collect();
    let mut messages = Vec::new();
    for count in 1..=60 {
        world.set("daemon_down", &all[..count], 42.0);
        messages.extend(world.run(30));
    }
    // 30 minutes: six intervals.
    assert!(messages.len() <= 6 * 6, "{}", messages.len());
    messages.extend(world.run(600));
    let told = world.book.series.values().filter(|series| series.told.is_some()).count();
    assert_eq!(told, 60, "all were told in the end");
}

#[test]
fn many_different_alerts_at_once_are_one_message_for_each_severity() {
    let mut world = World::new();
    for id in [
        "daemon_stuck",
        "daemon_error_rate",
        "daemon_memory",
        "daemon_restarted",
        "spool_growing",
        "daemon_error_ratio",
        "daemon_down",
    ] {
        world.set(id, &[daemon("ccxt")], 2e9);
        for rule in world.rules.values_mut().filter(|rule| rule.id == id) {
            rule.hold = Duration::from_secs(30);
        }
    }
    let messages = world.run(60);
    let told: Vec<_> =
        messages.iter().map(|(_, message)| (message.severity, message.title.as_str())).collect();
    assert_eq!(told, [(Severity::Critical, "3 alerts fire"), (Severity::Warning, "4 alerts fire")]);
}

#[test]
fn what_a_cause_explains_is_inside_it_and_told_when_it_outlives_it() {
    let mut world = World::new();
    let venue = labels(&[("daemon", "ccxt"), ("exchange", "binance")]);
    world.set("daemon_unreachable", &[daemon("ccxt")], 42.0);
    world.set("exchange_silent", std::slice::from_ref(&venue), 9.0);
    for rule in world.rules.values_mut().filter(|rule| rule.id == "exchange_silent") {
        // Fires together with its cause.
        rule.hold = Duration::from_secs(60);
    }
    let messages = world.run(300);
    assert_eq!(kinds(&messages), [(70, Kind::Firing)], "{messages:?}");
    assert_eq!(messages[0].1.title, "ccxt on h does not answer");
    assert_eq!(messages[0].1.children.len(), 1);
    assert!(messages[0].1.children[0].starts_with("binance sends nothing"));
    world.set("daemon_unreachable", &[daemon("ccxt")], 0.0);
    let messages = world.run(300);
    let told: Vec<_> = messages.iter().map(|(_, m)| (m.kind, m.title.as_str())).collect();
    assert_eq!(told[0].0, Kind::Firing);
    assert!(told[0].1.starts_with("binance sends nothing"), "{told:?}");
    assert_eq!(told[1], (Kind::Resolved, "ccxt on h does not answer"));
    assert_eq!(told.len(), 2);
}

#[test]
fn with_the_database_down_a_dead_daemon_is_told_by_itself() {
    let mut world = World { via: Via::Memory, ..World::new() };
    world.set("questdb_down", &[labels(&[])], 60.0);
    world.run(60);
    world.set("daemon_down", &[daemon("ccxt")], 42.0);
    let messages = world.run(60);
    assert_eq!(messages[0].1.title, "ccxt on h is down");
}

/// That a daemon was started again is no news beside the end of its outage.
#[test]
fn the_restart_that_ends_an_outage_is_not_told_by_itself() {
    let mut world = World::new();
    world.set("daemon_unreachable", &[daemon("ccxt")], 42.0);
    assert_eq!(kinds(&world.run(120)), [(70, Kind::Firing)]);
    world.set("daemon_restarted", &[daemon("ccxt"), daemon("other")], 1.0);
    let messages = world.run(30);
    assert_eq!(messages[0].1.title, "other on h has restarted");
    world.set("daemon_unreachable", &[daemon("ccxt")], 0.0);
    world.set("daemon_restarted", &[daemon("ccxt")], 1.0);
    let messages = world.run(300);
    let titles: Vec<&str> = messages.iter().map(|(_, message)| message.title.as_str()).collect();
    assert_eq!(titles, ["ccxt on h does not answer", "other on h has restarted"]);
    world.bad.clear();
    assert_eq!(world.run(600), []);
    // A restart by itself is news.
    world.set("daemon_restarted", &[daemon("ccxt")], 1.0);
    assert_eq!(world.run(30)[0].1.title, "ccxt on h has restarted");
}

#[test]
fn what_fires_for_long_is_told_again() {
    let mut world = World::new();
    world.set("daemon_down", &[daemon("ccxt")], 42.0);
    let messages = world.run(REPEAT.as_secs() + 120);
    assert_eq!(kinds(&messages), [(40, Kind::Firing), (40 + REPEAT.as_secs(), Kind::Firing)]);
    assert!(fact(&messages[1].1, "Still firing").is_some());
}

#[test]
fn a_muted_alert_is_told_when_the_window_ends_and_only_if_it_still_fires() {
    let mut world = World::new();
    let all_days = (0..7).collect();
    let (from, to) = (12 * 60, 13 * 60);
    let severity = Severity::Critical;
    world.windows = vec![Mute { days: all_days, from, to, severity, rule: None, daemon: None }];
    world.set("daemon_down", &[daemon("ccxt"), daemon("other")], 42.0);
    assert_eq!(world.run(1_800), []);
    world.set("daemon_down", &[daemon("ccxt")], 42.0);
    let messages = world.run(1_800 + 60);
    assert_eq!(kinds(&messages), [(1_800, Kind::Firing)]);
    assert_eq!(messages[0].1.title, "ccxt on h is down");
}

/// Fault matrix, row 39: one alert that says so, one end.
#[test]
fn a_flapping_alert_is_told_as_such_and_its_end_once() {
    let mut world = World::new();
    let mut messages = Vec::new();
    for _ in 0..60 {
        world.set("daemon_restarted", &[daemon("ccxt")], 1.0);
        messages.extend(world.run(30));
        world.set("daemon_restarted", &[daemon("ccxt")], 0.0);
        messages.extend(world.run(30));
    }
    world.bad.clear();
    messages.extend(world.run(1_800));
    let flapping =
        messages.iter().filter(|(_, message)| fact(message, "Flapping").is_some()).count();
    assert_eq!(flapping, 1);
    // Twice up and down before it was known to flap, then one of each.
    assert_eq!(messages.len(), 6, "{:?}", kinds(&messages));
    assert_eq!(messages.last().unwrap().1.kind, Kind::Resolved);
}

#[test]
fn while_grafana_sends_only_what_it_cannot_know_is_told_and_at_a_takeover_the_rest() {
    let mut world = World::new();
    world.book.sender.phase = SenderPhase::default();
    world.set("daemon_down", &[daemon("ccxt"), daemon("known")], 42.0);
    world.set("questdb_down", &[labels(&[])], 60.0);
    world.via = Via::Own;
    let messages = world.run(120);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert!(messages[0].1.title.starts_with("QuestDB on h"));
    // Grafana says that it has told of one of them.
    let told = Told { since: world.now, at: world.now, by: Path::Grafana, flapping: false };
    let known = world.book.series.values_mut();
    known
        .filter(|series| series.labels.get("daemon").is_some_and(|name| name == "known"))
        .for_each(|series| series.told = Some(told.clone()));
    let (sender, _) = world.book.sender.step(
        &Presence::Exited("exit code 1".to_owned()),
        Duration::from_secs(15),
        world.now,
    );
    world.book.sender = sender;
    let messages = world.run(60);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0].1.title, "ccxt on h is down");
    // Back again: nothing is told twice, and of what periscope told it tells the end too.
    world.book.sender.phase = SenderPhase::default();
    assert_eq!(world.run(600), []);
    world.bad.remove("daemon_down");
    let messages = world.run(60);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(
        (messages[0].1.kind, messages[0].1.title.as_str()),
        (Kind::Resolved, "ccxt on h is down")
    );
}

#[test]
fn an_alert_about_a_channel_does_not_go_through_it() {
    let mut world = World::new();
    world.set("channel_failing", &[labels(&[("channel", "telegram")])], 3.0);
    let entries = world.tick();
    let routes: Vec<_> = entries[0].routes.iter().map(|route| route.channel.as_str()).collect();
    assert_eq!(routes, ["webhook"]);
    assert!(matches!(entries[0].routes[0].state, RouteState::Waiting { tries: 0 }));
}

#[test]
fn a_clock_that_goes_back_holds_nothing_up() {
    let mut world = World::new();
    world.set("daemon_down", &[daemon("a")], 42.0);
    world.run(60);
    world.now = world.now.minus(Duration::from_secs(7_200));
    world.set("daemon_down", &[daemon("a"), daemon("b")], 42.0);
    let messages = world.run(120);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0].1.title, "b on h is down");
    world.bad.clear();
    assert_eq!(world.run(60).len(), 1);
}

/// Grafana as far as it matters here: it remembers what it has told over its restarts, and tells
/// nothing that is silenced.
#[derive(Default)]
struct Model {
    told: std::collections::BTreeSet<String>,
}

impl Model {
    /// Evaluates and tells; returns `(key, firing)` of what it tells.
    fn tick(&mut self, world: &mut World) -> Vec<(String, bool)> {
        let silenced: Vec<String> =
            silence::wanted(&world.book, &world.rules, world.now).into_keys().collect();
        let mut out = Vec::new();
        for (key, series) in &world.book.series {
            let fires = series.state.firing_since().is_some();
            let own = matches!(world.rules[&series.rule].condition, Condition::Own(_));
            if own || fires == self.told.contains(key) || silenced.contains(key) {
                // What ended while it was silenced is forgotten without a word.
                if silenced.contains(key) && !fires {
                    self.told.remove(key);
                }
                continue;
            }
            if fires {
                self.told.insert(key.clone())
            } else {
                self.told.remove(key)
            };
            out.push((key.clone(), fires));
        }
        for (key, firing) in &out {
            let series = &world.book.series[key];
            let told = grafana::Notified {
                key: key.clone(),
                rule: series.rule.clone(),
                labels: series.labels.clone(),
                firing: *firing,
                since: None,
            };
            for change in grafana::noted(&world.book, &[told], world.now) {
                world.book.apply(change);
            }
        }
        out
    }
}

/// 200 random schedules of a Grafana that comes and goes: every alert is told once, and its end once,
/// by whom ever.
#[test]
fn whoever_sends_each_alert_is_told_once_and_its_end_once() {
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + 200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut world, mut model) = (World::new(), Model::default());
        world.book.sender.phase = SenderPhase::default();
        let mut alive = true;
        let mut bad = false;
        let mut told: Vec<(bool, Path)> = Vec::new();
        let mut incidents = 0;
        for tick in 0..1_200 {
            if random.u8(0..100) < 3 && tick < 1_000 {
                alive = !alive;
            }
            // Longer than flapping, so that every incident is one of its own.
            if tick % 60 == 30 && tick < 1_000 {
                bad = !bad;
                incidents += usize::from(bad);
            }
            let value = if bad { 42.0 } else { 0.0 };
            world.set("daemon_down", &[daemon("ccxt")], value);
            if tick >= 1_000 {
                alive = true;
                world.bad.clear();
            }
            let presence =
                if alive { Presence::Present } else { Presence::Exited("gone".to_owned()) };
            let step = world.book.sender.step(&presence, Duration::from_secs(15), world.now);
            world.book.sender = step.0;
            for entry in world.tick() {
                let firing = entry.message.kind == Kind::Firing;
                if !entry.alerts.is_empty() {
                    told.push((firing, Path::Fallback));
                }
            }
            // Also while it is back and not yet trusted.
            if alive {
                told.extend(model.tick(&mut world).into_iter().map(|(_, f)| (f, Path::Grafana)));
            }
        }
        let expected: Vec<bool> = (0..incidents * 2).map(|n| n % 2 == 0).collect();
        let found: Vec<bool> = told.iter().map(|(firing, _)| *firing).collect();
        assert_eq!(found, expected, "SEED={seed} {told:?}");
    }
}

//! Which messages are due. Pure: the book, the policy and the time go in, changes come out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::book::{Book, Change, Entry, Path, Route, Series, Told, passed};
use super::super::message::{Kind, Message};
use super::super::sender::Handover;
use super::super::silence::HUSHED;
use super::super::wording::{self, Alert, Extra, Words};
use super::cause::{self, Firing};
use super::mute;
use crate::base::time::Timestamp;
use crate::config::alerts::Mute;
use crate::model::severity::Severity;
use crate::rules::condition::Condition;
use crate::rules::machine::Phase;
use crate::rules::rule::Rule;

/// Longest wait for others of a group that are about to fire.
const GROUP_WAIT: Duration = Duration::from_secs(30);
/// The same for critical ones.
const GROUP_WAIT_CRITICAL: Duration = Duration::from_secs(10);
/// Time in which a group has [`GROUP_BUDGET`].
const GROUP_INTERVAL: Duration = Duration::from_secs(300);
/// Messages of a group within [`GROUP_INTERVAL`]; one that names several alerts counts as three, so
/// that a storm makes two messages.
const GROUP_BUDGET: usize = 6;
const SEVERAL_COUNT: usize = 3;
/// Groups at once that still get messages of their own.
const STORM_GROUPS: usize = 5;
/// How often people are told again of what still fires.
pub const REPEAT: Duration = Duration::from_secs(4 * 3_600);
/// So many times within [`FLAP_WINDOW`] is flapping.
const FLAPS: usize = 3;
/// See [`FLAPS`]; also how long it must be steady to be over.
const FLAP_WINDOW: Duration = Duration::from_secs(600);
/// How long after its cause an alert counts as the consequence that [`Rule::follows`] says.
const AFTERMATH: Duration = Duration::from_secs(600);
/// How long Grafana's word that an alert is over is waited for.
const GRAFANA_PATIENCE: Duration = Duration::from_secs(3_600);

/// What decides besides the book.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// Rules by uid.
    pub rules: &'a BTreeMap<String, Rule>,
    /// `[[alerts.mute]]`
    pub windows: &'a [Mute],
    /// Names of the channels, in order of preference.
    pub channels: &'a [&'static str],
    /// Time between two evaluations.
    pub interval: Duration,
    /// Where to look.
    pub link: Option<&'a str>,
    /// Last errors by daemon.
    pub errors: &'a BTreeMap<String, String>,
}

struct Plan<'a> {
    book: &'a Book,
    policy: Policy<'a>,
    now: Timestamp,
    next: u64,
    changes: Vec<Change>,
}

/// Returns the changes that make what is due into messages.
pub fn plan(book: &Book, policy: Policy<'_>, now: Timestamp) -> Vec<Change> {
    let mut plan = Plan { book, policy, now, next: book.next, changes: Vec::new() };
    let firing = plan.firing();
    let causes = cause::causes(&firing);
    plan.tell_firing(&firing, &causes);
    plan.tell_again(&firing, &causes);
    plan.tell_resolved();
    plan.tidy();
    plan.changes
}

/// Returns the changes that tell people who sends.
pub fn handover(book: &Book, policy: Policy<'_>, told: &Handover, now: Timestamp) -> Vec<Change> {
    let mut plan = Plan { book, policy, now, next: book.next, changes: Vec::new() };
    let open = plan.firing().len();
    let words = wording::handover(told, open);
    plan.add(Kind::Notice, Severity::Warning, words, Vec::new(), Vec::new(), None);
    plan.changes
}

/// Returns the channels that a message of this severity goes to: critical ones to all, others to
/// Telegram, else to the first.
pub fn channels(severity: Severity, all: &[&'static str]) -> Vec<&'static str> {
    match severity {
        Severity::Critical => all.to_vec(),
        Severity::Warning | Severity::Info => {
            let telegram = all.iter().find(|name| **name == "telegram");
            telegram.or(all.first()).copied().into_iter().collect()
        }
    }
}

impl<'a> Plan<'a> {
    fn firing(&self) -> Vec<Firing<'a>> {
        self.alerts().filter(|alert| alert.series.state.firing_since().is_some()).collect()
    }

    fn alerts(&self) -> impl Iterator<Item = Firing<'a>> + use<'a> {
        let (book, rules) = (self.book, self.policy.rules);
        book.series.iter().filter_map(move |(key, series)| {
            rules.get(&series.rule).map(|rule| Firing { key, series, rule })
        })
    }

    /// Whether periscope tells of this rule now.
    fn is_ours(&self, rule: &Rule) -> bool {
        match rule.condition {
            // Grafana does not know of these.
            Condition::Own(_) => true,
            Condition::Rows(_) | Condition::Sql { .. } => self.book.sender.path() == Path::Fallback,
        }
    }

    fn is_muted(&self, alert: &Firing<'_>) -> bool {
        let by_hand = self.book.mutes.values();
        mute::is_muted(alert.rule, &alert.series.labels, self.policy.windows, by_hand, self.now)
    }

    fn tell_firing(&mut self, firing: &[Firing<'a>], causes: &BTreeMap<&'a str, &'a str>) {
        let mut groups: BTreeMap<(Severity, &str), Vec<Firing<'a>>> = BTreeMap::new();
        for alert in firing {
            let due = alert.series.told.is_none()
                && self.is_ours(alert.rule)
                && !causes.contains_key(alert.key)
                && !self.is_aftermath(alert)
                && !self.is_muted(alert);
            if due {
                groups.entry((alert.rule.severity, &alert.rule.id)).or_default().push(*alert);
            }
        }
        groups.retain(|(severity, id), alerts| self.is_ready(*severity, id, alerts));
        if groups.len() > STORM_GROUPS {
            let mut storms: BTreeMap<Severity, Vec<Firing<'a>>> = BTreeMap::new();
            for ((severity, _), alerts) in groups {
                storms.entry(severity).or_default().extend(alerts);
            }
            for alerts in storms.values().rev() {
                self.fire(alerts, firing, causes, false);
            }
            return;
        }
        for alerts in groups.values().rev() {
            self.fire(alerts, firing, causes, false);
        }
    }

    /// Whether people know what it came of: one of the rules that it follows fires, or has lately.
    fn is_aftermath(&self, alert: &Firing<'_>) -> bool {
        self.alerts().filter(|cause| alert.rule.follows.contains(&cause.rule.id)).any(|cause| {
            let lately = cause.series.over_at.is_some_and(|at| !passed(at, AFTERMATH, self.now));
            let fires = cause.series.state.firing_since().is_some();
            cause.series.labels == alert.series.labels && (fires || lately)
        })
    }

    /// Whether a group need not wait any longer: for others that are about to fire, or because it
    /// had its messages.
    fn is_ready(&self, severity: Severity, id: &str, alerts: &[Firing<'_>]) -> bool {
        let wait = match severity {
            Severity::Critical => GROUP_WAIT_CRITICAL,
            Severity::Warning | Severity::Info => GROUP_WAIT,
        };
        // Those that went bad at the same time fire within one evaluation of each other.
        let wait = wait.max(self.policy.interval.mul_f64(1.5));
        let oldest = alerts.iter().filter_map(|alert| alert.series.state.firing_since()).min();
        let waited = oldest.is_none_or(|oldest| passed(oldest, wait, self.now));
        let more_come = || {
            self.alerts().any(|other| {
                other.rule.id == id
                    && other.rule.severity == severity
                    && other.series.state.phase() == Phase::Pending
            })
        };
        (waited || !more_come()) && self.has_budget(&group(id, severity, Kind::Firing))
    }

    fn has_budget(&self, group: &str) -> bool {
        self.lately(group).len() < GROUP_BUDGET
    }

    fn lately(&self, group: &str) -> Vec<Timestamp> {
        let sent = self.book.groups.get(group).map(Vec::as_slice).unwrap_or_default();
        let recent = sent.iter().filter(|at| !passed(**at, GROUP_INTERVAL, self.now));
        recent.copied().collect()
    }

    fn spend(&mut self, name: &str, alerts: usize) {
        let mut sent = self.lately(name);
        let count = if alerts > 1 { SEVERAL_COUNT } else { 1 };
        sent.extend(std::iter::repeat_n(self.now, count));
        self.changes.push(Change::Group { name: name.to_owned(), sent });
    }

    fn fire(
        &mut self,
        alerts: &[Firing<'a>],
        firing: &[Firing<'a>],
        causes: &BTreeMap<&'a str, &'a str>,
        again: bool,
    ) {
        let Some(severity) = alerts.iter().map(|alert| alert.rule.severity).max() else { return };
        let told: Vec<Alert<'_>> = alerts.iter().map(to_alert).collect();
        let explained: Vec<Alert<'_>> = firing
            .iter()
            .filter(|child| {
                let cause = causes.get(child.key);
                cause.is_some_and(|cause| alerts.iter().any(|alert| alert.key == *cause))
            })
            .map(to_alert)
            .collect();
        let flapping = alerts.iter().any(|alert| self.is_flapping(alert.series));
        let words = wording::firing(&told, self.policy.errors, Extra { again, flapping }, self.now);
        let about = about_channel(alerts);
        let references = told.iter().map(|alert| alert.reference(true)).collect();
        let children = wording::children(&explained);
        self.add(Kind::Firing, severity, words, references, children, about);
        for alert in alerts {
            let since = alert.series.state.firing_since().unwrap_or(self.now);
            let flapping = self.is_flapping(alert.series);
            let told = Told { since, at: self.now, by: Path::Fallback, flapping };
            let series = Series { told: Some(told), ..alert.series.clone() };
            self.put(alert.key, Some(series));
        }
        if again {
            return;
        }
        let mut names: Vec<String> = alerts
            .iter()
            .map(|alert| group(&alert.rule.id, alert.rule.severity, Kind::Firing))
            .collect();
        names.dedup();
        for name in names {
            self.spend(&name, alerts.len());
        }
    }

    fn tell_again(&mut self, firing: &[Firing<'a>], causes: &BTreeMap<&'a str, &'a str>) {
        let mut groups: BTreeMap<(Severity, &str), Vec<Firing<'a>>> = BTreeMap::new();
        for alert in firing {
            let Some(told) = &alert.series.told else { continue };
            let due = told.by == Path::Fallback
                && told.at <= self.now
                && passed(told.at, REPEAT, self.now)
                && self.is_ours(alert.rule)
                && !causes.contains_key(alert.key)
                && !self.is_muted(alert);
            if due {
                groups.entry((alert.rule.severity, &alert.rule.id)).or_default().push(*alert);
            }
        }
        for alerts in groups.values().rev() {
            self.fire(alerts, firing, causes, true);
        }
    }

    fn tell_resolved(&mut self) {
        let mut groups: BTreeMap<(Severity, &str), Vec<Firing<'a>>> = BTreeMap::new();
        for alert in self.alerts() {
            let Some(told) = &alert.series.told else { continue };
            if alert.series.state.firing_since().is_some() {
                continue;
            }
            let over = alert.series.over_at.unwrap_or(told.at);
            if told.by == Path::Grafana && self.book.sender.path() == Path::Grafana {
                // Its own webhook says when it has told.
                if passed(over, GRAFANA_PATIENCE, self.now) {
                    self.put(alert.key, Some(Series { told: None, ..alert.series.clone() }));
                }
                continue;
            }
            let steady = !told.flapping && !self.is_flapping(alert.series);
            let over_long = passed(over, FLAP_WINDOW, self.now);
            if (steady || over_long) && !self.is_muted(&alert) {
                groups.entry((alert.rule.severity, &alert.rule.id)).or_default().push(alert);
            }
        }
        for ((severity, id), alerts) in groups.into_iter().rev() {
            let name = group(id, severity, Kind::Resolved);
            let recovering = || {
                self.alerts().any(|other| {
                    other.rule.id == id
                        && other.rule.severity == severity
                        && other.series.told.is_some()
                        && other.series.state.phase() == Phase::Recovering
                })
            };
            let oldest = alerts.iter().filter_map(|alert| alert.series.over_at).min();
            let waited = oldest.is_none_or(|over| passed(over, GROUP_WAIT, self.now));
            if !self.has_budget(&name) || (!waited && recovering()) {
                continue;
            }
            self.resolve(severity, &name, &alerts);
        }
    }

    fn resolve(&mut self, severity: Severity, name: &str, alerts: &[Firing<'a>]) {
        let told: Vec<Alert<'_>> = alerts.iter().map(to_alert).collect();
        let words = wording::resolved(&told, self.now);
        let references = told.iter().map(|alert| alert.reference(false)).collect();
        let about = about_channel(alerts);
        self.add(Kind::Resolved, severity, words, references, Vec::new(), about);
        for alert in alerts {
            let by = alert.series.told.as_ref().map(|told| told.by);
            // Also when Grafana still believes in an earlier time that it fired.
            let lately =
                alert.series.ended_for_grafana.is_some_and(|at| !passed(at, HUSHED, self.now));
            let ended_for_grafana = (lately || by == Some(Path::Grafana)).then_some(self.now);
            let series = Series { told: None, ended_for_grafana, ..alert.series.clone() };
            self.put(alert.key, Some(series));
        }
        self.spend(name, alerts.len());
    }

    /// Whether it came and went too often lately.
    fn is_flapping(&self, series: &Series) -> bool {
        let lately = series.fired.iter().filter(|at| !passed(**at, FLAP_WINDOW, self.now));
        lately.count() >= FLAPS
    }

    /// Forgets mutes that are over and groups that had nothing lately.
    fn tidy(&mut self) {
        for (id, mute) in &self.book.mutes {
            if mute.until <= self.now {
                self.changes.push(Change::Mute { id: id.clone(), mute: None });
            }
        }
        let touched: Vec<String> = self
            .changes
            .iter()
            .filter_map(|change| match change {
                Change::Group { name, .. } => Some(name.clone()),
                Change::Series { .. }
                | Change::Entry { .. }
                | Change::Route { .. }
                | Change::Channel { .. }
                | Change::Mute { .. }
                | Change::Sender { .. } => None,
            })
            .collect();
        for name in self.book.groups.keys() {
            if !touched.contains(name) && self.lately(name).is_empty() {
                self.changes.push(Change::Group { name: name.clone(), sent: Vec::new() });
            }
        }
    }

    fn put(&mut self, key: &str, series: Option<Series>) {
        self.changes.push(Change::Series { key: key.to_owned(), series: series.map(Box::new) });
    }

    fn add(
        &mut self,
        kind: Kind,
        severity: Severity,
        words: Words,
        alerts: Vec<super::super::book::AlertRef>,
        children: Vec<String>,
        not_through: Option<&str>,
    ) {
        let wanted = channels(severity, self.policy.channels);
        let others = self.policy.channels.iter().copied();
        let mut routes: Vec<&'static str> =
            wanted.into_iter().filter(|name| Some(*name) != not_through).collect();
        if routes.is_empty() {
            routes = others.filter(|name| Some(*name) != not_through).take(1).collect();
        }
        if routes.is_empty() {
            // Nobody to tell; the history has it.
            return;
        }
        let number = self.next;
        self.next += 1;
        let message = Message {
            id: self.book.id(number),
            kind,
            severity,
            title: words.title,
            facts: words.facts,
            advice: words.advice,
            link: self.policy.link.map(str::to_owned),
            children,
            at: self.now,
        };
        let routes = routes.into_iter().map(Route::new).collect();
        let entry = Some(Box::new(Entry { message, alerts, routes }));
        self.changes.push(Change::Entry { number, entry });
    }
}

const fn to_alert<'a>(firing: &Firing<'a>) -> Alert<'a> {
    Alert { key: firing.key, series: firing.series, rule: firing.rule }
}

/// Returns the channel that alerts about a channel must not go through.
fn about_channel<'a>(alerts: &[Firing<'a>]) -> Option<&'a str> {
    let [alert] = alerts else { return None };
    let own = matches!(alert.rule.condition, Condition::Own(_));
    alert.series.labels.get("channel").filter(|_| own).map(String::as_str)
}

fn group(id: &str, severity: Severity, kind: Kind) -> String {
    let kind = match kind {
        Kind::Firing => "firing",
        Kind::Resolved | Kind::Notice | Kind::Test => "resolved",
    };
    format!("{id} {} {kind}", severity.word())
}

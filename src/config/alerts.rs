//! `[alerts]`: when rules are evaluated, which are changed or added, and when nobody wants to hear.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{Place, Problems, quoted};
use super::defaults;
use super::file::{Entry, Table, Value};
use super::reader::{Section, wrong_kind};
use super::values::Fault;
use crate::model::severity::Severity;

/// Grafana's scheduler ticks every 10 s.
const TICK: Duration = Duration::from_secs(10);
const INTERVALS: RangeInclusive<Duration> = TICK..=Duration::from_secs(600);
const TAKEOVERS: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3600);

/// `[alerts]`
#[derive(Debug, Clone, PartialEq)]
pub struct Alerts {
    /// Time between two evaluations of a rule; a multiple of 10 s.
    pub evaluation_interval: Duration,
    /// How long Grafana may be away or not evaluating before periscope sends itself.
    pub takeover_after: Duration,
    /// Whether alerts of other hosts in the same database are periscope's too; `None`: with a database
    /// of its own, where there are no others.
    pub all_hosts: Option<bool>,
    /// `[[alerts.rule]]`, as written: changes of shipped rules, and rules of the user's own.
    pub rules: Vec<toml::Table>,
    /// `[[alerts.mute]]`
    pub mutes: Vec<Mute>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            evaluation_interval: defaults::EVALUATION_INTERVAL,
            takeover_after: defaults::TAKEOVER_AFTER,
            all_hosts: None,
            rules: Vec::new(),
            mutes: Vec::new(),
        }
    }
}

/// `[[alerts.mute]]`: hours of the week in which messages up to a severity are not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mute {
    /// Days on which it begins, Monday being 0; never empty.
    pub days: Vec<u8>,
    /// Begin, minutes since midnight UTC.
    pub from: u16,
    /// End, minutes since midnight UTC; not after `from`: on the next day.
    pub to: u16,
    /// The highest severity that is muted.
    pub severity: Severity,
    /// Id of the rule; `None`: any.
    pub rule: Option<String>,
    /// Name of the daemon; `None`: any.
    pub daemon: Option<String>,
}

/// What is wrong with `[[alerts.rule]]`, as whoever knows the rules says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// Place among the tables, the first being 0, if it is about one.
    pub index: Option<usize>,
    /// `alerts.rule[2].threshold`
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// The next step.
    pub hint: String,
}

/// Judges `[[alerts.rule]]` for daemons that are polled at least this often.
pub type CheckRules = fn(&[toml::Table], Duration) -> Vec<RuleFault>;

/// What `[alerts]` says, and where its rules stand.
pub(super) struct Written {
    pub(super) alerts: Alerts,
    places: Vec<Place>,
}

impl Written {
    /// Reports what `check` finds wrong with the rules.
    pub(super) fn check_rules(
        &self,
        check: CheckRules,
        interval: Duration,
        problems: &mut Problems,
    ) {
        for RuleFault { index, path, message, hint } in check(&self.alerts.rules, interval) {
            let place = index.and_then(|index| self.places.get(index)).unwrap_or(&Place::Default);
            problems.error(place, path, message, Some(hint));
        }
    }
}

pub(super) fn alerts(mut section: Section<'_>, problems: &mut Problems) -> Written {
    let interval = section.duration("evaluation_interval", INTERVALS, problems);
    if interval.is_some_and(|interval| interval.as_nanos() % TICK.as_nanos() != 0) {
        let hint = "Grafana evaluates every 10s, 20s, 30s …";
        section.refuse("evaluation_interval", "is no multiple of 10s", hint, problems);
    }
    let takeover_after = section.duration("takeover_after", TAKEOVERS, problems);
    let all_hosts = section.choice("hosts", &[("own", false), ("all", true)], problems);
    let mut rules = Vec::new();
    let mut places = Vec::new();
    for rule in section.sections("rule", problems) {
        places.push(rule.place().clone());
        rules.push(table(rule.entries(), rule.path(), problems));
    }
    let mutes = section.sections("mute", problems);
    let mutes = mutes.into_iter().filter_map(|mute| self::mute(mute, problems)).collect();
    section.finish(problems);
    let alerts = Alerts {
        evaluation_interval: interval.unwrap_or(defaults::EVALUATION_INTERVAL),
        takeover_after: takeover_after.unwrap_or(defaults::TAKEOVER_AFTER),
        all_hosts,
        rules,
        mutes,
    };
    Written { alerts, places }
}

/// Returns a table as it was written; what no rule can hold is reported.
fn table(entries: &[(String, Entry)], path: &str, problems: &mut Problems) -> toml::Table {
    let mut table = toml::Table::new();
    for (key, entry) in entries {
        let path = format!("{path}.{key}");
        if let Some(value) = value(entry, &path, problems) {
            table.insert(key.clone(), value);
        }
    }
    table
}

fn value(entry: &Entry, path: &str, problems: &mut Problems) -> Option<toml::Value> {
    Some(match &entry.value {
        Value::Text(text) => toml::Value::String(text.clone()),
        // Of the environment or of --set: it is what it looks like.
        Value::Word(text) => {
            let parsed: Result<toml::Value, _> = text.parse();
            parsed.unwrap_or_else(|_| toml::Value::String(text.clone()))
        }
        Value::Integer(number) => toml::Value::Integer(*number),
        Value::Float(number) => toml::Value::Float(*number),
        Value::Boolean(flag) => toml::Value::Boolean(*flag),
        Value::Time => {
            let hint = Some("write text in quotes, or a number".to_owned());
            problems.error(&entry.place, path, wrong_kind(entry), hint);
            return None;
        }
        Value::List(list) => toml::Value::Array(
            list.iter().filter_map(|entry| value(entry, path, problems)).collect(),
        ),
        Value::Table(Table(entries)) => toml::Value::Table(table(entries, path, problems)),
    })
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn mute(mut section: Section<'_>, problems: &mut Problems) -> Option<Mute> {
    let mut days = Vec::new();
    for day in section.texts("days", problems) {
        let found = DAYS.iter().position(|known| day.eq_ignore_ascii_case(known));
        match found.and_then(|index| u8::try_from(index).ok()) {
            Some(index) => days.push(index),
            None => {
                let hint = format!("write some of {}", DAYS.join(", "));
                section.refuse("days", format!("{} is no day", quoted(&day)), hint, problems);
            }
        }
    }
    if days.is_empty() {
        days = (0..7).collect();
    }
    let mut time = |key: &'static str, problems: &mut Problems| {
        if !section.has(key) {
            let hint = Some("write a time of UTC, such as \"22:00\"".to_owned());
            problems.error(section.place(), section.path_of(key), "is missing", hint);
        }
        section.parsed(key, minutes, problems)
    };
    let (from, to) = (time("from", problems), time("to", problems));
    let choices: Vec<_> =
        Severity::ALL.iter().map(|severity| (severity.word(), *severity)).collect();
    let severity = section.choice("severity", &choices, problems).unwrap_or(Severity::Warning);
    let rule = section.text("rule", problems);
    let daemon = section.text("daemon", problems);
    section.finish(problems);
    Some(Mute { days, from: from?, to: to?, severity, rule, daemon })
}

/// Reads `HH:MM`, as minutes since midnight.
fn minutes(text: &str) -> Result<u16, Fault> {
    let digits = |text: &str, limit: u16| {
        let number = text.parse::<u16>().ok().filter(|number| *number < limit);
        number.filter(|_| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let parsed = text
        .trim()
        .split_once(':')
        .and_then(|(hours, minutes)| Some(digits(hours, 24)? * 60 + digits(minutes, 60)?));
    parsed.ok_or_else(|| Fault {
        message: "is no time".to_owned(),
        hint: "write hours and minutes of UTC, such as \"22:00\"".to_owned(),
    })
}

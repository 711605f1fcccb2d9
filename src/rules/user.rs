//! What the user says about rules: changes of shipped ones, and rules of their own.

use std::time::Duration;

use super::catalog;
use super::condition::Condition;
use super::fields::{Fields, words_of};
use super::problem::{Problem, Problems, one_of};
use super::rule::{Rule, Severity};

/// What the user changes of a shipped rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RuleOverride {
    /// Id of the rule.
    pub id: String,
    /// Picks one of several tiers; of a rule with one tier it is the new severity.
    pub severity: Option<Severity>,
    /// New threshold, in the rule's unit.
    pub threshold: Option<f64>,
    /// New `for`.
    pub hold: Option<Duration>,
    /// New window; all tiers unless one is picked.
    pub window: Option<Duration>,
    /// New `keep_firing`; all tiers unless one is picked.
    pub keep_firing: Option<Duration>,
    /// `false` takes the rule (or the picked tier) out.
    pub enabled: Option<bool>,
}

/// Something with the place where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<T> {
    /// `alerts.rule[2]`
    pub path: String,
    /// What was written.
    pub value: T,
}

/// All that the user says about rules.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Changes of shipped rules, in order.
    pub overrides: Vec<Placed<RuleOverride>>,
    /// Rules of their own, as written.
    pub own: Vec<Placed<toml::Table>>,
    /// Longest interval between polls of a daemon: shipped rules are widened to it.
    pub poll_interval: Duration,
}

impl Default for User {
    fn default() -> Self {
        Self { overrides: Vec::new(), own: Vec::new(), poll_interval: Duration::from_secs(5) }
    }
}

/// Sorts the tables of `[[alerts.rule]]` into changes of shipped rules and own rules. Changes that
/// are wrong are left out and reported.
///
/// # Errors
/// The shipped rules themselves cannot be read.
pub fn read(
    rules: &[toml::Table],
    poll_interval: Duration,
    problems: &mut Vec<Problem>,
) -> Result<User, Problems> {
    let shipped = catalog::shipped()?;
    let mut user = User { poll_interval, ..User::default() };
    for (index, table) in rules.iter().enumerate() {
        let path = format!("alerts.rule[{index}]");
        let id = table.get("id").and_then(toml::Value::as_str);
        if shipped.iter().any(|rule| Some(rule.id.as_str()) == id) {
            let change = read_override(table, path.clone(), problems);
            user.overrides.extend(change.map(|value| Placed { path, value }));
        } else {
            user.own.push(Placed { path, value: table.clone() });
        }
    }
    Ok(user)
}

fn read_override(
    table: &toml::Table,
    path: String,
    problems: &mut Vec<Problem>,
) -> Option<RuleOverride> {
    let before = problems.len();
    let mut fields = Fields::new(table, path, problems);
    let id = fields.text("id");
    let change = RuleOverride {
        id: id.clone().unwrap_or_default(),
        severity: fields.word("severity", Severity::from_word, &words_of(Severity::ALL)),
        threshold: fields.number("threshold"),
        hold: fields.duration("for"),
        window: fields.duration("window"),
        keep_firing: fields.duration("keep_firing"),
        enabled: fields.boolean("enabled"),
    };
    fields.finish();
    (problems.len() == before && id.is_some()).then_some(change)
}

/// Applies `change`, which is at `path`.
pub(super) fn apply(
    rules: &mut Vec<Rule>,
    change: &RuleOverride,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let tiers: Vec<Severity> =
        rules.iter().filter(|rule| rule.id == change.id).map(|rule| rule.severity).collect();
    if tiers.is_empty() {
        let known: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        let hint = one_of(&change.id, known);
        problems.push(Problem::new(path, format!("there is no rule {:?}", change.id), hint));
        return;
    }
    let picked = change.severity.filter(|severity| tiers.contains(severity));
    let ambiguous = tiers.len() > 1 && picked.is_none();
    let words: Vec<&str> = tiers.iter().map(|tier| tier.word()).collect();
    if ambiguous && change.severity.is_some() {
        let message = "the rule has no tier of that severity";
        problems.push(Problem::new(path, message, format!("pick one of {}", words.join(", "))));
        return;
    }
    if ambiguous && (change.threshold.is_some() || change.hold.is_some()) {
        let message = "threshold and for differ between the tiers of this rule";
        let hint = format!("add severity = one of {}", words.join(", "));
        problems.push(Problem::new(path, message, hint));
        return;
    }
    let chosen = |rule: &Rule| {
        rule.id == change.id && picked.is_none_or(|severity| rule.severity == severity)
    };
    if change.enabled == Some(false) {
        rules.retain(|rule| !chosen(rule));
        return;
    }
    for rule in rules.iter_mut().filter(|rule| chosen(rule)) {
        rule.severity = change.severity.unwrap_or(rule.severity);
        rule.limit.threshold = change.threshold.unwrap_or(rule.limit.threshold);
        rule.hold = change.hold.unwrap_or(rule.hold);
        rule.keep_firing = change.keep_firing.unwrap_or(rule.keep_firing);
        match (&mut rule.condition, change.window) {
            (_, None) => {}
            (Condition::Rows(measure), Some(window)) => measure.window = window,
            (Condition::Sql { .. } | Condition::Own(_), Some(_)) => {
                let message = "this rule has no window";
                problems.push(Problem::new(format!("{path}.window"), message, "leave it out"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::catalog::tests::{built, one};

    #[test]
    fn the_user_changes_shipped_rules_by_id() {
        let rules = built(
            r#"
            rule = [
                { id = "exchange_disconnected", severity = "critical", for = "10m" },
                { id = "exchange_latency", threshold = 900, window = "10m", severity = "critical" },
                { id = "daemon_restarted", enabled = false },
                { id = "daemon_memory", keep_firing = "30m" },
                { id = "disk_low", severity = "critical", enabled = false },
            ]
            "#,
        )
        .unwrap();
        let critical = one(&rules, "exchange_disconnected", Severity::Critical);
        assert_eq!(critical.hold.as_secs(), 600);
        let warning = one(&rules, "exchange_disconnected", Severity::Warning);
        assert_eq!(warning.hold.as_secs(), 30);
        let latency = one(&rules, "exchange_latency", Severity::Critical);
        assert_eq!(latency.limit.threshold, 900.0);
        let Condition::Rows(measure) = latency.condition else { panic!("rows") };
        assert_eq!(measure.window.as_secs(), 600);
        assert!(!rules.iter().any(|rule| rule.id == "daemon_restarted"));
        assert_eq!(one(&rules, "daemon_memory", Severity::Warning).keep_firing.as_secs(), 1_800);
        assert_eq!(rules.iter().filter(|rule| rule.id == "disk_low").count(), 1);
    }

    #[test]
    fn changes_that_cannot_be_are_refused() {
        let cases = [
            (
                r#"{ id = "daemon_memory", threshold = 1 }"#,
                "add severity = one of warning, critical",
            ),
            (r#"{ id = "daemon_memory", severity = "info" }"#, "has no tier of that severity"),
            (r#"{ id = "questdb_down", window = "5m" }"#, "this rule has no window"),
            (r#"{ id = "exchange_latency", window = "1s" }"#, "window: 1s is shorter"),
            (r#"{ id = "exchange_latency", treshold = 1 }"#, "did you mean \"threshold\"?"),
        ];
        for (change, expected) in cases {
            let problems = built(&format!("rule = [{change}]")).expect_err(change);
            assert!(problems.contains(expected), "{change}\n{problems}");
        }
        let change = RuleOverride { id: "daemon_dwon".to_owned(), ..RuleOverride::default() };
        let user = User {
            overrides: vec![Placed { path: "alerts.rule[0]".to_owned(), value: change }],
            ..User::default()
        };
        let problems = catalog::build(&user).unwrap_err().to_string();
        assert!(problems.contains("did you mean \"daemon_down\"?"), "{problems}");
    }
}

//! `assets/alerts.toml` and what the user says → all rules, checked.

use std::sync::LazyLock;

use super::problem::{Problem, Problems, one_of};
use super::rule::{Rule, Severity};
use super::user::{self, User};
use super::{check, spec};
use crate::base::embed;

/// Where the shipped rules are, under `assets/`.
const SHIPPED: &str = "alerts.toml";

/// Returns the shipped rules as they are.
pub fn shipped() -> Result<Vec<Rule>, Problems> {
    static RULES: LazyLock<Result<Vec<Rule>, Problems>> = LazyLock::new(|| {
        let text = embed::asset_text(SHIPPED).ok_or_else(|| {
            let hint = "build periscope with the folder assets/";
            Problems(vec![Problem::new(SHIPPED, "is not in this binary", hint)])
        })?;
        let mut problems = Vec::new();
        let rules = parse(&text, &mut problems);
        problems.extend(check::check(&rules, User::default().poll_interval));
        if problems.is_empty() { Ok(rules) } else { Err(Problems(problems)) }
    });
    RULES.clone()
}

/// Returns the shipped threshold of a rule: dashboards colour their panels with it.
pub fn threshold(id: &str, severity: Severity) -> Option<f64> {
    find(id, severity).map(|rule| rule.limit.threshold)
}

/// Returns a shipped rule as it is.
pub fn find(id: &str, severity: Severity) -> Option<Rule> {
    shipped().ok()?.into_iter().find(|rule| rule.id == id && rule.severity == severity)
}

/// Returns all rules: the shipped ones, changed as the user says, and the user's own. Or everything
/// that is wrong.
pub fn build(user: &User) -> Result<Vec<Rule>, Problems> {
    let mut rules = shipped()?;
    let mut problems = Vec::new();
    for rule in &mut rules {
        check::fit(rule, user.poll_interval);
    }
    for change in &user.overrides {
        let path = format!("{} {}", change.path, change.value.id);
        user::apply(&mut rules, &change.value, &path, &mut problems);
    }
    for own in &user.own {
        rules.extend(spec::read(&own.value, &own.path, &mut problems));
    }
    problems.extend(check::check(&rules, user.poll_interval));
    if problems.is_empty() { Ok(rules) } else { Err(Problems(problems)) }
}

/// Parses `[[rule]]` tables.
fn parse(text: &str, problems: &mut Vec<Problem>) -> Vec<Rule> {
    let document: toml::Table = match text.parse() {
        Ok(document) => document,
        Err(error) => {
            problems.push(Problem::new(SHIPPED, error.to_string(), "mend the TOML"));
            return Vec::new();
        }
    };
    for key in document.keys().filter(|key| *key != "rule") {
        problems.push(Problem::new(key, "is not a key that is used here", one_of(key, ["rule"])));
    }
    let list = document.get("rule").and_then(toml::Value::as_array);
    let tables = list.into_iter().flatten().filter_map(toml::Value::as_table);
    tables
        .enumerate()
        .flat_map(|(index, table)| spec::read(table, &format!("rule[{index}]"), problems))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rules::condition::{Aggregate, Condition};
    use crate::rules::rule::Comparison;

    fn tables(text: &str) -> Vec<toml::Table> {
        let document: toml::Table = text.parse().unwrap();
        let list = document["rule"].as_array().unwrap();
        list.iter().map(|rule| rule.as_table().unwrap().clone()).collect()
    }

    /// Builds the rules of `[[rule]]` tables, as a user would write them.
    pub(in crate::rules) fn built(text: &str) -> Result<Vec<Rule>, String> {
        let poll = Duration::from_secs(5);
        crate::rules::written::rules(&tables(text), poll).map_err(|problems| problems.to_string())
    }

    /// Returns the one rule of this id and severity.
    pub(in crate::rules) fn one(rules: &[Rule], id: &str, severity: Severity) -> Rule {
        let mut found = rules.iter().filter(|rule| rule.id == id && rule.severity == severity);
        let rule = found.next().unwrap_or_else(|| panic!("no {id}")).clone();
        assert!(found.next().is_none(), "{id} twice");
        rule
    }

    /// Every rule of the requirements, with its severities, thresholds and `for`.
    #[test]
    fn the_shipped_rules_are_those_that_were_asked_for() {
        use Severity::{Critical, Warning};
        let expected = [
            ("daemon_down", Critical, 30.0, 30),
            ("daemon_unreachable", Critical, 0.0, 60),
            ("daemon_stuck", Warning, 3.0, 30),
            ("daemon_restarted", Warning, 0.0, 0),
            ("daemon_error_rate", Warning, 10.0, 120),
            ("daemon_error_ratio", Critical, 0.5, 60),
            ("daemon_memory", Warning, 800e6, 300),
            ("daemon_memory", Critical, 1_200e6, 120),
            ("event_loop_blocked", Warning, 999.0, 10),
            ("exchange_disconnected", Warning, 0.0, 30),
            ("exchange_disconnected", Critical, 0.0, 300),
            ("exchange_latency", Warning, 500.0, 120),
            ("exchange_reconnect_storm", Warning, 5.0, 0),
            ("exchange_silent", Critical, 3.0, 20),
            ("pipeline_gap", Warning, 0.0, 0),
            ("pipeline_gap", Critical, 300.0, 0),
            ("pipeline_stalled", Warning, 3.0, 0),
            ("pipeline_latency", Warning, 500.0, 60),
            ("trading_drawdown", Warning, 0.05, 0),
            ("trading_drawdown", Critical, 0.10, 0),
            ("trading_fill_rate", Warning, 0.5, 0),
            ("spool_growing", Warning, 60.0, 120),
            ("samples_lost", Warning, 0.0, 0),
            ("rows_refused", Warning, 0.0, 0),
            ("questdb_down", Critical, 30.0, 0),
            ("questdb_wal_suspended", Critical, 0.0, 10),
            ("disk_low", Warning, 5e9, 60),
            ("disk_low", Critical, 2e9, 10),
            ("grafana_down", Warning, 30.0, 0),
            ("channel_failing", Critical, 2.0, 0),
            ("canary_lost", Warning, 1.0, 0),
        ];
        let rules = shipped().unwrap_or_else(|problems| panic!("{problems}"));
        let found: Vec<_> = rules
            .iter()
            .map(|rule| {
                (rule.id.as_str(), rule.severity, rule.limit.threshold, rule.hold.as_secs())
            })
            .collect();
        assert_eq!(found, expected);
        for rule in &rules {
            assert!(!rule.description.is_empty() && rule.panel.is_some(), "{}", rule.id);
            assert_eq!(rule.runbook, rule.id.replace('_', "-"));
        }
        assert_eq!(threshold("daemon_memory", Critical), Some(1_200e6));
        assert_eq!(threshold("daemon_memory", Severity::Info), None);
    }

    #[test]
    fn a_good_rule_of_ones_own_joins_the_others() {
        let rules = built(
            r#"
            [[rule]]
            id = "hot"
            title = "Hot"
            table = "daemon_metrics"
            by = ["env", "host", "daemon"]
            aggregate = "avg"
            column = "cpu_percent"
            window = "5m"
            comparison = "above"
            severity = "warning"
            threshold = 90
            for = "1m"
            summary = "{{ $labels.daemon }} is hot: {{ value }}"
            [[rule]]
            id = "mine"
            sql = """SELECT host, cast(count() AS double) AS value FROM daemon_metrics
            WHERE timestamp > dateadd('m', -5, now()) AND last_error = 'a;b' GROUP BY host;"""
            labels = ["host"]
            severity = "info"
            threshold = 1
            summary = "x"
            "#,
        )
        .unwrap_or_else(|problems| panic!("{problems}"));
        let hot = one(&rules, "hot", Severity::Warning);
        assert_eq!((hot.limit.comparison, hot.hold.as_secs()), (Comparison::Above, 60));
        assert_eq!(rules.len(), shipped().unwrap().len() + 2);
    }

    /// Whatever the pace of the polls, the shipped rules stay sound.
    #[test]
    fn shipped_rules_fit_any_pace() {
        for millis in [200, 1_000, 5_000, 7_500, 30_000, 60_000, 900_000, 3_600_000, 20_000_000] {
            let user = User { poll_interval: Duration::from_millis(millis), ..User::default() };
            if let Err(problems) = build(&user) {
                panic!("polls every {millis} ms\n{problems}");
            }
        }
    }

    /// Daemons that are polled once a minute are not down between two polls.
    #[test]
    fn shipped_rules_are_widened_to_slow_polls() {
        let minute = User { poll_interval: Duration::from_secs(60), ..User::default() };
        let rules = build(&minute).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(one(&rules, "daemon_down", Severity::Critical).limit.threshold, 120.0);
        let stuck = one(&rules, "daemon_stuck", Severity::Warning);
        let Condition::Rows(measure) = stuck.condition else { panic!("rows") };
        assert_eq!(measure.fresh, Some(Duration::from_secs(120)));
        let floor = Duration::from_secs(60);
        assert!(
            matches!(measure.aggregate, Aggregate::Quiet { floor: found, .. } if found == floor)
        );
    }
}

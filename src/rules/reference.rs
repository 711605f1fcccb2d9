//! The alert reference: what each rule watches, when it fires, what it says and what to do about it.
//! The page `/runbooks` and `docs/alerts.md` are made from it.

use std::fmt::Write as _;
use std::time::Duration;

use super::condition::{Aggregate, Condition, Literal, Match, Measure};
use super::rule::{Comparison, Rule};
use super::text::{duration, figure};

/// All tiers of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Anchor in the page, without `#`.
    pub anchor: String,
    /// `daemon_memory`
    pub id: String,
    /// `Daemon memory`
    pub title: String,
    /// What it watches: `daemon`.
    pub category: &'static str,
    /// What is measured, in words and names of columns.
    pub measured: String,
    /// When it fires, one for each severity.
    pub tiers: Vec<Tier>,
    /// The first line of its message, with `{label}` for what differs.
    pub summary: String,
    /// The rest of its message.
    pub description: String,
    /// What to look at and do, in order; backticks around code.
    pub steps: Vec<String>,
    /// Uid of the dashboard that shows it.
    pub dashboard: Option<String>,
}

/// One severity of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// `warning`
    pub severity: &'static str,
    /// `above 800MB`
    pub limit: String,
    /// How long it must last; empty: at once.
    pub hold: String,
}

/// Returns a section for each rule, in their order.
pub fn sections(rules: &[Rule]) -> Vec<Section> {
    let mut all: Vec<Section> = Vec::new();
    for rule in rules {
        match all.iter_mut().find(|section| section.id == rule.id) {
            Some(section) => section.tiers.push(tier(rule)),
            None => all.push(section(rule)),
        }
    }
    all
}

fn section(rule: &Rule) -> Section {
    let figures = rule.figures();
    Section {
        anchor: rule.runbook.clone(),
        id: rule.id.clone(),
        title: rule.title.clone(),
        category: rule.category.word(),
        measured: measured(&rule.condition),
        tiers: vec![tier(rule)],
        summary: rule.summary.words(&figures),
        description: rule.description.words(&figures),
        steps: rule.steps.clone(),
        dashboard: rule.panel.as_ref().map(|panel| panel.dashboard.clone()),
    }
}

fn tier(rule: &Rule) -> Tier {
    let side = match rule.limit.comparison {
        Comparison::Above => "above",
        Comparison::Below => "below",
    };
    let hold = if rule.hold.is_zero() { String::new() } else { time(rule.hold) };
    Tier {
        severity: rule.severity.word(),
        limit: format!("{side} {}", figure(rule.unit, rule.limit.threshold)),
        hold,
    }
}

fn time(time: Duration) -> String {
    duration(time.as_secs_f64())
}

fn measured(condition: &Condition) -> String {
    let labels = condition.labels().join(", ");
    match condition {
        Condition::Rows(measure) => format!("{} for each {labels}", rows(measure)),
        Condition::Sql { .. } => format!("a query of its own, for each {labels}"),
        Condition::Own(signal) => {
            format!("periscope's own figure `{}` for each {labels}", signal.word())
        }
    }
}

fn rows(measure: &Measure) -> String {
    let table = measure.table.name;
    let window = time(measure.window);
    let what = match &measure.aggregate {
        Aggregate::Plain { function, column } => {
            format!("{} of `{table}.{}` over {window}", function.word(), column.name)
        }
        Aggregate::Increase { column, per: None } => {
            format!("growth of `{table}.{}` in {window}, restarts not counted", column.name)
        }
        Aggregate::Increase { column, per: Some(per) } => format!(
            "growth of `{table}.{}` over {window} in {}, restarts not counted",
            column.name,
            time(*per)
        ),
        Aggregate::Ratio { column, divisor, at_least } => format!(
            "growth of `{table}.{}` for each of `{}` over {window}, once that has grown by \
             {at_least}",
            column.name, divisor.name
        ),
        Aggregate::Age { state } if state.is_empty() => {
            format!("time since the newest row of `{table}`")
        }
        Aggregate::Age { state } => {
            format!("time since the newest row of `{table}` without {}", matches(state))
        }
        Aggregate::Lasted { state, .. } => {
            format!("time that the newest row of `{table}` has had {}", matches(state))
        }
        Aggregate::Quiet { column, floor } => format!(
            "time since `{table}.{}` changed, in units of its usual gap over {window} (at least {})",
            column.name,
            time(*floor)
        ),
    };
    if measure.filter.is_empty() {
        what
    } else {
        format!("{what}, rows with {}", matches(&measure.filter))
    }
}

fn matches(all: &[Match]) -> String {
    let one = |one: &Match| match &one.value {
        Literal::Bool(value) => format!("`{} = {value}`", one.column.name),
        Literal::Text(value) => format!("`{} = '{value}'`", one.column.name),
    };
    all.iter().map(one).collect::<Vec<_>>().join(" and ")
}

/// Returns the reference as Markdown.
pub fn markdown(rules: &[Rule]) -> String {
    let sections = sections(rules);
    let mut text = String::from(
        "# Alert reference\n\n\
         Made from `assets/alerts.toml` by `periscope alerts reference`; with a configuration it has \
         your own rules and limits. The listener shows the same at `/runbooks`, which messages in \
         Grafana link to.\n\n\
         Every limit, `for`, window and severity can be changed under `[[alerts.rule]]` by the rule's \
         id. `for` is how long it must last; the words in braces differ from alert to alert.\n\n\
         | rule | watches | severity: limit |\n|---|---|---|\n",
    );
    for one in &sections {
        let tiers: Vec<String> =
            one.tiers.iter().map(|tier| format!("{}: {}", tier.severity, tier.words())).collect();
        // Writing to a String cannot fail.
        let _ignored = writeln!(
            text,
            "| [{}](#{}) | {} | {} |",
            one.id,
            one.anchor,
            one.category,
            tiers.join("; ")
        );
    }
    for one in &sections {
        let _ignored = write!(
            text,
            "\n<a id=\"{}\"></a>\n\n## {}\n\n`{}` watches {}.\n\n> **{}** {}\n\n",
            one.anchor, one.title, one.id, one.measured, one.summary, one.description
        );
        for tier in &one.tiers {
            let _ignored = writeln!(text, "- {}: {}", tier.severity, tier.words());
        }
        if !one.steps.is_empty() {
            text.push_str("\nWhat to do:\n\n");
        }
        for (number, step) in one.steps.iter().enumerate() {
            let _ignored = writeln!(text, "{}. {step}", number + 1);
        }
    }
    text
}

impl Tier {
    /// Returns `above 800MB for 5m`.
    pub fn words(&self) -> String {
        if self.hold.is_empty() {
            self.limit.clone()
        } else {
            format!("{} for {}", self.limit, self.hold)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::catalog::{self, tests::built};

    #[test]
    fn every_shipped_rule_has_a_section_with_steps() {
        let rules = catalog::shipped().unwrap();
        let sections = sections(&rules);
        for rule in &rules {
            let section = sections.iter().find(|one| one.id == rule.id).unwrap();
            assert_eq!(section.anchor, rule.runbook);
            assert!(!section.steps.is_empty(), "{}: nothing to do about it", rule.id);
            assert!(section.tiers.iter().any(|tier| tier.severity == rule.severity.word()));
            assert!(!section.summary.contains("{{"), "{}", section.summary);
        }
    }

    #[test]
    fn a_rule_of_ones_own_is_there_too() {
        let rules = built(
            r#"
            [[rule]]
            id = "hot"
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
            runbook = "hot"
            steps = ["Open a window."]
            "#,
        )
        .unwrap();
        let hot = sections(&rules).pop().unwrap();
        assert_eq!(
            (hot.anchor.as_str(), hot.steps.as_slice()),
            ("hot", ["Open a window.".to_owned()].as_slice())
        );
        assert_eq!(
            hot.measured,
            "avg of `daemon_metrics.cpu_percent` over 5m for each env, host, daemon"
        );
        assert_eq!(hot.summary, "{daemon} is hot: {value}");
        assert_eq!(hot.tiers[0].words(), "above 90.00 for 1m");
    }
}

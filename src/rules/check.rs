//! What a rule must be to make sense: nothing that can never fire, never stop firing, or that the
//! database or Grafana would refuse.

use std::collections::BTreeMap;
use std::time::Duration;

use super::condition::{Aggregate, Condition, Function, Measure};
use super::problem::Problem;
use super::rule::{Comparison, Rule};
use crate::model::table::{Column, TABLES, TIMESTAMP};

/// Grafana evaluates in steps of this.
pub const TICK: Duration = Duration::from_secs(10);

/// Older rows are read through hourly views only; see the dashboards.
const LONGEST_WINDOW: Duration = Duration::from_hours(24);

/// Longest `for` and `keep_firing`: beyond a day they are surely a slip.
const LONGEST_HOLD: Duration = Duration::from_hours(24);

/// Labels that Grafana or periscope add.
const RESERVED: [&str; 8] =
    ["alertname", "category", "explains", "grafana_folder", "level", "rule", "severity", "value"];

/// Returns everything that is wrong with `rules`, where daemons are polled at least every `poll`.
pub fn check(rules: &[Rule], poll: Duration) -> Vec<Problem> {
    let mut problems = Vec::new();
    for rule in rules {
        let path = format!("rule {} ({})", rule.id, rule.severity.word());
        let mut report = |key: &str, message: String, hint: &str| {
            problems.push(Problem::new(format!("{path}.{key}"), message, hint));
        };
        names(rule, &mut report);
        times(rule, &mut report);
        limit(rule, &mut report);
        match &rule.condition {
            Condition::Rows(measure) => rows(rule, measure, poll, &mut report),
            Condition::Sql { sql, .. } => statement(sql, &mut report),
            Condition::Own(_) => {}
        }
        templates(rule, &mut report);
    }
    duplicates(rules, &mut problems);
    problems
}

/// Widens what is too short for daemons that are polled every `poll`: with a poll a minute a window
/// of 30 s would be empty half of the time, and a daemon would count as down between two polls.
/// Only shipped rules are widened; what a user writes is checked instead.
pub fn fit(rule: &mut Rule, poll: Duration) {
    let Condition::Rows(measure) = &mut rule.condition else { return };
    let two = seconds_up(poll.saturating_mul(2));
    measure.window = measure.window.max(two);
    measure.fresh = measure.fresh.map(|fresh| fresh.max(two));
    match &mut measure.aggregate {
        Aggregate::Age { .. } => {
            rule.limit.threshold = rule.limit.threshold.max(two.as_secs_f64());
        }
        Aggregate::Quiet { floor, .. } => *floor = (*floor).max(seconds_up(poll)),
        Aggregate::Plain { .. }
        | Aggregate::Increase { .. }
        | Aggregate::Ratio { .. }
        | Aggregate::Lasted { .. } => {}
    }
}

fn seconds_up(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

type Report<'a> = dyn FnMut(&str, String, &str) + 'a;

fn names(rule: &Rule, report: &mut Report<'_>) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = rule.id.starts_with(|c: char| c.is_ascii_lowercase());
    if !starts || !rule.id.chars().all(plain) || rule.id.len() > 64 {
        report(
            "id",
            format!("{:?} is no id", rule.id),
            "use 1 to 64 of a-z, 0-9 and _, a letter first",
        );
    }
    if rule.title.trim().is_empty() || rule.title.len() > 100 {
        report("title", format!("has {} bytes", rule.title.len()), "use 1 to 100");
    }
    for label in rule.condition.labels() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if label.is_empty() || !label.chars().all(word) || RESERVED.contains(&label) {
            report("labels", format!("{label:?} cannot be a label"), "rename the column with AS");
        }
    }
}

fn times(rule: &Rule, report: &mut Report<'_>) {
    let ticks = TICK.as_secs();
    let whole = rule.interval.subsec_nanos() == 0 && rule.interval.as_secs().is_multiple_of(ticks);
    if rule.interval.is_zero() || !whole {
        let message = format!("{:?} is no multiple of 10 s", rule.interval);
        report("interval", message, "use \"10s\", \"20s\", … : Grafana refuses anything else");
    }
    for (key, time) in [("for", rule.hold), ("keep_firing", rule.keep_firing)] {
        if time > LONGEST_HOLD {
            report(key, format!("{time:?} is longer than a day"), "use at most \"24h\"");
        } else if !time.is_zero() && time < rule.interval {
            let message = format!("{time:?} is shorter than the interval of {:?}", rule.interval);
            report(key, message, "use \"0s\", or at least the interval: it cannot be measured");
        } else if time.subsec_nanos() != 0 {
            report(key, format!("{time:?} is not in whole seconds"), "use whole seconds");
        }
    }
}

fn limit(rule: &Rule, report: &mut Report<'_>) {
    let threshold = rule.limit.threshold;
    if !threshold.is_finite() {
        report("threshold", format!("{threshold} is not finite"), "use a number");
        return;
    }
    let never_negative = match &rule.condition {
        Condition::Rows(measure) => match measure.aggregate {
            Aggregate::Plain { function, .. } => function == Function::Count,
            Aggregate::Increase { .. }
            | Aggregate::Ratio { .. }
            | Aggregate::Lasted { .. }
            | Aggregate::Quiet { .. } => true,
            // A row may be dated a little ahead.
            Aggregate::Age { .. } => false,
        },
        Condition::Sql { .. } => false,
        Condition::Own(_) => true,
    };
    match rule.limit.comparison {
        Comparison::Above if never_negative && threshold < 0.0 => report(
            "threshold",
            format!("the value is never negative, so above {threshold} it always fires"),
            "use 0 or more",
        ),
        Comparison::Below if never_negative && threshold <= 0.0 => report(
            "threshold",
            format!("the value is never negative, so below {threshold} it never fires"),
            "use more than 0",
        ),
        Comparison::Above | Comparison::Below => {}
    }
}

fn rows(rule: &Rule, measure: &Measure, poll: Duration, report: &mut Report<'_>) {
    let window = measure.window;
    if window < poll || window < rule.interval {
        let message = format!(
            "{window:?} is shorter than an interval (polls every {poll:?}, evaluated every {:?})",
            rule.interval
        );
        report("window", message, "use at least twice the longer interval");
    }
    if window > LONGEST_WINDOW {
        report("window", format!("{window:?} is longer than a day"), "use at most \"24h\"");
    }
    if window.subsec_nanos() != 0 {
        report("window", format!("{window:?} is not in whole seconds"), "use whole seconds");
    }
    if let Some(fresh) = measure.fresh {
        fresh_rows(rule, measure, fresh, poll, report);
    }
    for (index, column) in measure.by.iter().enumerate() {
        if !column.key {
            let message =
                format!("{} is not part of the key of {}", column.name, measure.table.name);
            let keys: Vec<_> = measure.table.keys().map(|column| column.name).collect();
            report("by", message, &format!("use some of {}", keys.join(", ")));
        }
        if measure.by.iter().take(index).any(|other| other.name == column.name) {
            report("by", format!("{} twice", column.name), "name it once");
        }
    }
    for wanted in ["env", "host"] {
        if !measure.by.iter().any(|column| column.name == wanted) {
            let hint = "add it: rows of several machines may lie in one table";
            report("by", format!("{wanted} is missing"), hint);
        }
    }
    if measure.needs_whole_key() {
        let fixed = |name: &str| measure.filter.iter().any(|one| one.column.name == name);
        let open = |key: &&Column| !measure.by.contains(key) && !fixed(key.name);
        for key in measure.table.keys().filter(open) {
            let hint = "add it: this aggregate looks at one series at a time";
            report("by", format!("{} is missing", key.name), hint);
        }
    }
}

fn fresh_rows(
    rule: &Rule,
    measure: &Measure,
    fresh: Duration,
    poll: Duration,
    report: &mut Report<'_>,
) {
    if fresh > measure.window || fresh < poll || fresh.subsec_nanos() != 0 {
        let message = format!("{fresh:?} does not lie between {poll:?} and the window");
        report("fresh", message, "use whole seconds, twice the interval between polls");
    }
    match &measure.aggregate {
        Aggregate::Age { .. } => report(
            "fresh",
            "a rule about silence cannot look at fresh series alone".to_owned(),
            "leave it out",
        ),
        Aggregate::Quiet { floor, .. } => {
            let soonest = rule.limit.threshold * floor.as_secs_f64();
            if fresh.as_secs_f64() >= soonest {
                let message = format!(
                    "{fresh:?} is not shorter than the {soonest} s after which it fires: a series \
                     that stopped reporting would fire as well"
                );
                report("fresh", message, "use less");
            }
        }
        Aggregate::Plain { .. }
        | Aggregate::Increase { .. }
        | Aggregate::Ratio { .. }
        | Aggregate::Lasted { .. } => {}
    }
}

/// A statement that Grafana and the fallback can run every few seconds, for ever.
fn statement(sql: &str, report: &mut Report<'_>) {
    let text = sql.trim().trim_end_matches(';');
    let bare = without_quoted(text);
    let lower = bare.to_ascii_lowercase();
    if bare.contains(';') {
        let hint = "write one SELECT";
        report("sql", "holds more than one statement".to_owned(), hint);
    }
    if !(lower.starts_with("select") || lower.starts_with("with")) {
        report("sql", "does not begin with SELECT or WITH".to_owned(), "write one SELECT");
    }
    if text.contains("$__") {
        let hint = "bound the time with dateadd('s', -300, now()): periscope runs it as well";
        report("sql", "holds a macro of Grafana".to_owned(), hint);
    }
    let words: Vec<&str> =
        lower.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let reads = TABLES.iter().find(|table| words.contains(&table.name));
    let bounded = words.contains(&TIMESTAMP) && words.contains(&"dateadd");
    if let Some(table) = reads.filter(|_| !bounded) {
        let message = format!("reads {} without a bound on its time", table.name);
        report("sql", message, "add WHERE timestamp > dateadd('s', -300, now())");
    }
    if !words.contains(&"value") {
        report("sql", "has no column called value".to_owned(), "name the number: … AS value");
    }
}

/// Returns `sql` with quoted texts emptied.
fn without_quoted(sql: &str) -> String {
    let outside = sql.split('\'').step_by(2);
    outside.collect::<Vec<_>>().join("''")
}

fn templates(rule: &Rule, report: &mut Report<'_>) {
    let labels = rule.condition.labels();
    for (key, template) in [("summary", &rule.summary), ("description", &rule.description)] {
        for label in template.labels().filter(|label| !labels.contains(label)) {
            let message = format!("$labels.{label} is not a label of this rule");
            report(key, message, &format!("use some of {}", labels.join(", ")));
        }
    }
    if rule.summary.is_empty() {
        report("summary", "is empty".to_owned(), "write one line");
    }
}

/// One name for two rules: Grafana would not start (title), or one would replace the other (uid).
fn duplicates(rules: &[Rule], problems: &mut Vec<Problem>) {
    let mut uids: BTreeMap<String, usize> = BTreeMap::new();
    let mut titles: BTreeMap<String, &str> = BTreeMap::new();
    for rule in rules {
        let path = format!("rule {} ({})", rule.id, rule.severity.word());
        let seen = uids.entry(rule.uid()).or_default();
        *seen += 1;
        if *seen == 2 {
            let hint = "give every rule an id of its own, every tier a severity of its own";
            problems.push(Problem::new(path, "is there twice", hint));
        } else if let Some(other) = titles.insert(rule.full_title(), &rule.id) {
            let message = format!("has the same title as rule {other}");
            problems.push(Problem::new(path, message, "give every rule a title of its own"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::catalog::tests::built;

    #[test]
    fn rules_that_can_never_be_right_are_refused() {
        let rule = |more: &str| {
            format!("[[rule]]\nid = \"own\"\nseverity = \"warning\"\nsummary = \"x\"\n{more}\n")
        };
        let rows = |more: &str| {
            rule(&format!(
                "table = \"daemon_metrics\"\nby = [\"env\", \"host\", \"daemon\"]\n{more}\n"
            ))
        };
        let last = "aggregate = \"last\"\ncolumn = \"cpu_percent\"\n";
        let cases = [
            (rows(&format!("{last}window = \"1s\"\nthreshold = 1")), "window: 1s is shorter"),
            (rows(&format!("{last}window = \"2d\"\nthreshold = 1")), "window: 172800s is longer"),
            (rows(&format!("{last}window = \"5m\"\nthreshold = inf")), "threshold: inf is not"),
            (
                rows(&format!("{last}window = \"5m\"\nthreshold = 1\nfor = \"3s\"")),
                "for: 3s is shorter than the interval",
            ),
            (
                rows(&format!("{last}window = \"5m\"\nthreshold = 1\nkeep_firing = \"2d\"")),
                "keep_firing: 172800s is longer",
            ),
            (
                rows(&format!("{last}window = \"5m\"\nthreshold = 1\ninterval = \"15s\"")),
                "interval: 15s is no multiple",
            ),
            (
                rows(
                    "aggregate = \"increase\"\ncolumn = \"restarts\"\nwindow = \"5m\"\n\
                     threshold = -1",
                ),
                "threshold: the value is never negative, so above -1 it always fires",
            ),
            (
                rows(
                    "aggregate = \"increase\"\ncolumn = \"restarts\"\nwindow = \"5m\"\n\
                     threshold = 0\ncomparison = \"below\"",
                ),
                "threshold: the value is never negative, so below 0 it never fires",
            ),
            (
                rows(
                    "aggregate = \"quiet\"\ncolumn = \"fetch_count\"\nwindow = \"2h\"\n\
                     floor = \"10s\"\nfresh = \"30s\"\nthreshold = 3",
                ),
                "fresh: 30s is not shorter than the 30 s after which it fires",
            ),
            (
                rule(
                    "table = \"exchange_status\"\nby = [\"exchange\", \"latency_ms\"]\n\
                     aggregate = \"last\"\ncolumn = \"latency_ms\"\nwindow = \"5m\"\nthreshold = 1",
                ),
                "by: latency_ms is not part of the key",
            ),
            (
                rule("sql = \"SELECT 1 AS value; DROP TABLE x\"\nlabels = []\nthreshold = 1"),
                "more than one",
            ),
            (
                rule(
                    "sql = \"SELECT host, count() AS value FROM daemon_metrics\"\n\
                     labels = [\"host\"]\nthreshold = 1",
                ),
                "sql: reads daemon_metrics without a bound",
            ),
            (
                rule(
                    "sql = \"SELECT count() AS value FROM daemon_metrics WHERE \
                     $__timeFilter(timestamp)\"\nlabels = []\nthreshold = 1",
                ),
                "sql: holds a macro",
            ),
            (rule("sql = \"DELETE FROM x\"\nlabels = []\nthreshold = 1"), "begin with SELECT"),
            (
                rule("sql = \"SELECT 1 AS value\"\nlabels = [\"severity\"]\nthreshold = 1"),
                "labels: \"severity\" cannot be a label",
            ),
        ];
        for (text, expected) in cases {
            let problems = built(&text).expect_err(&text);
            assert!(problems.contains(expected), "{text}\n{problems}");
        }
        let twice =
            format!("{0}{0}", rule("sql = \"SELECT 1 AS value\"\nlabels = []\nthreshold = 1"));
        assert!(built(&twice).unwrap_err().contains("rule own (warning): is there twice"));
        let unknown = rule("sql = \"SELECT 1 AS value\"\nlabels = []\nthreshold = 1")
            .replace("\"x\"", "\"{{ $labels.daemon }}\"");
        assert!(built(&unknown).unwrap_err().contains("$labels.daemon is not a label"));
    }
}

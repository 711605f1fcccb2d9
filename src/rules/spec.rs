//! Rules as written in TOML → [`Rule`]s, field by field, so that every mistake is found at once.

use std::time::Duration;

use super::condition::{Aggregate, Condition, Function, Measure};
use super::fields::{Fields, words_of};
use super::problem::{Problem, one_of};
use super::rule::{
    Absence, Category, Comparison, Level, Limit, Panel, Rule, Severity, Signal, Unit,
};
use crate::model::table::{self, Kind, Table};

/// Aggregates besides the figures of [`Function`].
const OTHER_AGGREGATES: [&str; 5] = ["increase", "ratio", "age", "lasted", "quiet"];

/// Keys whose meaning depends on the aggregate.
const AGGREGATE_KEYS: [&str; 6] = ["column", "divisor", "at_least", "per", "state", "floor"];

/// Reads one rule: one [`Rule`] for each of its tiers. `path` is its place: `rule[3]`.
///
/// What could not be read has left a problem in `problems`.
pub fn read(table: &toml::Table, path: &str, problems: &mut Vec<Problem>) -> Vec<Rule> {
    let before = problems.len();
    let mut fields = Fields::new(table, path.to_owned(), problems);
    let id = fields.text("id");
    if let Some(id) = &id {
        fields.path = format!("{path} {id}");
    }
    let shared = shared(&mut fields, id.as_deref());
    let tiers = tiers(&mut fields);
    let enabled = fields.boolean("enabled").unwrap_or(true);
    fields.finish();
    let (Some(id), Some(shared)) = (id, shared) else { return Vec::new() };
    if problems.len() > before || !enabled {
        return Vec::new();
    }
    tiers
        .into_iter()
        .map(|tier| Rule {
            id: id.clone(),
            severity: tier.severity,
            limit: Limit { comparison: shared.comparison, threshold: tier.threshold },
            hold: tier.hold,
            ..shared.rule.clone()
        })
        .collect()
}

/// What all tiers of a rule have in common.
struct Shared {
    comparison: Comparison,
    /// Without what is a tier's: severity, limit and `for` are stand-ins.
    rule: Rule,
}

fn shared(fields: &mut Fields<'_>, id: Option<&str>) -> Option<Shared> {
    let title = fields.optional_text("title").or_else(|| id.map(str::to_owned));
    let condition = condition(fields);
    let category = fields.word("category", Category::from_word, &words_of(Category::ALL));
    let level = fields.word("level", Level::from_word, &words_of(Level::ALL));
    let unit = fields.word("unit", Unit::from_word, &words_of(Unit::ALL));
    let comparison = fields.word("comparison", Comparison::from_word, &words_of(Comparison::ALL));
    let on_no_data = fields.word("no_data", Absence::from_word, &words_of(Absence::ALL));
    let on_error = fields.word("on_error", Absence::from_word, &words_of(Absence::ALL));
    let explains = fields.boolean("explains").unwrap_or(false);
    let follows = fields.optional_texts("follows");
    let interval = fields.duration("interval").unwrap_or(Duration::from_secs(10));
    let keep_firing = fields.duration("keep_firing").unwrap_or(Duration::ZERO);
    let summary = fields.template("summary");
    let description = fields.template("description").unwrap_or_default();
    let runbook = runbook(fields, id);
    let steps = fields.optional_texts("steps");
    let dashboard = fields.optional_text("dashboard");
    let panel = fields.optional_text("panel");
    if dashboard.is_some() != panel.is_some() {
        fields.problem("panel", "goes with dashboard", "write both or none");
    }
    if summary.is_none() && !fields.table.contains_key("summary") {
        fields.missing("summary");
    }
    let condition = condition?;
    Some(Shared {
        comparison: comparison.unwrap_or(Comparison::Above),
        rule: Rule {
            id: String::new(),
            severity: Severity::Info,
            title: title?,
            category: category.unwrap_or_else(|| default_category(&condition)),
            level: level.unwrap_or(Level::Symbol),
            explains,
            follows,
            condition,
            unit: unit.unwrap_or(Unit::Number),
            limit: Limit { comparison: Comparison::Above, threshold: 0.0 },
            hold: Duration::ZERO,
            keep_firing,
            interval,
            on_no_data: on_no_data.unwrap_or(Absence::Ok),
            on_error: on_error.unwrap_or(Absence::Keep),
            summary: summary?,
            description,
            runbook,
            steps,
            panel: dashboard.zip(panel).map(|(dashboard, panel)| Panel { dashboard, panel }),
        },
    })
}

/// Reads the anchor of the rule's section; it stands in URLs.
fn runbook(fields: &mut Fields<'_>, id: Option<&str>) -> String {
    let own = || id.unwrap_or_default().replace('_', "-");
    let Some(anchor) = fields.optional_text("runbook") else { return own() };
    if anchor.is_empty() || !anchor.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        let hint = format!("write letters, digits and -, such as {:?}", own());
        fields.problem("runbook", format!("{anchor:?} cannot be an anchor"), hint);
    }
    anchor
}

fn default_category(condition: &Condition) -> Category {
    match condition {
        Condition::Rows(measure) if *measure.table == table::DAEMON_METRICS => Category::Daemon,
        Condition::Rows(measure) if *measure.table == table::EXCHANGE_STATUS => Category::Exchange,
        Condition::Rows(measure) if *measure.table == table::PIPELINE_METRICS => Category::Pipeline,
        Condition::Rows(measure) if *measure.table == table::TRADING_METRICS => Category::Trading,
        Condition::Rows(_) | Condition::Sql { .. } | Condition::Own(_) => Category::System,
    }
}

struct Tier {
    severity: Severity,
    threshold: f64,
    hold: Duration,
}

/// Reads `tiers = [{…}, …]`, or the one tier that is written into the rule itself.
fn tiers(fields: &mut Fields<'_>) -> Vec<Tier> {
    let Some(value) = fields.take("tiers") else {
        return tier(fields).into_iter().collect();
    };
    let Some(list) = value.as_array().filter(|list| !list.is_empty()) else {
        fields.wrong("tiers", value, "a list like [{ severity = \"warning\", threshold = 1 }]");
        return Vec::new();
    };
    let mut found = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let path = format!("{}.tiers[{index}]", fields.path);
        let Some(table) = value.as_table() else {
            fields.problems.push(Problem::new(path, "is no table", "write { severity = …, … }"));
            continue;
        };
        let mut inner = Fields::new(table, path, fields.problems);
        found.extend(tier(&mut inner));
        inner.finish();
    }
    found
}

fn tier(fields: &mut Fields<'_>) -> Option<Tier> {
    let severity = fields.word("severity", Severity::from_word, &words_of(Severity::ALL));
    let threshold = fields.number("threshold");
    let hold = fields.duration("for").unwrap_or(Duration::ZERO);
    for key in ["severity", "threshold"] {
        if !fields.table.contains_key(key) {
            fields.missing(key);
        }
    }
    Some(Tier { severity: severity?, threshold: threshold?, hold })
}

fn condition(fields: &mut Fields<'_>) -> Option<Condition> {
    let kinds = ["table", "sql", "signal"];
    let given: Vec<&str> =
        kinds.into_iter().filter(|kind| fields.table.contains_key(*kind)).collect();
    match given.as_slice() {
        ["sql"] => {
            let sql = fields.text("sql")?;
            let labels = fields.texts("labels")?;
            Some(Condition::Sql { sql, labels })
        }
        ["signal"] => {
            fields.word("signal", Signal::from_word, &words_of(Signal::ALL)).map(Condition::Own)
        }
        ["table"] => measure(fields).map(Condition::Rows),
        _ => {
            let (path, list) = (fields.path.clone(), kinds.join(", "));
            for kind in kinds {
                fields.used.push(kind);
            }
            fields.problems.push(Problem::new(
                path,
                format!("says what to measure {} times", given.len()),
                format!("write exactly one of {list}"),
            ));
            None
        }
    }
}

fn measure(fields: &mut Fields<'_>) -> Option<Measure> {
    let name = fields.text("table")?;
    let known = || table::TABLES.into_iter().map(|table| table.name);
    let Some(table) = table::find(&name) else {
        let hint = one_of(&name, known().collect::<Vec<_>>());
        fields.problem("table", format!("there is no table {name:?}"), hint);
        // What names columns cannot be judged without the table.
        fields.used.extend(["by", "where", "aggregate", "window", "fresh"]);
        fields.used.extend(AGGREGATE_KEYS);
        return None;
    };
    let by: Option<Vec<_>> = fields
        .texts("by")
        .map(|names| names.iter().map(|name| fields.find(table, "by", name)).collect())
        .unwrap_or_default();
    let filter = fields.matches("where", table);
    let window = fields.duration("window");
    if window.is_none() && !fields.table.contains_key("window") {
        fields.missing("window");
    }
    let fresh = fields.duration("fresh");
    let aggregate = aggregate(fields, table);
    Some(Measure { table, by: by?, filter: filter?, aggregate: aggregate?, window: window?, fresh })
}

fn aggregate(fields: &mut Fields<'_>, table: &'static Table) -> Option<Aggregate> {
    let Some(name) = fields.text("aggregate") else {
        fields.used.extend(AGGREGATE_KEYS);
        return None;
    };
    if let Some(function) = Function::from_word(&name) {
        let column = fields.column("column", table, &[Kind::Long, Kind::Double])?;
        return Some(Aggregate::Plain { function, column });
    }
    match name.as_str() {
        "increase" => {
            let per = fields.duration("per");
            let column = fields.column("column", table, &[Kind::Long])?;
            Some(Aggregate::Increase { column, per })
        }
        "ratio" => {
            let at_least = fields.number("at_least").unwrap_or(1.0);
            let at_least = fields.whole("at_least", at_least);
            let column = fields.column("column", table, &[Kind::Long]);
            let divisor = fields.column("divisor", table, &[Kind::Long]);
            Some(Aggregate::Ratio { column: column?, divisor: divisor?, at_least: at_least? })
        }
        "age" => Some(Aggregate::Age { state: fields.matches("state", table)? }),
        "lasted" => {
            let state = fields.matches("state", table);
            if state.as_ref().is_some_and(Vec::is_empty) {
                fields.missing("state");
                fields.used.extend(AGGREGATE_KEYS);
                return None;
            }
            let column = match fields.table.contains_key("column") {
                true => Some(fields.column("column", table, &[Kind::Double])?),
                false => None,
            };
            Some(Aggregate::Lasted { state: state?, column })
        }
        "quiet" => {
            let floor = fields.duration("floor");
            if floor.is_none() && !fields.table.contains_key("floor") {
                fields.missing("floor");
            }
            let column = fields.column("column", table, &[Kind::Long, Kind::Timestamp])?;
            Some(Aggregate::Quiet { column, floor: floor? })
        }
        _ => {
            let mut known = words_of(Function::ALL);
            known.extend(OTHER_AGGREGATES);
            let hint = one_of(&name, known);
            fields.problem("aggregate", format!("{name:?} is not known"), hint);
            fields.used.extend(AGGREGATE_KEYS);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::catalog::tests::built;

    #[test]
    fn all_problems_are_reported_at_once_with_place_and_way_out() {
        let problems = built(
            r#"
            [[rule]]
            id = "no_table"
            table = "daemon_metric"
            severity = "bad"
            threshold = "10"
            summary = "{{ valeu }}"
            comparision = "above"
            [[rule]]
            id = "wrong_columns"
            table = "daemon_metrics"
            by = ["host", "demon"]
            where = { running = "yes", last_error = "it's" }
            aggregate = "increase"
            column = "cpu_percent"
            window = "5 m"
            severity = "warning"
            threshold = nan
            summary = "x"
            [[rule]]
            id = "no_aggregate"
            table = "daemon_metrics"
            by = ["env", "host"]
            aggregate = "averge"
            column = "cpu_percent"
            window = "5m"
            severity = "warning"
            threshold = 1
            summary = "x"
            [[rule]]
            id = "nothing"
            severity = "warning"
            threshold = 1
            summary = "x"
            "#,
        )
        .unwrap_err();
        let expected = "\
alerts.rule[0] no_table.table: there is no table \"daemon_metric\"; did you mean \"daemon_metrics\"?
alerts.rule[0] no_table.summary: {{ valeu }} is not known; use {{ $labels.NAME }}, {{ value }}, {{ threshold }} or {{ for }}
alerts.rule[0] no_table.severity: \"bad\" is not known; use one of info, warning, critical
alerts.rule[0] no_table.threshold: \"10\" has the type string; write a number
alerts.rule[0] no_table.comparision: is not a key that is used here; did you mean \"comparison\"?
alerts.rule[1] wrong_columns.by: daemon_metrics has no column \"demon\"; did you mean \"daemon\"?
alerts.rule[1] wrong_columns.where: last_error cannot be \"it's\"; compare BOOLEAN columns with true or false, text columns with plain words
alerts.rule[1] wrong_columns.where: running cannot be \"yes\"; compare BOOLEAN columns with true or false, text columns with plain words
alerts.rule[1] wrong_columns.window: \"5 m\" is no duration; write \"30s\", \"5m\" or \"1h\"
alerts.rule[1] wrong_columns.column: cpu_percent is a DOUBLE column; name a LONG column
alerts.rule[2] no_aggregate.aggregate: \"averge\" is not known; use one of last, avg, min, max, sum, count, increase, ratio, age, lasted, quiet
alerts.rule[3] nothing: says what to measure 0 times; write exactly one of table, sql, signal";
        assert_eq!(problems, expected);
    }

    #[test]
    fn one_mistake_does_not_look_like_many() {
        let problems = |text: &str| built(text).unwrap_err();
        let rest = "severity = \"warning\"\nthreshold = 1\nsummary = \"x\"\nwindow = \"5m\"\n\
                    by = [\"env\", \"host\"]\ntable = \"daemon_metrics\"\nfloor = \"5s\"\n\
                    column = \"cpu_percent\"";
        let no_aggregate = problems(&format!("[[rule]]\nid = \"a\"\n{rest}"));
        assert_eq!(no_aggregate, "alerts.rule[0] a.aggregate: is missing; add it");
        let no_id = problems(&format!("[[rule]]\naggregate = \"avg\"\n{rest}"));
        let expected = "alerts.rule[0].id: is missing; add it\n\
                        alerts.rule[0].floor: is not a key that is used here; did you mean \"for\"?";
        assert_eq!(no_id, expected);
    }

    #[test]
    fn places_are_counted_as_they_were_written() {
        let problems =
            built("rule = [{ id = \"daemon_down\", for = \"1m\" }, { id = \"mine\", signal = 3 }]");
        assert!(
            problems.unwrap_err().contains("alerts.rule[1] mine.signal: 3 has the type integer")
        );
    }
}

//! Checks of a dashboard's JSON: the rules of grafana/dashboard-linter that do not concern
//! Prometheus, under their names, and rules of our own for what Grafana refuses or hides silently.

use std::collections::BTreeSet;

use serde_json::Value;

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Name of the rule.
    pub rule: &'static str,
    /// What breaks it: a panel or variable by name, or the dashboard.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

/// Units that our panels may have; all are on the linter's list.
const UNITS: [&str; 10] =
    ["none", "short", "locale", "bytes", "percent", "percentunit", "ms", "s", "cpm", "wps"];

/// Returns every problem of a dashboard model; empty when it is good.
pub fn problems(model: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    dashboard(model, &mut found);
    variables(model, &mut found);
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for panel in list(model, "/panels") {
        if !ids.insert(panel["id"].as_u64()) || panel["id"].as_u64().is_none() {
            add(&mut found, "panel-id", title(panel), "the id is missing or taken");
        }
        if panel["type"] == "row" {
            continue;
        }
        if !titles.insert(title(panel)) {
            add(&mut found, "panel-title-unique", title(panel), "two panels have this title");
        }
        self::panel(panel, model, &mut found);
    }
    overlaps(model, &mut found);
    found.sort();
    found
}

fn add(found: &mut Vec<Problem>, rule: &'static str, place: &str, message: impl Into<String>) {
    found.push(Problem { rule, place: place.to_owned(), message: message.into() });
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn title(panel: &Value) -> &str {
    text(panel, "/title")
}

fn dashboard(model: &Value, found: &mut Vec<Problem>) {
    if model["editable"] != false {
        add(found, "uneditable-dashboard-rule", "dashboard", "editable is not false");
    }
    if model["schemaVersion"] != 39 {
        add(found, "schema-version", "dashboard", "schemaVersion is not 39");
    }
    if model["timezone"] != "browser" {
        add(found, "time-zone", "dashboard", "timezone is not browser");
    }
    if model["graphTooltip"] != 1 {
        add(found, "shared-crosshair", "dashboard", "graphTooltip is not 1");
    }
    if model.get("id").is_some() {
        add(found, "no-id", "dashboard", "id belongs to one database");
    }
    for (key, wanted) in [("uid", "periscope-"), ("title", ""), ("description", "")] {
        let value = text(model, &format!("/{key}"));
        if value.is_empty() || !value.starts_with(wanted) {
            add(found, "dashboard-identity", key, "missing");
        }
    }
    let kept = |link: &Value| link["keepTime"] == true && link["includeVars"] == true;
    if !list(model, "/links").iter().any(kept) {
        add(found, "links-keep-context", "dashboard", "no link keeps time and variables");
    }
}

fn variables(model: &Value, found: &mut Vec<Problem>) {
    let all = list(model, "/templating/list");
    let sources: Vec<&Value> = all.iter().filter(|one| one["type"] == "datasource").collect();
    match sources.as_slice() {
        [one] if one["name"] == "datasource" && one["label"] == "Data source" => {}
        [_] => add(
            found,
            "template-datasource-rule",
            "datasource",
            "the variable must be called datasource and labelled Data source",
        ),
        _ => add(
            found,
            "template-datasource-rule",
            "dashboard",
            format!("{} variables for the data source instead of one", sources.len()),
        ),
    }
    for one in all.iter().filter(|one| one["type"] == "query") {
        let name = text(one, "/name");
        if one["refresh"] != 2 {
            add(found, "template-on-time-change-reload-rule", name, "refresh is not 2");
        }
        if one["multi"] != true || one["includeAll"] != true {
            add(found, "variable-multi-all", name, "not multi with all");
        }
        if text(one, "/datasource/uid") != "${datasource}" {
            add(found, "variable-datasource", name, "does not use ${datasource}");
        }
        if !text(one, "/query").contains("$__timeFilter(") {
            add(found, "variable-follows-time", name, "does not follow the time picker");
        }
    }
}

fn panel(panel: &Value, model: &Value, found: &mut Vec<Problem>) {
    let place = title(panel);
    if place.is_empty() || text(panel, "/description").is_empty() {
        add(found, "panel-title-description-rule", place, "no title or no description");
    }
    if text(panel, "/datasource/uid") != "${datasource}" {
        add(found, "panel-datasource-rule", place, "does not use ${datasource}");
    }
    let unit = text(panel, "/fieldConfig/defaults/unit");
    if !UNITS.contains(&unit) {
        add(found, "panel-units-rule", place, format!("unit {unit:?}"));
    }
    if text(panel, "/type") == "graph" {
        add(found, "no-graph-panel", place, "the graph panel is gone since Grafana 11");
    }
    if text(panel, "/interval").is_empty() {
        add(found, "panel-min-interval", place, "no min interval");
    }
    if text(panel, "/fieldConfig/defaults/noValue").is_empty() {
        add(found, "panel-no-value", place, "no text for an empty panel");
    }
    let targets = list(panel, "/targets");
    if targets.is_empty() {
        add(found, "panel-no-targets-rule", place, "no query");
    }
    let mut letters = BTreeSet::new();
    for target in targets {
        self::target(target, place, model, found);
        if !letters.insert(text(target, "/refId")) || text(target, "/refId").is_empty() {
            add(found, "target-ref-id", place, "refId is missing or taken");
        }
    }
}

fn target(target: &Value, place: &str, model: &Value, found: &mut Vec<Problem>) {
    let sql = text(target, "/rawSql");
    if text(target, "/datasource/uid") != "${datasource}" {
        add(found, "target-datasource-rule", place, "does not use ${datasource}");
    }
    if !sql.contains("$__timeFilter(") {
        add(found, "target-follows-time", place, "does not follow the time picker");
    }
    let is_series = target["format"] == "time_series" || target["format"] == 0;
    if is_series && !sql.contains(" AS time") {
        add(found, "target-time-column", place, "a time series without a column called time");
    }
    let is_table = target["format"] == "table" || target["format"] == 1;
    if !is_series && !is_table {
        add(found, "target-format", place, "format is mandatory");
    }
    // Panels of one source on a dashboard about another have fewer keys; env and host have all.
    for one in list(model, "/templating/list").iter().filter(|one| one["type"] == "query") {
        let name = text(one, "/name");
        if matches!(name, "env" | "host") && !sql.contains(&format!("${{{name}:sqlstring}}")) {
            add(found, "target-follows-variables", place, format!("does not follow {name}"));
        }
    }
}

/// Panels that share a cell hide each other.
fn overlaps(model: &Value, found: &mut Vec<Problem>) {
    let mut taken = BTreeSet::new();
    for panel in list(model, "/panels") {
        let at = |key: &str| {
            panel.pointer(&format!("/gridPos/{key}")).and_then(Value::as_u64).unwrap_or(0)
        };
        if at("x") + at("w") > 24 || at("w") == 0 || at("h") == 0 {
            add(found, "panel-grid", title(panel), "outside of 24 columns");
        }
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                if !taken.insert((x, y)) {
                    add(found, "panel-grid", title(panel), format!("overlaps at {x},{y}"));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Datasource, render_for};
    use super::*;

    fn model(name: &str) -> Value {
        let files = render_for(Datasource::Postgres, &|_, _| Some(1.0));
        let (_, text) = files.iter().find(|(file, _)| file == name).unwrap();
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn every_dashboard_is_clean_for_both_data_sources() {
        for datasource in [Datasource::Postgres, Datasource::Questdb] {
            for (file, text) in render_for(datasource, &|_, _| Some(1.0)) {
                let found = problems(&serde_json::from_str(&text).unwrap());
                assert!(found.is_empty(), "{file} for {datasource:?}: {found:#?}");
            }
        }
    }

    /// A linter that finds nothing because it looks at nothing would pass the test above.
    #[test]
    fn every_rule_finds_what_it_is_for() {
        let spoil: &[(&str, &str, Value)] = &[
            ("uneditable-dashboard-rule", "/editable", true.into()),
            ("schema-version", "/schemaVersion", 38.into()),
            ("time-zone", "/timezone", "utc".into()),
            ("shared-crosshair", "/graphTooltip", 0.into()),
            ("dashboard-identity", "/uid", "other".into()),
            ("links-keep-context", "/links", Value::Array(Vec::new())),
            ("template-datasource-rule", "/templating/list/0/name", "ds".into()),
            ("template-on-time-change-reload-rule", "/templating/list/1/refresh", 1.into()),
            ("variable-multi-all", "/templating/list/1/multi", false.into()),
            ("variable-datasource", "/templating/list/1/datasource/uid", "x".into()),
            ("variable-follows-time", "/templating/list/1/query", "select 1".into()),
            ("panel-title-description-rule", "/panels/1/description", "".into()),
            ("panel-datasource-rule", "/panels/1/datasource", "QuestDB".into()),
            ("panel-units-rule", "/panels/1/fieldConfig/defaults/unit", "".into()),
            ("no-graph-panel", "/panels/1/type", "graph".into()),
            ("panel-min-interval", "/panels/1/interval", "".into()),
            ("panel-no-value", "/panels/1/fieldConfig/defaults/noValue", "".into()),
            ("panel-no-targets-rule", "/panels/1/targets", Value::Array(Vec::new())),
            ("panel-id", "/panels/1/id", 2.into()),
            ("panel-title-unique", "/panels/1/title", "Uptime".into()),
            ("panel-grid", "/panels/1/gridPos/w", 30.into()),
            ("target-ref-id", "/panels/1/targets/0/refId", "".into()),
            ("target-datasource-rule", "/panels/1/targets/0/datasource/uid", "x".into()),
            ("target-follows-time", "/panels/1/targets/0/rawSql", "select 1".into()),
            ("target-follows-variables", "/panels/1/targets/0/rawSql", "select 1".into()),
            ("target-time-column", "/panels/1/targets/0/rawSql", "select 1".into()),
            ("target-format", "/panels/1/targets/0/format", Value::Null),
        ];
        for (rule, pointer, value) in spoil {
            let mut model = model("health.json");
            *model.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value.clone();
            let found = problems(&model);
            assert!(found.iter().any(|one| one.rule == *rule), "{rule}: {found:?}");
        }
    }
}

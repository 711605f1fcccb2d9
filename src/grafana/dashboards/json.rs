//! From declarations to Grafana's classic dashboard model, schema 39 (Grafana migrates forward
//! only, so 11 and later read it). Keys are sorted, so that a change is a small diff.

use serde_json::{Map, Value, json};

use super::panel::{Annotation, Dashboard, Format, Kind, Panel, Section, Variable};
use super::style::{At, Column, GREEN, Scale, State};
use super::{Datasource, look};

/// Threshold of a rule by its id and severity (`warning` or `critical`).
pub type Thresholds<'a> = &'a dyn Fn(&str, &str) -> Option<f64>;

/// Stands in for a threshold of 0: rules fire above it, Grafana colours from it on.
const ABOVE_ZERO: f64 = 1e-6;

/// Returns `dashboard` as the text of its file.
pub fn file(dashboard: &Dashboard, datasource: Datasource, thresholds: Thresholds<'_>) -> String {
    canonical(model(dashboard, datasource, thresholds))
}

/// Returns a dashboard as its file holds it: sorted keys, two spaces, one line break at the end.
pub fn canonical(model: Value) -> String {
    let model = sorted(model);
    format!("{model:#}\n")
}

/// Returns name and text of the file for a dashboard as Grafana gives it: an export of its page, or
/// the answer of its API. What changes with every save is left out.
///
/// # Errors
/// It is no dashboard; in words.
pub fn imported(answer: Value) -> Result<(String, String), &'static str> {
    let mut model = answer.get("dashboard").cloned().unwrap_or(answer);
    let uid = model.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if uid.is_empty() || !uid.chars().all(plain) {
        return Err("no dashboard with a uid of letters, digits, - and _");
    }
    let Some(fields) = model.as_object_mut().filter(|fields| fields.contains_key("panels")) else {
        return Err("no dashboard: it has no panels; Grafana must export the classic model");
    };
    for gone in ["id", "iteration"] {
        fields.remove(gone);
    }
    // Grafana counts it up; in the repository it says nothing.
    fields.insert("version".to_owned(), 1.into());
    let name = uid.strip_prefix("periscope-").unwrap_or(&uid);
    Ok((format!("{name}.json"), canonical(model)))
}

fn model(dashboard: &Dashboard, datasource: Datasource, thresholds: Thresholds<'_>) -> Value {
    let mut variables = vec![datasource_variable(datasource)];
    variables.extend(dashboard.variables.iter().map(|one| variable(one, datasource)));
    let mut annotations = vec![json!({
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": true,
        "hide": true,
        "iconColor": "rgba(0, 211, 255, 1)",
        "name": "Annotations & Alerts",
        "type": "dashboard",
    })];
    annotations.extend(dashboard.annotations.iter().map(|one| annotation(one, datasource)));
    json!({
        "annotations": {"list": annotations},
        "description": dashboard.description,
        "editable": false,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "links": [{
            "asDropdown": false,
            "icon": "dashboard",
            "includeVars": true,
            "keepTime": true,
            "tags": [super::TAG],
            "targetBlank": false,
            "title": "periscope",
            "tooltip": "the same time and variables on another dashboard",
            "type": "dashboards",
            "url": "",
        }],
        "panels": panels(&dashboard.sections, datasource, thresholds),
        "refresh": dashboard.refresh,
        "schemaVersion": 39,
        "tags": [super::TAG],
        "templating": {"list": variables},
        "time": {"from": format!("now-{}", dashboard.since), "to": "now"},
        "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m", "5m", "15m", "30m", "1h"]},
        "timezone": "browser",
        "title": dashboard.title,
        "uid": super::uid(dashboard.name),
        "version": 1,
        "weekStart": "",
    })
}

/// Returns `value` with the keys of every object in order, whatever features `serde_json` has.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            let entries = entries.into_iter().map(|(key, value)| (key, sorted(value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn reference(datasource: Datasource) -> Value {
    json!({"type": datasource.plugin(), "uid": "${datasource}"})
}

/// Returns a query as the data source reads it.
fn target(sql: &str, format: Format, ref_id: &str, datasource: Datasource) -> Value {
    match datasource {
        Datasource::Postgres => json!({
            "datasource": reference(datasource),
            "editorMode": "code",
            "format": match format {
                Format::TimeSeries => "time_series",
                Format::Table => "table",
            },
            "rawQuery": true,
            "rawSql": sql,
            "refId": ref_id,
        }),
        Datasource::Questdb => json!({
            "datasource": reference(datasource),
            "format": match format {
                Format::TimeSeries => 0,
                Format::Table => 1,
            },
            "meta": {},
            "queryType": "sql",
            "rawSql": sql,
            "refId": ref_id,
        }),
    }
}

fn datasource_variable(datasource: Datasource) -> Value {
    json!({
        "current": {"text": super::DATASOURCE_NAME, "value": super::DATASOURCE_UID},
        "hide": 0,
        "includeAll": false,
        "label": "Data source",
        "multi": false,
        "name": "datasource",
        "options": [],
        "query": datasource.plugin(),
        "refresh": 1,
        "regex": "",
        "skipUrlSync": false,
        "type": "datasource",
    })
}

fn variable(variable: &Variable, datasource: Datasource) -> Value {
    json!({
        "current": {"selected": true, "text": ["All"], "value": ["$__all"]},
        "datasource": reference(datasource),
        "definition": variable.sql,
        "hide": 0,
        "includeAll": true,
        "label": variable.label,
        "multi": true,
        "name": variable.name,
        "options": [],
        "query": variable.sql,
        // On every change of the time range: the values are those of the range.
        "refresh": 2,
        "regex": "",
        "skipUrlSync": false,
        "sort": 1,
        "type": "query",
    })
}

fn annotation(annotation: &Annotation, datasource: Datasource) -> Value {
    json!({
        "datasource": reference(datasource),
        "enable": true,
        "hide": false,
        "iconColor": annotation.color,
        "name": annotation.name,
        "target": target(&annotation.sql, Format::Table, "Annotation", datasource),
    })
}

/// Places the sections below each other and their panels from left to right.
fn panels(sections: &[Section], datasource: Datasource, thresholds: Thresholds<'_>) -> Vec<Value> {
    let mut placed = Vec::new();
    let mut top = 0;
    for section in sections {
        placed.push(json!({
            "collapsed": false,
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": top},
            "id": section.id,
            "panels": [],
            "title": section.title,
            "type": "row",
        }));
        top += 1;
        let (mut left, mut height) = (0, 0);
        for one in &section.panels {
            if left + one.size.0 > 24 {
                (left, top, height) = (0, top + height, 0);
            }
            let place = json!({"h": one.size.1, "w": one.size.0, "x": left, "y": top});
            placed.push(panel(one, place, datasource, thresholds));
            left += one.size.0;
            height = height.max(one.size.1);
        }
        top += height;
    }
    placed
}

fn panel(panel: &Panel, place: Value, datasource: Datasource, thresholds: Thresholds<'_>) -> Value {
    let letters = ["A", "B", "C", "D"];
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip(letters)
        .map(|(query, letter)| target(&query.sql, query.format, letter, datasource))
        .collect();
    json!({
        "datasource": reference(datasource),
        "description": description(panel),
        "fieldConfig": {
            "defaults": defaults(panel, thresholds),
            "overrides": panel
                .columns
                .iter()
                .map(|column| column_override(column, thresholds))
                .collect::<Vec<_>>(),
        },
        "gridPos": place,
        "id": panel.id,
        "interval": panel.min_interval,
        "maxDataPoints": panel.max_points,
        "options": look::options(panel.kind),
        "targets": targets,
        "title": panel.title,
        "type": panel.kind.id(),
    })
}

fn description(panel: &Panel) -> String {
    let about = panel.about;
    let mut text =
        format!("{}\n\n**Healthy:** {}\n\n**If not:** {}", about.what, about.healthy, about.act);
    if !panel.rules.is_empty() {
        text.push_str("\n\n**Alerts:** ");
        text.push_str(&panel.rules.join(", "));
    }
    text
}

fn defaults(panel: &Panel, thresholds: Thresholds<'_>) -> Value {
    let mode = match panel.kind {
        Kind::TimeSeries => "palette-classic",
        Kind::Stat | Kind::StateTimeline | Kind::BarGauge | Kind::Table => "thresholds",
    };
    let mut json = json!({
        "color": {"mode": mode},
        "custom": look::custom(panel),
        "mappings": mappings(&panel.states),
        "noValue": panel.no_value,
        "thresholds": scale(&panel.scale, thresholds),
        "unit": panel.unit.id(),
    });
    let optional = [
        ("decimals", panel.decimals.map(Value::from)),
        ("displayName", panel.series_name.map(Value::from)),
        ("min", panel.range.0.map(Value::from)),
        ("max", panel.range.1.map(Value::from)),
    ];
    if let Some(map) = json.as_object_mut() {
        for (key, value) in optional {
            if let Some(value) = value {
                map.insert(key.to_owned(), value);
            }
        }
    }
    json
}

/// Returns the steps that have a value; those of a rule without such a severity are left out, and
/// with them the colour before: below a lower bound that does not exist nothing is red.
fn scale(scale: &Scale, thresholds: Thresholds<'_>) -> Value {
    let mut base = scale.base;
    let mut steps = Vec::new();
    for (at, color) in &scale.steps {
        let value = match at {
            At::Value(value) => Some(*value),
            At::Rule(rule, severity) => thresholds(rule, severity.word()),
            At::Hold(rule, severity, shipped) => {
                thresholds(&format!("{rule}.for"), severity.word()).or(Some(*shipped))
            }
        };
        match value {
            Some(0.0) => steps.push(json!({"color": color, "value": ABOVE_ZERO})),
            Some(value) => steps.push(json!({"color": color, "value": value})),
            None if steps.is_empty() && scale.base != GREEN => base = color,
            None => {}
        }
    }
    let mut all = vec![json!({"color": base, "value": null})];
    all.extend(steps);
    json!({"mode": "absolute", "steps": all})
}

fn mappings(states: &[State]) -> Value {
    if states.is_empty() {
        return json!([]);
    }
    let options: Map<String, Value> = states
        .iter()
        .enumerate()
        .map(|(index, state)| {
            let shown = json!({"color": state.color, "index": index, "text": state.text});
            (state.value.to_owned(), shown)
        })
        .collect();
    json!([{"options": options, "type": "value"}])
}

fn column_override(column: &Column, thresholds: Thresholds<'_>) -> Value {
    let mut properties = Vec::new();
    if let Some(unit) = column.unit {
        properties.push(json!({"id": "unit", "value": unit.id()}));
    }
    if let Some(width) = column.width {
        properties.push(json!({"id": "custom.width", "value": width}));
    }
    if let Some(colors) = &column.scale {
        properties.push(json!({"id": "thresholds", "value": scale(colors, thresholds)}));
    }
    if !column.states.is_empty() {
        properties.push(json!({"id": "mappings", "value": mappings(&column.states)}));
    }
    if column.scale.is_some() || !column.states.is_empty() {
        let cell = json!({"mode": "basic", "type": "color-background"});
        properties.push(json!({"id": "custom.cellOptions", "value": cell}));
    }
    json!({"matcher": {"id": "byName", "options": column.name}, "properties": properties})
}

#[cfg(test)]
mod tests {
    use super::super::style::{RED, Severity, YELLOW};
    use super::*;

    #[test]
    fn a_step_of_a_rule_takes_its_threshold_and_vanishes_without_one() {
        let rule = |id: &str, severity: &str| match (id, severity) {
            ("memory", "warning") => Some(800.0),
            ("gap", "warning") => Some(0.0),
            ("fill", "warning") => Some(0.5),
            _ => None,
        };
        let steps = |wanted: Scale| scale(&wanted, &rule)["steps"].clone();
        let none = Value::Null;
        assert_eq!(
            steps(Scale::rule("memory")),
            json!([{"color": GREEN, "value": none}, {"color": YELLOW, "value": 800.0}])
        );
        assert_eq!(steps(Scale::rule("gap"))[1]["value"], json!(ABOVE_ZERO));
        // Only a warning: yellow below it, and nothing is ever red.
        assert_eq!(
            steps(Scale::rule_below("fill")),
            json!([{"color": YELLOW, "value": none}, {"color": GREEN, "value": 0.5}])
        );
        let fixed = Scale { base: GREEN, steps: vec![(At::Value(3.0), RED)] };
        assert_eq!(steps(fixed)[1], json!({"color": RED, "value": 3.0}));
        let absent = Scale { base: GREEN, steps: vec![(At::Rule("x", Severity::Critical), RED)] };
        assert_eq!(steps(absent), json!([{"color": GREEN, "value": none}]));
    }

    #[test]
    fn a_dashboard_that_went_through_grafana_comes_back_as_its_file() {
        for dashboard in crate::grafana::dashboards::all() {
            let text = file(&dashboard, Datasource::Postgres, &|_, _| None);
            let mut model: Value = serde_json::from_str(&text).unwrap();
            model["id"] = 7.into();
            model["version"] = 12.into();
            let answer = json!({"dashboard": model, "meta": {"slug": "x"}});
            let name = format!("{}.json", dashboard.name);
            assert_eq!(imported(answer), Ok((name.clone(), text.clone())));
            assert_eq!(imported(model), Ok((name, text)));
        }
        for other in [json!({}), json!({"uid": "../x", "panels": []}), json!({"uid": "x"})] {
            assert!(imported(other).is_err());
        }
    }

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let text = sorted(json!({"b": [{"z": 1, "a": 2}], "a": 1})).to_string();
        assert_eq!(text, r#"{"a":1,"b":[{"a":2,"z":1}]}"#);
    }
}

//! What the page may ask: checked before anything of it comes near a statement. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::grafana::catalog::{Entry, Place};
use crate::grafana::dashboards::Datasource;
use crate::grafana::expand::{self, Scope};

/// Queries of one question.
const QUERIES: usize = 8;
/// Values of one variable.
const VALUES: usize = 2_000;
/// Longest range, milliseconds: the longest retention by default and some.
const LONGEST_MS: i64 = 400 * 86_400_000;
/// End of the latest range: the year 2200.
const LATEST_MS: i64 = 7_258_118_400_000;
/// Fewest points that are worked out, however narrow a panel is.
const FEWEST_POINTS: i64 = 50;

/// A question of the page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// Start of the range, milliseconds since 1970 UTC.
    from: i64,
    /// End of the range.
    to: i64,
    /// Points that fit into the panel.
    #[serde(default = "usual_points")]
    points: i64,
    /// Chosen values by variable.
    #[serde(default)]
    values: BTreeMap<String, Vec<String>>,
    pub(super) queries: Vec<Wanted>,
}

const fn usual_points() -> i64 {
    1_000
}

/// Which query.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub(super) enum Wanted {
    Panel {
        panel: u64,
        #[serde(rename = "refId")]
        ref_id: String,
    },
    Variable {
        variable: String,
    },
    Annotation {
        annotation: String,
    },
}

impl Wanted {
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Panel { panel, ref_id } => Place::Panel(*panel, ref_id.clone()),
            Self::Variable { variable } => Place::Variable(variable.clone()),
            Self::Annotation { annotation } => Place::Annotation(annotation.clone()),
        }
    }
}

/// Why there is no answer, for the reader of the panel.
#[derive(Debug, Serialize)]
pub(super) struct Trouble {
    /// `request`, `away`, `slow` or `failed`.
    pub(super) kind: &'static str,
    /// What happened.
    pub(super) message: String,
    /// What to do.
    pub(super) hint: String,
    /// The statement that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sql: Option<String>,
}

/// A name that came from outside, short enough for a message. The page shows it as text.
pub(super) fn shown(name: &str) -> String {
    name.chars().take(60).collect()
}

fn refused(message: String, hint: &str) -> Trouble {
    Trouble { kind: "request", message, hint: hint.to_owned(), sql: None }
}

/// Returns the question in `body` if it is one that `entry` can be asked.
pub(super) fn checked(entry: &Entry, body: &Bytes) -> Result<Question, Trouble> {
    let question: Question = serde_json::from_slice(body).map_err(|error| {
        refused(format!("this is no question: {error}"), "Load the page again.")
    })?;
    let range = question.to.checked_sub(question.from);
    let inside = question.from >= 0 && question.to <= LATEST_MS;
    if !range.is_some_and(|range| (1..=LONGEST_MS).contains(&range) && inside) {
        let message = format!("{} to {} is no range", question.from, question.to);
        return Err(refused(message, "Choose a start before its end, at most 400 days apart."));
    }
    if question.queries.is_empty() || question.queries.len() > QUERIES {
        let message = format!("{} queries in one question", question.queries.len());
        return Err(refused(message, "Ask for one to eight."));
    }
    for (name, values) in &question.values {
        if !entry.variables.contains(name) {
            let message = format!("there is no variable {}", shown(name));
            return Err(refused(message, "Remove it from the address."));
        }
        let fault = if values.len() > VALUES {
            Some("has more than 2000 values")
        } else {
            values.iter().find_map(|value| expand::check_value(value).err())
        };
        if let Some(fault) = fault {
            let message = format!("a value of variable {name} {fault}");
            return Err(refused(message, "Choose other values."));
        }
    }
    Ok(question)
}

/// Returns the statement of the query at `place`.
pub(super) fn expanded(
    entry: &Entry,
    question: &Question,
    place: &Place,
) -> Result<String, Trouble> {
    let Some(query) = entry.query(place) else {
        let message = format!("the dashboard has no such query: {}", name(place));
        return Err(refused(message, "Load the page again."));
    };
    let points = question.points.clamp(FEWEST_POINTS, query.max_points.max(FEWEST_POINTS));
    let range_ms = question.to.saturating_sub(question.from);
    let scope = Scope {
        from_ms: question.from,
        to_ms: question.to,
        interval_ms: expand::interval_ms(range_ms, points, query.min_interval_ms),
        values: question.values.clone(),
    };
    expand::expand(&query.sql, &scope, Datasource::Postgres)
        .map_err(|error| refused(error.to_string(), "Choose a value, or All, in the list above."))
}

fn name(place: &Place) -> String {
    match place {
        Place::Variable(name) => format!("variable {}", shown(name)),
        Place::Annotation(name) => format!("annotation {}", shown(name)),
        Place::Panel(id, ref_id) => format!("panel {id}, query {}", shown(ref_id)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::grafana::catalog::Catalog;
    use crate::grafana::dashboards;

    fn catalog() -> Catalog {
        Catalog::new(&dashboards::render(&|_, _| None)).unwrap()
    }

    fn question(change: &serde_json::Value) -> Result<Question, String> {
        let mut question = json!({
            "from": 1_764_108_000_000_i64,
            "to": 1_764_111_600_000_i64,
            "values": {"env": ["prod"], "host": ["vps"], "daemon": ["a", "b"]},
            "queries": [{"panel": 1, "refId": "A"}],
        });
        for (key, value) in change.as_object().unwrap() {
            question[key] = value.clone();
        }
        let catalog = catalog();
        let entry = catalog.get("periscope-health").unwrap();
        let body = Bytes::from(question.to_string());
        checked(entry, &body).map_err(|trouble| trouble.message)
    }

    #[test]
    fn only_whole_questions_are_taken() {
        assert!(question(&json!({})).is_ok());
        assert!(question(&json!({"queries": [{"variable": "env"}, {"annotation": "x"}]})).is_ok());
        for (change, word) in [
            (json!({"sql": "DROP TABLE daemon_metrics"}), "sql"),
            (json!({"queries": [{"panel": 1, "refId": "A", "rawSql": "x"}]}), "no question"),
            (json!({"queries": [{"panel": "1; DROP", "refId": "A"}]}), "no question"),
            (json!({"queries": "all"}), "no question"),
            (json!({"queries": []}), "0 queries"),
            (json!({"queries": vec![json!({"variable": "env"}); 9]}), "9 queries"),
            (json!({"from": "now()"}), "no question"),
            (json!({"values": {"env": "prod"}}), "no question"),
            (json!({"values": {"env; DROP": ["x"]}}), "no variable env; DROP"),
            (json!({"values": {"datasource": ["x"]}}), "no variable"),
            (json!({"values": {"env": ["a\u{0}b"]}}), "control characters"),
            (json!({"values": {"env": ["x".repeat(513)]}}), "longer than 512"),
            (json!({"values": {"env": vec!["x"; 2_001]}}), "more than 2000"),
        ] {
            let error = question(&change).unwrap_err();
            assert!(error.contains(word), "{change}: {error}");
        }
    }

    #[test]
    fn ranges_have_an_order_and_an_end() {
        const DAY: i64 = 86_400_000;
        let range = |from: i64, to: i64| question(&json!({"from": from, "to": to}));
        assert!(range(0, 1).is_ok());
        assert!(range(DAY, 401 * DAY).is_ok());
        for (from, to) in [
            (1, 1),
            (2, 1),
            (-1, 1),
            (0, 400 * DAY + 1),
            (i64::MIN, i64::MAX),
            (LATEST_MS, LATEST_MS + 1),
        ] {
            let error = range(from, to).unwrap_err();
            assert!(error.contains("no range"), "{error}");
        }
    }

    #[test]
    fn every_query_of_every_dashboard_expands_with_hostile_values() {
        let catalog = catalog();
        let hostile = "x') UNION ALL SELECT 1 --${__from}$__timeFilter(timestamp)\\";
        let mut count = 0;
        for entry in catalog.entries() {
            let values =
                entry.variables.iter().map(|name| (name.clone(), vec![hostile.to_owned()]));
            for (place, _) in entry.queries() {
                let question = Question {
                    from: 0,
                    to: 1_000,
                    points: i64::MAX,
                    values: values.clone().collect(),
                    queries: Vec::new(),
                };
                let sql = expanded(entry, &question, place).unwrap();
                // Outside of the quoted values nothing of them is left, and nothing unexpanded.
                let quoted = format!("'{}'", hostile.replace('\'', "''"));
                let rest = sql.replace(&quoted, "");
                assert!(!rest.contains("UNION ALL SELECT 1") && !rest.contains('$'), "{rest}");
                count += 1;
            }
        }
        assert!(count > 80, "only {count} queries");
    }

    #[test]
    fn places_and_values_that_are_missing_are_told() {
        let catalog = catalog();
        let entry = catalog.get("periscope-health").unwrap();
        let asked = |place: Place| {
            let question = Question {
                from: 0,
                to: 1_000,
                points: 1_000,
                values: BTreeMap::new(),
                queries: Vec::new(),
            };
            expanded(entry, &question, &place).unwrap_err().message
        };
        assert!(asked(Place::Panel(9_999, "A".to_owned())).contains("panel 9999, query A"));
        assert!(asked(Place::Variable("nothing".to_owned())).contains("variable nothing"));
        assert!(asked(Place::Panel(1, "A".to_owned())).contains("variable env has no value"));
    }
}

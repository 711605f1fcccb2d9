//! Rules as Grafana's file provisioning wants them. Equal input gives equal bytes.
//!
//! What Grafana does with these files (see also the golden files):
//! - any error in them ends it at its start, so [`crate::rules::check`] comes first;
//! - `$NAME` in titles, labels and folder names is replaced by environment variables, so a dollar is
//!   written twice there; annotations and queries are taken as they are;
//! - a rule that is gone from its file stays: it has to be deleted by [`deletions`];
//! - the folder of rules must not be called like a dashboard.

use super::yaml::{Node, document};
use crate::rules::condition::Condition;
use crate::rules::rule::{Absence, Category, Comparison, Rule};
use crate::rules::sql;

/// Folder of the rules. Dashboards are in `Trading`, and one of them is called that too.
pub const FOLDER: &str = "Trading alerts";

/// Uid of the data source.
pub const DATASOURCE: &str = "periscope-questdb";

/// The organisation of a fresh Grafana.
const ORG: i64 = 1;

/// Only so that Grafana accepts the query: the window is in the SQL.
const RANGE_SECONDS: i64 = 600;

const COMMENT: &str = "Made by periscope out of its alert rules; changes here are overwritten.";

/// What the rules refer to.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Where runbooks are, to which `#anchor` is added: the listener's page. `None`: no link.
    pub runbooks: Option<&'a str>,
    /// Returns the id of a panel by the uid of its dashboard and its key; `None` if there is none.
    pub panel: &'a dyn Fn(&str, &str) -> Option<u32>,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("runbooks", &self.runbooks).finish_non_exhaustive()
    }
}

/// Returns the file that creates or replaces all of `rules` that a database can evaluate.
pub fn rules(rules: &[Rule], options: Options<'_>) -> String {
    let groups = groups(rules, options);
    let root = Node::Map(vec![("apiVersion", Node::Int(1)), ("groups", Node::List(groups))]);
    document(COMMENT, &root)
}

/// Returns the groups of all of `rules` that a database can evaluate.
pub fn groups(rules: &[Rule], options: Options<'_>) -> Vec<Node> {
    let mut groups: Vec<((Category, u64), Vec<Node>)> = Vec::new();
    for rule in rules {
        let Some(statement) = sql::query(&rule.condition) else { continue };
        let node = rule_node(rule, &statement, options);
        let key = (rule.category, rule.interval.as_secs());
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, nodes)) => nodes.push(node),
            None => groups.push((key, vec![node])),
        }
    }
    groups.sort_by_key(|(key, _)| *key);
    let groups = groups.into_iter().map(|((category, seconds), nodes)| {
        Node::Map(vec![
            ("orgId", Node::Int(ORG)),
            // All rules of a group share one interval.
            ("name", format!("{} every {seconds}s", category.word()).into()),
            ("folder", interpolated(FOLDER)),
            ("interval", format!("{seconds}s").into()),
            ("rules", Node::List(nodes)),
        ])
    });
    groups.collect()
}

/// Returns the file that deletes the rules with these uids; those that are not there do no harm.
pub fn deletions(uids: &[String]) -> String {
    let mut uids: Vec<&String> = uids.iter().collect();
    uids.sort();
    uids.dedup();
    let list = uids
        .into_iter()
        .map(|uid| Node::Map(vec![("orgId", Node::Int(ORG)), ("uid", uid.clone().into())]));
    let root =
        Node::Map(vec![("apiVersion", Node::Int(1)), ("deleteRules", Node::List(list.collect()))]);
    document(COMMENT, &root)
}

/// Returns the uids of the rules that [`rules`] writes: what a ledger keeps.
pub fn uids(rules: &[Rule]) -> Vec<String> {
    let shown = rules.iter().filter(|rule| !matches!(rule.condition, Condition::Own(_)));
    shown.map(Rule::uid).collect()
}

fn rule_node(rule: &Rule, statement: &str, options: Options<'_>) -> Node {
    let figures = rule.figures();
    let mut annotations = vec![
        ("summary", Node::Text(rule.summary.grafana(&figures))),
        ("description", Node::Text(rule.description.grafana(&figures))),
    ];
    if let Some(base) = options.runbooks {
        annotations.push(("runbook_url", format!("{base}#{}", rule.runbook).into()));
    }
    let panel = rule.panel.as_ref();
    let id = panel.and_then(|panel| (options.panel)(&panel.dashboard, &panel.panel));
    let mut shown_at = Vec::new();
    if let Some((panel, id)) = panel.zip(id) {
        // The fields put the state onto the panel, the annotations the link into messages.
        annotations.push(("__dashboardUid__", panel.dashboard.clone().into()));
        annotations.push(("__panelId__", id.to_string().into()));
        shown_at.push(("dashboardUid", panel.dashboard.clone().into()));
        shown_at.push(("panelId", Node::Int(id.into())));
    }
    let mut fields = vec![
        ("uid", rule.uid().into()),
        ("title", interpolated(&rule.full_title())),
        ("condition", "C".into()),
        ("data", Node::List(vec![query(statement), threshold(rule)])),
        ("noDataState", absence(rule.on_no_data).into()),
        ("execErrState", absence(rule.on_error).into()),
        ("for", seconds(rule.hold)),
        ("keepFiringFor", seconds(rule.keep_firing)),
        ("annotations", Node::Map(annotations)),
        (
            "labels",
            Node::Map(vec![
                ("rule", interpolated(&rule.id)),
                ("severity", rule.severity.word().into()),
                ("category", rule.category.word().into()),
            ]),
        ),
        ("isPaused", Node::Bool(false)),
    ];
    fields.append(&mut shown_at);
    Node::Map(fields)
}

fn query(statement: &str) -> Node {
    Node::Map(vec![
        ("refId", "A".into()),
        ("relativeTimeRange", range(RANGE_SECONDS)),
        ("datasourceUid", DATASOURCE.into()),
        (
            "model",
            Node::Map(vec![
                ("refId", "A".into()),
                // Text columns become labels, the one number the value.
                ("format", "table".into()),
                ("rawQuery", Node::Bool(true)),
                ("editorMode", "code".into()),
                ("rawSql", statement.into()),
                ("intervalMs", Node::Int(1_000)),
                ("maxDataPoints", Node::Int(43_200)),
            ]),
        ),
    ])
}

fn threshold(rule: &Rule) -> Node {
    let side = match rule.limit.comparison {
        Comparison::Above => "gt",
        Comparison::Below => "lt",
    };
    let evaluator = Node::Map(vec![
        ("type", side.into()),
        ("params", Node::List(vec![Node::Number(rule.limit.threshold)])),
    ]);
    Node::Map(vec![
        ("refId", "C".into()),
        ("relativeTimeRange", range(0)),
        ("datasourceUid", "__expr__".into()),
        (
            "model",
            Node::Map(vec![
                ("refId", "C".into()),
                ("type", "threshold".into()),
                ("expression", "A".into()),
                ("conditions", Node::List(vec![Node::Map(vec![("evaluator", evaluator)])])),
            ]),
        ),
    ])
}

fn range(seconds: i64) -> Node {
    Node::Map(vec![("from", Node::Int(seconds)), ("to", Node::Int(0))])
}

fn seconds(duration: std::time::Duration) -> Node {
    format!("{}s", duration.as_secs()).into()
}

/// Grafana's word for what a missing answer means; the same for no data and for errors.
const fn absence(absence: Absence) -> &'static str {
    match absence {
        Absence::Ok => "OK",
        Absence::Keep => "KeepLast",
        Absence::Alert => "Alerting",
    }
}

/// A text in which Grafana would replace `$NAME`.
fn interpolated(text: &str) -> Node {
    text.replace('$', "$$").into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use serde_yaml_ng::Value;

    use super::*;
    use crate::rules::catalog;

    const OPTIONS: Options<'_> = Options {
        runbooks: Some("https://example.org/README.md"),
        panel: &|dashboard, panel| {
            (dashboard.starts_with("periscope-") && panel != "none").then_some(7)
        },
    };

    fn golden(name: &str, text: &str) {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/alerting").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let expected = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text, expected, "{} differs; UPDATE_GOLDEN=1 renews it", path.display());
    }

    #[test]
    fn the_files_are_as_reviewed() {
        let shipped = catalog::shipped().unwrap();
        let text = rules(&shipped, OPTIONS);
        assert_eq!(text, rules(&shipped, OPTIONS), "equal input, equal bytes");
        golden("rules.yaml", &text);
        let gone = ["periscope-b".to_owned(), "periscope-a".to_owned(), "periscope-b".to_owned()];
        golden("deletions.yaml", &deletions(&gone));
    }

    /// What makes Grafana end at its start, or drop a rule; facts from its behaviour.
    #[test]
    fn grafana_would_take_the_file() {
        let shipped = catalog::shipped().unwrap();
        let file: Value = serde_yaml_ng::from_str(&rules(&shipped, OPTIONS)).unwrap();
        let (mut titles, mut seen) = (BTreeSet::new(), Vec::new());
        for group in file["groups"].as_sequence().unwrap() {
            let interval = group["interval"].as_str().unwrap().trim_end_matches('s');
            assert_eq!(interval.parse::<u64>().unwrap() % 10, 0);
            assert_eq!(group["folder"], FOLDER);
            for rule in group["rules"].as_sequence().unwrap() {
                let title = rule["title"].as_str().unwrap();
                assert!(titles.insert(title.to_owned()), "{title} twice in one folder");
                assert!(rule["for"].as_str().unwrap().ends_with('s'));
                let states = ["OK", "KeepLast", "Alerting"];
                assert!(states.contains(&rule["noDataState"].as_str().unwrap()));
                assert!(states.contains(&rule["execErrState"].as_str().unwrap()));
                let range = &rule["data"][0]["relativeTimeRange"];
                assert!(range["from"].as_i64().unwrap() > range["to"].as_i64().unwrap());
                assert_eq!(rule["data"][0]["model"]["format"], "table");
                assert_eq!(rule["data"][1]["refId"], rule["condition"]);
                seen.push(rule["uid"].as_str().unwrap().to_owned());
            }
        }
        let (mut seen, mut expected) = (seen, uids(&shipped));
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected);
        assert!(!seen.iter().any(|uid| uid.contains("questdb-down")), "not for Grafana");
    }

    #[test]
    fn dollars_are_doubled_where_grafana_replaces_them_and_nowhere_else() {
        let mut rule = catalog::shipped().unwrap().remove(0);
        rule.title = "Costs $5 ${HOME}".to_owned();
        let file: Value = serde_yaml_ng::from_str(&rules(&[rule], OPTIONS)).unwrap();
        let written = &file["groups"][0]["rules"][0];
        assert_eq!(written["title"], "Costs $$5 $${HOME} (critical)");
        let summary = written["annotations"]["summary"].as_str().unwrap();
        assert_eq!(summary, "{{ $labels.daemon }} on {{ $labels.host }} is down");
    }

    #[test]
    fn links_are_left_out_where_there_is_nothing_to_link_to() {
        let mut rule = catalog::shipped().unwrap().remove(0);
        rule.panel.as_mut().unwrap().panel = "none".to_owned();
        let file = rules(&[rule], Options { runbooks: None, ..OPTIONS });
        assert!(
            !file.contains("panelId")
                && !file.contains("__panelId__")
                && !file.contains("runbook_url"),
            "{file}"
        );
    }
}

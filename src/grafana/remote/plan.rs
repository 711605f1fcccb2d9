//! Compares what is wanted with what a Grafana has. Only asks.

use std::collections::BTreeSet;

use serde_json::Value;

use super::compare::differences;
use super::desired::{Object, is_ours, names_us};
use crate::grafana::api::{Api, ApiError};
use crate::grafana::provision::ledger::{Kind, Ledger};

/// What has to happen to one object.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is not there.
    Create,
    /// It differs at these places.
    Update(Vec<String>),
    /// It is as it should be.
    Same,
    /// Something else is in its place, which is left alone: why, and the next step.
    Foreign(String),
    /// It is ours and not wanted any longer.
    Remove,
}

/// One object and what has to happen to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it is.
    pub kind: Kind,
    /// Its uid; for rules that are to be made the name of their group.
    pub uid: String,
    /// Its name for people.
    pub title: String,
    /// What has to happen.
    pub change: Change,
}

/// Returns a step for every object of `desired`, in their order, and one for each leftover.
///
/// # Errors
/// Grafana does not answer or refuses to be asked.
pub async fn plan(api: &Api, desired: &[Object], ledger: &Ledger) -> Result<Vec<Step>, ApiError> {
    let contact_points = list(api.get("/api/v1/provisioning/contact-points").await?);
    let policies = api.get("/api/v1/provisioning/policies").await?;
    let mut steps = Vec::new();
    for object in desired {
        let change = match object.kind {
            Kind::Folder => folder(api, object, ledger).await?,
            Kind::Datasource => {
                let path = format!("/api/datasources/uid/{}", object.uid);
                let found = api.find(&path).await?;
                judge(object, found.as_ref(), ledger)
            }
            Kind::Dashboard => dashboard(api, object, ledger).await?,
            Kind::ContactPoint => {
                let found = contact_points.iter().find(|one| has(one, "uid", &object.uid));
                judge(object, found, ledger)
            }
            Kind::Policies => judge(object, route_in(&policies), ledger),
            Kind::Rule => {
                let group = percent(&object.uid);
                let folder = super::desired::RULES;
                let path = format!("/api/v1/provisioning/folder/{folder}/rule-groups/{group}");
                let found = api.find(&path).await?;
                judge(object, found.as_ref(), ledger)
            }
        };
        let (kind, uid, title) = (object.kind, object.uid.clone(), object.title.clone());
        steps.push(Step { kind, uid, title, change });
    }
    steps.extend(leftovers(desired, ledger));
    Ok(steps)
}

/// Returns what the ledger knows and nobody wants any longer, in the order in which it can go.
pub fn leftovers(desired: &[Object], ledger: &Ledger) -> Vec<Step> {
    let order = [
        Kind::Rule,
        Kind::Policies,
        Kind::ContactPoint,
        Kind::Dashboard,
        Kind::Datasource,
        Kind::Folder,
    ];
    let mut steps = Vec::new();
    for kind in order {
        let of_kind = desired.iter().filter(|object| object.kind == kind);
        let kept: BTreeSet<String> = of_kind.flat_map(|object| object.owned.clone()).collect();
        for uid in ledger.leftovers(kind, &kept) {
            steps.push(Step { kind, title: uid.clone(), uid, change: Change::Remove });
        }
    }
    steps
}

/// Decides by what was found at the uid of `object`.
fn judge(object: &Object, found: Option<&Value>, ledger: &Ledger) -> Change {
    let Some(found) = found else { return Change::Create };
    let mut paths = differences(&comparable(object), found);
    // A secret is hidden there; what was last brought is known here.
    if !object.secrets.is_empty() && ledger.secrets_of(&object.uid) != Some(&object.secrets) {
        paths.push("its secret".to_owned());
    }
    if paths.is_empty() { Change::Same } else { Change::Update(paths) }
}

/// Returns what of the body Grafana shows again.
fn comparable(object: &Object) -> Value {
    let mut body = match object.kind {
        Kind::Dashboard => object.body.get("dashboard").cloned().unwrap_or_default(),
        Kind::Folder | Kind::Datasource | Kind::ContactPoint | Kind::Policies | Kind::Rule => {
            object.body.clone()
        }
    };
    if let Some(fields) = body.as_object_mut() {
        for hidden in ["secureJsonData", "id", "version"] {
            fields.remove(hidden);
        }
    }
    body
}

async fn folder(api: &Api, object: &Object, ledger: &Ledger) -> Result<Change, ApiError> {
    let found = api.find(&format!("/api/folders/{}", object.uid)).await?;
    Ok(judge(object, found.as_ref(), ledger))
}

async fn dashboard(api: &Api, object: &Object, ledger: &Ledger) -> Result<Change, ApiError> {
    let found = api.find(&format!("/api/dashboards/uid/{}", object.uid)).await?;
    let Some(found) = found else {
        let search = format!("/api/search?type=dash-db&query={}", percent(&object.title));
        let others = list(api.get(&search).await?);
        let folder = object.body.get("folderUid").and_then(Value::as_str).unwrap_or_default();
        let in_the_way = others
            .iter()
            .find(|one| has(one, "title", &object.title) && has(one, "folderUid", folder));
        return Ok(in_the_way.map_or(Change::Create, |one| {
            let uid = one.get("uid").and_then(Value::as_str).unwrap_or_default();
            Change::Foreign(format!(
                "dashboard {uid} has its title and is not periscope's: rename or move that one"
            ))
        }));
    };
    let model = found.get("dashboard").cloned().unwrap_or_default();
    let tags = model.get("tags").and_then(Value::as_array);
    let is_of_periscope =
        tags.is_some_and(|tags| tags.iter().any(|tag| tag == crate::grafana::dashboards::TAG));
    if !ledger.owns(Kind::Dashboard, &object.uid) && !is_of_periscope {
        return Ok(Change::Foreign(format!(
            "another dashboard has the uid {}: give that one a new uid",
            object.uid
        )));
    }
    Ok(judge(object, Some(&model), ledger))
}

/// Returns our branch of a tree of policies.
pub fn route_in(tree: &Value) -> Option<&Value> {
    tree.get("routes")?.as_array()?.iter().find(|route| is_ours(route))
}

/// Returns `tree` with our branch `route` first, or without any; everything else stays.
pub fn grafted(tree: &Value, route: Option<&Value>) -> Value {
    let mut tree = tree.clone();
    if let Some(fields) = tree.as_object_mut() {
        fields.remove("provenance");
        let old = fields.remove("routes").unwrap_or_default();
        let others = list(old).into_iter().filter(|other| !is_ours(other) && !names_us(other));
        let routes: Vec<Value> = route.cloned().into_iter().chain(others).collect();
        fields.insert("routes".into(), routes.into());
    }
    tree
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Vec::new()
        }
    }
}

fn has(value: &Value, key: &str, text: &str) -> bool {
    value.get(key).and_then(Value::as_str) == Some(text)
}

/// Encodes what must not stand in a path or query as it is.
pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_our_branch_of_the_policies_is_replaced() {
        let recorded = include_str!("../../../tests/data/grafana/policies.json");
        let mut tree: Value = serde_json::from_str(recorded).unwrap();
        let theirs = json!({"receiver": "theirs", "object_matchers": [["team", "=", "x"]]});
        tree["routes"] = json!([theirs]);
        let ours = json!({
            "receiver": "periscope", "object_matchers": [["grafana_folder", "=", "Trading alerts"]]
        });
        let with = grafted(&tree, Some(&ours));
        assert_eq!(with["receiver"], tree["receiver"]);
        assert_eq!(with["routes"], json!([ours, theirs]));
        assert_eq!(route_in(&with), Some(&ours));
        assert_eq!(grafted(&with, Some(&ours)), with, "twice is once");
        let without = grafted(&with, None);
        assert_eq!(without["routes"], json!([theirs]));
    }

    #[test]
    fn names_are_encoded_for_paths() {
        assert_eq!(percent("daemons every 10s/ü"), "daemons%20every%2010s%2F%C3%BC");
    }
}

//! What is to be in a remote Grafana, as the bodies of its API. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::grafana::alerting;
use crate::grafana::dashboards::{DATASOURCE_NAME, DATASOURCE_UID, FOLDER};
use crate::grafana::provision::alerting::{
    Integration, OWN, integrations, policies_json, receivers,
};
use crate::grafana::provision::bundle;
use crate::grafana::provision::ledger::Kind;
use crate::grafana::provision::{Settings, connection};
use crate::grafana::yaml::Node;
use crate::rules::rule::Rule;

/// Uid of the folder of dashboards.
pub const DASHBOARDS: &str = "periscope-dashboards";
/// Uid of the folder of rules.
pub const RULES: &str = "periscope-alerts";

/// One thing that is to be there.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its uid; for rules the name of their group.
    pub uid: String,
    /// Its name for people.
    pub title: String,
    /// The body that makes it.
    pub body: Value,
    /// Uids that the ledger keeps for it: for rules those of the group.
    pub owned: Vec<String>,
    /// Checksum of the secrets in `body`, which Grafana never shows again; empty without any.
    pub secrets: String,
}

impl Object {
    fn new(kind: Kind, uid: &str, title: &str, body: Value) -> Self {
        let (uid, title) = (uid.to_owned(), title.to_owned());
        Self { kind, owned: vec![uid.clone()], uid, title, body, secrets: String::new() }
    }
}

/// Returns everything that is to be there, in the order in which it has to be made.
pub fn desired(settings: &Settings, rules: &[Rule]) -> Vec<Object> {
    let folder = |uid: &str, title: &str| {
        Object::new(Kind::Folder, uid, title, json!({ "uid": uid, "title": title }))
    };
    let mut all =
        vec![folder(DASHBOARDS, FOLDER), folder(RULES, alerting::FOLDER), datasource(settings)];
    for (_, text) in bundle::dashboards(settings, rules) {
        let model: Value = serde_json::from_str(&text).unwrap_or_default();
        let text =
            |key: &str| model.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (uid, title) = (text("uid"), text("title"));
        let body = json!({ "dashboard": model, "folderUid": DASHBOARDS, "overwrite": true });
        all.push(Object::new(Kind::Dashboard, &uid, &title, body));
    }
    all.extend(contact_points(settings));
    all.push(Object::new(Kind::Policies, RULES, "notification policies", route(settings)));
    all.extend(groups(rules, &settings.runbooks));
    all
}

fn datasource(settings: &Settings) -> Object {
    let (connection, password) = (connection(settings), &settings.questdb.password);
    let mut body = Node::Map(connection.fields).json();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("uid".into(), DATASOURCE_UID.into());
        fields.insert("name".into(), DATASOURCE_NAME.into());
        fields.insert("type".into(), settings.datasource.plugin().into());
        fields.insert("access".into(), "proxy".into());
        fields.insert("jsonData".into(), Node::Map(connection.json).json());
        fields.insert("secureJsonData".into(), json!({ "password": password.reveal() }));
    }
    let secrets = digest([password.reveal()]);
    Object { secrets, ..Object::new(Kind::Datasource, DATASOURCE_UID, DATASOURCE_NAME, body) }
}

fn contact_points(settings: &Settings) -> Vec<Object> {
    let integrations = integrations(settings);
    let mut all = Vec::new();
    for (name, kinds) in receivers(settings) {
        for one in integrations.iter().filter(|one| kinds.contains(&one.kind)) {
            let Integration { kind, type_name, settings, .. } = one;
            let uid = format!("{name}-{kind}");
            let fields: serde_json::Map<String, Value> =
                settings.iter().map(|(key, value)| ((*key).to_owned(), value.json())).collect();
            let body = json!({
                "uid": uid, "name": name, "type": type_name, "settings": fields,
                "disableResolveMessage": false,
            });
            let secrets = digest(settings.iter().filter_map(|(_, value)| value.secret()));
            all.push(Object { secrets, ..Object::new(Kind::ContactPoint, &uid, &uid, body) });
        }
    }
    all
}

/// Returns a checksum of secrets; it goes to the ledger, which only its owner can read.
fn digest<'a>(secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha256::new();
    let mut any = false;
    for secret in secrets {
        any = true;
        hasher.update(secret.as_bytes());
        hasher.update([0]);
    }
    if !any {
        return String::new();
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the route of our alerts: a branch of the tree, by the folder of the rules. The rest of
/// the tree is somebody else's.
fn route(settings: &Settings) -> Value {
    let mut route = policies_json(settings);
    if let Some(route) = route.as_object_mut() {
        route.insert("object_matchers".into(), json!([["grafana_folder", "=", alerting::FOLDER]]));
    }
    route
}

/// Whether `route` of a tree of policies is ours.
pub fn is_ours(route: &Value) -> bool {
    let ours = json!([["grafana_folder", "=", alerting::FOLDER]]);
    route.get("object_matchers") == Some(&ours)
}

/// Whether the receiver of `route` is one of ours.
pub fn names_us(route: &Value) -> bool {
    let receiver = route.get("receiver").and_then(Value::as_str).unwrap_or_default();
    receiver.starts_with(OWN)
}

/// Returns the rules in their groups.
fn groups(rules: &[Rule], runbooks: &str) -> Vec<Object> {
    let mut all = Vec::new();
    for group in alerting::groups(rules, bundle::options(runbooks)) {
        let Node::Map(fields) = &group else { continue };
        let fields: BTreeMap<&str, Value> =
            fields.iter().map(|(key, value)| (*key, value.json())).collect();
        let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = text("name").to_owned();
        let seconds: u64 = text("interval").trim_end_matches('s').parse().unwrap_or(10);
        let list = fields.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
        let owned = list.iter().filter_map(|rule| rule.get("uid")?.as_str().map(str::to_owned));
        let owned = owned.collect();
        let list: Vec<Value> = list.into_iter().map(|rule| api_rule(rule, &name)).collect();
        let body = json!({
            "title": name, "folderUid": RULES, "interval": seconds, "rules": list,
        });
        all.push(Object { owned, ..Object::new(Kind::Rule, &name, &name, body) });
    }
    all
}

/// Turns a rule of a file into one of the API, which knows other names and replaces no variables.
fn api_rule(mut rule: Value, group: &str) -> Value {
    let Some(fields) = rule.as_object_mut() else { return rule };
    for gone in ["dashboardUid", "panelId"] {
        fields.remove(gone);
    }
    if let Some(keep) = fields.remove("keepFiringFor") {
        fields.insert("keep_firing_for".into(), keep);
    }
    let plain = |value: &mut Value| {
        if let Some(text) = value.as_str() {
            *value = text.replace("$$", "$").into();
        }
    };
    if let Some(title) = fields.get_mut("title") {
        plain(title);
    }
    if let Some(labels) = fields.get_mut("labels").and_then(Value::as_object_mut) {
        labels.values_mut().for_each(plain);
    }
    fields.insert("ruleGroup".into(), group.into());
    fields.insert("folderUID".into(), RULES.into());
    fields.insert("orgID".into(), 1.into());
    rule
}

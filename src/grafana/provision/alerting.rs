//! Contact points and notification policies. Critical alerts go to every channel, warnings to
//! Telegram or else to the first channel there is, and everything to periscope's own webhook too,
//! which keeps the history and sees that Grafana is alive.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::text::{Unwritable, quoted};
use super::{Grouping, Secrets, Settings};
use crate::base::secret::Secret;

/// Contact point that only tells periscope.
pub const OWN: &str = "periscope";
/// Contact point of warnings.
pub const WARNING: &str = "periscope-warning";
/// Contact point of critical alerts.
pub const CRITICAL: &str = "periscope-critical";
/// Label of the rule that always fires to show that Grafana evaluates and sends; it goes to
/// periscope's webhook alone.
pub const HEARTBEAT: (&str, &str) = ("severity", "heartbeat");

/// Last part of the uid of `[notify.webhook]`; `webhook` is periscope's own.
const USER_WEBHOOK: &str = "user-webhook";

/// One way to tell somebody.
#[derive(Debug)]
pub struct Integration {
    /// Last part of its uid.
    pub kind: &'static str,
    /// Grafana's type.
    pub type_name: &'static str,
    /// Its settings.
    pub settings: Vec<(&'static str, Setting)>,
}

/// A value among the settings of an integration.
#[derive(Debug)]
pub enum Setting {
    /// A word of Grafana's own.
    Word(&'static str),
    /// Yes or no.
    Bool(bool),
    /// What a user writes, and what it is called in errors.
    Text(&'static str, String),
    /// A secret, and the name of the file that holds it.
    Secret(&'static str, Secret),
}

impl Setting {
    /// Returns it as YAML; a secret goes to its file.
    fn yaml(&self, secrets: &mut Secrets) -> Result<String, Unwritable> {
        Ok(match self {
            Self::Word(word) => (*word).to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Text(what, text) => quoted(what, text)?,
            Self::Secret(file, secret) => secrets.reference(file, secret),
        })
    }

    /// Returns it as JSON for Grafana's API, secrets in the clear.
    pub fn json(&self) -> Value {
        match self {
            Self::Word(word) => (*word).into(),
            Self::Bool(value) => (*value).into(),
            Self::Text(_, text) => text.clone().into(),
            Self::Secret(_, secret) => secret.reveal().into(),
        }
    }

    /// Returns the secret, if it is one.
    pub fn secret(&self) -> Option<&str> {
        match self {
            Self::Secret(_, secret) => Some(secret.reveal()),
            Self::Word(_) | Self::Bool(_) | Self::Text(..) => None,
        }
    }
}

/// Returns the uids of all contact points that `settings` make.
pub fn uids(settings: &Settings) -> BTreeSet<String> {
    if !settings.alerting {
        return BTreeSet::new();
    }
    let mut uids = BTreeSet::new();
    for (name, kinds) in receivers(settings) {
        uids.extend(kinds.iter().map(|kind| format!("{name}-{kind}")));
    }
    uids
}

/// Returns contact points and the kinds of their integrations.
pub fn receivers(settings: &Settings) -> Vec<(&'static str, Vec<&'static str>)> {
    let channels = &settings.channels;
    let mut all = Vec::new();
    if channels.telegram.is_some() {
        all.push("telegram");
    }
    if channels.discord.is_some() {
        all.push("discord");
    }
    if channels.email.is_some() {
        all.push("email");
    }
    if channels.webhook.is_some() {
        all.push(USER_WEBHOOK);
    }
    if channels.ntfy.is_some() {
        all.push("ntfy");
    }
    let own = "webhook";
    let mut receivers = vec![(OWN, vec![own])];
    // Telegram stands first, so the first channel is Telegram where there is one.
    if let Some(first) = all.first().copied() {
        receivers.push((WARNING, vec![first, own]));
        receivers.push((CRITICAL, all.into_iter().chain([own]).collect()));
    }
    receivers
}

/// Returns the YAML of all contact points, and of the deletion of those of earlier settings.
///
/// # Errors
/// A value that is empty or holds control characters: Grafana would end on it.
pub fn contact_points(settings: &Settings, secrets: &mut Secrets) -> Result<String, Unwritable> {
    let integrations = integrations(settings);
    let mut yaml = "apiVersion: 1\ncontactPoints:\n".to_owned();
    for (name, kinds) in receivers(settings) {
        // Writing to a String cannot fail.
        let _ignored = write!(yaml, "  - orgId: 1\n    name: {name}\n    receivers:\n");
        for integration in integrations.iter().filter(|one| kinds.contains(&one.kind)) {
            let (kind, type_name) = (integration.kind, integration.type_name);
            let _ignored = write!(
                yaml,
                "      - uid: {name}-{kind}\n        type: {type_name}\n        \
                 disableResolveMessage: false\n        settings:\n"
            );
            for (key, value) in &integration.settings {
                let value = value.yaml(secrets)?;
                let _ignored = writeln!(yaml, "          {key}: {value}");
            }
        }
    }
    let kept = uids(settings);
    let gone: Vec<&String> = settings.retired.iter().filter(|uid| !kept.contains(*uid)).collect();
    if !gone.is_empty() {
        yaml.push_str("deleteContactPoints:\n");
        for uid in gone {
            let uid = quoted("uid of a contact point", uid)?;
            let _ignored = write!(yaml, "  - orgId: 1\n    uid: {uid}\n");
        }
    }
    Ok(yaml)
}

/// Returns every way to tell somebody, periscope's own webhook last.
pub fn integrations(settings: &Settings) -> Vec<Integration> {
    use Setting::{Bool, Text, Word};
    let channels = &settings.channels;
    let mut all = Vec::new();
    if let Some(telegram) = &channels.telegram {
        let settings = vec![
            ("bottoken", Setting::Secret("telegram-token", telegram.token.clone())),
            ("chatid", Text("notify.telegram.chat_id", telegram.chat_id.to_string())),
            // With a parse mode Telegram answers 400 to a stray underscore, and the alert is gone.
            ("parse_mode", Word("None")),
        ];
        all.push(Integration { kind: "telegram", type_name: "telegram", settings });
    }
    if let Some(discord) = &channels.discord {
        let settings = vec![
            ("url", Setting::Secret("discord-webhook-url", discord.webhook_url.clone())),
            ("use_discord_username", Bool(false)),
        ];
        all.push(Integration { kind: "discord", type_name: "discord", settings });
    }
    if let Some(email) = &channels.email {
        let to = Text("notify.email.to", email.to.join(";"));
        let settings = vec![("addresses", to), ("singleEmail", Bool(true))];
        all.push(Integration { kind: "email", type_name: "email", settings });
    }
    if let Some(webhook) = &channels.webhook {
        let url = Setting::Secret("notify-webhook-url", webhook.url.clone());
        let token = webhook.token.clone();
        all.push(posted(
            USER_WEBHOOK,
            url,
            token.map(|t| Setting::Secret("notify-webhook-token", t)),
        ));
    }
    if let Some(ntfy) = &channels.ntfy {
        // The server makes a readable message out of Grafana's JSON.
        let joint = if ntfy.url.reveal().contains('?') { '&' } else { '?' };
        let url = Secret::new(format!("{}{joint}template=grafana", ntfy.url.reveal()));
        let token = ntfy.token.clone().map(|token| Setting::Secret("ntfy-token", token));
        all.push(posted("ntfy", Setting::Secret("ntfy-url", url), token));
    }
    let url = Text("webhook url", settings.webhook.url.clone());
    let token = settings.webhook.token.clone();
    all.push(posted("webhook", url, token.map(|token| Setting::Secret("listen-token", token))));
    all
}

/// Returns what posts Grafana's JSON to `url`.
fn posted(kind: &'static str, url: Setting, token: Option<Setting>) -> Integration {
    let mut settings = vec![("url", url), ("httpMethod", Setting::Word("POST"))];
    if let Some(token) = token {
        settings.push(("authorization_scheme", Setting::Word("Bearer")));
        settings.push(("authorization_credentials", token));
    }
    Integration { kind, type_name: "webhook", settings }
}

/// One branch of the tree of policies.
struct Route<'a> {
    receiver: &'static str,
    matcher: Option<(&'static str, &'static str)>,
    group_by: &'static [&'static str],
    wait: &'a str,
    interval: &'a str,
    repeat: &'a str,
}

/// Returns the root of the tree and its branches.
fn routes(settings: &Settings) -> [Route<'_>; 3] {
    let Grouping { wait, critical_wait, interval, repeat } = &settings.grouping;
    let has_channels = receivers(settings).len() > 1;
    let (default, critical) = if has_channels { (WARNING, CRITICAL) } else { (OWN, OWN) };
    let by_rule: &[&str] = &["alertname", "severity"];
    let branch = |receiver, matcher, wait| Route {
        receiver,
        matcher,
        group_by: by_rule,
        wait,
        interval: interval.as_str(),
        repeat: repeat.as_str(),
    };
    [
        branch(default, None, wait.as_str()),
        Route {
            group_by: &["alertname"],
            interval: "10s",
            repeat: "10s",
            ..branch(OWN, Some(HEARTBEAT), "1s")
        },
        branch(critical, Some(("severity", "critical")), critical_wait.as_str()),
    ]
}

impl Route<'_> {
    /// Returns the lines below `receiver:`, each indented by `depth` spaces.
    fn yaml(&self, depth: usize) -> String {
        let mut lines = Vec::new();
        if let Some((label, value)) = self.matcher {
            lines.push("object_matchers:".to_owned());
            lines.push(format!("  - [{label}, '=', {value}]"));
        }
        lines.push(format!("group_by: [{}]", self.group_by.join(", ")));
        lines.push(format!("group_wait: {}", self.wait));
        lines.push(format!("group_interval: {}", self.interval));
        lines.push(format!("repeat_interval: {}", self.repeat));
        lines.into_iter().map(|line| format!("{}{line}\n", " ".repeat(depth))).collect()
    }

    fn json(&self) -> Value {
        let mut route = json!({
            "receiver": self.receiver,
            "group_by": self.group_by,
            "group_wait": self.wait,
            "group_interval": self.interval,
            "repeat_interval": self.repeat,
        });
        if let (Some((label, value)), Some(fields)) = (self.matcher, route.as_object_mut()) {
            fields.insert("object_matchers".into(), json!([[label, "=", value]]));
        }
        route
    }
}

/// Returns the YAML of the policies. They replace the whole tree of the organisation.
pub fn policies(settings: &Settings) -> String {
    let [root, branches @ ..] = routes(settings);
    let mut yaml = format!(
        "apiVersion: 1\npolicies:\n  - orgId: 1\n    receiver: {}\n{}    routes:\n",
        root.receiver,
        root.yaml(4)
    );
    for branch in branches {
        let _ignored = write!(yaml, "      - receiver: {}\n{}", branch.receiver, branch.yaml(8));
    }
    yaml
}

/// Returns the same tree as JSON for Grafana's API.
pub fn policies_json(settings: &Settings) -> Value {
    let [root, branches @ ..] = routes(settings);
    let mut tree = root.json();
    if let Some(fields) = tree.as_object_mut() {
        fields.insert("routes".into(), branches.iter().map(Route::json).collect());
    }
    tree
}

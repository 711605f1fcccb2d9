//! Contact points and notification policies. Critical alerts go to every channel, warnings to
//! Telegram or else to the first channel there is, and everything to periscope's own webhook too,
//! which keeps the history and sees that Grafana is alive.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::text::{Unwritable, quoted};
use super::{Secrets, Settings};

/// Contact point that only tells periscope.
pub const OWN: &str = "periscope";
/// Contact point of warnings.
pub const WARNING: &str = "periscope-warning";
/// Contact point of critical alerts.
pub const CRITICAL: &str = "periscope-critical";
/// Label of the rule that always fires to show that Grafana evaluates and sends; it goes to
/// periscope's webhook alone.
pub const HEARTBEAT: (&str, &str) = ("severity", "heartbeat");

/// One way to tell somebody.
struct Integration {
    /// Last part of its uid, and Grafana's type.
    kind: &'static str,
    /// Lines of its settings: key and quoted value.
    settings: Vec<(&'static str, String)>,
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
fn receivers(settings: &Settings) -> Vec<(&'static str, Vec<&'static str>)> {
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
    let integrations = integrations(settings, secrets)?;
    let mut yaml = "apiVersion: 1\ncontactPoints:\n".to_owned();
    for (name, kinds) in receivers(settings) {
        // Writing to a String cannot fail.
        let _ignored = write!(yaml, "  - orgId: 1\n    name: {name}\n    receivers:\n");
        for integration in integrations.iter().filter(|one| kinds.contains(&one.kind)) {
            let kind = integration.kind;
            let _ignored = write!(
                yaml,
                "      - uid: {name}-{kind}\n        type: {kind}\n        \
                 disableResolveMessage: false\n        settings:\n"
            );
            for (key, value) in &integration.settings {
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

fn integrations(
    settings: &Settings,
    secrets: &mut Secrets,
) -> Result<Vec<Integration>, Unwritable> {
    let mut all = Vec::new();
    if let Some(telegram) = &settings.channels.telegram {
        all.push(Integration {
            kind: "telegram",
            settings: vec![
                ("bottoken", secrets.reference("telegram-token", &telegram.token)),
                ("chatid", quoted("notify.telegram.chat_id", &telegram.chat_id.to_string())?),
                // With a parse mode Telegram answers 400 to a stray underscore, and the alert is
                // gone.
                ("parse_mode", "None".to_owned()),
            ],
        });
    }
    if let Some(discord) = &settings.channels.discord {
        all.push(Integration {
            kind: "discord",
            settings: vec![
                ("url", secrets.reference("discord-webhook-url", &discord.webhook_url)),
                ("use_discord_username", "false".to_owned()),
            ],
        });
    }
    if let Some(email) = &settings.channels.email {
        let to = quoted("notify.email.to", &email.to.join(";"))?;
        all.push(Integration {
            kind: "email",
            settings: vec![("addresses", to), ("singleEmail", "true".to_owned())],
        });
    }
    let mut webhook = vec![
        ("url", quoted("webhook url", &settings.webhook.url)?),
        ("httpMethod", "POST".to_owned()),
    ];
    if let Some(token) = &settings.webhook.token {
        webhook.push(("authorization_scheme", "Bearer".to_owned()));
        webhook.push(("authorization_credentials", secrets.reference("listen-token", token)));
    }
    all.push(Integration { kind: "webhook", settings: webhook });
    Ok(all)
}

/// Returns the YAML of the policies. They replace the whole tree of the organisation.
pub fn policies(settings: &Settings) -> String {
    let grouping = &settings.grouping;
    let has_channels = receivers(settings).len() > 1;
    let (default, critical) = if has_channels { (WARNING, CRITICAL) } else { (OWN, OWN) };
    let (label, value) = HEARTBEAT;
    format!(
        "apiVersion: 1\npolicies:\n  - orgId: 1\n    receiver: {default}\n    \
         group_by: [alertname, severity]\n    group_wait: {}\n    group_interval: {}\n    \
         repeat_interval: {}\n    routes:\n      \
         - receiver: {OWN}\n        object_matchers:\n          - [{label}, '=', {value}]\n        \
         group_by: [alertname]\n        group_wait: 1s\n        group_interval: 10s\n        \
         repeat_interval: 10s\n      \
         - receiver: {critical}\n        object_matchers:\n          - [severity, '=', critical]\n        \
         group_by: [alertname, severity]\n        group_wait: {}\n        group_interval: {}\n        \
         repeat_interval: {}\n",
        grouping.wait,
        grouping.interval,
        grouping.repeat,
        grouping.critical_wait,
        grouping.interval,
        grouping.repeat,
    )
}

use std::path::Path;

use super::*;
use crate::config::notify::{Discord, Email, Ntfy, Telegram, Tls, Webhook as UserWebhook};

const CANARIES: [&str; 10] = [
    "canary-webhook",
    "canary-hook-token",
    "canary-topic",
    "canary-admin",
    "canary-key",
    "canary-reader",
    "canary-token",
    "canary-telegram",
    "canary-discord",
    "canary-smtp",
];

fn bare() -> Settings {
    Settings {
        folder: "/var/lib/periscope/grafana/conf".into(),
        state: "/var/lib/periscope/grafana".into(),
        server: Server {
            host: "127.0.0.1".to_owned(),
            port: 3000,
            url: None,
            admin_password: Secret::new("canary-admin"),
            secret_key: Secret::new("canary-key"),
            anonymous_viewer: false,
        },
        datasource: Datasource::Postgres,
        questdb: Questdb {
            host: "127.0.0.1".to_owned(),
            port: 8812,
            user: "periscope_reader".to_owned(),
            password: Secret::new("canary-reader"),
        },
        webhook: Webhook { url: "http://127.0.0.1:7480/grafana/webhook".to_owned(), token: None },
        runbooks: "http://127.0.0.1:7480/runbooks".to_owned(),
        channels: Notify::default(),
        grouping: Grouping::default(),
        alerting: true,
        retired: Vec::new(),
    }
}

fn full() -> Settings {
    Settings {
        server: Server { url: Some("https://watch.example.org/".to_owned()), ..bare().server },
        datasource: Datasource::Questdb,
        webhook: Webhook { token: Some(Secret::new("canary-token")), ..bare().webhook },
        channels: Notify {
            telegram: Some(Telegram {
                token: Secret::new("canary-telegram"),
                chat_id: -100_123,
                api_url: "https://api.telegram.org".to_owned(),
            }),
            discord: Some(Discord { webhook_url: Secret::new("https://canary-discord") }),
            email: Some(Email {
                host: "mail.example.org".to_owned(),
                port: 587,
                tls: Tls::Required,
                user: Some("watch".to_owned()),
                password: Some(Secret::new("canary-smtp")),
                from: "watch@example.org".to_owned(),
                to: vec!["one@example.org".to_owned(), "two@example.org".to_owned()],
            }),
            webhook: Some(UserWebhook {
                url: Secret::new("https://canary-webhook"),
                token: Some(Secret::new("canary-hook-token")),
            }),
            ntfy: Some(Ntfy {
                url: Secret::new("https://ntfy.example.org/canary-topic"),
                token: None,
            }),
        },
        retired: vec!["periscope-warning-email".to_owned(), "periscope-critical-email".to_owned()],
        ..bare()
    }
}

fn made(settings: &Settings) -> Vec<File> {
    let dashboards = vec![("health.json".to_owned(), "{}\n".to_owned())];
    files(settings, &dashboards, Some("apiVersion: 1\ngroups: []\n")).unwrap()
}

/// `UPDATE_GOLDEN=1 cargo test --lib provision` renews the files.
fn golden(name: &str, settings: &Settings) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/grafana").join(name);
    let files = made(settings);
    let shown = files.iter().filter(|file| matches!(file.contents, Contents::Text(_)));
    let shown: Vec<&File> = shown.filter(|file| !file.path.starts_with("dashboards/")).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        for file in &shown {
            let path = folder.join(&file.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file.contents.reveal()).unwrap();
        }
    }
    for file in shown {
        let wanted = std::fs::read_to_string(folder.join(&file.path)).unwrap_or_default();
        assert_eq!(file.contents.reveal(), wanted, "{name}/{}; see UPDATE_GOLDEN", file.path);
    }
}

#[test]
fn the_files_are_the_golden_ones() {
    golden("bare", &bare());
    golden("full", &full());
}

#[test]
fn equal_settings_give_equal_bytes() {
    assert_eq!(made(&full()), made(&full()));
}

#[test]
fn no_secret_stands_in_a_file_that_others_may_read() {
    let files = made(&full());
    for file in &files {
        if file.mode != PRIVATE {
            for canary in CANARIES {
                assert!(!file.contents.reveal().contains(canary), "{canary} in {}", file.path);
            }
        }
        let printed = format!("{file:?}");
        assert!(!printed.contains("canary"), "printed: {printed}");
    }
    for canary in CANARIES {
        let private = |file: &&File| file.mode == PRIVATE;
        let found = files.iter().filter(private).any(|f| f.contents.reveal().contains(canary));
        assert!(found, "{canary} is in no file at all");
    }
}

#[test]
fn every_named_secret_file_is_written() {
    let settings = full();
    let files = made(&settings);
    let mut named = 0;
    for file in &files {
        for rest in file.contents.reveal().split("$__file{").skip(1) {
            let path = Path::new(rest.split_once('}').unwrap().0);
            let relative = path.strip_prefix(&settings.folder).unwrap().to_str().unwrap();
            let secret = files.iter().find(|one| one.path == relative);
            assert!(secret.is_some_and(|one| one.mode == PRIVATE), "{}: {relative}", file.path);
            named += 1;
        }
    }
    assert!(named >= 10, "only {named} secrets are named");
}

#[test]
fn without_channels_the_webhook_alone_is_told() {
    let files = made(&bare());
    let text = |path: &str| {
        let found = files.iter().find(|file| file.path == path).unwrap();
        found.contents.reveal().to_owned()
    };
    let contacts = text("provisioning/alerting/contact-points.yaml");
    assert_eq!(contacts.matches("type: webhook").count(), 1);
    assert_eq!(contacts.matches("type: ").count(), 1);
    let policies = text("provisioning/alerting/policies.yaml");
    assert_eq!(policies.matches("receiver: periscope\n").count(), 3, "{policies}");
}

#[test]
fn every_receiver_of_a_policy_exists() {
    for settings in [bare(), full()] {
        let files = made(&settings);
        let all: String = files.iter().map(|file| file.contents.reveal()).collect();
        for line in all.lines().filter(|line| line.contains("receiver: ")) {
            let name = line.split_once("receiver: ").unwrap().1;
            assert!(all.contains(&format!("    name: {name}\n")), "{name}");
        }
    }
}

#[test]
fn warnings_go_to_the_first_channel_and_telegram_is_first() {
    let mut settings = full();
    let uids = alerting::uids(&settings);
    assert!(
        uids.contains("periscope-warning-telegram") && uids.contains("periscope-critical-email")
    );
    assert!(!uids.contains("periscope-warning-email"));
    settings.channels.telegram = None;
    let uids = alerting::uids(&settings);
    assert!(uids.contains("periscope-warning-discord"));
    assert!(!uids.contains("periscope-warning-email"));
}

#[test]
fn only_retired_contact_points_that_are_not_made_again_are_deleted() {
    let files = made(&full());
    let contacts = files.iter().find(|file| file.path.ends_with("contact-points.yaml")).unwrap();
    let (_, deleted) = contacts.contents.reveal().split_once("deleteContactPoints:").unwrap();
    assert!(deleted.contains("\"periscope-warning-email\""), "{deleted}");
    assert!(!deleted.contains("\"periscope-critical-email\""), "{deleted}");
}

#[test]
fn without_alerting_no_rule_and_no_policy_is_left() {
    let settings = Settings { alerting: false, ..full() };
    let paths: Vec<String> = made(&settings).into_iter().map(|file| file.path).collect();
    assert!(
        !paths.iter().any(|path| path.ends_with("rules.yaml") || path.ends_with("policies.yaml"))
    );
    assert!(!paths.contains(&"secrets/telegram-token".to_owned()));
    assert!(alerting::uids(&settings).is_empty());
}

#[test]
fn hostile_values_are_refused_or_stay_values() {
    let mut settings = full();
    if let Some(email) = &mut settings.channels.email {
        email.to = vec!["a@b\ncontactPoints: []".to_owned()];
    }
    let error = files(&settings, &[], None).unwrap_err();
    assert_eq!(error, Unwritable::Control { what: "notify.email.to" });
    let settings = Settings { folder: "/var/$HOME".into(), ..full() };
    assert!(matches!(files(&settings, &[], None), Err(Unwritable::Path { .. })));
    let mut settings = full();
    settings.questdb.user = "r: $ADMIN".to_owned();
    let files = made(&settings);
    let source = files.iter().find(|file| file.path.contains("datasources")).unwrap();
    assert!(source.contents.reveal().contains("username: \"r: $$ADMIN\"\n"));
}

//! `periscope grafana diff|apply|prune` against a stand-in for Grafana's API.

use std::process::Command;

use serde_json::json;

use crate::support::grafana_api::GrafanaApi;

/// A data folder, and the binary on it.
struct Rig {
    folder: tempfile::TempDir,
    api: GrafanaApi,
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("periscope-remote-").tempdir().unwrap();
        Self { folder, api: GrafanaApi::start().await }
    }

    /// Runs `periscope grafana …`; returns exit code and what it printed.
    async fn run(&self, command: &[&str], settings: &[&str]) -> (i32, String) {
        let url = format!("grafana.url=\"{}\"", self.api.url);
        let mut line = Command::new(env!("CARGO_BIN_EXE_periscope"));
        line.arg("grafana").args(command);
        let usual = [
            "grafana.mode=\"remote\"",
            &url,
            "grafana.token=\"canary-token\"",
            "questdb.mode=\"remote\"",
            "questdb.user=\"reader\"",
            "questdb.password=\"canary-questdb\"",
        ];
        for setting in usual.iter().chain(settings) {
            line.args(["--set", setting]);
        }
        line.arg("--data-dir").arg(self.folder.path().join("data"));
        line.current_dir(self.folder.path()).env_remove("PERISCOPE_CONFIG");
        let output = tokio::task::spawn_blocking(move || line.output().unwrap()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        for secret in ["canary-token", "canary-questdb", "canary-telegram"] {
            let warned = text.lines().filter(|line| !line.contains("warning"));
            assert!(warned.into_iter().all(|line| !line.contains(secret)), "{secret}: {text}");
        }
        (output.status.code().unwrap_or(-1), text)
    }
}

const TELEGRAM: [&str; 2] =
    ["notify.telegram.token=\"1:canary-telegram\"", "notify.telegram.chat_id=-5"];

#[tokio::test]
async fn everything_is_created_once_updated_where_it_differs_and_pruned_when_gone() {
    let rig = Rig::start().await;
    let (code, text) = rig.run(&["diff", "--exit-code"], &TELEGRAM).await;
    assert_eq!(code, 3, "{text}");
    assert!(rig.api.writes().is_empty(), "diff writes nothing");
    assert!(text.contains("create") && text.contains("periscope-health"), "{text}");

    let (code, text) = rig.run(&["apply"], &TELEGRAM).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(rig.api.authorization(), "Bearer canary-token");
    assert!(rig.api.object("/api/datasources/uid/periscope-questdb").is_some());
    assert!(rig.api.object("/api/dashboards/uid/periscope-trading").is_some());
    assert!(
        rig.api.object("/api/v1/provisioning/alert-rules/periscope-daemon-down-critical").is_some()
    );
    let telegram = "/api/v1/provisioning/contact-points/periscope-critical-telegram";
    assert!(rig.api.object(telegram).is_some());
    let policies = rig.api.policies();
    assert_eq!(policies["receiver"], "local-webhook", "their own root stays: {policies}");
    assert_eq!(policies["routes"][0]["receiver"], "periscope-warning");
    assert!(!rig.api.writes().is_empty());

    // Again: nothing to do.
    let (code, text) = rig.run(&["apply"], &TELEGRAM).await;
    assert!(code == 0 && text.contains("0 brought"), "{text}");
    assert_eq!(rig.api.writes(), [""; 0], "{text}");

    // One threshold: one group of rules, and the dashboard that it colours.
    let changed = [
        TELEGRAM.as_slice(),
        &["alerts.rule=[{id=\"exchange_latency\",severity=\"warning\",threshold=777}]"],
    ]
    .concat();
    let (code, text) = rig.run(&["apply"], &changed).await;
    assert_eq!(code, 0, "{text}");
    let writes = rig.api.writes();
    assert_eq!(writes.len(), 2, "{writes:?}\n{text}");
    assert!(writes.iter().any(|write| write.contains("/rule-groups/")), "{writes:?}");

    // Another secret behind the same redacted value.
    let other = ["notify.telegram.token=\"1:another\"", "notify.telegram.chat_id=-5"];
    let (_, text) = rig.run(&["diff"], &other).await;
    assert!(text.contains("its secret"), "{text}");

    // A channel that is gone: apply leaves it, prune removes it and nothing else.
    let theirs = json!({"uid": "theirs", "name": "theirs", "type": "email", "settings": {}});
    rig.api.put("/api/v1/provisioning/contact-points/theirs", theirs);
    rig.run(&["apply"], &[]).await;
    assert!(rig.api.object(telegram).is_some());
    rig.api.writes();
    let (code, text) = rig.run(&["prune"], &[]).await;
    assert_eq!(code, 0, "{text}");
    let writes = rig.api.writes();
    assert!(writes.iter().all(|write| write.starts_with("DELETE ")), "{writes:?}");
    assert!(rig.api.object(telegram).is_none());
    assert!(rig.api.object("/api/v1/provisioning/contact-points/theirs").is_some());
    assert!(rig.api.object("/api/dashboards/uid/periscope-trading").is_some());
    let (_, text) = rig.run(&["prune"], &[]).await;
    assert!(text.contains("0 removed"), "{text}");
}

#[tokio::test]
async fn a_foreign_dashboard_is_left_alone() {
    let rig = Rig::start().await;
    let title = "Trading";
    let by_uid = json!({"dashboard": {"uid": "periscope-health", "title": "Mine", "tags": []},
                        "meta": {"folderUid": ""}});
    rig.api.put("/api/dashboards/uid/periscope-health", by_uid.clone());
    let (code, text) = rig.run(&["apply"], &[]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("left alone") && text.contains("give that one a new uid"), "{text}");
    assert_eq!(rig.api.object("/api/dashboards/uid/periscope-health"), Some(by_uid));
    // The same title in the same folder, with a uid of its own.
    let other = Rig::start().await;
    let model: serde_json::Value =
        serde_json::from_str(include_str!("../../dashboards/health.json")).unwrap();
    let by_title = json!({"dashboard": {"uid": "mine", "title": model["title"], "tags": []},
                          "meta": {"folderUid": "periscope-dashboards"}});
    other.api.put("/api/dashboards/uid/mine", by_title.clone());
    let (_, text) = other.run(&["apply"], &[]).await;
    assert!(text.contains("rename or move that one"), "{title}: {text}");
    assert_eq!(other.api.object("/api/dashboards/uid/mine"), Some(by_title));
    assert!(other.api.object("/api/dashboards/uid/periscope-health").is_none());
    let (_, text) = other.run(&["prune"], &[]).await;
    assert!(other.api.object("/api/dashboards/uid/mine").is_some(), "{text}");
}

#[tokio::test]
async fn refusals_name_the_next_step() {
    let rig = Rig::start().await;
    for (status, words) in [
        (401, "is wrong or has expired"),
        (403, "role Admin"),
        (404, "grafana.url"),
        (429, "too many requests"),
        (500, "see the log of that Grafana"),
        (503, "see the log of that Grafana"),
    ] {
        rig.api.refuse(Some(status));
        for command in ["diff", "apply", "prune"] {
            let (code, text) = rig.run(&[command], &[]).await;
            assert_eq!(code, 69, "{status}: {text}");
            assert!(text.contains(words) && text.contains("refuses as told"), "{status}: {text}");
        }
    }
    let (code, text) = rig.run(&["diff"], &["grafana.mode=\"managed\""]).await;
    assert!(code == 78 && text.contains("not \"remote\""), "{code}: {text}");
    let (code, text) = rig.run(&["diff"], &["grafana.url=\"http://127.0.0.1:1\""]).await;
    assert!(code == 69 && text.contains("start Grafana there"), "{code}: {text}");
}

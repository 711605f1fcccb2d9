//! `periscope render`: the files of both servers, equal for equal input, secrets in files of their own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const CONFIG: &str = r#"
[notify.telegram]
token = "1:canary-telegram"
chat_id = -100
[notify.email]
server = "smtps://mail.example.org"
user = "u"
password = "canary-smtp"
from = "p@example.org"
to = ["a@example.org"]
[notify.ntfy]
url = "https://ntfy.example.org/canary-topic"
[[alerts.rule]]
id = "exchange_latency"
severity = "warning"
threshold = 777
"#;

fn periscope(folder: &Path, arguments: &[&str]) -> (i32, String) {
    fs::write(folder.join("periscope.toml"), CONFIG).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_periscope"))
        .args(arguments)
        .arg("--data-dir")
        .arg(folder.join("data"))
        .current_dir(folder)
        .env_remove("PERISCOPE_CONFIG")
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or(-1), err)
}

/// Contents and modes of every file below `folder`.
fn files(folder: &Path) -> BTreeMap<String, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            found.insert(name, (mode, fs::read_to_string(path).unwrap()));
        }
    }
    found
}

#[test]
fn rendering_twice_gives_the_same_bytes_and_no_secret_that_others_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let (code, err) = periscope(folder.path(), &["render", "out"]);
    assert_eq!(code, 0, "{err}");
    let first = files(&out);
    for name in [
        "questdb/server.conf",
        "grafana/grafana.ini",
        "grafana/provisioning/datasources/periscope.yaml",
        "grafana/provisioning/dashboards/periscope.yaml",
        "grafana/provisioning/alerting/rules.yaml",
        "grafana/provisioning/alerting/contact-points.yaml",
        "grafana/provisioning/alerting/policies.yaml",
        "grafana/dashboards/Trading/health.json",
    ] {
        assert!(first.contains_key(name), "{name} is missing: {:?}", first.keys());
    }
    assert!(first["grafana/provisioning/alerting/rules.yaml"].1.contains("777"));
    assert!(first["grafana/dashboards/Trading/exchange.json"].1.contains("777"));
    assert!(first["grafana/grafana.ini"].1.contains("host = mail.example.org:465\n"));
    let mut secrets =
        vec!["canary-telegram".to_owned(), "canary-smtp".into(), "canary-topic".into()];
    for entry in fs::read_dir(folder.path().join("data/secrets")).unwrap() {
        secrets.push(fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    assert!(secrets.len() >= 8, "{}", secrets.len());
    for (name, (mode, text)) in &first {
        if *mode != 0o600 {
            let found = secrets.iter().find(|secret| text.contains(secret.as_str()));
            assert!(found.is_none(), "a secret stands in {name}, mode {mode:o}");
        }
    }
    periscope(folder.path(), &["render", "out"]);
    assert_eq!(first, files(&out));
    // A folder that was not there before gives the same again.
    fs::remove_dir_all(&out).unwrap();
    periscope(folder.path(), &["render", "out"]);
    assert_eq!(first, files(&out));
}

#[test]
fn a_folder_with_other_files_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("out/grafana/precious");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, "x").unwrap();
    let (code, err) = periscope(folder.path(), &["render", "out"]);
    assert_eq!(code, 73, "{err}");
    assert!(err.contains("name another folder"), "{err}");
    assert!(theirs.exists());
    let (code, err) =
        periscope(folder.path(), &["render", "x", "--set", "listen.address=\"127.0.0.1:0\""]);
    assert!(code == 78 && err.contains("listen.address"), "{code}: {err}");
}

#[test]
fn the_dashboards_of_the_repository_are_those_that_it_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (code, err) = periscope(folder.path(), &["render", "--dashboards"]);
    assert_eq!(code, 0, "{err}");
    let committed = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards"));
    let written = files(&folder.path().join("dashboards"));
    let texts = |files: &BTreeMap<String, (u32, String)>| -> Vec<(String, String)> {
        files.iter().map(|(name, (_, text))| (name.clone(), text.clone())).collect()
    };
    assert_eq!(texts(&committed), texts(&written));
}

/// `UPDATE_GOLDEN=1` writes it.
#[test]
fn the_alert_reference_in_the_docs_is_that_of_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_periscope"))
        .args(["alerts", "reference", "--data-dir", "data"])
        .current_dir(folder.path())
        .env_remove("PERISCOPE_CONFIG")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &output.stdout).unwrap();
    }
    assert!(fs::read(&path).unwrap() == output.stdout, "docs/alerts.md is old: UPDATE_GOLDEN=1");
}

#[test]
fn a_dashboard_goes_to_grafana_and_back_without_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    let (code, err) = periscope(folder.path(), &["dashboards", "export", "out"]);
    assert_eq!(code, 0, "{err}");
    let out = folder.path().join("out");
    let text = fs::read_to_string(out.join("exchange.json")).unwrap();
    assert!(text.contains("777"), "the thresholds of one's own rules");
    // As Grafana's API gives it after some edits.
    let mut model: serde_json::Value = serde_json::from_str(&text).unwrap();
    model["id"] = 3.into();
    model["version"] = 9.into();
    let answer = serde_json::json!({"meta": {"version": 9}, "dashboard": model});
    fs::write(folder.path().join("given.json"), answer.to_string()).unwrap();
    let (code, err) =
        periscope(folder.path(), &["dashboards", "import", "given.json", "--into", "back"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(fs::read_to_string(folder.path().join("back/exchange.json")).unwrap(), text);
    fs::write(folder.path().join("none.json"), "{\"uid\":\"x\"}").unwrap();
    let (code, err) = periscope(folder.path(), &["dashboards", "import", "none.json"]);
    assert!(code == 1 && err.contains("no panels"), "{code}: {err}");
}

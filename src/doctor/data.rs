//! What lies on disk: configuration, data folder, secrets, spool, unit file; and the instance that
//! runs there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Instance;
use super::finding::Finding;
use crate::config::Config;
use crate::config::load::Loaded;
use crate::store::dead_letter;
use crate::store::inspect::{self, Place};

/// Rights that nobody but the owner of a secret has.
const OTHERS: u32 = 0o077;

pub(super) fn configuration(loaded: &Loaded) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    let Some(file) = &loaded.file else {
        return vec![Finding::ok(CHECK, "no file, defaults only")];
    };
    let shown = file.display();
    let mut findings = vec![Finding::ok(CHECK, format!("{shown} is valid"))];
    for warning in &loaded.warnings {
        let hint = warning.hint.clone().unwrap_or_else(|| "periscope check".to_owned());
        let seen = format!("{}: {}: {}", warning.place, warning.path, warning.message);
        findings.push(Finding::warning(
            CHECK,
            seen,
            "it works, but not as safely as it could",
            hint,
        ));
    }
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    let holds_secrets = loaded.warnings.iter().any(|warning| warning.message.contains("secret"));
    if holds_secrets && mode & 0o044 != 0 {
        findings.push(Finding::problem(
            CHECK,
            format!("{shown} holds secrets and has mode {:o}", mode & 0o777),
            "every user of this machine can read it",
            format!("chmod 600 {shown}"),
        ));
    }
    findings
}

pub(super) fn folder(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "data folder";
    let folder = &config.data_dir;
    let shown = folder.display();
    if !folder.exists() {
        let parent = folder.ancestors().find(|parent| parent.exists()).unwrap_or(Path::new("/"));
        if rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_err() {
            return vec![Finding::problem(
                CHECK,
                format!("{shown} does not exist"),
                format!("{} may not be written by this user", parent.display()),
                "run periscope as a user who may write there, or name another folder with --data-dir",
            )];
        }
        return vec![Finding::ok(CHECK, format!("{shown} will be made by the first start"))];
    }
    if !folder.is_dir() {
        return vec![Finding::problem(
            CHECK,
            format!("{shown} is no folder"),
            "something else has the name of the data folder",
            format!("mv {shown} {shown}.old, or name another folder with --data-dir"),
        )];
    }
    if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
        return vec![Finding::problem(
            CHECK,
            format!("{shown} may not be written"),
            "it belongs to another user, or its file system is read-only",
            format!("chown -R \"$USER\" {shown}, or run periscope as its owner"),
        )];
    }
    let mut findings = vec![Finding::ok(CHECK, format!("{shown} can be written"))];
    for part in ["spool", "journal", "dead-letter", "run", "secrets"] {
        let path = folder.join(part);
        if path.exists() && !path.is_dir() {
            findings.push(Finding::problem(
                CHECK,
                format!("{} is no folder", path.display()),
                "something else has its name",
                format!("mv {0} {0}.old", path.display()),
            ));
        }
    }
    findings
}

pub(super) fn secrets(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "secrets";
    let Ok(entries) = fs::read_dir(config.data_dir.join("secrets")) else { return Vec::new() };
    let mut findings = Vec::new();
    let mut count = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        let shown = path.display();
        count += 1;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            findings.push(Finding::problem(
                CHECK,
                format!("{shown} has mode {mode:o}"),
                "other users of this machine can read a password",
                format!("chmod 600 {shown}"),
            ));
        }
        if metadata.len() == 0 {
            findings.push(Finding::problem(
                CHECK,
                format!("{shown} is empty"),
                "it was cut off, by a full disk for example",
                format!("rm {shown} and start periscope again: it makes a new one"),
            ));
        }
    }
    if findings.is_empty() && count > 0 {
        findings.push(Finding::ok(CHECK, format!("{count} files that only their owner can read")));
    }
    findings
}

pub(super) fn spool(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "spool";
    let mut findings = Vec::new();
    let folder = config.data_dir.join("spool");
    let (mut records, mut unread) = (0_usize, false);
    match inspect::look(&folder) {
        Ok(view) => {
            for file in &view.files {
                let shown = file.path.display();
                if file.place != Place::Spool {
                    findings.push(Finding::warning(
                        CHECK,
                        format!("{shown} was set aside"),
                        match file.place {
                            Place::Newer => "a later version of periscope wrote it",
                            Place::Quarantine | Place::Spool => {
                                "it was damaged; what was lost is counted in sample_gaps"
                            }
                        },
                        "periscope spool verify shows it; remove it when it is not needed",
                    ));
                    continue;
                }
                let Some(content) = file.read() else { continue };
                records = records.saturating_add(content.records.len());
                if !content.damage.is_empty() {
                    findings.push(Finding::problem(
                        CHECK,
                        format!("{shown} is damaged in {} places", content.damage.len()),
                        "the disk or another program changed it after it was written",
                        "periscope spool verify says what is lost; look at the disk with smartctl -a",
                    ));
                }
                if let Some(version) = content.newer {
                    findings.push(Finding::problem(
                        CHECK,
                        format!("{shown} has format {version}"),
                        "a later version of periscope wrote it",
                        "install that version again: its rows are delivered by it",
                    ));
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            unread = true;
            findings.push(Finding::problem(
                CHECK,
                format!("{} cannot be read: {error}", folder.display()),
                "it belongs to another user, or its disk fails",
                "run periscope doctor as the user who runs periscope",
            ));
        }
    }
    if findings.is_empty() && !unread {
        findings.push(Finding::ok(CHECK, format!("{records} records on disk, all whole")));
    }
    findings.extend(letters(&config.data_dir.join("dead-letter")));
    findings
}

/// Rows that QuestDB refused for good.
fn letters(folder: &Path) -> Option<Finding> {
    const CHECK: &str = "refused rows";
    if !folder.is_dir() {
        return None;
    }
    match dead_letter::read(folder) {
        Ok(letters) if letters.kept.is_empty() && letters.unreadable.is_empty() => None,
        Ok(letters) => Some(Finding::warning(
            CHECK,
            format!("{} rows lie in {}", letters.kept.len(), folder.display()),
            letters.kept.first().map_or_else(
                || "files there cannot be read".to_owned(),
                |kept| format!("{}: {}", kept.letter.table, kept.letter.reason),
            ),
            "periscope spool dead-letter list, then retry or drop",
        )),
        Err(error) => Some(Finding::problem(
            CHECK,
            format!("{} cannot be read: {error}", folder.display()),
            "it belongs to another user, or its disk fails",
            "run periscope doctor as the user who runs periscope",
        )),
    }
}

/// The unit of systemd, where there is one.
pub(super) fn unit(path: &Path) -> Vec<Finding> {
    const CHECK: &str = "service";
    let Ok(text) = fs::read_to_string(path) else { return Vec::new() };
    let shown = path.display();
    let again = "periscope service install";
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
        line.map(|value| value.trim_start_matches('=').trim().to_owned())
    };
    let program = value("ExecStart").unwrap_or_default();
    let program = program.trim_start_matches('"');
    let program = program.split(['"', ' ']).next().unwrap_or_default().to_owned();
    if !Path::new(&program).is_file() {
        return vec![Finding::problem(
            CHECK,
            format!("{shown} starts {program:?}"),
            "there is no such program: it was moved or removed",
            again,
        )];
    }
    if value("WatchdogSec").is_none() || value("Type").as_deref() != Some("notify") {
        return vec![Finding::warning(
            CHECK,
            format!("{shown} has no watchdog"),
            "it is not of this version, or was edited: systemd does not notice when periscope hangs",
            again,
        )];
    }
    vec![Finding::ok(CHECK, format!("{shown} starts {program}"))]
}

/// The running instance, and what it says of its parts.
pub(super) fn instance(instance: &Instance) -> Vec<Finding> {
    const CHECK: &str = "instance";
    let report = match instance {
        Instance::None => {
            return vec![Finding::warning(
                CHECK,
                "none runs on this data folder",
                "it was not started, or another --data-dir is meant",
                "periscope up, or periscope service install",
            )];
        }
        Instance::Silent { pid, words } => {
            return vec![Finding::problem(
                CHECK,
                format!("process {pid} runs and does not answer: {words}"),
                "it hangs, is stopped, or has another token",
                format!("kill -CONT {pid}; if that does not help, start it again"),
            )];
        }
        Instance::Answers(report) => report,
    };
    let version = env!("CARGO_PKG_VERSION");
    let mut findings = Vec::new();
    if report.version == version {
        findings.push(Finding::ok(CHECK, format!("version {version}, process {}", report.pid)));
    } else {
        findings.push(Finding::warning(
            CHECK,
            format!("version {} runs, this program is {version}", report.version),
            "the program was replaced since it was started",
            "systemctl restart periscope, or end and start it",
        ));
    }
    for (part, entry) in &report.parts {
        let words = match &entry.health {
            crate::base::health::Health::Ok | crate::base::health::Health::Off => continue,
            crate::base::health::Health::Starting { doing } => doing,
            crate::base::health::Health::Degraded { reason }
            | crate::base::health::Health::Down { reason } => reason,
        };
        // The reason ends with the next step.
        let (cause, remedy) =
            words.rsplit_once("; ").unwrap_or((words, "periscope status --watch"));
        let seen =
            format!("{} is not well since {}", format!("{part:?}").to_lowercase(), entry.since);
        findings.push(Finding::problem("part", seen, cause, remedy));
    }
    findings
}

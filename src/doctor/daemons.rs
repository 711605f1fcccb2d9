//! Every daemon, asked once; and the sockets of the shim.

use super::Instance;
use super::finding::Finding;
use crate::base::http::Client;
use crate::collect::probe::{Probe, probe};
use crate::config::{Config, Daemon, Source};

const CHECK: &str = "daemon";

pub(super) async fn daemons(config: &Config, client: &Client, instance: &Instance) -> Vec<Finding> {
    let mut findings = Vec::new();
    let run_dir = config.data_dir.join("run");
    for daemon in &config.daemons {
        if sends_by_itself(&daemon.source) {
            findings.extend(instance.report().map(|report| {
                let found = report.daemons.iter().find(|one| one.name == daemon.name);
                pushed(&daemon.name, found.map(|one| (one.state.as_str(), one.poll_error.clone())))
            }));
            continue;
        }
        let limit = config.collect.max_document;
        match probe(daemon, &config.node, &run_dir, client, limit).await {
            Ok(probes) => findings.extend(probes.iter().map(|probe| read(daemon, probe))),
            Err(failure) => findings.push(Finding::problem(
                CHECK,
                format!("{} ({}) gives no status", daemon.name, daemon.source.word()),
                failure.to_string(),
                format!("start it, or mend its [[daemon]]; periscope source test {}", daemon.name),
            )),
        }
    }
    let running = instance.report().map_or(0, |report| report.daemons.len());
    if config.daemons.is_empty() && running == 0 {
        findings.push(Finding::warning(
            CHECK,
            "no daemon is known",
            "none is configured and none was started with the shim",
            "periscope run --name NAME --target module:Class -- python …, or a [[daemon]] in the \
             configuration",
        ));
    }
    findings.extend(sockets(&run_dir));
    findings
}

const fn sends_by_itself(source: &Source) -> bool {
    matches!(source, Source::Push | Source::Websocket { .. })
}

fn pushed(name: &str, found: Option<(&str, Option<String>)>) -> Finding {
    match found {
        Some(("up", _)) => Finding::ok(CHECK, format!("{name} sends its status")),
        Some((state, error)) => Finding::problem(
            CHECK,
            format!("{name} is {state}"),
            error.unwrap_or_else(|| "nothing has come from it".to_owned()),
            format!("start it, and have it send to /api/v1/push/{name} of the listener"),
        ),
        None => Finding::problem(
            CHECK,
            format!("the running instance does not know {name}"),
            "it was added to the configuration after the start",
            "end and start periscope",
        ),
    }
}

fn read(daemon: &Daemon, probe: &Probe) -> Finding {
    let test = format!("periscope source test {}", daemon.name);
    if probe.rows.is_empty() {
        return Finding::problem(
            CHECK,
            format!("{} answers with something that is no status", probe.name),
            "none of the fields of a status is in its document",
            format!("set [daemon.map] or preset; {test} shows the document"),
        );
    }
    if !probe.wrong.is_empty() || !probe.missing.is_empty() {
        let wrong = probe.wrong.iter().map(|field| (*field).to_owned());
        let fields: Vec<String> = wrong.chain(probe.missing.iter().cloned()).collect();
        return Finding::warning(
            CHECK,
            format!("{} answers, without some fields", probe.name),
            format!("of another type, or not where the map says: {}", fields.join(", ")),
            test,
        );
    }
    Finding::ok(CHECK, format!("{} answers with {} rows", probe.name, probe.rows.len()))
}

/// Sockets whose process has ended.
fn sockets(run_dir: &std::path::Path) -> Vec<Finding> {
    let Ok(entries) = std::fs::read_dir(run_dir) else { return Vec::new() };
    let mut findings = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((daemon, pid)) = name.strip_suffix(".sock").and_then(|stem| stem.rsplit_once('-'))
        else {
            continue;
        };
        let Ok(pid) = pid.parse::<i32>() else { continue };
        let runs = rustix::process::Pid::from_raw(pid)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
        if !runs {
            findings.push(Finding::warning(
                "shim",
                format!("{} is left of process {pid}", path.display()),
                format!("{daemon} was killed; a running periscope removes it"),
                format!("rm {}", path.display()),
            ));
        }
    }
    findings
}

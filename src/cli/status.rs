//! `periscope status`: what the running instance says of itself.

use std::io::IsTerminal as _;
use std::time::Duration;

use super::exit::Exit;
use super::{Global, instance, output};
use crate::base::health::{Health, Part};
use crate::base::time::{Clock, Timestamp};
use crate::model::report::{Daemon, Report, Server};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The report as JSON
    #[arg(long)]
    json: bool,
    /// Again every two seconds until interrupted
    #[arg(long)]
    watch: bool,
    /// Ends with 3 unless every component works and every daemon is up
    #[arg(long)]
    exit_code: bool,
}

const WATCH_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn status(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        loop {
            let report = instance::report(&config).await?;
            let text = if arguments.json {
                serde_json::to_string_pretty(&report)?
            } else {
                render(&report, Clock::system().now())
            };
            if arguments.watch && std::io::stdout().is_terminal() && !arguments.json {
                // Clears the terminal, so that the table stays in place.
                output::line(&format!("\u{1b}[H\u{1b}[2J{text}"));
            } else {
                output::line(&text);
            }
            if !arguments.watch {
                let degraded = arguments.exit_code && !works(&report);
                return Ok(if degraded { Exit::Degraded } else { Exit::Done });
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    })
}

/// Whether every component works and every daemon is up.
fn works(report: &Report) -> bool {
    report.parts.values().all(|entry| entry.health.is_ok())
        && report.daemons.iter().all(|daemon| daemon.state == "up")
}

fn render(report: &Report, now: Timestamp) -> String {
    let age = |at: Timestamp| output::age(now.since(at).as_secs_f64());
    let head = format!(
        "periscope {} on {} ({}), pid {}, running for {}",
        report.version,
        report.host,
        report.env,
        report.pid,
        age(report.started_at)
    );
    let mut parts: Vec<Vec<String>> = Vec::new();
    for (part, entry) in &report.parts {
        let name = format!("{part:?}").to_lowercase();
        let (state, mut detail) = words(&entry.health);
        if detail.is_empty() && state != "off" {
            detail = match part {
                Part::Questdb => whereabouts(&report.questdb),
                Part::Grafana => whereabouts(&report.grafana),
                Part::Schema
                | Part::Spool
                | Part::Writer
                | Part::Collect
                | Part::Alerts
                | Part::Web => String::new(),
            };
        }
        parts.push(vec![name, state.to_owned(), age(entry.since), detail]);
    }
    let spool = format!(
        "spool: {} rows ({} bytes) wait, oldest {}; {} durable, {} lost since start",
        report.spool.rows,
        report.spool.bytes,
        output::age(report.spool.oldest_age_seconds),
        report.spool.durable_rows,
        report.spool.lost_rows
    );
    let writer = format!(
        "writer: {} rows stored, {} refused, last write {}",
        report.writer.rows_total,
        report.writer.refused_total,
        report.writer.last_write_at.map_or_else(|| "never".into(), |at| format!("{} ago", age(at)))
    );
    let daemons: Vec<Vec<String>> =
        report.daemons.iter().map(|daemon| line(daemon, &age)).collect();
    let daemons = if daemons.is_empty() {
        "no daemon yet: periscope run --name NAME --target module:Class -- python …, or a [[daemon]] in the configuration"
            .to_owned()
    } else {
        output::table(&["DAEMON", "STATE", "SOURCE", "LAST SAMPLE", "RESTARTS", "ERROR"], &daemons)
    };
    let parts = output::table(&["COMPONENT", "STATE", "FOR", "DETAIL"], &parts);
    [head, parts, format!("{spool}\n{writer}"), daemons].join("\n\n")
}

/// Returns version, URL and pid of a server, as far as they are known.
fn whereabouts(server: &Server) -> String {
    let url = server.url.clone().or_else(|| server.http.clone());
    let pid = server.pid.map(|pid| format!("pid {pid}"));
    let known: Vec<String> = [server.version.clone(), url, pid].into_iter().flatten().collect();
    known.join(", ")
}

fn words(health: &Health) -> (&'static str, String) {
    match health {
        Health::Starting { doing } => ("starting", doing.clone()),
        Health::Ok => ("ok", String::new()),
        Health::Off => ("off", String::new()),
        Health::Degraded { reason } => ("degraded", reason.clone()),
        Health::Down { reason } => ("down", reason.clone()),
    }
}

fn line(daemon: &Daemon, age: &dyn Fn(Timestamp) -> String) -> Vec<String> {
    let last_error = daemon
        .status
        .as_ref()
        .and_then(|status| status.get("last_error")?.as_str().map(str::to_owned))
        .unwrap_or_default();
    vec![
        daemon.name.clone(),
        daemon.state.clone(),
        daemon.source.clone(),
        daemon.last_sample_at.map_or_else(|| "never".into(), |at| format!("{} ago", age(at))),
        daemon.restarts.to_string(),
        daemon.poll_error.clone().unwrap_or(last_error),
    ]
}

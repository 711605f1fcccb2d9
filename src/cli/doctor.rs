//! `periscope doctor`: finding → cause → command that mends it.

use std::path::Path;

use super::exit::Exit;
use super::{Global, output};
use crate::config::load::{Loaded, load};
use crate::doctor::{Finding, Level, Setup, examine};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The findings as JSON
    #[arg(long)]
    json: bool,
    /// Where systemd has the unit of periscope
    #[arg(long, default_value = super::service::UNIT_PATH, value_name = "FILE")]
    unit: std::path::PathBuf,
}

pub(super) fn doctor(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let loaded = match load(&global.request(global.profile(), false)?) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let findings: Vec<Finding> = problems.all().iter().map(Finding::of_problem).collect();
            show(&findings, arguments.json)?;
            return Ok(Exit::Config);
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let findings = runtime.block_on(examine_all(loaded, &arguments.unit))?;
    show(&findings, arguments.json)?;
    let worst = findings.iter().map(|finding| finding.level).max();
    Ok(if worst == Some(Level::Problem) { Exit::Failure } else { Exit::Done })
}

async fn examine_all(loaded: Loaded, unit: &Path) -> anyhow::Result<Vec<Finding>> {
    Box::pin(examine(&Setup { loaded, unit: unit.to_owned() })).await
}

fn show(findings: &[Finding], json: bool) -> anyhow::Result<()> {
    output::line(&if json { serde_json::to_string_pretty(findings)? } else { text(findings) });
    Ok(())
}

/// Lays the findings out, those that need somebody last: what is read first in a terminal.
fn text(findings: &[Finding]) -> String {
    let mut lines = Vec::new();
    for level in [Level::Ok, Level::Warning, Level::Problem] {
        for finding in findings.iter().filter(|finding| finding.level == level) {
            let word = match level {
                Level::Ok => "ok",
                Level::Warning => "WARNING",
                Level::Problem => "PROBLEM",
            };
            lines.push(format!("{word:<8} {:<15} {}", finding.check, finding.seen));
            if level != Level::Ok {
                lines.push(format!("{:<8} cause: {}", "", finding.cause));
                lines.push(format!("{:<8} to mend it: {}", "", finding.remedy));
            }
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    lines.push(format!(
        "\n{} checks are well, {} warnings, {} problems",
        count(Level::Ok),
        count(Level::Warning),
        count(Level::Problem)
    ));
    lines.join("\n")
}

//! `periscope alerts`: what needs a running instance is in [`show`], the rest one file per command.

mod show;
mod test;

use clap::Subcommand;

use super::exit::{Exit, Failure};
use super::{Global, output};
use crate::rules;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Sends a test message through every channel and prints what each server answered
    Test,
    /// What each rule watches, when it fires and what to do about it, as Markdown
    Reference,
    #[command(flatten)]
    Show(show::Command),
}

pub(super) fn alerts(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Test => test::test(global),
        Command::Reference => reference(global),
        Command::Show(command) => show::show(global, command),
    }
}

fn reference(global: &Global) -> anyhow::Result<Exit> {
    let rules = rules::of(&global.config()?)
        .map_err(|problems| Failure::error(Exit::Config, problems.to_string()))?;
    output::line(rules::reference::markdown(&rules).trim_end());
    Ok(Exit::Done)
}

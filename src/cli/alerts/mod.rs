//! `periscope alerts`: what needs a running instance is in [`show`], the rest one file per command.

mod show;
mod test;

use clap::Subcommand;

use super::Global;
use super::exit::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Sends a test message through every channel and prints what each server answered
    Test,
    #[command(flatten)]
    Show(show::Command),
}

pub(super) fn alerts(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Test => test::test(global),
        Command::Show(command) => show::show(global, command),
    }
}

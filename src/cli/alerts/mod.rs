//! `periscope alerts`: one file per command.

mod test;

use clap::Subcommand;

use super::Global;
use super::exit::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Sends a test message through every channel and prints what each server answered
    Test,
}

pub(super) fn alerts(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Test => test::test(global),
    }
}

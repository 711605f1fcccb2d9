//! `periscope notify`: sets channels up.

mod prompt;
mod telegram;
mod write;

use clap::Subcommand;

use super::Global;
use super::exit::Exit;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Finds the number of your Telegram chat, writes it down, sends a test message
    Telegram(telegram::Arguments),
}

pub(super) fn notify(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Telegram(arguments) => telegram::telegram(global, arguments),
    }
}

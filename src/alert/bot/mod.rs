//! The Telegram bot: what people ask from their phone. It reads the report and asks for mutes; it
//! decides nothing itself. It listens to the configured chat alone and runs in a task of its own, so
//! that alerts never wait for it.

mod answer;
mod command;
mod task;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

pub use self::task::run;

use super::channel::telegram::Chat;
use super::channel::telegram::api::Api;
use crate::base::time::Clock;
use crate::model::report::Report;

/// What a request ended with: a number, or why it was refused.
pub type Asked<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// A mute that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mute {
    /// For how long, at least a second.
    pub duration: Duration,
    /// Id of a rule; `None`: any.
    pub rule: Option<String>,
    /// Name of a daemon; `None`: any.
    pub daemon: Option<String>,
    /// Why, and who.
    pub reason: String,
}

/// What the bot reads and asks for; whoever owns alerts answers.
pub trait Control: Send + Sync {
    /// Returns how everything is.
    fn report(&self) -> Report;
    /// Mutes; the end is the id of the mute.
    fn mute(&self, mute: Mute) -> Asked<String>;
    /// Ends all mutes; the end is how many there were.
    fn unmute(&self) -> Asked<u64>;
}

/// What the bot is made with.
#[derive(Clone)]
pub struct Setup {
    /// The bot.
    pub api: Api,
    /// The one chat that it listens to; it follows the channel's, which see the group move.
    pub chat: Chat,
    /// What it reads and asks for.
    pub control: Arc<dyn Control>,
    /// Time.
    pub clock: Clock,
    /// Counts what others wrote to it.
    pub ignored: Counter,
    /// Of pauses.
    pub seed: u64,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("chat", &self.chat).finish_non_exhaustive()
    }
}

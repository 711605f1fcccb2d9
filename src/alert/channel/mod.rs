//! Ways to reach people. A channel sends one message and says what to do when that fails; when to
//! try again, and who else is told, is not its business.
//!
//! Every request has a time limit, redirects are refused, proxies of the environment are not used,
//! and no error holds a token or the URL of a webhook.

mod discord;
mod email;
#[cfg(test)]
mod fuzz;
mod ntfy;
mod pause;
mod server;
pub mod telegram;
mod webhook;

use std::time::Duration;

use crate::base::http::Client;
use crate::base::time::Clock;
use crate::config::notify::Notify;

use super::message::Message;

/// Why a message was not delivered, and what to do with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Try again: the server is away, busy, or wants fewer messages.
    #[error("{reason}")]
    Later {
        /// What happened, without secrets.
        reason: String,
        /// The server's own words for how long to wait; nothing is sent before that.
        after: Option<Duration>,
    },
    /// Sending it again is of no use: somebody has to change something.
    #[error("{reason}: {hint}")]
    Never {
        /// What happened, without secrets.
        reason: String,
        /// The next step.
        hint: String,
    },
}

/// A way to reach people.
#[derive(Debug)]
pub enum Channel {
    /// `[notify.telegram]`
    Telegram(telegram::Telegram),
    /// `[notify.discord]`
    Discord(discord::Discord),
    /// `[notify.email]`
    Email(email::Email),
    /// `[notify.webhook]`
    Webhook(webhook::Webhook),
    /// `[notify.ntfy]`
    Ntfy(ntfy::Ntfy),
}

impl Channel {
    /// Returns the name of its section in `[notify]`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Telegram(_) => "telegram",
            Self::Discord(_) => "discord",
            Self::Email(_) => "email",
            Self::Webhook(_) => "webhook",
            Self::Ntfy(_) => "ntfy",
        }
    }

    /// Asks the server whether it would take a message, and sends none: login, chat, webhook, mail
    /// account. Webhook and ntfy can only be asked whether somebody answers.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Telegram(channel) => channel.check().await,
            Self::Discord(channel) => channel.check().await,
            Self::Email(channel) => channel.check().await,
            Self::Webhook(channel) => channel.check().await,
            Self::Ntfy(channel) => channel.check().await,
        }
    }

    /// Delivers `message`; takes at most half a minute.
    ///
    /// Not cancel-safe: a message whose sending was cut off may have arrived.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn send(&self, message: &Message) -> Result<(), Failure> {
        match self {
            Self::Telegram(channel) => channel.send(message).await,
            Self::Discord(channel) => channel.send(message).await,
            Self::Email(channel) => channel.send(message).await,
            Self::Webhook(channel) => channel.send(message).await,
            Self::Ntfy(channel) => channel.send(message).await,
        }
    }
}

/// Returns the channels of `notify` in the order in which one stands in for the one before it.
pub fn channels(notify: &Notify, client: &Client, clock: &Clock) -> Vec<Channel> {
    let Notify { telegram, discord, email, webhook, ntfy } = notify;
    [
        telegram.as_ref().map(|it| Channel::Telegram(telegram::Telegram::new(it, client))),
        discord.as_ref().map(|it| Channel::Discord(discord::Discord::new(it, client))),
        email.as_ref().map(|it| Channel::Email(email::Email::new(it, clock))),
        webhook.as_ref().map(|it| Channel::Webhook(webhook::Webhook::new(it, client))),
        ntfy.as_ref().map(|it| Channel::Ntfy(ntfy::Ntfy::new(it, client))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

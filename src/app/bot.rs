//! Joins the Telegram bot with what it shows and asks for.

use std::sync::Arc;

use super::Shared;
use super::report::Reporter;
use crate::alert::bot::{self, Asked, Control, Mute, Setup};
use crate::alert::channel::Channel;
use crate::alert::channel::telegram::Chat;
use crate::alert::channel::telegram::api::Api;
use crate::alert::show::{MuteRequest, UnmuteRequest};
use crate::alert::task::Handle;
use crate::base::tasks::{OnPanic, Tasks};
use crate::model::report::Report;

/// Returns the chat of the Telegram channel, which follows its moves.
pub(super) fn chat(channels: &[Channel]) -> Option<Chat> {
    channels.iter().find_map(|channel| match channel {
        Channel::Telegram(telegram) => Some(telegram.chat()),
        Channel::Discord(_) | Channel::Email(_) | Channel::Webhook(_) | Channel::Ntfy(_) => None,
    })
}

/// Starts the bot in `chat`, if Telegram is configured.
pub(super) fn start(
    shared: &Shared,
    chat: Option<Chat>,
    reporter: &Reporter,
    handle: &Handle,
    tasks: &Tasks,
) {
    let (Some(telegram), Some(chat)) = (&shared.config.notify.telegram, chat) else { return };
    let setup = Setup {
        api: Api::new(&telegram.api_url, telegram.token.clone(), shared.client.clone()),
        chat,
        control: Arc::new(Desk { reporter: reporter.clone(), handle: handle.clone() }),
        clock: shared.clock.clone(),
        ignored: shared.metrics.bot_ignored.clone(),
        seed: shared.seed,
    };
    tasks.spawn("bot", OnPanic::Log, bot::run(setup, tasks.stop_token()));
}

/// What the bot reads and asks for.
struct Desk {
    reporter: Reporter,
    handle: Handle,
}

impl Control for Desk {
    fn report(&self) -> Report {
        self.reporter.report()
    }

    fn mute(&self, mute: Mute) -> Asked<String> {
        let handle = self.handle.clone();
        let Mute { duration, rule, daemon, reason } = mute;
        let seconds = duration.as_secs();
        let request = MuteRequest { seconds, rule, daemon, severity: None, reason };
        Box::pin(async move { handle.mute(request).await })
    }

    fn unmute(&self) -> Asked<u64> {
        let handle = self.handle.clone();
        Box::pin(async move {
            let ended = handle.unmute(UnmuteRequest { id: None }).await?;
            Ok(u64::try_from(ended).unwrap_or(u64::MAX))
        })
    }
}

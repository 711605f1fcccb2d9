//! `[notify.telegram]`: messages by a bot. Text goes as it is, with the places of bold and fixed
//! width beside it: with a parse mode one stray underscore is a 400, and the alert is gone.

pub mod api;
mod format;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

pub use self::format::Text;

use self::api::{Api, Refused};
use super::Failure;
use super::pause::Pause;
use crate::alert::layout::Layout;
use crate::alert::message::Message;
use crate::alert::text::units;
use crate::base::http::Client;
use crate::config::notify;

/// Longest text of a message, UTF-16 units.
pub const LONGEST: usize = 4_096;

/// Number of the chat that reads. It changes when a group becomes a supergroup.
#[derive(Debug, Clone)]
pub struct Chat(Arc<AtomicI64>);

impl Chat {
    /// Makes the chat of that number.
    pub fn new(id: i64) -> Self {
        Self(Arc::new(AtomicI64::new(id)))
    }

    /// Returns its number now.
    pub fn id(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn moved(&self, to: i64) {
        let from = self.0.swap(to, Ordering::SeqCst);
        if from != to {
            let set = "set notify.telegram.chat_id to the new number";
            tracing::warn!(from, to, set, "telegram group has become a supergroup");
        }
    }
}

/// The channel.
#[derive(Debug)]
pub struct Telegram {
    api: Api,
    chat: Chat,
    pause: Pause,
}

impl Telegram {
    pub(super) fn new(config: &notify::Telegram, client: &Client) -> Self {
        let api = Api::new(&config.api_url, config.token.clone(), client.clone());
        Self { api, chat: Chat::new(config.chat_id), pause: Pause::default() }
    }

    /// Returns the chat, which follows its moves, for who listens to it.
    pub fn chat(&self) -> Chat {
        self.chat.clone()
    }

    /// Shows the token to be right and the bot to be allowed to write to the chat.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        self.api.me().await?;
        self.api.may_write(self.chat.id()).await
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), Failure> {
        self.pause.check(Instant::now())?;
        let layout = Layout::of(message, |layout| units(&layout.plain()) <= LONGEST);
        let sent = say(&self.api, &self.chat, &Text::of(&layout.spans())).await;
        if let Err(Failure::Later { reason, after: Some(after) }) = sent {
            let after = Some(self.pause.set(after, Instant::now()));
            return Err(Failure::Later { reason, after });
        }
        sent
    }
}

/// Sends `text` to `chat` and follows it if it has moved.
///
/// # Errors
/// See [`Failure`].
pub async fn say(api: &Api, chat: &Chat, text: &Text) -> Result<(), Failure> {
    match api.send(chat.id(), text).await {
        Ok(()) => Ok(()),
        Err(Refused::Failed(failure)) => Err(failure),
        Err(Refused::Moved { to }) => {
            chat.moved(to);
            // Once: two groups that point at each other must not keep us.
            api.send(to, text).await.map_err(|refused| match refused {
                Refused::Failed(failure) => failure,
                Refused::Moved { .. } => Failure::Never {
                    reason: "the group has moved twice".to_owned(),
                    hint: "run `periscope notify telegram` to learn the chat's number".to_owned(),
                },
            })
        }
    }
}

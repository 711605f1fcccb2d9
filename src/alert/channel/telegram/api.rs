//! The Bot API: teloxide's requests and updates over periscope's own HTTP client. teloxide's client
//! sleeps 10 s on every 5xx, hides the status, follows redirects and prints the token in its `Debug`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use teloxide_core::payloads::{
    GetMe, GetUpdates, GetUpdatesSetters as _, SendChatAction, SendMessage, SendMessageSetters as _,
};
use teloxide_core::requests::Payload;
use teloxide_core::types::{AllowedUpdate, ChatAction, ChatId, LinkPreviewOptions, Update};

use super::format::Text;
use crate::alert::channel::{Failure, server};
use crate::base::http::{Answer, Client, Limits};
use crate::base::secret::Secret;

/// Time limit of a request that is answered at once.
const AT_ONCE: Duration = Duration::from_secs(20);
/// Largest answer: a hundred updates of the longest messages.
const LARGEST: usize = 4 << 20;
/// Updates taken with one request.
const UPDATES: u8 = 50;

const WRONG_TOKEN: &str = "the token is wrong or was revoked: get it from @BotFather (/mybots) and set \
                           notify.telegram.token";

/// A bot, as the server sees it.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    token: Secret,
    client: Client,
}

/// Why the server did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The group has become a supergroup of another number.
    Moved {
        /// Its number now.
        to: i64,
    },
    /// Anything else.
    Failed(Failure),
}

/// What every answer looks like.
#[derive(Debug, Deserialize)]
struct Reply<R> {
    ok: bool,
    result: Option<R>,
    error_code: Option<u16>,
    description: Option<String>,
    parameters: Option<Parameters>,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    migrate_to_chat_id: Option<i64>,
    retry_after: Option<u64>,
}

/// Who the bot is.
#[derive(Debug, Clone, Deserialize)]
pub struct Me {
    /// Its name with which people find it, without `@`.
    pub username: Option<String>,
}

impl Api {
    /// Makes the bot of `token` on the server at `base`, a URL without a slash at the end.
    pub fn new(base: &str, token: Secret, client: Client) -> Self {
        Self { base: base.to_owned(), token, client }
    }

    /// Returns who the bot is; shows that the token is right.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn me(&self) -> Result<Me, Failure> {
        let me = self.call(&GetMe::new(), AT_ONCE).await;
        me.map_err(Refused::failure)
    }

    /// Shows "typing" for a moment in the chat `id`, which needs the same rights as a message: a look
    /// at the chat alone also works where the bot is blocked.
    pub(super) async fn may_write(&self, id: i64) -> Result<(), Failure> {
        let typing = SendChatAction::new(ChatId(id), ChatAction::Typing);
        let shown = self.call(&typing, AT_ONCE).await;
        shown.map(|_shown: IgnoredAny| ()).map_err(Refused::failure)
    }

    /// Sends `text` to the chat `id`.
    pub(super) async fn send(&self, id: i64, text: &Text) -> Result<(), Refused> {
        let preview = LinkPreviewOptions {
            is_disabled: true,
            url: None,
            prefer_small_media: false,
            prefer_large_media: false,
            show_above_text: false,
        };
        let request = SendMessage::new(ChatId(id), text.as_str())
            .entities(text.entities().iter().cloned())
            .link_preview_options(preview);
        // What the message looks like is not read: an answer that cannot be understood must not
        // make a second message.
        self.call(&request, AT_ONCE).await.map(|_sent: IgnoredAny| ())
    }

    /// Waits at most `wait` for updates after `offset`; answers with what is there.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn updates(&self, offset: i32, wait: Duration) -> Result<Vec<Update>, Failure> {
        let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
        let request = GetUpdates::new()
            .offset(offset)
            .limit(UPDATES)
            .timeout(seconds)
            .allowed_updates([AllowedUpdate::Message, AllowedUpdate::ChannelPost]);
        self.call(&request, wait.saturating_add(AT_ONCE)).await.map_err(Refused::failure)
    }

    async fn call<P, R>(&self, payload: &P, limit: Duration) -> Result<R, Refused>
    where
        P: Payload + serde::Serialize,
        R: DeserializeOwned,
    {
        let failed = |failure| Refused::Failed(failure);
        let body = serde_json::to_vec(payload).map_err(|error| {
            let hint = "this is a fault of periscope: report it".to_owned();
            failed(Failure::Never { reason: error.to_string(), hint })
        })?;
        let url = format!("{}/bot{}/{}", self.base, self.token.reveal(), P::NAME);
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, server::AGENT)
            .body(Full::new(Bytes::from(body)));
        // The library's words could repeat the URL.
        let request = request.map_err(|_invalid| {
            let reason = "the token cannot be part of a URL".to_owned();
            failed(Failure::Never { reason, hint: WRONG_TOKEN.to_owned() })
        })?;
        let limits = Limits { time: limit, body: LARGEST };
        let answer = self.client.send(request, limits).await;
        let answer = answer.map_err(|error| failed(server::no_answer(&error)))?;
        self.read(&answer)
    }

    fn read<R: DeserializeOwned>(&self, answer: &Answer) -> Result<R, Refused> {
        let reply = serde_json::from_slice::<Reply<R>>(&answer.body);
        match reply {
            Ok(Reply { ok: true, result: Some(result), .. }) => Ok(result),
            Ok(reply) if !reply.ok => Err(self.refused(answer, reply.strip())),
            // Not the Bot API: a proxy, a portal, a server that starts.
            Ok(_) | Err(_) if answer.status.is_success() => {
                let reason = "answered with what is no answer of the Bot API".to_owned();
                Err(Refused::Failed(Failure::Later { reason, after: None }))
            }
            Ok(_) | Err(_) => {
                let hint = "check notify.telegram.api_url";
                Err(Refused::Failed(server::refusal(answer, &[&self.token], hint)))
            }
        }
    }

    fn refused(&self, answer: &Answer, reply: Reply<()>) -> Refused {
        let parameters =
            reply.parameters.unwrap_or(Parameters { migrate_to_chat_id: None, retry_after: None });
        if let Some(to) = parameters.migrate_to_chat_id {
            return Refused::Moved { to };
        }
        let code = reply.error_code.unwrap_or_else(|| answer.status.as_u16());
        let words = server::quoted(&reply.description.unwrap_or_default(), &[&self.token]);
        let reason = format!("answered {code}: {words}");
        Refused::Failed(match (code, next_step(code, &words)) {
            (_, Some(hint)) => Failure::Never { reason, hint: hint.to_owned() },
            (_, None) => {
                let asked = parameters.retry_after.map(Duration::from_secs);
                Failure::Later { reason, after: asked.or_else(|| answer.retry_after()) }
            }
        })
    }
}

impl Refused {
    /// Returns what it means where no chat is asked about.
    fn failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Moved { to } => Failure::Never {
                reason: format!("the group has become a supergroup with the number {to}"),
                hint: "set notify.telegram.chat_id to it".to_owned(),
            },
        }
    }
}

impl<R> Reply<R> {
    fn strip(self) -> Reply<()> {
        let Self { ok, error_code, description, parameters, .. } = self;
        Reply { ok, result: None, error_code, description, parameters }
    }
}

/// Returns what somebody has to do about an answer with `code`; `None`: only wait.
fn next_step(code: u16, words: &str) -> Option<&'static str> {
    let says = |part: &str| words.to_ascii_lowercase().contains(part);
    match code {
        // A token that was never one is a path that does not exist.
        401 | 404 => Some(WRONG_TOKEN),
        403 => Some(
            "open the chat with the bot and press Start, or add the bot to the group again, then run \
             `periscope alerts test`",
        ),
        400 if says("chat not found") => Some(
            "the bot does not know this chat: write to the bot and run `periscope notify telegram`, \
             which learns its number for notify.telegram.chat_id",
        ),
        400 if says("rights") || says("restricted") => {
            Some("let the bot send text messages: see the permissions of the group")
        }
        400 | 402 | 405..=407 | 410..=424 | 426..=428 => {
            Some("run `periscope alerts test`; if it fails too, report it with this text")
        }
        // 409: somebody else asks for updates; 429 and 5xx: wait.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, StatusCode};

    use super::*;

    fn read(status: u16, body: &str) -> Result<i64, Refused> {
        let token = Secret::new("123456:canary");
        let api = Api::new("http://127.0.0.1:1", token, Client::new().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        let body = Bytes::from(body.to_owned());
        api.read(&Answer { status, headers: HeaderMap::new(), body })
    }

    fn refused(status: u16, description: &str) -> Failure {
        let body = format!(r#"{{"ok":false,"error_code":{status},"description":"{description}"}}"#);
        match read(status, &body) {
            Err(Refused::Failed(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_needs_somebody_says_what_to_do_and_the_rest_waits() {
        for (status, description, hint) in [
            (401, "Unauthorized", "@BotFather"),
            (404, "Not Found", "@BotFather"),
            (403, "Forbidden: bot was blocked by the user", "press Start"),
            (400, "Bad Request: chat not found", "notify telegram"),
            (
                400,
                "Bad Request: not enough rights to send text messages to the chat",
                "permissions",
            ),
            (400, "Bad Request: message is too long", "report it"),
        ] {
            let failure = refused(status, description);
            assert!(matches!(failure, Failure::Never { .. }), "{failure:?}");
            assert!(failure.to_string().contains(hint), "{failure}");
            assert!(failure.to_string().contains(description), "{failure}");
        }
        for (status, description) in [
            (409, "Conflict: terminated by other getUpdates request"),
            (429, "Too Many Requests"),
            (500, "Internal Server Error"),
            (502, "Bad Gateway"),
        ] {
            let failure = refused(status, description);
            assert!(matches!(failure, Failure::Later { .. }), "{failure:?}");
        }
    }

    #[test]
    fn waiting_times_and_moves_are_taken_from_the_answer() {
        let busy = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 35","parameters":{"retry_after":35}}"#;
        let Err(Refused::Failed(Failure::Later { after, .. })) = read(429, busy) else { panic!() };
        assert_eq!(after, Some(Duration::from_secs(35)));
        let moved = r#"{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded","parameters":{"migrate_to_chat_id":-1001}}"#;
        assert_eq!(read(400, moved), Err(Refused::Moved { to: -1001 }));
    }

    #[test]
    fn what_is_no_answer_of_the_bot_api_is_told_by_its_status() {
        assert_eq!(read(200, r#"{"ok":true,"result":7,"new":[]}"#), Ok(7));
        for (status, later) in [(200, true), (502, true), (302, false), (404, false)] {
            let Err(Refused::Failed(failure)) = read(status, "<html>canary") else { panic!() };
            assert_eq!(matches!(failure, Failure::Later { .. }), later, "{status}: {failure:?}");
        }
    }

    #[test]
    fn a_description_that_repeats_the_token_does_not_show_it() {
        let failure = refused(400, "no 123456:canary");
        assert!(!failure.to_string().contains("canary"), "{failure}");
    }
}

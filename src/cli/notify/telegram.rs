//! `periscope notify telegram`: from a bot's token to a chat that gets alerts.

use std::time::{Duration, Instant};

use teloxide_core::types::{Chat, ChatKind, PublicChatKind, Update, UpdateKind};

use super::{prompt, write};
use crate::alert::channel::telegram::api::Api;
use crate::alert::channel::{Failure, channels};
use crate::alert::message::Message;
use crate::base::http::Client;
use crate::base::secret::Secret;
use crate::base::time::Clock;
use crate::cli::exit::{self, Exit};
use crate::cli::{Global, output};
use crate::config::Profile;
use crate::config::load::{Loaded, Request, load};
use crate::config::notify::{Notify, Telegram};
use crate::store::text::without_controls;

/// Variable that a token is taken from when the configuration has none.
const VARIABLE: &str = "TELEGRAM_BOT_TOKEN";
/// How long one request waits for a message.
const POLL: Duration = Duration::from_secs(25);

const NO_TOKEN: &str = "there is no token: write to @BotFather in Telegram, /newbot gives you one; then \
                        set TELEGRAM_BOT_TOKEN, or type it when asked";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Takes the first chat that writes and changes the configuration file without asking
    #[arg(long)]
    yes: bool,
    /// Longest wait for a message to the bot, seconds
    #[arg(long, default_value = "600", value_name = "SECONDS")]
    wait: u64,
}

/// A bot, and where its settings come from.
struct Bot {
    loaded: Loaded,
    telegram: Telegram,
    /// Whether the configuration has the token; if not it has to be written down.
    configured: bool,
}

/// A chat that wrote to the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    id: i64,
    /// `group "Traders"`, for people.
    name: String,
}

pub(super) fn telegram(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let bot = bot(&global.request(Profile::Up, false)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(set_up(bot, arguments))
}

async fn set_up(mut bot: Bot, arguments: &Arguments) -> anyhow::Result<Exit> {
    let client = Client::new()?;
    let api = Api::new(&bot.telegram.api_url, bot.telegram.token.clone(), client.clone());
    let me = api.me().await.map_err(failed)?;
    let name = me.username.unwrap_or_else(|| "your bot".to_owned());
    output::line(&format!(
        "The token is right: it is @{name}'s.\nNow write to the bot (https://t.me/{name}, press Start), \
         or add it to a group and write /start@{name} there. Waiting …"
    ));
    let Some(found) = wait(&api, arguments).await? else {
        let text = "nobody wrote to the bot: run it again, or wait longer with --wait";
        return Err(exit::Failure::error(Exit::Failure, text));
    };
    output::line(&format!("Found {} with the number {}.", found.name, found.id));
    bot.telegram.chat_id = found.id;
    write_down(&bot, arguments)?;
    let notify = Notify { telegram: Some(bot.telegram), ..Notify::default() };
    let clock = Clock::system();
    let node = &bot.loaded.config.node;
    let message = Message::test(&node.host, &node.env, clock.now());
    for channel in channels(&notify, &client, &clock) {
        channel.send(&message).await.map_err(failed)?;
    }
    output::line(&format!("A test message (id {}) was delivered.", message.id));
    Ok(Exit::Done)
}

/// Returns the bot of the configuration, or of a token from elsewhere.
fn bot(request: &Request) -> anyhow::Result<Bot> {
    // The number is what this command is for: until it is known any will do.
    let mut request = request.clone();
    request.set.push("notify.telegram.chat_id=1".to_owned());
    if let Ok(mut loaded) = load(&request)
        && let Some(telegram) = loaded.config.notify.telegram.take()
    {
        return Ok(Bot { loaded, telegram, configured: true });
    }
    let token = token(&request)?;
    // The same way as any other value, so that it is checked like any other.
    let variable = "PERISCOPE_NOTIFY__TELEGRAM__TOKEN".to_owned();
    request.environment.insert(variable, token.reveal().to_owned());
    let mut loaded = load(&request)
        .map_err(|problems| exit::Failure::error(Exit::Config, problems.to_string()))?;
    let telegram = loaded.config.notify.telegram.take();
    let telegram = telegram.ok_or_else(|| anyhow::anyhow!("{NO_TOKEN}"))?;
    Ok(Bot { loaded, telegram, configured: false })
}

fn token(request: &Request) -> anyhow::Result<Secret> {
    let set = request.environment.get(VARIABLE).filter(|token| !token.trim().is_empty());
    if let Some(token) = set {
        return Ok(Secret::new(token.trim()));
    }
    let question = "Token of the bot (from @BotFather; it is not shown): ";
    prompt::secret(question)?.ok_or_else(|| exit::Failure::error(Exit::Usage, NO_TOKEN))
}

/// Waits for a chat that writes to the bot and that the user agrees to.
async fn wait(api: &Api, arguments: &Arguments) -> anyhow::Result<Option<Found>> {
    let start = Instant::now();
    let limit = Duration::from_secs(arguments.wait);
    let mut offset = 0;
    let mut refused = Vec::new();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let updates = match api.updates(offset, POLL.min(left)).await {
            Ok(updates) => updates,
            Err(Failure::Later { reason, after }) if !left.is_zero() => {
                output::error_line(&format!("telegram: {reason}; trying again"));
                tokio::time::sleep(after.unwrap_or(Duration::from_secs(2)).min(left)).await;
                continue;
            }
            Err(failure) => return Err(failed(failure)),
        };
        for update in updates {
            offset = i32::try_from(update.id.0).unwrap_or(i32::MAX).saturating_add(1);
            let Some(found) = found(&update).filter(|found| !refused.contains(found)) else {
                continue;
            };
            let question = format!("{} wrote to the bot. Send alerts there?", found.name);
            if arguments.yes || !prompt::is_terminal() || prompt::agrees(&question)? {
                // So that it does not see this message again as a command.
                let _unread = api.updates(offset, Duration::ZERO).await;
                return Ok(Some(found));
            }
            refused.push(found);
        }
        if left.is_zero() {
            return Ok(None);
        }
    }
}

fn found(update: &Update) -> Option<Found> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library has many kinds of updates")]
    match &update.kind {
        UpdateKind::Message(message) | UpdateKind::ChannelPost(message) => {
            let name = name(&message.chat);
            let name = without_controls(&name).unwrap_or(name);
            Some(Found { id: message.chat.id.0, name })
        }
        _ => None,
    }
}

fn name(chat: &Chat) -> String {
    match &chat.kind {
        ChatKind::Private(person) => {
            format!("{:?}", person.first_name.as_deref().unwrap_or("somebody"))
        }
        ChatKind::Public(public) => {
            let title = public.title.as_deref().unwrap_or_default();
            match public.kind {
                PublicChatKind::Channel(_) => format!("channel {title:?}"),
                PublicChatKind::Group | PublicChatKind::Supergroup(_) => format!("group {title:?}"),
            }
        }
    }
}

/// Writes chat and token into the configuration file, or shows what to write.
fn write_down(bot: &Bot, arguments: &Arguments) -> anyhow::Result<()> {
    let token_file = bot.loaded.config.data_dir.join("secrets/telegram-token");
    let token = (!bot.configured).then_some((token_file.as_path(), &bot.telegram.token));
    let lines = write::lines(bot.telegram.chat_id, token.map(|(path, _)| path));
    let Some(file) = &bot.loaded.file else {
        let place = "a periscope.toml in this folder, or ~/.config/periscope/periscope.toml";
        output::line(&format!("There is no configuration file. Put this into {place}:\n\n{lines}"));
        if let Some((path, token)) = token {
            write::token(path, token)?;
            output::line(&format!("The token is in {}.", path.display()));
        }
        return Ok(());
    };
    let question = format!("Write this into {}?\n\n{lines}\n", file.display());
    let agreed = arguments.yes || (prompt::is_terminal() && prompt::agrees(&question)?);
    if !agreed {
        output::line(&format!("Put this into {}:\n\n{lines}", file.display()));
        return Ok(());
    }
    if let Some((path, token)) = token {
        write::token(path, token)?;
        output::line(&format!("Wrote the token to {}.", path.display()));
    }
    write::chat(file, bot.telegram.chat_id, token.map(|(path, _)| path))?;
    output::line(&format!("Wrote the chat to {}.", file.display()));
    Ok(())
}

fn failed(failure: Failure) -> anyhow::Error {
    let exit = match failure {
        Failure::Later { .. } => Exit::Unavailable,
        Failure::Never { .. } => Exit::Failure,
    };
    exit::Failure::error(exit, format!("telegram: {failure}"))
}

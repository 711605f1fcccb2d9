//! `[notify]` and `[heartbeat]`: where messages go, and whom to tell that periscope is alive.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::{Problems, quoted};
use super::defaults;
use super::reader::Section;
use super::secrets::Sources;
use super::values::{self, Fault};
use crate::base::secret::Secret;

const HEARTBEATS: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(86_400);

/// `[notify]`: channels that people read. All may be absent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notify {
    /// `[notify.telegram]`
    pub telegram: Option<Telegram>,
    /// `[notify.discord]`
    pub discord: Option<Discord>,
    /// `[notify.email]`
    pub email: Option<Email>,
    /// `[notify.webhook]`
    pub webhook: Option<Webhook>,
    /// `[notify.ntfy]`
    pub ntfy: Option<Ntfy>,
}

impl Notify {
    /// Whether no channel is configured.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `[notify.telegram]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telegram {
    /// Token of the bot.
    pub token: Secret,
    /// Chat that reads.
    pub chat_id: i64,
    /// Base URL of the Bot API, no slash at the end.
    pub api_url: String,
}

/// `[notify.discord]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discord {
    /// URL of the webhook; who has it can post.
    pub webhook_url: Secret,
}

/// `[notify.email]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    /// Host of the SMTP server; IPv6 in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub tls: Tls,
    /// User, if the server wants one.
    pub user: Option<String>,
    /// Password of the user.
    pub password: Option<Secret>,
    /// Sender.
    pub from: String,
    /// Receivers; at least one.
    pub to: Vec<String>,
}

/// How an SMTP connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// From the first byte (`smtps://`).
    Implicit,
    /// STARTTLS, or nothing is sent.
    Required,
    /// Never; for a server on this machine.
    Off,
}

/// `[notify.webhook]`: the message as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where it is posted; often holds a key.
    pub url: Secret,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<Secret>,
}

/// `[notify.ntfy]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ntfy {
    /// Server and topic; who knows the topic can read it.
    pub url: Secret,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<Secret>,
}

/// `[heartbeat]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Asked while periscope works as it should; each holds the key of a check.
    pub urls: Vec<Secret>,
    /// Time between two requests.
    pub interval: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { urls: Vec::new(), interval: defaults::HEARTBEAT_INTERVAL }
    }
}

pub(super) fn notify(
    mut section: Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Notify {
    let telegram = telegram(section.section("telegram", problems), sources, problems);
    let discord = discord(section.section("discord", problems), sources, problems);
    let email = email(section.section("email", problems), sources, problems);
    let webhook = target(section.section("webhook", problems), sources, problems);
    let webhook = webhook.map(|(url, token)| Webhook { url, token });
    let ntfy = target(section.section("ntfy", problems), sources, problems);
    let ntfy = ntfy.map(|(url, token)| Ntfy { url, token });
    section.finish(problems);
    Notify { telegram, discord, email, webhook, ntfy }
}

/// Reads a key that must be there when its section is.
fn required<T>(
    section: &mut Section<'_>,
    key: &'static str,
    hint: &str,
    problems: &mut Problems,
    read: impl FnOnce(&mut Section<'_>, &mut Problems) -> Option<T>,
) -> Option<T> {
    if !section.has(key) {
        section.know(key);
        let path = section.path_of(key);
        problems.error(section.place(), path, "is missing", Some(hint.to_owned()));
        return None;
    }
    read(section, problems)
}

fn telegram(
    mut section: Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Telegram> {
    if !section.is_present() {
        return None;
    }
    let hint = "write token = { env = \"TELEGRAM_BOT_TOKEN\" }; @BotFather gives it";
    let token = required(&mut section, "token", hint, problems, |section, problems| {
        section.secret("token", sources, problems)
    });
    if token.as_ref().is_some_and(|token| !is_bot_token(token.reveal())) {
        let hint = "a token looks like 123456:letters and digits; @BotFather gives it";
        section.refuse("token", "is no token of a Telegram bot", hint, problems);
    }
    let hint = "write the chat's number; `periscope notify telegram` finds it";
    let chat_id = required(&mut section, "chat_id", hint, problems, |section, problems| {
        section.signed("chat_id", problems)
    });
    let api_url = section.parsed("api_url", encrypted_base, problems);
    let api_url = api_url.unwrap_or_else(|| defaults::TELEGRAM_API.to_owned());
    section.finish(problems);
    Some(Telegram { token: token?, chat_id: chat_id?, api_url })
}

/// Whether `text` can be part of a URL's path, as the Bot API wants it.
fn is_bot_token(text: &str) -> bool {
    let Some((id, key)) = text.split_once(':') else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    !id.is_empty()
        && id.chars().all(|c| c.is_ascii_digit())
        && !key.is_empty()
        && key.chars().all(plain)
}

fn discord(
    mut section: Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Discord> {
    if !section.is_present() {
        return None;
    }
    let hint =
        "write webhook_url = { env = \"DISCORD_WEBHOOK_URL\" }; the channel's settings give it";
    let webhook_url = required(&mut section, "webhook_url", hint, problems, |section, problems| {
        let url = section.secret("webhook_url", sources, problems);
        secret_url(section, "webhook_url", url, problems)
    });
    section.finish(problems);
    Some(Discord { webhook_url: webhook_url? })
}

fn target(
    mut section: Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<(Secret, Option<Secret>)> {
    if !section.is_present() {
        return None;
    }
    let hint = "write url = { file = \"PATH\" }, or the URL itself";
    let url = required(&mut section, "url", hint, problems, |section, problems| {
        // Not every such URL holds a key: no warning for one that stands in the file.
        let url = match section.plain("url") {
            Some(_) => section.text("url", problems).map(Secret::new),
            None => section.secret("url", sources, problems),
        };
        secret_url(section, "url", url, problems)
    });
    let token = section.secret("token", sources, problems);
    if token.as_ref().is_some_and(|token| !token.reveal().is_ascii()) {
        let hint = "it is sent in a header: use letters, digits and signs of ASCII";
        section.refuse("token", "holds characters outside ASCII", hint, problems);
    }
    section.finish(problems);
    Some((url?, token))
}

/// Checks a URL that is a secret. No message shows it.
fn secret_url(
    section: &Section<'_>,
    key: &'static str,
    url: Option<Secret>,
    problems: &mut Problems,
) -> Option<Secret> {
    let url = url?;
    match encrypted(url.reveal()) {
        Ok(()) => Some(url),
        Err(_) => {
            let hint = "write https://…; plain http is for this machine only";
            section.refuse(key, "is no https URL", hint, problems);
            None
        }
    }
}

/// Whether `text` is an https URL, or an http URL of this machine.
fn encrypted(text: &str) -> Result<(), Fault> {
    let url = values::url(text)?;
    if url.scheme == "http" && !values::is_loopback(&url.host) {
        let hint = "write https://…; plain http is for this machine only".to_owned();
        return Err(Fault { message: "is sent in the clear".to_owned(), hint });
    }
    Ok(())
}

fn encrypted_base(text: &str) -> Result<String, Fault> {
    encrypted(text)?;
    let url = values::url(text)?;
    if url.path.contains('?') {
        let hint = "write scheme, host, port and path only".to_owned();
        return Err(Fault { message: "holds a query".to_owned(), hint });
    }
    Ok(format!("{}{}", url.origin(), url.path.trim_end_matches('/')))
}

fn email(
    mut section: Section<'_>,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Email> {
    if !section.is_present() {
        return None;
    }
    let hint = "write server = \"smtp://HOST\" (STARTTLS) or \"smtps://HOST\" (TLS)";
    let server = required(&mut section, "server", hint, problems, |section, problems| {
        section.parsed("server", smtp, problems)
    });
    let user = section.text("user", problems);
    let password = section.secret("password", sources, problems);
    let _reported = section.has_whole_login(problems);
    let hint = "write from = \"periscope@example.org\"";
    let from = required(&mut section, "from", hint, problems, |section, problems| {
        section.parsed("from", mail_address, problems)
    });
    let hint = "write to = [\"you@example.org\"]";
    let to = required(&mut section, "to", hint, problems, |section, problems| {
        Some(section.texts("to", problems))
    });
    let to = to.unwrap_or_default();
    for address in &to {
        if let Err(Fault { message, hint }) = mail_address(address) {
            section.refuse("to", format!("{} {message}", quoted(address)), hint, problems);
        }
    }
    if to.is_empty() && section.has("to") {
        section.refuse("to", "names nobody", hint, problems);
    }
    section.finish(problems);
    let (host, port, tls) = server?;
    Some(Email { host, port, tls, user, password, from: from?, to })
}

/// Reads `smtp://HOST[:PORT]` or `smtps://HOST[:PORT]`.
fn smtp(text: &str) -> Result<(String, u16, Tls), Fault> {
    const HINT: &str = "write \"smtp://HOST:PORT\" (STARTTLS) or \"smtps://HOST:PORT\" (TLS)";
    let fault = |message: &str| Fault { message: message.to_owned(), hint: HINT.to_owned() };
    let (scheme, rest) = text.trim().split_once("://").ok_or_else(|| fault("is no URL"))?;
    if values::has_user_info(text) {
        let hint = "use the keys user and password".to_owned();
        return Err(Fault { message: "holds a user or password".to_owned(), hint });
    }
    let rest = rest.trim_end_matches('/');
    let (tls, port) = match scheme {
        "smtp" => (Tls::Required, 587),
        "smtps" => (Tls::Implicit, 465),
        _ => return Err(fault("is no URL of an SMTP server")),
    };
    let has_port =
        rest.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let with_port = if has_port { rest.to_owned() } else { format!("{rest}:{port}") };
    let (host, port) = values::host_port(&with_port)?;
    if port == 0 {
        return Err(fault("has no port"));
    }
    // What is sent to this machine needs no certificate, and there is none for it.
    let tls = if tls == Tls::Required && values::is_loopback(&host) { Tls::Off } else { tls };
    Ok((host, port, tls))
}

/// Whether `text` can be the address of a mailbox: no more than what keeps a header whole.
fn mail_address(text: &str) -> Result<String, Fault> {
    let text = text.trim();
    let plain = |c: char| {
        !c.is_control() && !c.is_whitespace() && !matches!(c, '<' | '>' | ',' | ';' | '"')
    };
    let valid = text.rsplit_once('@').is_some_and(|(name, host)| {
        !name.is_empty() && name.chars().all(plain) && !host.is_empty() && host.chars().all(plain)
    });
    if valid && text.is_ascii() {
        return Ok(text.to_owned());
    }
    let hint = "write an address such as \"you@example.org\", without a name around it".to_owned();
    Err(Fault { message: "is no mail address".to_owned(), hint })
}

pub(super) fn heartbeat(mut section: Section<'_>, problems: &mut Problems) -> Heartbeat {
    let mut urls = Vec::new();
    for text in section.texts("urls", problems) {
        match encrypted(&text) {
            Ok(()) => urls.push(Secret::new(text)),
            Err(Fault { message, hint }) => {
                section.refuse("urls", format!("one {message}"), hint, problems);
            }
        }
    }
    let interval = section.duration("interval", HEARTBEATS, problems);
    section.finish(problems);
    Heartbeat { urls, interval: interval.unwrap_or(defaults::HEARTBEAT_INTERVAL) }
}

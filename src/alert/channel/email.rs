//! `[notify.email]`: mail through an SMTP server, as plain text and as HTML.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{CertificateStore, Tls, TlsParameters};
use lettre::{Address, AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::{Failure, server};
use crate::alert::layout::{Layout, Style};
use crate::alert::message::Message;
use crate::base::secret::Secret;
use crate::base::time::Clock;
use crate::config::notify;

/// Time limit of one command.
const COMMAND: Duration = Duration::from_secs(10);
/// Time limit of the whole delivery.
const DELIVERY: Duration = Duration::from_secs(30);

/// The channel.
pub struct Email {
    config: notify::Email,
    clock: Clock,
    /// `Err`: why nothing can be sent securely.
    transport: Result<AsyncSmtpTransport<Tokio1Executor>, String>,
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The transport holds the password.
        f.debug_struct("Email").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Email {
    pub(super) fn new(config: &notify::Email, clock: &Clock) -> Self {
        let transport = transport(config).map_err(|error| error.to_string());
        Self { config: config.clone(), clock: clock.clone(), transport }
    }

    pub(super) async fn send(&self, message: &Message) -> Result<(), Failure> {
        let transport = self.transport.as_ref().map_err(|error| Failure::Never {
            reason: server::quoted(error, &[]),
            hint: "check the host in notify.email.server".to_owned(),
        })?;
        let mail = self.mail(message)?;
        match tokio::time::timeout(DELIVERY, transport.send(mail)).await {
            Ok(Ok(_accepted)) => Ok(()),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_elapsed) => {
                let reason = format!("{} did not take it within {DELIVERY:?}", self.origin());
                Err(Failure::Later { reason, after: None })
            }
        }
    }

    /// Connects, secures the connection and logs in.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let transport = self.transport.as_ref().map_err(|error| Failure::Never {
            reason: server::quoted(error, &[]),
            hint: "check the host in notify.email.server".to_owned(),
        })?;
        let reason = match tokio::time::timeout(DELIVERY, transport.test_connection()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => format!("{} ends the conversation", self.origin()),
            Ok(Err(error)) => return Err(self.failure(&error)),
            Err(_elapsed) => format!("{} did not answer within {DELIVERY:?}", self.origin()),
        };
        Err(Failure::Later { reason, after: None })
    }

    fn origin(&self) -> String {
        format!("{}:{}", self.config.host, self.config.port)
    }

    pub(super) fn mail(&self, message: &Message) -> Result<lettre::Message, Failure> {
        let layout = Layout::of(message, |_| true);
        let from = mailbox(&self.config.from, "notify.email.from")?;
        let domain = from.email.domain().to_owned();
        let id = format!("<{}.{}@{domain}>", token(&message.id), message.at.nanos());
        let mut builder = lettre::Message::builder()
            .from(from)
            .subject(layout.subject())
            .date(system_time(&self.clock))
            .message_id(Some(id));
        for address in &self.config.to {
            builder = builder.to(mailbox(address, "notify.email.to")?);
        }
        let body = MultiPart::alternative_plain_html(layout.plain(), html(&layout));
        let mut mail = builder.multipart(body).map_err(|error| Failure::Never {
            reason: format!("the mail cannot be written: {error}"),
            hint: "check notify.email".to_owned(),
        })?;
        // So that nobody's absence note is sent back.
        let name = HeaderName::new_from_ascii_str("Auto-Submitted");
        mail.headers_mut().insert_raw(HeaderValue::new(name, "auto-generated".to_owned()));
        Ok(mail)
    }

    fn failure(&self, error: &lettre::transport::smtp::Error) -> Failure {
        let secrets = self.secrets();
        let secrets: Vec<&Secret> = secrets.iter().collect();
        let words = server::quoted(&error.to_string(), &secrets);
        let reason = format!("{}: {words}", self.origin());
        let never = |hint: &str| Failure::Never { reason: reason.clone(), hint: hint.to_owned() };
        if is_certificate(error) {
            return never(
                "the server's certificate is not valid for the host in notify.email.server",
            );
        }
        if error.is_client() {
            return never(
                "the server lacks what is needed (STARTTLS, a login): see notify.email.server, user \
                 and password",
            );
        }
        if !error.is_permanent() {
            return Failure::Later { reason, after: None };
        }
        match error.status().map_or(0, u16::from) {
            530 | 534 | 535 | 538 => never("check notify.email.user and notify.email.password"),
            550 | 551 | 553 | 556 => never("check notify.email.from and notify.email.to"),
            _ => never("ask whoever runs the mail server what it wants"),
        }
    }

    /// Returns what the server must not show us again: the password, as it is sent too.
    fn secrets(&self) -> Vec<Secret> {
        use base64::Engine as _;

        let Some(password) = &self.config.password else { return Vec::new() };
        let user = self.config.user.as_deref().unwrap_or_default();
        let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        let plain = encode(format!("\0{user}\0{}", password.reveal()));
        let login = encode(password.reveal().to_owned());
        vec![password.clone(), Secret::new(plain), Secret::new(login)]
    }
}

fn transport(
    config: &notify::Email,
) -> Result<AsyncSmtpTransport<Tokio1Executor>, lettre::transport::smtp::Error> {
    let host = config.host.trim_matches(['[', ']']);
    let tls = match config.tls {
        notify::Tls::Off => Tls::None,
        notify::Tls::Required => Tls::Required(parameters(host)?),
        notify::Tls::Implicit => Tls::Wrapper(parameters(host)?),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(config.port)
        .tls(tls)
        .timeout(Some(COMMAND));
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        builder = builder.credentials(Credentials::new(user.clone(), password.reveal().to_owned()));
    }
    Ok(builder.build())
}

/// Returns the system's certificates, or the built-in ones where it has none.
fn parameters(host: &str) -> Result<TlsParameters, lettre::transport::smtp::Error> {
    let store = if rustls_native_certs::load_native_certs().certs.is_empty() {
        CertificateStore::WebpkiRoots
    } else {
        CertificateStore::Default
    };
    TlsParameters::builder(host.to_owned()).certificate_store(store).build_rustls()
}

/// Whether the server's certificate was refused: waiting does not help.
fn is_certificate(error: &lettre::transport::smtp::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(_)) =
            found.or_else(|| error.downcast_ref::<rustls::Error>())
        {
            return true;
        }
        next = error.source();
    }
    false
}

fn mailbox(address: &str, key: &str) -> Result<Mailbox, Failure> {
    let parsed = address.parse::<Address>().map_err(|error| Failure::Never {
        reason: format!("{key}: {}", server::quoted(&format!("{address}: {error}"), &[])),
        hint: "write an address such as \"you@example.org\"".to_owned(),
    })?;
    Ok(Mailbox::new(None, parsed))
}

/// Returns letters and digits of `text`: a message id has no room for anything else.
fn token(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(32).collect()
}

fn system_time(clock: &Clock) -> SystemTime {
    let millis = u64::try_from(clock.now().millis()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

/// Returns the text as HTML: everything escaped, nothing loaded from anywhere.
fn html(layout: &Layout) -> String {
    let mut html = "<!DOCTYPE html><html><head><meta charset=\"utf-8\"></head>\
                    <body style=\"font-family:sans-serif\"><p>"
        .to_owned();
    for span in layout.spans() {
        let text = escaped(&span.text);
        // Writing to a String cannot fail.
        let _ignored = match span.style {
            Style::Strong | Style::Title => write!(html, "<b>{text}</b>"),
            Style::Link => write!(html, "<a href=\"{text}\">{text}</a>"),
            Style::Own | Style::Foreign => write!(html, "{}", text.replace('\n', "<br>\r\n")),
        };
    }
    html.push_str("</p></body></html>\r\n");
    html
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::time::Timestamp;

    pub(in super::super) fn email() -> Email {
        let config = notify::Email {
            host: "mail.example.org".to_owned(),
            port: 587,
            tls: notify::Tls::Required,
            user: Some("user".to_owned()),
            password: Some(Secret::new("canary")),
            from: "periscope@example.org".to_owned(),
            to: vec!["you@example.org".to_owned()],
        };
        let now = Timestamp::parse("2026-11-24T03:55:27Z").unwrap();
        Email::new(&config, &Clock::fixed(now))
    }

    #[test]
    fn a_title_becomes_no_header_and_an_error_no_markup() {
        let mut message = Message::test("vps-1", "prod", Timestamp::EPOCH);
        message.title = "down\r\nBcc: canary@example.org".to_owned();
        message.facts = vec![("Last error".to_owned(), "<img src=x> & \"q\"".to_owned())];
        let mail = email().mail(&message).unwrap().formatted();
        let mail = mailparse::parse_mail(&mail).unwrap();
        let names: Vec<String> = mail.headers.iter().map(mailparse::MailHeader::get_key).collect();
        assert!(!names.contains(&"Bcc".to_owned()), "{names:?}");
        let header = |name: &str| {
            let found = mail.headers.iter().find(|header| header.get_key() == name);
            found.unwrap().get_value()
        };
        assert_eq!(header("Subject"), "[TEST] down  Bcc: canary@example.org");
        assert_eq!(header("Date"), "Tue, 24 Nov 2026 03:55:27 +0000");
        assert_eq!(header("Auto-Submitted"), "auto-generated");
        let [plain, html] = mail.subparts.as_slice() else { panic!("two parts") };
        assert!(plain.get_body().unwrap().contains("Last error: <img src=x> & \"q\""));
        let html = html.get_body().unwrap();
        assert!(html.contains("Last error: &lt;img src=x&gt; &amp; &quot;q&quot;<br>"), "{html}");
    }

    #[test]
    fn an_address_that_no_server_takes_is_named() {
        let mut email = email();
        email.config.to = vec!["you@-".to_owned()];
        let message = Message::test("vps-1", "prod", Timestamp::EPOCH);
        let failure = email.mail(&message).unwrap_err();
        assert!(failure.to_string().contains("notify.email.to"), "{failure}");
    }

    #[test]
    fn nothing_shows_the_password() {
        let shown = format!("{:?}", email());
        assert!(shown.contains("mail.example.org") && !shown.contains("canary"), "{shown}");
    }
}

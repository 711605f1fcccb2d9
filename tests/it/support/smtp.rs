//! An SMTP server as strict as RFC 5321 and 5322 ask for: line ends, lengths, header syntax, no 8 bit
//! without leave, no login without TLS. It can refuse and cut at every step.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use mailparse::MailHeaderMap as _;
use periscope::base::tasks::spawn_detached;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub const USER: &str = "periscope";
pub const PASSWORD: &str = "CANARY-smtp-password";

/// How the server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Never TLS.
    Plain,
    /// Only after STARTTLS is mail taken.
    StartTls,
    /// From the first byte.
    Tls,
}

/// What happens at a command instead of its answer.
#[derive(Debug, Clone)]
pub enum Fault {
    Answer(&'static str),
    Cut,
}

#[derive(Debug, Clone)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    pub subject: String,
    pub plain: String,
    pub html: String,
    pub encrypted: bool,
    pub user: Option<String>,
}

#[derive(Default)]
struct State {
    mails: Vec<Mail>,
    refused: Vec<String>,
    faults: Vec<(&'static str, Fault)>,
}

pub struct Smtp {
    pub port: u16,
    /// The certificate that a client has to trust, PEM.
    pub certificate: String,
    state: Arc<Mutex<State>>,
    server: tokio::task::JoinHandle<()>,
}

impl Smtp {
    pub async fn start(security: Security) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let server = spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
                spawn_detached(async move {
                    let _closed = connection(stream, security, &acceptor, &state).await;
                });
            }
        });
        Self { port, certificate: made.cert.pem(), state, server }
    }

    /// The next commands that begin with `command` (`DATA` twice: also the end of the mail, `.`).
    pub fn fail(&self, command: &'static str, fault: Fault) {
        self.state.lock().unwrap().faults.push((command, fault));
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.state.lock().unwrap().mails.clone()
    }

    pub fn refused(&self) -> Vec<String> {
        self.state.lock().unwrap().refused.clone()
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn connection(
    stream: TcpStream,
    security: Security,
    acceptor: &TlsAcceptor,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    if security == Security::Tls {
        let mut session = Session::new(acceptor.accept(stream).await?, true, security, state);
        session.greet().await?;
        return session.run().await.map(drop);
    }
    let mut session = Session::new(stream, false, security, state);
    session.greet().await?;
    if session.run().await? == End::StartTls {
        let stream = acceptor.accept(session.stream.into_inner()).await?;
        Session::new(stream, true, security, state).run().await?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    StartTls,
}

struct Session<'a, S: AsyncRead + AsyncWrite> {
    stream: BufStream<S>,
    encrypted: bool,
    security: Security,
    state: &'a Mutex<State>,
    user: Option<String>,
    from: Option<String>,
    to: Vec<String>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Session<'a, S> {
    fn new(stream: S, encrypted: bool, security: Security, state: &'a Mutex<State>) -> Self {
        let stream = BufStream::new(stream);
        Self { stream, encrypted, security, state, user: None, from: None, to: Vec::new() }
    }

    async fn greet(&mut self) -> std::io::Result<()> {
        self.say("220 strict.test ESMTP").await
    }

    async fn say(&mut self, line: &str) -> std::io::Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    async fn refuse(&mut self, line: &str) -> std::io::Result<()> {
        self.state.lock().unwrap().refused.push(line.to_owned());
        self.say(line).await
    }

    /// Reads a line that ends in CRLF, without it.
    async fn line(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        if !line.ends_with(b"\r\n") || line[..line.len() - 2].contains(&b'\r') {
            self.refuse("500 5.5.2 bare CR or LF").await?;
            return Ok(None);
        }
        line.truncate(line.len() - 2);
        Ok(Some(line))
    }

    /// Whether a fault has been dealt with in place of `command`; `Err` ends the connection.
    async fn fault(&mut self, command: &str) -> std::io::Result<bool> {
        let fault = {
            let mut state = self.state.lock().unwrap();
            let found = state.faults.iter().position(|(prefix, _)| command.starts_with(prefix));
            found.map(|index| state.faults.remove(index).1)
        };
        match fault {
            None => Ok(false),
            Some(Fault::Answer(line)) => self.say(line).await.map(|()| true),
            Some(Fault::Cut) => Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
    }

    async fn run(&mut self) -> std::io::Result<End> {
        while let Some(line) = self.line().await? {
            let Ok(line) = String::from_utf8(line) else {
                self.refuse("500 5.5.2 not ASCII").await?;
                continue;
            };
            let upper = line.to_uppercase();
            if self.fault(&upper).await? {
                continue;
            }
            let may_send = self.encrypted || self.security == Security::Plain;
            match upper.split([' ', ':']).next().unwrap() {
                "EHLO" if line.len() > 5 => {
                    let mut lines = vec!["strict.test", "8BITMIME"];
                    if self.security == Security::StartTls && !self.encrypted {
                        lines.push("STARTTLS");
                    }
                    if may_send {
                        lines.push("AUTH PLAIN LOGIN");
                    }
                    for (index, text) in lines.iter().enumerate() {
                        let sign = if index + 1 == lines.len() { ' ' } else { '-' };
                        self.say(&format!("250{sign}{text}")).await?;
                    }
                }
                "STARTTLS" if self.security == Security::StartTls && !self.encrypted => {
                    self.say("220 2.0.0 go ahead").await?;
                    return Ok(End::StartTls);
                }
                "QUIT" => {
                    self.say("221 2.0.0 bye").await?;
                    return Ok(End::Closed);
                }
                _ if !may_send => self.refuse("530 5.7.0 must issue STARTTLS first").await?,
                "NOOP" => self.say("250 2.0.0 ok").await?,
                "AUTH" => self.login(&line).await?,
                "MAIL" => match path(&line, "MAIL FROM:") {
                    Some(from) => {
                        self.from = Some(from);
                        self.say("250 2.1.0 ok").await?;
                    }
                    None => self.refuse("501 5.5.4 syntax of MAIL").await?,
                },
                "RCPT" if self.from.is_some() => match path(&line, "RCPT TO:") {
                    Some(to) => {
                        self.to.push(to);
                        self.say("250 2.1.5 ok").await?;
                    }
                    None => self.refuse("501 5.5.4 syntax of RCPT").await?,
                },
                "DATA" if !self.to.is_empty() => self.data().await?,
                _ => self.refuse(&format!("503 5.5.1 not now: {line}")).await?,
            }
        }
        Ok(End::Closed)
    }

    async fn login(&mut self, line: &str) -> std::io::Result<()> {
        let decode = |text: &str| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            String::from_utf8(bytes).ok()
        };
        let given = line.strip_prefix("AUTH PLAIN ").and_then(decode);
        if given == Some(format!("\0{USER}\0{PASSWORD}")) {
            self.user = Some(USER.to_owned());
            return self.say("235 2.7.0 welcome").await;
        }
        // As some servers do, it shows what it was given.
        let given = format!("{line} {}", given.unwrap_or_default().replace('\0', " "));
        self.refuse(&format!("535 5.7.8 not accepted: {given}")).await
    }

    async fn data(&mut self) -> std::io::Result<()> {
        self.say("354 go ahead").await?;
        let mut raw = Vec::new();
        loop {
            let Some(line) = self.line().await? else { return Ok(()) };
            if line == b"." {
                break;
            }
            let line = line.strip_prefix(b".").unwrap_or(&line);
            raw.extend_from_slice(line);
            raw.extend_from_slice(b"\r\n");
        }
        if self.fault(".").await? {
            return Ok(());
        }
        match read(&raw) {
            Ok(mut mail) => {
                mail.from = self.from.take().unwrap();
                mail.to = std::mem::take(&mut self.to);
                mail.encrypted = self.encrypted;
                mail.user = self.user.clone();
                self.state.lock().unwrap().mails.push(mail);
                self.say("250 2.0.0 taken").await
            }
            Err(reason) => self.refuse(&format!("554 5.6.0 {reason}")).await,
        }
    }
}

/// Returns the address of `MAIL FROM:<…>` or `RCPT TO:<…>`.
fn path(line: &str, prefix: &str) -> Option<String> {
    let rest = line.strip_prefix(prefix)?.strip_prefix('<')?;
    let (address, parameters) = rest.split_once('>')?;
    let plain = address.is_ascii() && address.contains('@') && !address.contains([' ', '<']);
    let known = ["", " BODY=8BITMIME"];
    (plain && known.contains(&parameters)).then(|| address.to_owned())
}

fn read(raw: &[u8]) -> Result<Mail, String> {
    let text = std::str::from_utf8(raw).map_err(|_| "not UTF-8".to_owned())?;
    if let Some(line) = text.split("\r\n").find(|line| line.len() > 998) {
        return Err(format!("a line of {} bytes", line.len()));
    }
    if text.contains('\0') {
        return Err("NUL".to_owned());
    }
    let (head, _) = text.split_once("\r\n\r\n").ok_or("no end of the header")?;
    let known = [
        "from",
        "to",
        "subject",
        "date",
        "message-id",
        "mime-version",
        "content-type",
        "auto-submitted",
        "content-transfer-encoding",
    ];
    let mut seen = Vec::new();
    for line in head.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])) {
        let (name, value) = line.split_once(": ").ok_or(format!("header line {line:?}"))?;
        let name = name.to_lowercase();
        if !known.contains(&name.as_str()) || seen.contains(&name) || !value.is_ascii() {
            return Err(format!("header {line:?}"));
        }
        seen.push(name);
    }
    for needed in ["from", "to", "subject", "date", "message-id", "mime-version"] {
        if !seen.iter().any(|name| name == needed) {
            return Err(format!("no header {needed}"));
        }
    }
    let mail = mailparse::parse_mail(raw).map_err(|error| error.to_string())?;
    if mail.ctype.mimetype != "multipart/alternative" || mail.subparts.len() != 2 {
        return Err(format!("{} of {} parts", mail.ctype.mimetype, mail.subparts.len()));
    }
    let part = |index: usize, kind: &str| {
        let part = &mail.subparts[index];
        if part.ctype.mimetype != kind || part.ctype.charset != "utf-8" {
            return Err(format!("part {index}: {} {}", part.ctype.mimetype, part.ctype.charset));
        }
        part.get_body().map_err(|error| error.to_string())
    };
    Ok(Mail {
        from: String::new(),
        to: Vec::new(),
        subject: mail.headers.get_first_value("Subject").unwrap_or_default(),
        plain: part(0, "text/plain")?.replace("\r\n", "\n"),
        html: part(1, "text/html")?,
        encrypted: false,
        user: None,
    })
}

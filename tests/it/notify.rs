//! `alerts test` and `notify telegram` of the built binary against strict local servers.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::support::discord::Discord;
use crate::support::site::Fault;
use crate::support::smtp::{self, Security, Smtp};
use crate::support::telegram::{CHAT, TOKEN, Telegram};
use crate::support::topic::{self, Topic};
use crate::support::wait::until;

const LONG: Duration = Duration::from_secs(60);

/// The binary in `folder`, with nothing of this machine's configuration.
fn periscope(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_periscope"));
    command
        .args(arguments)
        .current_dir(folder)
        .env("XDG_DATA_HOME", folder.join("data"))
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env_remove("PERISCOPE_CONFIG")
        .env_remove("TELEGRAM_BOT_TOKEN")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Returns exit code, stdout and stderr; neither may hold a secret.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(!out.contains("CANARY") && !err.contains("CANARY"), "{out}\n{err}");
    (output.status.code().unwrap(), out, err)
}

/// Every channel, each with its own server.
struct Servers {
    telegram: Telegram,
    discord: Discord,
    smtp: Smtp,
    topic: Topic,
    folder: tempfile::TempDir,
}

impl Servers {
    async fn start(security: Security, scheme: &str, host: &str) -> Self {
        let this = Self {
            telegram: Telegram::start().await,
            discord: Discord::start().await,
            smtp: Smtp::start(security).await,
            topic: Topic::start().await,
            folder: tempfile::tempdir().unwrap(),
        };
        let secrets = [
            ("token", TOKEN),
            ("discord", &this.discord.url()),
            ("password", smtp::PASSWORD),
            ("webhook", &this.topic.webhook_url()),
            ("ntfy", &this.topic.ntfy_url()),
            ("topic", topic::TOKEN),
            ("ca.pem", &this.smtp.certificate),
        ];
        for (name, text) in secrets {
            write_private(&this.folder.path().join(name), text);
        }
        let config = format!(
            r#"
[node]
host = "vps-1"
env = "prod"
[notify.telegram]
token = {{ file = "token" }}
chat_id = {CHAT}
api_url = "{telegram}"
[notify.discord]
webhook_url = {{ file = "discord" }}
[notify.email]
server = "{scheme}://{host}:{port}"
user = "{user}"
password = {{ file = "password" }}
from = "periscope@example.org"
to = ["ada@example.org"]
[notify.webhook]
url = {{ file = "webhook" }}
token = {{ file = "topic" }}
[notify.ntfy]
url = {{ file = "ntfy" }}
token = {{ file = "topic" }}
"#,
            telegram = this.telegram.url(),
            port = this.smtp.port,
            user = smtp::USER,
        );
        std::fs::write(this.folder.path().join("periscope.toml"), config).unwrap();
        this
    }

    async fn test(&self) -> (i32, String, String) {
        let folder = self.folder.path();
        let mut command = periscope(folder, &["alerts", "test"]);
        command.env("SSL_CERT_FILE", folder.join("ca.pem")).env_remove("SSL_CERT_DIR");
        told(&command.output().await.unwrap())
    }
}

fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn alerts_test_reaches_every_channel_without_an_instance() {
    for (security, scheme, host) in
        [(Security::Tls, "smtps", "localhost"), (Security::Plain, "smtp", "127.0.0.1")]
    {
        let servers = Servers::start(security, scheme, host).await;
        let (code, out, err) = servers.test().await;
        assert_eq!((code, err.as_str()), (0, ""), "{security:?} {out}");
        assert_eq!(out.matches("delivered").count(), 5, "{out}");
        let text = servers.telegram.sent()[0].text.clone();
        let id = out.split("(id ").nth(1).unwrap().split(')').next().unwrap();
        assert!(text.contains("TEST") && text.contains("vps-1") && text.contains(id), "{text}");
        let mails = servers.smtp.mails();
        assert_eq!(mails[0].subject, "[TEST] periscope can reach you here");
        assert_eq!(mails[0].encrypted, security != Security::Plain);
        assert_eq!(servers.discord.sent().len() + servers.topic.taken().len(), 3);
    }
}

#[tokio::test]
async fn alerts_test_says_per_channel_what_failed_and_what_to_do() {
    let servers = Servers::start(Security::Plain, "smtp", "127.0.0.1").await;
    write_private(&servers.folder.path().join("token"), "1234:CANARY-wrong");
    servers.smtp.fail("RCPT", smtp::Fault::Answer("550 5.1.1 no such user"));
    servers.discord.fail(&[Fault::status(429, r#"{"message":"limited","retry_after":7.5}"#)]);
    let (code, out, err) = servers.test().await;
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("telegram  FAILED    answered 401: Unauthorized"), "{out}");
    assert!(lines[1].contains("@BotFather"), "{out}");
    assert!(lines[2].starts_with("discord   FAILED    answered 429"), "{out}");
    assert!(lines[3].contains("try again in 8 s"), "{out}");
    assert!(lines[4].starts_with("email     FAILED") && lines[4].contains("no such user"), "{out}");
    assert!(lines[6].starts_with("webhook   delivered") && lines[7].starts_with("ntfy "), "{out}");
}

#[tokio::test]
async fn alerts_test_without_a_channel_says_how_to_add_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = periscope(folder.path(), &["alerts", "test"]).output().await.unwrap();
    let (code, _, err) = told(&output);
    assert_eq!(code, 78);
    assert!(err.contains("periscope notify telegram"), "{err}");
}

/// Runs `notify telegram` with `token` on stdin, and lets somebody write once it listens.
async fn notify(server: &Telegram, folder: &Path, token: Option<&str>, more: &[&str]) -> Output {
    let url = format!("notify.telegram.api_url={}", server.url());
    let mut arguments = vec!["notify", "telegram", "--set", url.as_str()];
    arguments.extend(more);
    let mut command = periscope(folder, &arguments);
    if let Some(token) = token {
        let mut input = tempfile::tempfile().unwrap();
        writeln!(input, "{token}").unwrap();
        std::io::Seek::rewind(&mut input).unwrap();
        command.stdin(input);
    }
    let child = command.spawn().unwrap();
    let listening = until("a poll", LONG, || async {
        if server.polls() > 0 { Ok(()) } else { Err(server.refused()) }
    });
    listening.await;
    server.says(CHAT, "/start");
    child.wait_with_output().await.unwrap()
}

#[tokio::test]
async fn notify_telegram_learns_the_chat_and_writes_it_down() {
    let server = Telegram::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("periscope.toml");
    std::fs::write(&file, "# mine\n[node]\nenv = \"prod\" # really\n").unwrap();
    let output = notify(&server, folder.path(), Some(TOKEN), &["--yes"]).await;
    let (code, out, err) = told(&output);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("@periscope_test_bot"), "{out}");
    assert!(out.contains(r#"Found group "Traders <3" with the number -100123"#), "{out}");
    let token = folder.path().join("data/periscope/secrets/telegram-token");
    assert_eq!(std::fs::read_to_string(&token).unwrap(), format!("{TOKEN}\n"));
    assert_eq!(std::fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let config = std::fs::read_to_string(&file).unwrap();
    assert!(config.starts_with("# mine\n[node]\nenv = \"prod\" # really\n"), "{config}");
    assert!(config.contains("chat_id = -100123") && !config.contains("CANARY"), "{config}");
    let [sent] = server.sent().try_into().unwrap();
    assert!(sent.chat == CHAT && sent.text.contains("TEST"), "{sent:?}");
    // What it wrote is what the other commands need.
    let url = format!("notify.telegram.api_url={}", server.url());
    let again =
        periscope(folder.path(), &["alerts", "test", "--set", &url]).output().await.unwrap();
    assert_eq!(told(&again).0, 0);
    assert_eq!(server.sent().len(), 2);
}

#[tokio::test]
async fn notify_telegram_keeps_a_token_that_is_configured_and_changes_nothing_unasked() {
    let server = Telegram::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("periscope.toml");
    write_private(&folder.path().join("token"), TOKEN);
    let before = "[notify.telegram]\ntoken = { file = \"token\" }\n";
    std::fs::write(&file, before).unwrap();
    let (code, out, err) = told(&notify(&server, folder.path(), None, &[]).await);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("[notify.telegram]\nchat_id = -100123\n"), "{out}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    assert!(!folder.path().join("data").exists(), "no token had to be written");
    assert_eq!(server.sent().len(), 1);
}

#[tokio::test]
async fn notify_telegram_with_a_wrong_token_or_none_says_what_to_do() {
    let server = Telegram::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("notify.telegram.api_url={}", server.url());
    let arguments = ["notify", "telegram", "--set", url.as_str()];
    let (code, _, err) = told(&periscope(folder.path(), &arguments).output().await.unwrap());
    assert!(code == 64 && err.contains("@BotFather"), "{code} {err}");
    for (token, code, words) in [
        ("1234:CANARY-wrong", 1, "401: Unauthorized"),
        ("CANARY without a colon", 78, "is no token of a Telegram bot"),
    ] {
        let mut command = periscope(folder.path(), &arguments);
        command.env("TELEGRAM_BOT_TOKEN", token);
        let (ended, _, err) = told(&command.output().await.unwrap());
        assert!(ended == code && err.contains(words), "{ended} {err}");
    }
    assert!(server.sent().is_empty());
}

#[tokio::test]
async fn notify_telegram_ends_when_nobody_writes() {
    let server = Telegram::start().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("notify.telegram.api_url={}", server.url());
    let arguments = ["notify", "telegram", "--wait", "1", "--set", url.as_str()];
    let mut command = periscope(folder.path(), &arguments);
    command.env("TELEGRAM_BOT_TOKEN", TOKEN);
    let (code, _, err) = told(&command.output().await.unwrap());
    assert!(code == 1 && err.contains("nobody wrote"), "{code} {err}");
}

//! Messages reach strict servers whole, failures get the right verdict, and nothing shows a secret.

use std::time::Duration;

use periscope::alert::channel::{Channel, Failure, channels};
use periscope::alert::message::{Kind, Message};
use periscope::base::http::Client;
use periscope::base::secret::Secret;
use periscope::base::time::{Clock, Timestamp};
use periscope::config::notify;
use periscope::model::severity::Severity;

use crate::support::discord::Discord;
use crate::support::site::Fault;
use crate::support::smtp::{self, Security, Smtp};
use crate::support::telegram::{CHAT, TOKEN, Telegram};
use crate::support::topic::{self, Topic};

fn one(config: notify::Notify) -> Channel {
    let client = Client::new().unwrap();
    let mut all = channels(&config, &client, &Clock::system());
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn to_telegram(server: &Telegram, token: &str) -> Channel {
    let api_url = server.url().to_owned();
    let telegram = notify::Telegram { token: Secret::new(token), chat_id: CHAT, api_url };
    one(notify::Notify { telegram: Some(telegram), ..notify::Notify::default() })
}

fn to_discord(url: &str) -> Channel {
    let discord = notify::Discord { webhook_url: Secret::new(url) };
    one(notify::Notify { discord: Some(discord), ..notify::Notify::default() })
}

fn email(server: &Smtp, tls: notify::Tls, password: &str) -> notify::Email {
    notify::Email {
        host: "127.0.0.1".to_owned(),
        port: server.port,
        tls,
        user: Some(smtp::USER.to_owned()),
        password: Some(Secret::new(password)),
        from: "periscope@example.org".to_owned(),
        to: vec!["ada@example.org".to_owned(), "bo@example.org".to_owned()],
    }
}

fn to_email(config: notify::Email) -> Channel {
    one(notify::Notify { email: Some(config), ..notify::Notify::default() })
}

fn to_webhook(url: String) -> Channel {
    let webhook = notify::Webhook { url: Secret::new(url), token: Some(Secret::new(topic::TOKEN)) };
    one(notify::Notify { webhook: Some(webhook), ..notify::Notify::default() })
}

fn to_ntfy(url: String) -> Channel {
    let ntfy = notify::Ntfy { url: Secret::new(url), token: Some(Secret::new(topic::TOKEN)) };
    one(notify::Notify { ntfy: Some(ntfy), ..notify::Notify::default() })
}

fn firing() -> Message {
    Message {
        id: "a7f3k2".to_owned(),
        kind: Kind::Firing,
        severity: Severity::Critical,
        title: "ccxt on vps-1 is down".to_owned(),
        facts: vec![
            ("Since".to_owned(), "2026-11-24 03:55:27 UTC".to_owned()),
            ("Value".to_owned(), "1m 15s (limit 30s)".to_owned()),
            ("Last error".to_owned(), "<b>@everyone</b> *_x_* apiKey=CANARYCANARY".to_owned()),
        ],
        advice: Some("Look at its log and start it again.".to_owned()),
        link: Some("http://127.0.0.1:7480/".to_owned()),
        children: vec!["ccxt binance is silent".to_owned()],
        at: Timestamp::from_millis(1_795_492_557_000),
    }
}

/// Every text that has to arrive, whatever the channel.
const PARTS: [&str; 8] = [
    "CRITICAL",
    "ccxt on vps-1 is down",
    "1m 15s (limit 30s)",
    "<b>@everyone</b> *_x_* apiKey=[redacted]",
    "Look at its log and start it again.",
    "http://127.0.0.1:7480/",
    "ccxt binance is silent",
    "a7f3k2",
];

fn whole(text: &str) {
    for part in PARTS {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

fn later(result: Result<(), Failure>) -> (String, Option<Duration>) {
    match result {
        Err(Failure::Later { reason, after }) => {
            assert!(!reason.contains("CANARY"), "{reason}");
            (reason, after)
        }
        other => panic!("{other:?}"),
    }
}

fn never(result: Result<(), Failure>) -> (String, String) {
    match result {
        Err(Failure::Never { reason, hint }) => {
            assert!(!reason.contains("CANARY") && !hint.contains("CANARY"), "{reason}: {hint}");
            (reason, hint)
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn telegram_shows_everything_and_nothing_is_a_link_or_a_mention() {
    let server = Telegram::start().await;
    to_telegram(&server, TOKEN).send(&firing()).await.unwrap();
    let [sent] = server.sent().try_into().unwrap();
    whole(&sent.text);
    assert_eq!((sent.chat, sent.marked), (CHAT, vec!["http://127.0.0.1:7480/".to_owned()]));
}

#[tokio::test]
async fn discord_shows_everything_and_nothing_is_markup() {
    let server = Discord::start().await;
    to_discord(&server.url()).send(&firing()).await.unwrap();
    let [sent] = server.sent().try_into().unwrap();
    let fields: String =
        sent.fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    whole(&format!("{}\n{fields}{}\n{}", sent.title, sent.description, sent.footer));
    assert_eq!(sent.marked, Vec::<String>::new());
}

#[tokio::test]
async fn mail_arrives_with_both_parts_and_a_login() {
    let server = Smtp::start(Security::Plain).await;
    let config = email(&server, notify::Tls::Off, smtp::PASSWORD);
    to_email(config).send(&firing()).await.unwrap();
    let [mail] = server.mails().try_into().unwrap();
    assert_eq!(mail.subject, "[CRITICAL] ccxt on vps-1 is down");
    assert_eq!(mail.from, "periscope@example.org");
    assert_eq!(mail.to, ["ada@example.org", "bo@example.org"]);
    assert_eq!(mail.user.as_deref(), Some(smtp::USER));
    whole(&mail.plain);
    assert!(mail.html.contains("&lt;b&gt;@everyone&lt;/b&gt; *_x_*"), "{}", mail.html);
}

#[tokio::test]
async fn a_webhook_gets_the_message_as_json_and_ntfy_as_a_push() {
    let server = Topic::start().await;
    to_webhook(server.webhook_url()).send(&firing()).await.unwrap();
    to_ntfy(server.ntfy_url()).send(&firing()).await.unwrap();
    let [webhook, ntfy] = server.taken().try_into().unwrap();
    whole(webhook["text"].as_str().unwrap());
    for (key, value) in [("id", "a7f3k2"), ("kind", "firing"), ("severity", "critical")] {
        assert_eq!(webhook[key], value);
    }
    assert_eq!(webhook["facts"][1]["value"], "1m 15s (limit 30s)");
    whole(&format!("{} {}", ntfy["title"].as_str().unwrap(), ntfy["message"].as_str().unwrap()));
    assert_eq!((&ntfy["priority"], &ntfy["tags"][0]), (&5.into(), &"rotating_light".into()));
}

#[tokio::test]
async fn a_wrong_token_or_chat_says_what_to_do() {
    let server = Telegram::start().await;
    let wrong = to_telegram(&server, "1234:CANARY-wrong").send(&firing()).await;
    let (reason, hint) = never(wrong);
    assert!(
        reason.contains("401: Unauthorized") && hint.contains("@BotFather"),
        "{reason}: {hint}"
    );
    server.move_chat(CHAT, -1);
    server.move_chat(-1, CHAT);
    // Two groups that point at each other end after one step.
    let (_, hint) = never(to_telegram(&server, TOKEN).send(&firing()).await);
    assert!(hint.contains("notify telegram"), "{hint}");
    let server = Telegram::start().await;
    let api_url = server.url().to_owned();
    let telegram = notify::Telegram { token: Secret::new(TOKEN), chat_id: 5, api_url };
    let stranger = one(notify::Notify { telegram: Some(telegram), ..notify::Notify::default() });
    let (reason, hint) = never(stranger.send(&firing()).await);
    assert!(reason.contains("chat not found") && hint.contains("notify telegram"), "{hint}");
}

#[tokio::test]
async fn a_group_that_moves_is_followed_and_remembered() {
    let server = Telegram::start().await;
    let channel = to_telegram(&server, TOKEN);
    server.move_chat(CHAT, -1_007);
    channel.send(&firing()).await.unwrap();
    // Had it asked for the old one again, this fault would have met the second request of two.
    server.fail("sendMessage", &[Fault::Delay(Duration::ZERO), Fault::Cut]);
    channel.send(&firing()).await.unwrap();
    assert_eq!(server.sent().iter().map(|sent| sent.chat).collect::<Vec<_>>(), [-1_007, -1_007]);
}

#[tokio::test]
async fn telegram_gets_the_pause_it_asks_for() {
    let server = Telegram::start().await;
    let channel = to_telegram(&server, TOKEN);
    let busy = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 30","parameters":{"retry_after":30}}"#;
    server.fail("sendMessage", &[Fault::status(429, busy)]);
    let (reason, after) = later(channel.send(&firing()).await);
    assert!(reason.contains("Too Many Requests"), "{reason}");
    assert_eq!(after, Some(Duration::from_secs(30)));
    // The server is not even asked before that.
    let (_, after) = later(channel.send(&firing()).await);
    assert!(after.unwrap() <= Duration::from_secs(30));
    assert!(server.sent().is_empty());
}

#[tokio::test]
async fn a_failing_telegram_is_tried_again_and_a_lost_answer_is_no_refusal() {
    let server = Telegram::start().await;
    let channel = to_telegram(&server, TOKEN);
    let html = "<html>502 CANARY</html>";
    server.fail("sendMessage", &[Fault::status(500, "{}"), Fault::status(502, html), Fault::Cut]);
    for _ in 0..2 {
        later(channel.send(&firing()).await.map_err(without_words));
    }
    later(channel.send(&firing()).await);
    server.fail("sendMessage", &[Fault::Lost]);
    later(channel.send(&firing()).await);
    assert_eq!(server.sent().len(), 1, "taken, though nobody was told");
    // An answer that says it was taken is believed, whatever the message in it looks like.
    let odd = r#"{"ok":true,"result":{"unknown":[]}}"#;
    server.fail("sendMessage", &[Fault::status(200, odd)]);
    channel.send(&firing()).await.unwrap();
}

/// The words of a proxy's page may be anything, our canary too.
fn without_words(failure: Failure) -> Failure {
    match failure {
        Failure::Later { after, .. } => Failure::Later { reason: String::new(), after },
        never @ Failure::Never { .. } => never,
    }
}

#[tokio::test]
async fn discord_is_left_alone_as_long_as_it_wants() {
    let server = Discord::start().await;
    let channel = to_discord(&server.url());
    let busy = r#"{"message":"You are being rate limited.","retry_after":1.5,"global":false}"#;
    server.fail(&[Fault::status(429, busy)]);
    let (reason, after) = later(channel.send(&firing()).await);
    assert!(reason.contains("rate limited"), "{reason}");
    assert_eq!(after, Some(Duration::from_millis(1_500)));
    later(channel.send(&firing()).await);
    assert!(server.sent().is_empty());
}

#[tokio::test]
async fn a_deleted_webhook_says_what_to_do_and_shows_no_key() {
    let server = Discord::start().await;
    for (url, words) in [
        (server.url().replace("123456", "1"), "Unknown Webhook"),
        (format!("{}x", server.url()), "Invalid Webhook Token"),
    ] {
        let (reason, hint) = never(to_discord(&url).send(&firing()).await);
        assert!(reason.contains(words), "{reason}");
        assert!(hint.contains("notify.discord.webhook_url"), "{hint}");
    }
    let echo = format!("no such path /api/webhooks/123456/{}", crate::support::discord::KEY);
    server.fail(&[Fault::status(400, &format!(r#"{{"message":"{echo}"}}"#))]);
    never(to_discord(&server.url()).send(&firing()).await);
    server.fail(&[Fault::Cut]);
    later(to_discord(&server.url()).send(&firing()).await);
    later(to_discord("http://127.0.0.1:1/api/webhooks/1/CANARY").send(&firing()).await);
}

#[tokio::test]
async fn redirects_are_refused_by_every_channel() {
    let site = Topic::start().await;
    let moved = || Fault::Answer {
        status: 307,
        headers: vec![("location", "http://127.0.0.1:1/CANARY".to_owned())],
        body: String::new(),
    };
    site.fail(&[moved(), moved()]);
    for channel in [to_webhook(site.webhook_url()), to_ntfy(site.ntfy_url())] {
        let (reason, hint) = never(channel.send(&firing()).await);
        assert!(reason.contains("307") && hint.contains("not followed"), "{reason}: {hint}");
    }
    let discord = Discord::start().await;
    discord.fail(&[moved()]);
    never(to_discord(&discord.url()).send(&firing()).await);
    let telegram = Telegram::start().await;
    telegram.fail("sendMessage", &[moved()]);
    never(to_telegram(&telegram, TOKEN).send(&firing()).await);
}

#[tokio::test]
async fn a_receiver_of_json_that_refuses_or_fails_gets_the_right_verdict() {
    let site = Topic::start().await;
    let busy = Fault::Answer {
        status: 503,
        headers: vec![("retry-after", "9".to_owned())],
        body: "down".to_owned(),
    };
    site.fail(&[busy.clone(), busy, Fault::status(403, topic::TOKEN), Fault::status(404, "")]);
    for channel in [to_webhook(site.webhook_url()), to_ntfy(site.ntfy_url())] {
        assert_eq!(later(channel.send(&firing()).await).1, Some(Duration::from_secs(9)));
    }
    let (_, hint) = never(to_webhook(site.webhook_url()).send(&firing()).await);
    assert!(hint.contains("notify.webhook.token"), "{hint}");
    let (_, hint) = never(to_ntfy(site.ntfy_url()).send(&firing()).await);
    assert!(hint.contains("notify.ntfy.url"), "{hint}");
}

#[tokio::test]
async fn smtp_answers_of_4xx_wait_and_of_5xx_do_not() {
    let server = Smtp::start(Security::Plain).await;
    let send = || async {
        let config = email(&server, notify::Tls::Off, smtp::PASSWORD);
        to_email(config).send(&firing()).await
    };
    for (command, fault) in [
        ("EHLO", smtp::Fault::Answer("421 4.3.2 too busy")),
        ("AUTH", smtp::Fault::Answer("454 4.7.0 try later")),
        ("MAIL", smtp::Fault::Answer("451 4.3.0 try later")),
        ("RCPT", smtp::Fault::Answer("450 4.2.1 greylisted")),
        ("DATA", smtp::Fault::Cut),
        (".", smtp::Fault::Answer("452 4.3.1 no space")),
        (".", smtp::Fault::Cut),
    ] {
        server.fail(command, fault.clone());
        let (reason, _) = later(send().await);
        assert!(reason.starts_with("127.0.0.1:"), "{command} {fault:?}: {reason}");
    }
    for (command, answer, word) in [
        ("MAIL", "553 5.1.8 sender refused", "notify.email.from"),
        ("RCPT", "550 5.1.1 no such user", "notify.email.to"),
        (".", "554 5.7.1 spam", "mail server"),
    ] {
        server.fail(command, smtp::Fault::Answer(answer));
        let (reason, hint) = never(send().await);
        assert!(reason.contains(&answer[4..]) && hint.contains(word), "{reason}: {hint}");
    }
    assert!(server.mails().is_empty());
    let config = email(&server, notify::Tls::Off, "CANARY-wrong");
    let (reason, hint) = never(to_email(config).send(&firing()).await);
    assert!(reason.contains("535") && hint.contains("notify.email.password"), "{reason}");
    send().await.unwrap();
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn mail_is_never_sent_without_the_encryption_that_was_asked_for() {
    let plain = Smtp::start(Security::Plain).await;
    let config = email(&plain, notify::Tls::Required, smtp::PASSWORD);
    let (reason, _) = never(to_email(config).send(&firing()).await);
    assert!(reason.contains("STARTTLS"), "{reason}");
    // A certificate that nobody trusts.
    for (security, tls) in
        [(Security::StartTls, notify::Tls::Required), (Security::Tls, notify::Tls::Implicit)]
    {
        let server = Smtp::start(security).await;
        let (reason, hint) =
            never(to_email(email(&server, tls, smtp::PASSWORD)).send(&firing()).await);
        assert!(hint.contains("certificate"), "{reason}: {hint}");
        assert!(server.mails().is_empty());
    }
    assert!(plain.mails().is_empty());
}

/// The certificate has to be trusted by the whole process, so this test runs itself once more, in a
/// process of its own that is told the port.
#[tokio::test]
async fn mail_goes_over_starttls_with_a_login() {
    const PORT: &str = "IT_STARTTLS_PORT";
    if let Ok(port) = std::env::var(PORT) {
        let server = Smtp::start(Security::Plain).await;
        let mut config = email(&server, notify::Tls::Required, smtp::PASSWORD);
        (config.host, config.port) = ("localhost".to_owned(), port.parse().unwrap());
        to_email(config).send(&firing()).await.unwrap();
        return;
    }
    let server = Smtp::start(Security::StartTls).await;
    let folder = tempfile::tempdir().unwrap();
    let certificate = folder.path().join("ca.pem");
    std::fs::write(&certificate, &server.certificate).unwrap();
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "channels::mail_goes_over_starttls_with_a_login"])
        .env(PORT, server.port.to_string())
        .env("SSL_CERT_FILE", &certificate)
        .env_remove("SSL_CERT_DIR")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let [mail] = server.mails().try_into().unwrap();
    assert!(mail.encrypted && mail.user.as_deref() == Some(smtp::USER), "{mail:?}");
}

/// Texts that broke somebody's alerts, and one that is simply too long.
fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "\0nul",
        "\u{1b}[31mred\u{1b}[0m",
        "a\r\nBcc: x@y.z",
        "\u{202e}evil",
        "שלום עולם",
        "🚀👩\u{200d}💻",
        "<b>bold</b><script>x</script>",
        "_under_ *star* `code` ```block``` ~~s~~ ||spoiler||",
        "[text](http://e.vil)",
        "@everyone @here <@123> <#1> <t:1:R> @durov",
        "tg://resolve?domain=x",
        "https://e.vil/x?y=z www.e.vil e.vil mail@e.vil",
        "/stop #tag $BTC",
        "\\",
        "",
        " \u{200b}",
        "\u{fffe}\u{ffff}",
        "- list\n1. list\n# heading\n> quote\n-# small",
        ":smile:",
        "&lt;&amp;",
    ]
    .map(str::to_owned)
    .into();
    texts.push("💥<_@everyone".repeat(100_000 / 13));
    texts
}

#[tokio::test]
async fn no_hostile_text_is_refused_or_taken_for_markup() {
    let telegram = Telegram::start().await;
    let discord = Discord::start().await;
    let smtp = Smtp::start(Security::Plain).await;
    let topic = Topic::start().await;
    let config = email(&smtp, notify::Tls::Off, smtp::PASSWORD);
    let channels = [
        to_telegram(&telegram, TOKEN),
        to_discord(&discord.url()),
        to_email(config),
        to_webhook(topic.webhook_url()),
        to_ntfy(topic.ntfy_url()),
    ];
    let texts = hostile();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut any =
        || texts[random.usize(0..texts.len())].clone() + &texts[random.usize(0..texts.len())];
    // Each text alone, then pairs at random.
    let rounds = 60;
    for round in 0..rounds {
        let one = texts.get(round).cloned().unwrap_or_else(&mut any);
        let mut message = firing();
        message.title = one.clone();
        message.facts = vec![(any(), one.clone()), ("Last error".to_owned(), any())];
        message.advice = Some(any());
        message.children = vec![one, any()];
        message.link = None;
        for channel in &channels {
            let sent = channel.send(&message).await;
            assert_eq!(sent, Ok(()), "{}: {message:?}", channel.name());
        }
    }
    for sent in telegram.sent() {
        assert_eq!(sent.marked, Vec::<String>::new(), "{}", sent.text);
    }
    for sent in discord.sent() {
        assert_eq!(sent.marked, Vec::<String>::new(), "{sent:?}");
    }
    assert_eq!(telegram.refused(), Vec::<String>::new());
    assert_eq!(discord.refused(), Vec::<String>::new());
    assert_eq!(smtp.refused(), Vec::<String>::new());
    let counts =
        [telegram.sent().len(), discord.sent().len(), smtp.mails().len(), topic.taken().len()];
    assert_eq!(counts, [rounds, rounds, rounds, 2 * rounds]);
}

#[test]
fn nothing_that_is_printed_for_debugging_holds_a_secret() {
    let telegram = notify::Telegram {
        token: Secret::new(TOKEN),
        chat_id: CHAT,
        api_url: "https://api.telegram.org".to_owned(),
    };
    let secret = || Secret::new("https://h/CANARY");
    let email = notify::Email {
        host: "h".to_owned(),
        port: 587,
        tls: notify::Tls::Required,
        user: Some("u".to_owned()),
        password: Some(secret()),
        from: "a@b.c".to_owned(),
        to: vec!["a@b.c".to_owned()],
    };
    let all = notify::Notify {
        telegram: Some(telegram),
        discord: Some(notify::Discord { webhook_url: secret() }),
        email: Some(email),
        webhook: Some(notify::Webhook { url: secret(), token: Some(secret()) }),
        ntfy: Some(notify::Ntfy { url: secret(), token: Some(secret()) }),
    };
    let all = channels(&all, &Client::new().unwrap(), &Clock::system());
    let names: Vec<&str> = all.iter().map(Channel::name).collect();
    assert_eq!(names, ["telegram", "discord", "email", "webhook", "ntfy"]);
    let shown = format!("{all:?}");
    assert!(!shown.contains("CANARY"), "{shown}");
}

/// A check asks as a message would be asked for, finds the same faults, and sends nothing.
#[tokio::test]
async fn a_check_finds_what_would_fail_and_sends_no_message() {
    let server = Telegram::start().await;
    to_telegram(&server, TOKEN).check().await.unwrap();
    let (_, hint) = never(to_telegram(&server, "123:CANARY").check().await);
    assert!(hint.contains("the token is wrong"), "{hint}");
    let api_url = server.url().to_owned();
    let elsewhere = notify::Telegram { token: Secret::new(TOKEN), chat_id: 7, api_url };
    let elsewhere = notify::Notify { telegram: Some(elsewhere), ..notify::Notify::default() };
    let (_, hint) = never(one(elsewhere).check().await);
    assert!(hint.contains("does not know this chat"), "{hint}");
    assert!(server.sent().is_empty());

    let server = Discord::start().await;
    to_discord(&server.url()).check().await.unwrap();
    let (_, hint) = never(to_discord(&server.url().replace("123456", "654321")).check().await);
    assert!(hint.contains("webhook was deleted"), "{hint}");
    assert!(server.sent().is_empty());

    let server = Smtp::start(Security::Plain).await;
    to_email(email(&server, notify::Tls::Off, smtp::PASSWORD)).check().await.unwrap();
    let (_, hint) = never(to_email(email(&server, notify::Tls::Off, "wrong")).check().await);
    assert!(hint.contains("notify.email.password"), "{hint}");
    let (_, hint) =
        never(to_email(email(&server, notify::Tls::Required, smtp::PASSWORD)).check().await);
    assert!(hint.contains("STARTTLS"), "{hint}");
    assert!(server.mails().is_empty());
    later(to_webhook("http://127.0.0.1:1/CANARY".to_owned()).check().await);
    later(to_ntfy("http://127.0.0.1:1/CANARY".to_owned()).check().await);
}

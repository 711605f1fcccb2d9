//! Hostile names and errors, 100,000 of them, against the limits as the servers' documents state
//! them; `tests/it/channels.rs` sends some of the same kind over the wire.

use serde_json::Value;

use super::telegram::Text;
use super::{discord, email, ntfy};
use crate::alert::layout::Layout;
use crate::alert::message::{Kind, Message};
use crate::alert::text::units;
use crate::base::time::Timestamp;
use crate::model::severity::Severity;

/// Pieces that have broken somebody's alerts.
const PIECES: [&str; 40] = [
    "\0",
    "\u{1b}[31m",
    "\u{1b}]0;t\u{7}",
    "\u{9b}",
    "\r\n",
    "\n\n",
    "\t",
    "\u{202e}",
    "\u{2066}",
    "\u{feff}",
    "\u{200b}",
    "\u{e0041}",
    "שלום",
    "日本",
    "🚀",
    "👩\u{200d}💻",
    "e\u{301}\u{302}",
    "<b>",
    "</script>",
    "&lt;",
    "_",
    "*",
    "**",
    "`",
    "```",
    "~~",
    "||",
    "[a](http://e.vil)",
    "\\",
    "@everyone",
    "@here",
    "<@123456>",
    "<#1>",
    "<t:1>",
    "tg://resolve",
    "https://e.vil/x",
    "/stop",
    "#tag",
    "Bcc: x@y.z",
    "..",
];

fn hostile(random: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    match random.u8(0..100) {
        0 => return PIECES[random.usize(0..PIECES.len())].repeat(100_000 / 4),
        1..=4 => return String::new(),
        5..=8 => return " \u{200b}\u{3164}".repeat(random.usize(0..50)),
        _ => {}
    }
    let pieces = if random.u8(0..20) == 0 { 2_000 } else { 12 };
    for _ in 0..random.usize(0..pieces) {
        match random.u8(0..4) {
            0 => text.push_str(PIECES[random.usize(0..PIECES.len())]),
            1 => text.push(random.char(..)),
            2 => text.push(random.alphanumeric()),
            _ => text.push_str("word "),
        }
    }
    text
}

fn message(random: &mut fastrand::Rng) -> Message {
    Message {
        id: "a7f3k2".to_owned(),
        kind: Kind::ALL[random.usize(0..Kind::ALL.len())],
        severity: Severity::ALL[random.usize(0..Severity::ALL.len())],
        title: hostile(random),
        facts: (0..3).map(|_| (hostile(random), hostile(random))).collect(),
        advice: random.bool().then(|| hostile(random)),
        link: random.bool().then(|| format!("http://h/{}", hostile(random))),
        children: (0..random.usize(0..3)).map(|_| hostile(random)).collect(),
        at: Timestamp::from_millis(1_795_492_527_827),
    }
}

/// Number of hostile texts in `message`.
fn texts(message: &Message) -> usize {
    7 + usize::from(message.advice.is_some())
        + usize::from(message.link.is_some())
        + message.children.len()
}

/// <https://core.telegram.org/bots/api#sendmessage>
fn check_telegram(message: &Message) {
    let layout = Layout::of(message, |layout| units(&layout.plain()) <= 4_096);
    let text = Text::of(&layout.spans());
    let utf16: Vec<u16> = text.as_str().encode_utf16().collect();
    assert!((1..=4_096).contains(&utf16.len()), "{} units", utf16.len());
    assert!(text.entities().len() <= 100, "{} entities", text.entities().len());
    let mut end = 0;
    for entity in text.entities() {
        assert!(entity.offset >= end && entity.length > 0, "{entity:?} after {end}");
        end = entity.offset + entity.length;
        let inside = utf16.get(entity.offset..end).unwrap();
        assert!(String::from_utf16(inside).is_ok(), "{entity:?} cuts a character");
    }
    check_text(text.as_str());
}

/// <https://discord.com/developers/docs/resources/message#embed-object-embed-limits>
fn check_discord(message: &Message) {
    let body: Value = serde_json::from_slice(&discord::body(message)).unwrap();
    let embed = &body["embeds"][0];
    let mut total = 0;
    let mut check = |text: &Value, limit: usize, may_be_empty: bool| {
        let text = text.as_str().unwrap_or_default();
        let length = text.encode_utf16().count();
        assert!(length <= limit, "{length} > {limit}: {text}");
        assert!(may_be_empty || !text.trim().is_empty(), "empty");
        check_text(text);
        total += length;
    };
    check(&embed["title"], 256, false);
    check(&embed["description"], 4_096, true);
    check(&embed["footer"]["text"], 2_048, false);
    let fields = embed["fields"].as_array().unwrap();
    assert!(fields.len() <= 25);
    for field in fields {
        check(&field["name"], 256, false);
        check(&field["value"], 1_024, false);
    }
    assert!(total <= 6_000, "{total}");
    assert_eq!(body["allowed_mentions"], serde_json::json!({ "parse": [] }));
}

/// <https://docs.ntfy.sh/publish/#limitations>
fn check_ntfy(message: &Message) {
    let body: Value = serde_json::from_slice(&ntfy::body(message, "topic")).unwrap();
    let text = body["message"].as_str().unwrap();
    assert!(!text.is_empty() && text.len() <= 4_096, "{}", text.len());
    check_text(text);
    check_text(body["title"].as_str().unwrap());
}

/// RFC 5322, sections 2.1.1 and 2.2
fn check_email(email: &email::Email, message: &Message) {
    let mail = email.mail(message).unwrap().formatted();
    let text = std::str::from_utf8(&mail).unwrap();
    assert!(text.is_ascii(), "8 bit: {text}");
    for line in text.split("\r\n") {
        assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{line:?}");
    }
    let mail = mailparse::parse_mail(&mail).unwrap();
    for header in &mail.headers {
        let known =
            ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"];
        let key = header.get_key();
        assert!(known.contains(&key.as_str()) || key.starts_with("Content-"), "{key}");
    }
    let [plain, html] = mail.subparts.as_slice() else { panic!("{} parts", mail.subparts.len()) };
    check_text(&plain.get_body().unwrap().replace("\r\n", "\n"));
    let html = html.get_body().unwrap();
    let tags = html.match_indices('<').map(|(start, _)| {
        let rest = html.get(start + 1..).unwrap();
        rest.split(['>', ' ']).next().unwrap().trim_start_matches('/').to_owned()
    });
    let known = ["!DOCTYPE", "html", "head", "meta", "body", "p", "b", "a", "br"];
    for tag in tags {
        assert!(known.contains(&tag.as_str()), "<{tag}> in {html}");
    }
}

fn check_text(text: &str) {
    let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
    assert!(!text.contains(bad), "{text:?}");
}

#[test]
fn no_text_of_a_daemon_breaks_a_limit() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let email = email::tests::email();
    let mut count = 0;
    while count < 100_000 {
        let message = message(&mut random);
        count += texts(&message);
        check_telegram(&message);
        check_discord(&message);
        check_ntfy(&message);
        // Writing and reading mail takes far longer than the rest.
        if random.u8(0..10) == 0 {
            check_email(&email, &message);
        }
    }
}

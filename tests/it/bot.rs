//! The Telegram bot against the strict server: it answers its chat, and nobody else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use periscope::alert::bot::{self, Asked, Control, Mute, Setup};
use periscope::alert::channel::channels;
use periscope::alert::channel::telegram::Chat;
use periscope::alert::channel::telegram::api::Api;
use periscope::alert::message::Message;
use periscope::base::http::Client;
use periscope::base::metrics::Metrics;
use periscope::base::secret::Secret;
use periscope::base::tasks::{OnPanic, Tasks};
use periscope::base::time::{Clock, Timestamp};
use periscope::config::notify;
use periscope::model::report::Report;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::support::periscope::Periscope;
use crate::support::site::Fault;
use crate::support::telegram::{CHAT, DATE, TOKEN, Telegram};
use crate::support::wait::until;

const LONG: Duration = Duration::from_secs(60);
const HOSTILE: &str = "@everyone <b>_x_</b> /stop e.vil \u{202e}";

#[derive(Default)]
struct Desk {
    mutes: Mutex<Vec<Mute>>,
}

impl Control for Desk {
    fn report(&self) -> Report {
        report()
    }

    fn mute(&self, mute: Mute) -> Asked<String> {
        if mute.rule.as_deref() == Some("nonsense") {
            return Box::pin(async { Err("there is no rule \"nonsense\"".to_owned()) });
        }
        self.mutes.lock().unwrap().push(mute);
        Box::pin(async { Ok("m1".to_owned()) })
    }

    fn unmute(&self) -> Asked<u64> {
        let count = self.mutes.lock().unwrap().drain(..).count() as u64;
        Box::pin(async move { Ok(count) })
    }
}

fn report() -> Report {
    let at = Timestamp::from_millis(DATE * 1_000);
    let server = json!({ "state": "ready", "version": null, "pid": null, "http": null, "pg": null,
        "restarts": 0, "reason": "" });
    let daemon = |name: &str, state: &str| {
        json!({ "name": name, "state": state, "source": "shim", "last_sample_at": at,
            "last_durable_at": at, "last_success_at": at, "poll_error": null, "pid": 1,
            "restarts": 0, "interval_seconds": 5.0, "beats": [], "status": {
                "exchange_status": { "binance": { "connected": true, "latency_ms": 41.6 },
                    "bybit": { "ws_connected": false } },
                "trading": { "ema": { "symbol": "BTC", "currency": "USD", "pnl": 12.5,
                    "unrealized_pnl": -2.25 } } } })
    };
    let alert = json!({ "rule": "daemon_down", "severity": "critical", "since": at,
        "summary": format!("{HOSTILE} is down"), "labels": { "daemon": HOSTILE } });
    let report = json!({ "version": "0.1.0", "pid": 1, "host": "vps-1", "env": "prod",
        "mode": "managed", "started_at": at, "questdb": server, "grafana": server,
        "spool": { "rows": 7, "bytes": 0, "oldest_age_seconds": 0.0, "durable_seq": 0,
            "durable_rows": 0, "lost_rows": 0 },
        "writer": { "rows_total": 0, "refused_total": 0, "last_write_at": null },
        "daemons": [daemon("ccxt", "up"), daemon(HOSTILE, "unreachable")],
        "alerts": { "path": "fallback", "firing": [alert] },
        "parts": { "spool": { "state": "degraded", "reason": HOSTILE, "since": at } } });
    serde_json::from_value(report).unwrap()
}

/// A bot that listens.
struct Listening {
    server: Telegram,
    desk: Arc<Desk>,
    metrics: Metrics,
    tasks: Tasks,
}

impl Listening {
    /// The clock stands `late` after the moment at which everybody writes.
    fn start(server: Telegram, late: Duration) -> Self {
        let api = Api::new(server.url(), Secret::new(TOKEN), Client::new().unwrap());
        let (desk, metrics) = (Arc::new(Desk::default()), Metrics::new());
        let now = Timestamp::from_millis(DATE * 1_000).plus(late);
        let control: Arc<dyn Control> = Arc::<Desk>::clone(&desk);
        let setup = Setup {
            api,
            chat: Chat::new(CHAT),
            control,
            clock: Clock::fixed(now),
            ignored: metrics.bot_ignored.clone(),
            seed: 1,
        };
        let tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("bot", OnPanic::Log, bot::run(setup, tasks.stop_token()));
        Self { server, desk, metrics, tasks }
    }

    async fn answers(&self, count: usize) -> Vec<String> {
        until("answers", LONG, || async {
            let sent = self.server.sent();
            if sent.len() < count {
                return Err((sent.len(), self.server.refused()));
            }
            for one in &sent {
                // Its own commands are there to be tapped.
                let foreign = one.marked.iter().filter(|mark| !mark.starts_with('/'));
                assert_eq!(foreign.count(), 0, "{one:?}");
                assert!(!one.marked.contains(&"/stop".to_owned()), "{one:?}");
            }
            Ok(sent.into_iter().map(|one| one.text).collect())
        })
        .await
    }

    async fn stop(self) {
        assert_eq!(self.tasks.stop(LONG).await, Vec::<&str>::new());
    }
}

#[tokio::test]
async fn every_command_is_answered_and_nothing_foreign_is_markup() {
    let bot = Listening::start(Telegram::start().await, Duration::from_secs(5));
    let commands = [
        ("/status", "Daemons: 1 unreachable, 1 up"),
        ("/daemons", "ccxt up, sample 5s ago"),
        ("/exchanges@periscope_test_bot", "ccxt: binance connected, 42 ms"),
        ("/pnl", "Total: +25.00, open -4.50 USD"),
        ("/alerts", "is down, for 5s – daemon_down"),
        ("/health", "spool degraded for 5s: @everyone"),
        ("/help", "/mute – no messages for a while"),
        ("/mute 2h daemon ccxt", "Muted for 2h as m1, until 2026-11-24 "),
        ("/ack", "Acknowledged 1: no messages about them for 12h"),
        ("/mute 1h rule nonsense", "Not muted: there is no rule"),
        ("/unmute", "Ended 2 mutes"),
        ("/unmute", "There was no mute"),
        ("/whatever", "there is no /whatever"),
    ];
    for (index, (command, words)) in commands.into_iter().enumerate() {
        bot.server.says(CHAT, command);
        let answers = bot.answers(index + 1).await;
        assert_eq!(answers.len(), index + 1, "{command}");
        assert!(answers[index].contains(words), "{command}: {}", answers[index]);
        if command == "/ack" {
            let mutes = bot.desk.mutes.lock().unwrap().clone();
            assert_eq!(mutes[0].daemon.as_deref(), Some("ccxt"));
            assert_eq!(mutes[0].duration, Duration::from_secs(7_200));
            assert_eq!(mutes[1].rule.as_deref(), Some("daemon_down"));
            assert_eq!(mutes[1].daemon.as_deref(), Some(HOSTILE));
            assert_eq!(mutes[1].reason, "acknowledged by Ada in Telegram");
        }
    }
    assert_eq!(bot.server.refused(), Vec::<String>::new());
    bot.stop().await;
}

#[tokio::test]
async fn strangers_and_old_commands_are_counted_and_not_answered() {
    let bot = Listening::start(Telegram::start().await, Duration::from_secs(5));
    for chat in [5, -5] {
        bot.server.says(chat, "/mute 30d");
    }
    bot.server.says(CHAT, "no command");
    bot.server.says(CHAT, "/status@another_bot");
    bot.server.says(CHAT, "/help");
    let answers = bot.answers(1).await;
    assert!(answers.len() == 1 && answers[0].contains("/mute"), "{answers:?}");
    assert_eq!(bot.metrics.bot_ignored.get(), 2);
    assert!(bot.desk.mutes.lock().unwrap().is_empty());
    bot.stop().await;
    // What somebody wrote while it was not there is not obeyed an hour later.
    let server = Telegram::start().await;
    server.says(CHAT, "/mute 30d");
    let bot = Listening::start(server, Duration::from_secs(3_600));
    until("it is counted", LONG, || async {
        let count = bot.metrics.bot_ignored.get();
        if count == 1 { Ok(()) } else { Err(count) }
    })
    .await;
    assert!(bot.server.sent().is_empty() && bot.desk.mutes.lock().unwrap().is_empty());
    bot.stop().await;
}

#[tokio::test]
async fn a_server_that_fails_is_asked_again_and_nothing_is_answered_twice() {
    let server = Telegram::start().await;
    let conflict = r#"{"ok":false,"error_code":409,"description":"Conflict: terminated by other getUpdates request"}"#;
    server.fail("getMe", &[Fault::Cut]);
    server.fail("getUpdates", &[Fault::status(502, "<html>"), Fault::status(409, conflict)]);
    let bot = Listening::start(server, Duration::ZERO);
    bot.server.says(CHAT, "/status");
    bot.answers(1).await;
    bot.server.fail("getUpdates", &[Fault::Cut]);
    bot.server.says(CHAT, "/pnl");
    bot.server.says(CHAT, "/daemons");
    assert_eq!(bot.answers(3).await.len(), 3);
    bot.stop().await;
}

#[tokio::test]
async fn an_alert_does_not_wait_for_the_bot() {
    let bot = Listening::start(Telegram::start().await, Duration::ZERO);
    until("it listens", LONG, || async {
        if bot.server.polls() > 0 { Ok(()) } else { Err(bot.server.refused()) }
    })
    .await;
    let api_url = bot.server.url().to_owned();
    let telegram = notify::Telegram { token: Secret::new(TOKEN), chat_id: CHAT, api_url };
    let config = notify::Notify { telegram: Some(telegram), ..notify::Notify::default() };
    let channels = channels(&config, &Client::new().unwrap(), &Clock::system());
    let message = Message::test("vps-1", "prod", Timestamp::from_millis(DATE * 1_000));
    channels[0].send(&message).await.unwrap();
    assert_eq!((bot.server.sent().len(), bot.server.polls()), (1, 1), "the same poll still waits");
    bot.stop().await;
}

/// The real process: the bot shows its report, and a mute from Telegram is a mute for everybody.
#[tokio::test]
async fn the_bot_of_a_running_instance_shows_its_report_and_mutes() {
    let server = Telegram::start().await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), TOKEN).unwrap();
    let config = format!(
        "[node]\nhost = \"it\"\n[questdb]\nmode = \"remote\"\nhttp = \"http://127.0.0.1:1\"\n\
         pg = \"127.0.0.1:1\"\n[notify.telegram]\ntoken = {{ file = \"{}\" }}\nchat_id = {CHAT}\n\
         api_url = \"{}\"\n",
        token.path().display(),
        server.url()
    );
    let periscope = Periscope::up_remote(&config);
    server.says_now(CHAT, "/status");
    let told = |words: &'static str| {
        let server = &server;
        until(words, LONG, move || async move {
            let sent = server.sent();
            let found = sent.iter().any(|one| one.text.contains(words));
            if found { Ok(()) } else { Err((sent, server.refused())) }
        })
    };
    told("periscope on it").await;
    server.says_now(CHAT, "/mute 1h daemon ccxt");
    told("Muted for 1h as m1").await;
    let (code, alerts, err) = periscope.run(&["alerts", "list", "--json"]);
    assert!(code == 0 && alerts.contains("muted by Ada in Telegram"), "{alerts}{err}");
}

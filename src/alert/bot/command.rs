//! What people write to the bot. Pure.

use std::time::Duration;

use crate::config;

/// Mute without a duration.
const HOUR: Duration = Duration::from_secs(3_600);
/// Shortest mute.
const SECOND: Duration = Duration::from_secs(1);
/// Longest mute.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Status,
    Daemons,
    Exchanges,
    Pnl,
    Alerts,
    Mute {
        duration: Duration,
        rule: Option<String>,
        daemon: Option<String>,
    },
    Unmute,
    /// Firing alerts of this rule, or all: no more messages about them for a while.
    Ack {
        rule: Option<String>,
    },
    Health,
    Help,
    /// A command that there is not, or that lacks something: the reason.
    Wrong(String),
}

/// Commands and what they do, as `/help` shows them.
pub(super) const COMMANDS: [(&str, &str); 10] = [
    ("/status", "one look at everything"),
    ("/daemons", "every daemon and its last sample"),
    ("/exchanges", "connections to venues"),
    ("/pnl", "profit and loss by strategy"),
    ("/alerts", "what fires"),
    ("/mute", "no messages for a while: /mute 1h [rule RULE] [daemon NAME]"),
    ("/unmute", "ends all mutes"),
    ("/ack", "no more messages for 12h about what fires now: /ack [RULE]"),
    ("/health", "periscope's own parts"),
    ("/help", "this list"),
];

/// Returns the request in `text`; `None` when it is no command, or one for another bot than `me`.
pub(super) fn parse(text: &str, me: Option<&str>) -> Option<Command> {
    let mut words = text.split_whitespace();
    let first = words.next()?;
    let first = first.strip_prefix('/')?;
    let (name, bot) = first.split_once('@').map_or((first, None), |(name, bot)| (name, Some(bot)));
    if let (Some(bot), Some(me)) = (bot, me)
        && !bot.eq_ignore_ascii_case(me)
    {
        return None;
    }
    let words: Vec<&str> = words.collect();
    Some(match (name.to_lowercase().as_str(), words.as_slice()) {
        ("status", _) => Command::Status,
        ("daemons", _) => Command::Daemons,
        ("exchanges", _) => Command::Exchanges,
        ("pnl", _) => Command::Pnl,
        ("alerts", _) => Command::Alerts,
        ("mute", words) => mute(words),
        ("unmute", _) => Command::Unmute,
        ("ack", []) => Command::Ack { rule: None },
        ("ack", [rule]) => Command::Ack { rule: Some((*rule).to_owned()) },
        ("ack", _) => Command::Wrong("write /ack, or /ack RULE".to_owned()),
        ("health", _) => Command::Health,
        ("help" | "start", _) => Command::Help,
        (other, _) => Command::Wrong(format!("there is no /{other}")),
    })
}

fn mute(words: &[&str]) -> Command {
    const HINT: &str = "write /mute 1h, /mute 30m rule daemon_down, /mute 2h daemon ccxt";
    let (duration, mut rest) = match words {
        [] => (HOUR, words),
        [first, rest @ ..] if first.starts_with(|c: char| c.is_ascii_digit()) => {
            match config::duration(first) {
                Ok(duration) if (SECOND..=LONGEST).contains(&duration) => (duration, rest),
                Ok(_) => return Command::Wrong(format!("{first:?} is not 1s to 30d: {HINT}")),
                Err(reason) => return Command::Wrong(format!("{first:?} {reason}: {HINT}")),
            }
        }
        words => (HOUR, words),
    };
    let (mut rule, mut daemon) = (None, None);
    while let [key, value, more @ ..] = rest {
        match *key {
            "rule" => rule = Some((*value).to_owned()),
            "daemon" => daemon = Some((*value).to_owned()),
            _ => return Command::Wrong(HINT.to_owned()),
        }
        rest = more;
    }
    if !rest.is_empty() {
        return Command::Wrong(HINT.to_owned());
    }
    Command::Mute { duration, rule, daemon }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn muted(seconds: u64, rule: Option<&str>, daemon: Option<&str>) -> Option<Command> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let duration = Duration::from_secs(seconds);
        Some(Command::Mute { duration, rule: owned(rule), daemon: owned(daemon) })
    }

    #[test]
    fn commands_are_read_as_people_write_them() {
        for (text, command) in [
            ("/status", Some(Command::Status)),
            (" /Status@periscope_bot now", Some(Command::Status)),
            ("/status@other_bot", None),
            ("status", None),
            ("", None),
            ("/start", Some(Command::Help)),
            ("/mute", muted(3_600, None, None)),
            ("/mute 1h30m", muted(5_400, None, None)),
            (
                "/mute 90s daemon ccxt rule daemon_down",
                muted(90, Some("daemon_down"), Some("ccxt")),
            ),
            ("/mute rule daemon_down", muted(3_600, Some("daemon_down"), None)),
            ("/ack", Some(Command::Ack { rule: None })),
            ("/ack daemon_down", Some(Command::Ack { rule: Some("daemon_down".to_owned()) })),
        ] {
            assert_eq!(parse(text, Some("periscope_bot")), command, "{text:?}");
        }
    }

    #[test]
    fn every_listed_command_is_one_and_nonsense_is_answered() {
        for (name, _) in COMMANDS {
            let command = parse(name, None).unwrap();
            assert!(!matches!(command, Command::Wrong(_)), "{name}: {command:?}");
        }
        for text in [
            "/stop",
            "/",
            "/@",
            "/mute 1x",
            "/mute 0s",
            "/mute 31d",
            "/mute 1h rule",
            "/mute x y",
            "/mute 99999999999999999999h",
            "/ack a b",
            "/mute 1ü",
            "/🚀",
        ] {
            let command = parse(text, None).unwrap();
            assert!(matches!(command, Command::Wrong(_)), "{text}: {command:?}");
        }
    }
}

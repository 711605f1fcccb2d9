//! The loop that listens. One long poll at a time; whatever goes wrong is tried again, and nothing
//! else waits for it.

use std::time::Duration;

use teloxide_core::types::{Update, UpdateKind};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Line};
use super::command::{Command, parse};
use super::{Mute, Setup};
use crate::alert::channel::Failure;
use crate::alert::channel::telegram::say;
use crate::base::backoff::Backoff;
use crate::base::time::Timestamp;
use crate::rules::text::duration;

/// How long one request waits for somebody to write.
const POLL: Duration = Duration::from_secs(25);
/// Older commands are not obeyed: a /mute of last night must not be done at the start in the morning.
const FRESH: Duration = Duration::from_secs(120);
/// How long /ack holds messages back.
const ACKNOWLEDGED: Duration = Duration::from_secs(12 * 3_600);
/// Pause after an answer that only a change of the configuration can mend.
const REFUSED: Duration = Duration::from_secs(300);

/// A request of somebody in the chat.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    command: Command,
    /// Who wrote it, for the reason of a mute.
    who: String,
}

/// Listens and answers until `stop`.
pub async fn run(setup: Setup, stop: CancellationToken) {
    let mut offset = 0;
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), setup.seed);
    let mut me = None;
    loop {
        let listening = async {
            if me.is_none() {
                me = setup.api.me().await?.username;
            }
            setup.api.updates(offset, POLL).await
        };
        // What was not confirmed is asked for again at the next start.
        let updates = tokio::select! {
            () = stop.cancelled() => return,
            updates = listening => updates,
        };
        match updates {
            Ok(updates) => {
                if backoff.failures() > 0 {
                    tracing::info!("telegram bot listens again");
                }
                backoff.reset();
                for update in updates {
                    offset = i32::try_from(update.id.0).unwrap_or(i32::MAX).saturating_add(1);
                    if let Some(heard) = heard(&setup, &update, me.as_deref()) {
                        answer_to(&setup, heard).await;
                    }
                }
            }
            Err(failure) => {
                let first = backoff.failures() == 0;
                let wait = wait(&failure, &mut backoff);
                if first {
                    tracing::warn!(reason = %failure, "telegram bot cannot listen");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

fn wait(failure: &Failure, backoff: &mut Backoff) -> Duration {
    let wait = backoff.after_failure();
    match failure {
        Failure::Later { after, .. } => after.map_or(wait, |after| after.max(wait)),
        Failure::Never { .. } => REFUSED,
    }
}

/// Returns the request in `update`. What others write is counted and not answered: nobody else learns
/// that there is a bot.
fn heard(setup: &Setup, update: &Update, me: Option<&str>) -> Option<Heard> {
    let (UpdateKind::Message(message) | UpdateKind::ChannelPost(message)) = &update.kind else {
        return None;
    };
    if message.chat.id.0 != setup.chat.id() {
        setup.ignored.inc();
        return None;
    }
    let written = Timestamp::from_millis(message.date.timestamp_millis());
    if setup.clock.now().since(written) > FRESH {
        setup.ignored.inc();
        return None;
    }
    let command = parse(message.text()?, me)?;
    let who = message.from.as_ref().map_or("somebody", |from| from.first_name.as_str());
    Some(Heard { command, who: who.chars().take(64).collect() })
}

async fn answer_to(setup: &Setup, heard: Heard) {
    let lines = lines(setup, heard).await;
    let text = answer::text(&lines);
    if let Err(failure) = say(&setup.api, &setup.chat, &text).await {
        tracing::warn!(reason = %failure, "telegram bot cannot answer");
    }
}

async fn lines(setup: &Setup, heard: Heard) -> Vec<Line> {
    let report = setup.control.report();
    let now = setup.clock.now();
    match heard.command {
        Command::Status => answer::status(&report, now),
        Command::Daemons => answer::daemons(&report, now),
        Command::Exchanges => answer::exchanges(&report),
        Command::Pnl => answer::pnl(&report),
        Command::Alerts => answer::alerts(&report, now),
        Command::Health => answer::health(&report, now),
        Command::Help => answer::help(),
        Command::Wrong(reason) => answer::said(&format!("{reason}; /help lists the commands")),
        Command::Mute { duration: wanted, rule, daemon } => {
            let until = now.plus(wanted);
            let reason = format!("muted by {} in Telegram", heard.who);
            let mute = Mute { duration: wanted, rule, daemon, reason };
            match setup.control.mute(mute).await {
                Ok(id) => answer::said(&format!(
                    "Muted for {} as {id}, until {}. /unmute ends it",
                    duration(wanted.as_secs_f64()),
                    crate::alert::message::clock_time(until)
                )),
                Err(reason) => answer::said(&format!("Not muted: {reason}")),
            }
        }
        Command::Unmute => match setup.control.unmute().await {
            Ok(0) => answer::said("There was no mute"),
            Ok(count) => answer::said(&format!("Ended {count} mutes: you get messages again")),
            Err(reason) => answer::said(&format!("Still muted: {reason}")),
        },
        Command::Ack { rule } => {
            let firing = answer::firing(&report, rule.as_deref());
            answer::said(&acknowledge(setup, &firing, &heard.who).await)
        }
    }
}

/// Mutes each of `firing` and returns what to say about it.
async fn acknowledge(setup: &Setup, firing: &[answer::Firing], who: &str) -> String {
    if firing.is_empty() {
        return "Nothing fires that could be acknowledged".to_owned();
    }
    for answer::Firing { rule, daemon } in firing {
        let mute = Mute {
            duration: ACKNOWLEDGED,
            rule: Some(rule.clone()),
            daemon: daemon.clone(),
            reason: format!("acknowledged by {who} in Telegram"),
        };
        if let Err(reason) = setup.control.mute(mute).await {
            return format!("Not acknowledged: {rule}: {reason}");
        }
    }
    let hours = duration(ACKNOWLEDGED.as_secs_f64());
    format!("Acknowledged {}: no messages about them for {hours}. /unmute ends it", firing.len())
}

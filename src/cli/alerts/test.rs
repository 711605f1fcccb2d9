//! `periscope alerts test`: a message through every channel at once, and what each server said. No
//! instance needs to run.

use crate::alert::channel::{Channel, Failure, channels};
use crate::alert::message::Message;
use crate::base::http::Client;
use crate::base::tasks::spawn_detached;
use crate::base::time::{Clock, Timestamp};
use crate::cli::exit::{self, Exit};
use crate::cli::{Global, output};
use crate::config::Config;

const NO_CHANNEL: &str = "no channel is configured, so nobody is told of alerts: run `periscope notify \
                          telegram`, or add [notify.telegram], [notify.discord], [notify.email], \
                          [notify.webhook] or [notify.ntfy] to the configuration";

pub(super) fn test(global: &Global) -> anyhow::Result<Exit> {
    let config = global.config()?;
    if config.notify.is_empty() {
        return Err(exit::Failure::error(Exit::Config, NO_CHANNEL));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clock = Clock::system();
    let (results, message) = runtime.block_on(async {
        let message = test_message(&config, clock.now());
        let channels = channels(&config.notify, &Client::new()?, &clock);
        anyhow::Ok((deliver(channels, &message).await, message))
    })?;
    let (lines, exit) = report(&results, &message.id);
    output::line(&lines.join("\n"));
    Ok(exit)
}

/// Returns the message that shows the host and where it is from.
fn test_message(config: &Config, now: Timestamp) -> Message {
    Message::test(&config.node.host, &config.node.env, now)
}

/// Sends `message` through all `channels` at once; the results are in their order.
async fn deliver(
    channels: Vec<Channel>,
    message: &Message,
) -> Vec<(&'static str, Result<(), Failure>)> {
    let sending: Vec<_> = channels
        .into_iter()
        .map(|channel| {
            let (name, message) = (channel.name(), message.clone());
            (name, spawn_detached(async move { channel.send(&message).await }))
        })
        .collect();
    let mut results = Vec::new();
    for (name, task) in sending {
        let sent = task.await.unwrap_or_else(|error| {
            let hint = "this is a fault of periscope: report it".to_owned();
            Err(Failure::Never { reason: format!("the channel ended: {error}"), hint })
        });
        results.push((name, sent));
    }
    results
}

/// Returns a line for every channel, with the next step under each that failed.
fn report(results: &[(&'static str, Result<(), Failure>)], id: &str) -> (Vec<String>, Exit) {
    let mut lines = Vec::new();
    let mut exit = Exit::Done;
    for (name, result) in results {
        match result {
            Ok(()) => lines.push(format!("{name:<9} delivered (id {id})")),
            Err(failure) => {
                exit = Exit::Failure;
                let (reason, step) = match failure {
                    Failure::Never { reason, hint } => (reason, hint.clone()),
                    Failure::Later { reason, after: Some(after) } => {
                        (reason, format!("try again in {} s", after.as_secs_f64().ceil()))
                    }
                    Failure::Later { reason, after: None } => (
                        reason,
                        format!("try again; if it stays, check notify.{name} and the network"),
                    ),
                };
                lines.push(format!("{name:<9} FAILED    {reason}"));
                lines.push(format!("{:<9}           {step}", ""));
            }
        }
    }
    (lines, exit)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_failure_has_a_next_step_and_one_is_enough_to_fail() {
        let later = Failure::Later {
            reason: "answered 429".to_owned(),
            after: Some(Duration::from_millis(1_500)),
        };
        let never =
            Failure::Never { reason: "answered 401".to_owned(), hint: "get a token".to_owned() };
        let results = [("telegram", Err(never)), ("discord", Err(later)), ("email", Ok(()))];
        let (lines, exit) = report(&results, "a7f3k2");
        insta::assert_snapshot!(lines.join("\n"), @"
        telegram  FAILED    answered 401
                            get a token
        discord   FAILED    answered 429
                            try again in 2 s
        email     delivered (id a7f3k2)
        ");
        assert_eq!(exit, Exit::Failure);
        assert_eq!(report(&[("email", Ok(()))], "a7f3k2").1, Exit::Done);
    }
}

//! `periscope alerts list`, `history`, `mute`, `unmute`: what fires, what fired, and silence.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::base::time::{Clock, Timestamp};
use crate::cli::exit::{Exit, Failure};
use crate::cli::{Global, instance, output};
use crate::config::Config;
use crate::store::read::{ReadError, query};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// Shows what fires, mutes, and how delivery goes
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Shows changes of alerts and deliveries, the newest first
    History {
        /// Rows
        #[arg(long, default_value = "50", value_name = "N")]
        limit: u32,
        /// Id of a rule
        #[arg(long)]
        rule: Option<String>,
    },
    /// Holds messages back for a while; alerts are evaluated and shown all the same
    Mute {
        /// For how long, such as 30m, 2h or 1d
        #[arg(long = "for", value_name = "DURATION")]
        duration: String,
        /// Id of a rule; without it any
        #[arg(long)]
        rule: Option<String>,
        /// Name of a daemon; without it any
        #[arg(long)]
        daemon: Option<String>,
        /// The highest severity that is muted: info, warning or critical
        #[arg(long, default_value = "critical")]
        severity: String,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Ends a mute, or all of them
    Unmute {
        /// Id of the mute, as `alerts list` shows it
        id: Option<String>,
    },
}

pub(super) fn show(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::List { json } => list(&config, *json).await,
            Command::History { limit, rule } => history(&config, *limit, rule.as_deref()).await,
            Command::Mute { duration, rule, daemon, severity, reason } => {
                let body = json!({
                    "seconds": seconds(duration)?,
                    "rule": rule,
                    "daemon": daemon,
                    "severity": severity,
                    "reason": reason,
                });
                let answer = post(&config, "/api/v1/alerts/mute", &body).await?;
                let id = field(&answer, "id").as_str().unwrap_or_default();
                output::line(&format!("muted; `periscope alerts unmute {id}` ends it"));
                Ok(Exit::Done)
            }
            Command::Unmute { id } => {
                let answer = post(&config, "/api/v1/alerts/unmute", &json!({ "id": id })).await?;
                output::line(&format!("mutes ended: {}", field(&answer, "ended")));
                Ok(Exit::Done)
            }
        }
    })
}

/// Returns a field of an answer; null when it has none.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

/// Reads `90`, `90s`, `30m`, `2h`, `1d`.
fn seconds(text: &str) -> anyhow::Result<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.strip_prefix(digits).unwrap_or_default() {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor)).ok_or_else(|| {
        Failure::error(Exit::Usage, format!("{text:?} is no duration: write 30m, 2h or 1d"))
    })
}

async fn post(config: &Config, route: &str, body: &Value) -> anyhow::Result<Value> {
    let body = Bytes::from(serde_json::to_vec(body)?);
    read(&instance::ask(config, hyper::Method::POST, route, body).await?)
}

fn read(answer: &crate::base::http::Answer) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status.is_success() {
        return Ok(value);
    }
    let hint = match (answer.status.as_u16(), field(&value, "message").as_str()) {
        (401, _) => "set listen.token as the running instance has it".to_owned(),
        (_, Some(message)) => message.to_owned(),
        (status, None) => format!("it answers {status}"),
    };
    Err(Failure::error(Exit::Failure, format!("periscope refuses: {hint}")))
}

async fn list(config: &Config, as_json: bool) -> anyhow::Result<Exit> {
    let get = hyper::Method::GET;
    let value = read(&instance::ask(config, get, "/api/v1/alerts", Bytes::new()).await?)?;
    if as_json {
        output::line(&serde_json::to_string_pretty(&value)?);
    } else {
        output::line(&render(&value, Clock::system().now()));
    }
    Ok(Exit::Done)
}

fn render(value: &Value, now: Timestamp) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let age = |value: &Value| {
        let at = value.as_str().and_then(Timestamp::parse);
        at.map_or_else(String::new, |at| output::age(now.since(at).as_secs_f64()))
    };
    let rows = |name: &str, row: &dyn Fn(&Value) -> Vec<String>| -> Vec<Vec<String>> {
        field(value, name).as_array().into_iter().flatten().map(row).collect()
    };
    let firing = rows("firing", &|alert| {
        let told = match (field(alert, "told_at"), field(alert, "explained_by").is_null()) {
            (Value::Null, true) => "not yet".to_owned(),
            (Value::Null, false) => "inside its cause".to_owned(),
            (at, _) => format!("{} ago by {}", age(at), text(field(alert, "told_by"))),
        };
        vec![
            text(field(alert, "severity")),
            text(field(alert, "summary")),
            age(field(alert, "since")),
            told,
        ]
    });
    let mutes = rows("mutes", &|mute| {
        let any = |value: &Value| value.as_str().unwrap_or("any").to_owned();
        let (rule, daemon) = (any(field(mute, "rule")), any(field(mute, "daemon")));
        vec![
            text(field(mute, "id")),
            text(field(mute, "until")),
            rule,
            daemon,
            text(field(mute, "severity")),
            text(field(mute, "reason")),
        ]
    });
    let channels: Vec<Vec<String>> = field(value, "channels")
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, state)| {
            vec![
                name.clone(),
                age(field(state, "delivered_at")),
                field(state, "failures").to_string(),
                text(field(state, "error")),
            ]
        })
        .collect();
    let mut parts = vec![format!(
        "sent by {}; {} pending; {} messages wait",
        match field(value, "path").as_str() {
            Some("grafana") => "Grafana",
            _ => "periscope",
        },
        field(value, "pending").as_array().map_or(0, Vec::len),
        field(value, "waiting_messages")
    )];
    parts.push(if firing.is_empty() {
        "nothing fires".to_owned()
    } else {
        output::table(&["SEVERITY", "ALERT", "FOR", "TOLD"], &firing)
    });
    if !mutes.is_empty() {
        parts.push(output::table(&["MUTE", "UNTIL", "RULE", "DAEMON", "UP TO", "REASON"], &mutes));
    }
    parts.push(if channels.is_empty() {
        "no channel: set one of [notify.telegram], discord, email, webhook, ntfy".to_owned()
    } else {
        output::table(&["CHANNEL", "LAST DELIVERY", "FAILURES", "ERROR"], &channels)
    });
    parts.join("\n\n")
}

async fn history(config: &Config, limit: u32, rule: Option<&str>) -> anyhow::Result<Exit> {
    // Goes into the statement: only what can be an id.
    let plain = |id: &str| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if rule.is_some_and(|id| !plain(id)) {
        let message = "the id of a rule has letters, digits and _ only";
        return Err(Failure::error(Exit::Usage, message.to_owned()));
    }
    let filter = rule.map_or_else(String::new, |id| format!("WHERE rule = '{id}'"));
    let sql = format!(
        "SELECT timestamp, rule, state, severity, summary, path, sent_to, notification \
         FROM alert_events {filter} ORDER BY timestamp DESC LIMIT {limit}"
    );
    let endpoint = instance::database(config).await?;
    let answer = query(&endpoint, &sql, Duration::from_secs(30)).await.map_err(|error| {
        let exit = match error {
            ReadError::Statement(_) => Exit::Failure,
            ReadError::Connect { .. } | ReadError::Timeout { .. } => Exit::Unavailable,
        };
        Failure::error(exit, error.to_string())
    })?;
    let rows: Vec<Vec<String>> = answer
        .rows
        .iter()
        .map(|row| row.iter().map(|cell| cell.clone().unwrap_or_default()).collect())
        .collect();
    let head = ["TIME", "RULE", "STATE", "SEVERITY", "ALERT", "PATH", "SENT TO", "MESSAGE"];
    output::line(&output::table(&head, &rows));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_nonsense_is_not() {
        let read = |text: &str| seconds(text).ok();
        assert_eq!(read("30m"), Some(1_800));
        assert_eq!(read("2h"), Some(7_200));
        assert_eq!(read("1d"), Some(86_400));
        assert_eq!(read("90"), Some(90));
        for text in ["", "m", "1w", "-1h", "1.5h", "99999999999999999999d"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_list_says_what_fires_and_what_is_missing() {
        let now = Timestamp::parse("2026-11-25T12:00:00Z").unwrap();
        let value = json!({
            "path": "fallback", "pending": [], "waiting_messages": 0, "mutes": [], "channels": {},
            "firing": [{"severity": "critical", "summary": "ccxt is down",
                "since": "2026-11-25T11:59:00Z", "told_at": null, "explained_by": "x"}],
        });
        let text = render(&value, now);
        assert!(text.contains("sent by periscope"), "{text}");
        assert!(text.contains("ccxt is down") && text.contains("inside its cause"), "{text}");
        assert!(text.contains("no channel: set one of"), "{text}");
    }
}

//! What an answer to `POST /write`, or its absence, means for the rows. Pure.

use std::time::Duration;

use crate::base::http::HttpError;
use crate::model::table::Table;

/// Longest wait that a server may ask for with `Retry-After`.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(60);

/// What to do with the rows of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They are stored.
    Written,
    /// They can never be stored as they are. Nothing of the request is stored.
    Refused {
        /// The line that is to blame, counted from 1, if the server says so.
        line: Option<usize>,
        /// The server's words.
        reason: String,
    },
    /// The request is too large.
    TooLarge,
    /// Login, address or rights are wrong: only a person can mend that.
    Setup {
        /// What is wrong and the next step.
        reason: String,
    },
    /// It may work later.
    Retry {
        /// Name in metrics.
        name: &'static str,
        /// What went wrong.
        reason: String,
        /// What the server asks to wait.
        after: Option<Duration>,
    },
}

/// Name of the verdict on an answer that may be about the one table of the request, not the server.
pub const SERVER_ERROR: &str = "http_500";

/// Judges an answer.
pub fn of_answer(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Verdict {
    let after = retry_after.map(|wait| wait.min(RETRY_AFTER_LIMIT));
    match status {
        200..=299 => Verdict::Written,
        400 => refused(body),
        413 => Verdict::TooLarge,
        401 | 403 => Verdict::Setup {
            reason: format!(
                "questdb refuses the login for writing ({status}): check user and password in \
                 [questdb]"
            ),
        },
        404 => Verdict::Setup {
            reason: "there is no /write at the address (404): check the url in [questdb]"
                .to_owned(),
        },
        421 => Verdict::Setup {
            reason: "questdb does not take writes (421): it is read-only; unset \
                     http.security.readonly or use the primary"
                .to_owned(),
        },
        408 => retry("http_408", status, after, body),
        429 => retry("http_429", status, after, body),
        500 => retry(SERVER_ERROR, status, after, body),
        501..=599 => retry("http_5xx", status, after, body),
        _ => Verdict::Setup {
            reason: format!("questdb answers {status} to a write: check the url in [questdb]"),
        },
    }
}

fn retry(name: &'static str, status: u16, after: Option<Duration>, body: &[u8]) -> Verdict {
    let words = words(body);
    let reason = if words.is_empty() {
        format!("questdb answers {status}")
    } else {
        format!("questdb answers {status} ({words})")
    };
    Verdict::Retry { name, reason, after }
}

/// Returns the server's words in `body`, one short line of them.
fn words(body: &[u8]) -> String {
    let answer = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = answer.as_ref().and_then(|answer| answer.get("message")?.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(body), Into::into);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Reads the answer `{"code": …, "message": …, "line": 2, "errorId": …}`.
fn refused(body: &[u8]) -> Verdict {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else {
        let text: String = String::from_utf8_lossy(body).chars().take(500).collect();
        return Verdict::Refused { line: None, reason: text };
    };
    let message = answer.get("message").and_then(serde_json::Value::as_str);
    let line = answer.get("line").and_then(serde_json::Value::as_u64);
    Verdict::Refused {
        line: line.and_then(|line| usize::try_from(line).ok()).filter(|line| *line > 0),
        reason: message.unwrap_or("no reason given").chars().take(500).collect(),
    }
}

/// Whether `reason`, the server's words, is about the type of a column of `table` and not about a
/// line. The server may see a changed type earlier or later than its catalogue shows it.
pub fn blames_the_table(table: &Table, reason: &str) -> bool {
    let behind = |mark: &str| {
        let (_, rest) = reason.split_once(mark)?;
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
    };
    let (Some(name), Some(kind)) = (behind("column: "), behind("column type: ")) else {
        return false;
    };
    table.columns.iter().any(|column| column.name == name && column.kind.sql() != kind)
}

/// Whether `reason` says that the files of `table` are missing or cut: `QuestDB` was killed while it
/// made the table, lists it and reads it as empty, and can never write to it again (seen on 9.2.3).
pub fn tells_of_a_ruined_table(table: &str, reason: &str) -> bool {
    let faults = ["errno: 2,", "errno: -100,"];
    faults.iter().any(|fault| reason.contains(&format!("write error: {table}, {fault}")))
}

/// Judges the absence of an answer. The rows may be stored or not: they are sent again.
pub fn of_error(error: &HttpError) -> Verdict {
    let name = match error {
        HttpError::Connect { .. } => "connect",
        HttpError::Timeout { .. } => "timeout",
        HttpError::TooLarge { .. } => "answer_too_large",
        HttpError::Broken { .. } => "connection_lost",
    };
    Verdict::Retry { name, reason: error.to_string(), after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen after a kill in the moment in which the tables were made.
    #[test]
    fn a_table_ruined_at_its_creation_is_told_from_a_failing_server() {
        let words = |rest: &str| {
            format!(
                "questdb answers 500 (failed to parse line protocol:errors encountered on line(s):write error: {rest}"
            )
        };
        for ruined in [
            "daemon_metrics, errno: 2, error: could not open read-write [file=/r/db/daemon_metrics~5/txn_seq",
            "daemon_metrics, errno: -100, error: timestamp index is outside of range, [path=/r/db/daemon_met",
        ] {
            assert!(tells_of_a_ruined_table("daemon_metrics", &words(ruined)), "{ruined}");
            assert!(!tells_of_a_ruined_table("exchange_status", &words(ruined)), "{ruined}");
        }
        let full = words("daemon_metrics, errno: 28, error: No space left on device");
        assert!(!tells_of_a_ruined_table("daemon_metrics", &full));
    }

    #[test]
    fn a_failing_server_is_quoted() {
        let body = br#"{"code":"internal error","message":"out of\nluck","line":0}"#;
        let Verdict::Retry { reason, .. } = of_answer(500, None, body) else { panic!("no retry") };
        assert_eq!(reason, "questdb answers 500 (out of)");
    }

    #[test]
    fn every_status_has_its_verdict() {
        let name = |status| match of_answer(status, None, b"{}") {
            Verdict::Written => "written",
            Verdict::Refused { .. } => "refused",
            Verdict::TooLarge => "too large",
            Verdict::Setup { .. } => "setup",
            Verdict::Retry { name, .. } => name,
        };
        for (statuses, expected) in [
            (&[200_u16, 204][..], "written"),
            (&[400], "refused"),
            (&[413], "too large"),
            (&[301, 302, 401, 403, 404, 405, 415, 421], "setup"),
            (&[408], "http_408"),
            (&[429], "http_429"),
            (&[500], SERVER_ERROR),
            (&[502, 503, 504, 507, 524, 599], "http_5xx"),
        ] {
            for status in statuses {
                assert_eq!(name(*status), expected, "{status}");
            }
        }
    }

    #[test]
    fn a_refusal_names_its_line_if_it_can_be_read() {
        let body = br#"{"code":"invalid","message":"failed to parse line protocol","line":2,"errorId":"x-1"}"#;
        for (body, line, reason) in [
            (&body[..], Some(2), "failed to parse line protocol"),
            (br#"{"message":"no line"}"#, None, "no line"),
            (br#"{"line":0}"#, None, "no reason given"),
            (br#"{"line":-1,"message":7}"#, None, "no reason given"),
            (b"plain\xff", None, "plain\u{fffd}"),
            (b"", None, ""),
        ] {
            let expected = Verdict::Refused { line, reason: reason.to_owned() };
            assert_eq!(of_answer(400, None, body), expected);
        }
    }

    #[test]
    fn a_column_of_another_type_than_declared_is_no_fault_of_the_line() {
        let table = &crate::model::table::PIPELINE_METRICS;
        let reason = |column: &str, kind: &str| {
            format!(
                "failed to parse line protocol:errors encountered on line(s):\nerror in line 1: \
                 table: pipeline_metrics, column: {column}; cast error from protocol type: INTEGER \
                 to column type: {kind}"
            )
        };
        assert!(blames_the_table(table, &reason("records_count", "VARCHAR")));
        assert!(!blames_the_table(table, &reason("records_count", "LONG")), "the line is wrong");
        assert!(!blames_the_table(table, &reason("nonsense", "VARCHAR")));
        assert!(!blames_the_table(table, "error in line 1: could not parse"));
    }

    #[test]
    fn retry_after_is_obeyed_within_reason() {
        for (asked, expected) in [(3, 3), (100_000, 60)] {
            match of_answer(503, Some(Duration::from_secs(asked)), b"") {
                Verdict::Retry { after, .. } => {
                    assert_eq!(after, Some(Duration::from_secs(expected)));
                }
                other @ (Verdict::Written
                | Verdict::Refused { .. }
                | Verdict::TooLarge
                | Verdict::Setup { .. }) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn without_an_answer_the_rows_are_sent_again() {
        let origin = "http://127.0.0.1:1".to_owned();
        let lost = HttpError::Broken { origin: origin.clone(), reason: "reset".into() };
        let late = HttpError::Timeout { origin, limit: Duration::from_secs(1) };
        for (error, expected) in [(lost, "connection_lost"), (late, "timeout")] {
            assert!(matches!(of_error(&error), Verdict::Retry { name, .. } if name == expected));
        }
    }
}

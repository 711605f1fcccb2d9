//! Sending lines again by hand: the requests and verdicts of delivery, with an end when the server
//! stays away.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::exec::Target;
use super::post;
use super::verdict::Verdict;
use crate::base::backoff::Backoff;
use crate::base::http::Client;

/// How often a request is tried before the server counts as away.
const TRIES: u32 = 6;

/// Why it cannot go on; what was sent before stays sent.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    /// Only a person can mend it.
    #[error("{0}")]
    Setup(String),
    /// The server is away or overloaded.
    #[error("questdb does not take the rows after {TRIES} tries: {0}; try again later")]
    Unavailable(String),
}

/// A line that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The line, without its line break.
    pub line: String,
    /// The server's words.
    pub reason: String,
}

/// What became of lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sent {
    /// Lines that are stored.
    pub written: u64,
    /// Lines that are not, and never will be as they are.
    pub refused: Vec<Refused>,
}

/// Sends to one server.
#[derive(Debug)]
pub struct Resender<'a> {
    /// Connections.
    pub client: &'a Client,
    /// The server.
    pub target: &'a Target,
    /// Time limit of one request.
    pub timeout: Duration,
    /// Waiting times between tries.
    pub backoff: Backoff,
}

impl Resender<'_> {
    /// Sends the lines of `body`, all of one table, and adds their fate to `sent`.
    ///
    /// # Errors
    /// See [`ResendError`].
    pub async fn send(&mut self, body: Bytes, sent: &mut Sent) -> Result<(), ResendError> {
        let mut bodies = VecDeque::from([body]);
        while let Some(body) = bodies.pop_front() {
            let verdict = self.decided(&body).await?;
            let (bad, rest, reason) = match verdict {
                Decided::Written => {
                    let lines = u64::try_from(post::lines(&body)).unwrap_or(u64::MAX);
                    sent.written = sent.written.saturating_add(lines);
                    continue;
                }
                Decided::TooLarge => match post::halves(&body) {
                    Some((first, second)) => (None, vec![first, second], String::new()),
                    None => (Some(body), Vec::new(), "the line alone is too large".to_owned()),
                },
                Decided::Refused(line, reason) => {
                    let (bad, rest) = post::sort_out(&body, line);
                    (bad, rest, reason)
                }
            };
            for line in bad.iter().flat_map(|bad| bad.split(|byte| *byte == b'\n')) {
                if !line.is_empty() {
                    let line = String::from_utf8_lossy(line).into_owned();
                    sent.refused.push(Refused { line, reason: reason.clone() });
                }
            }
            rest.into_iter().rev().for_each(|rest| bodies.push_front(rest));
        }
        Ok(())
    }

    /// Sends `body` until the server decides about it.
    async fn decided(&mut self, body: &Bytes) -> Result<Decided, ResendError> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let body = body.clone();
            let pause = match post::post(self.client, self.target, body, self.timeout).await {
                Verdict::Written => {
                    self.backoff.reset();
                    return Ok(Decided::Written);
                }
                Verdict::Refused { line, reason } => return Ok(Decided::Refused(line, reason)),
                Verdict::TooLarge => return Ok(Decided::TooLarge),
                Verdict::Setup { reason } => return Err(ResendError::Setup(reason)),
                Verdict::Retry { reason, after, .. } => {
                    last = reason;
                    let pause = self.backoff.after_failure();
                    after.map_or(pause, |after| after.max(pause))
                }
            };
            tokio::time::sleep(pause).await;
        }
        Err(ResendError::Unavailable(last))
    }
}

/// How a request ended.
enum Decided {
    Written,
    /// The line that is to blame, counted from 1, and the server's words.
    Refused(Option<usize>, String),
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::server::Endpoint;

    #[tokio::test]
    async fn a_server_that_stays_away_is_an_end() {
        let endpoint = Endpoint {
            http: "http://127.0.0.1:1".into(),
            pg: String::new(),
            database: "qdb".into(),
            admin: None,
            reader: None,
        };
        let (client, target) = (Client::new().unwrap(), Target::new(&endpoint).unwrap());
        let step = Duration::from_millis(1);
        let mut resender = Resender {
            client: &client,
            target: &target,
            timeout: Duration::from_secs(5),
            backoff: Backoff::new(step, step, 1),
        };
        let mut sent = Sent::default();
        let error = resender.send(Bytes::from_static(b"t a=1i 1\n"), &mut sent).await.unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
        assert_eq!(sent, Sent::default());
    }
}

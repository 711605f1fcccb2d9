//! Which tables can take rows: they are checked when the server comes up, when it refuses a line,
//! and now and then while one of them is different from what it should be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::encode::table_id;
use super::exec::{ExecError, Target};
use super::feed::Feed;
use super::schema::{self, Outcome};
use super::spool::thread::Mailbox;
use crate::base::health::{Board, Health, Part};
use crate::base::http::Client;
use crate::config::Retention;
use crate::model::table::{TABLES, Table};

/// How long the result of a check counts.
const FRESH: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    checked: BTreeMap<&'static str, (Instant, Outcome)>,
}

/// Clones share the state.
#[derive(Debug, Clone)]
pub struct Tables {
    state: Arc<Mutex<State>>,
    retention: Arc<Retention>,
    feed: Feed,
    mailbox: Mailbox,
    board: Board,
}

impl Tables {
    /// Makes one that knows nothing yet.
    pub fn new(retention: Retention, feed: Feed, mailbox: Mailbox, board: Board) -> Self {
        Self { state: Arc::default(), retention: Arc::new(retention), feed, mailbox, board }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks all tables of a server that has come up.
    ///
    /// # Errors
    /// The server does not answer or refuses a statement; some tables may be unchecked.
    pub async fn check_all(&self, target: &Target, client: &Client) -> Result<(), ExecError> {
        self.lock().checked.clear();
        for table in TABLES {
            self.check(target, client, table).await?;
        }
        Ok(())
    }

    /// Checks the tables again that could not take rows.
    ///
    /// # Errors
    /// The server does not answer or refuses a statement.
    pub async fn check_foreign(&self, target: &Target, client: &Client) -> Result<(), ExecError> {
        for table in TABLES {
            let is_foreign =
                matches!(self.lock().checked.get(table.name), Some((_, Outcome::Foreign(_))));
            if is_foreign {
                self.check(target, client, table).await?;
            }
        }
        Ok(())
    }

    /// Checks one table, unless that was done a moment ago and it was found sound; rows of a table
    /// that cannot take them stay in the spool from here on.
    ///
    /// # Errors
    /// The server does not answer or refuses a statement.
    pub async fn check(
        &self,
        target: &Target,
        client: &Client,
        table: &'static Table,
    ) -> Result<Outcome, ExecError> {
        let is_fresh = self.lock().checked.get(table.name).is_some_and(|(at, outcome)| {
            at.elapsed() < FRESH && matches!(outcome, Outcome::Sound | Outcome::Mended)
        });
        if is_fresh {
            return Ok(Outcome::Sound);
        }
        let outcome = schema::ensure(target, client, table, &self.retention).await?;
        let before = {
            let mut state = self.lock();
            state.checked.insert(table.name, (Instant::now(), outcome.clone()))
        };
        let was_blocked = matches!(before, Some((_, Outcome::Foreign(_))));
        if let Some(id) = table_id(table) {
            match &outcome {
                Outcome::Foreign(_) => self.feed.block(id),
                Outcome::Sound | Outcome::Mended if self.feed.is_blocked(id) || was_blocked => {
                    self.feed.unblock(id);
                    self.mailbox.reopen_backlog();
                }
                Outcome::Sound | Outcome::Mended => {}
            }
        }
        self.publish();
        Ok(outcome)
    }

    fn publish(&self) {
        let reasons: Vec<String> = {
            let state = self.lock();
            let outcomes = state.checked.values().map(|(_, outcome)| outcome);
            outcomes
                .filter_map(|outcome| match outcome {
                    Outcome::Foreign(difference) => Some(difference.clone()),
                    Outcome::Sound | Outcome::Mended => None,
                })
                .collect()
        };
        let health = if reasons.is_empty() {
            Health::Ok
        } else {
            Health::Degraded { reason: reasons.join("; ") }
        };
        self.board.set(Part::Schema, health);
    }
}

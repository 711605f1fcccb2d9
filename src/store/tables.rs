//! Which tables can take rows: they are checked when the server comes up, when it refuses a line,
//! and now and then while one of them is different from what it should be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::encode::table_id;
use super::exec::{ExecError, Target};
use super::feed::Feed;
use super::schema::{self, Outcome};
use super::spool::thread::Mailbox;
use super::views::Views;
use crate::base::health::{Board, Health, Part};
use crate::base::http::Client;
use crate::config::Retention;
use crate::model::table::{TABLES, Table};

#[derive(Debug, Default)]
struct State {
    checked: BTreeMap<&'static str, Outcome>,
    /// Tables that the server could not store rows of, with its words.
    aside: BTreeMap<&'static str, String>,
    /// The server's own number of each table: another one means another table.
    ids: BTreeMap<&'static str, i64>,
}

/// Clones share the state.
#[derive(Debug, Clone)]
pub struct Tables {
    state: Arc<Mutex<State>>,
    retention: Arc<Retention>,
    views: Views,
    feed: Feed,
    mailbox: Mailbox,
    board: Board,
}

impl Tables {
    /// Makes one that knows nothing yet.
    pub fn new(retention: Retention, feed: Feed, mailbox: Mailbox, board: Board) -> Self {
        let retention = Arc::new(retention);
        let views = Views::new(Arc::clone(&retention));
        Self { state: Arc::default(), retention, views, feed, mailbox, board }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks all tables of a server that has come up; returns whether one had to be made.
    ///
    /// # Errors
    /// The server does not answer or refuses a statement; some tables may be unchecked.
    pub async fn check_all(&self, target: &Target, client: &Client) -> Result<bool, ExecError> {
        *self.lock() = State::default();
        self.views.forget();
        let mut made = false;
        for table in TABLES {
            made |= self.ensure(target, client, table).await? == Outcome::Made;
        }
        self.look_for_others(target, client).await?;
        Ok(made)
    }

    /// Looks whether a table is another one than before, dropped or made anew.
    ///
    /// `QuestDB` accepts the first request after a drop for the table that is gone: those rows are
    /// nowhere. So what was delivered lately is sent again.
    ///
    /// # Errors
    /// The server does not answer or refuses a statement.
    pub async fn look_for_others(&self, target: &Target, client: &Client) -> Result<(), ExecError> {
        let found = target.exec(client, "select id, table_name from tables()").await?;
        let mut changed = false;
        for table in TABLES {
            let row = found.iter().find(|row| row.get("table_name").as_str() == Some(table.name));
            let id = row.and_then(|row| row.get("id").as_i64());
            let before = {
                let mut state = self.lock();
                match id {
                    Some(id) => state.ids.insert(table.name, id),
                    None => state.ids.remove(table.name),
                }
            };
            if id.is_none() || before.is_some_and(|before| id != Some(before)) {
                let outcome = self.ensure(target, client, table).await?;
                changed |= before.is_some() || outcome == Outcome::Made;
            }
        }
        if changed {
            tracing::warn!("tables were replaced; what was delivered lately is sent again");
            self.mailbox.replay().await;
        }
        Ok(())
    }

    /// Checks all tables again: a person may have mended one or changed one, and a server that makes
    /// tables by itself may have made one in its own way.
    ///
    /// # Errors
    /// The server does not answer or refuses a statement.
    pub async fn check_again(&self, target: &Target, client: &Client) -> Result<(), ExecError> {
        for table in TABLES {
            self.check(target, client, table).await?;
        }
        Ok(())
    }

    /// Brings the hourly views to what is declared, as far as that is ours to do.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn check_views(&self, target: &Target, client: &Client) -> Result<(), ExecError> {
        let is_ours = |table: &Table| {
            let state = self.lock();
            let outcome = state.checked.get(table.name);
            outcome.is_some_and(|outcome| !matches!(outcome, Outcome::Foreign(_)))
        };
        self.views.check(target, client, is_ours).await?;
        self.publish();
        Ok(())
    }

    /// Checks one table, because the server refuses rows of it.
    ///
    /// # Errors
    /// The server does not answer or refuses a statement.
    pub async fn check(
        &self,
        target: &Target,
        client: &Client,
        table: &'static Table,
    ) -> Result<Outcome, ExecError> {
        let outcome = self.ensure(target, client, table).await?;
        if outcome == Outcome::Made {
            self.mailbox.replay().await;
        }
        Ok(outcome)
    }

    /// Keeps rows of `table` in the spool until the next check, so that other tables do not wait for
    /// it; `reason` are the server's words.
    pub fn set_aside(&self, table: &'static Table, reason: &str) {
        if let Some(id) = table_id(table) {
            self.feed.block(id);
        }
        let reason = format!(
            "{} cannot be written to now: {reason}; its rows wait in the spool and are tried again, \
             the log of questdb may tell more",
            table.name
        );
        self.lock().aside.insert(table.name, reason);
        self.publish();
    }

    /// Notes that the server has taken rows of the table called `name`.
    pub fn taken(&self, name: &str) {
        if self.lock().aside.remove(name).is_some() {
            self.publish();
        }
    }

    /// Makes `table` anew when `QuestDB` cannot write to it and it holds no row; returns whether it did.
    ///
    /// # Errors
    /// The server does not answer or refuses a statement.
    pub async fn remake_ruined(
        &self,
        target: &Target,
        client: &Client,
        table: &'static Table,
    ) -> Result<bool, ExecError> {
        let count = format!("select count() as rows_left from {}", table.name);
        let found = target.exec(client, &count).await?;
        if found.iter().next().and_then(|row| row.get("rows_left").as_i64()) != Some(0) {
            return Ok(false);
        }
        tracing::warn!(table = table.name, "empty and cannot be written to: it is made again");
        target.exec(client, &format!("DROP TABLE {}", table.name)).await?;
        self.check(target, client, table).await?;
        Ok(true)
    }

    /// Brings one table to what is declared; rows of a table that cannot take them stay in the
    /// spool from here on.
    async fn ensure(
        &self,
        target: &Target,
        client: &Client,
        table: &'static Table,
    ) -> Result<Outcome, ExecError> {
        let outcome = schema::ensure(target, client, table, &self.retention).await?;
        let before = {
            let mut state = self.lock();
            state.checked.insert(table.name, outcome.clone())
        };
        let was_blocked = matches!(before, Some(Outcome::Foreign(_)));
        if let Some(id) = table_id(table) {
            match &outcome {
                Outcome::Foreign(_) => self.feed.block(id),
                Outcome::Sound | Outcome::Mended | Outcome::Made
                    if self.feed.is_blocked(id) || was_blocked =>
                {
                    self.feed.unblock(id);
                    self.mailbox.reopen_backlog();
                }
                Outcome::Sound | Outcome::Mended | Outcome::Made => {}
            }
        }
        self.publish();
        Ok(outcome)
    }

    fn publish(&self) {
        let mut reasons: Vec<String> = {
            let state = self.lock();
            let outcomes = state.checked.values();
            let foreign = outcomes.filter_map(|outcome| match outcome {
                Outcome::Foreign(difference) => Some(difference.clone()),
                Outcome::Sound | Outcome::Mended | Outcome::Made => None,
            });
            foreign.chain(state.aside.values().cloned()).collect()
        };
        reasons.extend(self.views.reasons());
        let health = if !reasons.is_empty() {
            Health::Degraded { reason: reasons.join("; ") }
        } else if self.views.looked() {
            Health::Ok
        } else {
            // A panel that is opened now may name a view that is not made yet.
            Health::Starting { doing: "tables and hourly views are made".to_owned() }
        };
        self.board.set(Part::Schema, health);
    }
}

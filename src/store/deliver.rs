//! The two lanes that bring records to `QuestDB`: one for what is new, one for the backlog.
//!
//! Each lane has one request in flight, of one table, and repeats it until its fate is decided, so
//! that rows of a table keep their order. Nothing is acknowledged before the server has said so,
//! and what it may have stored unseen is sent again: equal rows replace each other there.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use super::conditions::{Conditions, Source};
use super::dead_letter::{self, Letter};
use super::encode::table_of;
use super::exec::Target;
use super::feed::{BatchLimits, Feed, take_batch};
use super::post;
use super::schema;
use super::spool::flight::Flight;
use super::spool::scan::Record;
use super::spool::thread::Mailbox;
use super::stats::Stats;
use super::tables::Tables;
use super::verdict::{self, Verdict};
use crate::base::backoff::Backoff;
use crate::base::http::Client;
use crate::base::metrics::{Metrics, Reason, Table};
use crate::base::time::Clock;

/// Pause after an answer that only a person can mend.
const SETUP_PAUSE: Duration = Duration::from_secs(5);
/// Answers of 500 in a row after which the rows of one table no longer hold up the others.
const SERVER_ERRORS: u32 = 5;
/// Pause before something that could not be read is read again.
const READ_PAUSE: Duration = Duration::from_secs(1);
/// Speed of the backlog while there are new rows, bytes a second.
const DRAIN_BYTES_PER_SECOND: f64 = 5e6;

/// Whether and where rows may be sent.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// Where to; `None`: not now.
    pub target: Option<Arc<Target>>,
}

/// What both lanes use.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What waits.
    pub feed: Feed,
    /// Where acknowledgements go, and where the backlog is read.
    pub mailbox: Mailbox,
    /// What is being sent.
    pub flight: Flight,
    /// State of the tables.
    pub tables: Tables,
    /// Whether and where rows may be sent.
    pub gate: watch::Receiver<Gate>,
    /// What is wrong.
    pub conditions: Conditions,
    /// Figures.
    pub stats: Stats,
    /// Metrics.
    pub metrics: Metrics,
    /// Connections.
    pub client: Client,
    /// Where "now" comes from.
    pub clock: Clock,
    /// How much goes into one request.
    pub limits: BatchLimits,
    /// Time limit of a request.
    pub timeout: Duration,
    /// Where refused lines are kept.
    pub dead_letter: PathBuf,
    /// When to try again after an answer that only a person can mend.
    pub next_try: Arc<Mutex<Option<Instant>>>,
    /// Seed of waiting times.
    pub seed: u64,
}

/// How a request ended.
enum Decided {
    Written,
    Refused {
        line: Option<usize>,
        reason: String,
    },
    TooLarge,
    /// The server cannot store rows of this table for now.
    Aside {
        reason: String,
    },
    /// Some of its records were given up meanwhile.
    Changed,
}

/// A lane and its memory.
struct Lane<'a> {
    delivery: &'a Delivery,
    gate: watch::Receiver<Gate>,
    source: Source,
    backoff: Backoff,
    /// Connections of this lane alone.
    client: Client,
    /// Replays asked for when `client` was made: what is answered over it counts until the next one.
    replays: u64,
    /// Whether the server refused rows of a table that was then found sound.
    is_suspect: bool,
}

impl Delivery {
    fn lane(&self, source: Source, seed: u64) -> Lane<'_> {
        let (first, limit) = (Duration::from_millis(100), Duration::from_secs(5));
        let backoff = Backoff::new(first, limit, self.seed ^ seed);
        let (client, replays) = (self.client.clone(), self.mailbox.replays());
        let gate = self.gate.clone();
        Lane { delivery: self, gate, source, backoff, client, replays, is_suspect: false }
    }

    /// Sends new rows until no further ones will come and none is left.
    pub async fn run_live(&self) {
        let mut lane = self.lane(Source::Live, 1);
        loop {
            let mut changed = std::pin::pin!(self.feed.changed());
            changed.as_mut().enable();
            if self.feed.is_finished() {
                return;
            }
            // Not before there is somewhere to send to: until then rows stay where they are.
            lane.open().await;
            match self.feed.take_live(self.limits) {
                Some(records) => {
                    lane.deliver(records).await;
                    self.feed.finish_live();
                }
                None if self.feed.is_finished() => return,
                None => changed.await,
            }
        }
    }

    /// Sends the backlog, whenever there is any, until no further rows will come.
    pub async fn run_backlog(&self) {
        let mut lane = self.lane(Source::Backlog, 2);
        loop {
            let mut changed = std::pin::pin!(self.feed.changed());
            changed.as_mut().enable();
            let Some(backlog) = self.feed.backlog() else {
                if self.feed.is_finished() {
                    return;
                }
                changed.await;
                continue;
            };
            lane.open().await;
            let Some(chunk) = self.mailbox.read(backlog.from).await else { return };
            if chunk.records.is_empty() && chunk.next.is_some() {
                tokio::time::sleep(READ_PAUSE).await;
                continue;
            }
            // Newer records are the live lane's, or a later turn's if it has let them go meanwhile.
            let end = backlog.end;
            let mut bytes = 0;
            let mut by_table = BTreeMap::<u16, VecDeque<Record>>::new();
            for record in chunk.records.into_iter().filter(|record| record.seq < end) {
                bytes += record.bytes();
                if !self.feed.is_blocked(record.table) {
                    by_table.entry(record.table).or_default().push_back(record);
                }
            }
            for queue in by_table.values_mut() {
                lane.drain(queue).await;
            }
            self.feed.advance_backlog(backlog, chunk.next, bytes);
        }
    }
}

impl Lane<'_> {
    /// Waits until rows may be sent.
    async fn open(&mut self) -> Arc<Target> {
        loop {
            let target = self.gate.borrow_and_update().target.clone();
            if let Some(target) = target {
                return target;
            }
            if self.gate.changed().await.is_err() {
                // Whoever opens the gate is gone: the store is ending.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sends all of `queue`, in large requests, at a measured pace while there are new rows.
    async fn drain(&mut self, queue: &mut VecDeque<Record>) {
        let limits = self.delivery.limits;
        while !queue.is_empty() {
            let start = Instant::now();
            let batch = take_batch(queue, limits.drain_rows, limits.bytes);
            let bytes: u32 = batch
                .iter()
                .map(|record| record.body.len())
                .sum::<usize>()
                .try_into()
                .unwrap_or(u32::MAX);
            self.deliver(batch).await;
            if self.delivery.feed.has_live() {
                let pace = Duration::from_secs_f64(f64::from(bytes) / DRAIN_BYTES_PER_SECOND);
                tokio::time::sleep(pace.saturating_sub(start.elapsed())).await;
            }
        }
    }

    /// Sends `records`, all of one table, until the fate of every row is decided. When the table
    /// cannot take rows for now they stay in the spool.
    async fn deliver(&mut self, mut records: Vec<Record>) {
        let Some(id) = records.first().map(|record| record.table) else { return };
        let Some(table) = table_of(id) else {
            // Of a later version of periscope: it stays in the spool for that one.
            self.delivery.feed.block(id);
            return;
        };
        // A batch may have waited in hand through an outage: what counts is when it was sent at last.
        let mut replays = u64::MAX;
        let whole = post::joined(&records);
        let mut bodies = VecDeque::from([whole.clone()]);
        // Refused once by a table that was found sound after that.
        let mut suspect = Bytes::new();
        while let Some(body) = bodies.pop_front() {
            let decided = self.send(&mut records, &body).await;
            replays = replays.min(self.replays);
            match decided {
                // Lines are only counted when some were taken out.
                Decided::Written if body.len() == whole.len() => {
                    self.written(table.name, records.iter().map(|r| u64::from(r.rows)).sum());
                }
                Decided::Written => {
                    let rows = u64::try_from(post::lines(&body)).unwrap_or(u64::MAX);
                    self.written(table.name, rows);
                }
                Decided::Aside { reason } => {
                    self.delivery.tables.set_aside(table, &reason);
                    return;
                }
                Decided::Changed if records.is_empty() => return,
                Decided::Changed => {
                    // All that is left is sent anew, whatever was answered before.
                    replays = u64::MAX;
                    bodies = VecDeque::from([post::joined(&records)]);
                }
                Decided::TooLarge => match post::halves(&body) {
                    Some((first, second)) => {
                        bodies.push_front(second);
                        bodies.push_front(first);
                    }
                    None => self.refused(table.name, &body, "the line alone is too large").await,
                },
                Decided::Refused { line, reason }
                    if body == suspect && !verdict::blames_the_table(table, &reason) =>
                {
                    let (bad, rest) = post::sort_out(&body, line);
                    if let Some(bad) = bad {
                        self.refused(table.name, &bad, &reason).await;
                    }
                    rest.into_iter().rev().for_each(|rest| bodies.push_front(rest));
                }
                Decided::Refused { reason, .. } => {
                    match self.judge_refusal(table, &reason).await {
                        Refusal::OfTheTable => return,
                        Refusal::Passing => bodies.push_front(body),
                        // Somebody may have mended the table after the refusal: no row is given
                        // up before a sound table has refused it.
                        Refusal::OfTheLine => {
                            suspect.clone_from(&body);
                            bodies.push_front(body);
                        }
                    }
                }
            }
        }
        self.delivery.mailbox.delivered(&records, replays);
    }

    /// Sends `body` again and again until the server decides about it.
    async fn send(&mut self, records: &mut Vec<Record>, body: &Bytes) -> Decided {
        let delivery = self.delivery;
        let mut server_errors = 0;
        loop {
            let target = self.open().await;
            self.turn_after_a_setup_fault().await;
            let before = records.len();
            delivery.flight.begin(records);
            if records.len() != before {
                let _nothing = delivery.flight.end(records, true);
                return Decided::Changed;
            }
            self.renew_connections().await;
            let body = body.clone();
            let asked = Instant::now();
            let verdict = post::post(&self.client, &target, body, delivery.timeout).await;
            delivery.stats.requested(asked.elapsed());
            let lost = delivery.flight.end(records, verdict == Verdict::Written);
            let changed = !lost.is_empty();
            delivery.mailbox.lost_in_flight(lost);
            let pause = match verdict {
                Verdict::Written => {
                    self.recovered();
                    return Decided::Written;
                }
                Verdict::Refused { line, reason } if !changed => {
                    return Decided::Refused { line, reason };
                }
                Verdict::TooLarge if !changed => {
                    self.recovered();
                    return Decided::TooLarge;
                }
                Verdict::Refused { .. } | Verdict::TooLarge => Duration::ZERO,
                Verdict::Setup { reason } => {
                    self.failed("setup", reason);
                    self.set_next_try(Some(Instant::now() + SETUP_PAUSE));
                    Duration::ZERO
                }
                Verdict::Retry { reason, .. } if self.remake(&target, records, &reason).await => {
                    Duration::ZERO
                }
                Verdict::Retry { name: verdict::SERVER_ERROR, reason, .. }
                    if !changed && server_errors >= SERVER_ERRORS =>
                {
                    return Decided::Aside { reason };
                }
                Verdict::Retry { name, reason, after } => {
                    server_errors += u32::from(name == verdict::SERVER_ERROR);
                    let pause = self.backoff.after_failure();
                    self.failed(name, reason);
                    after.map_or(pause, |after| after.max(pause))
                }
            };
            if changed {
                return Decided::Changed;
            }
            self.pause(pause).await;
        }
    }

    /// Makes the table of `records` anew if `reason`, the server's words, says that it is ruined and
    /// nothing is lost by it; returns whether it did.
    async fn remake(&self, target: &Target, records: &[Record], reason: &str) -> bool {
        let Some(table) = records.first().and_then(|record| table_of(record.table)) else {
            return false;
        };
        if !verdict::tells_of_a_ruined_table(table.name, reason) {
            return false;
        }
        let client = &self.delivery.client;
        match self.delivery.tables.remake_ruined(target, client, table).await {
            Ok(made) => made,
            Err(error) => {
                tracing::debug!(table = table.name, %error, "a ruined table cannot be made again");
                false
            }
        }
    }

    /// Leaves all connections behind when a replay was asked for since they were made, or when
    /// what they answer does not fit the table.
    ///
    /// `QuestDB` keeps a table open for a connection that has written to it, as it was then. Is the
    /// table dropped and made again, the next request there is answered 204 and its rows are nowhere;
    /// is a column changed and changed back, its values are refused there for ever.
    async fn renew_connections(&mut self) {
        let replays = self.delivery.mailbox.replays();
        if replays == self.replays && !self.is_suspect {
            return;
        }
        // It reads the system's certificates.
        match tokio::task::spawn_blocking(Client::new).await {
            Ok(Ok(client)) => {
                self.client = client;
                self.replays = replays;
                self.is_suspect = false;
            }
            Ok(Err(error)) => tracing::warn!(%error, "no new connections to questdb"),
            Err(error) => tracing::warn!(%error, "no new connections to questdb"),
        }
    }

    /// Waits for a turn, as long as only a person can mend what is wrong: both lanes together try
    /// once in [`SETUP_PAUSE`].
    async fn turn_after_a_setup_fault(&self) {
        loop {
            let wait = {
                let mut next =
                    self.delivery.next_try.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                match *next {
                    None => return,
                    Some(at) if at <= now => {
                        *next = Some(now + SETUP_PAUSE);
                        return;
                    }
                    Some(at) => at.saturating_duration_since(now),
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn set_next_try(&self, at: Option<Instant>) {
        *self.delivery.next_try.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Waits; a change of the gate ends the wait, because it may be what was waited for.
    async fn pause(&mut self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = self.gate.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn failed(&self, name: &'static str, reason: String) {
        self.delivery.metrics.write_retries.get_or_create(&Reason { reason: name }).inc();
        self.delivery
            .conditions
            .set(self.source, Some(format!("cannot write: {reason}; rows wait in the spool")));
    }

    fn recovered(&mut self) {
        if self.backoff.failures() > 0 {
            self.backoff.reset();
        }
        self.set_next_try(None);
        self.delivery.conditions.set(self.source, None);
    }

    fn written(&self, table: &'static str, rows: u64) {
        self.delivery.tables.taken(table);
        self.delivery.metrics.rows_written.get_or_create(&Table { table }).inc_by(rows);
        self.delivery.stats.written(rows, self.delivery.clock.now());
    }

    /// Puts every line of `body` into the dead-letter folder.
    async fn refused(&self, table: &'static str, body: &Bytes, reason: &str) {
        let delivery = self.delivery;
        for line in String::from_utf8_lossy(body).lines() {
            let letter = Letter {
                time: delivery.clock.now(),
                table: table.to_owned(),
                reason: reason.to_owned(),
                line: line.to_owned(),
            };
            let folder = delivery.dead_letter.clone();
            let kept = {
                let letter = letter.clone();
                tokio::task::spawn_blocking(move || dead_letter::keep(&folder, &letter)).await
            };
            delivery.metrics.rows_refused.get_or_create(&Table { table }).inc();
            match kept {
                Ok(Ok(path)) => {
                    tracing::warn!(table, reason, path = %path.display(), "row refused by questdb");
                }
                // Rather one row in the log alone than all that follow it waiting.
                Ok(Err(error)) => {
                    tracing::error!(?letter, %error, "row refused by questdb, and it cannot be kept");
                }
                Err(error) => {
                    tracing::error!(?letter, %error, "row refused by questdb, and it cannot be kept");
                }
            }
        }
        let rows = u64::try_from(post::lines(body)).unwrap_or(u64::MAX);
        delivery.stats.refused(rows);
        delivery.conditions.refused(rows);
    }

    /// Finds out whether a refusal is about a line or about the table.
    async fn judge_refusal(
        &mut self,
        table: &'static crate::model::table::Table,
        reason: &str,
    ) -> Refusal {
        let target = self.open().await;
        let outcome = self.delivery.tables.check(&target, &self.delivery.client, table).await;
        self.is_suspect = true;
        match outcome {
            Ok(schema::Outcome::Sound) if verdict::blames_the_table(table, reason) => {
                let pause = self.backoff.after_failure();
                self.failed("schema", reason.to_owned());
                self.pause(pause).await;
                Refusal::Passing
            }
            Ok(schema::Outcome::Sound) => {
                self.recovered();
                Refusal::OfTheLine
            }
            Ok(schema::Outcome::Mended | schema::Outcome::Made) => Refusal::Passing,
            Ok(schema::Outcome::Foreign(_)) => {
                // What is wrong is the table's own condition; other tables can be written.
                self.recovered();
                Refusal::OfTheTable
            }
            Err(error) => {
                // It cannot be told now: nothing is given up for that.
                let pause = self.backoff.after_failure();
                self.failed("schema", format!("{reason} ({error})"));
                self.pause(pause).await;
                Refusal::Passing
            }
        }
    }
}

/// What a refusal is about.
enum Refusal {
    /// A line can never be stored.
    OfTheLine,
    /// The table cannot take rows until a person has changed it.
    OfTheTable,
    /// Nothing that lasts.
    Passing,
}

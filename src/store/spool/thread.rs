//! The one thread that owns all files of the spool.
//!
//! Whatever waits is written together and made durable by one sync: while that runs, the next
//! group gathers. With nothing waiting there is no delay at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::disk::{Draft, Loss, Outcome, Spool};
use super::read::Chunk;
use super::room::Figures;
use super::scan::Record;
use crate::base::health::{Board, Health, Part};
use crate::base::metrics::{Metrics, Reason};
use crate::base::time::{Clock, Timestamp};
use crate::store::feed::Feed;
use crate::store::queue::{Done, PushError};
use crate::store::stats::Stats;

/// How often cursor, replay window and free space are looked after.
const TIDY: Duration = Duration::from_secs(1);
/// Drafts that may wait for the disk, bytes; beyond that the intake waits.
const WAITING_BYTES: usize = 8 << 20;

/// Rows to be made durable.
#[derive(Debug, Default)]
pub struct Append {
    /// The rows, in order.
    pub drafts: Vec<Draft>,
    /// Who waits for them.
    pub done: Vec<Done>,
    /// The newest sample of each daemon among them.
    pub newest: Vec<(Arc<str>, Timestamp)>,
}

impl Append {
    fn size(&self) -> usize {
        self.drafts.iter().map(Draft::size).sum()
    }
}

/// Rows and bytes of a record that is delivered.
#[derive(Debug, Clone, Copy)]
struct Delivered {
    seq: u64,
    rows: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Inbox {
    appends: Vec<Append>,
    append_bytes: usize,
    delivered: Vec<Delivered>,
    lost: Vec<Loss>,
    reads: Vec<(u64, oneshot::Sender<Chunk>)>,
    replays: Vec<oneshot::Sender<()>>,
    reopen: bool,
    close: bool,
    /// Nobody will take anything any more.
    ended: bool,
}

impl Inbox {
    const fn is_empty(&self) -> bool {
        self.appends.is_empty()
            && self.delivered.is_empty()
            && self.lost.is_empty()
            && self.reads.is_empty()
            && self.replays.is_empty()
            && !self.reopen
            && !self.close
    }
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    /// Replays asked for so far; changed and compared under the lock of `inbox`.
    replays: AtomicU64,
    arrived: Condvar,
    taken: Condvar,
}

/// The way to the spool's thread; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Mailbox(Arc<Shared>);

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.0.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, change: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.lock();
        if !inbox.ended {
            change(&mut inbox);
        }
        drop(inbox);
        self.0.arrived.notify_one();
    }

    /// Hands rows over. Blocks while too many wait for the disk: for the intake's thread.
    pub fn append(&self, append: Append) {
        let inbox = self.lock();
        let is_full = |inbox: &mut Inbox| inbox.append_bytes > WAITING_BYTES && !inbox.ended;
        let waited = self.0.taken.wait_while(inbox, is_full);
        let mut inbox = waited.unwrap_or_else(PoisonError::into_inner);
        if inbox.ended {
            return;
        }
        inbox.append_bytes = inbox.append_bytes.saturating_add(append.size());
        inbox.appends.push(append);
        drop(inbox);
        self.0.arrived.notify_one();
    }

    /// Returns how many replays were asked for so far; see [`Self::delivered`].
    pub fn replays(&self) -> u64 {
        self.0.replays.load(Ordering::SeqCst)
    }

    /// Takes `records` as delivered, which began to be sent after `replays` replays.
    ///
    /// When another replay was asked for meanwhile, the answer is not trusted: the server that gave it,
    /// or the table, may be gone with the rows. The replay sends them again.
    pub fn delivered(&self, records: &[Record], replays: u64) {
        self.add(|inbox| {
            if self.replays() != replays {
                return;
            }
            inbox.delivered.extend(records.iter().map(|record| Delivered {
                seq: record.seq,
                rows: record.rows.into(),
                bytes: record.bytes(),
            }));
        });
    }

    /// Counts what was given up while it was being sent as lost.
    pub fn lost_in_flight(&self, lost: Vec<Loss>) {
        if !lost.is_empty() {
            self.add(|inbox| inbox.lost.extend(lost));
        }
    }

    /// Reads what is due from seq `from` on; `None` when the thread has ended.
    pub async fn read(&self, from: u64) -> Option<Chunk> {
        let (answer, chunk) = oneshot::channel();
        self.add(|inbox| inbox.reads.push((from, answer)));
        chunk.await.ok()
    }

    /// Sends everything again that was delivered within the replay window; returns once it waits
    /// to be sent.
    pub async fn replay(&self) {
        let (answer, done) = oneshot::channel();
        self.add(|inbox| {
            self.0.replays.fetch_add(1, Ordering::SeqCst);
            inbox.replays.push(answer);
        });
        // An error means that the thread has ended: there is nothing to be sent any more.
        let _ended = done.await;
    }

    /// Declares everything that is due as backlog: what was left aside is to be sent now.
    pub fn reopen_backlog(&self) {
        self.add(|inbox| inbox.reopen = true);
    }

    /// Ends the thread, with everything written that was handed over before.
    pub fn close(&self) {
        self.add(|inbox| inbox.close = true);
    }

    /// Waits for work, at most `limit`, and takes all of it.
    fn take(&self, limit: Duration) -> Inbox {
        let inbox = self.lock();
        let waited = self.0.arrived.wait_timeout_while(inbox, limit, |inbox| inbox.is_empty());
        let (mut inbox, _timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let close = inbox.close;
        let taken = std::mem::take(&mut *inbox);
        inbox.close = close;
        drop(inbox);
        self.0.taken.notify_all();
        taken
    }
}

/// Frees all who wait, however the thread ends.
struct End<'a>(&'a Mailbox);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Inbox { ended: true, ..Inbox::default() };
        self.0.0.taken.notify_all();
    }
}

/// What the thread tells others by.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where records go on.
    pub feed: Feed,
    /// Figures.
    pub stats: Stats,
    /// Metrics.
    pub metrics: Metrics,
    /// Health.
    pub board: Board,
    /// Where "now" comes from.
    pub clock: Clock,
}

/// Runs until [`Mailbox::close`].
pub fn run(mut spool: Spool, mailbox: &Mailbox, around: &Surroundings) {
    let _end = End(mailbox);
    let mut tidied = Instant::now();
    let mut seen = None;
    loop {
        let work = mailbox.take(TIDY.saturating_sub(tidied.elapsed()));
        let close = work.close;
        turn(&mut spool, work, mailbox, around);
        if tidied.elapsed() >= TIDY {
            spool.set_in_memory_from(around.feed.in_memory_from());
            spool.tidy();
            tidied = Instant::now();
            seen = look_for_forgotten(&spool, seen, around);
        }
        if close && mailbox.lock().appends.is_empty() {
            break;
        }
        publish(&mut spool, around);
    }
    spool.close();
    publish(&mut spool, around);
}

/// Sends what is due although nothing is on its way, should that ever happen. It has to be the same
/// seq as at the look before, `seen`, because an acknowledgement may be on its way. Returns the seq
/// for the next look.
fn look_for_forgotten(spool: &Spool, seen: Option<u64>, around: &Surroundings) -> Option<u64> {
    let (from, bytes) = spool.due().filter(|_| around.feed.is_idle())?;
    if seen == Some(from) {
        tracing::warn!(from, bytes, "records were waiting unnoticed");
        around.feed.reopen_backlog(from, spool.next_seq(), bytes);
    }
    Some(from)
}

/// Does all that is asked at once.
fn turn(spool: &mut Spool, work: Inbox, mailbox: &Mailbox, around: &Surroundings) {
    settle(spool, work.delivered);
    around.stats.lost(work.lost, &around.metrics);
    if !work.replays.is_empty() {
        spool.replay();
    }
    if (work.reopen || !work.replays.is_empty())
        && let Some((from, bytes)) = spool.due()
    {
        around.feed.reopen_backlog(from, spool.next_seq(), bytes);
    }
    for done in work.replays {
        // Whoever asked may be gone by now.
        let _unsent = done.send(());
    }
    append(spool, work.appends, around);
    for (from, answer) in work.reads {
        let chunk = read(spool, from, mailbox, around);
        // Whoever asked may be gone by now.
        let _unsent = answer.send(chunk);
    }
}

fn settle(spool: &mut Spool, delivered: Vec<Delivered>) {
    for Delivered { seq, rows, bytes } in delivered {
        spool.delivered(seq, rows, bytes);
    }
}

/// Reads what is due from seq `from` on. What is gone with its file is counted as lost, except for
/// what is in memory too.
fn read(spool: &mut Spool, from: u64, mailbox: &Mailbox, around: &Surroundings) -> Chunk {
    // In this order: a record that leaves the memory was acknowledged before it left.
    let mut in_memory = around.feed.rows_in_memory();
    settle(spool, std::mem::take(&mut mailbox.lock().delivered));
    in_memory.retain(|seq, _| spool.is_due(*seq));
    let chunk = spool.read(from);
    spool.uncount(&in_memory);
    chunk
}

fn append(spool: &mut Spool, appends: Vec<Append>, around: &Surroundings) {
    if appends.is_empty() {
        return;
    }
    let mut drafts = Vec::new();
    let mut done = Vec::new();
    let mut newest = Vec::new();
    for append in appends {
        drafts.extend(append.drafts);
        done.extend(append.done);
        newest.extend(append.newest);
    }
    let (records, outcome) = spool.append(drafts);
    around.feed.push(records);
    let answer = match outcome {
        Outcome::Durable => {
            around.stats.durable(newest);
            Ok(())
        }
        Outcome::Volatile(reason) => Err(PushError::NotDurable(reason)),
    };
    for done in done {
        let _unsent = done.send(answer.clone());
    }
}

/// Tells others how the spool is.
fn publish(spool: &mut Spool, around: &Surroundings) {
    for fault in spool.take_faults() {
        around.metrics.spool_faults.get_or_create(&Reason { reason: fault }).inc();
    }
    around.stats.lost(spool.take_losses(), &around.metrics);
    around.stats.tell_again(spool.take_retold());
    let figures = spool.figures();
    around.stats.publish(&figures, &around.metrics, around.clock.now());
    around.board.set(Part::Spool, health(&figures, around.stats.lost_lately()));
}

/// Makes health out of figures and of what was lost lately, in the queue before the spool too.
fn health(figures: &Figures, lost: Option<(u64, &str)>) -> Health {
    let mut reasons = Vec::new();
    if let Some(fault) = &figures.fault {
        reasons.push(format!("{fault}; rows are held in memory only until it can be written"));
    }
    if let Some((rows, reason)) = lost {
        reasons.push(format!("{rows} rows lost within the last 10 minutes ({reason})"));
    }
    if figures.low_space.is_some() {
        // Without the figure: the text changes only when the state does.
        reasons.push(
            "less space is free than [spool] min_free; the spool does not grow beyond 64 MiB: \
             free some space or lower min_free"
                .to_owned(),
        );
    }
    if reasons.is_empty() { Health::Ok } else { Health::Degraded { reason: reasons.join("; ") } }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::base::files::Files;
    use crate::base::files::memory::MemoryFiles;
    use crate::store::feed::BatchLimits;
    use crate::store::spool::tests;

    #[test]
    fn losses_are_told_wherever_they_happened() {
        assert_eq!(health(&Figures::default(), None), Health::Ok);
        let told = health(&Figures::default(), Some((7, "queue_full")));
        assert!(
            matches!(told, Health::Degraded { reason } if reason.contains("7 rows lost") && reason.contains("queue_full"))
        );
    }

    /// Rows that a table took just before it was dropped were lost: the answer came after the replay
    /// that was to send them again, and counted.
    #[tokio::test]
    async fn an_answer_that_was_on_its_way_during_a_replay_does_not_count() {
        let mailbox = Mailbox::default();
        let record = Record {
            seq: 1,
            at: Timestamp::EPOCH,
            table: 0,
            rows: 1,
            body: bytes::Bytes::from_static(b"x\n"),
        };
        let before = mailbox.replays();
        // Nobody answers: it is enough that the replay was asked for.
        let asked = tokio::time::timeout(Duration::from_millis(1), mailbox.replay()).await;
        assert!(asked.is_err());
        mailbox.delivered(std::slice::from_ref(&record), before);
        assert_eq!(mailbox.take(Duration::ZERO).delivered.len(), 0);
        mailbox.delivered(&[record], mailbox.replays());
        assert_eq!(mailbox.take(Duration::ZERO).delivered.len(), 1);
    }

    /// Rows were counted as lost with a file that somebody deleted although the live lane had just
    /// delivered them: they were in nobody's hand any more, and their answer was on its way.
    #[test]
    fn what_was_delivered_a_moment_ago_is_not_lost_with_its_file() {
        let files = MemoryFiles::default();
        let (mut spool, _) = tests::open_with(&files, tests::options());
        let around = Surroundings {
            feed: Feed::default(),
            stats: Stats::default(),
            metrics: Metrics::new(),
            board: Board::new(Clock::system()),
            clock: Clock::system(),
        };
        let mailbox = Mailbox::default();
        let (records, _) = spool.append(tests::drafts(0..200));
        let in_first: Vec<Record> = records.iter().take(3).cloned().collect();
        around.feed.push(in_first);
        let limits = BatchLimits { rows: 3, drain_rows: 3, bytes: 1 << 20 };
        let batch = around.feed.take_live(limits).unwrap();
        assert_eq!(batch.len(), 3);
        files.unlink(&PathBuf::from(tests::FOLDER).join(format!("{:020}.seg", 1))).unwrap();
        let work = mailbox.take(Duration::ZERO);
        mailbox.delivered(&batch, mailbox.replays());
        around.feed.finish_live();
        turn(&mut spool, work, &mailbox, &around);
        let mut left = 0;
        let mut from = Some(0);
        while let Some(seq) = from {
            let chunk = read(&mut spool, seq, &mailbox, &around);
            left += chunk.records.len();
            from = chunk.next;
        }
        let lost: u64 = spool.take_losses().iter().map(|loss| loss.rows).sum();
        assert_eq!(usize::try_from(lost).unwrap() + left, 200 - 3);
    }
}

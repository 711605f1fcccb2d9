//! The store as a whole: intake and spool on threads of their own, two lanes, and the control that
//! opens the gate when the server is ready.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::conditions::Conditions;
use super::control::Control;
use super::deliver::{Delivery, Gate};
use super::feed::{BatchLimits, Feed};
use super::intake;
use super::queue::RowStream;
use super::spool::disk::{Options, Spool};
use super::spool::flight::Flight;
use super::spool::thread::{self, Mailbox, Surroundings};
pub use super::stats::Stats;
use super::tables::Tables;
use crate::base::files::real::RealFiles;
use crate::base::health::Board;
use crate::base::http::Client;
use crate::base::metrics::Metrics;
use crate::base::tasks::spawn_thread;
use crate::base::time::Clock;
use crate::config;
use crate::model::server::ServerState;

/// Size of a segment; smaller when the whole spool is small.
const SEGMENT_BYTES: u64 = 4 << 20;
/// Memory for rows while the disk fails.
const RING_BYTES: usize = 16 << 20;
/// Rows of one table in a request of the backlog.
const DRAIN_ROWS: u64 = 20_000;
/// Bytes in any request.
const REQUEST_BYTES: u64 = 4 << 20;

/// What the store needs.
#[derive(Debug)]
pub struct Setup {
    /// `[writer]`
    pub writer: config::Writer,
    /// `[spool]`
    pub spool: config::Spool,
    /// `[retention]`
    pub retention: config::Retention,
    /// `[node]`
    pub node: config::Node,
    /// The data folder; `spool/` and `dead-letter/` are made in it.
    pub data_dir: PathBuf,
    /// Where "now" comes from.
    pub clock: Clock,
    /// Metrics.
    pub metrics: Metrics,
    /// Health.
    pub board: Board,
    /// Connections.
    pub client: Client,
    /// Seed of everything random.
    pub seed: u64,
}

/// Why the store cannot start. Damage on disk is no reason.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system gives no thread.
    #[error("start the thread of the spool: {0}")]
    Thread(std::io::Error),
}

/// The store, with its spool open.
#[derive(Debug)]
pub struct Store {
    setup: Setup,
    mailbox: Mailbox,
    around: Surroundings,
    thread: Thread,
    flight: Flight,
    /// Whether what was delivered last is to be sent again.
    replay: bool,
}

/// A thread and how its end is seen.
#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    /// Its sender is dropped when the thread ends, however that comes.
    ended: oneshot::Receiver<()>,
}

impl Thread {
    fn start(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (alive, ended) = oneshot::channel::<()>();
        let handle = spawn_thread(name, move || {
            let _alive = alive;
            body();
        })?;
        Ok(Self { handle, ended })
    }

    /// Waits for the end and passes a panic on.
    async fn join(self) {
        if !self.ended.is_terminated() {
            // An error is what the end looks like: nothing is ever sent.
            let _ended = self.ended.await;
        }
        if let Err(panic) = self.handle.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Store {
    /// Opens the spool and recovers what is in it. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(setup: Setup) -> Result<Self, OpenError> {
        let options = options(&setup);
        let folder = setup.data_dir.join("spool");
        let (spool, recovery) = Spool::open(Arc::new(RealFiles), &folder, options);
        tracing::info!(folder = %folder.display(), ?recovery, "spool open");
        let around = Surroundings {
            feed: Feed::default(),
            stats: Stats::default(),
            metrics: setup.metrics.clone(),
            board: setup.board.clone(),
            clock: setup.clock.clone(),
        };
        let mailbox = Mailbox::default();
        let (flight, replay) = (spool.flight(), recovery.unclean);
        // What the last run left is backlog.
        mailbox.reopen_backlog();
        let body = {
            let (mailbox, around) = (mailbox.clone(), around.clone());
            move || thread::run(spool, &mailbox, &around)
        };
        let thread = Thread::start("spool", body).map_err(OpenError::Thread)?;
        Ok(Self { setup, mailbox, around, thread, flight, replay })
    }

    /// Returns the figures, which go on being updated.
    pub fn stats(&self) -> Stats {
        self.around.stats.clone()
    }

    /// Stores the rows of the queue and delivers them.
    ///
    /// Ends when all senders of `rows` are gone, everything is in the spool, and either all of it
    /// is delivered or `stop` is cancelled.
    pub async fn run(
        self,
        rows: RowStream,
        server: watch::Receiver<ServerState>,
        stop: CancellationToken,
    ) {
        let Self { setup, mailbox, around, mut thread, flight, replay } = self;
        let conditions = Conditions::new(setup.board.clone());
        let intake = start_intake(rows, &setup, &mailbox, &around, &conditions);
        let tables = Tables::new(
            setup.retention.clone(),
            around.feed.clone(),
            mailbox.clone(),
            setup.board.clone(),
        );
        let (gate, gate_state) = watch::channel(Gate::default());
        let delivery = Delivery {
            feed: around.feed.clone(),
            mailbox: mailbox.clone(),
            flight,
            tables: tables.clone(),
            gate: gate_state,
            conditions: conditions.clone(),
            stats: around.stats.clone(),
            metrics: setup.metrics.clone(),
            client: setup.client.clone(),
            clock: setup.clock.clone(),
            limits: batch_limits(&setup.writer),
            timeout: setup.writer.timeout,
            dead_letter: setup.data_dir.join("dead-letter"),
            next_try: Arc::default(),
            seed: setup.seed,
        };
        let control = Control {
            gate,
            tables,
            mailbox: mailbox.clone(),
            conditions,
            stats: around.stats.clone(),
            metrics: setup.metrics.clone(),
            client: setup.client.clone(),
            clock: setup.clock.clone(),
            data_dir: setup.data_dir.clone(),
            replay,
        };
        let intake = async {
            match intake {
                Ok(thread) => thread.join().await,
                Err(error) => tracing::error!(%error, "cannot start the thread for new rows"),
            }
            around.feed.complete();
        };
        let lanes = async {
            tokio::join!(intake, delivery.run_live(), delivery.run_backlog());
        };
        tokio::select! {
            () = Box::pin(lanes) => {}
            () = Box::pin(control.run(server)) => {}
            () = stopped_and_complete(&stop, &around.feed) => {}
            // Only by a panic, before it is asked to.
            _ended = &mut thread.ended => {}
        }
        mailbox.close();
        thread.join().await;
    }
}

/// Ends when delivery is to stop and nothing more can come.
async fn stopped_and_complete(stop: &CancellationToken, feed: &Feed) {
    stop.cancelled().await;
    loop {
        let mut changed = std::pin::pin!(feed.changed());
        changed.as_mut().enable();
        if feed.is_complete() {
            return;
        }
        changed.await;
    }
}

fn start_intake(
    rows: RowStream,
    setup: &Setup,
    mailbox: &Mailbox,
    around: &Surroundings,
    conditions: &Conditions,
) -> std::io::Result<Thread> {
    let intake = intake::Setup {
        batch_rows: setup.writer.batch_rows,
        flush_interval: setup.writer.flush_interval,
        node: setup.node.clone(),
        mailbox: mailbox.clone(),
        stats: around.stats.clone(),
        metrics: setup.metrics.clone(),
        conditions: conditions.clone(),
        clock: setup.clock.clone(),
    };
    Thread::start("intake", move || intake::run(&rows, intake))
}

fn options(setup: &Setup) -> Options {
    let config::Spool { max_bytes, min_free, replay_window, replay_bytes } = setup.spool;
    Options {
        max_bytes,
        min_free,
        replay_window,
        replay_bytes,
        segment_bytes: SEGMENT_BYTES.min(max_bytes / 8).max(64 << 10),
        ring_bytes: RING_BYTES,
        boot: boot_id(),
        instance: setup.seed,
        clock: setup.clock.clone(),
    }
}

fn batch_limits(writer: &config::Writer) -> BatchLimits {
    let rows = u64::try_from(writer.batch_rows).unwrap_or(u64::MAX);
    BatchLimits { rows: rows.max(1), drain_rows: DRAIN_ROWS.max(rows), bytes: REQUEST_BYTES }
}

/// Returns the kernel's id of this boot; zeros where it cannot be read.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).map_or([0; 16], u128::to_be_bytes)
}

/// Longest time that a stop should wait for [`Store::run`] after cancelling its token.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

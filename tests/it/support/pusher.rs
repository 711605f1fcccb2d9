//! The oracle of the write path: pushes numbered rows to `/write` and keeps an fsynced journal of
//! what was acknowledged, outside the process under test.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use periscope::base::http::{Client, Limits};
use periscope::base::time::Clock;
use tokio::sync::Mutex;

/// Where the listener is; it moves when periscope restarts on another port.
pub type Address = Arc<Mutex<Option<String>>>;

/// How and what to push.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Clients at the same time, each with one request in flight.
    pub lanes: u64,
    /// Rows of one request.
    pub rows: u64,
    /// Time between two requests of a client.
    pub pause: Duration,
    /// Whether a client sometimes sends the very same request again until it is acknowledged, as
    /// a client with a retry does; otherwise it never does.
    pub repeat: bool,
    /// Characters by which each row is longer.
    pub padding: usize,
    /// Seed of what is repeated.
    pub seed: u64,
}

impl Load {
    /// 2,000 rows/s by four clients that repeat some of what was not acknowledged.
    pub const fn usual(seed: u64) -> Self {
        let pause = Duration::from_millis(200);
        Self { lanes: 4, rows: 100, pause, repeat: true, padding: 0, seed }
    }
}

/// What became of the rows, by their numbers.
#[derive(Debug, Default)]
pub struct Pushed {
    /// Answered 204: read back from the journal.
    pub acknowledged: BTreeSet<u64>,
    /// Answered 503 with the word that they are in memory only: they may be lost, but only counted.
    pub in_memory: BTreeSet<u64>,
    /// Rows that a request was begun for.
    pub sent: u64,
    /// Acknowledged rows a second, of the time in which there was a listener.
    pub rate: f64,
}

pub struct Pusher {
    shared: Arc<Shared>,
    lanes: Vec<tokio::task::JoinHandle<()>>,
}

struct Shared {
    address: Address,
    load: Load,
    stop: AtomicBool,
    next: AtomicU64,
    journal: Mutex<File>,
    acknowledged: AtomicU64,
    in_memory: Mutex<BTreeSet<u64>>,
    busy: Mutex<Duration>,
}

/// How a request ended.
#[derive(PartialEq)]
enum End {
    Acknowledged,
    InMemory,
    /// Nothing of it was taken.
    Refused,
    /// The rows may be there or not.
    Unknown,
}

impl Pusher {
    /// Pushes until [`Self::stop`].
    pub fn start(address: &Address, load: Load) -> Self {
        let shared = Arc::new(Shared {
            address: Arc::clone(address),
            load,
            stop: AtomicBool::new(false),
            next: AtomicU64::new(1),
            journal: Mutex::new(tempfile::tempfile().unwrap()),
            acknowledged: AtomicU64::new(0),
            in_memory: Mutex::default(),
            busy: Mutex::default(),
        });
        let lane = |lane| {
            let shared = Arc::clone(&shared);
            periscope::base::tasks::spawn_detached(async move { shared.run(lane).await })
        };
        let lanes = (0..load.lanes).map(lane).collect();
        Self { shared, lanes }
    }

    /// Rows acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    /// Number of the last row that a request was begun for.
    pub fn begun(&self) -> u64 {
        self.shared.next.load(Ordering::SeqCst) - 1
    }

    /// Stops and returns what became of all rows.
    pub async fn stop(self) -> Pushed {
        self.shared.stop.store(true, Ordering::SeqCst);
        for lane in self.lanes {
            lane.await.unwrap();
        }
        let mut text = String::new();
        let mut journal = self.shared.journal.lock().await;
        journal.rewind().unwrap();
        journal.read_to_string(&mut text).unwrap();
        let mut acknowledged = BTreeSet::new();
        for line in text.lines() {
            let (first, last) = line.split_once(' ').unwrap();
            acknowledged.extend(first.parse::<u64>().unwrap()..=last.parse().unwrap());
        }
        let busy = self.shared.busy.lock().await.as_secs_f64() / self.shared.load.lanes as f64;
        Pushed {
            rate: acknowledged.len() as f64 / busy.max(0.001),
            acknowledged,
            in_memory: std::mem::take(&mut *self.shared.in_memory.lock().await),
            sent: self.shared.next.load(Ordering::SeqCst) - 1,
        }
    }
}

impl Shared {
    async fn run(&self, lane: u64) {
        let client = Client::new().unwrap();
        let mut random = fastrand::Rng::with_seed(self.load.seed ^ lane);
        let mut tick = tokio::time::interval(self.load.pause);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stop.load(Ordering::SeqCst) {
            tick.tick().await;
            let Some(base) = self.address.lock().await.clone() else { continue };
            let start = Instant::now();
            let first = self.next.fetch_add(self.load.rows, Ordering::SeqCst);
            let body = self.body(lane, first);
            let is_repeated = self.load.repeat && random.bool();
            let mut end = send(&client, &base, &body).await;
            while is_repeated && end != End::Acknowledged && !self.stop.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let Some(base) = self.address.lock().await.clone() else { continue };
                end = send(&client, &base, &body).await;
            }
            let last = first + self.load.rows - 1;
            match end {
                End::Acknowledged => {
                    let mut journal = self.journal.lock().await;
                    writeln!(journal, "{first} {last}").unwrap();
                    journal.sync_data().unwrap();
                    self.acknowledged.fetch_add(self.load.rows, Ordering::SeqCst);
                }
                End::InMemory => self.in_memory.lock().await.extend(first..=last),
                End::Refused | End::Unknown => {}
            }
            *self.busy.lock().await += start.elapsed().max(self.load.pause);
        }
    }

    /// Lines whose every value follows from the number of the row.
    fn body(&self, lane: u64, first: u64) -> String {
        let now = Clock::system().now().nanos();
        let padding = "x".repeat(self.load.padding.min(250));
        let mut body = String::new();
        for offset in 0..self.load.rows {
            let seq = first + offset;
            let at = now + i64::try_from(offset).unwrap() * 1000;
            body.push_str(&format!(
                "pipeline_metrics,exchange=x{padding},symbol=lane{lane},data_type=push{padding},\
                 daemon=pusher,host=it,env=dev records_count={seq}i,bytes_written={}i {at}\n",
                checksum(seq)
            ));
        }
        body
    }
}

/// What `bytes_written` of row `seq` must be; [`WRONG_VALUES`] says the same in SQL.
fn checksum(seq: u64) -> u64 {
    seq * 2_654_435_761 % 4_294_967_296
}

/// Counts rows with another value than was pushed.
pub const WRONG_VALUES: &str = "select count() from pipeline_metrics where daemon = 'pusher' and \
                                bytes_written != (records_count * 2654435761) % 4294967296";

async fn send(client: &Client, base: &str, body: &str) -> End {
    let limits = Limits { time: Duration::from_secs(5), body: 1 << 20 };
    let request = hyper::Request::post(format!("{base}/write"))
        .body(http_body_util::Full::from(body.to_owned()))
        .unwrap();
    let Ok(answer) = client.send(request, limits).await else { return End::Unknown };
    let words = String::from_utf8_lossy(&answer.body).into_owned();
    match answer.status.as_u16() {
        204 => End::Acknowledged,
        503 if words.contains("not on disk") => End::InMemory,
        503 if words.contains("the queue before the spool is full") => End::Refused,
        503 => End::Unknown,
        status => panic!("{status}: {words}"),
    }
}

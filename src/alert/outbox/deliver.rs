//! The loop of one channel: picks, sends, marks.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::book::{Book, Entry};
use super::super::channel::{Channel, Failure};
use super::super::keeper::Keeper;
use super::super::message::Message;
use super::super::vitals::Beat;
use super::pick::{self, Pick};
use super::result;
use crate::base::metrics::{Delivery, Metrics};
use crate::base::time::{Clock, Timestamp};

/// Longest time that a channel gets for one message.
const SEND_LIMIT: Duration = Duration::from_secs(40);
/// Longest time that a message on its way gets once everything stops.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Longest time between two looks at the book.
const LOOK: Duration = Duration::from_secs(5);

/// The end of sending a message.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send + 'a>>;

/// Something that takes messages: a channel, or a test's stand-in for one.
pub trait Transport: Debug + Send + Sync {
    /// Name of its section in `[notify]`.
    fn name(&self) -> &'static str;

    /// Sends one message.
    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a>;
}

impl Transport for Channel {
    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn send<'a>(&'a self, message: &'a Message) -> Sending<'a> {
        Box::pin(Self::send(self, message))
    }
}

/// Called with an accepted message, the channel and the time.
pub type OnDelivered = Arc<dyn Fn(&Entry, &'static str, Timestamp) + Send + Sync>;

/// What the loops of all channels share.
#[derive(Clone)]
pub struct Shared {
    /// The book.
    pub keeper: Keeper,
    /// Names of all channels, in order of preference.
    pub channels: Arc<[&'static str]>,
    /// Time.
    pub clock: Clock,
    /// Deliveries are counted here.
    pub metrics: Metrics,
    /// Called for every accepted message.
    pub on_delivered: OnDelivered,
}

impl Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("channels", &self.channels).finish_non_exhaustive()
    }
}

/// Sends what is to be sent through `transport` until `stop`; a message on its way is finished.
pub async fn run(
    transport: Arc<dyn Transport>,
    shared: Shared,
    beat: Beat,
    stop: CancellationToken,
) {
    let name = transport.name();
    let mut view = shared.keeper.watch();
    let mut last = None;
    let mut random = fastrand::Rng::new();
    loop {
        let now = shared.clock.now();
        beat.now();
        view.mark_unchanged();
        let wait = match pick::pick(&shared.keeper.book(), name, last, now) {
            _ if stop.is_cancelled() => return,
            Pick::Send(number) => {
                let Some(number) = digested(&shared, name, number).await else { return };
                send(&*transport, &shared, number, random.f64(), &stop).await;
                last = Some(shared.clock.now());
                continue;
            }
            Pick::Wait(wait) => wait.min(LOOK),
            Pick::Nothing => LOOK,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = view.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Makes a digest of what waits for `channel` if that is due; returns what to send then.
async fn digested(shared: &Shared, channel: &'static str, number: u64) -> Option<u64> {
    if pick::digest(&shared.keeper.book(), channel, shared.clock.now()).is_empty() {
        return Some(number);
    }
    let now = shared.clock.now();
    let decide = move |book: &Book| (pick::digest(book, channel, now), book.next);
    shared.keeper.change(decide).await
}

async fn send(
    transport: &dyn Transport,
    shared: &Shared,
    number: u64,
    jitter: f64,
    stop: &CancellationToken,
) {
    let name = transport.name();
    let book = shared.keeper.book();
    let Some(entry) = book.entries.get(&number) else { return };
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_LIMIT).await;
    };
    let sent = tokio::select! {
        sent = tokio::time::timeout(SEND_LIMIT, transport.send(&entry.message)) => sent,
        // Not marked: it is sent at the next start, under the same id.
        () = late => return,
    };
    let result = sent.unwrap_or_else(|_elapsed| {
        let reason = format!("no end of the delivery within {SEND_LIMIT:?}");
        Err(Failure::Later { reason, after: None })
    });
    let now = shared.clock.now();
    let word = match &result {
        Ok(()) => "delivered",
        Err(Failure::Later { .. }) => "retried",
        Err(Failure::Never { .. }) => "refused",
    };
    let labels = Delivery { channel: name, result: word };
    shared.metrics.alert_deliveries.get_or_create(&labels).inc();
    match &result {
        Ok(()) => {
            tracing::info!(channel = name, id = %entry.message.id, title = %entry.message.title, "message delivered");
            (shared.on_delivered)(entry, name, now);
        }
        Err(failure) => {
            tracing::warn!(channel = name, id = %entry.message.id, reason = %failure, "message not delivered");
        }
    }
    let channels = Arc::clone(&shared.channels);
    let decide =
        move |book: &Book| (result::ended(book, number, name, &result, &channels, jitter, now), ());
    shared.keeper.change(decide).await;
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::super::book::{AlertRef, Change, Route};
    use super::super::super::message::Kind;
    use super::*;
    use crate::base::files::Files;
    use crate::base::files::memory::MemoryFiles;
    use crate::base::tasks::{OnPanic, Tasks};
    use crate::model::severity::Severity;

    /// Accepts, refuses or fails as its seed says; keeps what it accepted.
    #[derive(Debug)]
    struct Fake {
        name: &'static str,
        random: Mutex<fastrand::Rng>,
        failing: u8,
        accepted: Arc<Mutex<Vec<String>>>,
        /// The program was killed: nothing it does has an effect any more.
        dead: Arc<AtomicBool>,
    }

    impl Transport for Fake {
        fn name(&self) -> &'static str {
            self.name
        }

        fn send<'a>(&'a self, message: &'a Message) -> Sending<'a> {
            Box::pin(async move {
                tokio::task::yield_now().await;
                if self.dead.load(Ordering::SeqCst) {
                    return std::future::pending().await;
                }
                let dice = self.random.lock().unwrap().u8(0..100);
                if dice < self.failing {
                    let after = dice.is_multiple_of(3).then_some(Duration::from_millis(20));
                    return Err(Failure::Later { reason: "500".to_owned(), after });
                }
                self.accepted.lock().unwrap().push(message.title.clone());
                Ok(())
            })
        }
    }

    fn entry(number: i64, key: &str, firing: bool) -> Entry {
        let severity = if number % 3 == 0 { Severity::Critical } else { Severity::Warning };
        let message = Message {
            id: format!("{number:06}"),
            kind: Kind::Firing,
            severity,
            title: format!("{key} {number}"),
            facts: Vec::new(),
            advice: None,
            link: None,
            children: Vec::new(),
            at: Clock::system().now(),
        };
        let key = key.to_owned();
        let alerts = vec![AlertRef {
            key: key.clone(),
            rule: String::new(),
            summary: key,
            severity,
            firing,
        }];
        Entry { message, alerts, routes: vec![Route::new("a"), Route::new("b")] }
    }

    /// Kills and starts again on what the journal holds at that moment.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_message_arrives_in_order_over_failures_and_kills() {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
        println!("SEED={seed}");
        let mut files = MemoryFiles::default();
        let accepted = [Arc::<Mutex<Vec<String>>>::default(), Arc::default()];
        let mut total = 0;
        for round in 0..8 {
            let disk: Arc<dyn Files> = Arc::new(files.clone());
            let dead = Arc::new(AtomicBool::new(false));
            let (keeper, found) =
                Keeper::open(disk, Path::new("/data/journal"), Clock::system(), 1);
            assert_eq!(found.aside, None);
            let stop = CancellationToken::new();
            let tasks = Tasks::new(CancellationToken::new());
            let shared = Shared {
                keeper: keeper.clone(),
                channels: Arc::from(["a", "b"]),
                clock: Clock::system(),
                metrics: Metrics::new(),
                on_delivered: Arc::new(|_, _, _| {}),
            };
            for (index, name) in ["a", "b"].into_iter().enumerate() {
                let random = Mutex::new(fastrand::Rng::with_seed(seed + round * 2));
                let failing = if round == 7 { 0 } else { 30 };
                let accepted = Arc::clone(&accepted[index]);
                let dead = Arc::clone(&dead);
                let fake: Arc<dyn Transport> =
                    Arc::new(Fake { name, random, failing, accepted, dead });
                let beat = Beat::new(Clock::system());
                let run = run(fake, shared.clone(), beat, stop.clone());
                tasks.spawn("channel", OnPanic::Log, run);
            }
            for _ in 0..10 {
                total += 1;
                let key = format!("alert {}", total % 9);
                let entry = entry(total, &key, total % 2 == 0);
                let decide = move |book: &Book| {
                    let (number, entry) = (book.next, Some(Box::new(entry)));
                    (vec![Change::Entry { number, entry }], ())
                };
                keeper.change(decide).await.unwrap();
            }
            if round == 7 {
                let mut view = keeper.watch();
                let done = view.wait_for(|view| view.book.entries.is_empty());
                tokio::time::timeout(Duration::from_secs(120), done).await.unwrap().unwrap();
            } else {
                tokio::time::sleep(Duration::from_millis(60)).await;
            }
            dead.store(true, Ordering::SeqCst);
            files = files.copy();
            stop.cancel();
            assert!(tasks.join(Duration::from_secs(60)).await.is_empty());
        }
        for accepted in &accepted {
            let mut accepted = accepted.lock().unwrap().clone();
            let unique: std::collections::BTreeSet<String> = accepted.iter().cloned().collect();
            assert_eq!(unique.len(), usize::try_from(total).unwrap(), "all arrived");
            // At most the one that was on its way at each kill came twice.
            let doubled = accepted.len() - unique.len();
            println!("{doubled} of {total} twice over 7 kills");
            assert!(doubled <= 7, "{doubled}");
            let mut seen = std::collections::BTreeSet::new();
            accepted.retain(|title| seen.insert(title.clone()));
            for key in 0..9 {
                let prefix = format!("alert {key} ");
                let numbers: Vec<u32> = accepted
                    .iter()
                    .filter_map(|title| title.strip_prefix(&prefix)?.parse().ok())
                    .collect();
                assert!(numbers.is_sorted(), "{prefix}: {numbers:?}");
            }
        }
    }
}

//! Daemons that push their status document instead of being polled: the same mapping, limits and
//! rows, and a row about every interval in which nothing came.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::fetch;
use super::json::Document;
use super::mapping::Mapper;
use super::record::{Poll, Series, Sink};
use crate::base::time::Timestamp;
use crate::config::{self, Source, defaults};
use crate::model::observation::{Failure, FailureReason, PushRefusal};
use crate::store::queue::PushError;

/// Intervals without a document after which a daemon counts as unreachable.
const SILENT_INTERVALS: u32 = 3;
/// Most daemons that are listed because they push.
const MAX_DAEMONS: usize = 1_000;
/// Longest name of a daemon, characters.
const NAME_CHARS: usize = 255;
/// How often silence is looked for, at most.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// One daemon that pushes.
#[derive(Debug)]
struct Pusher {
    series: Series,
    interval: Duration,
    /// When the last document came or, before the first one, when the daemon was listed.
    heard: Instant,
    /// Whether there ever was a document.
    is_known: bool,
    /// When its silence was last written down.
    noted: Option<Instant>,
    /// Time of the last row.
    last_at: Timestamp,
}

type Pushers = BTreeMap<Arc<str>, Arc<AsyncMutex<Pusher>>>;

/// Takes documents of all daemons that push; clones share them.
#[derive(Debug, Clone)]
pub struct Pushes {
    sink: Sink,
    pushers: Arc<Mutex<Pushers>>,
    /// How the documents of configured daemons are read.
    mappers: Arc<BTreeMap<String, Mapper>>,
    /// Largest document, bytes.
    limit: usize,
}

impl Pusher {
    fn new(name: &Arc<str>, interval: Duration, mapper: &Mapper, sink: &Sink) -> Self {
        Self {
            series: Series::new(name, mapper, &sink.metrics),
            interval,
            heard: Instant::now(),
            is_known: false,
            noted: None,
            last_at: Timestamp::EPOCH,
        }
    }

    /// Returns the time of the next row. It rises: rows of equal time would replace each other.
    fn next_at(&mut self, now: Timestamp) -> Timestamp {
        self.last_at = now.max(self.last_at.plus(Duration::from_micros(1)));
        self.last_at
    }

    /// Returns for how long nothing has come, when that is to be written down at `now`: from three
    /// intervals on, once every interval.
    fn silence(&self, now: Instant) -> Option<Duration> {
        let silence = now.saturating_duration_since(self.heard);
        let is_silent = silence >= self.interval.saturating_mul(SILENT_INTERVALS);
        let since_noted = self.noted.map(|noted| now.saturating_duration_since(noted));
        let is_due = since_noted.is_none_or(|since| since >= self.interval);
        (is_silent && is_due).then_some(silence)
    }
}

impl Pushes {
    /// Lists the configured daemons that push; documents have at most `limit` bytes.
    pub(super) fn new(sink: Sink, daemons: &[config::Daemon], limit: usize) -> Self {
        let mut pushers = Pushers::new();
        let mut mappers = BTreeMap::new();
        for daemon in daemons.iter().filter(|daemon| daemon.source == Source::Push) {
            let name = Arc::from(daemon.name.as_str());
            let mapper = Mapper::new(daemon.map.as_ref());
            let pusher = Pusher::new(&name, daemon.interval, &mapper, &sink);
            mappers.insert(daemon.name.clone(), mapper);
            pushers.insert(name, Arc::new(AsyncMutex::new(pusher)));
        }
        Self { sink, pushers: Arc::new(Mutex::new(pushers)), mappers: Arc::new(mappers), limit }
    }

    /// Stores a document that daemon `name` has pushed; its rows are on disk when this returns.
    ///
    /// # Errors
    /// See [`PushRefusal`]; then nothing is stored, and the same document may be pushed again.
    pub async fn take(&self, name: &str, body: Bytes) -> Result<(), PushRefusal> {
        if body.len() > self.limit {
            return Err(PushRefusal::TooLarge(format!(
                "the document has {} bytes: send at most {}, or raise collect.max_document",
                body.len(),
                self.limit
            )));
        }
        let now = self.sink.now();
        let mapper = self.mappers.get(name).cloned().unwrap_or_default();
        let read = tokio::task::spawn_blocking(move || check(&body, &mapper, now)).await;
        let document = read.map_err(|error| {
            tracing::error!(%error, "read a pushed document");
            PushRefusal::Unavailable("reading the document failed, see periscope's log".to_owned())
        })??;
        let pusher = self.pusher(name)?;
        // Held until the rows are on disk: documents of one daemon stay in order.
        let mut pusher = pusher.lock().await;
        let at = pusher.next_at(self.sink.now());
        let poll = Poll {
            at,
            document: Ok(document),
            poll_ms: None,
            event_loop_lag_ms: None,
            process: None,
            waits: false,
        };
        let seen = self.sink.observe(&mut pusher.series, poll);
        self.sink
            .queue
            .push_durable(self.sink.rows(&seen))
            .await
            .map_err(|error| refusal(&error))?;
        pusher.heard = Instant::now();
        pusher.is_known = true;
        pusher.noted = None;
        self.sink.note(&seen);
        Ok(())
    }

    /// Returns the daemon `name`, which is listed now if it was not.
    fn pusher(&self, name: &str) -> Result<Arc<AsyncMutex<Pusher>>, PushRefusal> {
        let mut pushers = self.pushers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pusher) = pushers.get(name) {
            return Ok(Arc::clone(pusher));
        }
        check_name(name)?;
        if pushers.len() >= MAX_DAEMONS {
            return Err(PushRefusal::Unavailable(format!(
                "{MAX_DAEMONS} daemons push already: use one of their names, or restart periscope \
                 to forget those that ended"
            )));
        }
        let (name, interval) = (Arc::from(name), defaults::PUSH_INTERVAL);
        self.sink.directory.claim(&name, "push", interval).map_err(|source| {
            PushRefusal::Taken(format!(
                "{name} is the name of a daemon with source = \"{source}\": push under another \
                 name, or set source = \"push\" for it"
            ))
        })?;
        tracing::info!(daemon = &*name, "daemon pushes");
        let pusher =
            Arc::new(AsyncMutex::new(Pusher::new(&name, interval, &Mapper::default(), &self.sink)));
        pushers.insert(name, Arc::clone(&pusher));
        Ok(pusher)
    }

    /// Writes down the silence of daemons until `stop`.
    pub(super) fn watch(&self, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        let this = self.clone();
        async move {
            let mut ticks = tokio::time::interval(this.shortest().min(WATCH_INTERVAL));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => this.note_silence(Instant::now()),
                }
            }
        }
    }

    /// Returns the shortest interval of any daemon, halved.
    fn shortest(&self) -> Duration {
        let pushers = self.pushers.lock().unwrap_or_else(PoisonError::into_inner);
        let free = pushers.values().filter_map(|pusher| Some(pusher.try_lock().ok()?.interval));
        free.min().map_or(WATCH_INTERVAL, |interval| interval / 2)
    }

    fn note_silence(&self, now: Instant) {
        let pushers: Vec<_> = {
            let pushers = self.pushers.lock().unwrap_or_else(PoisonError::into_inner);
            pushers.values().cloned().collect()
        };
        for pusher in pushers {
            // One that is held is just taking a document.
            let Ok(mut pusher) = pusher.try_lock() else { continue };
            let Some(silence) = pusher.silence(now) else { continue };
            pusher.noted = Some(now);
            let words = format!(
                "nothing was pushed for {} s, {SILENT_INTERVALS} times the interval or more",
                silence.as_secs()
            );
            let at = pusher.next_at(self.sink.now());
            let failure = Failure::new(FailureReason::Silent, words);
            let waits = !pusher.is_known;
            self.sink.record(&mut pusher.series, Poll { waits, ..Poll::failed(at, failure) });
        }
    }
}

/// Reads a document; only one that is a status is worth a row.
fn check(body: &[u8], mapper: &Mapper, now: Timestamp) -> Result<Document, PushRefusal> {
    let document =
        fetch::read(body).map_err(|failure| PushRefusal::Invalid(failure.to_string()))?;
    if mapper.status(&document.value, now).is_none() {
        return Err(PushRefusal::Invalid(format!("bad_document: {}", mapper.no_status())));
    }
    Ok(document)
}

fn check_name(name: &str) -> Result<(), PushRefusal> {
    let length = name.chars().count();
    if (1..=NAME_CHARS).contains(&length) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let words = "the daemon's name has 1 to 255 characters, none of them a control character";
    Err(PushRefusal::Invalid(words.to_owned()))
}

fn refusal(error: &PushError) -> PushRefusal {
    match error {
        PushError::Full | PushError::Closed | PushError::NotDurable(_) => {
            PushRefusal::Unavailable(error.to_string())
        }
        // The times are this machine's own: its clock is wrong.
        PushError::Invalid(rows) => {
            let reason = rows.first().map(|(_, reason)| reason.to_string()).unwrap_or_default();
            PushRefusal::Unavailable(format!("{reason}; is this machine's clock right?"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::metrics::Metrics;
    use crate::base::tasks::spawn_detached;
    use crate::base::time::Clock;
    use crate::collect::directory::Directory;
    use crate::collect::rows::Tags;
    use crate::config::Node;
    use crate::model::row::{Row, Value};
    use crate::store::queue::{self, Entry, Next, RowStream};

    const NOW: Timestamp = Timestamp::from_millis(1_795_492_800_000);
    const DOCUMENT: &[u8] = br#"{"running": true, "fetch_count": 3}"#;

    fn pushes(daemons: &[config::Daemon]) -> (Pushes, RowStream) {
        let metrics = Metrics::new();
        let (queue, stream) = queue::channel(1_000, &metrics);
        let sink = Sink {
            clock: Clock::fixed(NOW),
            directory: Directory::default(),
            metrics,
            queue,
            tags: Tags::of(&Node { host: "vps-1".into(), env: "dev".into() }),
            peaks: crate::collect::peaks::Peaks::default(),
        };
        for daemon in daemons {
            sink.directory.expect(&daemon.name.as_str().into(), "push", daemon.interval);
        }
        (Pushes::new(sink, daemons, 1_000), stream)
    }

    fn configured(name: &str) -> config::Daemon {
        let interval = Duration::from_secs(10);
        config::Daemon {
            name: name.into(),
            source: Source::Push,
            interval,
            timeout: interval,
            map: None,
        }
    }

    fn entries(stream: &RowStream) -> Vec<Entry> {
        match stream.next(Duration::from_secs(10)) {
            Next::Rows(entries) => entries,
            Next::Nothing | Next::Ended => Vec::new(),
        }
    }

    /// Takes pushed rows as the store does, `answer` for everybody.
    async fn push(
        pushes: &Pushes,
        stream: RowStream,
        name: &'static str,
        answer: Result<(), PushError>,
    ) -> (Result<(), PushRefusal>, Vec<Row>, RowStream) {
        let store = tokio::task::spawn_blocking(move || {
            let mut rows = Vec::new();
            for entry in entries(&stream) {
                rows.extend(entry.rows);
                entry.done.unwrap().send(answer.clone()).unwrap();
            }
            (rows, stream)
        });
        let pushes = pushes.clone();
        let pushed =
            spawn_detached(async move { pushes.take(name, Bytes::from_static(DOCUMENT)).await });
        let (rows, stream) = store.await.unwrap();
        (pushed.await.unwrap(), rows, stream)
    }

    #[tokio::test]
    async fn a_pushed_document_is_up_only_once_it_is_durable() {
        let (pushes, stream) = pushes(&[]);
        let failed = Err(PushError::NotDurable("disk".into()));
        let (refused, _, stream) = push(&pushes, stream, "collector", failed).await;
        assert!(matches!(refused, Err(PushRefusal::Unavailable(_))), "{refused:?}");
        assert_eq!(pushes.sink.directory.report()[0].state, "waiting");
        let (taken, first, stream) = push(&pushes, stream, "collector", Ok(())).await;
        let (_, second, _) = push(&pushes, stream, "collector", Ok(())).await;
        taken.unwrap();
        assert_eq!(*first[0].get("fetch_count"), Value::Long(3));
        assert!(second[0].at > first[0].at, "the clock stands, the times rise");
        let report = pushes.sink.directory.report();
        assert_eq!((report[0].state.as_str(), report[0].source.as_str()), ("up", "push"));
        assert_eq!(report[0].interval_seconds, 60.0);
        assert_eq!(report[0].status.as_ref().unwrap()["fetch_count"], 3);
    }

    #[tokio::test]
    async fn what_is_no_status_is_refused_and_leaves_no_daemon() {
        let (pushes, _stream) = pushes(&[]);
        for (body, word) in [
            (&b"{"[..], "not_json"),
            (b"", "empty"),
            (b"<html>", "html"),
            (b"{\"x\": 1}", "bad_document"),
            (b"[1]", "bad_document"),
        ] {
            match pushes.take("a", Bytes::from_static(body)).await {
                Err(PushRefusal::Invalid(words)) => assert!(words.starts_with(word), "{words}"),
                other => panic!("{other:?}"),
            }
        }
        let large = Bytes::from(vec![b' '; 1_001]);
        assert!(matches!(pushes.take("a", large).await, Err(PushRefusal::TooLarge(_))));
        let named = pushes.take("a\u{7}", Bytes::from_static(DOCUMENT)).await;
        assert!(matches!(named, Err(PushRefusal::Invalid(_))), "{named:?}");
        assert_eq!(pushes.sink.directory.report(), []);
        pushes.sink.directory.expect(&"ccxt".into(), "http", Duration::from_secs(5));
        match pushes.take("ccxt", Bytes::from_static(DOCUMENT)).await {
            Err(PushRefusal::Taken(words)) => assert!(words.contains("\"http\""), "{words}"),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn silence_is_a_row_every_interval_from_the_third_on() {
        let (pushes, stream) = pushes(&[configured("never"), configured("once")]);
        let (taken, _, stream) = push(&pushes, stream, "once", Ok(())).await;
        taken.unwrap();
        let start = Instant::now();
        let silent = |second: u64| {
            pushes.note_silence(start + Duration::from_secs(second));
            let rows = match stream.next(Duration::ZERO) {
                Next::Rows(entries) => entries.into_iter().flat_map(|entry| entry.rows).collect(),
                Next::Nothing | Next::Ended => Vec::<Row>::new(),
            };
            rows.iter().for_each(|row| assert_eq!(*row.get("poll_error"), Value::from("silent")));
            rows.len()
        };
        assert_eq!([29, 31, 35, 40, 42].map(silent), [0, 2, 0, 0, 2]);
        let report = pushes.sink.directory.report();
        let state = |index: usize| (report[index].name.clone(), report[index].state.clone());
        assert_eq!(state(0), ("never".into(), "waiting".into()));
        assert_eq!(state(1), ("once".into(), "unreachable".into()));
        assert!(report[1].status.is_some(), "the last document stays");
    }
}

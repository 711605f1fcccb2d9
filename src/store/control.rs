//! Opens the gate for rows when the server is ready, and watches it while it is open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::conditions::{Conditions, Source};
use super::deliver::Gate;
use super::exec::{ExecError, Target};
use super::spool::thread::Mailbox;
use super::stats::Stats;
use super::tables::Tables;
use super::wal::{self, Watch};
use crate::base::http::Client;
use crate::base::metrics::{Metrics, Table};
use crate::base::time::Clock;
use crate::model::server::{Phase, ServerState};

/// How often the server's volume is looked at, and failed checks are repeated.
const TICK: Duration = Duration::from_secs(5);
/// How often tables are watched.
const WATCH: Duration = Duration::from_secs(10);
/// How often tables are compared with what is declared.
const COMPARE: Duration = Duration::from_secs(15);
/// Free space on the server's volume below which nothing is sent: a full disk ends the server.
const SERVER_FREE_BYTES: u64 = 512 << 20;

/// What the control works with.
#[derive(Debug)]
pub struct Control {
    /// The gate.
    pub gate: watch::Sender<Gate>,
    /// State of the tables.
    pub tables: Tables,
    /// The spool.
    pub mailbox: Mailbox,
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
    /// The data folder: a server of ours has its root on the same volume.
    pub data_dir: PathBuf,
    /// Whether what was delivered last has to be sent again at first.
    pub replay: bool,
}

/// The server as it was last let in.
struct Admitted {
    generation: u64,
    target: Arc<Target>,
}

/// What is looked at again and again, and when it was last.
struct Rounds {
    watch: Watch,
    watched: Instant,
    compared: Instant,
    /// Of which server, and when. Views are no reason to let rows wait, so they are looked at after
    /// the gate has opened.
    viewed: Option<(u64, Instant)>,
}

impl Rounds {
    fn new() -> Self {
        let now = Instant::now();
        Self { watch: Watch::default(), watched: now, compared: now, viewed: None }
    }
}

impl Control {
    /// Runs until the sender of `server` is gone, and then waits for ever: what is in the spool
    /// stays there.
    pub async fn run(mut self, mut server: watch::Receiver<ServerState>) {
        let mut admitted: Option<Admitted> = None;
        let mut rounds = Rounds::new();
        loop {
            let state = server.borrow_and_update().clone();
            self.regulate(&state, &mut admitted).await;
            if let Some(Admitted { target, .. }) = admitted.as_ref().filter(|_| self.is_open()) {
                self.look_after(&mut rounds, target, &state).await;
            }
            self.conditions.publish();
            tokio::select! {
                changed = server.changed() => if changed.is_err() {
                    self.close("nothing watches questdb any longer".to_owned());
                    std::future::pending::<()>().await;
                },
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Looks at tables and views of a server that takes rows, each as often as it is due.
    async fn look_after(&self, rounds: &mut Rounds, target: &Target, state: &ServerState) {
        let told = |result: Result<(), ExecError>, what: &str| {
            if let Err(error) = result {
                tracing::debug!(%error, "{what}");
            }
        };
        if rounds.watched.elapsed() >= WATCH {
            rounds.watched = Instant::now();
            self.watch_tables(&mut rounds.watch, target, state).await;
            let looked = self.tables.look_for_others(target, &self.client).await;
            told(looked, "tables could not be looked at");
        }
        if rounds.compared.elapsed() >= COMPARE {
            rounds.compared = Instant::now();
            let checked = self.tables.check_again(target, &self.client).await;
            told(checked, "tables could not be checked");
        }
        let is_due = rounds.viewed.is_none_or(|(generation, at)| {
            generation != state.generation || at.elapsed() >= COMPARE
        });
        if is_due {
            let checked = self.tables.check_views(target, &self.client).await;
            rounds.viewed = checked.is_ok().then(|| (state.generation, Instant::now()));
            told(checked, "views could not be checked");
        }
    }

    fn is_open(&self) -> bool {
        self.gate.borrow().target.is_some()
    }

    /// Opens or closes the gate as `state` asks for.
    async fn regulate(&mut self, state: &ServerState, admitted: &mut Option<Admitted>) {
        let Some(endpoint) = state.ready() else {
            self.close(absence(state));
            return;
        };
        if let Some(reason) = no_room(state, &self.data_dir) {
            self.close(reason);
            return;
        }
        let is_same = admitted.as_ref().is_some_and(|admitted| {
            admitted.generation == state.generation && admitted.target.endpoint == *endpoint
        });
        if !is_same {
            self.close("checks the tables of questdb".to_owned());
            let target = match Target::new(endpoint) {
                Ok(target) => Arc::new(target),
                Err(error) => {
                    self.close(error.to_string());
                    return;
                }
            };
            let made = match self.tables.check_all(&target, &self.client).await {
                Ok(made) => made,
                Err(error) => {
                    self.close(format!("cannot check the tables: {error}"));
                    return;
                }
            };
            // Another process may have lost what it had not brought to its disk, and another
            // database never had it.
            if admitted.is_some() || self.replay || made {
                self.mailbox.replay().await;
            }
            self.replay = false;
            *admitted = Some(Admitted { generation: state.generation, target });
        }
        if let Some(admitted) = admitted {
            self.open(&admitted.target);
        }
    }

    fn open(&self, target: &Arc<Target>) {
        let changed = self.gate.send_if_modified(|gate| {
            let is_same = gate.target.as_ref().is_some_and(|known| Arc::ptr_eq(known, target));
            gate.target = Some(Arc::clone(target));
            !is_same
        });
        if changed {
            tracing::info!(http = %target.endpoint.http, "rows are sent to questdb");
            self.conditions.set(Source::Gate, None);
        }
    }

    fn close(&self, reason: String) {
        self.gate.send_if_modified(|gate| gate.target.take().is_some());
        self.stats.unseen();
        self.conditions.set(Source::Gate, Some(reason));
    }

    /// Looks whether accepted rows become visible.
    async fn watch_tables(&self, watch: &mut Watch, target: &Target, state: &ServerState) {
        let asked = Instant::now();
        let tables = match wal::look(target, &self.client).await {
            Ok(tables) => tables,
            Err(error) => {
                self.stats.unseen();
                tracing::debug!(%error, "wal_tables() could not be read");
                return;
            }
        };
        let lag = tables.iter().map(wal::WalTable::lag).fold(0, u64::saturating_add);
        self.stats.looked(asked.elapsed(), lag);
        for table in &tables {
            let label = Table { table: table.name };
            let lag = i64::try_from(table.lag()).unwrap_or(i64::MAX);
            self.metrics.wal_lag.get_or_create(&label).set(lag);
            self.metrics.wal_suspended.get_or_create(&label).set(table.suspended.into());
        }
        let has_space = no_room(state, &self.data_dir).is_none();
        let judged = watch.judge(&tables, self.clock.now(), Instant::now(), has_space);
        for statement in &judged.statements {
            match target.exec(&self.client, statement).await {
                Ok(_) => tracing::info!(%statement, "table resumed after its disk was full"),
                Err(error) => tracing::warn!(%statement, %error, "table cannot be resumed"),
            }
        }
        let reason = Some(judged.reasons.join("; ")).filter(|reason| !reason.is_empty());
        self.conditions.set(Source::Wal, reason);
    }
}

/// Says what delivery waits for.
fn absence(state: &ServerState) -> String {
    let phase = match state.phase {
        Phase::Absent => "is not there",
        Phase::Downloading => "is being downloaded",
        Phase::Starting => "is starting",
        Phase::Ready => "has no address",
        Phase::Unhealthy => "does not answer",
        Phase::Stopping => "is stopping",
        Phase::Backoff => "has ended and is started again in a moment",
        Phase::Broken => "ends again and again",
    };
    if state.reason.is_empty() {
        format!("questdb {phase}; rows wait in the spool")
    } else {
        format!("questdb {phase}: {}; rows wait in the spool", state.reason)
    }
}

/// Says why nothing may be sent to a server of ours for want of space; `None`: there is enough, or
/// it cannot be told, as with a remote server.
fn no_room(state: &ServerState, data_dir: &Path) -> Option<String> {
    state.pid?;
    let root = data_dir.join("questdb");
    let volume = if root.exists() { root } else { data_dir.to_owned() };
    let figures = rustix::fs::statvfs(&volume).ok()?;
    let free = figures.f_bavail.saturating_mul(figures.f_frsize);
    (free < SERVER_FREE_BYTES).then(|| {
        format!(
            "less than 512 MiB are free on the volume of {}, and a full disk would end questdb; \
             rows wait in the spool: free some space",
            volume.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_delivery_waits_for_is_told() {
        let state = ServerState { reason: "port taken".into(), ..ServerState::absent() };
        assert_eq!(absence(&state), "questdb is not there: port taken; rows wait in the spool");
        assert_eq!(no_room(&state, Path::new("/")), None);
        let ours = ServerState { pid: Some(1), ..state };
        assert_eq!(no_room(&ours, Path::new("/does/not/exist")), None);
    }
}

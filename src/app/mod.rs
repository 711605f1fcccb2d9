//! Builds all parts, starts them, waits, drains. The only folder that knows every part.

mod alerts;
mod banner;
mod bot;
mod dashboards;
mod report;
mod simulator;
mod viewer;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::report::Reporter;
use crate::alert::channel::channels;
use crate::alert::engine::memory::Inbox;
use crate::base::files::lock::DataLock;
use crate::base::health::Board;
use crate::base::http::Client;
use crate::base::metrics::Metrics;
use crate::base::tasks::{OnPanic, StopSignals, Tasks};
use crate::base::time::Clock;
use crate::cli::exit::{Exit, Failure};
use crate::cli::instance::Instance;
use crate::cli::output;
use crate::collect::host::HostWatch;
use crate::config::{self, Config};
use crate::grafana::server::live::Live;
use crate::model::server::ServerState;
use crate::store::queue::RowQueue;
use crate::supervise::spawner::Spawner;
use crate::{collect, rules, store, supervise, web};

/// Longest wait for poll loops and listener to end.
const GRACE_SOURCES: Duration = Duration::from_secs(5);
/// Longest wait for a message on its way; what is not marked by then is sent again.
const GRACE_ALERTS: Duration = Duration::from_secs(5);
/// Longest further delivery after the sources have ended; the rest waits on disk.
const GRACE_DELIVERY: Duration = Duration::from_secs(3);
/// Longest wait for the last records to reach the disk.
const GRACE_SPOOL: Duration = Duration::from_secs(10);
/// Longest wait for the end of the children; `supervise` kills before that.
const GRACE_CHILDREN: Duration = Duration::from_secs(40);
/// Time between two rows of `system_health`.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);

/// Runs periscope with `config` until it is asked to stop; `live` is what the dev loop looks at.
///
/// # Errors
/// The data folder is in use or cannot be written ([`Exit::CannotCreate`]); the listener's port is
/// taken; a part that nothing works without cannot start.
pub fn run(config: Config, live: Option<Live>) -> anyhow::Result<Exit> {
    prepare(&config.data_dir)?;
    let lock = DataLock::acquire(&config.data_dir)
        .map_err(|error| Failure::error(Exit::CannotCreate, error.to_string()))?;
    // Before the runtime's threads: the child's parent must be a thread that never ends.
    let spawner = supervise::spawner::start().context("start the thread that forks")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_name("periscope")
        .enable_all()
        .build()
        .context("start the runtime")?;
    let exit = runtime.block_on(serve(config, live, spawner));
    // A blocking call that still hangs (a dead disk) must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(lock);
    exit
}

/// Makes the data folder and its `run/`, closed to other users.
fn prepare(data_dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    for folder in [data_dir.to_owned(), data_dir.join("run")] {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(
            |error| {
                Failure::error(
                    Exit::CannotCreate,
                    format!(
                        "create the data folder {}: {error}; name a writable one with --data-dir",
                        folder.display()
                    ),
                )
            },
        )?;
    }
    Ok(())
}

/// Everything that runs, in the groups in which it stops.
struct Running {
    /// What makes rows: poll loops, health rows, listener.
    sources: Tasks,
    /// What evaluates rules and sends messages.
    alerts: Tasks,
    /// What takes rows to the database.
    store: Tasks,
    /// The children.
    children: Tasks,
    /// Ends the delivery of what is on disk already.
    stop_delivery: CancellationToken,
}

/// What every part is made with.
#[derive(Debug, Clone)]
struct Shared {
    config: Config,
    clock: Clock,
    metrics: Metrics,
    board: Board,
    client: Client,
    seed: u64,
}

impl Shared {
    fn new(config: Config) -> anyhow::Result<Self> {
        let clock = Clock::system();
        Ok(Self {
            config,
            metrics: Metrics::new(),
            board: Board::new(clock.clone()),
            client: Client::new().context("set up the HTTP client")?,
            seed: u64::try_from(clock.now().nanos()).unwrap_or(1),
            clock,
        })
    }
}

async fn serve(config: Config, live: Option<Live>, spawner: Spawner) -> anyhow::Result<Exit> {
    // Before anything starts: a signal in the first moments must stop in order too.
    let mut signals = StopSignals::install().context("take over the stop signals")?;
    let shared = Shared::new(config)?;
    let started_at = shared.clock.now();
    let fatal = CancellationToken::new();
    let tasks = || Tasks::new(fatal.clone());
    let running = Running {
        sources: tasks(),
        alerts: tasks(),
        store: tasks(),
        children: tasks(),
        stop_delivery: CancellationToken::new(),
    };

    let listener = web::task::bind(&shared.config.listen)
        .map_err(|error| Failure::error(Exit::CannotCreate, error.to_string()))?;
    let address = listener.local_addr().context("read the listener's address")?;
    let store = open_store(&shared).await?;
    let rules = rules::of(&shared.config)
        .map_err(|problems| Failure::error(Exit::Config, problems.to_string()))?;
    let inbox = Inbox::new(&rules);
    let tapped = inbox.clone();
    let (queue, rows) = store::queue::tapped(
        shared.config.writer.queue_rows,
        &shared.metrics,
        Arc::new(move |rows| tapped.put(rows)),
    );
    let simulated = simulator::start(&shared, &spawner, &running.children).await?;
    let collector = collector(&shared, simulated, queue.clone());
    let statuses = statuses(&shared.config, collector.pushes());
    let questdb = start_questdb(&shared, spawner.clone(), &running.children);
    let around = dashboards::Around { spawner, listener: address, questdb: questdb.clone(), live };
    let grafana = dashboards::start(&shared, around, rules.clone(), &running.children);
    let channels = channels(&shared.config.notify, &shared.client, &shared.clock);
    let chat = bot::chat(&channels);
    let viewer = viewer::viewer(&rules, questdb.clone())?;
    let shown_rules = rules.as_slice().into();
    let parts = alerts::Parts {
        channels,
        rules,
        inbox,
        queue: queue.clone(),
        stats: store.stats(),
        questdb: questdb.clone(),
        grafana: Some(grafana.clone()),
        address: address.to_string(),
    };
    let alerting = alerts::open(&shared, parts).await?;
    let alerted = alerting.handle();
    let reporter = Reporter {
        node: shared.config.node.clone(),
        mode: shared.config.questdb.mode,
        started_at,
        board: shared.board.clone(),
        questdb: questdb.clone(),
        grafana_mode: shared.config.grafana.mode,
        grafana_url: shared.config.grafana.url.clone(),
        grafana: grafana.clone(),
        stats: store.stats(),
        directory: collector.directory(),
        alerts: alerted.clone(),
    };

    let store = store.run(rows, questdb.clone(), running.stop_delivery.clone());
    running.store.spawn("store", OnPanic::Fatal, store);
    let sources = &running.sources;
    sources.spawn("collect", OnPanic::Fatal, collector.run(sources.clone()));
    let health = health_rows(shared.clone(), reporter.clone(), queue.clone(), sources.stop_token());
    sources.spawn("health", OnPanic::Log, health);
    alerting.start(&running.alerts);
    alerts::tell_outside(&shared, &reporter, &alerted, sources);
    bot::start(&shared, chat, &reporter, &alerted, sources);
    // From here on only sources and alerts hold the queue: the store ends when the last of them has.
    let web = web::task::Setup {
        listen: shared.config.listen.clone(),
        report: Arc::new(move || reporter.report()),
        board: shared.board.clone(),
        metrics: shared.metrics.clone(),
        queue: queue.clone(),
        statuses,
        viewer,
        rules: shown_rules,
        alerts: alerts::site(&alerted, queue),
        node: shared.config.node.clone(),
        clock: shared.clock.clone(),
    };
    let web = web::task::run(listener, web, sources.stop_token());
    sources.spawn("web", OnPanic::Fatal, web);

    announce(&shared.config, address, questdb, grafana).await?;
    let exit = wait_for_end(&fatal, &mut signals).await;
    Instance::withdraw(&shared.config.data_dir);
    Ok(drain(running, &mut signals).await.unwrap_or(exit))
}

async fn open_store(shared: &Shared) -> anyhow::Result<store::task::Store> {
    let setup = store::task::Setup {
        writer: shared.config.writer,
        spool: shared.config.spool,
        retention: shared.config.retention.clone(),
        node: shared.config.node.clone(),
        data_dir: shared.config.data_dir.clone(),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
        board: shared.board.clone(),
        client: shared.client.clone(),
        seed: shared.seed,
    };
    let opened = tokio::task::spawn_blocking(move || store::task::Store::open(setup)).await;
    opened
        .context("open the spool")?
        .map_err(|error| Failure::error(Exit::CannotCreate, error.to_string()))
}

/// Makes the poll loops' owner; `simulated` daemons come on top of the configured ones.
fn collector(
    shared: &Shared,
    simulated: Vec<config::Daemon>,
    queue: RowQueue,
) -> collect::task::Collector {
    let setup = collect::task::Setup {
        collect: shared.config.collect,
        daemons: [shared.config.daemons.clone(), simulated].concat(),
        node: shared.config.node.clone(),
        run_dir: shared.config.data_dir.join("run"),
        data_dir: shared.config.data_dir.clone(),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
        board: shared.board.clone(),
        client: shared.client.clone(),
        seed: shared.seed,
    };
    collect::task::Collector::new(setup, queue)
}

/// Joins the listener with what takes pushed documents.
fn statuses(config: &Config, pushes: collect::push::Pushes) -> web::task::Statuses {
    web::task::Statuses {
        take: Arc::new(move |name, document| {
            let pushes = pushes.clone();
            Box::pin(async move { pushes.take(&name, document).await })
        }),
        limit: config.collect.max_document,
    }
}

/// Starts the owner of the database, child or remote; returns its state.
fn start_questdb(
    shared: &Shared,
    spawner: Spawner,
    children: &Tasks,
) -> watch::Receiver<ServerState> {
    let (sender, receiver) = watch::channel(ServerState::absent());
    let setup = supervise::task::Setup {
        config: shared.config.questdb.clone(),
        profile: shared.config.profile,
        data_dir: shared.config.data_dir.clone(),
        clock: shared.clock.clone(),
        board: shared.board.clone(),
        metrics: shared.metrics.clone(),
        client: shared.client.clone(),
        seed: shared.seed,
        spawner,
    };
    let task = supervise::task::run(setup, sender, children.stop_token());
    // The database may be away for days and the rest goes on, so its owner's panic is no end either.
    children.spawn("questdb", OnPanic::Fatal, task);
    receiver
}

/// Writes rows of `system_health` until `stop`.
async fn health_rows(shared: Shared, reporter: Reporter, queue: RowQueue, stop: CancellationToken) {
    let mut watch = HostWatch::new(&shared.config.data_dir);
    let mut tick = tokio::time::interval(HEALTH_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let (now, report) = (shared.clock.now(), reporter.report());
        // A file system that hangs holds up this task alone.
        let looked = tokio::task::spawn_blocking(move || {
            let figures = watch.look(&report);
            (watch, report, figures)
        });
        let Ok((back, report, figures)) = looked.await else { return };
        watch = back;
        queue.push(collect::host::rows(&report, &figures, &shared.config.node, now));
    }
}

/// Writes down where the listener is, prints the URLs, tells the service manager.
async fn announce(
    config: &Config,
    listener: SocketAddr,
    mut questdb: watch::Receiver<ServerState>,
    grafana: watch::Receiver<ServerState>,
) -> anyhow::Result<()> {
    Instance { pid: std::process::id(), address: listener.to_string() }
        .publish(&config.data_dir)
        .context("write run/instance.json")?;
    // The database's port may be chosen at its start: wait a moment for it, not for the server.
    let known = questdb.wait_for(|state| state.endpoint.is_some());
    let state = match tokio::time::timeout(Duration::from_secs(2), known).await {
        Ok(Ok(state)) => state.clone(),
        Ok(Err(_)) | Err(_) => ServerState::absent(),
    };
    let grafana = dashboards::known(config, grafana).await;
    output::line(&banner::urls(config, listener, &state, &grafana));
    if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "tell the service manager");
    }
    Ok(())
}

/// Waits for a signal or the end of a part that nothing works without.
async fn wait_for_end(fatal: &CancellationToken, signals: &mut StopSignals) -> Exit {
    tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            Exit::Done
        }
        () = fatal.cancelled() => {
            tracing::error!("a part that nothing works without has ended, stopping");
            Exit::Internal
        }
    }
}

/// Stops sources, then alerts, then the store, then the children; a second signal ends at once.
///
/// Returns an exit code when it did not end as it should.
async fn drain(running: Running, signals: &mut StopSignals) -> Option<Exit> {
    if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]) {
        tracing::debug!(%error, "tell the service manager");
    }
    let orderly = async {
        let mut late = running.sources.stop(GRACE_SOURCES).await;
        late.extend(running.alerts.stop(GRACE_ALERTS).await);
        let undelivered = running.store.join(GRACE_DELIVERY).await;
        if !undelivered.is_empty() {
            running.stop_delivery.cancel();
            late.extend(running.store.join(GRACE_SPOOL).await);
        }
        late.extend(running.children.stop(GRACE_CHILDREN).await);
        late
    };
    tokio::select! {
        late = orderly => {
            if late.is_empty() {
                tracing::info!("stopped");
                return None;
            }
            tracing::error!(tasks = ?late, "still running after the time to stop");
            Some(Exit::Internal)
        }
        signal = signals.next() => {
            tracing::warn!(signal, "second signal: ending at once; what is on disk is sent at the next start");
            Some(Exit::Failure)
        }
    }
}

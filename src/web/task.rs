//! The listener: accepts connections, holds their limits, serves until it is stopped.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use super::alerts::{Alerts, Ask, Asked};
use super::api::Site;
use super::guard::Tries;
use super::patience::Patience;
use super::push::Intake;
pub use super::push::{Statuses, Taken};
use super::routes::{self, Door, Ends};
use super::runbooks;
use super::socket::Sockets;
pub use super::viewer::Viewer;
use crate::base::health::{Board, Health, Part};
use crate::base::metrics::Metrics;
use crate::base::ports::{self, Holder};
use crate::base::tasks;
use crate::base::time::Clock;
use crate::config::{Listen, Node};
use crate::model::report::Report;
use crate::rules::rule::Rule;
use crate::store::queue::RowQueue;

/// Connections at a time.
const CONNECTIONS: u32 = 64;
/// Size of a request's head, bytes.
const HEAD_SIZE: usize = 32 * 1024;
/// Time for the head of a request. It also ends connections that say nothing, new or kept alive.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time that a write may stand still.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Time that connections get to end after the stop.
const GRACE: Duration = Duration::from_secs(2);
/// Wait after a failed accept: without it a lack of file descriptors would be a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error(
        "listen on {address}: the port is taken{}; \
         end that program or use --set listen.address=127.0.0.1:auto",
        by(holder.as_ref())
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Who, if it can be told.
        holder: Option<Holder>,
    },
    /// Anything else: no such address, no permission.
    #[error("listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
}

fn by(holder: Option<&Holder>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

/// Binds the listener; within a runtime.
///
/// # Errors
/// See [`BindError`].
pub fn bind(listen: &Listen) -> Result<TcpListener, BindError> {
    let address = listen.address;
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    bound.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            BindError::Taken { address, holder: ports::holder(address) }
        } else {
            BindError::Other { address, source }
        }
    })
}

/// What the listener shows.
pub struct Setup {
    /// `[listen]`
    pub listen: Listen,
    /// Makes the report; called for every page and status, so it must be quick.
    pub report: Arc<dyn Fn() -> Report + Send + Sync>,
    /// Health of all parts; the listener writes its own.
    pub board: Board,
    /// Shown at `/metrics`.
    pub metrics: Metrics,
    /// Where pushed rows go.
    pub queue: RowQueue,
    /// Where pushed status documents go.
    pub statuses: Statuses,
    /// Dashboards.
    pub viewer: Viewer,
    /// Alert rules, for the page of runbooks.
    pub rules: Arc<[Rule]>,
    /// Where alerts are looked at and asked for.
    pub alerts: Alerts,
    /// Tags of pushed rows that leave them out.
    pub node: Node,
    /// Time of pushed rows without one, and of the page.
    pub clock: Clock,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// Serves until `stop`, then lets requests that run finish.
pub async fn run(listener: TcpListener, setup: Setup, stop: CancellationToken) {
    let address = listener.local_addr().unwrap_or(setup.listen.address);
    let site = Arc::new(Site {
        door: Door {
            token: setup.listen.token,
            allowed_hosts: setup.listen.allowed_hosts,
            tries: Tries::default(),
        },
        address,
        report: setup.report,
        board: setup.board.clone(),
        metrics: setup.metrics,
        clock: setup.clock.clone(),
        intake: Intake { queue: setup.queue, node: setup.node, clock: setup.clock },
        statuses: setup.statuses,
        sockets: Sockets::new(stop.clone()),
        viewer: setup.viewer,
        runbooks: runbooks::page(&setup.rules),
        alerts: setup.alerts,
        rendered: Mutex::default(),
    });
    let slots = Arc::new(Semaphore::new(usize::try_from(CONNECTIONS).unwrap_or(1)));
    setup.board.set(Part::Web, Health::Ok);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                setup.board.set(Part::Web, Health::Ok);
                admit(stream, peer, &site, &slots, &stop);
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                let reason = format!("cannot accept connections: {error}");
                setup.board.set(Part::Web, Health::Degraded { reason });
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    // All slots are free again when all connections have ended.
    if tokio::time::timeout(GRACE, slots.acquire_many(CONNECTIONS)).await.is_err() {
        tracing::debug!("connections were cut at the stop");
    }
}

/// Whether a failed accept is over with that one client.
fn is_of_the_client(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::Interrupted,
    ];
    kinds.contains(&error.kind())
}

/// Starts serving a connection, or turns it away when there are too many.
fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    site: &Arc<Site>,
    slots: &Arc<Semaphore>,
    stop: &CancellationToken,
) {
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
        // Best effort: a client that does not read gets nothing, and nobody waits for it.
        const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n\
            content-length: 0\r\nconnection: close\r\n\r\n";
        if let Err(error) = stream.try_write(BUSY) {
            tracing::debug!(%peer, %error, "could not turn a connection away politely");
        }
        routes::count(&site.metrics, hyper::StatusCode::SERVICE_UNAVAILABLE);
        return;
    };
    let (site, stop) = (Arc::clone(site), stop.clone());
    let _detached = tasks::spawn_detached(async move {
        serve(stream, peer, site, stop).await;
        drop(slot);
    });
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, peer: SocketAddr, site: Arc<Site>, stop: CancellationToken) {
    let Ok(local) = stream.local_addr() else { return };
    let ends = Ends { peer, local };
    let service = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, std::convert::Infallible>(routes::respond(&site, ends, request).await) }
    });
    let connection = http1::Builder::new()
        // Without a timer hyper would not hold the time limit, and not say so.
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(HEAD_SIZE)
        .max_buf_size(2 * HEAD_SIZE)
        .serve_connection(TokioIo::new(Patience::new(stream, WRITE_TIME)), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_elapsed) => return,
            }
        }
    };
    if let Err(error) = ended {
        // Clients do this all the time: it is worth a line only to who looks for it.
        tracing::debug!(%peer, %error, "connection ended");
    }
}

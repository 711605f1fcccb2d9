//! Every default, once. `assets/periscope.toml` shows them; a test compares the two.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Profile;

/// `[node] env`
pub const ENV: &str = "dev";
/// `[listen] address`
pub const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7480);

/// Port of `[questdb] http`; the host is 127.0.0.1.
pub const QUESTDB_HTTP_PORT: u16 = 9000;
/// Port of `[questdb] pg`; the host is 127.0.0.1, or that of `http` when remote.
pub const QUESTDB_PG_PORT: u16 = 8812;
/// `[questdb] version`
pub const QUESTDB_VERSION: &str = "9.3.4";
/// `[questdb] memory`, bytes
pub const QUESTDB_MEMORY: u64 = 256 * 1_000_000;

/// `[grafana] address`
pub const GRAFANA_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3000);
/// `[grafana] version`
pub const GRAFANA_VERSION: &str = "12.4.2";
/// `[grafana] datasource`
pub const GRAFANA_DATASOURCE: &str = "postgres";

/// `[alerts] evaluation_interval`
pub const EVALUATION_INTERVAL: Duration = Duration::from_secs(10);
/// `[alerts] takeover_after`
pub const TAKEOVER_AFTER: Duration = Duration::from_secs(15);
/// `[notify.telegram] api_url`
pub const TELEGRAM_API: &str = "https://api.telegram.org";
/// `[heartbeat] interval`
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);

/// `[collect] trading_interval`: with a batch and a commit on top of it, a result is there within 5 s
pub const TRADING_INTERVAL: Duration = Duration::from_secs(2);
/// `[collect] max_document`, bytes
pub const MAX_DOCUMENT: usize = 1 << 20;
/// Time between two documents of a daemon that pushes and says nothing else.
pub const PUSH_INTERVAL: Duration = Duration::from_secs(60);
/// Longest default of `timeout` of a daemon; a shorter interval halves it.
pub const POLL_TIMEOUT: Duration = Duration::from_secs(5);

/// `[writer] batch_rows`
pub const BATCH_ROWS: usize = 500;
/// `[writer] queue_rows`
pub const QUEUE_ROWS: usize = 100_000;
/// `[writer] timeout`
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// `[spool] max_bytes`
pub const SPOOL_MAX_BYTES: u64 = 1 << 30;
/// `[spool] min_free`, bytes
pub const SPOOL_MIN_FREE: u64 = 1 << 30;
/// `[spool] replay_window`
pub const REPLAY_WINDOW: Duration = Duration::from_secs(15 * 60);
/// `[spool] replay_bytes`
pub const REPLAY_BYTES: u64 = 64 << 20;

/// `[collect] interval`
pub const fn interval(profile: Profile) -> Duration {
    match profile {
        Profile::Up => Duration::from_secs(5),
        Profile::Dev => Duration::from_secs(1),
    }
}

/// `[writer] flush_interval`
pub const fn flush_interval(profile: Profile) -> Duration {
    match profile {
        Profile::Up => Duration::from_secs(1),
        Profile::Dev => Duration::from_millis(200),
    }
}

/// `timeout` of a daemon that is polled every `interval`.
pub fn poll_timeout(interval: Duration) -> Duration {
    (interval / 2).min(POLL_TIMEOUT)
}

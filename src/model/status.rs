//! What a daemon says about itself, checked and cleaned. Every field is `None` when the daemon did
//! not say it, or said something that cannot be true.

use std::sync::Arc;

use crate::base::time::Timestamp;

/// A daemon's status document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// The daemon says that it runs.
    pub running: Option<bool>,
    /// The daemon says that it is about to stop.
    pub shutdown_requested: Option<bool>,
    /// Fetches since its start, at least 0.
    pub fetch_count: Option<i64>,
    /// Errors since its start, at least 0.
    pub error_count: Option<i64>,
    /// Liquidation events since its start, at least 0.
    pub liquidation_count: Option<i64>,
    /// Seconds since its start, at least 0.
    pub uptime_seconds: Option<f64>,
    /// When it last fetched.
    pub last_fetch_time: Option<Timestamp>,
    /// Its last error, cleaned, at most 4 KiB.
    pub last_error: Option<Arc<str>>,
    /// Venues, lower case, comma separated; `all` is no venue.
    pub exchanges: Option<Arc<str>>,
    /// Instruments, comma separated.
    pub symbols: Option<Arc<str>>,
    /// Resident memory of the process, bytes, where the daemon tells it itself.
    pub memory_bytes: Option<i64>,
    /// CPU of the process, 100 = one core, where the daemon tells it itself.
    pub cpu_percent: Option<f64>,
    /// Delay of its event loop, milliseconds, where the daemon tells it itself.
    pub event_loop_lag_ms: Option<f64>,
    /// State of venues.
    pub exchange_status: Vec<Exchange>,
    /// Progress of pipelines.
    pub pipelines: Vec<Pipeline>,
    /// Results of strategies.
    pub trading: Vec<Trading>,
}

/// One venue, as the daemon sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Venue, lower case.
    pub exchange: Arc<str>,
    /// Whether the daemon is connected to it.
    pub connected: bool,
    /// Latency, milliseconds.
    pub latency_ms: Option<f64>,
    /// Reconnects since the daemon's start.
    pub reconnect_count: Option<i64>,
    /// When the last message came.
    pub last_message_at: Option<Timestamp>,
    /// Since when it is disconnected.
    pub disconnected_at: Option<Timestamp>,
    /// Used share of the rate limit, 0 to 1.
    pub rate_limit_used: Option<f64>,
}

/// One kind of data of one instrument at one venue.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Venue, lower case.
    pub exchange: Arc<str>,
    /// Instrument, if the data has one.
    pub symbol: Option<Arc<str>>,
    /// `oi`, `funding`, `liquidation`, …
    pub data_type: Arc<str>,
    /// Records since the daemon's start.
    pub records_count: Option<i64>,
    /// Errors since the daemon's start.
    pub error_count: Option<i64>,
    /// Bytes written since the daemon's start.
    pub bytes_written: Option<i64>,
    /// Duration of the last fetch, milliseconds.
    pub latency_ms: Option<f64>,
    /// Whether data is missing right now.
    pub gap_detected: Option<bool>,
    /// Length of the gap so far, seconds.
    pub gap_duration_seconds: Option<f64>,
}

/// One strategy on one instrument.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trading {
    /// Strategy id.
    pub strategy: Arc<str>,
    /// Instrument.
    pub symbol: Option<Arc<str>>,
    /// Venue, lower case.
    pub venue: Option<Arc<str>>,
    /// Currency of the amounts.
    pub currency: Option<Arc<str>>,
    /// Realised profit and loss.
    pub pnl: Option<f64>,
    /// Profit and loss of open positions.
    pub unrealized_pnl: Option<f64>,
    /// Signed size of the position.
    pub position_size: Option<f64>,
    /// Net exposure.
    pub exposure: Option<f64>,
    /// Equity.
    pub equity: Option<f64>,
    /// Loss from the peak of equity, 0.05 = 5 %.
    pub drawdown: Option<f64>,
    /// Filled orders / placed orders.
    pub fill_rate: Option<f64>,
    /// Orders since the daemon's start.
    pub orders_placed: Option<i64>,
    /// Filled orders since the daemon's start.
    pub orders_filled: Option<i64>,
    /// Open orders.
    pub orders_open: Option<i64>,
}

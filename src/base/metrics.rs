//! Every metric of periscope itself, once: name, help and labels. Rendered at `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Label `target`: name of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Target {
    /// Name of the daemon.
    pub target: String,
}

/// Labels of a failed poll.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PollFailure {
    /// Name of the daemon.
    pub target: String,
    /// A reason out of a small fixed set.
    pub reason: &'static str,
}

/// Label `reason`: out of a small fixed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Why.
    pub reason: &'static str,
}

/// Labels of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Delivery {
    /// Name of the channel.
    pub channel: &'static str,
    /// `delivered`, `retried` or `refused`.
    pub result: &'static str,
}

/// Label `hop`: a part that the canary passes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Hop {
    /// `disk`, `database`, `rule` or `journal`.
    pub hop: &'static str,
}

/// Label `severity`: one of the severities.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfSeverity {
    /// Which one.
    pub severity: &'static str,
}

/// Label `table`: one of the declared tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Table {
    /// Name of the table.
    pub table: &'static str,
}

/// Label `child`: `questdb` or `grafana`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Child {
    /// Which child process.
    pub child: &'static str,
}

/// Handles of all metrics; clones share the values.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Polls, whether they failed or not.
    pub polls: Family<Target, Counter>,
    /// Failed polls.
    pub poll_failures: Family<PollFailure, Counter>,
    /// Documents whose field had another type than expected.
    pub schema_drift: Family<Target, Counter>,
    /// Rows dropped because the queue before the spool was full.
    pub queue_dropped_rows: Counter,
    /// Rows on disk, since start.
    pub spool_rows: Counter,
    /// Rows not yet delivered.
    pub spool_pending_rows: Gauge,
    /// Bytes not yet delivered.
    pub spool_pending_bytes: Gauge,
    /// Age of the oldest record not yet delivered.
    pub spool_oldest_age: Gauge<f64, AtomicU64>,
    /// Sequence number of the newest record on disk.
    pub spool_durable_seq: Gauge<i64, AtomicI64>,
    /// Rows lost from the spool, by reason; always 0 unless a cap or damage hit it.
    pub spool_lost_rows: Family<Reason, Counter>,
    /// Failed fsyncs and writes of the spool.
    pub spool_faults: Family<Reason, Counter>,
    /// Rows that `QuestDB` acknowledged.
    pub rows_written: Family<Table, Counter>,
    /// Rows refused for good and put into the dead-letter folder.
    pub rows_refused: Family<Table, Counter>,
    /// Rows refused before the spool, by reason.
    pub rows_invalid: Family<Reason, Counter>,
    /// Requests to `QuestDB` that have to be repeated, by reason.
    pub write_retries: Family<Reason, Counter>,
    /// Transactions accepted but not yet visible.
    pub wal_lag: Family<Table, Gauge>,
    /// 1 while a table's WAL is suspended.
    pub wal_suspended: Family<Table, Gauge>,
    /// Restarts of a child process.
    pub child_restarts: Family<Child, Counter>,
    /// 1 while a child process answers.
    pub child_ready: Family<Child, Gauge>,
    /// Answers of the own listener.
    pub http_requests: Family<Reason, Counter>,
    /// Evaluations of a rule, by how it was read: database, memory, own, failed.
    pub alert_evaluations: Family<Reason, Counter>,
    /// Duration of the latest evaluation of all rules.
    pub alert_evaluation: Gauge<f64, AtomicU64>,
    /// Alerts that fire.
    pub alerts_firing: Family<OfSeverity, Gauge>,
    /// 1 while periscope sends itself, 0 while Grafana does.
    pub alert_fallback: Gauge,
    /// Messages that wait for a channel.
    pub alert_outbox: Gauge,
    /// Tries to deliver a message.
    pub alert_deliveries: Family<Delivery, Counter>,
    /// Time of the latest canary from hop to hop.
    pub canary_hop: Family<Hop, Gauge<f64, AtomicU64>>,
    /// Canaries that did not arrive, by the hop where they stayed.
    pub canary_lost: Family<Hop, Counter>,
    /// Requests to heartbeat URLs: sent, failed, withheld.
    pub heartbeats: Family<Reason, Counter>,
    /// Failures in a row of the heartbeat URL that fails most.
    pub heartbeat_failures: Gauge,
    /// Messages to the Telegram bot from elsewhere than its chat, or too old to be obeyed.
    pub bot_ignored: Counter,
}

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("periscope");
        let r = &mut registry;
        let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        r.register(
            "build",
            "What is running",
            prometheus_client::metrics::info::Info::new(version),
        );
        let metrics = Self {
            registry: Arc::default(),
            polls: register(r, "polls", "Polls of a daemon, failed or not"),
            poll_failures: register(r, "poll_failures", "Failed polls by reason"),
            schema_drift: register(r, "schema_drift", "Fields with an unexpected type or name"),
            queue_dropped_rows: register(r, "queue_dropped_rows", "Rows dropped before the spool"),
            spool_rows: register(r, "spool_rows", "Rows made durable since start"),
            spool_pending_rows: register(r, "spool_pending_rows", "Rows not yet delivered"),
            spool_pending_bytes: register_unit(
                r,
                "spool_pending",
                "Size of what is not yet delivered",
                Unit::Bytes,
            ),
            spool_oldest_age: register_unit(
                r,
                "spool_oldest_age",
                "Age of the oldest record not yet delivered",
                Unit::Seconds,
            ),
            spool_durable_seq: register(r, "spool_durable_seq", "Newest record on disk"),
            spool_lost_rows: register(r, "spool_lost_rows", "Rows lost by cap or damage"),
            spool_faults: register(r, "spool_faults", "Failed file operations of the spool"),
            rows_written: register(r, "rows_written", "Rows acknowledged by QuestDB"),
            rows_refused: register(r, "rows_refused", "Rows in the dead-letter folder"),
            rows_invalid: register(r, "rows_invalid", "Rows refused before the spool"),
            write_retries: register(r, "write_retries", "Requests to QuestDB to be repeated"),
            wal_lag: register(r, "wal_lag_transactions", "Accepted but not yet visible"),
            wal_suspended: register(r, "wal_suspended", "1 while a table is suspended"),
            child_restarts: register(r, "child_restarts", "Restarts of a child process"),
            child_ready: register(r, "child_ready", "1 while a child process answers"),
            http_requests: register(r, "http_requests", "Answers of the own listener"),
            alert_evaluations: register(r, "alert_evaluations", "Evaluations of a rule"),
            alert_evaluation: register_unit(
                r,
                "alert_evaluation",
                "Duration of the latest evaluation of all rules",
                Unit::Seconds,
            ),
            alerts_firing: register(r, "alerts_firing", "Alerts that fire"),
            alert_fallback: register(r, "alert_fallback", "1 while periscope sends alerts itself"),
            alert_outbox: register(r, "alert_outbox_messages", "Messages waiting for a channel"),
            alert_deliveries: register(r, "alert_deliveries", "Tries to deliver a message"),
            canary_hop: register_unit(
                r,
                "canary_hop",
                "Time of the latest canary to this hop from the one before",
                Unit::Seconds,
            ),
            canary_lost: register(r, "canary_lost", "Canaries that did not arrive"),
            heartbeats: register(r, "heartbeats", "Requests to heartbeat URLs"),
            heartbeat_failures: register(
                r,
                "heartbeat_failures",
                "Failures in a row of the heartbeat URL that fails most",
            ),
            bot_ignored: register(r, "bot_ignored_messages", "Messages that the bot ignored"),
        };
        Self { registry: Arc::new(registry), ..metrics }
    }

    /// Returns all metrics in the `OpenMetrics` text format.
    ///
    /// # Errors
    /// The formatter fails, which a `String` never does.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn register<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: Default + Clone + prometheus_client::registry::Metric,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn register_unit<M>(registry: &mut Registry, name: &str, help: &str, unit: Unit) -> M
where
    M: Default + Clone + prometheus_client::registry::Metric,
{
    let metric = M::default();
    registry.register_with_unit(name, help, unit, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_every_name_with_the_prefix() {
        let metrics = Metrics::new();
        metrics.queue_dropped_rows.inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("periscope_queue_dropped_rows_total 1"), "{text}");
        assert!(text.contains("periscope_spool_oldest_age_seconds 0"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}

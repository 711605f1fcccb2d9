//! A rule as everything downstream sees it: one severity, one threshold, nothing optional that is
//! needed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::condition::Condition;
use super::text::{Figures, Template};
pub(crate) use crate::base::words::words;
pub use crate::model::severity::Severity;

/// Names and values that tell one alert series of a rule from another.
pub type Labels = BTreeMap<String, String>;

words! {
    /// What a rule watches; a group of rules in Grafana.
    Category {
        /// The daemon's process and counters.
        Daemon = "daemon",
        /// Connections to venues.
        Exchange = "exchange",
        /// Data that daemons gather.
        Pipeline = "pipeline",
        /// Money.
        Trading = "trading",
        /// periscope, its database and its machine.
        System = "system",
    }
}

words! {
    /// Where in the tree of causes an alert stands; a cause explains what lies below it.
    Level {
        /// The machine.
        Host = "host",
        /// The database.
        Questdb = "questdb",
        /// Grafana and the channels.
        Grafana = "grafana",
        /// A daemon.
        Daemon = "daemon",
        /// A venue of a daemon.
        Venue = "venue",
        /// An instrument, pipeline or strategy.
        Symbol = "symbol",
    }
}

words! {
    /// What a missing answer means.
    Absence {
        /// All is well: an alert that fires is resolved.
        Ok = "ok",
        /// Nothing is known: the state stays as it is.
        Keep = "keep",
        /// It is itself the fault: counts as a breach.
        Alert = "alert",
    }
}

words! {
    /// What the value of a rule measures; decides how it is written in messages.
    Unit {
        /// A plain number.
        Number = "number",
        /// Whole things.
        Count = "count",
        /// Seconds.
        Seconds = "seconds",
        /// Milliseconds.
        Milliseconds = "milliseconds",
        /// Bytes.
        Bytes = "bytes",
        /// A share, 0.05 = 5 %.
        Ratio = "ratio",
        /// Events per minute.
        PerMinute = "per_minute",
        /// Multiples of a series' usual gap.
        Gaps = "gaps",
    }
}

words! {
    /// Figures that only periscope itself knows: they are about what would answer the query.
    Signal {
        /// Seconds that the database has not answered; labels `host`, `env`.
        QuestdbDown = "questdb_down",
        /// Seconds that Grafana has been absent; labels `host`, `env`.
        GrafanaDown = "grafana_down",
        /// Deliveries that failed in a row; labels `channel`, `host`, `env`.
        ChannelFailing = "channel_failing",
        /// Canaries in a row that did not arrive; labels `host`, `env`.
        CanaryLost = "canary_lost",
    }
}

impl Signal {
    /// Returns the labels of its readings.
    pub const fn labels(self) -> &'static [&'static str] {
        match self {
            Self::QuestdbDown | Self::GrafanaDown | Self::CanaryLost => &["env", "host"],
            Self::ChannelFailing => &["env", "host", "channel"],
        }
    }
}

/// When a value is a breach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Which side of the threshold is bad.
    pub comparison: Comparison,
    /// In the unit of the rule; finite.
    pub threshold: f64,
}

words! {
    /// Which side of the threshold is bad; the threshold itself is good.
    Comparison {
        /// Breached when greater.
        Above = "above",
        /// Breached when less.
        Below = "below",
    }
}

impl Limit {
    /// Whether `value` is a breach. A value that is no number is none here: whoever reads one
    /// makes it [`Reading::Failed`](super::machine::Reading).
    pub fn breached(self, value: f64) -> bool {
        match self.comparison {
            Comparison::Above => value > self.threshold,
            Comparison::Below => value < self.threshold,
        }
    }
}

/// The panel that shows what a rule watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    /// Uid of the dashboard: `periscope-health`.
    pub dashboard: String,
    /// Key of the panel in it: `memory`.
    pub panel: String,
}

/// Longest uid of a rule in Grafana.
const UID_LENGTH: usize = 40;

/// One alert rule of one severity.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// `daemon_memory`; rules of one id differ in severity.
    pub id: String,
    /// How bad.
    pub severity: Severity,
    /// Short name for people: `Daemon memory`.
    pub title: String,
    /// What it watches.
    pub category: Category,
    /// Place in the tree of causes.
    pub level: Level,
    /// Whether its firing explains alerts below it that carry the same labels.
    pub explains: bool,
    /// Ids of the rules that it is but a consequence of, for the same labels.
    pub follows: Vec<String>,
    /// What is measured.
    pub condition: Condition,
    /// What the value measures.
    pub unit: Unit,
    /// When it is bad.
    pub limit: Limit,
    /// How long it must be bad before it fires (Grafana's `for`).
    pub hold: Duration,
    /// How long it must be good before it is resolved.
    pub keep_firing: Duration,
    /// Time between evaluations; a multiple of 10 s.
    pub interval: Duration,
    /// What no row for a series means.
    pub on_no_data: Absence,
    /// What a failed query means.
    pub on_error: Absence,
    /// One line.
    pub summary: Template,
    /// What it means and what to do.
    pub description: Template,
    /// Anchor of its section in the alert reference, without `#`.
    pub runbook: String,
    /// What to look at and do, in order; backticks around code.
    pub steps: Vec<String>,
    /// Where to look.
    pub panel: Option<Panel>,
}

impl Rule {
    /// Returns the uid that Grafana knows it by: `periscope-daemon-memory-critical`. It never
    /// changes for an id and a severity.
    ///
    /// Grafana allows 40 characters; a longer one is cut and ends in a checksum.
    pub fn uid(&self) -> String {
        let whole = format!("periscope-{}-{}", self.id.replace('_', "-"), self.severity.word());
        if whole.len() <= UID_LENGTH {
            return whole;
        }
        let kept: String = whole.chars().take(UID_LENGTH - 9).collect();
        format!("{kept}-{:08x}", crc32c::crc32c(whole.as_bytes()))
    }

    /// Returns the figures that its texts show.
    pub const fn figures(&self) -> Figures {
        Figures { unit: self.unit, limit: self.limit, hold: self.hold }
    }

    /// Returns the title that is unique in Grafana's folder: `Daemon memory (critical)`.
    pub fn full_title(&self) -> String {
        format!("{} ({})", self.title, self.severity.word())
    }
}

#[cfg(test)]
mod tests {
    use crate::rules::catalog;

    #[test]
    fn uids_are_stable_and_fit_into_grafana() {
        let rules = catalog::shipped().unwrap();
        let uid = |id: &str| rules.iter().find(|rule| rule.id == id).unwrap().uid();
        assert_eq!(uid("daemon_memory"), "periscope-daemon-memory-warning");
        assert_eq!(uid("exchange_reconnect_storm"), "periscope-exchange-reconnect-st-4eb967df");
        for rule in &rules {
            assert!(rule.uid().len() <= 40, "{}", rule.uid());
        }
    }
}

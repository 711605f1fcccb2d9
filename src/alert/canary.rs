//! The canary: a row of its own goes the way of every sample, from the queue to the disk, to the
//! database, through a rule's SQL, into the journal of alerts and up to what delivers them; each hop
//! is timed, and two lost in a row are an alert.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::book::{Book, Change};
use super::engine::read::{self, Asked};
use super::engine::task::Shown;
use super::keeper::Keeper;
use super::vitals::Beats;
use crate::base::metrics::{Hop, Metrics};
use crate::base::time::{Clock, Timestamp};
use crate::config::Node;
use crate::model::row::Row;
use crate::model::server::{Endpoint, ServerState};
use crate::model::severity::Severity;
use crate::model::table::{Column, SYSTEM_HEALTH};
use crate::rules::catalog;
use crate::rules::condition::{Aggregate, Condition, Literal, Match, Measure};
use crate::rules::rule::Rule;
use crate::store::queue::RowQueue;
use crate::store::read::Session;

/// Time between two canaries.
const INTERVAL: Duration = Duration::from_secs(60);
/// Longest time for the hop to the database: its flush timer and its own delay, many times over.
const VISIBLE_LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks into the database.
const LOOK: Duration = Duration::from_millis(200);
const COMPONENT: &str = "canary";

/// What the canary passes through.
#[derive(Debug)]
pub struct Canary {
    /// The way of every row.
    pub queue: RowQueue,
    /// The database.
    pub questdb: watch::Receiver<ServerState>,
    /// The journal.
    pub keeper: Keeper,
    /// What moves messages to people.
    pub beats: Beats,
    /// Where it is told how many were lost.
    pub shown: Shown,
    /// Tags of the row.
    pub node: Node,
    /// Time.
    pub clock: Clock,
    /// Where the times of the hops go.
    pub metrics: Metrics,
}

/// Where a canary stayed away, with the reason.
type Lost = (&'static str, String);

/// Sends a canary at every interval until `stop`, while the database answers: that it does not is
/// known without one.
pub async fn run(canary: Canary, stop: CancellationToken) {
    let Some(rule) = rule() else {
        tracing::error!("the canary's rule cannot be made");
        return;
    };
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut lost = 0_u32;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let Some(endpoint) = canary.questdb.borrow().ready().cloned() else { continue };
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = canary.fly(&endpoint, &rule) => result,
        };
        match result {
            Err((hop, reason)) => {
                canary.metrics.canary_lost.get_or_create(&Hop { hop }).inc();
                tracing::warn!(hop, %reason, "the canary did not arrive");
                lost = lost.saturating_add(1);
            }
            Ok(()) => {
                if lost > 0 {
                    tracing::info!("the canary arrives again");
                }
                lost = 0;
            }
        }
        canary.shown.set_canaries_lost(lost);
    }
}

impl Canary {
    /// Sends one and times its hops.
    async fn fly(&self, endpoint: &Endpoint, rule: &Rule) -> Result<(), Lost> {
        let at = self.clock.now();
        let row = Row::new(&SYSTEM_HEALTH, at)
            .with("component", COMPONENT)
            .with("host", self.node.host.as_str())
            .with("env", self.node.env.as_str())
            .with("status", "ok");
        let mut start = Instant::now();
        self.queue.push_durable(vec![row]).await.map_err(|error| ("disk", error.to_string()))?;
        self.passed("disk", &mut start);
        self.visible(endpoint, rule, at).await?;
        self.passed("database", &mut start);
        match read::ask(&mut Session::new(endpoint), rule).await {
            Some(Asked::Samples(samples)) if self.is_among(&samples) => {}
            other => return Err(("rule", format!("its rule does not see it: {other:?}"))),
        }
        self.passed("rule", &mut start);
        let note =
            |_: &Book| (vec![Change::Group { name: COMPONENT.to_owned(), sent: Vec::new() }], ());
        let noted = self.keeper.change(note).await;
        noted.ok_or_else(|| ("journal", "periscope is stopping".to_owned()))?;
        if let Some(fault) = self.keeper.watch().borrow().fault.clone() {
            return Err(("journal", fault));
        }
        self.passed("journal", &mut start);
        // From here a message would go on; none is made of a canary, so what would carry it is asked.
        if let Some(reason) = self.beats.stuck(self.clock.now()).into_iter().next() {
            return Err(("delivery", reason));
        }
        self.passed("delivery", &mut start);
        Ok(())
    }

    /// Waits until the rule's own value says that the newest canary is this one.
    async fn visible(&self, endpoint: &Endpoint, rule: &Rule, at: Timestamp) -> Result<(), Lost> {
        let start = Instant::now();
        loop {
            let asked = read::ask(&mut Session::new(endpoint), rule).await;
            if let Some(Asked::Samples(samples)) = &asked {
                let age = self.clock.now().since(at).as_secs_f64();
                // An older one would be older by a minute.
                if samples.iter().any(|s| self.is_mine(&s.labels) && s.value <= age + 1.0) {
                    return Ok(());
                }
            }
            if start.elapsed() > VISIBLE_LIMIT {
                return Err((
                    "database",
                    format!("not visible within {VISIBLE_LIMIT:?}: {asked:?}"),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_among(&self, samples: &[crate::rules::window::Sample]) -> bool {
        samples.iter().any(|sample| self.is_mine(&sample.labels) && !rule_breached(sample.value))
    }

    fn is_mine(&self, labels: &crate::rules::rule::Labels) -> bool {
        labels.get("host") == Some(&self.node.host) && labels.get("env") == Some(&self.node.env)
    }

    fn passed(&self, hop: &'static str, start: &mut Instant) {
        let hop = Hop { hop };
        self.metrics.canary_hop.get_or_create(&hop).set(start.elapsed().as_secs_f64());
        *start = Instant::now();
    }
}

fn rule_breached(value: f64) -> bool {
    value > INTERVAL.as_secs_f64()
}

/// Returns the rule that watches canaries, made as the shipped ones are; Grafana does not have it.
fn rule() -> Option<Rule> {
    let column = |name: &str| -> Option<&'static Column> { SYSTEM_HEALTH.column(name) };
    let like = catalog::find("disk_low", Severity::Warning)?;
    let component =
        Match { column: column("component")?, value: Literal::Text(COMPONENT.to_owned()) };
    let condition = Condition::Rows(Measure {
        table: &SYSTEM_HEALTH,
        by: vec![column("env")?, column("host")?],
        filter: vec![component],
        aggregate: Aggregate::Age { state: Vec::new() },
        window: Duration::from_secs(300),
        fresh: None,
    });
    Some(Rule { id: COMPONENT.to_owned(), condition, ..like })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::sql;

    #[test]
    fn its_rule_reads_only_canaries() {
        let text = sql::query(&rule().unwrap().condition).unwrap();
        assert!(text.contains("component = 'canary'"), "{text}");
        assert!(text.contains("system_health"), "{text}");
    }
}

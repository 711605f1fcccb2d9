//! periscope, its database and the oracle, put together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::periscope::Periscope;
use crate::support::pusher::{Address, Load, Pushed, Pusher, WRONG_VALUES};
use crate::support::questdb::QuestDb;
use crate::support::wait::until;

/// How long delivery of what has gathered may take.
const CATCHES_UP: Duration = Duration::from_secs(600);
/// How long nothing may wait before that counts.
const SETTLED: Duration = Duration::from_secs(2);

pub struct Rig {
    pub periscope: Periscope,
    /// The server in remote mode; in managed mode it is periscope's.
    pub questdb: Option<QuestDb>,
    /// Where periscope listens.
    pub address: Address,
}

impl Rig {
    /// periscope with a server of its own.
    pub fn managed(config: &str) -> Self {
        Self { periscope: Periscope::up(config), questdb: None, address: Arc::default() }
    }

    /// periscope that was set up to use `questdb`.
    pub fn remote(periscope: Periscope, questdb: QuestDb) -> Self {
        Self { periscope, questdb: Some(questdb), address: Arc::default() }
    }

    /// The server of the test's own.
    pub fn own_questdb(&mut self) -> &mut QuestDb {
        self.questdb.as_mut().expect("remote mode")
    }

    /// Waits for the listener and tells the clients where it is.
    pub async fn listen(&self) {
        let base = until("the listener", Duration::from_secs(60), || {
            std::future::ready(self.periscope.listener())
        })
        .await;
        *self.address.lock().await = Some(base);
    }

    /// Starts clients that push.
    pub async fn push(&self, load: Load) -> Pusher {
        self.listen().await;
        Pusher::start(&self.address, load)
    }

    /// Kills periscope and starts it again.
    pub async fn restart(&mut self) {
        *self.address.lock().await = None;
        self.periscope.kill();
        self.periscope.start();
        self.listen().await;
    }

    /// Asks the server past periscope.
    pub async fn sql(&self, query: &str) -> Result<Vec<Vec<Value>>, String> {
        match &self.questdb {
            Some(questdb) => questdb.sql(query).await,
            None => self.periscope.sql(query).await,
        }
    }

    /// The single number that `query` returns; 0 for null.
    pub async fn number(&self, query: &str) -> u64 {
        if let Some(questdb) = &self.questdb {
            return u64::try_from(questdb.number(query).await).unwrap();
        }
        let rows = self.sql(query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
        rows.first().and_then(|row| row[0].as_u64()).unwrap_or(0)
    }

    /// Waits until nothing that was pushed or lost waits any longer, in the spool or in a table.
    pub async fn settled(&self) {
        let start = Instant::now();
        // The figures may be those of a moment ago: they have to stay so.
        let since = std::cell::Cell::new(None::<Instant>);
        until("everything to be delivered", CATCHES_UP, || async {
            let status = self.periscope.status().await?;
            let spool = &status["spool"];
            // New rows of the host and of polls come all the time.
            if spool["rows"].as_u64().unwrap_or(u64::MAX) > 50 {
                since.set(None);
                return Err(format!("{spool} {}", status["parts"]["writer"]));
            }
            let first = since.get().unwrap_or_else(Instant::now);
            since.set(Some(first));
            if first.elapsed() > SETTLED { Ok(()) } else { Err("just now".to_owned()) }
        })
        .await;
        until("everything to be visible", CATCHES_UP, || async {
            let lag = "select name, sequencerTxn, writerTxn from wal_tables() where \
                       sequencerTxn > writerTxn and name = 'pipeline_metrics'";
            let lag = self.sql(lag).await?;
            if lag.is_empty() { Ok(()) } else { Err(format!("{lag:?}")) }
        })
        .await;
        println!("settled after {:?}", start.elapsed());
    }

    /// Numbers of all rows that are stored, with repetitions, in order.
    pub async fn stored(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            let from = numbers.last().copied().unwrap_or(0);
            // Pages that overlap would hide a row that is there twice: by number, not by position.
            let query = format!(
                "select records_count from pipeline_metrics where daemon = 'pusher' and \
                 records_count > {from} and records_count <= {} order by records_count",
                from + 500_000
            );
            let page = self.sql(&query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
            if page.is_empty() {
                let rest = format!(
                    "select count() from pipeline_metrics where daemon = 'pusher' and \
                     records_count > {from}"
                );
                if self.number(&rest).await == 0 {
                    return numbers;
                }
            }
            numbers.extend(page.iter().map(|row| row[0].as_u64().unwrap()));
        }
    }

    /// Rows that `sample_gaps` tells as lost from the pushed table.
    pub async fn counted_as_lost(&self) -> u64 {
        let gaps =
            "select sum(rows) from sample_gaps where table_name in ('pipeline_metrics', '*')";
        self.number(gaps).await
    }

    /// Asserts that every acknowledged row is stored, and none twice or with another value.
    pub async fn assert_exactly_once(&self, pushed: &Pushed) {
        let Compared { missing, .. } = self.compare(pushed).await;
        assert!(missing.is_empty(), "{} acknowledged rows missing: {missing:?}", missing.len());
    }

    /// Compares what is stored with what was acknowledged; panics when a row is there twice.
    pub async fn compare(&self, pushed: &Pushed) -> Compared {
        assert!(!pushed.acknowledged.is_empty(), "nothing was acknowledged");
        self.settled().await;
        let numbers = self.stored().await;
        let doubled: Vec<u64> =
            numbers.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        let stored: BTreeSet<u64> = numbers.iter().copied().collect();
        let missing: Vec<u64> = pushed.acknowledged.difference(&stored).copied().collect();
        println!(
            "{} sent, {} acknowledged at {:.0} rows/s, {} in memory only, {} stored, {} missing, \
             {} doubled",
            pushed.sent,
            pushed.acknowledged.len(),
            pushed.rate,
            pushed.in_memory.len(),
            numbers.len(),
            missing.len(),
            doubled.len()
        );
        assert!(doubled.is_empty(), "{} rows doubled: {doubled:?}", doubled.len());
        assert_eq!(self.number(WRONG_VALUES).await, 0, "rows with another value than was pushed");
        Compared { missing, stored }
    }
}

/// What [`Rig::compare`] finds.
pub struct Compared {
    /// Acknowledged and not stored.
    pub missing: Vec<u64>,
    /// Stored.
    pub stored: BTreeSet<u64>,
}

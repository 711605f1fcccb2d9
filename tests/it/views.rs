//! Hourly views on the real databases: made, filled, left alone, made anew where that loses
//! nothing, and else named with the command that does it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use periscope::base::health::Part;
use periscope::base::http::Client;
use periscope::config::Retention;
use periscope::model::table::{EXCHANGE_STATUS, TABLES};
use periscope::model::view::VIEWS;
use periscope::store::exec::Target;
use periscope::store::views::Views;
use serde_json::Value;

use crate::support::periscope::VERSIONS;
use crate::support::questdb::QuestDb;
use crate::support::store::{LONG, Running, endpoint, rows, wait_for_rows};
use crate::support::wait::until;

/// A server with all tables, and what looks after its views.
struct Rig {
    questdb: QuestDb,
    target: Target,
    client: Client,
    views: Views,
}

impl Rig {
    async fn start(version: &str) -> Self {
        let questdb = QuestDb::start(version).await;
        for table in TABLES {
            questdb.sql(&table.ddl(table.ttl_days)).await.unwrap();
        }
        let target = Target::new(&endpoint(&questdb, questdb.http_port)).unwrap();
        let views = Views::new(Arc::default());
        Self { questdb, target, client: Client::new().unwrap(), views }
    }

    /// Looks after the views once; returns what is wrong with them.
    async fn check(&self) -> Vec<String> {
        self.check_by(&self.views).await
    }

    async fn check_by(&self, views: &Views) -> Vec<String> {
        views.check(&self.target, &self.client, |_| true).await.unwrap();
        views.reasons()
    }

    /// Inserts one row of `exchange_status` this many hours ago.
    async fn row(&self, table: &str, hours_ago: u32) {
        let sql = format!(
            "insert into {table} (timestamp, exchange, daemon, host, env, connected, latency_ms) \
             values (dateadd('h', -{hours_ago}, now()), 'x', 'd', 'h', 'dev', true, 5.0)"
        );
        self.questdb.sql(&sql).await.unwrap();
    }

    async fn hours(&self, expected: usize) {
        let sql = "select timestamp, latency_ms from exchange_status_1h where connected_last = 1";
        until("the hours of the view", LONG, || async {
            let found = self.questdb.sql(sql).await?;
            if found.len() == expected { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    /// Name and folder of every view: another folder means another view.
    async fn found(&self) -> Vec<Vec<Value>> {
        let sql = "select view_name, view_table_dir_name from materialized_views() \
                   order by view_name";
        // The server leaves a view out while it writes down its state.
        until("all views", LONG, || async {
            let found = self.questdb.sql(sql).await?;
            if found.len() == VIEWS.len() { Ok(found) } else { Err(format!("{found:?}")) }
        })
        .await
    }

    async fn until_status(&self, wanted: &str) {
        let sql = "select view_status from materialized_views() \
                   where view_name = 'exchange_status_1h'";
        until(wanted, LONG, || async {
            let found = self.questdb.sql(sql).await?;
            if found.first().is_some_and(|row| row[0] == wanted) {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn views_are_made_filled_and_left_alone() {
    for version in VERSIONS {
        let rig = Rig::start(version).await;
        rig.row("exchange_status", 3).await;
        assert_eq!(rig.check().await, [""; 0]);
        let made = rig.found().await;
        assert_eq!(made.len(), VIEWS.len(), "{made:?}");
        rig.row("exchange_status", 0).await;
        rig.hours(2).await;
        assert_eq!(rig.check().await, [""; 0]);
        let again = rig.found().await;
        assert_eq!(made, again, "{version}: a view was made anew");
        // Another retention is brought over without making it anew.
        let tables = BTreeMap::from([(EXCHANGE_STATUS.name.to_owned(), 7)]);
        let shorter = Views::new(Arc::new(Retention { default_days: None, tables }));
        assert_eq!(rig.check_by(&shorter).await, [""; 0]);
        let ttl = "select ttlValue, ttlUnit from tables() where table_name = 'exchange_status_1h'";
        until("the retention", LONG, || async {
            let found = rig.questdb.sql(ttl).await?;
            let is_set = matches!(found[0].as_slice(), [value, unit]
                if (value == 7 && unit == "DAY") || (value == 1 && unit == "WEEK"));
            if is_set { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        assert_eq!(made, rig.found().await);
    }
}

#[tokio::test]
async fn an_invalid_view_is_refreshed_only_when_its_table_still_has_every_hour() {
    for version in VERSIONS {
        let rig = Rig::start(version).await;
        rig.row("exchange_status", 3).await;
        assert_eq!(rig.check().await, [""; 0]);
        rig.hours(1).await;
        rig.questdb.sql("truncate table exchange_status").await.unwrap();
        rig.until_status("invalid").await;
        rig.row("exchange_status", 0).await;
        let told = rig.check().await.join("; ");
        assert!(told.contains("view exchange_status_1h is invalid (truncate operation)"), "{told}");
        assert!(
            told.contains("it then lacks 1 hours that exchange_status has no longer"),
            "{told}"
        );
        assert_eq!(rig.check().await.join("; "), told, "it stays told between two looks");
        rig.hours(1).await;
        // The command as it is told.
        let command = told.split('"').nth(1).unwrap();
        rig.questdb.sql(command).await.unwrap();
        rig.until_status("valid").await;
        assert_eq!(rig.check().await, [""; 0]);
        // Renamed away and back in another table: the same hours, so nothing can be lost.
        rig.questdb.sql("rename table exchange_status to aside").await.unwrap();
        rig.until_status("invalid").await;
        rig.questdb.sql(&EXCHANGE_STATUS.ddl(90)).await.unwrap();
        rig.questdb.sql("insert into exchange_status select * from aside").await.unwrap();
        until("the rows", LONG, || async {
            let found = rig.questdb.number("select count() from exchange_status").await;
            if found == 1 { Ok(()) } else { Err(found) }
        })
        .await;
        let told = rig.check().await.join("; ");
        assert!(told.contains("it is being made anew"), "{told}");
        rig.until_status("valid").await;
        assert_eq!(rig.check().await, [""; 0]);
        rig.row("exchange_status", 5).await;
        rig.hours(2).await;
    }
}

#[tokio::test]
async fn a_view_of_another_version_is_made_anew_and_a_table_of_its_name_is_named() {
    for version in VERSIONS {
        let rig = Rig::start(version).await;
        rig.row("exchange_status", 3).await;
        let older = "create materialized view exchange_status_1h with base exchange_status \
                     refresh immediate as (select timestamp, exchange, max(latency_ms) as l \
                     from exchange_status sample by 1h) partition by day";
        rig.questdb.sql(older).await.unwrap();
        rig.questdb.sql("create table daemon_metrics_1h (x long)").await.unwrap();
        let told = rig.check().await.join("; ");
        assert!(told.contains("exchange_status_1h has another query"), "{told}");
        let command = "run \"RENAME TABLE daemon_metrics_1h TO daemon_metrics_1h_old\"";
        assert!(told.contains(command), "{told}");
        rig.hours(1).await;
        rig.questdb.sql("RENAME TABLE daemon_metrics_1h TO daemon_metrics_1h_old").await.unwrap();
        assert_eq!(rig.check().await, [""; 0]);
        assert_eq!(rig.found().await.len(), VIEWS.len());
    }
}

/// The store itself: views come with the tables, and what is wrong with one is told in its health.
#[tokio::test]
async fn the_store_makes_the_views_and_tells_of_an_invalid_one() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let store = Running::start();
    store.ready(&questdb, 1);
    store.push(rows(0..10));
    wait_for_rows(&questdb, 10).await;
    let hours = "select count() from daemon_metrics_1h";
    until("the view", LONG, || async {
        let found = questdb.sql(hours).await?;
        if found[0][0] == 1 { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    store.health_ok(Part::Schema).await;
    questdb.sql("truncate table daemon_metrics").await.unwrap();
    let told = store.health(Part::Schema, "view daemon_metrics_1h is invalid").await;
    questdb.sql(told.split('"').nth(1).unwrap()).await.unwrap();
    store.health_ok(Part::Schema).await;
    tokio::time::timeout(Duration::from_secs(30), store.stop()).await.unwrap();
}

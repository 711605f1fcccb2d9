//! Hourly views as declared: made after the tables, and watched. A view that the server has given
//! up, or that an earlier version made, is made anew where that loses nothing; else it is named with
//! the command that does it. Dashboards read views, delivery does not: none of this holds up rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::exec::{ExecError, Target};
use super::schema::ttl_hours;
use crate::base::http::Client;
use crate::config::Retention;
use crate::model::table::Table;
use crate::model::view::{VIEWS, View};

/// First pause between two looks at whether a view can be made anew; doubled up to the longest.
const REMAKE_PAUSE: Duration = Duration::from_secs(15);
/// The look counts the hours of the whole table: some seconds for a large one.
const REMAKE_PAUSE_LIMIT: Duration = Duration::from_secs(600);
/// A view that was never refreshed for this long is told.
const NEVER_REFRESHED: Duration = Duration::from_secs(120);

/// A view, or whatever has its name, as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The query of the view; `None` when it is a table, or a view of which nothing can be read.
    pub query: Option<String>,
    /// Whether it is a view.
    pub is_view: bool,
    /// Why the server has given it up; `None` while it is valid.
    pub invalid: Option<String>,
    /// Whether rows of its table are in it, as far as the table has any.
    pub refreshed: bool,
    /// Hours that rows are kept; `None`: for ever.
    pub ttl_hours: Option<u64>,
}

/// What has to happen to a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Nothing.
    Sound,
    /// This statement, which loses nothing.
    Run(String),
    /// These statements, if the table still has every hour of the view.
    Remake {
        /// What is wrong, in words that follow the name.
        fault: String,
        /// What makes the view anew from its table.
        statements: Vec<String>,
    },
    /// Only a person may change it: what is wrong and how.
    Foreign(String),
}

/// Compares `found` with the declared `view`, whose rows are to be kept `days` days. Pure.
pub fn plan(view: &View, found: Option<&Found>, days: u32) -> Plan {
    let name = view.name;
    let Some(found) = found else { return Plan::Run(view.ddl(days)) };
    let Some(query) = &found.query else {
        if found.is_view {
            // The server leaves a view out of its list while it writes down the state of it. The
            // next look finds it there.
            return Plan::Sound;
        }
        return Plan::Foreign(format!(
            "{name} is a table and no view: run \"RENAME TABLE {name} TO {name}_old\" and periscope \
             makes the view"
        ));
    };
    if query.trim() != view.query() {
        let statements = vec![format!("DROP MATERIALIZED VIEW {name}"), view.ddl(days)];
        return Plan::Remake { fault: "has another query than this version's".into(), statements };
    }
    if let Some(reason) = &found.invalid {
        let statements = vec![format!("REFRESH MATERIALIZED VIEW {name} FULL")];
        return Plan::Remake { fault: format!("is invalid ({reason})"), statements };
    }
    if found.ttl_hours != Some(u64::from(days).saturating_mul(24)) {
        return Plan::Run(format!("ALTER MATERIALIZED VIEW {name} SET TTL {days} DAYS"));
    }
    Plan::Sound
}

/// What is remembered of a view that is not as it should be.
#[derive(Debug)]
struct Trouble {
    reason: String,
    /// When it is looked at again whether it can be made anew.
    next: Instant,
    pause: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Whether every view has been looked at, and made if there was none.
    looked: bool,
    troubles: BTreeMap<&'static str, Trouble>,
    /// Since when a view has not been refreshed at all.
    empty: BTreeMap<&'static str, Instant>,
}

/// Clones share the state.
#[derive(Debug, Clone)]
pub struct Views {
    state: Arc<Mutex<State>>,
    retention: Arc<Retention>,
}

impl Views {
    /// Makes one that knows nothing yet.
    pub fn new(retention: Arc<Retention>) -> Self {
        Self { state: Arc::default(), retention }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is wrong and the next step, for each view that is not well.
    pub fn reasons(&self) -> Vec<String> {
        self.lock().troubles.values().map(|trouble| trouble.reason.clone()).collect()
    }

    /// Whether every view of this server has been looked at, and made if there was none.
    pub fn looked(&self) -> bool {
        self.lock().looked
    }

    /// Forgets everything: another server has come up.
    pub fn forget(&self) {
        *self.lock() = State::default();
    }

    /// Brings every view to what is declared whose table `is_ours`.
    ///
    /// # Errors
    /// The server does not answer. A statement that it refuses is a reason instead.
    pub async fn check(
        &self,
        target: &Target,
        client: &Client,
        is_ours: impl Fn(&Table) -> bool + Send,
    ) -> Result<(), ExecError> {
        let found = look(target, client).await?;
        for view in VIEWS {
            if !is_ours(view.base) {
                // Its table is named already.
                self.lock().troubles.remove(view.name);
                continue;
            }
            match self.ensure(target, client, view, found.get(view.name)).await {
                Ok(None) => {
                    self.lock().troubles.remove(view.name);
                }
                Ok(Some(reason)) => self.trouble(view.name, reason),
                Err(ExecError::Statement { statement, reason, .. }) => {
                    let statement = statement.lines().next().unwrap_or_default().to_owned();
                    let text =
                        format!("view {}: questdb refuses {statement:?}: {reason}", view.name);
                    self.trouble(view.name, text);
                }
                Err(error) => return Err(error),
            }
        }
        self.lock().looked = true;
        Ok(())
    }

    /// Returns what is left to say about `view`.
    async fn ensure(
        &self,
        target: &Target,
        client: &Client,
        view: &View,
        found: Option<&Found>,
    ) -> Result<Option<String>, ExecError> {
        match plan(view, found, self.retention.days(view.base)) {
            Plan::Sound => Ok(self.never_refreshed(view, found)),
            Plan::Foreign(reason) => Ok(Some(reason)),
            Plan::Run(statement) => {
                run(target, client, view, &statement).await?;
                Ok(None)
            }
            Plan::Remake { fault, statements } => {
                if !self.may_look(view.name) {
                    return Ok(self.lock().troubles.get(view.name).map(|one| one.reason.clone()));
                }
                let lost = lost_hours(target, client, view).await?;
                if lost > 0 {
                    return Ok(Some(remedy(view, &fault, lost, &statements)));
                }
                tracing::warn!(view = view.name, %fault, "made anew, nothing is lost by it");
                for statement in &statements {
                    run(target, client, view, statement).await?;
                }
                // Looked at again after the pause: by then it should be well.
                Ok(Some(format!("view {} {fault}: it is being made anew", view.name)))
            }
        }
    }

    /// Whether it is time to look at whether a view can be made anew; the next time is set.
    fn may_look(&self, name: &'static str) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let fresh = Trouble { reason: String::new(), next: now, pause: REMAKE_PAUSE };
        let trouble = state.troubles.entry(name).or_insert(fresh);
        if now < trouble.next {
            return false;
        }
        trouble.next = now + trouble.pause;
        trouble.pause = trouble.pause.saturating_mul(2).min(REMAKE_PAUSE_LIMIT);
        true
    }

    fn trouble(&self, name: &'static str, reason: String) {
        let mut state = self.lock();
        let fresh = Trouble { reason: String::new(), next: Instant::now(), pause: REMAKE_PAUSE };
        let trouble = state.troubles.entry(name).or_insert(fresh);
        if trouble.reason != reason {
            tracing::debug!(view = name, %reason, "view");
        }
        trouble.reason = reason;
    }

    /// Returns what to say about a view that its server never fills.
    fn never_refreshed(&self, view: &View, found: Option<&Found>) -> Option<String> {
        let mut state = self.lock();
        if found.is_none_or(|found| found.refreshed) {
            state.empty.remove(view.name);
            return None;
        }
        let since = *state.empty.entry(view.name).or_insert_with(Instant::now);
        (since.elapsed() >= NEVER_REFRESHED).then(|| {
            format!(
                "view {} stays empty: set mat.view.refresh.worker.count=1 in the server.conf of \
                 questdb and restart it",
                view.name
            )
        })
    }
}

/// Says what only a person may decide.
fn remedy(view: &View, fault: &str, lost: u64, statements: &[String]) -> String {
    let first = statements.first().map(String::as_str).unwrap_or_default();
    let then = if statements.len() > 1 { " and periscope makes it again" } else { "" };
    format!(
        "view {} {fault} and stands still: run \"{first}\"{then}; it then lacks {lost} hours that \
         {} has no longer",
        view.name, view.base.name
    )
}

async fn run(
    target: &Target,
    client: &Client,
    view: &View,
    statement: &str,
) -> Result<(), ExecError> {
    target.exec(client, statement).await?;
    let done = statement.lines().next().unwrap_or_default();
    tracing::info!(view = view.name, statement = done, "view changed");
    Ok(())
}

/// Asks the server about all views.
async fn look(
    target: &Target,
    client: &Client,
) -> Result<BTreeMap<&'static str, Found>, ExecError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let views = "select view_name, view_sql, view_status, invalidation_reason, \
                 last_refresh_finish_timestamp, base_table_txn from materialized_views()";
    let views = target.exec(client, views).await?;
    let kept = "select table_name, ttlValue, ttlUnit, matView from tables()";
    let kept = target.exec(client, kept).await?;
    let mut found = BTreeMap::new();
    for view in VIEWS {
        let is_it = |value: &Value| value.as_str() == Some(view.name);
        let Some(table) = kept.iter().find(|row| is_it(row.get("table_name"))) else { continue };
        let facts = views.iter().find(|row| is_it(row.get("view_name")));
        let invalid = facts.filter(|row| row.get("view_status").as_str() == Some("invalid"));
        let refreshed = facts.is_none_or(|row| {
            row.get("last_refresh_finish_timestamp").is_string()
                || row.get("base_table_txn").as_u64().unwrap_or(0) == 0
        });
        let ttl = table.get("ttlValue").as_u64().unwrap_or(0);
        let one = Found {
            query: facts.map(|row| text(row.get("view_sql"))),
            is_view: table.get("matView").as_bool().unwrap_or(false),
            invalid: invalid.map(|row| text(row.get("invalidation_reason"))),
            refreshed,
            ttl_hours: ttl_hours(ttl, &text(table.get("ttlUnit"))),
        };
        found.insert(view.name, one);
    }
    Ok(found)
}

/// Returns how many hours of the view its table has no row of any longer.
async fn lost_hours(target: &Target, client: &Client, view: &View) -> Result<u64, ExecError> {
    let (name, base) = (view.name, view.base.name);
    let sql = format!(
        "select count() as lost from ((select distinct timestamp from {name}) except \
         (select timestamp from (select timestamp, count() from {base} sample by 1h)))"
    );
    let rows = target.exec(client, &sql).await?;
    Ok(rows.iter().next().and_then(|row| row.get("lost").as_u64()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::view::EXCHANGE_STATUS_1H;

    fn found() -> Found {
        Found {
            query: Some(format!("\n    {}\n", EXCHANGE_STATUS_1H.query())),
            is_view: true,
            invalid: None,
            refreshed: true,
            ttl_hours: Some(90 * 24),
        }
    }

    fn planned(change: impl FnOnce(&mut Found)) -> Plan {
        let mut found = found();
        change(&mut found);
        plan(&EXCHANGE_STATUS_1H, Some(&found), 90)
    }

    #[test]
    fn a_missing_view_is_made_and_another_retention_is_set() {
        assert_eq!(planned(|_| {}), Plan::Sound);
        let Plan::Run(made) = plan(&EXCHANGE_STATUS_1H, None, 7) else { panic!("not made") };
        assert!(made.starts_with("CREATE MATERIALIZED VIEW IF NOT EXISTS exchange_status_1h"));
        assert!(made.contains("TTL 7 DAYS"), "{made}");
        let ttl = "ALTER MATERIALIZED VIEW exchange_status_1h SET TTL 90 DAYS";
        assert_eq!(planned(|found| found.ttl_hours = None), Plan::Run(ttl.to_owned()));
    }

    #[test]
    fn an_invalid_or_older_view_is_made_anew_and_a_table_of_its_name_is_not_touched() {
        let reason = || Some("truncate operation".to_owned());
        let Plan::Remake { fault, statements } = planned(|found| found.invalid = reason()) else {
            panic!("left as it is")
        };
        assert_eq!(statements, ["REFRESH MATERIALIZED VIEW exchange_status_1h FULL"]);
        let told = remedy(&EXCHANGE_STATUS_1H, &fault, 3, &statements);
        assert!(told.contains("is invalid (truncate operation)"), "{told}");
        assert!(
            told.contains("run \"REFRESH MATERIALIZED VIEW exchange_status_1h FULL\""),
            "{told}"
        );
        let older = planned(|found| found.query = Some("SELECT 1".to_owned()));
        let Plan::Remake { statements, .. } = older else { panic!("{older:?}") };
        assert_eq!(statements[0], "DROP MATERIALIZED VIEW exchange_status_1h");
        assert_eq!(statements.len(), 2);
        let table = planned(|found| (found.query, found.is_view) = (None, false));
        assert!(matches!(table, Plan::Foreign(text) if text.contains("RENAME TABLE")));
    }

    /// Renaming it, as was once told, would have taken a good view away.
    #[test]
    fn a_view_whose_state_is_being_written_is_no_table() {
        assert_eq!(planned(|found| found.query = None), Plan::Sound);
    }

    #[test]
    fn whether_a_view_can_be_made_anew_is_asked_less_and_less_often() {
        let views = Views::new(Arc::default());
        assert!(views.may_look("x"));
        assert!(!views.may_look("x"));
        let mut state = views.lock();
        let trouble = state.troubles.get_mut("x").unwrap();
        assert_eq!(trouble.pause, REMAKE_PAUSE * 2);
        trouble.pause = REMAKE_PAUSE_LIMIT;
        trouble.next = Instant::now();
        drop(state);
        assert!(views.may_look("x"));
        assert_eq!(views.lock().troubles["x"].pause, REMAKE_PAUSE_LIMIT);
    }
}

//! The six dashboards, from declarations to the JSON that Grafana and periscope's viewer read.
//! `dashboards/*.json` in the repository is their committed output; a test compares it.

mod alerts;
mod exchange;
mod health;
pub mod json;
pub mod lint;
mod look;
mod marks;
pub mod panel;
mod pipeline;
pub mod sql;
pub mod style;
mod system;
mod trading;

use crate::rules::rule::Rule;
use panel::Dashboard;

/// Fixed uid of periscope's data source.
pub const DATASOURCE_UID: &str = "periscope-questdb";
/// Name of periscope's data source.
pub const DATASOURCE_NAME: &str = "QuestDB (periscope)";
/// Title of the folder that holds the dashboards.
pub const FOLDER: &str = "Trading";
/// Tag of every dashboard; the links between them find each other by it.
pub const TAG: &str = "periscope";

/// Through which of Grafana's data sources the dashboards ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Datasource {
    /// The bundled PostgreSQL data source.
    #[default]
    Postgres,
    /// QuestDB's own plugin.
    Questdb,
}

impl Datasource {
    /// Returns the data source that `[grafana] datasource` names; `None` for an unknown one.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "postgres" => Some(Self::Postgres),
            "questdb" => Some(Self::Questdb),
            _ => None,
        }
    }

    /// Grafana's id of the plugin.
    pub const fn plugin(self) -> &'static str {
        match self {
            Self::Postgres => "grafana-postgresql-datasource",
            Self::Questdb => "questdb-questdb-datasource",
        }
    }
}

/// Returns the uid of the dashboard called `name`.
pub fn uid(name: &str) -> String {
    format!("periscope-{name}")
}

/// Returns all dashboards, in the order of the files.
pub fn all() -> [Dashboard; 6] {
    [
        alerts::dashboard(),
        exchange::dashboard(),
        health::dashboard(),
        pipeline::dashboard(),
        system::dashboard(),
        trading::dashboard(),
    ]
}

/// Returns name and text of every dashboard file, for the PostgreSQL data source.
///
/// `thresholds` gives the threshold of an alert rule by its id and severity (`warning` or
/// `critical`), in the unit of the column that the rule reads.
pub fn render(thresholds: &dyn Fn(&str, &str) -> Option<f64>) -> Vec<(String, String)> {
    render_for(Datasource::Postgres, thresholds)
}

/// As [`render`], for `datasource`.
pub fn render_for(
    datasource: Datasource,
    thresholds: &dyn Fn(&str, &str) -> Option<f64>,
) -> Vec<(String, String)> {
    let file =
        |one: &Dashboard| (format!("{}.json", one.name), json::file(one, datasource, thresholds));
    all().iter().map(file).collect()
}

/// Returns the id of the panel that alert rules call `key` on the dashboard with that `uid`.
pub fn panel_id(dashboard_uid: &str, key: &str) -> Option<u32> {
    let dashboard = all().into_iter().find(|one| uid(one.name) == dashboard_uid)?;
    dashboard.panels().find(|panel| panel.key == key).map(|panel| panel.id)
}

/// Returns the thresholds of `rules` as [`render_for`] asks for them: by id and severity, and as
/// `ID.for` how long the rule waits, seconds.
pub fn thresholds(rules: &[Rule]) -> impl Fn(&str, &str) -> Option<f64> {
    move |id, severity| {
        let (id, is_hold) = id.strip_suffix(".for").map_or((id, false), |id| (id, true));
        let of = |rule: &&Rule| rule.id == id && rule.severity.word() == severity;
        let rule = rules.iter().find(of)?;
        Some(if is_hold { rule.hold.as_secs_f64() } else { rule.limit.threshold })
    }
}

/// Returns uid of the dashboard and id of the panel that explain the alert rule `rule`, for the
/// link in its message; `None` if no panel does.
pub fn panel_of(rule: &str) -> Option<(String, u32)> {
    all().iter().find_map(|dashboard| {
        let panel = dashboard.panels().find(|panel| panel.rules.contains(&rule))?;
        Some((uid(dashboard.name), panel.id))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::panel::Kind;
    use super::*;
    use crate::rules::catalog;

    /// The thresholds of the shipped rules.
    fn shipped(rule: &str, severity: &str) -> Option<f64> {
        thresholds(&catalog::shipped().unwrap())(rule, severity)
    }

    /// `UPDATE_GOLDEN=1 cargo test --lib dashboards` renews the files.
    #[test]
    fn panels_are_coloured_by_the_rules() {
        let rules = catalog::shipped().unwrap();
        let threshold = thresholds(&rules);
        assert_eq!(threshold("daemon_memory", "critical"), Some(1_200e6));
        assert_eq!(threshold("exchange_disconnected.for", "critical"), Some(300.0));
        assert_eq!(threshold("daemon_memory", "nothing"), None);
        assert_eq!(threshold("no_such_rule", "warning"), None);
    }

    #[test]
    fn the_committed_dashboards_are_those_of_the_declarations() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
        let rendered = render(&shipped);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            for (file, text) in &rendered {
                std::fs::write(folder.join(file), text).unwrap();
            }
        }
        for (file, text) in &rendered {
            let committed = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
            assert!(
                committed == *text,
                "dashboards/{file} is not what the declarations give; UPDATE_GOLDEN=1 renews it"
            );
        }
        let files = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(files, rendered.len(), "a file in dashboards/ that nothing makes");
    }

    #[test]
    fn rendering_twice_gives_the_same_bytes() {
        assert_eq!(render(&shipped), render(&shipped));
        assert_ne!(render(&shipped), render_for(Datasource::Questdb, &shipped));
    }

    #[test]
    fn ids_and_keys_are_unique_and_titles_of_dashboards_are_no_folder() {
        let mut uids = BTreeSet::new();
        for dashboard in all() {
            assert!(uids.insert(uid(dashboard.name)));
            // Grafana refuses to reload rules whose folder is called like a dashboard.
            assert_ne!(dashboard.title, FOLDER);
            let mut ids = BTreeSet::new();
            let mut keys = BTreeSet::new();
            for panel in dashboard.panels() {
                assert!(ids.insert(panel.id), "{}: id {}", dashboard.name, panel.id);
                assert!(keys.insert(panel.key), "{}: key {}", dashboard.name, panel.key);
                assert!(panel.queries.len() <= 4, "{}: no letter for a query", panel.title);
            }
            for section in &dashboard.sections {
                assert!(ids.insert(section.id), "{}: id {}", dashboard.name, section.id);
            }
        }
    }

    /// Requirement → dashboard → panel; nothing asked for is missing.
    #[test]
    fn every_panel_of_the_requirements_is_there() {
        let wanted: &[(&str, &str, &str, Kind)] = &[
            ("A1 status per daemon", "health", "status", Kind::Stat),
            ("A1 state timeline", "health", "state_timeline", Kind::StateTimeline),
            ("A1 uptime", "health", "uptime", Kind::Stat),
            ("A1 memory now", "health", "memory_now", Kind::BarGauge),
            ("A1 memory trend", "health", "memory", Kind::TimeSeries),
            ("A1 CPU", "health", "cpu", Kind::TimeSeries),
            ("A1 process restarts", "health", "restarts", Kind::Stat),
            ("A1 last error with time", "health", "last_errors", Kind::Table),
            ("A3 error rate with threshold", "health", "error_rate", Kind::TimeSeries),
            ("R7 fetch rate", "health", "fetch_rate", Kind::TimeSeries),
            ("R7 event-loop lag", "health", "event_loop_lag", Kind::TimeSeries),
            ("A4 OI fetches/h per exchange", "pipeline", "oi_fetches", Kind::TimeSeries),
            ("A4 funding fetches/h", "pipeline", "funding_fetches", Kind::TimeSeries),
            ("A6 liquidations/min", "pipeline", "liquidations", Kind::TimeSeries),
            ("A5 gaps timeline", "pipeline", "gaps", Kind::StateTimeline),
            ("A5 gaps with duration and symbols", "pipeline", "gap_list", Kind::Table),
            ("R7 storage growth", "pipeline", "storage_growth", Kind::TimeSeries),
            ("R7 pipeline latency", "pipeline", "latency", Kind::TimeSeries),
            ("A7 connection per exchange", "exchange", "connection", Kind::Stat),
            ("A2 disconnected since", "exchange", "downtimes", Kind::Table),
            ("A8 disconnected for", "exchange", "disconnected_for", Kind::BarGauge),
            ("R7 latency 100/300/500 ms", "exchange", "latency", Kind::TimeSeries),
            ("R7 reconnections", "exchange", "reconnections", Kind::BarGauge),
            ("R7 last message age", "exchange", "last_message_age", Kind::BarGauge),
            ("R7 rate-limit status", "exchange", "rate_limit", Kind::TimeSeries),
            ("A9 downtime timeline", "exchange", "downtime", Kind::StateTimeline),
            ("A13 PnL now", "trading", "pnl_now", Kind::Stat),
            ("A13 PnL over time, realised", "trading", "pnl", Kind::TimeSeries),
            ("A13 PnL over time, unrealised", "trading", "unrealized", Kind::TimeSeries),
            ("A14 orders/min", "trading", "orders", Kind::TimeSeries),
            ("R7 fill rate", "trading", "fill_rate", Kind::TimeSeries),
            ("A15 exposure per symbol", "trading", "exposure_now", Kind::BarGauge),
            ("R7 open orders", "trading", "orders_open", Kind::TimeSeries),
            ("R7 drawdown", "trading", "drawdown", Kind::TimeSeries),
            ("R7 strategy table", "trading", "strategies", Kind::Table),
            ("R7 firing now", "alerts", "firing", Kind::Table),
            ("A12 history with status", "alerts", "history", Kind::Table),
            ("R7 alerts by path", "alerts", "by_path", Kind::TimeSeries),
            ("R7 spool", "system", "spool", Kind::TimeSeries),
            ("R7 write latency", "system", "write_latency", Kind::TimeSeries),
            ("R7 WAL lag", "system", "wal_lag", Kind::TimeSeries),
            ("R7 disk", "system", "disk", Kind::TimeSeries),
            ("R7 children", "system", "children", Kind::Stat),
        ];
        let dashboards = all();
        for (requirement, name, key, kind) in wanted {
            let dashboard = dashboards.iter().find(|one| one.name == *name).unwrap();
            let panel = dashboard.panels().find(|panel| panel.key == *key);
            let found = panel.map(|panel| panel.kind);
            assert_eq!(found, Some(*kind), "{requirement}: {name}/{key}");
        }
    }

    #[test]
    fn every_shipped_rule_has_a_panel_that_explains_it() {
        let shipped = catalog::shipped().unwrap();
        let rules: BTreeSet<&str> = shipped.iter().map(|rule| rule.id.as_str()).collect();
        for rule in &rules {
            let (uid, id) = panel_of(rule).unwrap_or_else(|| panic!("{rule} has no panel"));
            assert!(uid.starts_with("periscope-") && id > 0);
        }
        let declared: BTreeSet<&str> = all()
            .iter()
            .flat_map(|one| one.panels().flat_map(|panel| panel.rules))
            .copied()
            .collect();
        assert_eq!(declared, rules, "a panel explains a rule that does not exist");
        assert_eq!(panel_of("no_such_rule"), None);
    }

    #[test]
    fn alert_rules_find_their_panels_by_name() {
        assert_eq!(panel_id("periscope-health", "status"), Some(1));
        assert_eq!(panel_id("periscope-health", "no_such_panel"), None);
        assert_eq!(panel_id("periscope-nothing", "status"), None);
    }
}

//! The tree of causes: an alert that another one explains is told inside that one.

use std::collections::BTreeMap;

use super::super::book::{Series, Via};
use crate::rules::rule::{Labels, Level, Rule};

/// An alert that fires.
#[derive(Debug, Clone, Copy)]
pub struct Firing<'a> {
    /// Fingerprint.
    pub key: &'a str,
    /// The series.
    pub series: &'a Series,
    /// Its rule.
    pub rule: &'a Rule,
}

/// Returns for each alert that is explained the fingerprint of its root cause.
pub fn causes<'a>(firing: &[Firing<'a>]) -> BTreeMap<&'a str, &'a str> {
    let mut index: BTreeMap<(Level, &Labels), &Firing<'a>> = BTreeMap::new();
    let mut shapes: Vec<(Level, Vec<&str>)> = Vec::new();
    for cause in firing.iter().filter(|alert| alert.rule.explains) {
        let names: Vec<&str> = cause.series.labels.keys().map(String::as_str).collect();
        if !shapes.contains(&(cause.rule.level, names.clone())) {
            shapes.push((cause.rule.level, names));
        }
        index.entry((cause.rule.level, &cause.series.labels)).or_insert(cause);
    }
    // The highest first: it is the root.
    shapes.sort();
    let mut causes = BTreeMap::new();
    for alert in firing {
        for (level, names) in shapes.iter().filter(|(level, _)| *level < alert.rule.level) {
            if *level == Level::Questdb && alert.series.via != Via::Database {
                // What was not read from the database cannot be wrong because of it.
                continue;
            }
            let Some(labels) = part(&alert.series.labels, names) else { continue };
            if let Some(cause) = index.get(&(*level, &labels)) {
                causes.insert(alert.key, cause.key);
                break;
            }
        }
    }
    causes
}

/// Returns the labels called `names`; `None` when one is missing.
fn part(labels: &Labels, names: &[&str]) -> Option<Labels> {
    names
        .iter()
        .map(|name| labels.get(*name).map(|value| ((*name).to_owned(), value.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::severity::Severity;
    use crate::rules::catalog;

    fn series(id: &str, severity: Severity, labels: &[(&str, &str)]) -> (Rule, Series) {
        let rule = catalog::find(id, severity).unwrap();
        let labels = labels.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        (rule.clone(), Series::new(rule.uid(), labels))
    }

    fn explained(alerts: &[(&str, (Rule, Series))]) -> Vec<(String, String)> {
        let firing: Vec<Firing<'_>> =
            alerts.iter().map(|(key, (rule, series))| Firing { key, series, rule }).collect();
        let found = causes(&firing).into_iter();
        found.map(|(child, cause)| (child.to_owned(), cause.to_owned())).collect()
    }

    const HOST: [(&str, &str); 2] = [("env", "dev"), ("host", "h")];

    fn daemon(name: &'static str) -> [(&'static str, &'static str); 3] {
        [HOST[0], HOST[1], ("daemon", name)]
    }

    fn venue(name: &'static str) -> [(&'static str, &'static str); 4] {
        [HOST[0], HOST[1], ("daemon", name), ("exchange", "binance")]
    }

    use Severity::{Critical, Warning};

    #[test]
    fn a_dead_daemon_explains_its_venues_and_no_others() {
        let alerts = [
            ("down", series("daemon_unreachable", Critical, &daemon("a"))),
            ("silent", series("exchange_silent", Critical, &venue("a"))),
            ("other", series("exchange_silent", Critical, &venue("b"))),
            ("restarted", series("daemon_restarted", Warning, &daemon("a"))),
        ];
        assert_eq!(explained(&alerts), [("silent".to_owned(), "down".to_owned())]);
    }

    #[test]
    fn the_root_explains_all_below() {
        let symbol = [&venue("a")[..], &[("symbol", "BTC"), ("data_type", "oi")]].concat();
        let alerts = [
            ("venue", series("exchange_disconnected", Warning, &venue("a"))),
            ("gap", series("pipeline_gap", Warning, &symbol)),
            ("down", series("daemon_unreachable", Critical, &daemon("a"))),
        ];
        let down = |key: &str| (key.to_owned(), "down".to_owned());
        assert_eq!(explained(&alerts), [down("gap"), down("venue")]);
        let without = explained(&alerts[..2]);
        assert_eq!(without, [("gap".to_owned(), "venue".to_owned())]);
    }

    /// With the database down a dead daemon is still a dead daemon: it was read from memory.
    #[test]
    fn a_database_explains_only_what_was_read_from_it() {
        let by_memory = {
            let (rule, mut series) = series("daemon_down", Critical, &daemon("a"));
            series.via = Via::Memory;
            (rule, series)
        };
        let alerts = [
            ("questdb", series("questdb_down", Critical, &HOST)),
            ("memory", by_memory),
            ("sql", series("daemon_down", Critical, &daemon("b"))),
        ];
        assert_eq!(explained(&alerts), [("sql".to_owned(), "questdb".to_owned())]);
    }
}

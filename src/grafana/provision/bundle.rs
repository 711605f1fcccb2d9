//! Everything that one Grafana reads, put together out of settings and rules. Pure.

use std::collections::BTreeSet;

use super::ledger::{Kind, Ledger};
use super::text::Unwritable;
use super::{File, Settings, alerting as contacts, files};
use crate::grafana::{alerting, dashboards};
use crate::rules::rule::Rule;

/// Files, and what they make.
#[derive(Debug)]
pub struct Bundle {
    /// Every file.
    pub files: Vec<File>,
    /// Uids of the alert rules.
    pub rules: BTreeSet<String>,
    /// Uids of the contact points.
    pub contact_points: BTreeSet<String>,
}

/// Returns all files for `settings` and `rules`. What `ledger` knows of earlier files and these do
/// not make is deleted by them. `replaced` are name and text of dashboards that take the place of
/// those of the same name, or come on top.
///
/// # Errors
/// A path or text that no quoting can bring into these files.
pub fn bundle(
    mut settings: Settings,
    rules: &[Rule],
    ledger: &Ledger,
    replaced: &[(String, String)],
) -> Result<Bundle, Unwritable> {
    let contact_points = contacts::uids(&settings);
    settings.retired = ledger.leftovers(Kind::ContactPoint, &contact_points);
    let uids: BTreeSet<String> = if settings.alerting {
        alerting::uids(rules).into_iter().collect()
    } else {
        BTreeSet::new()
    };
    let mut all = dashboards(&settings, rules);
    for (name, text) in replaced {
        all.retain(|(other, _)| other != name);
        all.push((name.clone(), text.clone()));
    }
    let yaml = alerting::rules(rules, options(&settings.runbooks));
    let mut files = files(&settings, &all, Some(&yaml))?;
    let gone = ledger.leftovers(Kind::Rule, &uids);
    if !gone.is_empty() {
        let text = alerting::deletions(&gone);
        files.push(File::public("provisioning/alerting/deletions.yaml", text));
        files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(Bundle { files, rules: uids, contact_points })
}

/// Returns name and JSON of every dashboard, coloured by the thresholds of `rules`.
pub fn dashboards(settings: &Settings, rules: &[Rule]) -> Vec<(String, String)> {
    dashboards::render_for(settings.datasource, &dashboards::thresholds(rules))
}

/// What alert rules link to; `runbooks` as in [`Settings::runbooks`].
pub fn options(runbooks: &str) -> alerting::Options<'_> {
    alerting::Options { runbooks: Some(runbooks), panel: &dashboards::panel_id }
}

impl Bundle {
    /// Notes in `ledger` what the files make; before they are handed out.
    pub fn note(&self, ledger: &mut Ledger) {
        for uid in &self.rules {
            ledger.add(Kind::Rule, uid);
        }
        for uid in &self.contact_points {
            ledger.add(Kind::ContactPoint, uid);
        }
    }

    /// Notes in `ledger` that Grafana has read the files: what they delete is gone.
    pub fn settle(&self, ledger: &mut Ledger) {
        for (kind, kept) in [(Kind::Rule, &self.rules), (Kind::ContactPoint, &self.contact_points)]
        {
            for uid in ledger.leftovers(kind, kept) {
                ledger.remove(kind, &uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::inputs::Place;
    use super::*;
    use crate::base::secret::Secret;
    use crate::config::Profile;
    use crate::config::load::{Request, load};
    use crate::model::server::{Endpoint, Login};
    use crate::rules::catalog;
    use crate::supervise::secrets::GrafanaSecrets;

    fn settings() -> Settings {
        let request = Request {
            file: None,
            data_dir: Some("/var/lib/periscope".into()),
            set: Vec::new(),
            remote: false,
            profile: Profile::Up,
            environment: std::collections::BTreeMap::new(),
            directory: "/".into(),
            machine: "m".to_owned(),
            check_rules: None,
        };
        let config = load(&request).unwrap().config;
        let admin = Login { user: "admin".to_owned(), password: Secret::new("a") };
        let place = Place {
            folder: "/conf".into(),
            state: "/state".into(),
            address: "127.0.0.1:3000".parse().unwrap(),
            listener: "127.0.0.1:7480".parse().unwrap(),
            questdb: Endpoint {
                http: String::new(),
                pg: "127.0.0.1:8812".to_owned(),
                database: "qdb".to_owned(),
                admin: None,
                reader: Some(Login { user: "reader".to_owned(), password: Secret::new("r") }),
            },
            secrets: GrafanaSecrets { admin, secret_key: Secret::new("k") },
        };
        Settings::of(&config, place)
    }

    fn text(bundle: &Bundle, path: &str) -> Option<String> {
        let file = bundle.files.iter().find(|file| file.path == path)?;
        Some(file.contents.reveal().to_owned())
    }

    #[test]
    fn a_rule_that_is_gone_is_deleted_until_grafana_has_read_that() {
        const DELETIONS: &str = "provisioning/alerting/deletions.yaml";
        let all = catalog::shipped().unwrap();
        let mut ledger = Ledger::default();
        let first = bundle(settings(), &all, &ledger, &[]).unwrap();
        assert_eq!(text(&first, DELETIONS), None);
        first.note(&mut ledger);
        let fewer = bundle(settings(), &all[1..], &ledger, &[]).unwrap();
        let deleted = text(&fewer, DELETIONS).unwrap();
        assert!(deleted.contains(&all[0].uid()), "{deleted}");
        assert_eq!(deleted.matches("uid:").count(), 1, "{deleted}");
        // Until it is known that Grafana has read them, they are written again and again.
        fewer.note(&mut ledger);
        let again = bundle(settings(), &all[1..], &ledger, &[]).unwrap();
        assert_eq!(again.files, fewer.files);
        again.settle(&mut ledger);
        let settled = bundle(settings(), &all[1..], &ledger, &[]).unwrap();
        assert_eq!(text(&settled, DELETIONS), None);
    }

    #[test]
    fn dashboards_can_be_replaced_by_name_and_come_on_top() {
        let rules = catalog::shipped().unwrap();
        let own = [
            ("health.json".to_owned(), "{\"uid\":\"mine\"}\n".to_owned()),
            ("more.json".to_owned(), "{}\n".to_owned()),
        ];
        let made = bundle(settings(), &rules, &Ledger::default(), &own).unwrap();
        assert_eq!(text(&made, "dashboards/Trading/health.json").unwrap(), own[0].1);
        assert_eq!(text(&made, "dashboards/Trading/more.json").unwrap(), own[1].1);
        assert!(
            text(&made, "dashboards/Trading/system.json").unwrap().contains("periscope-system")
        );
    }
}

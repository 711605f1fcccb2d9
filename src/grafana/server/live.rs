//! The dev loop: dashboards and rules are brought to a running Grafana when their files change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use crate::rules::rule::Rule;

/// Reads the rules again; an error is in words for whoever edits them.
pub type ReadRules = Arc<dyn Fn() -> Result<Vec<Rule>, String> + Send + Sync>;

/// Files that are looked at while Grafana runs.
#[derive(Clone)]
pub struct Live {
    /// Folder whose `*.json` take the place of dashboards of the same name, or come on top; there
    /// need not be one.
    pub dashboards: PathBuf,
    /// The configuration file, if there is one.
    pub config: Option<PathBuf>,
    /// Reads the rules that it asks for.
    pub rules: ReadRules,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("dashboards", &self.dashboards).finish_non_exhaustive()
    }
}

/// When files were changed last, and how long they are: another one means another content.
pub type Stamp = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

impl Live {
    /// Returns the stamp of all files. Blocking.
    pub fn stamp(&self) -> Stamp {
        let files = dashboard_files(&self.dashboards).into_iter().chain(self.config.clone());
        let of = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok(), metadata.len()))
        };
        files.filter_map(|path| Some((path.clone(), of(&path)?))).collect()
    }

    /// Returns name and text of the dashboards in the folder. One that is none is left out, which is
    /// said: two of one uid or title would stop Grafana from reading any. Blocking.
    pub fn dashboards(&self) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut uids: Vec<String> = Vec::new();
        for path in dashboard_files(&self.dashboards) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let read = fs::read_to_string(&path).map_err(|error| error.to_string());
            match read.and_then(|text| Ok((uid(&text)?, text))) {
                Ok((uid, _)) if uids.contains(&uid) => {
                    tracing::warn!(file = %path.display(), uid, "two dashboards of one uid, this one is left out");
                }
                Ok((uid, text)) => {
                    uids.push(uid);
                    found.push((name, text));
                }
                Err(reason) => {
                    tracing::warn!(file = %path.display(), reason, "no dashboard, it is left out");
                }
            }
        }
        found
    }
}

/// Returns the uid of a dashboard.
fn uid(text: &str) -> Result<String, String> {
    let model: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let field = |key: &str| model.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    match (field("uid"), field("title")) {
        (Some(uid), Some(_)) => Ok(uid.to_owned()),
        (None, _) => Err("it has no uid".to_owned()),
        (_, None) => Err("it has no title".to_owned()),
    }
}

/// Returns the JSON files in `folder`, by name.
fn dashboard_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_json).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(folder: &Path) -> Live {
        Live { dashboards: folder.to_owned(), config: None, rules: Arc::new(|| Ok(Vec::new())) }
    }

    #[test]
    fn dashboards_are_read_and_what_is_none_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.json", r#"{"uid":"x","title":"X"}"#);
        write("b.json", r#"{"uid":"x","title":"the same uid"}"#);
        write("c.json", r#"{"uid":"y"}"#);
        write("d.json", "{ half");
        write("e.txt", r#"{"uid":"z","title":"no json"}"#);
        let live = live(folder.path());
        let found = live.dashboards();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.json"]);
        assert_eq!(live.stamp().len(), 4);
    }

    #[test]
    fn a_change_changes_the_stamp_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let live = live(folder.path());
        let empty = live.stamp();
        assert_eq!(empty, live.stamp());
        fs::write(folder.path().join("a.json"), "1").unwrap();
        let one = live.stamp();
        assert_ne!(empty, one);
        assert_eq!(one, live.stamp());
        fs::write(folder.path().join("a.json"), "22").unwrap();
        assert_ne!(one, live.stamp());
        assert!(Live { dashboards: "/nowhere".into(), ..live }.stamp().is_empty());
    }
}

//! What periscope has put into a Grafana, by kind and uid. Grafana keeps what is gone from a file
//! until it is told to delete it, and only what stands here may be deleted: the rest is the user's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::files::replace::replace;

/// Kind of an object of Grafana.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A folder.
    Folder,
    /// A data source.
    Datasource,
    /// A dashboard.
    Dashboard,
    /// An integration of a contact point.
    ContactPoint,
    /// The tree of notification policies; there is one.
    Policies,
    /// An alert rule.
    Rule,
}

impl Kind {
    /// Returns the words for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Datasource => "data source",
            Self::Dashboard => "dashboard",
            Self::ContactPoint => "contact point",
            Self::Policies => "notification policies",
            Self::Rule => "alert rule",
        }
    }
}

/// Everything that periscope owns in one Grafana.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// Base URL of a remote Grafana; a ledger says nothing about another one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Uids by kind.
    #[serde(default)]
    owned: BTreeMap<Kind, BTreeSet<String>>,
    /// Checksums of the secrets that were brought last, by uid: a remote Grafana never shows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, String>,
}

impl Ledger {
    /// Reads the ledger at `path`; there need not be one.
    ///
    /// # Errors
    /// It cannot be read or is damaged: then nothing is known to be ours.
    pub fn load(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(at(path, &error)),
        };
        serde_json::from_str(&text).map_err(|error| {
            let words = format!("{error}; remove the file to begin with an empty one");
            at(path, &io::Error::new(io::ErrorKind::InvalidData, words))
        })
    }

    /// Returns where the ledger of a remote Grafana lies.
    pub fn remote_path(data_dir: &Path) -> PathBuf {
        data_dir.join("grafana/remote.json")
    }

    /// Reads the ledger of the remote Grafana at `url`; makes its folder.
    ///
    /// # Errors
    /// It is damaged, or that of another Grafana: what that one has would be forgotten.
    pub fn of_remote(path: &Path, url: &str) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| at(folder, &error))?;
        }
        let mut ledger = Self::load(path)?;
        if ledger.url != url && !ledger.owned.is_empty() {
            let words = format!(
                "it is the ledger of {}: remove what is there with that grafana.url, or move the \
                 file away",
                ledger.url
            );
            return Err(at(path, &io::Error::other(words)));
        }
        url.clone_into(&mut ledger.url);
        Ok(ledger)
    }

    /// Writes it to `path`, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let write = || {
            let mut text = serde_json::to_string_pretty(self)?;
            text.push('\n');
            replace(path, &path.with_extension("part"), text.as_bytes(), 0o600)
        };
        write().map_err(|error| at(path, &error))
    }

    /// Whether `uid` is ours.
    pub fn owns(&self, kind: Kind, uid: &str) -> bool {
        self.owned.get(&kind).is_some_and(|uids| uids.contains(uid))
    }

    /// Notes that `uid` is ours; call it before it is made, so that a crash leaves nothing unowned.
    pub fn add(&mut self, kind: Kind, uid: &str) {
        self.owned.entry(kind).or_default().insert(uid.to_owned());
    }

    /// Returns the checksum of the secrets that were brought last for `uid`.
    pub fn secrets_of(&self, uid: &str) -> Option<&String> {
        self.secrets.get(uid)
    }

    /// Notes the checksum of the secrets that were brought for `uid`.
    pub fn set_secrets(&mut self, uid: &str, sum: &str) {
        self.secrets.insert(uid.to_owned(), sum.to_owned());
    }

    /// Notes that `uid` is gone.
    pub fn remove(&mut self, kind: Kind, uid: &str) {
        if let Some(uids) = self.owned.get_mut(&kind) {
            uids.remove(uid);
        }
        self.owned.retain(|_, uids| !uids.is_empty());
        self.secrets.remove(uid);
    }

    /// Returns what is ours of `kind` and not among `kept`.
    pub fn leftovers(&self, kind: Kind, kept: &BTreeSet<String>) -> Vec<String> {
        self.owned
            .get(&kind)
            .into_iter()
            .flatten()
            .filter(|uid| !kept.contains(*uid))
            .cloned()
            .collect()
    }
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found_again_and_leftovers_are_what_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        let mut ledger = Ledger::load(&path).unwrap();
        assert_eq!(ledger, Ledger::default());
        ledger.add(Kind::Rule, "a");
        ledger.add(Kind::Rule, "b");
        ledger.add(Kind::ContactPoint, "c");
        ledger.save(&path).unwrap();
        let mut again = Ledger::load(&path).unwrap();
        assert_eq!(again, ledger);
        assert!(again.owns(Kind::Rule, "a") && !again.owns(Kind::Dashboard, "a"));
        assert_eq!(again.leftovers(Kind::Rule, &BTreeSet::from(["b".to_owned()])), ["a"]);
        again.remove(Kind::ContactPoint, "c");
        assert!(!again.owns(Kind::ContactPoint, "c"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_damaged_ledger_is_an_error_and_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        fs::write(&path, "{\"owned\": 3}").unwrap();
        let error = Ledger::load(&path).unwrap_err().to_string();
        assert!(error.contains("ledger.json") && error.contains("remove the file"), "{error}");
    }
}

//! Gets Grafana: configured folder, cache, offline folder, official archive — in this order. It has
//! a cache of its own, so that its long download never holds up `QuestDB`.

use std::fs;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::acquired::{AcquireError, NoWay, Try, blocking, open_cache};
use super::download::{self, DownloadError, Patience};
use super::install::{Cache, InstallError, Product, Proof};
use super::progress::Progress;
use super::release;
use super::verify::Sha256;
use crate::base::http::Client;
use crate::config;

/// Largest accepted archive; the real ones have some 200 MB.
const ARCHIVE_LIMIT: u64 = 1 << 30;

/// The file by which a folder of Grafana is known.
const PROGRAM: &str = "bin/grafana";

const PRODUCT: Product = Product {
    name: "grafana",
    key_file: |folder| folder.join(PROGRAM).is_file().then_some(PROGRAM),
    parts: "no bin/grafana",
};

/// What to get and where to look.
#[derive(Debug, Clone)]
pub struct Request {
    /// Version to get.
    pub version: String,
    /// `grafana.home`: then nothing else is looked at.
    pub home: Option<PathBuf>,
    /// Folder with archives.
    pub offline: Option<PathBuf>,
    /// The cache: `artifacts/grafana` of the data folder.
    pub folder: PathBuf,
    /// Where archives are downloaded from.
    pub sources: Sources,
}

/// Places to get archives from; tests put their own in.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Base URL: `BASE/VERSION/FILE`.
    pub releases: String,
    /// Known archives for this machine.
    pub archives: Vec<Archive>,
    /// Time limits of downloads.
    pub patience: Patience,
}

/// An archive that can be asked for.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Version in it.
    pub version: String,
    /// Name of the file.
    pub name: String,
    /// Its checksum, where it is not pinned by name.
    pub sum: Option<Sha256>,
}

/// A Grafana that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Folder with `bin/grafana`, `conf/` and `public/`.
    pub home: PathBuf,
    /// Its version.
    pub version: String,
    /// Where it came from, for people: "cache", "offline folder".
    pub source: &'static str,
}

impl Installed {
    /// Returns the program.
    pub fn program(&self) -> PathBuf {
        self.home.join(PROGRAM)
    }
}

impl Request {
    /// What the configuration asks for, with the cache in `data_dir`.
    pub fn of(config: &config::Grafana, data_dir: &Path) -> Self {
        Self {
            version: config.version.clone(),
            home: config.home.clone(),
            offline: config.offline.clone(),
            folder: data_dir.join("artifacts/grafana"),
            sources: Sources::default(),
        }
    }
}

impl Default for Sources {
    fn default() -> Self {
        let known = |(version, name): &(&str, &str)| Archive {
            version: (*version).to_owned(),
            name: (*name).to_owned(),
            sum: None,
        };
        Self {
            releases: release::GRAFANA.to_owned(),
            archives: release::GRAFANA_ARCHIVES.iter().map(known).collect(),
            patience: Patience::default(),
        }
    }
}

/// Finds or gets Grafana as `request` says.
///
/// # Errors
/// See [`AcquireError`].
pub async fn acquire(
    request: &Request,
    client: &Client,
    stop: &CancellationToken,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Installed, AcquireError> {
    if let Some(home) = request.home.clone() {
        let version = request.version.clone();
        return blocking(&home.clone(), move || at_home(&home, version)).await?;
    }
    let (name, version) = (PRODUCT.name, request.version.clone());
    progress(Progress::Step(format!("looking for {name} {version}")));
    let cache = open_cache(&request.folder, PRODUCT, stop, progress).await?;
    let mut search = Search { request: request.clone(), cache, tries: Vec::new() };
    let token = stop.clone();
    let mut found;
    (search, found) = blocking(&request.folder, move || {
        let found = search.local(&token);
        (search, found)
    })
    .await?;
    if found.is_none() && !stop.is_cancelled() {
        (search, found) = search.release(client, stop, progress).await?;
    }
    if stop.is_cancelled() {
        return Err(AcquireError::Stopped);
    }
    found.ok_or_else(|| {
        let remedy = format!(
            "unpack Grafana {version} for Linux from https://grafana.com/grafana/download and set \
             grafana.home to its folder, or put the archive into a folder and set grafana.offline, \
             or set grafana.mode = \"off\""
        );
        AcquireError::NoWay(NoWay { name, version, tries: search.tries, remedy })
    })
}

/// The configured folder is the user's own: its checksum is not asked for.
fn at_home(home: &Path, version: String) -> Result<Installed, AcquireError> {
    // An archive unpacked as it is has one folder inside.
    let inside = fs::read_dir(home).into_iter().flatten().flatten().map(|entry| entry.path());
    let found = std::iter::once(home.to_owned())
        .chain(inside)
        .find(|folder| (PRODUCT.key_file)(folder).is_some());
    let Some(folder) = found else {
        let reason = format!("holds no {PROGRAM}; name the folder of an unpacked release");
        return Err(AcquireError::Home { key: "grafana.home", home: home.to_owned(), reason });
    };
    // Releases say their version in a file; where it is missing the server says it once it runs.
    let written = fs::read_to_string(folder.join("VERSION")).unwrap_or_default();
    let version = match written.trim() {
        "" => version,
        text => text.chars().filter(|c| !c.is_control()).take(40).collect(),
    };
    Ok(Installed { home: folder, version, source: "grafana.home" })
}

/// One acquisition in progress.
#[derive(Debug)]
struct Search {
    request: Request,
    cache: Cache,
    tries: Vec<Try>,
}

impl Search {
    fn note(&mut self, way: &'static str, reason: impl Into<String>) {
        self.tries.push(Try { way, reason: reason.into() });
    }

    fn cached(&mut self, source: &'static str) -> Option<Installed> {
        let version = self.request.version.clone();
        match self.cache.find(&version) {
            Ok(Some(home)) => return Some(Installed { home, version, source }),
            Ok(None) => self.note("cache", "empty"),
            Err(error) => {
                tracing::warn!(reason = %error, "the cached grafana is not used");
                self.note("cache", error.to_string());
            }
        }
        None
    }

    /// Cache and offline folder.
    fn local(&mut self, stop: &CancellationToken) -> Option<Installed> {
        self.cached("cache").or_else(|| self.offline(stop))
    }

    fn offline(&mut self, stop: &CancellationToken) -> Option<Installed> {
        const WAY: &str = "offline folder";
        let Some(folder) = self.request.offline.clone() else {
            self.note(WAY, "none configured (grafana.offline)");
            return None;
        };
        let version = self.request.version.clone();
        let names = fs::read_dir(&folder).into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| is_archive(name, &version)).collect();
        names.sort();
        if names.is_empty() {
            self.note(WAY, format!("{} holds no archive of grafana {version}", folder.display()));
        }
        for name in names {
            let archive = folder.join(&name);
            let added =
                self.cache.add_archive(&version, &archive, &name, WAY, Proof::FirstUse, stop);
            if let Some(found) = self.outcome(WAY, added) {
                return Some(found);
            }
        }
        None
    }

    fn outcome(
        &mut self,
        way: &'static str,
        result: Result<(), InstallError>,
    ) -> Option<Installed> {
        match result {
            Ok(()) => self.cached(way),
            Err(error) => {
                self.note(way, error.to_string());
                None
            }
        }
    }

    async fn release(
        mut self,
        client: &Client,
        stop: &CancellationToken,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Self, Option<Installed>), AcquireError> {
        const WAY: &str = "official archive";
        let version = self.request.version.clone();
        let known = self.request.sources.archives.iter().find(|one| one.version == version);
        let Some(Archive { name, sum, .. }) = known.cloned() else {
            self.note(WAY, format!("none is known for version {version} and this machine"));
            return Ok((self, None));
        };
        let archive = match self.cache.staging() {
            Ok(staging) => staging.join(&name),
            Err(error) => {
                self.note(WAY, error.to_string());
                return Ok((self, None));
            }
        };
        progress(Progress::Step(format!("downloading {name}")));
        let url = format!("{}/{version}/{name}", self.request.sources.releases);
        let patience = self.request.sources.patience;
        let downloaded =
            download::download(client, &url, &archive, ARCHIVE_LIMIT, patience, stop, progress);
        match downloaded.await {
            Ok(_sum) => {}
            Err(DownloadError::Stopped) => return Err(AcquireError::Stopped),
            Err(error) => {
                self.note(WAY, error.to_string());
                return Ok((self, None));
            }
        }
        progress(Progress::Step(format!("unpacking {name}")));
        let (folder, token) = (self.request.folder.clone(), stop.clone());
        blocking(&folder, move || {
            let proof = sum.map_or(Proof::Known, Proof::Digest);
            let added = self.cache.add_archive(&version, &archive, &name, WAY, proof, &token);
            let found = self.outcome(WAY, added);
            (self, found)
        })
        .await
    }
}

/// Whether a file of this name is an archive of `version` for this machine: `grafana_12.4.2_…`,
/// `grafana-12.4.2.linux-amd64.tar.gz`.
fn is_archive(name: &str, version: &str) -> bool {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let Some(rest) = name.strip_prefix("grafana").and_then(|rest| rest.strip_suffix(".tar.gz"))
    else {
        return false;
    };
    let rest = rest.strip_prefix("-oss").unwrap_or(rest);
    let after = rest.get(1..).and_then(|rest| rest.strip_prefix(version));
    let machines = [format!("linux_{machine}"), format!("linux-{machine}")];
    after.is_some_and(|after| {
        // Not 12.4.20 for 12.4.2.
        after.starts_with(['_', '.', '-']) && machines.iter().any(|end| after.ends_with(end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn archives_are_recognised_by_version_and_machine() {
        for name in [
            "grafana_12.4.2_23531306697_linux_amd64.tar.gz",
            "grafana-12.4.2.linux-amd64.tar.gz",
            "grafana-oss-12.4.2.linux-amd64.tar.gz",
        ] {
            assert!(is_archive(name, "12.4.2"), "{name}");
        }
        for name in [
            "grafana_12.4.20_1_linux_amd64.tar.gz",
            "grafana_12.4.2_1_linux_arm64.tar.gz",
            "grafana_12.4.2_1_darwin_amd64.tar.gz",
            "grafana_12.4.2_1_linux_amd64.tar.gz.part",
            "questdb-12.4.2.linux-amd64.tar.gz",
            "grafana",
        ] {
            assert!(!is_archive(name, "12.4.2"), "{name}");
        }
    }
}

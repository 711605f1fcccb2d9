//! The ways to a `QuestDB`, tried one after the other; each that fails leaves its reason.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::acquired::{AcquireError, NoWay, Try, blocking};
use super::download::{self, DownloadError};
use super::install::{Cache, InstallError, Proof};
use super::java::{self, Java};
use super::progress::Progress;
use super::questdb::{self, Installed, Program, Request};
use super::{maven, release};
use crate::base::http::Client;

/// Largest accepted archive; the real ones have 30 to 120 MB.
const ARCHIVE_LIMIT: u64 = 1 << 30;

/// One acquisition in progress.
#[derive(Debug)]
pub(super) struct Acquisition {
    request: Arc<Request>,
    cache: Cache,
    tries: Vec<Try>,
    /// Java of this machine; `None` when there is none that is new enough.
    java: Option<Java>,
}

impl Acquisition {
    /// Begins with nothing tried.
    pub(super) fn new(request: Arc<Request>, cache: Cache) -> Self {
        Self { request, cache, tries: Vec::new(), java: None }
    }

    /// Tries every way until one succeeds.
    ///
    /// # Errors
    /// [`AcquireError::NoWay`] with every way, or [`AcquireError::Stopped`].
    pub(super) async fn run(
        self,
        client: &Client,
        stop: &CancellationToken,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Installed, AcquireError> {
        let version = self.request.version.clone();
        progress(Progress::Step(format!("looking for questdb {version}")));
        let (mut this, mut found) = self.off_runtime(stop, Self::local).await?;
        if found.is_none() {
            (this, found) = this.release(client, stop, progress).await?;
        }
        if found.is_none() {
            let step = format!("asking maven for {}", maven::coordinates(&version));
            progress(Progress::Step(step));
            (this, found) = this.off_runtime(stop, Self::maven).await?;
        }
        found.ok_or_else(|| {
            let remedy = questdb::remedy(&version, this.java.is_some());
            AcquireError::NoWay(NoWay { name: "questdb", version, tries: this.tries, remedy })
        })
    }

    /// Runs `step` where it may block and gives everything back.
    async fn off_runtime(
        self,
        stop: &CancellationToken,
        step: impl FnOnce(&mut Self, &CancellationToken) -> Option<Installed> + Send + 'static,
    ) -> Result<(Self, Option<Installed>), AcquireError> {
        let folder = self.request.folder.clone();
        let (mut this, token) = (self, stop.clone());
        let result = blocking(&folder, move || {
            let found = step(&mut this, &token);
            (this, found)
        })
        .await?;
        if stop.is_cancelled() { Err(AcquireError::Stopped) } else { Ok(result) }
    }

    fn note(&mut self, way: &'static str, reason: impl Into<String>) {
        self.tries.push(Try { way, reason: reason.into() });
    }

    /// Notes the outcome of an installation; on success returns what is in the cache now.
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

    /// Returns what the cache holds, if it is whole and there is a Java for it.
    fn cached(&mut self, source: &'static str) -> Option<Installed> {
        let version = self.request.version.clone();
        let program = match self.cache.find(&version) {
            Ok(found) => found.and_then(|folder| Program::in_folder(&folder)),
            Err(error) => {
                tracing::warn!(reason = %error, "the cached questdb is not used");
                self.note("cache", error.to_string());
                return None;
            }
        };
        let Some(program) = program else {
            self.note("cache", "empty");
            return None;
        };
        let java = program.java(|| self.java.clone().ok_or_else(|| "needs Java".to_owned()));
        match java {
            Ok(java) => Some(Installed { jar: program.jar, java, version, source }),
            Err(reason) => {
                self.note(source, reason);
                None
            }
        }
    }

    /// Everything on this machine: cache, offline folder, Maven's local repository.
    fn local(&mut self, stop: &CancellationToken) -> Option<Installed> {
        match java::find(&self.request.java) {
            Ok(java) => self.java = Some(java),
            Err(error) => self.note("java", error.to_string()),
        }
        self.cached("cache").or_else(|| self.offline(stop)).or_else(|| self.local_repository())
    }

    fn offline(&mut self, stop: &CancellationToken) -> Option<Installed> {
        const WAY: &str = "offline folder";
        let Some(folder) = self.request.offline.clone() else {
            self.note(WAY, "none configured (questdb.offline)");
            return None;
        };
        let version = self.request.version.clone();
        for name in release::archives(&version, self.java.is_some()) {
            let archive = folder.join(&name);
            if archive.is_file() {
                let result =
                    self.cache.add_archive(&version, &archive, &name, WAY, Proof::FirstUse, stop);
                if let Some(found) = self.outcome(WAY, result) {
                    return Some(found);
                }
            }
        }
        let jar_name = format!("questdb-{version}.jar");
        let jars = [folder.join(&jar_name), folder.join("questdb.jar")];
        let Some(from) = jars.iter().find(|path| path.is_file()) else {
            self.note(WAY, format!("{} holds no {jar_name}", folder.display()));
            return None;
        };
        self.jar_with_java(WAY, from, Proof::FirstUse)
    }

    fn local_repository(&mut self) -> Option<Installed> {
        const WAY: &str = "maven's local repository";
        let repository = self.request.sources.repository.clone()?;
        let from = maven::local_jar(&repository, &self.request.version);
        if !from.is_file() {
            self.note(WAY, format!("no {}", from.display()));
            return None;
        }
        // Other programs write there too: only a checksum that is known makes it trustworthy.
        self.jar_with_java(WAY, &from, Proof::Known)
    }

    fn maven(&mut self, stop: &CancellationToken) -> Option<Installed> {
        const WAY: &str = "maven";
        if self.java.is_none() {
            self.note(WAY, "its jar needs Java");
            return None;
        }
        let version = self.request.version.clone();
        let staging = match self.cache.staging() {
            Ok(staging) => staging,
            Err(error) => {
                self.note(WAY, error.to_string());
                return None;
            }
        };
        match maven::fetch(&self.request.sources.mvn, &version, &staging, stop) {
            Ok(jar) => self.jar_with_java(WAY, &jar, Proof::FirstUse),
            Err(error) => {
                self.note(WAY, error.to_string());
                None
            }
        }
    }

    fn jar_with_java(&mut self, way: &'static str, from: &Path, proof: Proof) -> Option<Installed> {
        if self.java.is_none() {
            self.note(way, "its jar needs Java");
            return None;
        }
        let version = self.request.version.clone();
        let result = self.cache.add_jar(&version, from, way, proof);
        self.outcome(way, result)
    }

    async fn release(
        mut self,
        client: &Client,
        stop: &CancellationToken,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Self, Option<Installed>), AcquireError> {
        const WAY: &str = "release archive";
        let version = self.request.version.clone();
        for name in release::archives(&version, self.java.is_some()) {
            progress(Progress::Step(format!("downloading {name}")));
            let archive = match self.cache.staging() {
                Ok(staging) => staging.join(&name),
                Err(error) => {
                    self.note(WAY, error.to_string());
                    continue;
                }
            };
            let proof = match self.proof(&name, client, stop).await {
                Ok(proof) => proof,
                Err(error) => {
                    self.note(WAY, error.to_string());
                    // Without a network the next archive is as far away.
                    break;
                }
            };
            let sources = &self.request.sources;
            let url = format!("{}/{version}/{name}", sources.releases);
            let patience = sources.patience;
            let downloaded =
                download::download(client, &url, &archive, ARCHIVE_LIMIT, patience, stop, progress);
            match downloaded.await {
                Ok(_sum) => {}
                Err(DownloadError::Stopped) => return Err(AcquireError::Stopped),
                Err(error) => {
                    self.note(WAY, error.to_string());
                    if matches!(error, DownloadError::Status { .. }) { continue } else { break }
                }
            }
            progress(Progress::Step(format!("unpacking {name}")));
            let (this, found) = self
                .off_runtime(stop, move |this, stop| {
                    let version = this.request.version.clone();
                    let result =
                        this.cache.add_archive(&version, &archive, &name, WAY, proof, stop);
                    this.outcome(WAY, result)
                })
                .await?;
            if found.is_some() {
                return Ok((this, found));
            }
            self = this;
        }
        Ok((self, None))
    }

    /// Finds out what the archive `name` has to be before it is downloaded.
    async fn proof(
        &self,
        name: &str,
        client: &Client,
        stop: &CancellationToken,
    ) -> Result<Proof, DownloadError> {
        if self.cache.knows(name) {
            return Ok(Proof::Known);
        }
        let sources = &self.request.sources;
        let url = format!("{}/{}", sources.releases_api, self.request.version);
        let description = download::text(client, &url, sources.patience, stop).await?;
        Ok(release::digest(&description, name).map_or(Proof::Known, Proof::Digest))
    }
}

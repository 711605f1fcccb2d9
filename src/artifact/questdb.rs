//! Gets `QuestDB`: configured folder, cache, offline folder, Maven's local repository, official
//! release, `mvn` — in this order; what costs no download comes first.
//!
//! Everything is prepared in a staging folder and moved to its place by one rename: a kill at any
//! moment leaves nothing half installed. What is installed is written down in `lock.toml` first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::acquired::{AcquireError, blocking, open_cache};
use super::acquisition::Acquisition;
use super::download::Patience;
use super::install::Product;
use super::java::{self, Java};
use super::progress::Progress;
use super::{jar, maven, release};
use crate::base::http::Client;
use crate::config;

/// What to get and where to look.
#[derive(Debug, Clone)]
pub struct Request {
    /// Version to get.
    pub version: String,
    /// `questdb.home`: then nothing else is looked at.
    pub home: Option<PathBuf>,
    /// Folder with archives or jars.
    pub offline: Option<PathBuf>,
    /// Where to look for Java.
    pub java: java::Places,
    /// The cache: `artifacts/` of the data folder.
    pub folder: PathBuf,
    /// Everything outside of this machine's own folders.
    pub sources: Sources,
}

/// Places to get files from; tests put their own in.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Base URL of release files.
    pub releases: String,
    /// Base URL of the descriptions of releases.
    pub releases_api: String,
    /// Maven's program.
    pub mvn: String,
    /// Maven's local repository, if it may be read.
    pub repository: Option<PathBuf>,
    /// Time limits of downloads.
    pub patience: Patience,
}

impl Request {
    /// What the configuration asks for, with the cache in `data_dir`.
    pub fn of(config: &config::Questdb, data_dir: &Path) -> Self {
        Self {
            version: config.version.clone(),
            home: config.home.clone(),
            offline: config.offline.clone(),
            java: java::Places::of_environment(config.java.clone()),
            folder: data_dir.join("artifacts"),
            sources: Sources::default(),
        }
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            releases: release::RELEASES.to_owned(),
            releases_api: release::RELEASES_API.to_owned(),
            mvn: "mvn".to_owned(),
            repository: std::env::var_os("HOME")
                .map(|home| Path::new(&home).join(".m2/repository")),
            patience: Patience::default(),
        }
    }
}

/// A `QuestDB` that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// The jar; `None` when it is part of the Java that came with it.
    pub jar: Option<PathBuf>,
    /// Java that runs it.
    pub java: Java,
    /// Its version.
    pub version: String,
    /// Where it came from, for people: "cache", "offline folder".
    pub source: &'static str,
}

/// `QuestDB` in the cache.
pub(super) const PRODUCT: Product = Product {
    name: "questdb",
    key_file: |folder| {
        let program = Program::in_folder(folder)?;
        Some(if program.jar.is_some() { "questdb.jar" } else { "lib/modules" })
    },
    parts: "no questdb.jar and no runtime",
};

/// Returns what mends a machine on which every way failed.
pub(super) fn remedy(version: &str, has_java: bool) -> String {
    if !has_java {
        return "install Java 17 or newer, for example: apt install openjdk-17-jre-headless".into();
    }
    format!(
        "run where there is a network: mvn dependency:get -Dtransitive=false -Dartifact={}, or put \
         questdb-{version}.jar into a folder and run: periscope fetch --from FOLDER",
        maven::coordinates(version),
    )
}

/// Finds or gets `QuestDB` as `request` says.
///
/// # Errors
/// See [`AcquireError`].
pub async fn acquire(
    request: &Request,
    client: &Client,
    stop: &CancellationToken,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Installed, AcquireError> {
    let request = Arc::new(request.clone());
    if let Some(home) = request.home.clone() {
        let request = Arc::clone(&request);
        return blocking(&home.clone(), move || at_home(&request, &home)).await?;
    }
    let cache = open_cache(&request.folder, PRODUCT, stop, progress).await?;
    Acquisition::new(request, cache).run(client, stop, progress).await
}

/// The configured folder is the user's own: its version is read, its checksum is not asked for.
fn at_home(request: &Request, home: &Path) -> Result<Installed, AcquireError> {
    let refuse = |reason: String| {
        let key = "questdb.home";
        AcquireError::Home { key, home: home.to_owned(), reason }
    };
    let found = Program::in_folder(home)
        .or_else(|| {
            // An archive unpacked as it is has one folder inside.
            let inner = std::fs::read_dir(home).ok()?.flatten();
            inner.into_iter().find_map(|entry| Program::in_folder(&entry.path()))
        })
        .ok_or_else(|| refuse("holds neither questdb.jar nor bin/java of a release".to_owned()))?;
    let version = match &found.jar {
        Some(path) => jar::version(path).map_err(|error| {
            refuse(format!("{}: {error}; put the whole file there", path.display()))
        })?,
        None => request.version.clone(),
    };
    let java = found.java(|| java::find(&request.java).map_err(|error| error.to_string()));
    let java = java.map_err(refuse)?;
    Ok(Installed { jar: found.jar, java, version, source: "questdb.home" })
}

/// What a folder holds that can be started.
#[derive(Debug)]
pub(super) struct Program {
    /// The jar, unless it is part of `own_java`.
    pub(super) jar: Option<PathBuf>,
    /// Java that came with it.
    own_java: Option<PathBuf>,
}

impl Program {
    /// Returns what `folder` holds, if it can be started.
    pub(super) fn in_folder(folder: &Path) -> Option<Self> {
        let existing = |path: PathBuf| path.is_file().then_some(path);
        let jar = existing(folder.join("questdb.jar"));
        // `lib/modules` makes it a runtime image and not the `bin` of something else.
        let own_java =
            existing(folder.join("lib/modules")).and_then(|_| existing(folder.join("bin/java")));
        (jar.is_some() || own_java.is_some()).then_some(Self { jar, own_java })
    }

    /// Returns the Java that came with it, else what `otherwise` finds.
    pub(super) fn java(
        &self,
        otherwise: impl FnOnce() -> Result<Java, String>,
    ) -> Result<Java, String> {
        match &self.own_java {
            None => otherwise(),
            Some(program) => java::inspect(program)
                .ok_or_else(|| format!("{} does not tell its version", program.display())),
        }
    }
}

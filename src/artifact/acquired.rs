//! How an acquisition ends, whatever is acquired: errors that name every way that was tried.

use std::fmt;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::install::{Cache, Product};
use super::progress::Progress;

/// One way that was tried, and why it gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// The way.
    pub way: &'static str,
    /// Why not.
    pub reason: String,
}

/// Why a server was not acquired.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// The configured folder cannot be used; nothing else was tried.
    #[error("{key} = {home}: {reason}")]
    Home {
        /// `questdb.home`
        key: &'static str,
        /// The folder.
        home: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Every way failed.
    #[error(transparent)]
    NoWay(NoWay),
    /// The cache folder cannot be used.
    #[error("use the folder {folder}: {reason}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

/// All ways that were tried.
#[derive(Debug)]
pub struct NoWay {
    pub(super) name: &'static str,
    pub(super) version: String,
    pub(super) tries: Vec<Try>,
    /// The next step, in words that follow "to mend it, ".
    pub(super) remedy: String,
}

impl std::error::Error for NoWay {}

impl fmt::Display for NoWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no way to get {} {}: ", self.name, self.version)?;
        for Try { way, reason } in &self.tries {
            write!(f, "{way}: {reason}; ")?;
        }
        write!(f, "to mend it, {}", self.remedy)
    }
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    folder: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AcquireError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| AcquireError::Folder {
        folder: folder.to_owned(),
        reason: error.to_string(),
    })
}

/// Opens the cache in `folder`; waits while another process holds it.
pub(super) async fn open_cache(
    folder: &Path,
    product: Product,
    stop: &CancellationToken,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Cache, AcquireError> {
    let mut told = false;
    loop {
        let path = folder.to_owned();
        let opened = blocking(folder, move || Cache::open(&path, product)).await?;
        let refused = |reason: String| AcquireError::Folder { folder: folder.to_owned(), reason };
        match opened.map_err(|error| refused(error.to_string()))? {
            Some(cache) => return Ok(cache),
            None if !told => {
                progress(Progress::Step("waiting for another periscope that fetches".to_owned()));
                told = true;
            }
            None => {}
        }
        tokio::select! {
            () = stop.cancelled() => return Err(AcquireError::Stopped),
            () = tokio::time::sleep(std::time::Duration::from_millis(200)) => {}
        }
    }
}

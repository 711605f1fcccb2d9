//! Streams a file over http(s) to disk: size and time are limited, redirects are followed only to
//! where a release may live, and the checksum is taken on the way.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, Uri};
use sha2::{Digest as _, Sha256 as Hasher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::verify::Sha256;
use crate::base::http::{Client, HttpError, origin};

const REDIRECTS: usize = 5;

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection: without a network the next way must be tried soon.
    pub connect: Duration,
    /// For the head of the answer.
    pub head: Duration,
    /// For the next piece of the body.
    pub stall: Duration,
    /// For the whole file.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(4),
            head: Duration::from_secs(20),
            stall: Duration::from_secs(30),
            whole: Duration::from_secs(60 * 60),
        }
    }
}

/// Why there is no file. URLs appear as scheme, host and port only.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// No connection within the limit.
    #[error("no connection to {host} within {limit:?}: {reason}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The limit.
        limit: Duration,
        /// The system's words.
        reason: String,
    },
    /// Another status than 200.
    #[error("{origin} answers {status} for {name}")]
    Status {
        /// Scheme, host and port.
        origin: String,
        /// The status.
        status: StatusCode,
        /// Name of the file.
        name: String,
    },
    /// Redirected to where no release lives, or too often.
    #[error("{origin} redirects to {target}, which is not allowed")]
    Redirect {
        /// Scheme, host and port.
        origin: String,
        /// Scheme, host and port it points to.
        target: String,
    },
    /// The body stopped.
    #[error("nothing more from {origin} for {limit:?}, after {received} bytes")]
    Stalled {
        /// Scheme, host and port.
        origin: String,
        /// The limit.
        limit: Duration,
        /// Bytes received until then.
        received: u64,
    },
    /// The body broke off.
    #[error("the file from {origin} broke off after {received} bytes: {reason}")]
    CutOff {
        /// Scheme, host and port.
        origin: String,
        /// Bytes received until then.
        received: u64,
        /// What happened.
        reason: String,
    },
    /// The file is larger than any release.
    #[error("the file from {origin} is larger than {limit} bytes")]
    TooLarge {
        /// Scheme, host and port.
        origin: String,
        /// The limit, bytes.
        limit: u64,
    },
    /// The file cannot be written.
    #[error("write {path}: {source}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Downloads `url` to the new file `to`, makes it durable and returns its checksum.
///
/// On an error `to` may exist in part; the caller removes it.
///
/// # Errors
/// See [`DownloadError`].
pub async fn download(
    client: &Client,
    url: &str,
    to: &Path,
    limit_bytes: u64,
    patience: Patience,
    stop: &CancellationToken,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Sha256, DownloadError> {
    let (response, from) = tokio::select! {
        () = stop.cancelled() => return Err(DownloadError::Stopped),
        response = open(client, url, patience) => response?,
    };
    let total = response
        .headers()
        .get(hyper::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if total.is_some_and(|total| total > limit_bytes) {
        return Err(DownloadError::TooLarge { origin: from, limit: limit_bytes });
    }
    // Writing, hashing and fsync happen off the runtime; the bound holds the network back when the
    // disk is slower.
    let (pieces, received) = mpsc::channel::<Bytes>(16);
    let path = to.to_owned();
    let writer = tokio::task::spawn_blocking(move || write(&path, received));
    let body = receive(response.into_body(), pieces, &from, limit_bytes, total, patience, progress);
    let outcome = tokio::select! {
        () = stop.cancelled() => Err(DownloadError::Stopped),
        outcome = body => outcome,
    };
    let disk = |source| DownloadError::Disk { path: to.to_owned(), source };
    let sum = writer.await.map_err(|error| disk(io::Error::other(error)))?.map_err(disk)?;
    outcome.map(|()| sum)
}

/// Returns the answer with status 200 and its origin, redirects followed.
async fn open(
    client: &Client,
    url: &str,
    patience: Patience,
) -> Result<(Response<Incoming>, String), DownloadError> {
    let mut uri: Uri = url.parse().map_err(|_| HttpError::Broken {
        origin: "the base URL of releases".to_owned(),
        reason: "no valid URL".to_owned(),
    })?;
    let name = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let first = uri.clone();
    for _ in 0..=REDIRECTS {
        reach(&uri, patience.connect).await?;
        let from = origin(&uri);
        let response = client.open(get(&uri), patience.head).await?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok((response, from));
        }
        let location = response.headers().get(hyper::header::LOCATION);
        let target =
            location.and_then(|value| value.to_str().ok()).filter(|_| status.is_redirection());
        let Some(target) = target else {
            return Err(DownloadError::Status { origin: from, status, name });
        };
        let target = resolve(&uri, target);
        match target {
            Some(target) if may_follow(&first, &target) => uri = target,
            other => {
                let target = other.map_or_else(|| "no valid URL".to_owned(), |uri| origin(&uri));
                return Err(DownloadError::Redirect { origin: from, target });
            }
        }
    }
    Err(DownloadError::Redirect { origin: origin(&first), target: "yet another place".to_owned() })
}

/// A GET of `uri`. GitHub refuses requests without a user agent.
fn get(uri: &Uri) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = uri.clone();
    let agent = hyper::header::HeaderValue::from_static(concat!(
        env!("CARGO_PKG_NAME"),
        "/",
        env!("CARGO_PKG_VERSION")
    ));
    request.headers_mut().insert(hyper::header::USER_AGENT, agent);
    request
}

fn resolve(base: &Uri, target: &str) -> Option<Uri> {
    if target.starts_with('/') {
        let mut parts = base.clone().into_parts();
        parts.path_and_query = Some(target.parse().ok()?);
        return Uri::from_parts(parts).ok();
    }
    target.parse().ok().filter(|uri: &Uri| uri.scheme().is_some() && uri.host().is_some())
}

/// Whether a download that began at `first` may go on at `target`: the same place, or GitHub's
/// own storage over https.
fn may_follow(first: &Uri, target: &Uri) -> bool {
    if origin(first) == origin(target) {
        return true;
    }
    let host = target.host().unwrap_or_default();
    let github = |host: &str| host == "github.com" || host.ends_with(".githubusercontent.com");
    target.scheme_str() == Some("https") && github(first.host().unwrap_or_default()) && github(host)
}

/// Finds out whether a connection is possible at all: the client's own limit is longer and does
/// not cover the look-up of the name.
async fn reach(uri: &Uri, limit: Duration) -> Result<(), DownloadError> {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let unreachable = |reason: String| DownloadError::Unreachable {
        host: format!("{host}:{port}"),
        limit,
        reason,
    };
    match tokio::time::timeout(limit, tokio::net::TcpStream::connect((host, port))).await {
        Ok(Ok(_connected)) => Ok(()),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_elapsed) => Err(unreachable("time limit".to_owned())),
    }
}

/// Asks for a small text (an answer of an API) with the same rules.
///
/// # Errors
/// See [`DownloadError`].
pub async fn text(
    client: &Client,
    url: &str,
    patience: Patience,
    stop: &CancellationToken,
) -> Result<String, DownloadError> {
    const LIMIT: usize = 4 << 20;
    let fetch = async {
        let (response, from) = open(client, url, patience).await?;
        let body = http_body_util::Limited::new(response.into_body(), LIMIT).collect();
        match tokio::time::timeout(patience.stall, body).await {
            Ok(Ok(body)) => Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
            Ok(Err(error)) => {
                Err(DownloadError::CutOff { origin: from, received: 0, reason: error.to_string() })
            }
            Err(_elapsed) => {
                Err(DownloadError::Stalled { origin: from, limit: patience.stall, received: 0 })
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => Err(DownloadError::Stopped),
        text = fetch => text,
    }
}

async fn receive(
    mut body: Incoming,
    pieces: mpsc::Sender<Bytes>,
    from: &str,
    limit_bytes: u64,
    total: Option<u64>,
    patience: Patience,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), DownloadError> {
    let start = Instant::now();
    let mut received = 0_u64;
    loop {
        let stalled = |limit| DownloadError::Stalled { origin: from.to_owned(), limit, received };
        if start.elapsed() > patience.whole {
            return Err(stalled(patience.whole));
        }
        let frame = match tokio::time::timeout(patience.stall, body.frame()).await {
            Err(_elapsed) => return Err(stalled(patience.stall)),
            Ok(None) => break,
            Ok(Some(frame)) => frame,
        };
        let cut_off =
            |reason: String| DownloadError::CutOff { origin: from.to_owned(), received, reason };
        let frame = frame.map_err(|error| cut_off(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        received = received.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        if received > limit_bytes {
            return Err(DownloadError::TooLarge { origin: from.to_owned(), limit: limit_bytes });
        }
        if pieces.send(data).await.is_err() {
            // The writer has ended: its error is what the caller reports.
            return Ok(());
        }
        progress(Progress::Bytes { done: received, total });
    }
    match total {
        Some(total) if total != received => Err(DownloadError::CutOff {
            origin: from.to_owned(),
            received,
            reason: format!("{total} bytes were promised"),
        }),
        _ => Ok(()),
    }
}

fn write(path: &Path, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Sha256> {
    let mut file = fs::File::options().write(true).create_new(true).open(path)?;
    let mut hasher = Hasher::new();
    while let Some(piece) = pieces.blocking_recv() {
        hasher.update(&piece);
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    Ok(Sha256::of(hasher))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_only_to_the_same_place_or_to_githubs_storage() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        let github = uri("https://github.com/questdb/questdb/releases/download/9.3.4/a.tar.gz");
        for (target, expected) in [
            ("https://release-assets.githubusercontent.com/x?sig=1", true),
            ("https://github.com/other", true),
            ("http://release-assets.githubusercontent.com/x", false),
            ("https://githubusercontent.com.evil.example/x", false),
            ("https://evil-github.com/x", false),
            ("http://169.254.169.254/latest", false),
        ] {
            assert_eq!(may_follow(&github, &uri(target)), expected, "{target}");
        }
        assert_eq!(resolve(&github, "/next").unwrap().to_string(), "https://github.com/next");
        assert_eq!(resolve(&github, "next"), None);
        let local = uri("http://127.0.0.1:1/a");
        assert!(!may_follow(&local, &uri("http://127.0.0.1:2/a")));
        assert!(!may_follow(&local, &uri("https://github.com/a")));
    }
}

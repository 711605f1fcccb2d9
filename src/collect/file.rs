//! A daemon that writes its status into a file: JSON, or JSON lines of which the last counts.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::exec::of_kind;
use super::fetch;
use super::json::Document;
use crate::base::http::Limits;
use crate::base::time::Timestamp;
use crate::model::observation::{Failure, FailureReason};

/// A file and how old it may be.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Where it is; it may be replaced at any time.
    pub(super) path: PathBuf,
    /// Time since its last change after which the daemon counts as silent.
    pub(super) stale_after: Duration,
}

/// Reads the document at `now`.
///
/// # Errors
/// See [`FailureReason`].
pub(super) async fn file(
    watched: &Watched,
    limits: Limits,
    now: Timestamp,
) -> Result<Document, Failure> {
    let (path, stale_after) = (watched.path.clone(), watched.stale_after);
    let read = tokio::task::spawn_blocking(move || read(&path, stale_after, limits.body, now));
    match tokio::time::timeout(limits.time, read).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(Failure::new(FailureReason::Broken, error.to_string())),
        // A file system that hangs: the thread ends when it answers.
        Err(_elapsed) => {
            let words = format!("{} was not read within {:?}", watched.path.display(), limits.time);
            Err(Failure::new(FailureReason::Timeout, words))
        }
    }
}

fn read(
    path: &Path,
    stale_after: Duration,
    limit: usize,
    now: Timestamp,
) -> Result<Document, Failure> {
    let shown = path.display();
    let failed = |error: std::io::Error| {
        let reason = of_kind(error.kind(), FailureReason::Broken);
        Failure::new(reason, format!("read {shown}: {error}"))
    };
    // A pipe without a writer would hold the thread for ever.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let mut file = opened.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Failure::new(FailureReason::BadDocument, format!("{shown} is no plain file")));
    }
    let changed = metadata.modified().map_err(failed)?.duration_since(UNIX_EPOCH);
    // A change in the future is a clock that was set: nothing is known about its age.
    let age = now.since(Timestamp::EPOCH.plus(changed.unwrap_or_default()));
    if age > stale_after {
        let words = format!("{shown} has not changed for {} s", age.as_secs());
        return Err(Failure::new(FailureReason::Silent, words));
    }
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let is_whole = metadata.len() <= most;
    if !is_whole {
        // The end of a long file of lines is enough.
        file.seek(SeekFrom::Start(metadata.len() - most)).map_err(failed)?;
    }
    let mut body = Vec::new();
    file.take(most).read_to_end(&mut body).map_err(failed)?;
    let whole = if is_whole { Some(fetch::read(&body)) } else { None };
    match whole {
        Some(Ok(document)) => Ok(document),
        whole => match last_line(&body, is_whole) {
            Some(line) => fetch::read(line),
            None => whole.unwrap_or_else(|| {
                let words =
                    format!("{shown} has more than {limit} bytes; raise collect.max_document");
                Err(Failure::new(FailureReason::TooLarge, words))
            }),
        },
    }
}

/// Returns the last line that is whole: one that is being written has no end yet. `None` when there
/// are no lines, only text.
fn last_line(body: &[u8], from_start: bool) -> Option<&[u8]> {
    let end = body.iter().rposition(|byte| *byte == b'\n')?;
    let before = body.get(..end)?;
    match before.iter().rposition(|byte| *byte == b'\n') {
        Some(start) => before.get(start + 1..),
        // The only line with an end: whole if the file begins with it and goes on after it.
        None if from_start && end + 1 < body.len() => Some(before),
        None => None,
    }
    .filter(|line| !line.trim_ascii().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Clock;

    const LIMITS: Limits = Limits { time: Duration::from_secs(20), body: 4096 };

    struct Case {
        _folder: tempfile::TempDir,
        watched: Watched,
    }

    fn case(content: &str) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        std::fs::write(&path, content).unwrap();
        Case { watched: Watched { path, stale_after: Duration::from_secs(30) }, _folder: folder }
    }

    async fn now(case: &Case) -> Result<Document, Failure> {
        file(&case.watched, LIMITS, Clock::system().now()).await
    }

    #[tokio::test]
    async fn json_and_the_last_whole_line_of_json_lines() {
        let long = format!("{}{{\"n\": 4}}\n{{\"n\"", "{\"n\": 1}\n".repeat(2_000));
        let cases = [
            ("{\n\"n\": 1\n}\n", 1),
            ("{\"n\": 1}", 1),
            ("{\"n\": 1}\n{\"n\": 2}\n", 2),
            ("{\"n\": 1}\n{\"n\": 2", 1),
            ("{\"n\": 1}\r\n{\"n\": 3}\r\n{", 3),
            (long.as_str(), 4),
        ];
        for (content, expected) in cases {
            let document = now(&case(content)).await.unwrap();
            assert_eq!(document.value["n"], expected, "{content:.60}");
        }
    }

    #[tokio::test]
    async fn every_fault_has_its_reason() {
        let large = "x".repeat(5_000);
        let cases = [
            ("", FailureReason::Empty),
            ("{\"n\": ", FailureReason::NotJson),
            ("<p>\n", FailureReason::Html),
            (large.as_str(), FailureReason::TooLarge),
        ];
        for (content, reason) in cases {
            let failure = now(&case(content)).await.unwrap_err();
            assert_eq!(failure.reason, reason, "{content:.60}: {failure}");
        }
        let case = case("{\"n\": 1}");
        let later = Clock::system().now().plus(Duration::from_secs(31));
        let failure = file(&case.watched, LIMITS, later).await.unwrap_err();
        assert_eq!(failure.reason, FailureReason::Silent, "{failure}");
        let earlier = Clock::system().now().minus(Duration::from_secs(3_600));
        file(&case.watched, LIMITS, earlier).await.unwrap();
        std::fs::remove_file(&case.watched.path).unwrap();
        let failure = now(&case).await.unwrap_err();
        assert_eq!(failure.reason, FailureReason::Missing, "{failure}");
    }

    /// Neither waits for somebody to write nor reads a device for ever.
    #[tokio::test]
    async fn only_plain_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for path in [pipe, "/dev/zero".into(), folder.path().to_owned()] {
            let watched = Watched { path, stale_after: Duration::from_secs(30) };
            let failure = file(&watched, LIMITS, Clock::system().now()).await.unwrap_err();
            assert_eq!(failure.reason, FailureReason::BadDocument, "{failure}");
        }
    }
}

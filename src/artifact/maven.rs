//! `QuestDB` out of Maven: the local repository first, then the user's `mvn`, so that mirrors,
//! proxies and credentials of its settings are respected.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Time limit of one run of `mvn`; the jar has 30 MB.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Why Maven gave no jar.
#[derive(Debug, thiserror::Error)]
pub enum MavenError {
    /// `mvn` is not there or cannot be started.
    #[error("run {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// The system's words.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("mvn failed: {0}")]
    Failed(String),
    /// It did not end.
    #[error("mvn did not end within {0:?}")]
    Hangs(Duration),
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Returns the coordinates of `version`.
pub fn coordinates(version: &str) -> String {
    format!("org.questdb:questdb:{version}")
}

/// Returns where the jar of `version` lies in the local repository `repository`.
pub fn local_jar(repository: &Path, version: &str) -> PathBuf {
    repository.join(format!("org/questdb/questdb/{version}/questdb-{version}.jar"))
}

/// Lets `program` fetch the jar of `version` and copy it into `folder`; returns its path.
/// Blocking; ends early once `stop` is cancelled.
///
/// # Errors
/// See [`MavenError`].
pub fn fetch(
    program: &str,
    version: &str,
    folder: &Path,
    stop: &CancellationToken,
) -> Result<PathBuf, MavenError> {
    let start_error = |source| MavenError::Start { program: program.to_owned(), source };
    let mut output = output_file(folder).map_err(start_error)?;
    // `copy` puts the jar into our folder wherever the settings keep the local repository.
    let child = Command::new(program)
        .args(["-q", "-B", "dependency:get", "-Dtransitive=false", "dependency:copy"])
        .arg(format!("-Dartifact={}", coordinates(version)))
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(start_error)?)
        .stderr(output.try_clone().map_err(start_error)?)
        // A group of its own: `mvn` is a script, and its Java must end with it.
        .process_group(0)
        .spawn()
        .map_err(start_error)?;
    let ended = wait(child, stop)?;
    let jar = folder.join(format!("questdb-{version}.jar"));
    if ended.success() && jar.is_file() {
        return Ok(jar);
    }
    let mut text = String::new();
    let length = output.seek(SeekFrom::End(0)).unwrap_or(0);
    let tail = output.seek(SeekFrom::Start(length.saturating_sub(8192)));
    if tail.and_then(|_| output.read_to_string(&mut text)).is_err() {
        text.clear();
    }
    Err(MavenError::Failed(first_error(&text).unwrap_or_else(|| ended.to_string())))
}

/// A file and not a pipe takes the output: nobody has to read it while `mvn` runs.
fn output_file(folder: &Path) -> io::Result<fs::File> {
    let path = folder.join("mvn.log");
    fs::File::options().read(true).append(true).create(true).open(path)
}

fn wait(
    mut child: Child,
    stop: &CancellationToken,
) -> Result<std::process::ExitStatus, MavenError> {
    let start = Instant::now();
    loop {
        let failed = |error: io::Error| MavenError::Failed(error.to_string());
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        let verdict = if stop.is_cancelled() {
            Some(MavenError::Stopped)
        } else if start.elapsed() > LIMIT {
            Some(MavenError::Hangs(LIMIT))
        } else {
            None
        };
        if let Some(verdict) = verdict {
            if let Ok(pid) = i32::try_from(child.id())
                && let Some(group) = rustix::process::Pid::from_raw(pid)
            {
                // Not reaped yet, so the id is still its own.
                let kill = rustix::process::Signal::KILL;
                if let Err(error) = rustix::process::kill_process_group(group, kill) {
                    tracing::debug!(%error, "mvn had ended already");
                }
            }
            child.wait().map_err(failed)?;
            return Err(verdict);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Returns the first `[ERROR]` line of Maven's output, without its colours, at most 300 characters.
fn first_error(output: &str) -> Option<String> {
    let line = output.lines().find(|line| line.contains("ERROR"))?;
    let mut text = String::new();
    let mut inside_escape = false;
    for character in line.chars().take(600) {
        match character {
            '\u{1b}' => inside_escape = true,
            'm' if inside_escape => inside_escape = false,
            _ if inside_escape || character.is_control() => {}
            _ => text.push(character),
        }
    }
    let text = text.trim().trim_start_matches("[ERROR]").trim();
    Some(text.chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(folder: &Path, body: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.join("mvn");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_failing_and_a_missing_maven_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let mvn = script(folder.path(), "echo '[\x1b[1;31mERROR\x1b[m] no such artifact' ; exit 1");
        let error = fetch(&mvn, "0.0.1", folder.path(), &stop).unwrap_err();
        assert_eq!(error.to_string(), "mvn failed: no such artifact");
        let error = fetch("/nowhere/mvn", "0.0.1", folder.path(), &stop).unwrap_err();
        assert!(matches!(error, MavenError::Start { .. }), "{error}");
    }

    #[test]
    fn a_stop_ends_maven_and_everything_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let marker = folder.path().join("pid");
        let mvn = script(
            folder.path(),
            &format!("sleep 300 & echo $! > {}.part; mv {0}.part {0}; wait", marker.display()),
        );
        let stop = CancellationToken::new();
        let (token, path) = (stop.clone(), folder.path().to_owned());
        let runner = std::thread::spawn(move || fetch(&mvn, "0.0.1", &path, &token));
        let start = Instant::now();
        while !marker.exists() {
            assert!(start.elapsed() < Duration::from_secs(10), "the script did not start");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        let sleeper = fs::read_to_string(&marker).unwrap().trim().to_owned();
        stop.cancel();
        assert!(matches!(runner.join().unwrap(), Err(MavenError::Stopped)));
        while fs::read_to_string(format!("/proc/{sleeper}/stat")).is_ok_and(|s| !s.contains(") Z"))
        {
            assert!(start.elapsed() < Duration::from_secs(20), "{sleeper} still runs");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

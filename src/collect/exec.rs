//! A daemon that is asked by running a program: its standard output is the document.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::fetch;
use super::json::Document;
use super::text;
use crate::base::http::Limits;
use crate::model::observation::{Failure, FailureReason};

/// Of what a program writes to standard error, this much is kept for the failure's words.
const COMPLAINT_BYTES: usize = 4096;
/// Variables that the program gets; everything else of periscope's environment may be a secret.
const ENVIRONMENT: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ"];

/// A program with its arguments.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// Path, absolute: no search, no shell.
    pub(super) path: PathBuf,
    /// Arguments as they are.
    pub(super) arguments: Vec<String>,
}

/// Runs `program` and reads its document. It and everything it has started end with the poll.
///
/// # Errors
/// See [`FailureReason`].
pub(super) async fn exec(program: &Program, limits: Limits) -> Result<Document, Failure> {
    let mut child = start(program)?;
    let group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()));
    let finished = tokio::time::timeout(limits.time, run(&mut child, program, limits.body)).await;
    // Whatever it has left running, and itself when it is late.
    drop(group);
    if let Ok(result) = finished {
        return result;
    }
    let words = format!("{} did not end within {:?}", program.path.display(), limits.time);
    // Killed: this is the end of a zombie, not a wait.
    let _status = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
    Err(Failure::new(FailureReason::Timeout, words))
}

/// Time for what a program has said last to be read.
const LAST_WORDS: Duration = Duration::from_millis(500);

fn start(program: &Program) -> Result<Child, Failure> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).env_clear();
    for name in ENVIRONMENT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true).current_dir("/");
    command.spawn().map_err(|error| {
        let reason = of_kind(error.kind(), FailureReason::Unreachable);
        Failure::new(reason, format!("run {}: {error}", program.path.display()))
    })
}

/// Returns what the error of opening a file or starting a program means; `other` for the rest.
pub(super) fn of_kind(kind: std::io::ErrorKind, other: FailureReason) -> FailureReason {
    if kind == std::io::ErrorKind::NotFound {
        FailureReason::Missing
    } else if kind == std::io::ErrorKind::PermissionDenied {
        FailureReason::Permission
    } else {
        other
    }
}

async fn run(child: &mut Child, program: &Program, limit: usize) -> Result<Document, Failure> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let complaint = async {
        match stderr {
            Some(stderr) => first_bytes(stderr, COMPLAINT_BYTES).await.unwrap_or_default(),
            None => Vec::new(),
        }
    };
    let document = async {
        let Some(stdout) = stdout else { return Ok(Vec::new()) };
        let mut body = Vec::new();
        let more = limit.saturating_add(1);
        let mut stdout = stdout.take(u64::try_from(more).unwrap_or(u64::MAX));
        let read = stdout.read_to_end(&mut body).await;
        read.map_err(|error| Failure::new(FailureReason::Broken, error.to_string()))?;
        if body.len() > limit {
            let words = format!(
                "{} printed more than {limit} bytes; raise collect.max_document",
                program.path.display()
            );
            return Err(Failure::new(FailureReason::TooLarge, words));
        }
        Ok(body)
    };
    // An answer that is too large ends the poll at once: the program may never end by itself.
    let both = async { Ok::<_, Failure>((document.await?, child.wait().await)) };
    let mut complaint = std::pin::pin!(complaint);
    let mut both = std::pin::pin!(both);
    let mut said = None;
    let (body, status) = loop {
        tokio::select! {
            result = &mut both => break result?,
            bytes = &mut complaint, if said.is_none() => said = Some(bytes),
        }
    };
    let status = status.map_err(|error| Failure::new(FailureReason::Broken, error.to_string()))?;
    if !status.success() {
        let said = match said {
            Some(said) => said,
            // It has ended before its last words were read.
            None => tokio::time::timeout(LAST_WORDS, complaint).await.unwrap_or_default(),
        };
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let said = text::clean(&said, text::ERROR_BYTES);
        let words = format!("{} ended with {status}: {said}", program.path.display());
        return Err(Failure::new(FailureReason::ExitStatus, words.trim_end_matches(": ")));
    }
    fetch::read(&body)
}

/// Reads everything and keeps the first `limit` bytes: a full pipe would stop the program.
async fn first_bytes(mut from: impl AsyncRead + Unpin, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut piece = [0_u8; 4096];
    loop {
        let read = from.read(&mut piece).await?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(kept);
        };
        let room = limit.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}

/// A process group that ends with this value.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(rustix::process::Pid::from_raw) {
            // An error means that all of it has ended already.
            let _gone = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { time: Duration::from_secs(20), body: 1 << 16 };

    fn shell(script: &str) -> Program {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        Program { path: "/bin/sh".into(), arguments }
    }

    #[tokio::test]
    async fn the_document_is_what_it_prints() {
        let document = exec(&shell(r#"echo '{"running": true}'"#), LIMITS).await.unwrap();
        assert_eq!(document.value["running"], true);
    }

    #[tokio::test]
    async fn every_fault_has_its_reason() {
        let cases = [
            ("echo no configuration >&2; exit 3", FailureReason::ExitStatus, "no configuration"),
            ("echo '<html>'", FailureReason::Html, "web page"),
            ("true", FailureReason::Empty, "no content"),
            ("echo '{\"a\": '", FailureReason::NotJson, "no JSON"),
            ("kill -9 $$", FailureReason::ExitStatus, "signal"),
            ("cat /dev/zero", FailureReason::TooLarge, "max_document"),
        ];
        for (script, reason, words) in cases {
            let failure = exec(&shell(script), LIMITS).await.unwrap_err();
            assert_eq!(failure.reason, reason, "{script}: {failure}");
            assert!(failure.words.contains(words), "{script}: {failure}");
        }
        let missing = Program { path: "/nowhere/bot-status".into(), arguments: Vec::new() };
        let failure = exec(&missing, LIMITS).await.unwrap_err();
        assert_eq!(failure.reason, FailureReason::Missing, "{failure}");
    }

    /// What a program said just before its end was lost when the end was seen first.
    #[tokio::test]
    async fn the_last_words_of_a_program_are_not_lost() {
        let script = "(sleep 0.1; echo no configuration >&2) & exit 3";
        let failure = exec(&shell(script), LIMITS).await.unwrap_err();
        assert!(failure.words.contains("no configuration"), "{failure}");
    }

    /// A program that does not end, and what it has started, are ended with the poll.
    #[tokio::test]
    async fn a_late_program_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let script = format!("sleep 300 & echo $! >> {0}; echo $$ >> {0}; wait", pids.display());
        let limits = Limits { time: Duration::from_millis(700), ..LIMITS };
        let failure = exec(&shell(&script), limits).await.unwrap_err();
        assert_eq!(failure.reason, FailureReason::Timeout, "{failure}");
        let text = std::fs::read_to_string(&pids).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        for pid in text.lines() {
            let ended = || {
                let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                status.is_err() || status.is_ok_and(|status| status.contains(") Z "))
            };
            for _ in 0..500 {
                if ended() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(ended(), "{pid} still runs");
        }
    }

    #[tokio::test]
    async fn periscopes_environment_is_not_handed_on() {
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some(), "run by cargo");
        let script = r#"printf '{"running": true, "last_error": "%s"}' "$CARGO_PKG_NAME$0""#;
        let document = exec(&shell(script), LIMITS).await.unwrap();
        assert_eq!(document.value["last_error"], "/bin/sh");
    }
}

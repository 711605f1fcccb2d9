//! Lines that `QuestDB` refuses for good, kept for people with the reason.
//!
//! `dead-letter/TABLE.jsonl`: one JSON object a line with `time`, `table`, `reason`, `line`. A file
//! that grows beyond 16 MiB becomes `TABLE.1.jsonl`, in place of the one before.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::base::time::Timestamp;

const FILE_BYTES: u64 = 16 << 20;

/// A refused line.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Letter {
    /// When it was refused.
    pub time: Timestamp,
    /// Its table.
    pub table: String,
    /// The server's words.
    pub reason: String,
    /// The line as it was sent, without its line break.
    pub line: String,
}

/// Adds `letter` to the folder and makes it durable. Blocks.
///
/// # Errors
/// As the system says.
pub fn keep(folder: &Path, letter: &Letter) -> io::Result<PathBuf> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(format!("{}.jsonl", letter.table));
    let mut options = fs::OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let mut file = options.open(&path)?;
    if file.metadata()?.len() > FILE_BYTES {
        fs::rename(&path, folder.join(format!("{}.1.jsonl", letter.table)))?;
        file = options.open(&path)?;
    }
    let mut text = serde_json::to_vec(letter)?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_data()?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_kept_and_files_stay_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let letter = Letter {
            time: Timestamp::from_millis(1_700_000_000_000),
            table: "daemon_metrics".into(),
            reason: "cast error\nin line 2".into(),
            line: "daemon_metrics,daemon=a fetch_count=\"x\" 1".into(),
        };
        let path = keep(&folder.path().join("dead"), &letter).unwrap();
        keep(&folder.path().join("dead"), &letter).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        let read: Letter = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(read, letter);
        fs::File::options().write(true).open(&path).unwrap().set_len(FILE_BYTES + 1).unwrap();
        keep(&folder.path().join("dead"), &letter).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert!(path.with_file_name("daemon_metrics.1.jsonl").exists());
    }
}

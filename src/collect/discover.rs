//! Finds daemons of the Python shim by their sockets `NAME-PID.sock`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::process;

/// Most sockets that are looked at.
const MAX_SOCKETS: usize = 1_000;

/// A socket of the shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    /// Name of the daemon.
    pub(super) name: String,
    /// Its process.
    pub(super) pid: u32,
    /// Where it is.
    pub(super) path: PathBuf,
    /// When it was made, as the file system says.
    pub(super) made_at: SystemTime,
}

/// Lists the sockets in `folder`; none when the folder does not exist.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn scan(folder: &Path) -> std::io::Result<Vec<Socket>> {
    use std::os::unix::fs::FileTypeExt as _;
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let Some((name, pid)) = file.to_str().and_then(parse_name) else { continue };
        // A socket may vanish between these calls: that is its end, not a fault.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.file_type().is_socket() && sockets.len() < MAX_SOCKETS {
            let made_at = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            sockets.push(Socket { name: name.to_owned(), pid, path: entry.path(), made_at });
        }
    }
    Ok(sockets)
}

fn parse_name(file: &str) -> Option<(&str, u32)> {
    let (name, pid) = file.strip_suffix(".sock")?.rsplit_once('-')?;
    let clean = !name.is_empty() && name.len() <= 255 && !name.chars().any(char::is_control);
    Some((name, pid.parse().ok()?)).filter(|_| clean)
}

/// Chooses one socket for every name: that of a process that runs, the newest first; a process that
/// another candidate has started is that one's worker, not its successor.
pub(super) fn choose(
    sockets: Vec<Socket>,
    look: impl Fn(u32) -> Option<u32>,
) -> BTreeMap<String, Socket> {
    let mut by_name: BTreeMap<String, Vec<Socket>> = BTreeMap::new();
    for socket in sockets {
        by_name.entry(socket.name.clone()).or_default().push(socket);
    }
    let best = |mut candidates: Vec<Socket>| {
        if candidates.len() < 2 {
            return candidates.pop();
        }
        let pids: Vec<u32> = candidates.iter().map(|socket| socket.pid).collect();
        candidates.into_iter().max_by_key(|socket| {
            let parent = look(socket.pid);
            let worker = parent.is_some_and(|parent| pids.contains(&parent));
            (parent.is_some(), !worker, socket.made_at, socket.pid)
        })
    };
    by_name.into_iter().filter_map(|(name, candidates)| Some((name, best(candidates)?))).collect()
}

/// Returns the parent of a process that runs.
pub(super) fn parent(pid: u32) -> Option<u32> {
    process::stat(pid).filter(|stat| !stat.zombie).map(|stat| stat.parent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn socket(name: &str, pid: u32, second: u64) -> Socket {
        Socket {
            name: name.to_owned(),
            pid,
            path: PathBuf::from(format!("{name}-{pid}.sock")),
            made_at: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
        }
    }

    #[test]
    fn the_newest_running_process_is_the_daemon() {
        // Process 1 is dead, 2 and 3 run, 4 is a worker of 2, 5 is dead and alone.
        let parents = |pid: u32| match pid {
            2 | 3 => Some(1000),
            4 => Some(2),
            _ => None,
        };
        for (sockets, expected) in [
            (vec![socket("a", 1, 9), socket("a", 2, 5)], 2),
            (vec![socket("a", 2, 5), socket("a", 3, 6)], 3),
            (vec![socket("a", 3, 4), socket("a", 2, 5)], 2),
            (vec![socket("a", 2, 5), socket("a", 4, 6)], 2),
            (vec![socket("a", 4, 6)], 4),
            (vec![socket("a", 5, 1)], 5),
        ] {
            let chosen = choose(sockets.clone(), parents);
            assert_eq!(chosen["a"].pid, expected, "{sockets:?}");
        }
        let both = choose(vec![socket("a", 2, 1), socket("b-c", 3, 1)], parents);
        assert_eq!(both.keys().collect::<Vec<_>>(), ["a", "b-c"]);
    }

    #[test]
    fn only_sockets_with_a_name_and_a_pid_count() {
        let folder = tempfile::tempdir().unwrap();
        let listen =
            |name: &str| std::os::unix::net::UnixListener::bind(folder.path().join(name)).unwrap();
        let _listeners = [listen("my-daemon-42.sock"), listen("nopid.sock"), listen("-5.sock")];
        std::fs::write(folder.path().join("file-7.sock"), "").unwrap();
        let found = scan(folder.path()).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].name.as_str(), found[0].pid), ("my-daemon", 42));
        assert!(scan(&folder.path().join("none")).unwrap().is_empty());
    }
}

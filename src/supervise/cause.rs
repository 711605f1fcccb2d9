//! Why the server has ended, in words that lead to the next step. Pure, besides the counter of the
//! kernel's kills.

use std::fs;
use std::path::Path;

use super::child::Exit;
use super::policy::Kind;

/// What is known about an end.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) exit: Exit,
    /// Last lines that tell of errors.
    pub(super) errors: &'a [String],
    /// Last lines of all.
    pub(super) lines: &'a [String],
    /// Whether the kernel has ended a process for lack of memory meanwhile.
    pub(super) out_of_memory: bool,
    /// Whether there is no room left for its data.
    pub(super) disk_full: bool,
    /// Whether it ended before it had answered.
    pub(super) starting: bool,
    /// The data root.
    pub(super) root: &'a Path,
    /// The jar, if it is one of its own.
    pub(super) jar: Option<&'a Path>,
}

/// Words for an operator, and what they mean for the next try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) kind: Kind,
    pub(super) reason: String,
}

impl Cause {
    pub(super) fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// Returns the cause of an end.
pub(super) fn cause(evidence: &Evidence<'_>) -> Cause {
    let ended = match evidence.exit {
        Exit::Code(code) => format!("questdb ended with exit code {code}"),
        Exit::Signal(signal) => format!("questdb was ended by signal {signal}"),
    };
    let says = |word: &str| evidence.lines.iter().chain(evidence.errors).any(|l| l.contains(word));
    let killed = matches!(evidence.exit, Exit::Signal(9) | Exit::Code(137));
    if says("OutOfMemoryError") {
        let advice = "its heap is too small: raise questdb.memory";
        return Cause::new(Kind::Ordinary, format!("{ended}: {advice}"));
    }
    if killed && evidence.out_of_memory {
        let advice = "the kernel ended it for lack of memory: lower questdb.memory or give the \
                      machine or its cgroup more";
        return Cause::new(Kind::Ordinary, format!("{ended}: {advice}"));
    }
    if says("UnsupportedClassVersionError") {
        let advice = "its Java is too old: set questdb.java to Java 17 or newer";
        return Cause::new(Kind::Ordinary, format!("{ended}: {advice}"));
    }
    let unreadable_jar = [
        "ZipException",
        "Error reading",
        "invalid LOC header",
        "ClassFormatError",
        "NoClassDefFoundError",
        "Could not find or load main class",
    ];
    if evidence.starting && unreadable_jar.iter().any(|word| says(word)) {
        let jar = evidence.jar.map_or_else(String::new, |jar| format!(" {}", jar.display()));
        let advice = format!("the jar{jar} is corrupt: put the whole file there");
        return Cause::new(Kind::Ordinary, format!("{ended}: {advice}"));
    }
    if says("tables.d.lock") || says("could not lock") {
        let advice = format!("another questdb uses {}: stop it", evidence.root.display());
        return Cause::new(Kind::Blocked, format!("{ended}: {advice}"));
    }
    if says("could not bind") || says("Address already in use") {
        let advice = "another program has taken its port meanwhile";
        return Cause::new(Kind::Blocked, format!("{ended}: {advice}"));
    }
    let last = last_error(evidence);
    if says("Permission denied") || says("Read-only file system") {
        let advice = "its files cannot be written";
        return Cause::new(Kind::Blocked, format!("{ended}: {advice}{last}"));
    }
    if evidence.disk_full {
        let advice = format!("the disk of {} is full: make room", evidence.root.display());
        return Cause::new(Kind::Blocked, format!("{ended}: {advice}"));
    }
    // Its words for a damaged file are often those of a full disk, so that was looked at first.
    if evidence.starting && (says("CairoException") || says("CairoError")) {
        let root = evidence.root.display();
        let advice = format!(
            "its data in {root} cannot be read and is kept as it is; restore a backup, or move the \
             folder away to begin with an empty one"
        );
        return Cause::new(Kind::Hopeless, format!("{ended}: {advice}{last}"));
    }
    if killed {
        let advice = "killed from outside, or by the kernel for lack of memory";
        return Cause::new(Kind::Ordinary, format!("{ended} ({advice})"));
    }
    Cause::new(Kind::Ordinary, format!("{ended}{last}"))
}

/// Returns the last line that tells of an error, else the last one, as "; its last words: …".
fn last_error(evidence: &Evidence<'_>) -> String {
    // The innermost cause says more than the frame of bootstrap around it.
    let caused = evidence.errors.iter().rfind(|line| line.starts_with("Caused by"));
    let line = caused.or_else(|| evidence.errors.last()).or_else(|| evidence.lines.last());
    line.map_or_else(String::new, |line| {
        let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
        format!("; its last words: {line}")
    })
}

/// Returns how often the kernel has ended a process of this cgroup for lack of memory; 0 when it
/// cannot be told.
pub(super) fn memory_kills() -> u64 {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = group.lines().find_map(|line| line.strip_prefix("0::/")) else { return 0 };
    let events = Path::new("/sys/fs/cgroup").join(path).join("memory.events");
    let text = fs::read_to_string(events).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// Whether less than 16 MiB are free where `root` lies.
pub(super) fn disk_full(root: &Path) -> bool {
    rustix::fs::statvfs(root)
        .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < 16 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(exit: Exit, lines: &[&str], out_of_memory: bool, starting: bool) -> Cause {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        cause(&Evidence {
            exit,
            errors: &lines,
            lines: &lines,
            out_of_memory,
            disk_full: false,
            starting,
            root: Path::new("/d/questdb/root"),
            jar: Some(Path::new("/d/questdb.jar")),
        })
    }

    #[test]
    fn every_known_end_names_its_remedy() {
        let boot = "io.questdb.Bootstrap$BootstrapException: io.questdb.cairo.CairoException: [0] \
                    name is reserved [table=sys.text_import_log]";
        let damaged =
            "io.questdb.cairo.CairoException: [27] No space left [size=2776822130902749184]";
        let oom = "Terminating due to java.lang.OutOfMemoryError: Java heap space";
        let zip = "Caused by: java.util.zip.ZipException: zip END header not found";
        let class =
            "java.lang.UnsupportedClassVersionError: io/questdb/ServerMain has been compiled";
        let lock =
            "CairoException: cannot lock table name registry file [path=/d/db/tables.d.lock]";
        let main = "Error: Could not find or load main class io.questdb.ServerMain";
        let cases: [(Exit, &str, bool, bool, Kind, &str); 10] = [
            (Exit::Code(1), main, false, true, Kind::Ordinary, "/d/questdb.jar is corrupt"),
            (Exit::Code(3), oom, false, false, Kind::Ordinary, "raise questdb.memory"),
            (Exit::Signal(9), "", true, false, Kind::Ordinary, "lower questdb.memory"),
            (Exit::Signal(9), "", false, false, Kind::Ordinary, "killed from outside"),
            (Exit::Code(1), class, false, true, Kind::Ordinary, "set questdb.java"),
            (Exit::Code(1), zip, false, true, Kind::Ordinary, "/d/questdb.jar is corrupt"),
            (Exit::Code(55), lock, false, true, Kind::Blocked, "another questdb uses"),
            (Exit::Code(55), damaged, false, true, Kind::Hopeless, "restore a backup"),
            (Exit::Code(55), boot, false, true, Kind::Hopeless, "name is reserved"),
            (Exit::Code(55), damaged, false, false, Kind::Ordinary, "its last words: io.questdb"),
        ];
        for (exit, line, out_of_memory, starting, kind, words) in cases {
            let cause = of(exit, &[line], out_of_memory, starting);
            assert_eq!(cause.kind, kind, "{line}: {}", cause.reason);
            assert!(cause.reason.contains(words), "{words}: {}", cause.reason);
        }
    }

    #[test]
    fn an_unknown_end_gives_its_last_words_without_control_characters() {
        let cause =
            of(Exit::Code(1), &["first", "Caused by: why\u{1b}[31m", "E later"], false, true);
        assert_eq!(
            cause.reason,
            "questdb ended with exit code 1; its last words: Caused by: why[31m"
        );
        assert_eq!(of(Exit::Code(0), &[], false, false).reason, "questdb ended with exit code 0");
    }
}

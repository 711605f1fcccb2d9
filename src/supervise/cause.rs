//! Why a server has ended, in words that lead to the next step. Pure, besides the counter of the
//! kernel's kills and the look at the disk.

use std::fs;
use std::path::Path;

use super::child::Exit;
use super::policy::Kind;

/// What is known about an end.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// How it ended.
    pub exit: Exit,
    /// Last lines that tell of errors.
    pub errors: &'a [String],
    /// Last lines of all.
    pub lines: &'a [String],
    /// Whether the kernel has ended a process for lack of memory meanwhile.
    pub out_of_memory: bool,
    /// Whether it ended before it had answered.
    pub starting: bool,
}

/// Words for an operator, and what they mean for the next try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What the next try is to be.
    pub kind: Kind,
    /// What happened, and the next step.
    pub reason: String,
}

impl Cause {
    /// Puts them together.
    pub fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

impl Evidence<'_> {
    /// Whether one of its last lines holds `word`.
    pub fn says(&self, word: &str) -> bool {
        self.lines.iter().chain(self.errors).any(|line| line.contains(word))
    }

    /// Returns how `name` ended, in words.
    pub fn ended(&self, name: &str) -> String {
        match self.exit {
            Exit::Code(code) => format!("{name} ended with exit code {code}"),
            Exit::Signal(signal) => format!("{name} was ended by signal {signal}"),
        }
    }

    const fn is_killed(&self) -> bool {
        matches!(self.exit, Exit::Signal(9) | Exit::Code(137))
    }

    /// Returns the cause if it is one that can meet any server whose data lies in `data`.
    pub fn outside(&self, name: &str, data: &Path) -> Option<Cause> {
        let ended = self.ended(name);
        if self.says("could not bind")
            || self.says("Address already in use")
            || self.says("address already in use")
        {
            let advice = "another program has taken its port meanwhile";
            return Some(Cause::new(Kind::Blocked, format!("{ended}: {advice}")));
        }
        let last = self.last_words();
        let refusals = ["Permission denied", "permission denied", "ead-only file system"];
        if refusals.iter().any(|word| self.says(word)) {
            let advice = "its files cannot be written";
            return Some(Cause::new(Kind::Blocked, format!("{ended}: {advice}{last}")));
        }
        if disk_full(data) {
            let advice = format!("the disk of {} is full: make room", data.display());
            return Some(Cause::new(Kind::Blocked, format!("{ended}: {advice}")));
        }
        None
    }

    /// Returns the cause where nothing more is known.
    pub fn unknown(&self, name: &str) -> Cause {
        let ended = self.ended(name);
        if self.is_killed() {
            let advice = "killed from outside, or by the kernel for lack of memory";
            return Cause::new(Kind::Ordinary, format!("{ended} ({advice})"));
        }
        Cause::new(Kind::Ordinary, format!("{ended}{}", self.last_words()))
    }

    /// Returns the cause if the kernel has ended it for lack of memory; `setting` may lower its need.
    pub fn no_memory(&self, name: &str, setting: &str) -> Option<Cause> {
        (self.is_killed() && self.out_of_memory).then(|| {
            let advice = format!(
                "the kernel ended it for lack of memory: {setting}give the machine or its cgroup more"
            );
            Cause::new(Kind::Ordinary, format!("{}: {advice}", self.ended(name)))
        })
    }

    /// Returns the last line that tells of an error, else the last one, as "; its last words: …".
    fn last_words(&self) -> String {
        // The innermost cause says more than the frame of bootstrap around it.
        let caused = self.errors.iter().rfind(|line| line.starts_with("Caused by"));
        let line = caused.or_else(|| self.errors.last()).or_else(|| self.lines.last());
        line.map_or_else(String::new, |line| format!("; its last words: {}", clean(line)))
    }
}

/// Returns the beginning of `line` without control characters.
pub fn clean(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Returns the cause of an end of `QuestDB` with its data in `root`; `jar` is its jar, if it is one
/// of its own.
pub(super) fn questdb(evidence: &Evidence<'_>, root: &Path, jar: Option<&Path>) -> Cause {
    const NAME: &str = "questdb";
    let ended = evidence.ended(NAME);
    if evidence.says("OutOfMemoryError") {
        let advice = "its heap is too small: raise questdb.memory";
        return Cause::new(Kind::Ordinary, format!("{ended}: {advice}"));
    }
    if let Some(cause) = evidence.no_memory(NAME, "lower questdb.memory or ") {
        return cause;
    }
    if evidence.says("UnsupportedClassVersionError") {
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
    if evidence.starting && unreadable_jar.iter().any(|word| evidence.says(word)) {
        let jar = jar.map_or_else(String::new, |jar| format!(" {}", jar.display()));
        let advice = format!("the jar{jar} is corrupt: put the whole file there");
        return Cause::new(Kind::Ordinary, format!("{ended}: {advice}"));
    }
    if evidence.says("tables.d.lock") || evidence.says("could not lock") {
        let advice = format!("another questdb uses {}: stop it", root.display());
        return Cause::new(Kind::Blocked, format!("{ended}: {advice}"));
    }
    if let Some(cause) = evidence.outside(NAME, root) {
        return cause;
    }
    // Its words for a damaged file are often those of a full disk, so that was looked at first.
    if evidence.starting && (evidence.says("CairoException") || evidence.says("CairoError")) {
        let advice = format!(
            "its data in {} cannot be read and is kept as it is; restore a backup, or move the \
             folder away to begin with an empty one",
            root.display()
        );
        let last = evidence.last_words();
        return Cause::new(Kind::Hopeless, format!("{ended}: {advice}{last}"));
    }
    evidence.unknown(NAME)
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
fn disk_full(root: &Path) -> bool {
    rustix::fs::statvfs(root)
        .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < 16 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(exit: Exit, lines: &[&str], out_of_memory: bool, starting: bool) -> Cause {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let evidence = Evidence { exit, errors: &lines, lines: &lines, out_of_memory, starting };
        questdb(&evidence, Path::new("/d/questdb/root"), Some(Path::new("/d/questdb.jar")))
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

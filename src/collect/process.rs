//! Figures of one process out of `/proc`. Reading them takes some ten microseconds.

use std::sync::Arc;
use std::time::Instant;

use crate::model::observation::Process;

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Parent process.
    pub(super) parent: u32,
    /// CPU used so far, clock ticks.
    pub(super) cpu_ticks: u64,
    /// Start, clock ticks since boot.
    pub(super) start_ticks: u64,
    /// Resident memory, pages.
    pub(super) resident_pages: u64,
    /// Ended, not yet waited for by its parent.
    pub(super) zombie: bool,
}

/// Reads a process's stat; `None` when there is no such process.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether process `pid` runs.
pub(super) fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.zombie)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses and may hold anything, also `)`.
    let (_, fields) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: u32::try_from(number(1)?).ok()?,
        cpu_ticks: number(11)?.saturating_add(number(12)?),
        start_ticks: number(19)?,
        resident_pages: number(21)?,
    })
}

/// Remembers a process between two looks, to know the CPU used in between.
#[derive(Debug, Default)]
pub struct ProcessWatch {
    last: Option<Look>,
}

#[derive(Debug)]
struct Look {
    pid: u32,
    at: Instant,
    stat: Stat,
    instance: Arc<str>,
}

impl ProcessWatch {
    /// Looks at process `pid`; `None` when it does not run.
    pub fn look(&mut self, pid: u32) -> Option<Process> {
        let Some(stat) = stat(pid).filter(|stat| !stat.zombie) else {
            self.last = None;
            return None;
        };
        let at = Instant::now();
        let same = self
            .last
            .take()
            .filter(|last| last.pid == pid && last.stat.start_ticks == stat.start_ticks);
        let cpu_percent = same.as_ref().and_then(|last| {
            cpu_percent(stat.cpu_ticks.saturating_sub(last.stat.cpu_ticks), at - last.at)
        });
        let instance =
            same.map_or_else(|| format!("{pid}@{}", stat.start_ticks).into(), |last| last.instance);
        let memory_bytes = memory_bytes(stat.resident_pages);
        self.last = Some(Look { pid, at, stat, instance: Arc::clone(&instance) });
        Some(Process { pid, instance, memory_bytes, cpu_percent })
    }
}

fn memory_bytes(pages: u64) -> Option<i64> {
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    i64::try_from(pages.saturating_mul(page)).ok()
}

/// Returns CPU ticks over a time as a share, 100 = one core; `None` for a time too short to say.
pub(super) fn cpu_percent(ticks: u64, elapsed: std::time::Duration) -> Option<f64> {
    let per_second = f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).ok()?);
    let ticks = f64::from(u32::try_from(ticks).ok()?);
    let seconds = elapsed.as_secs_f64();
    (seconds >= 0.01).then(|| 100.0 * ticks / per_second / seconds)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn stat_lines_with_hostile_names() {
        let line = "1234 (a) R 1 (b) S 77 1234 1234 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 567890 \
                    1000000 2048 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0";
        let expected = Stat {
            zombie: false,
            parent: 77,
            cpu_ticks: 300,
            start_ticks: 567_890,
            resident_pages: 2048,
        };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat(&line.replace(") S", ") Z")).map(|stat| stat.zombie), Some(true));
        assert_eq!(parse_stat("1234 (a"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn looks_at_this_process_and_sees_that_another_ended() {
        let mut watch = ProcessWatch::default();
        let first = watch.look(std::process::id()).unwrap();
        assert_eq!(first.cpu_percent, None);
        assert!(first.memory_bytes.unwrap() > 1_000_000);
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        let second = watch.look(std::process::id()).unwrap();
        assert_eq!(second.instance, first.instance);
        assert!(second.cpu_percent.unwrap() > 5.0, "{second:?}");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(!runs(pid));
        assert_eq!(watch.look(pid), None);
    }

    #[test]
    fn cpu_is_a_share_of_one_core() {
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(cpu_percent(ticks, Duration::from_secs(2)), Some(50.0));
        assert_eq!(cpu_percent(5, Duration::ZERO), None);
    }
}

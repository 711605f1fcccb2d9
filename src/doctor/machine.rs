//! The machine: disk, memory, limits, clock, names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::LIMIT;
use super::finding::Finding;
use crate::base::time::{Clock, Timestamp};
use crate::config::{Config, Mode};

/// Open files that QuestDB, Grafana and periscope need together on a small machine.
const OPEN_FILES: u64 = 4_096;
/// Memory maps that QuestDB needs on a small machine: the kernel's default.
const MEMORY_MAPS: u64 = 65_530;
/// What Grafana and periscope take beside QuestDB.
const OTHERS_MEMORY: u64 = 250 << 20;
/// Before this the clock was never set: 2024-01-01.
const EARLIEST: Timestamp = Timestamp::from_millis(1_704_067_200_000);
/// File systems that are gone after a restart, and those of other machines, by `statfs`.
const FILE_SYSTEMS: [(u64, &str, &str); 4] = [
    (0x0102_1994, "tmpfs", "what lies in memory is gone after a restart"),
    (0x8584_58f6, "ramfs", "what lies in memory is gone after a restart"),
    (0x6969, "NFS", "memory maps and locks of QuestDB do not work over a network"),
    (0xff53_4d42, "CIFS", "memory maps and locks of QuestDB do not work over a network"),
];

pub(super) fn machine(config: &Config, runs: bool) -> Vec<Finding> {
    let mut findings = disk(&config.data_dir, config.spool.min_free);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if config.questdb.mode == Mode::Managed && !runs {
        findings.push(memory(&read("/proc/meminfo"), config.questdb.memory));
    }
    findings.push(open_files(&read("/proc/self/limits")));
    findings.push(memory_maps(&read("/proc/sys/vm/max_map_count")));
    findings.push(clock(Clock::system().now()));
    findings
}

fn disk(data_dir: &Path, min_free: u64) -> Vec<Finding> {
    const CHECK: &str = "disk";
    let there = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let Ok(volume) = rustix::fs::statvfs(there) else { return Vec::new() };
    let free = volume.f_bavail.saturating_mul(volume.f_frsize);
    let mut findings = vec![space(data_dir, free, min_free)];
    if volume.f_files > 0 && volume.f_favail == 0 {
        findings.push(Finding::problem(
            CHECK,
            format!("no file can be made on the volume of {}", data_dir.display()),
            "it has bytes left and no inodes: very many small files",
            "df -i, then remove what is not needed",
        ));
    }
    let kind = rustix::fs::statfs(there).map(|volume| volume.f_type);
    let kind = kind.ok().and_then(|kind| u64::try_from(kind).ok());
    let known = FILE_SYSTEMS.iter().find(|(number, ..)| Some(*number) == kind);
    if let Some((_, name, cause)) = known {
        findings.push(Finding::warning(
            CHECK,
            format!("{} lies on {name}", data_dir.display()),
            *cause,
            "name a folder of a local disk with --data-dir",
        ));
    }
    findings
}

/// Judges the free space for the data folder.
fn space(data_dir: &Path, free: u64, min_free: u64) -> Finding {
    const CHECK: &str = "disk";
    let mib = |bytes: u64| bytes >> 20;
    if free < min_free {
        return Finding::problem(
            CHECK,
            format!("{} MiB are free on the volume of {}", mib(free), data_dir.display()),
            format!("below [spool] min_free of {} MiB new rows are dropped", mib(min_free)),
            "remove what is not needed, shorten [retention], or lower spool.min_free",
        );
    }
    if free < min_free.saturating_mul(2) {
        return Finding::warning(
            CHECK,
            format!("{} MiB are free on the volume of {}", mib(free), data_dir.display()),
            format!("at {} MiB new rows are dropped", mib(min_free)),
            "remove what is not needed, or shorten [retention]",
        );
    }
    Finding::ok(CHECK, format!("{} MiB are free", mib(free)))
}

/// Judges `/proc/meminfo` for a server with this heap.
fn memory(meminfo: &str, heap: u64) -> Finding {
    const CHECK: &str = "memory";
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib =
        available.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let Some(available) = kib.map(|kib| kib.saturating_mul(1024)) else {
        return Finding::ok(CHECK, "the kernel does not tell how much is available");
    };
    // Java takes about as much outside of its heap.
    let needed = heap.saturating_mul(2).saturating_add(OTHERS_MEMORY);
    let mib = |bytes: u64| bytes >> 20;
    if available < needed {
        return Finding::problem(
            CHECK,
            format!("{} MiB are available", mib(available)),
            format!("QuestDB and Grafana need about {} MiB: the kernel would end one", mib(needed)),
            "set questdb.memory = \"128MB\" or grafana.mode = \"off\", or add swap: fallocate -l 1G \
             /swapfile && chmod 600 /swapfile && mkswap /swapfile && swapon /swapfile",
        );
    }
    Finding::ok(CHECK, format!("{} MiB are available", mib(available)))
}

/// Judges `/proc/self/limits`.
fn open_files(limits: &str) -> Finding {
    const CHECK: &str = "open files";
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = line.and_then(|line| line.split_ascii_whitespace().nth(1));
    match hard.map(str::parse::<u64>) {
        Some(Ok(limit)) if limit < OPEN_FILES => Finding::problem(
            CHECK,
            format!("at most {limit} may be open"),
            format!("QuestDB has every column of every day in a file: {OPEN_FILES} are needed"),
            "ulimit -n 65536; for good: LimitNOFILE=65536 in the unit, or /etc/security/limits.conf",
        ),
        Some(Ok(limit)) => Finding::ok(CHECK, format!("{limit} may be open")),
        Some(Err(_)) | None => Finding::ok(CHECK, "no limit"),
    }
}

/// Judges `vm.max_map_count`.
fn memory_maps(text: &str) -> Finding {
    const CHECK: &str = "memory maps";
    match text.trim().parse::<u64>() {
        Ok(count) if count < MEMORY_MAPS => Finding::problem(
            CHECK,
            format!("vm.max_map_count is {count}"),
            format!("QuestDB maps its files into memory and needs {MEMORY_MAPS}"),
            "sysctl -w vm.max_map_count=1048576; for good: a file in /etc/sysctl.d",
        ),
        Ok(count) => Finding::ok(CHECK, format!("vm.max_map_count is {count}")),
        Err(_) => Finding::ok(CHECK, "the kernel does not tell vm.max_map_count"),
    }
}

fn clock(now: Timestamp) -> Finding {
    const CHECK: &str = "clock";
    if now < EARLIEST {
        return Finding::problem(
            CHECK,
            format!("it is {now}"),
            "the clock was never set: rows would land years away",
            "timedatectl set-ntp true",
        );
    }
    Finding::ok(CHECK, format!("it is {now}"))
}

/// Whether every host that the configuration names has an address.
pub(super) async fn names(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "names";
    let mut findings = Vec::new();
    let mut found = 0_usize;
    for host in hosts(config) {
        let looked = tokio::time::timeout(LIMIT, tokio::net::lookup_host((host.as_str(), 0))).await;
        let words = match looked.map(|found| found.map(|mut addresses| addresses.next())) {
            Ok(Ok(Some(_))) => {
                found = found.saturating_add(1);
                continue;
            }
            Ok(Ok(None)) => "it is known without one".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within 10 s".to_owned(),
        };
        findings.push(Finding::problem(
            CHECK,
            format!("{host} has no address: {words}"),
            "the name is misspelt, or the name servers do not answer",
            format!("getent hosts {host}; name servers are in /etc/resolv.conf"),
        ));
    }
    if findings.is_empty() && found > 0 {
        findings.push(Finding::ok(CHECK, format!("{found} hosts have an address")));
    }
    findings
}

/// Returns the hosts that the configuration names, without those that are addresses.
fn hosts(config: &Config) -> BTreeSet<String> {
    let mut urls = Vec::new();
    if config.questdb.mode == Mode::Remote {
        urls.push(config.questdb.http.clone());
    }
    if config.grafana.mode == Mode::Remote {
        urls.extend(config.grafana.url.clone());
    }
    for daemon in &config.daemons {
        if let crate::config::Source::Http { url, .. }
        | crate::config::Source::Websocket { url, .. } = &daemon.source
        {
            urls.push(url.clone());
        }
    }
    let notify = &config.notify;
    urls.extend(notify.telegram.as_ref().map(|telegram| telegram.api_url.clone()));
    urls.extend(notify.discord.as_ref().map(|one| one.webhook_url.reveal().to_owned()));
    urls.extend(notify.webhook.as_ref().map(|one| one.url.reveal().to_owned()));
    urls.extend(notify.ntfy.as_ref().map(|one| one.url.reveal().to_owned()));
    urls.extend(notify.email.as_ref().map(|email| email.host.clone()));
    urls.extend(config.heartbeat.urls.iter().map(|url| url.reveal().to_owned()));
    urls.iter().filter_map(|url| host(url)).collect()
}

/// Returns the host of a URL, of `HOST:PORT` or of a name alone; `None` for an address.
fn host(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if authority.starts_with('[') {
        return None;
    }
    let host = authority.split(':').next()?;
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    (!host.is_empty() && !is_address).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn every_shortage_is_named_with_what_mends_it() {
        let meminfo = "MemTotal: 1000000 kB\nMemAvailable:     300000 kB\n";
        let limits = "Limit  Soft Limit Hard Limit Units\n\
                      Max open files            1024                 2048                 files\n";
        let data = Path::new("/data");
        for (finding, seen, remedy) in [
            (memory(meminfo, 256 << 20), "292 MiB", "swapon"),
            (open_files(limits), "2048", "ulimit -n"),
            (memory_maps("4096\n"), "4096", "sysctl"),
            (clock(Timestamp::from_millis(0)), "1970", "timedatectl"),
            (space(data, 5 << 20, 1 << 30), "5 MiB", "[retention]"),
        ] {
            assert_eq!(finding.level, Level::Problem, "{finding:?}");
            assert!(finding.seen.contains(seen) && !finding.cause.is_empty(), "{finding:?}");
            assert!(finding.remedy.contains(remedy), "{finding:?}");
        }
        assert_eq!(space(data, 3 << 29, 1 << 30).level, Level::Warning);
        let good = [
            memory("MemAvailable: 4000000 kB\n", 256 << 20),
            open_files("Max open files 1024 1048576 files\n"),
            open_files("Max open files unlimited unlimited files\n"),
            memory_maps("65530\n"),
            space(data, 3 << 30, 1 << 30),
        ];
        for finding in good {
            assert_eq!(finding.level, Level::Ok, "{finding:?}");
        }
    }

    #[test]
    fn hosts_are_found_in_every_form() {
        for (url, expected) in [
            ("https://user:word@api.example.org:8443/a?b#c", Some("api.example.org")),
            ("mail.example.org", Some("mail.example.org")),
            ("db:9000", Some("db")),
            ("http://127.0.0.1:9000", None),
            ("http://[::1]:9000/x", None),
            ("", None),
        ] {
            assert_eq!(host(url).as_deref(), expected, "{url}");
        }
    }
}

//! Figures of the machine and of periscope's processes, and the rows of `system_health`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::process::{self, ProcessWatch};
use super::text;
use crate::base::health::{Entry, Health, Part};
use crate::base::time::Timestamp;
use crate::config::Node;
use crate::model::report::Report;
use crate::model::row::Row;
use crate::model::table::SYSTEM_HEALTH;

/// Figures of one process.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ProcessFigures {
    /// CPU since the last look, 100 = one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory.
    pub memory_bytes: Option<i64>,
}

/// Figures of the machine; what cannot be read is `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostFigures {
    /// CPU of all cores since the last look, 100 = one core.
    pub cpu_percent: Option<f64>,
    /// Memory that programs use.
    pub memory_bytes: Option<i64>,
    /// All memory.
    pub memory_total_bytes: Option<i64>,
    /// Free on the file system of the data folder, for users other than root.
    pub disk_free_bytes: Option<i64>,
    /// Size of that file system.
    pub disk_total_bytes: Option<i64>,
    /// periscope itself.
    pub periscope: ProcessFigures,
    /// Children, by part.
    pub children: BTreeMap<Part, ProcessFigures>,
}

/// Looks at the machine from time to time.
#[derive(Debug)]
pub struct HostWatch {
    data_dir: PathBuf,
    cpu: Option<(Instant, u64)>,
    periscope: ProcessWatch,
    children: BTreeMap<Part, ProcessWatch>,
}

impl HostWatch {
    /// Prepares to look; `data_dir` says which file system counts.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            cpu: None,
            periscope: ProcessWatch::default(),
            children: BTreeMap::new(),
        }
    }

    /// Looks at the machine and at the servers of `report` that are children.
    ///
    /// Blocking: asking a file system for its size takes as long as the file system likes. Call it
    /// through `spawn_blocking`.
    pub fn look(&mut self, report: &Report) -> HostFigures {
        let (memory_bytes, memory_total_bytes) = memory();
        let (disk_free_bytes, disk_total_bytes) = disk(&self.data_dir);
        let mut children = BTreeMap::new();
        for (part, pid) in
            [(Part::Questdb, report.questdb.pid), (Part::Grafana, report.grafana.pid)]
        {
            if let Some(pid) = pid {
                let watch = self.children.entry(part).or_default();
                children.insert(part, figures(watch, pid));
            }
        }
        HostFigures {
            cpu_percent: self.cpu(),
            memory_bytes,
            memory_total_bytes,
            disk_free_bytes,
            disk_total_bytes,
            periscope: figures(&mut self.periscope, std::process::id()),
            children,
        }
    }

    fn cpu(&mut self) -> Option<f64> {
        let busy = parse_busy_ticks(&std::fs::read_to_string("/proc/stat").ok()?)?;
        let (before_at, before) = self.cpu.replace((Instant::now(), busy))?;
        process::cpu_percent(busy.saturating_sub(before), before_at.elapsed())
    }
}

fn figures(watch: &mut ProcessWatch, pid: u32) -> ProcessFigures {
    watch.look(pid).map_or_else(ProcessFigures::default, |process| ProcessFigures {
        cpu_percent: process.cpu_percent,
        memory_bytes: process.memory_bytes,
    })
}

/// Returns the ticks that all cores have worked: all but idle and waiting for disks.
fn parse_busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> =
        line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    // user nice system idle iowait irq softirq steal; guest times are part of user and nice.
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = fields.as_slice() else {
        return None;
    };
    Some([user, nice, system, irq, softirq, steal].into_iter().sum())
}

/// Returns (used, total) bytes.
fn memory() -> (Option<i64>, Option<i64>) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = parse_memory(&text, "MemTotal:");
    let available = parse_memory(&text, "MemAvailable:");
    (total.zip(available).map(|(total, available)| total - available), total)
}

fn parse_memory(text: &str, name: &str) -> Option<i64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: i64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns (free, total) bytes.
fn disk(folder: &Path) -> (Option<i64>, Option<i64>) {
    let Ok(stat) = rustix::fs::statvfs(folder) else { return (None, None) };
    let bytes = |blocks: u64| i64::try_from(blocks.checked_mul(stat.f_frsize)?).ok();
    (bytes(stat.f_bavail), bytes(stat.f_blocks))
}

/// Returns one row for the host, one for periscope and one for every part of `report`. Pure.
pub fn rows(report: &Report, host: &HostFigures, node: &Node, at: Timestamp) -> Vec<Row> {
    let row = |component: &str| {
        Row::new(&SYSTEM_HEALTH, at)
            .with("component", component)
            .with("host", node.host.as_str())
            .with("env", node.env.as_str())
    };
    let machine = row("host")
        .with("status", "ok")
        .with("cpu_percent", host.cpu_percent)
        .with("memory_bytes", host.memory_bytes)
        .with("memory_total_bytes", host.memory_total_bytes)
        .with("disk_free_bytes", host.disk_free_bytes)
        .with("disk_total_bytes", host.disk_total_bytes);
    let worst = report.parts.values().map(|entry| status(&entry.health)).max_by_key(severity);
    let periscope = row("periscope").with("status", worst.unwrap_or("starting"));
    let mut rows = vec![machine, with_process(periscope, host.periscope)];
    for (part, entry) in &report.parts {
        let row = with_health(row(component(*part)), entry);
        let row = match host.children.get(part) {
            Some(figures) => with_process(row, *figures),
            None => row,
        };
        rows.push(with_own_figures(row, *part, report));
    }
    rows
}

const fn component(part: Part) -> &'static str {
    match part {
        Part::Questdb => "questdb",
        Part::Grafana => "grafana",
        Part::Schema => "schema",
        Part::Spool => "spool",
        Part::Writer => "writer",
        Part::Collect => "collect",
        Part::Alerts => "alerts",
        Part::Web => "web",
    }
}

const fn status(health: &Health) -> &'static str {
    match health {
        Health::Starting { .. } => "starting",
        Health::Ok => "ok",
        Health::Off => "off",
        Health::Degraded { .. } => "degraded",
        Health::Down { .. } => "down",
    }
}

/// Orders statuses from best to worst.
fn severity(status: &&'static str) -> usize {
    let order = ["off", "ok", "starting", "degraded", "down"];
    order.iter().position(|known| known == status).unwrap_or(order.len())
}

fn with_process(row: Row, figures: ProcessFigures) -> Row {
    row.with("cpu_percent", figures.cpu_percent).with("memory_bytes", figures.memory_bytes)
}

fn with_health(row: Row, entry: &Entry) -> Row {
    let row = row.with("status", status(&entry.health));
    match &entry.health {
        Health::Starting { doing: detail }
        | Health::Degraded { reason: detail }
        | Health::Down { reason: detail } => {
            row.with("detail", text::clean(detail, text::ERROR_BYTES))
        }
        Health::Ok | Health::Off => row,
    }
}

fn with_own_figures(row: Row, part: Part, report: &Report) -> Row {
    let long = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    match part {
        Part::Questdb => row
            .with("restarts", long(report.questdb.restarts))
            .with("latency_ms", report.database.latency_ms)
            .with("wal_lag", report.database.wal_lag.map(long)),
        Part::Grafana => row.with("restarts", long(report.grafana.restarts)),
        Part::Spool => row
            .with("pending_rows", long(report.spool.rows))
            .with("pending_bytes", long(report.spool.bytes))
            .with("oldest_seconds", report.spool.oldest_age_seconds),
        Part::Writer => row
            .with("rows_total", long(report.writer.rows_total))
            .with("refused_total", long(report.writer.refused_total))
            .with("latency_ms", report.writer.latency_ms),
        Part::Schema | Part::Collect | Part::Alerts | Part::Web => row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::report::{Alerts, Database, Server, Spool, Writer};
    use crate::model::row::Value;

    fn report() -> Report {
        let server = Server {
            state: "ready".into(),
            version: None,
            pid: Some(std::process::id()),
            http: None,
            pg: None,
            url: None,
            restarts: 3,
            reason: String::new(),
        };
        let part = |health| Entry { health, since: Timestamp::EPOCH };
        let reason = "questdb\naway".to_owned();
        Report {
            version: "0".into(),
            pid: 1,
            host: "vps-1".into(),
            env: "dev".into(),
            mode: "managed".into(),
            started_at: Timestamp::EPOCH,
            questdb: server.clone(),
            grafana: Server { pid: None, ..server },
            spool: Spool { rows: 7, bytes: 70, oldest_age_seconds: 1.5, ..Spool::default() },
            writer: Writer { rows_total: 9, latency_ms: Some(2.5), ..Writer::default() },
            database: Database { latency_ms: Some(0.5), wal_lag: Some(4) },
            daemons: Vec::new(),
            alerts: Alerts::default(),
            parts: BTreeMap::from([
                (Part::Questdb, part(Health::Ok)),
                (Part::Spool, part(Health::Ok)),
                (Part::Writer, part(Health::Degraded { reason })),
                (Part::Grafana, part(Health::Off)),
            ]),
        }
    }

    #[test]
    fn every_part_has_a_row_with_its_figures() {
        let figures = HostFigures {
            cpu_percent: Some(12.5),
            memory_total_bytes: Some(100),
            children: BTreeMap::from([(
                Part::Questdb,
                ProcessFigures { cpu_percent: Some(1.0), memory_bytes: Some(5) },
            )]),
            ..HostFigures::default()
        };
        let node = Node { host: "vps-1".into(), env: "dev".into() };
        let rows = rows(&report(), &figures, &node, Timestamp::from_millis(1));
        let names: Vec<&Value> = rows.iter().map(|row| row.get("component")).collect();
        let expected = ["host", "periscope", "questdb", "grafana", "spool", "writer"];
        assert_eq!(names, expected.map(Value::from).each_ref());
        assert_eq!(*rows[0].get("cpu_percent"), Value::Double(12.5));
        assert_eq!(*rows[1].get("status"), Value::from("degraded"));
        assert_eq!(*rows[2].get("memory_bytes"), Value::Long(5));
        assert_eq!(*rows[2].get("restarts"), Value::Long(3));
        assert_eq!(*rows[3].get("status"), Value::from("off"));
        assert_eq!(*rows[4].get("pending_rows"), Value::Long(7));
        assert_eq!(*rows[5].get("detail"), Value::from("questdb away"));
        assert_eq!(*rows[5].get("rows_total"), Value::Long(9));
        assert_eq!(*rows[2].get("latency_ms"), Value::Double(0.5));
        assert_eq!(*rows[2].get("wal_lag"), Value::Long(4));
        assert_eq!(*rows[5].get("latency_ms"), Value::Double(2.5));
    }

    #[test]
    fn looks_at_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = HostWatch::new(folder.path());
        assert_eq!(watch.look(&report()).cpu_percent, None);
        let started = Instant::now();
        while started.elapsed() < std::time::Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let figures = watch.look(&report());
        assert!(figures.cpu_percent.unwrap() > 1.0, "{figures:?}");
        assert!(figures.memory_bytes.unwrap() > 0);
        assert!(figures.memory_total_bytes > figures.memory_bytes);
        assert!(figures.disk_total_bytes >= figures.disk_free_bytes);
        let questdb = figures.children[&Part::Questdb];
        assert!(questdb.memory_bytes.unwrap() > 1_000_000);
        assert!(!figures.children.contains_key(&Part::Grafana));
        let gone = disk(Path::new("/nowhere"));
        assert_eq!(gone, (None, None));
    }

    #[test]
    fn proc_files() {
        let stat = "cpu  10 20 30 1000 500 1 2 3 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_busy_ticks(stat), Some(66));
        assert_eq!(parse_busy_ticks("cpu 1 2"), None);
        assert_eq!(parse_memory("MemTotal:       16 kB\n", "MemTotal:"), Some(16_384));
        assert_eq!(parse_memory("MemTotal: x kB\n", "MemTotal:"), None);
    }
}

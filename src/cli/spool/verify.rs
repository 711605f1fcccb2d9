//! `periscope spool verify`

use serde::Serialize;

use super::look;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::Config;
use crate::store::encode::table_of;
use crate::store::inspect::{Damage, Delivered, Place, View};

/// What was found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Findings {
    sound: bool,
    segments: u64,
    records: u64,
    rows: u64,
    /// Bytes of a write in progress, or of one that a crash cut off before it was acknowledged.
    torn_bytes: u64,
    damage: Vec<Finding>,
    /// Files in quarantine/ and newer/: what became of them was counted when they were put there.
    set_aside: Vec<String>,
}

/// One damage.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    file: String,
    what: String,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    /// Rows lost, as far as can be told.
    rows: Option<u64>,
    table: Option<&'static str>,
}

pub(super) fn verify(config: &Config, json: bool) -> anyhow::Result<Exit> {
    let findings = examine(&look(config)?);
    output::line(&if json { serde_json::to_string_pretty(&findings)? } else { text(&findings) });
    Ok(if findings.sound { Exit::Done } else { Exit::Failure })
}

fn examine(view: &View) -> Findings {
    let mut findings = Findings::default();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    for file in &view.files {
        let shown = format!("{}/{}", file.place.name(), file.name());
        if file.place != Place::Spool {
            findings.set_aside.push(shown);
            continue;
        }
        let Some(content) = file.read() else { continue };
        findings.segments = findings.segments.saturating_add(1);
        findings.records = findings.records.saturating_add(count(content.records.len()));
        let rows: u64 = content.records.iter().map(|record| u64::from(record.rows)).sum();
        findings.rows = findings.rows.saturating_add(rows);
        findings.torn_bytes = findings.torn_bytes.saturating_add(count(content.torn));
        findings.damage.extend(content.damage.iter().map(|damage| finding(&shown, damage)));
        if let Some(version) = content.newer {
            findings.set_aside.push(format!("{shown} (format {version})"));
        }
    }
    if view.delivered == Delivered::Unknown {
        let what = "no slot is intact: the next start sends everything again".to_owned();
        findings.damage.push(Finding { what, ..nothing_known("cursor") });
    }
    findings.sound = findings.damage.is_empty();
    findings
}

fn nothing_known(file: &str) -> Finding {
    Finding {
        file: file.to_owned(),
        what: String::new(),
        first_seq: None,
        last_seq: None,
        rows: None,
        table: None,
    }
}

fn finding(file: &str, damage: &Damage) -> Finding {
    match damage {
        Damage::Header => Finding { what: "the header is damaged".into(), ..nothing_known(file) },
        Damage::Unreadable(error) => {
            Finding { what: format!("cannot be read: {error}"), ..nothing_known(file) }
        }
        Damage::Records(missing) => Finding {
            what: "acknowledged records are damaged or missing".to_owned(),
            first_seq: Some(missing.first),
            last_seq: Some(missing.last),
            rows: Some(missing.rows),
            table: missing.table.and_then(table_of).map(|table| table.name),
            ..nothing_known(file)
        },
    }
}

fn text(findings: &Findings) -> String {
    let mut lines: Vec<String> = Vec::new();
    for damage in &findings.damage {
        let extent = match (damage.first_seq, damage.last_seq, damage.rows) {
            (Some(first), Some(last), Some(rows)) => {
                format!(", seq {first} to {last}, {rows} rows or more")
            }
            _ => String::new(),
        };
        let table = damage.table.map(|table| format!(" of {table}")).unwrap_or_default();
        lines.push(format!("DAMAGED {}: {}{extent}{table}", damage.file, damage.what));
    }
    for aside in &findings.set_aside {
        lines.push(format!("set aside: {aside}"));
    }
    if findings.torn_bytes > 0 {
        lines.push(format!(
            "{} bytes behind the last record, of a write in progress or cut off: no damage",
            findings.torn_bytes
        ));
    }
    let verdict = if findings.sound { "sound" } else { "damaged" };
    lines.push(format!(
        "{verdict}: {} segments, {} records, {} rows read",
        findings.segments, findings.records, findings.rows
    ));
    if !findings.sound {
        lines.push(
            "periscope delivers what is intact, counts the rest in sample_gaps and keeps a copy in \
             spool/quarantine; check the disk"
                .to_owned(),
        );
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Timestamp;
    use crate::store::spool::scan::Missing;

    #[test]
    fn damage_is_named_with_its_extent() {
        let zero = Timestamp::EPOCH;
        let missing = Missing { first: 5, last: 6, rows: 20, table: Some(0), from: zero, to: zero };
        let found = finding("spool/x.seg", &Damage::Records(missing));
        assert_eq!(
            (found.first_seq, found.rows, found.table),
            (Some(5), Some(20), Some("daemon_metrics"))
        );
        let findings = Findings { damage: vec![found], ..Findings::default() };
        let shown = text(&findings);
        assert!(
            shown.starts_with(
                "DAMAGED spool/x.seg: acknowledged records are damaged or missing, seq 5 to 6, \
                 20 rows or more of daemon_metrics\ndamaged: 0 segments"
            ),
            "{shown}"
        );
    }
}

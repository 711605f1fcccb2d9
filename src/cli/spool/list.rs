//! `periscope spool list`

use std::collections::BTreeMap;

use serde::Serialize;

use super::look;
use crate::base::time::Timestamp;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::config::Config;
use crate::store::dead_letter;
use crate::store::encode::table_of;
use crate::store::inspect::{Content, Delivered, SegmentFile};

/// The whole list.
#[derive(Debug, Serialize)]
struct List {
    folder: String,
    /// Every seq up to this one is delivered; null: the cursor cannot be read.
    delivered_seq: Option<u64>,
    segments: Vec<Segment>,
    /// Rows that QuestDB refused.
    dead_letters: usize,
}

/// One segment.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Segment {
    file: String,
    /// `spool`, `quarantine` or `newer`.
    place: &'static str,
    /// `sound`, `damaged`, `newer` or `empty`.
    state: &'static str,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
    /// When its first and last record were written.
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// Size of the file, with space reserved in advance.
    bytes: u64,
    records: usize,
    rows: u64,
    delivered_rows: u64,
    pending_rows: u64,
    /// Rows by table.
    tables: BTreeMap<String, u64>,
}

pub(super) fn list(config: &Config, json: bool) -> anyhow::Result<Exit> {
    let view = look(config)?;
    let letters = dead_letter::read(&config.data_dir.join("dead-letter"))?;
    let list = List {
        folder: super::folder(config).display().to_string(),
        delivered_seq: match view.delivered {
            Delivered::UpTo(seq) => Some(seq),
            Delivered::Unknown => None,
        },
        segments: view
            .files
            .iter()
            .filter_map(|file| Some(segment(file, &file.read()?, view.delivered)))
            .collect(),
        dead_letters: letters.kept.len(),
    };
    output::line(&if json { serde_json::to_string_pretty(&list)? } else { text(&list) });
    Ok(Exit::Done)
}

/// Sums a segment up. Pure.
fn segment(file: &SegmentFile, content: &Content, delivered: Delivered) -> Segment {
    let mut segment = Segment {
        file: file.name(),
        place: file.place.name(),
        state: match content {
            Content { newer: Some(_), .. } => "newer",
            Content { damage, .. } if !damage.is_empty() => "damaged",
            Content { records, .. } if records.is_empty() => "empty",
            Content { .. } => "sound",
        },
        first_seq: content.records.first().map(|record| record.seq),
        last_seq: content.records.last().map(|record| record.seq),
        from: content.records.first().map(|record| record.at),
        to: content.records.last().map(|record| record.at),
        bytes: file.bytes,
        records: content.records.len(),
        ..Segment::default()
    };
    for record in &content.records {
        let rows = u64::from(record.rows);
        segment.rows = segment.rows.saturating_add(rows);
        let is_delivered = match delivered {
            Delivered::UpTo(seq) => record.seq <= seq,
            Delivered::Unknown => false,
        };
        let share =
            if is_delivered { &mut segment.delivered_rows } else { &mut segment.pending_rows };
        *share = share.saturating_add(rows);
        let name = table_of(record.table)
            .map_or_else(|| format!("table {}", record.table), |table| table.name.to_owned());
        let of_table = segment.tables.entry(name).or_default();
        *of_table = of_table.saturating_add(rows);
    }
    segment
}

fn text(list: &List) -> String {
    let seq = |seq: Option<u64>| seq.map_or_else(String::new, |seq| seq.to_string());
    let time = |at: Option<Timestamp>| at.map_or_else(String::new, |at| at.to_string());
    let rows: Vec<Vec<String>> = list
        .segments
        .iter()
        .map(|segment| {
            let tables: Vec<String> =
                segment.tables.iter().map(|(name, rows)| format!("{name} {rows}")).collect();
            vec![
                format!("{}/{}", segment.place, segment.file),
                segment.state.to_owned(),
                seq(segment.first_seq),
                seq(segment.last_seq),
                time(segment.from),
                time(segment.to),
                segment.bytes.to_string(),
                segment.rows.to_string(),
                segment.pending_rows.to_string(),
                tables.join(", "),
            ]
        })
        .collect();
    let header = [
        "FILE",
        "STATE",
        "FIRST",
        "LAST",
        "FROM",
        "TO",
        "BYTES",
        "ROWS",
        "PENDING",
        "ROWS BY TABLE",
    ];
    let in_spool = || list.segments.iter().filter(|segment| segment.place == "spool");
    let pending: u64 = in_spool().map(|segment| segment.pending_rows).sum();
    let delivered: u64 = in_spool().map(|segment| segment.delivered_rows).sum();
    let cursor = match list.delivered_seq {
        Some(seq) => format!("delivered up to seq {seq} (as last written down)"),
        None => "the cursor cannot be read: the next start sends everything again".to_owned(),
    };
    let sums = format!(
        "{}: {pending} rows wait, {delivered} are delivered and kept for a replay; {cursor}",
        list.folder
    );
    let letters = match list.dead_letters {
        0 => String::new(),
        count => format!("\n{count} rows refused by QuestDB: periscope spool dead-letter list"),
    };
    format!("{}\n\n{sums}{letters}", output::table(&header, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::spool::scan::Record;

    #[test]
    fn rows_are_summed_by_table_and_by_the_cursor() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("00000000000000000007.seg"), [0; 128]).unwrap();
        let view = crate::store::inspect::look(folder.path()).unwrap();
        let file = &view.files[0];
        let record = |seq: u64, table: u16| Record {
            seq,
            at: Timestamp::from_millis(1_700_000_000_000),
            table,
            rows: 10,
            body: b"x a=1i 1\n"[..].into(),
        };
        let empty = file.read().unwrap();
        assert_eq!(segment(file, &empty, view.delivered).state, "empty");
        let records = vec![record(7, 0), record(8, 2), record(9, 2), record(10, 999)];
        let content = Content { records, ..Content::default() };
        let seen = segment(file, &content, Delivered::UpTo(8));
        assert_eq!((seen.rows, seen.delivered_rows, seen.pending_rows), (40, 20, 20));
        assert_eq!((seen.first_seq, seen.last_seq, seen.state), (Some(7), Some(10), "sound"));
        let tables: Vec<_> =
            seen.tables.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
        assert_eq!(tables, [("daemon_metrics", 10), ("pipeline_metrics", 20), ("table 999", 10)]);
        assert_eq!(segment(file, &content, Delivered::Unknown).pending_rows, 40);
    }
}

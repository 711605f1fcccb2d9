//! `[daemon.map]`: where the columns of a status stand in a document of any form.

mod path;
mod preset;
mod read;
#[cfg(test)]
mod tests;

pub use path::{Path, Step};
pub(super) use preset::{PRESETS, Preset};
pub(super) use read::map;

use crate::model::table::{
    Column, DAEMON_METRICS, EXCHANGE_STATUS, PIPELINE_METRICS, TRADING_METRICS, Table,
};

/// Columns of `daemon_metrics` that are periscope's own: no document says them.
const OWN: [&str; 5] = ["reachable", "poll_error", "instance", "restarts", "poll_ms"];
/// Tags that every row has from elsewhere.
const TAGS: [&str; 3] = ["daemon", "host", "env"];

/// How a document of any form becomes a status.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map {
    /// Columns of `daemon_metrics`.
    pub plain: Vec<Field>,
    /// Rows of `exchange_status`, `pipeline_metrics` and `trading_metrics`, by kind.
    pub rows: Vec<(RowKind, Rows)>,
}

/// Which rows are made of a part of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// One venue.
    Exchange,
    /// One kind of data of one instrument.
    Pipeline,
    /// One strategy on one instrument.
    Trading,
}

/// The entries of a document that become rows, and their columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Where the entries are: every match of the path is one row, and every item of a list that it
    /// ends at.
    pub select: Path,
    /// The columns.
    pub fields: Vec<Field>,
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Which.
    pub column: &'static Column,
    /// Where its value is.
    pub origin: Origin,
    /// How the value is written.
    pub form: Form,
    /// Whether the value, a time, is to become the seconds since then.
    pub age: bool,
    /// The column is true when the value equals this.
    pub equals: Option<serde_json::Value>,
    /// A number that is taken from the value.
    pub minus: Option<Origin>,
    /// What the value is multiplied with.
    pub scale: Option<f64>,
    /// The value where the document has none.
    pub default: Option<serde_json::Value>,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// At a path within the entry; of a plain column: within the document.
    Entry(Path),
    /// At a path within the document.
    Document(Path),
    /// The keys or indices that these `*` of the selector stand for, the first being 1, joined by `/`.
    Keys(Vec<usize>),
    /// Always this.
    Constant(serde_json::Value),
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As the column has it.
    Plain,
    /// A number, or true and false, inside a text.
    Text,
    /// A list or object of which the number of entries counts.
    Length,
    /// A time as a number since 1970; how many of these units are one second.
    Unix(u32),
}

impl RowKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Exchange, Self::Pipeline, Self::Trading];

    /// Returns the name of such rows in a status document and in `[daemon.map]`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Exchange => "exchange_status",
            Self::Pipeline => "pipeline",
            Self::Trading => "trading",
        }
    }

    /// Returns the table of the rows.
    pub const fn table(self) -> &'static Table {
        match self {
            Self::Exchange => &EXCHANGE_STATUS,
            Self::Pipeline => &PIPELINE_METRICS,
            Self::Trading => &TRADING_METRICS,
        }
    }

    /// Returns the columns without which there is no row.
    pub const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Exchange => &["exchange", "connected"],
            Self::Pipeline => &["exchange", "data_type"],
            Self::Trading => &["strategy"],
        }
    }

    /// Returns the columns that a document can fill.
    pub fn columns(self) -> impl Iterator<Item = &'static Column> {
        self.table().columns.iter().filter(|column| !TAGS.contains(&column.name))
    }
}

/// Returns the columns of `daemon_metrics` that a document can fill.
pub fn plain_columns() -> impl Iterator<Item = &'static Column> {
    let is_own = |column: &&Column| TAGS.contains(&column.name) || OWN.contains(&column.name);
    DAEMON_METRICS.columns.iter().filter(move |column| !is_own(column))
}

impl Map {
    /// Puts `other` over this map: its columns and its kinds of rows take the place of these.
    fn overlay(&mut self, other: Self) {
        self.plain.retain(|field| other.plain.iter().all(|new| new.column != field.column));
        self.plain.extend(other.plain);
        self.rows.retain(|(kind, _)| other.rows.iter().all(|(new, _)| new != kind));
        self.rows.extend(other.rows);
    }
}

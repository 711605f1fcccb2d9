//! What a rule measures: rows of a table, boiled down to one number for each set of labels.

use std::time::Duration;

use super::rule::{Signal, words};
use crate::model::row::{Row, Value};
use crate::model::table::{Column, Table};

/// Where a rule's numbers come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Rows of one table; becomes SQL, and can be evaluated over rows in memory.
    Rows(Measure),
    /// A query written by hand, for what [`Measure`] cannot say. Only the database can answer it.
    Sql {
        /// One bounded SELECT: text columns and exactly one number.
        sql: String,
        /// Its text columns.
        labels: Vec<String>,
    },
    /// periscope's own knowledge; not for Grafana.
    Own(Signal),
}

impl Condition {
    /// Returns the names of the labels of its readings.
    pub fn labels(&self) -> Vec<&str> {
        match self {
            Self::Rows(measure) => measure.by.iter().map(|column| column.name).collect(),
            Self::Sql { labels, .. } => labels.iter().map(String::as_str).collect(),
            Self::Own(signal) => signal.labels().to_vec(),
        }
    }
}

/// One number for each set of labels, out of the rows of a table newer than `window`.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// The rows.
    pub table: &'static Table,
    /// Labels: columns of the table's key.
    pub by: Vec<&'static Column>,
    /// Only rows that match all of these.
    pub filter: Vec<Match>,
    /// How rows become a number.
    pub aggregate: Aggregate,
    /// How far back rows are looked at. Rows dated after now count too: a clock may be a little off.
    pub window: Duration,
    /// Only series with a row newer than this: what no longer reports is the business of the rules
    /// about silence.
    pub fresh: Option<Duration>,
}

/// `column = value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// A BOOLEAN, SYMBOL or VARCHAR column.
    pub column: &'static Column,
    /// The value that it must have.
    pub value: Literal,
}

/// A value in a [`Match`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// For BOOLEAN columns.
    Bool(bool),
    /// For SYMBOL and VARCHAR columns; `[A-Za-z0-9_ .:/-]*`, so that it needs no escaping.
    Text(String),
}

impl Match {
    /// Whether `row` has the value. Null booleans read as false, as in `QuestDB`.
    pub fn holds(&self, row: &Row) -> bool {
        match (&self.value, row.get(self.column.name)) {
            (Literal::Bool(wanted), Value::Bool(value)) => wanted == value,
            (Literal::Bool(wanted), Value::Null) => !*wanted,
            (Literal::Text(wanted), Value::Text(value)) => wanted.as_str() == &**value,
            (
                Literal::Bool(_),
                Value::Long(_) | Value::Double(_) | Value::Time(_) | Value::Text(_),
            )
            | (
                Literal::Text(_),
                Value::Null | Value::Bool(_) | Value::Long(_) | Value::Double(_) | Value::Time(_),
            ) => false,
        }
    }
}

/// How rows become a number. A null is no value: rows without one are left out.
#[derive(Debug, Clone, PartialEq)]
pub enum Aggregate {
    /// One figure of a LONG or DOUBLE column.
    Plain {
        /// Which figure.
        function: Function,
        /// Of what.
        column: &'static Column,
    },
    /// Growth of a counter: the sum of its positive steps, so that a restart at zero does not
    /// count. `per` scales it to a rate.
    Increase {
        /// A LONG counter.
        column: &'static Column,
        /// Growth in this much time instead of in the window.
        per: Option<Duration>,
    },
    /// Growth of one counter for each growth of another.
    Ratio {
        /// A LONG counter.
        column: &'static Column,
        /// A LONG counter.
        divisor: &'static Column,
        /// No reading while the divisor has grown by less than this; 1 or more.
        at_least: u32,
    },
    /// Seconds since the newest row that is not in `state` (empty: since the newest row). When all
    /// are in it, since the oldest row of the window.
    Age {
        /// All must hold.
        state: Vec<Match>,
    },
    /// Seconds since the series was last out of `state`, at least 1; 0 when its newest row is out
    /// of it. Of rows that all are in it: since the oldest one.
    Lasted {
        /// All must hold.
        state: Vec<Match>,
        /// A DOUBLE column in which the daemon itself gives the seconds; used where it is not null.
        column: Option<&'static Column>,
    },
    /// Time since the column last changed, in units of the usual time between its changes.
    ///
    /// The usual time is that of a moment chosen at random in the window: `sum(gap²) / sum(gap)`.
    /// Unlike the mean it is not small for a feed that comes in bursts, and unlike the maximum one
    /// outage does not spoil it. It counts as `floor` when less, or when nothing is known.
    Quiet {
        /// A LONG counter, or a TIMESTAMP (whose values are the moments of change).
        column: &'static Column,
        /// Shortest usual time; positive.
        floor: Duration,
    },
}

words! {
    /// A figure of a column.
    Function {
        /// Value of the newest row that has one.
        Last = "last",
        /// Mean.
        Avg = "avg",
        /// Least.
        Min = "min",
        /// Greatest.
        Max = "max",
        /// Sum.
        Sum = "sum",
        /// Number of values.
        Count = "count",
    }
}

impl Measure {
    /// Whether an evaluation over less than the whole window would be misleading: the usual gap of
    /// a slow series cannot be seen in a few minutes.
    pub const fn needs_whole_window(&self) -> bool {
        match self.aggregate {
            Aggregate::Quiet { .. } => true,
            Aggregate::Plain { .. }
            | Aggregate::Increase { .. }
            | Aggregate::Ratio { .. }
            | Aggregate::Age { .. }
            | Aggregate::Lasted { .. } => false,
        }
    }

    /// Whether readings make sense only for whole series: one row at a time, not several at once.
    pub const fn needs_whole_key(&self) -> bool {
        match self.aggregate {
            Aggregate::Plain { function: Function::Last, .. } | Aggregate::Lasted { .. } => true,
            Aggregate::Quiet { column, .. } => {
                matches!(column.kind, crate::model::table::Kind::Timestamp)
            }
            Aggregate::Plain { .. }
            | Aggregate::Increase { .. }
            | Aggregate::Ratio { .. }
            | Aggregate::Age { .. } => false,
        }
    }

    /// Returns the columns that must not be null for a row to count.
    pub fn needed(&self) -> Vec<&'static Column> {
        match self.aggregate {
            Aggregate::Plain { column, .. }
            | Aggregate::Increase { column, .. }
            | Aggregate::Quiet { column, .. } => vec![column],
            Aggregate::Ratio { column, divisor, .. } => vec![column, divisor],
            Aggregate::Age { .. } | Aggregate::Lasted { .. } => Vec::new(),
        }
    }
}

//! One row of one declared table.

use std::sync::Arc;

use super::table::{Kind, Table};
use crate::base::time::Timestamp;

/// A cell.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Unknown; not sent, so `QuestDB` shows null.
    #[default]
    Null,
    /// BOOLEAN.
    Bool(bool),
    /// LONG.
    Long(i64),
    /// DOUBLE.
    Double(f64),
    /// TIMESTAMP.
    Time(Timestamp),
    /// SYMBOL or VARCHAR.
    Text(Arc<str>),
}

impl Value {
    /// Whether a column of `kind` can hold this value.
    pub const fn fits(&self, kind: Kind) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(_) => matches!(kind, Kind::Boolean),
            Self::Long(_) => matches!(kind, Kind::Long),
            Self::Double(_) => matches!(kind, Kind::Double),
            Self::Time(_) => matches!(kind, Kind::Timestamp),
            Self::Text(_) => matches!(kind, Kind::Symbol | Kind::Varchar),
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => flag.fmt(f),
            Self::Long(number) => number.fmt(f),
            Self::Double(number) => number.fmt(f),
            Self::Time(time) => time.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => |$value:ident| $make:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self { $make }
        }
    )*};
}
value_from! {
    bool => |value| Self::Bool(value);
    i64 => |value| Self::Long(value);
    f64 => |value| Self::Double(value);
    Timestamp => |value| Self::Time(value);
    &str => |value| Self::Text(value.into());
    String => |value| Self::Text(value.into());
    Arc<str> => |value| Self::Text(value);
    &Arc<str> => |value| Self::Text(Arc::clone(value));
}
impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// One row: a time and one value for every column of its table, in the declared order.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The table it belongs to.
    pub table: &'static Table,
    /// Designated timestamp.
    pub at: Timestamp,
    values: Vec<Value>,
}

impl Row {
    /// Makes a row of nulls.
    pub fn new(table: &'static Table, at: Timestamp) -> Self {
        Self { table, at, values: vec![Value::Null; table.columns.len()] }
    }

    /// Sets `column`.
    ///
    /// A name that the table does not have, or a value of another type than the column's, is a
    /// mistake in the program: it stops a debug build and is left out otherwise.
    #[must_use]
    pub fn with(mut self, column: &str, value: impl Into<Value>) -> Self {
        self.set(column, value.into());
        self
    }

    /// Sets `column`; see [`Row::with`].
    pub fn set(&mut self, column: &str, value: Value) {
        let index = self.table.columns.iter().position(|candidate| candidate.name == column);
        let fits = index
            .and_then(|index| self.table.columns.get(index))
            .is_some_and(|column| value.fits(column.kind));
        debug_assert!(fits, "{}.{column} cannot hold {value:?}", self.table.name);
        if let Some(cell) = index.filter(|_| fits).and_then(|index| self.values.get_mut(index)) {
            *cell = value;
        }
    }

    /// Returns the value of `column`; `Null` when the table has no such column.
    pub fn get(&self, column: &str) -> &Value {
        const NULL: &Value = &Value::Null;
        let index = self.table.columns.iter().position(|candidate| candidate.name == column);
        index.and_then(|index| self.values.get(index)).unwrap_or(NULL)
    }

    /// Returns all values in the order of `table.columns`.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Returns all values in the order of `table.columns`, to be repaired: each must still fit its
    /// column afterwards.
    pub fn values_mut(&mut self) -> &mut [Value] {
        &mut self.values
    }
}

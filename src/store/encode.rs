//! Rows to line protocol text (protocol V1), one body per table. Pure.

use questdb::ingress::{
    Buffer, ColumnName, ProtocolVersion, TableName, TimestampMicros, TimestampNanos,
};

use super::spool::disk::Draft;
use crate::model::row::{Row, Value};
use crate::model::table::{Kind, TABLES, Table};

/// Size at which a body is not filled further, bytes: far below what the server takes at once.
pub const BODY_LIMIT: usize = 512 * 1024;

/// Returns the index of `table` in the list of all tables: its id in the spool.
pub fn table_id(table: &Table) -> Option<u16> {
    let index = TABLES.iter().position(|candidate| std::ptr::eq(*candidate, table))?;
    u16::try_from(index).ok()
}

/// Returns the table with the id `id`.
pub fn table_of(id: u16) -> Option<&'static Table> {
    TABLES.get(usize::from(id)).copied()
}

/// Rows of one table as they become text.
#[derive(Debug)]
pub struct Body {
    table: &'static Table,
    id: u16,
    buffer: Buffer,
    rows: u32,
}

impl Body {
    /// Makes an empty body for `table`, whose id is `id`.
    pub fn new(table: &'static Table, id: u16) -> Self {
        Self { table, id, buffer: Buffer::new(ProtocolVersion::V1), rows: 0 }
    }

    /// Adds `row`, which belongs to this body's table. Nulls are left out.
    ///
    /// # Errors
    /// The row has no value at all, or the encoder refuses it; the body is as before.
    pub fn add(&mut self, row: &Row) -> questdb::Result<()> {
        self.buffer.set_marker()?;
        match self.write(row) {
            Ok(()) => {
                self.rows = self.rows.saturating_add(1);
                Ok(())
            }
            Err(error) => {
                self.buffer.rewind_to_marker()?;
                Err(error)
            }
        }
    }

    fn write(&mut self, row: &Row) -> questdb::Result<()> {
        // Names are declared in the program and checked by a test, not once per row.
        let buffer = self.buffer.table(TableName::new_unchecked(self.table.name))?;
        for (column, value) in self.table.columns.iter().zip(row.values()) {
            let name = ColumnName::new_unchecked(column.name);
            match (value, column.kind) {
                (Value::Null, _) => {}
                (Value::Text(text), Kind::Symbol) => {
                    buffer.symbol(name, text)?;
                }
                (Value::Text(text), _) => {
                    buffer.column_str(name, text)?;
                }
                (Value::Bool(value), _) => {
                    buffer.column_bool(name, *value)?;
                }
                (Value::Long(value), _) => {
                    buffer.column_i64(name, *value)?;
                }
                (Value::Double(value), _) => {
                    buffer.column_f64(name, *value)?;
                }
                (Value::Time(at), _) => {
                    buffer.column_ts(name, TimestampMicros::new(at.micros()))?;
                }
            }
        }
        buffer.at(TimestampNanos::new(row.at.nanos()))
    }

    /// Returns the number of rows.
    pub const fn rows(&self) -> u32 {
        self.rows
    }

    /// Whether the body has reached its largest size.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= BODY_LIMIT
    }

    /// Takes the rows out, ready for the spool; `None` when there are none.
    pub fn take(&mut self) -> Option<Draft> {
        if self.rows == 0 {
            return None;
        }
        let draft = Draft::new(self.id, self.rows, self.buffer.as_bytes());
        self.buffer.clear();
        self.rows = 0;
        Some(draft)
    }
}

#[cfg(test)]
mod tests {
    // The encoder against a strict parser of our own.

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::base::time::Timestamp;
    use crate::model::table::{DAEMON_METRICS, EXCHANGE_STATUS};

    /// A parsed line: table, tags, fields as they are written, timestamp.
    #[derive(Debug, PartialEq)]
    struct Line {
        table: String,
        tags: BTreeMap<String, String>,
        fields: BTreeMap<String, String>,
        at: i64,
    }

    /// Reads up to one of `ends` outside of escapes; returns the text without escapes.
    fn token<'a>(text: &'a str, ends: &str) -> (String, &'a str) {
        let mut token = String::new();
        let mut chars = text.char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '\\' => token.push(chars.next().expect("an escape escapes something").1),
                c if ends.contains(c) => return (token, text.get(index..).unwrap()),
                '\n' | '\r' => panic!("a bare line break inside a line"),
                c => token.push(c),
            }
        }
        panic!("none of {ends:?} in {text:?}");
    }

    /// Parses one line without its line break; panics on anything that the protocol does not allow.
    fn parse(line: &str) -> Line {
        let (table, mut rest) = token(line, ", ");
        let mut tags = BTreeMap::new();
        while let Some(text) = rest.strip_prefix(',') {
            let (name, after) = token(text, "=");
            let (value, after) = token(after.strip_prefix('=').unwrap(), ", ");
            assert!(tags.insert(name, value).is_none(), "twice: {line}");
            rest = after;
        }
        let mut fields = BTreeMap::new();
        let mut rest = rest.strip_prefix(' ').expect("a space before the fields");
        let at = loop {
            if !rest.contains('=') {
                break rest;
            }
            let (name, after) = token(rest, "=");
            let text = after.strip_prefix('=').unwrap();
            let (value, after) = match text.strip_prefix('"') {
                Some(text) => {
                    let (value, after) = token(text, "\"");
                    (format!("\"{value}"), after.strip_prefix('"').unwrap())
                }
                None => token(text, ", "),
            };
            assert!(fields.insert(name, value).is_none(), "twice: {line}");
            match after.strip_prefix(',') {
                Some(after) => rest = after,
                None => break after.strip_prefix(' ').expect("a space before the time"),
            }
        };
        Line { table, tags, fields, at: at.parse().expect("a time in ns") }
    }

    fn encoded(rows: &[Row]) -> String {
        let table = rows[0].table;
        let mut body = Body::new(table, table_id(table).unwrap());
        for row in rows {
            body.add(row).unwrap();
        }
        String::from_utf8(body.buffer.as_bytes().to_vec()).unwrap()
    }

    /// What `row` must look like.
    fn expected(row: &Row) -> Line {
        let (mut tags, mut fields) = (BTreeMap::new(), BTreeMap::new());
        for (column, value) in row.table.columns.iter().zip(row.values()) {
            let name = column.name.to_owned();
            match value {
                Value::Null => {}
                Value::Text(text) if column.kind == Kind::Symbol => {
                    tags.insert(name, text.to_string());
                }
                Value::Text(text) => {
                    fields.insert(name, format!("\"{text}"));
                }
                Value::Bool(value) => {
                    fields.insert(name, if *value { "t" } else { "f" }.to_owned());
                }
                Value::Long(value) => {
                    fields.insert(name, format!("{value}i"));
                }
                Value::Double(value) => {
                    fields.insert(name, value.to_string());
                }
                Value::Time(at) => {
                    fields.insert(name, format!("{}t", at.micros()));
                }
            }
        }
        Line { table: row.table.name.to_owned(), tags, fields, at: row.at.nanos() }
    }

    fn agrees(line: &Line, row: &Row) {
        let expected = expected(row);
        assert_eq!(
            (&line.table, &line.tags, line.at),
            (&expected.table, &expected.tags, expected.at)
        );
        assert_eq!(
            line.fields.keys().collect::<Vec<_>>(),
            expected.fields.keys().collect::<Vec<_>>()
        );
        for (name, text) in &line.fields {
            if let Value::Double(value) = row.get(name) {
                assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{name}");
            } else {
                assert_eq!(text, &expected.fields[name], "{name}");
            }
        }
    }

    #[test]
    fn nulls_are_left_out_and_text_is_escaped() {
        let row = Row::new(&DAEMON_METRICS, Timestamp::from_nanos(1_700_000_000_000_000_123))
            .with("daemon", "a b,c=d\\e")
            .with("reachable", true)
            .with("fetch_count", i64::MIN)
            .with("cpu_percent", -0.0)
            .with("last_fetch_time", Timestamp::from_nanos(1_500))
            .with("last_error", "say \"no\" \\ ü");
        assert_eq!(
            encoded(&[row]),
            "daemon_metrics,daemon=a\\ b\\,c\\=d\\\\e reachable=t,fetch_count=-9223372036854775808i,\
             last_fetch_time=1t,last_error=\"say \\\"no\\\" \\\\ ü\",cpu_percent=-0.0 \
             1700000000000000123\n"
        );
    }

    #[test]
    fn a_row_without_any_value_is_refused_and_leaves_the_others() {
        let mut body = Body::new(&EXCHANGE_STATUS, 1);
        let at = Timestamp::from_nanos(1);
        body.add(&Row::new(&EXCHANGE_STATUS, at).with("daemon", "a")).unwrap();
        body.add(&Row::new(&EXCHANGE_STATUS, at)).unwrap_err();
        body.add(&Row::new(&EXCHANGE_STATUS, at).with("latency_ms", 1.5)).unwrap();
        assert_eq!(body.rows(), 2);
        let text = String::from_utf8(body.buffer.as_bytes().to_vec()).unwrap();
        assert_eq!(text, "exchange_status,daemon=a 1\nexchange_status latency_ms=1.5 1\n");
        assert!(body.take().is_some() && body.take().is_none());
    }

    #[test]
    fn every_table_has_an_id_and_comes_back_by_it() {
        for (index, table) in TABLES.into_iter().enumerate() {
            let id = table_id(table).unwrap();
            assert_eq!(usize::from(id), index);
            assert_eq!(table_of(id).unwrap().name, table.name);
        }
        assert!(table_of(999).is_none());
    }

    fn text() -> impl Strategy<Value = String> {
        // What validation lets through: no control characters.
        proptest::collection::vec(
            prop_oneof![
                Just(' '),
                Just(','),
                Just('='),
                Just('"'),
                Just('\\'),
                Just('t'),
                Just('i'),
                proptest::char::any().prop_filter("control", |c| !c.is_control()),
            ],
            1..20,
        )
        .prop_map(|chars| chars.into_iter().collect())
    }

    fn value(kind: Kind) -> BoxedStrategy<Value> {
        let some = match kind {
            Kind::Symbol | Kind::Varchar => text().prop_map(Value::from).boxed(),
            Kind::Boolean => any::<bool>().prop_map(Value::from).boxed(),
            Kind::Long => any::<i64>().prop_map(Value::from).boxed(),
            Kind::Double => any::<f64>()
                .prop_filter("finite", |value| value.is_finite())
                .prop_map(Value::from)
                .boxed(),
            Kind::Timestamp => {
                any::<i64>().prop_map(|nanos| Value::Time(Timestamp::from_nanos(nanos))).boxed()
            }
        };
        prop_oneof![1 => Just(Value::Null), 3 => some].boxed()
    }

    fn row() -> impl Strategy<Value = Row> {
        (0..TABLES.len(), 0..i64::MAX).prop_flat_map(|(index, at)| {
            let table = TABLES[index];
            let values: Vec<_> = table.columns.iter().map(|column| value(column.kind)).collect();
            values.prop_map(move |values| {
                let mut row = Row::new(table, Timestamp::from_nanos(at));
                row.values_mut().clone_from_slice(&values);
                row
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn what_is_written_is_what_a_strict_parser_reads(row in row()) {
            if row.values().iter().any(|value| *value != Value::Null) {
                let text = encoded(std::slice::from_ref(&row));
                let line = text.strip_suffix('\n').unwrap();
                prop_assert!(!line.contains('\n'));
                agrees(&parse(line), &row);
            }
        }
    }
}

//! Reading typed columns over the PG wire, with limits on time, rows and bytes: answers for panels.

use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt as _;
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Row};

use super::read::{ReadError, connect, words};
use crate::model::server::Endpoint;

/// What an answer may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the connection to the last row.
    pub time: Duration,
    /// Rows; what comes after is left out.
    pub rows: usize,
    /// Size of the values as JSON, roughly, bytes; what comes after is left out.
    pub bytes: usize,
}

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Milliseconds since 1970 UTC.
    Time,
    /// Numbers.
    Number,
    /// Texts.
    Text,
    /// `true` and `false`.
    Boolean,
}

/// A column with its values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: Kind,
    /// One value for every row; null where there is none.
    pub values: Vec<Value>,
}

/// Rows by column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Frame {
    /// The columns, all of one length.
    pub columns: Vec<Column>,
    /// Whether rows were left out because of a limit.
    pub cut: bool,
}

/// Runs `sql` and returns its columns within `limits`. When the time is over, or nobody waits any
/// more, the connection is cut, and the server stops working for it.
///
/// # Errors
/// See [`ReadError`].
pub async fn query(endpoint: &Endpoint, sql: &str, limits: Limits) -> Result<Frame, ReadError> {
    let ask = async {
        let connection = connect(endpoint).await?;
        read(connection.client(), sql, limits).await
    };
    tokio::time::timeout(limits.time, ask).await.unwrap_or_else(|_elapsed| {
        Err(ReadError::Timeout { pg: endpoint.pg.clone(), limit: limits.time })
    })
}

async fn read(client: &Client, sql: &str, limits: Limits) -> Result<Frame, ReadError> {
    let failed = |error: tokio_postgres::Error| ReadError::Statement(words(&error));
    let statement = client.prepare(sql).await.map_err(failed)?;
    let mut columns = Vec::new();
    for column in statement.columns() {
        let (name, of) = (column.name().to_owned(), column.type_());
        let kind = kind(of).ok_or_else(|| {
            ReadError::Statement(format!("column {name} has type {of}, which no panel shows"))
        })?;
        columns.push(Column { name, kind, values: Vec::new() });
    }
    let none: [&str; 0] = [];
    let mut rows = pin!(client.query_raw(&statement, none).await.map_err(failed)?);
    let (mut count, mut bytes) = (0_usize, 0_usize);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        if count >= limits.rows || bytes >= limits.bytes {
            return Ok(Frame { columns, cut: true });
        }
        count = count.saturating_add(1);
        for (index, column) in columns.iter_mut().enumerate() {
            let value = value(&row, index).map_err(failed)?;
            bytes = bytes.saturating_add(value.as_str().map_or(10, str::len).saturating_add(4));
            column.values.push(value);
        }
    }
    Ok(Frame { columns, cut: false })
}

fn kind(of: &Type) -> Option<Kind> {
    match *of {
        Type::TIMESTAMP => Some(Kind::Time),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 => Some(Kind::Number),
        Type::VARCHAR | Type::TEXT | Type::BPCHAR => Some(Kind::Text),
        Type::BOOL => Some(Kind::Boolean),
        _ => None,
    }
}

/// Returns the value of a column; null also for numbers that JSON does not have.
fn value(row: &Row, index: usize) -> Result<Value, tokio_postgres::Error> {
    fn get<'a, T: FromSql<'a> + Into<Value>>(
        row: &'a Row,
        index: usize,
    ) -> Result<Value, tokio_postgres::Error> {
        Ok(row.try_get::<_, Option<T>>(index)?.map_or(Value::Null, Into::into))
    }
    match row.columns().get(index).map(|column| column.type_().clone()) {
        Some(Type::TIMESTAMP) => {
            Ok(row.try_get::<_, Option<SystemTime>>(index)?.map_or(Value::Null, millis))
        }
        Some(Type::INT2) => get::<i16>(row, index),
        Some(Type::INT4) => get::<i32>(row, index),
        Some(Type::INT8) => get::<i64>(row, index),
        Some(Type::FLOAT4) => get::<f32>(row, index),
        Some(Type::FLOAT8) => get::<f64>(row, index),
        Some(Type::BOOL) => get::<bool>(row, index),
        Some(_) | None => get::<&str>(row, index),
    }
}

fn millis(time: SystemTime) -> Value {
    let ms = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).ok(),
        Err(before) => i64::try_from(before.duration().as_millis()).ok().map(i64::wrapping_neg),
    };
    ms.map_or(Value::Null, Value::from)
}

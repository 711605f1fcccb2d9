//! Tables as declared: made where they are missing, extended where they are older, and where they
//! are somebody else's, named with what is different.

use std::fmt::Write as _;

use serde_json::Value;

use super::exec::{ExecError, Target};
use crate::base::http::Client;
use crate::config::Retention;
use crate::model::table::{TIMESTAMP, Table};

/// A column as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundColumn {
    /// Name.
    pub name: String,
    /// Type.
    pub kind: String,
    /// Whether it is part of the DEDUP key.
    pub key: bool,
}

/// A table as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTable {
    /// Name of the designated timestamp.
    pub designated: String,
    /// Whether it has a write-ahead log.
    pub wal: bool,
    /// Whether repeated rows replace each other.
    pub dedup: bool,
    /// Hours that rows are kept; `None`: for ever. Months and years count 30 and 365 days.
    pub ttl_hours: Option<u64>,
    /// Columns.
    pub columns: Vec<FoundColumn>,
}

/// What has to happen to a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Statements that bring it to what is declared.
    pub statements: Vec<String>,
    /// What only a person may change, and how; rows of the table wait until then.
    pub foreign: Option<String>,
}

/// State of a table after [`ensure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As declared, and it was before.
    Sound,
    /// As declared now.
    Mended,
    /// Made new just now: rows may have been accepted for the one that was there before.
    Made,
    /// Different in a way that only a person may change.
    Foreign(String),
}

/// Compares `found` with the declared `table`, whose rows are to be kept `days` days. Pure.
pub fn plan(table: &Table, found: Option<&FoundTable>, days: u32) -> Plan {
    let name = table.name;
    let Some(found) = found else {
        return Plan { statements: vec![table.ddl(days)], foreign: None };
    };
    let mut differences = differences(table, found);
    let mut statements = Vec::new();
    for column in table.columns {
        if !found.columns.iter().any(|other| other.name == column.name) {
            let kind = column.kind.sql();
            statements.push(format!(
                "ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {} {kind}",
                column.name
            ));
        }
    }
    let keys = |separator: &str| -> String {
        let declared = table.keys().map(|column| column.name);
        std::iter::once(TIMESTAMP).chain(declared).collect::<Vec<_>>().join(separator)
    };
    let enable = format!("ALTER TABLE {name} DEDUP ENABLE UPSERT KEYS({})", keys(", "));
    let is_key = |column: &str| column == TIMESTAMP || table.keys().any(|key| key.name == column);
    let found_keys = || found.columns.iter().filter(|column| column.key);
    if !found.dedup {
        differences.push(format!(
            "it has no DEDUP: run \"{enable}\", after removing rows that are \
                                  there twice"
        ));
    } else if found_keys().any(|column| !is_key(&column.name)) {
        let others: Vec<&str> = found_keys().map(|column| column.name.as_str()).collect();
        differences.push(format!("its DEDUP keys are ({}): run \"{enable}\"", others.join(", ")));
    } else if found_keys().count() != table.keys().count().saturating_add(1) {
        // An earlier version had fewer keys; all of them are among the declared ones.
        statements.push(enable);
    }
    if found.ttl_hours != Some(u64::from(days).saturating_mul(24)) {
        statements.push(format!("ALTER TABLE {name} SET TTL {days} DAYS"));
    }
    if differences.is_empty() {
        return Plan { statements, foreign: None };
    }
    let mut text = format!("table {name}: {}", differences.join("; "));
    let _ignored = write!(
        text,
        "; or run \"RENAME TABLE {name} TO {name}_old\" and periscope makes a new one; its rows \
         wait in the spool"
    );
    Plan { statements: Vec::new(), foreign: Some(text) }
}

/// Returns what no statement of ours may change.
fn differences(table: &Table, found: &FoundTable) -> Vec<String> {
    let mut differences = Vec::new();
    if !found.wal {
        differences.push("it is not a WAL table".to_owned());
    }
    if found.designated != TIMESTAMP {
        differences.push(match found.designated.as_str() {
            "" => format!("it has no designated timestamp, not {TIMESTAMP}"),
            other => format!("its designated timestamp is {other}, not {TIMESTAMP}"),
        });
    }
    let declared = table.columns.iter().map(|column| (column.name, column.kind.sql()));
    for (name, kind) in std::iter::once((TIMESTAMP, "TIMESTAMP_NS")).chain(declared) {
        if let Some(other) = found.columns.iter().find(|column| column.name == name)
            && other.kind != kind
        {
            differences.push(format!("column {name} is {}, not {kind}", other.kind));
        }
    }
    differences
}

/// Returns hours from a number and a unit as `tables()` tells them.
pub(super) fn ttl_hours(value: u64, unit: &str) -> Option<u64> {
    let hours = match unit {
        "HOUR" => 1,
        "DAY" => 24,
        "WEEK" => 24 * 7,
        "MONTH" => 24 * 30,
        "YEAR" => 24 * 365,
        _ => return None,
    };
    Some(value.saturating_mul(hours)).filter(|hours| *hours > 0)
}

/// Asks the server about `table`; `None` when there is no such table.
async fn look(
    target: &Target,
    client: &Client,
    table: &Table,
) -> Result<Option<FoundTable>, ExecError> {
    let name = table.name;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let truth = |value: &Value| value.as_bool().unwrap_or(false);
    let sql = format!(
        "select designatedTimestamp, walEnabled, dedup, ttlValue, ttlUnit from tables() \
         where table_name = '{name}'"
    );
    let tables = target.exec(client, &sql).await?;
    let Some(facts) = tables.iter().next() else { return Ok(None) };
    let sql = format!("select \"column\", type, upsertKey from table_columns('{name}')");
    let columns = target.exec(client, &sql).await?;
    Ok(Some(FoundTable {
        designated: text(facts.get("designatedTimestamp")),
        wal: truth(facts.get("walEnabled")),
        dedup: truth(facts.get("dedup")),
        ttl_hours: ttl_hours(
            facts.get("ttlValue").as_u64().unwrap_or(0),
            &text(facts.get("ttlUnit")),
        ),
        columns: columns
            .iter()
            .map(|row| FoundColumn {
                name: text(row.get("column")),
                kind: text(row.get("type")),
                key: truth(row.get("upsertKey")),
            })
            .collect(),
    }))
}

/// Brings `table` to what is declared, as far as that is ours to do.
///
/// Several periscopes may do this at once: every statement may be run twice.
///
/// # Errors
/// The server does not answer or refuses a statement.
pub async fn ensure(
    target: &Target,
    client: &Client,
    table: &Table,
    retention: &Retention,
) -> Result<Outcome, ExecError> {
    let days = retention.days(table);
    let found = look(target, client, table).await?;
    let was_missing = found.is_none();
    let plan = plan(table, found.as_ref(), days);
    if let Some(difference) = plan.foreign {
        return Ok(Outcome::Foreign(difference));
    }
    for statement in &plan.statements {
        target.exec(client, statement).await?;
        // Its first line says what happened; the rest is the declaration.
        let done = statement.lines().next().unwrap_or_default();
        tracing::info!(table = table.name, statement = done, "table changed");
    }
    if plan.statements.is_empty() {
        return Ok(Outcome::Sound);
    }
    // Somebody else may have made the table, in another way, in between.
    let found = look(target, client, table).await?;
    Ok(match super::schema::plan(table, found.as_ref(), days).foreign {
        Some(difference) => Outcome::Foreign(difference),
        None if was_missing => Outcome::Made,
        None => Outcome::Mended,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::EXCHANGE_STATUS;

    fn as_declared(days: u64) -> FoundTable {
        let column = |name: &str, kind: &str, key| FoundColumn {
            name: name.to_owned(),
            kind: kind.to_owned(),
            key,
        };
        let mut columns = vec![column(TIMESTAMP, "TIMESTAMP_NS", true)];
        let declared = EXCHANGE_STATUS.columns.iter();
        columns.extend(declared.map(|c| column(c.name, c.kind.sql(), c.key)));
        FoundTable {
            designated: TIMESTAMP.into(),
            wal: true,
            dedup: true,
            ttl_hours: Some(days * 24),
            columns,
        }
    }

    fn planned(change: impl FnOnce(&mut FoundTable)) -> Plan {
        let mut found = as_declared(90);
        change(&mut found);
        plan(&EXCHANGE_STATUS, Some(&found), 90)
    }

    #[test]
    fn what_is_missing_is_made() {
        assert_eq!(planned(|_| {}), Plan::default());
        let missing = plan(&EXCHANGE_STATUS, None, 7);
        assert!(missing.statements[0].starts_with("CREATE TABLE IF NOT EXISTS exchange_status"));
        assert!(missing.statements[0].contains("TTL 7 DAYS"));
        let older = planned(|found| found.columns.retain(|column| column.name != "latency_ms"));
        assert_eq!(
            older.statements,
            ["ALTER TABLE exchange_status ADD COLUMN IF NOT EXISTS latency_ms DOUBLE"]
        );
        let kept_longer = planned(|found| found.ttl_hours = None);
        assert_eq!(kept_longer.statements, ["ALTER TABLE exchange_status SET TTL 90 DAYS"]);
        let fewer_keys = planned(|found| found.columns[1].key = false);
        assert_eq!(
            fewer_keys.statements,
            ["ALTER TABLE exchange_status DEDUP ENABLE UPSERT KEYS(timestamp, exchange, daemon, \
              host, env)"]
        );
        let more_columns = planned(|found| {
            found.columns.push(FoundColumn { name: "x".into(), kind: "LONG".into(), key: false });
        });
        assert_eq!(more_columns, Plan::default());
    }

    #[test]
    fn what_only_a_person_may_change_is_named_with_the_way_out() {
        type Change = fn(&mut FoundTable);
        let cases: [(Change, &str); 6] = [
            (|found| found.wal = false, "not a WAL table"),
            (|found| found.designated = "ts".into(), "designated timestamp is ts, not timestamp"),
            (|found| found.designated.clear(), "no designated timestamp"),
            (|found| found.columns[5].kind = "INT".into(), "column connected is INT, not BOOLEAN"),
            (|found| found.dedup = false, "no DEDUP: run \"ALTER TABLE exchange_status DEDUP"),
            (|found| found.columns[6].key = true, "DEDUP keys are (timestamp, exchange"),
        ];
        for (change, expected) in cases {
            let plan = planned(change);
            let text = plan.foreign.unwrap_or_default();
            assert!(text.contains(expected) && plan.statements.is_empty(), "{text}");
            assert!(text.contains("RENAME TABLE exchange_status TO exchange_status_old"), "{text}");
        }
    }

    #[test]
    fn time_to_live_is_read_in_every_unit() {
        for (value, unit, hours) in [
            (90, "DAY", Some(2160)),
            (2, "WEEK", Some(336)),
            (1, "YEAR", Some(8760)),
            (0, "HOUR", None),
            (1, "AGE", None),
        ] {
            assert_eq!(ttl_hours(value, unit), hours);
        }
    }
}

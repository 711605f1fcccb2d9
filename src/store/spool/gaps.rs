//! Rows of `sample_gaps` that are lost themselves: what they told of is told again. Otherwise a long
//! outage would drop the oldest rows and, after them, the rows that say so.

use super::disk::{Loss, LossReason};
use crate::base::time::Timestamp;
use crate::model::line::{Defaults, Precision, parse};
use crate::model::row::{Row, Value};
use crate::model::table::{SAMPLE_GAPS, find};
use crate::store::encode::{table_id, table_of};

/// Whether rows of the table with the id `table` tell of losses.
pub fn is_about_losses(table: u16) -> bool {
    table_of(table).is_some_and(|table| table.name == SAMPLE_GAPS.name)
}

/// Returns the losses that the lines of `body` tell of.
pub fn told_by(body: &[u8]) -> Vec<Loss> {
    let defaults =
        Defaults { host: "", env: "", now: Timestamp::EPOCH, precision: Precision::default() };
    // The lines are our own: there is no bad one unless the disk made it so.
    let lines = parse(body, &defaults).unwrap_or_default();
    lines.rows.iter().filter_map(loss).collect()
}

fn loss(row: &Row) -> Option<Loss> {
    let number = |column| {
        let Value::Long(number) = row.get(column) else { return 0 };
        u64::try_from(*number).unwrap_or(0)
    };
    let time = |column| {
        let Value::Time(at) = row.get(column) else { return row.at };
        *at
    };
    let text = |column| {
        let Value::Text(text) = row.get(column) else { return None };
        Some(&**text)
    };
    let reason = text("reason")?;
    Some(Loss {
        reason: LossReason::ALL.into_iter().find(|known| known.name() == reason)?,
        table: text("table_name").and_then(find).and_then(table_id),
        first: number("first_seq"),
        last: number("last_seq"),
        rows: number("rows"),
        from: time("gap_from"),
        to: time("gap_to"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::encode::Body;

    #[test]
    fn what_a_row_about_a_loss_tells_is_read_back() {
        let id = table_id(&SAMPLE_GAPS).unwrap();
        assert!(is_about_losses(id) && !is_about_losses(0));
        let told = Loss {
            reason: LossReason::MemoryRing,
            table: Some(0),
            first: 3,
            last: 9,
            rows: 70,
            from: Timestamp::from_millis(1_795_492_800_000),
            to: Timestamp::from_millis(1_795_492_900_000),
        };
        let row = Row::new(&SAMPLE_GAPS, told.to)
            .with("reason", told.reason.name())
            .with("table_name", table_of(0).unwrap().name)
            .with("host", "a")
            .with("env", "dev")
            .with("gap_from", told.from)
            .with("gap_to", told.to)
            .with("first_seq", 3)
            .with("last_seq", 9)
            .with("rows", 70);
        let mut body = Body::new(&SAMPLE_GAPS, id);
        body.add(&row).unwrap();
        let draft = body.take().unwrap();
        assert_eq!(told_by(draft.body()), [told]);
        assert_eq!(told_by(b"garbage"), []);
    }
}

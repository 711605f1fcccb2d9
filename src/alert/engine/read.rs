//! Reading a rule: its SQL as Grafana runs it, else the rows in memory.

use std::time::Duration;

use super::super::book::Via;
use super::evaluate::{Others, Outcome};
use super::memory::Memory;
use crate::base::time::Timestamp;
use crate::rules::condition::Condition;
use crate::rules::rule::{Labels, Rule};
use crate::rules::sql;
use crate::rules::window::Sample;
use crate::store::read::{Answer, ReadError, Session};

/// Time limit of one query.
pub const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// What the database said to one rule.
#[derive(Debug)]
pub enum Asked {
    /// It answered.
    Samples(Vec<Sample>),
    /// It answers, but not this query.
    Refused(String),
    /// It does not answer: asking for the other rules is of no use now.
    Away(String),
}

/// Asks the database for `rule`; `None` when it is not the one to ask.
pub async fn ask(session: &mut Session<'_>, rule: &Rule) -> Option<Asked> {
    let statement = sql::query(&rule.condition)?;
    Some(match session.query(&statement, QUERY_LIMIT).await {
        Ok(answer) => match samples(&answer) {
            Ok(samples) => Asked::Samples(samples),
            Err(reason) => Asked::Refused(reason),
        },
        Err(error @ ReadError::Statement(_)) => Asked::Refused(error.to_string()),
        Err(error @ (ReadError::Connect { .. } | ReadError::Timeout { .. })) => {
            Asked::Away(error.to_string())
        }
    })
}

/// Returns what is known of `rule`: what the database said, else what the rows in memory say.
pub fn outcome(rule: &Rule, asked: Option<Asked>, memory: &Memory, now: Timestamp) -> Outcome {
    let reason = match asked {
        Some(Asked::Samples(samples)) => {
            return Outcome::Samples { samples, via: Via::Database, others: Others::None };
        }
        Some(Asked::Refused(reason) | Asked::Away(reason)) => reason,
        None => "the database cannot be asked now".to_owned(),
    };
    match &rule.condition {
        Condition::Rows(measure) => match memory.evaluate(measure, now) {
            Ok((samples, is_whole)) => {
                let others = if is_whole { Others::None } else { Others::Unknown };
                Outcome::Samples { samples, via: Via::Memory, others }
            }
            Err(short) => Outcome::Failed(format!("{reason}; {short}")),
        },
        Condition::Sql { .. } | Condition::Own(_) => Outcome::Failed(reason),
    }
}

/// Reads an answer: `value` is the number, every other column a label.
fn samples(answer: &Answer) -> Result<Vec<Sample>, String> {
    let Some(place) = answer.columns.iter().position(|name| name == "value") else {
        return Err(format!("no column `value` among {}", answer.columns.join(", ")));
    };
    let mut samples = Vec::with_capacity(answer.rows.len());
    for row in &answer.rows {
        let text = row.get(place).and_then(Option::as_deref);
        // A null is no number, and a rule's query leaves them out.
        let value = text.map_or(Ok(f64::NAN), str::parse);
        let value = value.map_err(|_| format!("{text:?} is no number"))?;
        let labels: Labels = answer
            .columns
            .iter()
            .zip(row)
            .filter(|(name, _)| *name != "value")
            .map(|(name, text)| (name.clone(), text.clone().unwrap_or_default()))
            .collect();
        samples.push(Sample { labels, value });
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::super::memory::Inbox;
    use super::*;
    use crate::model::severity::Severity;
    use crate::rules::catalog;

    fn answer(columns: &[&str], rows: &[&[Option<&str>]]) -> Answer {
        Answer {
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: rows
                .iter()
                .map(|row| row.iter().map(|cell| cell.map(str::to_owned)).collect())
                .collect(),
        }
    }

    #[test]
    fn every_column_but_value_is_a_label() {
        let rows: &[&[Option<&str>]] = &[&[Some("h"), Some("1.5"), None]];
        let samples = samples(&answer(&["host", "value", "daemon"], rows)).unwrap();
        assert_eq!(samples[0].value, 1.5);
        let labels = [("daemon", ""), ("host", "h")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(samples[0].labels, Labels::from(labels));
    }

    #[test]
    fn an_answer_that_is_none_says_why() {
        let error = samples(&answer(&["host"], &[])).unwrap_err();
        assert!(error.contains("no column `value` among host"), "{error}");
        let error = samples(&answer(&["value"], &[&[Some("x")]])).unwrap_err();
        assert!(error.contains("is no number"), "{error}");
        assert!(samples(&answer(&["value"], &[&[None]])).unwrap()[0].value.is_nan());
    }

    #[test]
    fn without_the_database_memory_answers_and_where_it_cannot_the_reason_is_told() {
        let rules = catalog::shipped().unwrap();
        let now = Timestamp::from_millis(1_000_000_000);
        let memory = Memory::new(Inbox::new(&rules), now);
        let rule = |id| catalog::find(id, Severity::Critical).unwrap();
        let away = || Some(Asked::Away("gone".to_owned()));
        let down = outcome(&rule("daemon_down"), away(), &memory, now);
        let empty =
            Outcome::Samples { samples: Vec::new(), via: Via::Memory, others: Others::Unknown };
        assert_eq!(down, empty);
        for id in ["exchange_silent", "questdb_wal_suspended"] {
            let outcome = outcome(&rule(id), away(), &memory, now);
            assert!(matches!(&outcome, Outcome::Failed(reason) if reason.contains("gone")), "{id}");
        }
    }
}

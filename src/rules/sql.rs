//! A condition as SQL of `QuestDB` (9.2.3 and newer): the same text for Grafana and for the fallback.
//!
//! Every statement gives text columns, which become labels, and exactly one DOUBLE called `value`.
//! It groups by its labels and leaves nulls out, because an aggregate over nothing would be one row
//! with a null, which Grafana takes for a breach.

use std::time::Duration;

use super::condition::{Aggregate, Condition, Function, Literal, Match, Measure};
use crate::model::table::{Column, Kind, TIMESTAMP};

/// The current time, to the database.
pub const NOW: &str = "now()";

/// Returns the statement that evaluates `condition`; `None` when only periscope knows the answer.
pub fn query(condition: &Condition) -> Option<String> {
    match condition {
        Condition::Rows(measure) => Some(measure_at(measure, NOW)),
        Condition::Sql { sql, .. } => Some(sql.trim().trim_end_matches(';').to_owned()),
        Condition::Own(_) => None,
    }
}

/// Returns the statement that evaluates `measure` at `now`, an expression of type TIMESTAMP.
pub fn measure_at(measure: &Measure, now: &str) -> String {
    let part = Part { measure, now };
    let inner = match &measure.aggregate {
        Aggregate::Plain { function, column } => part.plain(*function, column),
        Aggregate::Increase { column, per } => part.increase(column, *per),
        Aggregate::Ratio { column, divisor, at_least } => part.ratio(column, divisor, *at_least),
        Aggregate::Age { state } => part.age(state),
        Aggregate::Lasted { state, column } => part.lasted(state, *column),
        Aggregate::Quiet { column, floor } => part.quiet(column, *floor),
    };
    inner.trim_end().to_owned()
}

struct Part<'a> {
    measure: &'a Measure,
    now: &'a str,
}

impl Part<'_> {
    /// Labels, comma separated.
    fn by(&self) -> String {
        names(self.measure.by.iter().copied())
    }

    /// Columns that tell one series from another, comma separated.
    fn keys(&self) -> String {
        names(self.measure.table.keys())
    }

    /// Nanoseconds since 1970, now.
    fn now_nanos(&self) -> String {
        format!("cast({} AS long) * 1000", self.now)
    }

    /// `FROM … WHERE …` of the rows that count, from `window` ago on.
    fn rows(&self, window: Duration) -> String {
        let mut text = format!(
            "FROM {} WHERE {TIMESTAMP} > dateadd('s', -{}, {})",
            self.measure.table.name,
            window.as_secs(),
            self.now
        );
        for condition in &self.measure.filter {
            text.push_str(" AND ");
            text.push_str(&equals(condition));
        }
        for column in self.measure.needed() {
            text.push_str(&format!(" AND {} IS NOT NULL", column.name));
        }
        text
    }

    /// ` WHERE newest > …` where only fresh series count.
    fn fresh(&self) -> String {
        self.measure.fresh.map_or_else(String::new, |fresh| {
            format!("\nWHERE newest > {} - {}", self.now_nanos(), fresh.as_nanos())
        })
    }

    /// `value` out of `inner`, which has the columns `by`, `value` and `newest`.
    fn fresh_only(&self, inner: &str) -> String {
        if self.measure.fresh.is_none() {
            return inner.to_owned();
        }
        format!("SELECT {}, value FROM (\n{}\n){}", self.by(), indent(inner), self.fresh())
    }

    /// The time of the newest row, where somebody asks for it; `at` is a column or an expression.
    fn newest(&self, at: &str) -> String {
        self.measure.fresh.map_or_else(String::new, |_| format!(", max({at}) AS newest"))
    }

    fn plain(&self, function: Function, column: &Column) -> String {
        let by = self.by();
        let name = function.word();
        self.fresh_only(&format!(
            "SELECT {by}, cast({name}({}) AS double) AS value{}\n{}\nGROUP BY {by}",
            column.name,
            self.newest(AT),
            self.rows(self.measure.window)
        ))
    }

    fn increase(&self, column: &Column, per: Option<Duration>) -> String {
        let by = self.by();
        let scale = per.map_or_else(String::new, |per| {
            format!(" * {:?} / {:?}", per.as_secs_f64(), self.measure.window.as_secs_f64())
        });
        let (c, keys) = (column.name, self.keys());
        self.fresh_only(&format!(
            "SELECT {by}, cast(sum(step) AS double){scale} AS value{newest}\nFROM (\n  \
             SELECT {by}, at, {step} AS step\n  FROM (\n    \
             SELECT {keys}, {AT} AS at, {c},\n      \
             lag({c}) OVER (PARTITION BY {keys} ORDER BY {TIMESTAMP}) AS before_{c}\n    \
             {rows}\n  )\n)\nGROUP BY {by}",
            newest = self.newest("at"),
            step = step(c),
            rows = self.rows(self.measure.window),
        ))
    }

    fn ratio(&self, column: &Column, divisor: &Column, at_least: u32) -> String {
        let by = self.by();
        let (c, d, keys) = (column.name, divisor.name, self.keys());
        let lag = |name: &str| {
            format!("lag({name}) OVER (PARTITION BY {keys} ORDER BY {TIMESTAMP}) AS before_{name}")
        };
        let inner = format!(
            "SELECT {by}, cast(sum(step) AS double) AS above, cast(sum(base) AS double) AS below{newest}\n\
             FROM (\n  SELECT {by}, at,\n    {step} AS step,\n    {base} AS base\n  FROM (\n    \
             SELECT {keys}, {AT} AS at, {c}, {d},\n      {lag_c},\n      {lag_d}\n    {rows}\n  )\n)\n\
             GROUP BY {by}",
            newest = self.newest("at"),
            step = step(c),
            base = step(d),
            lag_c = lag(c),
            lag_d = lag(d),
            rows = self.rows(self.measure.window),
        );
        let fresh = self.fresh().replace("\nWHERE", " AND");
        format!(
            "SELECT {by}, above / below AS value FROM (\n{}\n)\nWHERE below >= {}{fresh}",
            indent(&inner),
            at_least.max(1)
        )
    }

    fn age(&self, state: &[Match]) -> String {
        let by = self.by();
        let newest = if state.is_empty() {
            format!("max({AT})")
        } else {
            format!("coalesce({}, min({AT}))", out_of(state))
        };
        format!(
            "SELECT {by}, ({} - {newest}) / 1e9 AS value\n{}\nGROUP BY {by}",
            self.now_nanos(),
            self.rows(self.measure.window)
        )
    }

    fn lasted(&self, state: &[Match], column: Option<&Column>) -> String {
        let by = self.by();
        let since = format!("({} - coalesce(good, oldest)) / 1e9", self.now_nanos());
        let (given, when_given) = column.map_or_else(
            || (String::new(), String::new()),
            |column| {
                (
                    // `last` takes the newest row, whether it has a value or not.
                    format!(", last({}) AS given", column.name),
                    "\n  WHEN given > 1 THEN given\n  WHEN given IS NOT NULL THEN 1.0".to_owned(),
                )
            },
        );
        let inner = format!(
            "SELECT {by}, {good} AS good, max({AT}) AS newest, min({AT}) AS oldest{given}\n\
             {rows}\nGROUP BY {by}",
            good = out_of(state),
            rows = self.rows(self.measure.window),
        );
        format!(
            "SELECT {by}, CASE\n  WHEN good = newest THEN 0.0{when_given}\n  \
             WHEN {since} > 1 THEN {since}\n  ELSE 1.0 END AS value\nFROM (\n{}\n){}",
            indent(&inner),
            self.fresh()
        )
    }

    fn quiet(&self, column: &Column, floor: Duration) -> String {
        let by = self.by();
        let (c, keys) = (column.name, self.keys());
        // A TIMESTAMP is in microseconds and is itself the moment of the change.
        let (held, at) = match column.kind {
            Kind::Timestamp => (format!("cast({c} AS long)"), "held * 1000"),
            Kind::Symbol | Kind::Boolean | Kind::Long | Kind::Double | Kind::Varchar => {
                (c.to_owned(), "at")
            }
        };
        let floor = floor.as_secs_f64();
        // The first row of a series in the window counts as a change: its real change was no later.
        let changes = format!(
            "SELECT {TIMESTAMP}, {by}, {at} AS changed FROM (\n  \
             SELECT {TIMESTAMP}, {keys}, {AT} AS at, {held} AS held,\n    \
             lag({held}) OVER (PARTITION BY {keys} ORDER BY {TIMESTAMP}) AS before\n  {rows}\n)\n\
             WHERE before IS NULL OR held <> before",
            rows = self.rows(self.measure.window),
        );
        let gaps = format!(
            "SELECT {by}, changed, (changed - previous) / 1e9 AS gap FROM (\n  \
             SELECT {by}, changed,\n    \
             lag(changed) OVER (PARTITION BY {by} ORDER BY {TIMESTAMP}) AS previous\n  FROM (\n{}\n  )\n)",
            indent(&indent(&changes))
        );
        let sums = format!(
            "SELECT {by}, max(changed) AS changed, sum(gap * gap) AS squares, sum(gap) AS total\n\
             FROM (\n{}\n)\nGROUP BY {by}",
            indent(&gaps)
        );
        let ratio = format!(
            "({} - s.changed) / 1e9 / CASE\n  \
             WHEN s.total > 0 AND s.squares / s.total > {floor:?} THEN s.squares / s.total\n  \
             ELSE {floor:?} END AS value",
            self.now_nanos()
        );
        let labels =
            list(self.measure.by.iter().map(|column| format!("s.{0} AS {0}", column.name)));
        let Some(fresh) = self.measure.fresh else {
            return format!("SELECT {labels}, {ratio}\nFROM (\n{}\n) s", indent(&sums));
        };
        let on: Vec<String> =
            self.measure.by.iter().map(|column| format!("s.{0} = f.{0}", column.name)).collect();
        format!(
            "SELECT {labels}, {ratio}\nFROM (\n{}\n) s\nJOIN (\n  SELECT DISTINCT {by}\n  {}\n) f ON {}",
            indent(&sums),
            self.rows(fresh),
            on.join(" AND ")
        )
    }
}

/// The row's time in nanoseconds since 1970.
const AT: &str = "cast(timestamp AS long)";

/// The positive step of a counter from one row of a series to the next; 0 at its first row.
fn step(column: &str) -> String {
    format!(
        "CASE WHEN before_{column} IS NOT NULL AND {column} > before_{column} \
         THEN {column} - before_{column} ELSE 0 END"
    )
}

/// Time of the newest row that is not in `state`; null when there is none.
fn out_of(state: &[Match]) -> String {
    let all: Vec<String> = state.iter().map(equals).collect();
    format!("max(CASE WHEN {} THEN NULL ELSE {AT} END)", all.join(" AND "))
}

fn equals(condition: &Match) -> String {
    match &condition.value {
        Literal::Bool(value) => format!("{} = {value}", condition.column.name),
        Literal::Text(value) => format!("{} = '{value}'", condition.column.name),
    }
}

fn names(columns: impl Iterator<Item = &'static Column>) -> String {
    list(columns.map(|column| column.name.to_owned()))
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

//! What becomes of a panel's SQL before it reaches the database: macros, the built-in variables and
//! the dashboard's own, as Grafana and its data sources expand them. Pure.
//!
//! One pass from left to right. What a value holds is never searched again, so that a daemon called
//! `$__timeFilter(x)` stays a name.

use std::collections::BTreeMap;

use super::dashboards::Datasource;
use crate::base::time::Timestamp;

/// Longest value of a variable, characters; longer names are not stored.
pub const LONGEST_VALUE: usize = 512;

/// What a query is expanded with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Start of the range, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// End of the range, milliseconds since 1970 UTC.
    pub to_ms: i64,
    /// Width of a bucket, milliseconds; see [`interval_ms`].
    pub interval_ms: i64,
    /// Chosen values by name of the variable.
    pub values: BTreeMap<String, Vec<String>>,
}

/// Why a query cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A variable that the query needs has no value.
    #[error("variable {0} has no value")]
    NoValue(String),
    /// A value that no name in the database has.
    #[error("a value of variable {name} {fault}")]
    BadValue {
        /// Name of the variable.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Something after `$` that is not expanded here.
    #[error("{0} is not known here")]
    Unknown(String),
    /// A moment outside the years that the database stores.
    #[error("the range ends outside of what can be stored")]
    OutOfRange,
}

/// Returns `sql` with everything after a `$` replaced, for `datasource`.
///
/// # Errors
/// See [`ExpandError`].
pub fn expand(sql: &str, scope: &Scope, datasource: Datasource) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(sql.len().saturating_mul(2));
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (text, left) = if let Some(braced) = after.strip_prefix('{') {
            let unknown = || ExpandError::Unknown(word("${", braced));
            let (name, left) = braced.split_once('}').ok_or_else(unknown)?;
            (variable(name, scope)?, left)
        } else {
            macro_(after, scope, datasource)?
        };
        out.push_str(&text);
        rest = left;
    }
    out.push_str(rest);
    Ok(out)
}

/// The first characters of what was not understood, for the message.
fn word(start: &str, text: &str) -> String {
    let end = |c: &char| c.is_alphanumeric() || "_:}".contains(*c);
    format!("{start}{}", text.chars().take_while(end).take(40).collect::<String>())
}

/// Returns what stands for `${name}` or `${name:format}`.
fn variable(name: &str, scope: &Scope) -> Result<String, ExpandError> {
    match name.split_once(':') {
        None if name == "__from" => Ok(scope.from_ms.to_string()),
        None if name == "__to" => Ok(scope.to_ms.to_string()),
        None if name == "__interval" => Ok(interval_text(scope.interval_ms)),
        None if name == "__interval_ms" => Ok(scope.interval_ms.to_string()),
        Some((name, "sqlstring")) => quoted(name, scope),
        // Without quotes a value could say anything.
        None | Some(_) => Err(ExpandError::Unknown(format!("${{{name}}}"))),
    }
}

/// Returns the values of a variable as SQL strings, comma separated.
fn quoted(name: &str, scope: &Scope) -> Result<String, ExpandError> {
    let values = scope.values.get(name).filter(|values| !values.is_empty());
    let values = values.ok_or_else(|| ExpandError::NoValue(name.to_owned()))?;
    let mut list = String::new();
    for value in values {
        check_value(value)
            .map_err(|fault| ExpandError::BadValue { name: name.to_owned(), fault })?;
        if !list.is_empty() {
            list.push(',');
        }
        // The standard's way, and the only one that QuestDB knows: a backslash is a letter there.
        list.push_str(&format!("'{}'", value.replace('\'', "''")));
    }
    Ok(list)
}

/// Checks a value of a variable; says what is wrong with it.
///
/// # Errors
/// It is too long, or holds characters that end or hide text.
pub fn check_value(value: &str) -> Result<(), &'static str> {
    if value.chars().count() > LONGEST_VALUE {
        return Err("is longer than 512 characters");
    }
    if value.chars().any(char::is_control) {
        return Err("holds control characters");
    }
    Ok(())
}

/// Returns what stands for the macro at the start of `text`, and what follows it.
fn macro_<'a>(
    text: &'a str,
    scope: &Scope,
    datasource: Datasource,
) -> Result<(String, &'a str), ExpandError> {
    let unknown = || ExpandError::Unknown(word("$", text));
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, after) = text.split_at_checked(end).ok_or_else(unknown)?;
    let call = || -> Option<(&str, &str)> { after.strip_prefix('(')?.split_once(')') };
    let (from, to) = (time(scope.from_ms)?, time(scope.to_ms)?);
    match name {
        "__interval" => Ok((interval_text(scope.interval_ms), after)),
        "__interval_ms" => Ok((scope.interval_ms.to_string(), after)),
        "__timeFilter" => {
            let (column, left) = call().ok_or_else(unknown)?;
            let text = match datasource {
                Datasource::Postgres => format!("{column} BETWEEN '{from}' AND '{to}'"),
                Datasource::Questdb => {
                    let micros = |ms: i64| ms.checked_mul(1_000).ok_or(ExpandError::OutOfRange);
                    format!(
                        "{column} >= cast({} as timestamp) AND {column} <= cast({} as timestamp)",
                        micros(scope.from_ms)?,
                        micros(scope.to_ms)?
                    )
                }
            };
            Ok((text, left))
        }
        "__timeFrom" | "__timeTo" if datasource == Datasource::Postgres => {
            let ((), left) = call()
                .filter(|(arguments, _)| arguments.is_empty())
                .map(|(_, left)| ((), left))
                .ok_or_else(unknown)?;
            let time = if name == "__timeFrom" { from } else { to };
            Ok((format!("'{time}'"), left))
        }
        _ => Err(unknown()),
    }
}

/// Returns a moment as Grafana writes it: RFC 3339 in UTC.
fn time(ms: i64) -> Result<String, ExpandError> {
    let exact = ms.checked_mul(1_000_000).map(Timestamp::from_nanos);
    exact.map(|time| time.to_string()).ok_or(ExpandError::OutOfRange)
}

/// Grafana's round intervals: a wanted width below the first number becomes the second, ms.
const ROUND: [(i64, i64); 28] = [
    (10, 1),
    (15, 10),
    (35, 20),
    (75, 50),
    (150, 100),
    (350, 200),
    (750, 500),
    (1_500, 1_000),
    (3_500, 2_000),
    (7_500, 5_000),
    (12_500, 10_000),
    (17_500, 15_000),
    (25_000, 20_000),
    (45_000, 30_000),
    (90_000, 60_000),
    (210_000, 120_000),
    (450_000, 300_000),
    (750_000, 600_000),
    (1_050_000, 900_000),
    (1_500_000, 1_200_000),
    (2_700_000, 1_800_000),
    (5_400_000, 3_600_000),
    (9_000_000, 7_200_000),
    (16_200_000, 10_800_000),
    (32_400_000, 21_600_000),
    (86_400_000, 43_200_000),
    (604_800_000, 86_400_000),
    (i64::MAX, 604_800_000),
];

/// Returns the width of a bucket for a range of `range_ms` on `points` points, milliseconds: rounded
/// as Grafana does it, at least `minimum_ms` (the panel's min interval).
pub fn interval_ms(range_ms: i64, points: i64, minimum_ms: i64) -> i64 {
    let wanted = range_ms.checked_div(points.max(1)).unwrap_or(range_ms);
    let round = ROUND.iter().find(|(limit, _)| wanted < *limit).map_or(604_800_000, |(_, ms)| *ms);
    round.max(minimum_ms)
}

/// Units of intervals, milliseconds, largest first.
const UNITS: [(i64, &str); 5] =
    [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];

/// Returns an interval as Grafana writes it: whole units of the largest that fits (`90s` is `1m`).
pub fn interval_text(ms: i64) -> String {
    let unit = UNITS.iter().find(|(size, _)| ms >= *size).unwrap_or(&(1, "ms"));
    format!("{}{}", ms.max(1).div_euclid(unit.0), unit.1)
}

/// Reads an interval such as `15s`; `None` when it is none.
pub fn parse_interval(text: &str) -> Option<i64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits)?;
    let (size, _) = UNITS.iter().find(|(_, name)| *name == unit)?;
    digits.parse::<i64>().ok()?.checked_mul(*size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(values: &[(&str, &[&str])]) -> Scope {
        let owned = |list: &[&str]| list.iter().map(|value| (*value).to_owned()).collect();
        Scope {
            from_ms: 1_764_108_000_000,
            to_ms: 1_764_111_600_500,
            interval_ms: 15_000,
            values: values.iter().map(|(name, list)| ((*name).to_owned(), owned(list))).collect(),
        }
    }

    fn expanded(sql: &str, values: &[(&str, &[&str])]) -> Result<String, ExpandError> {
        expand(sql, &scope(values), Datasource::Postgres)
    }

    #[test]
    fn macros_become_what_grafana_makes_of_them() {
        let range = "'2025-11-25T22:00:00Z' AND '2025-11-25T23:00:00.5Z'";
        for (sql, wanted) in [
            ("$__timeFilter(timestamp)", format!("timestamp BETWEEN {range}")),
            ("x > $__timeFrom() y", "x > '2025-11-25T22:00:00Z' y".to_owned()),
            ("$__timeTo()", "'2025-11-25T23:00:00.5Z'".to_owned()),
            ("SAMPLE BY $__interval FILL", "SAMPLE BY 15s FILL".to_owned()),
            ("$__interval_ms + 1", "15000 + 1".to_owned()),
            ("${__to} - ${__from}", "1764111600500 - 1764108000000".to_owned()),
            ("cast(${__to}000L AS TIMESTAMP)", "cast(1764111600500000L AS TIMESTAMP)".to_owned()),
            ("nothing", "nothing".to_owned()),
        ] {
            assert_eq!(expanded(sql, &[]).unwrap(), wanted);
        }
        let plugin = expand("$__timeFilter(t)", &scope(&[]), Datasource::Questdb).unwrap();
        assert_eq!(
            plugin,
            "t >= cast(1764108000000000 as timestamp) AND t <= cast(1764111600500000 as timestamp)"
        );
    }

    #[test]
    fn what_is_not_known_is_an_error_and_never_left_standing() {
        for sql in [
            "$__timeGroup(timestamp, 1m)",
            "${env}",
            "${env:raw}",
            "$env",
            "${env:sqlstring",
            "$__timeFilter(timestamp",
            "$__timeFrom(x)",
            "a $ b",
        ] {
            let error = expanded(sql, &[("env", &["prod"])]).unwrap_err();
            assert!(matches!(error, ExpandError::Unknown(_)), "{sql}: {error}");
        }
        let far = Scope { to_ms: i64::MAX, ..scope(&[]) };
        let error = expand("$__timeFilter(t)", &far, Datasource::Postgres).unwrap_err();
        assert_eq!(error, ExpandError::OutOfRange);
    }

    #[test]
    fn values_are_quoted_and_never_read_again() {
        for (value, quoted) in [
            ("prod", "'prod'"),
            ("'", "''''"),
            ("x') OR 1=1 --", "'x'') OR 1=1 --'"),
            ("'; DROP TABLE daemon_metrics; --", "'''; DROP TABLE daemon_metrics; --'"),
            ("\\' OR 1=1 --", "'\\'' OR 1=1 --'"),
            ("${__from}", "'${__from}'"),
            ("$__timeFilter(timestamp)", "'$__timeFilter(timestamp)'"),
            ("’ü🦀", "'’ü🦀'"),
            ("", "''"),
        ] {
            let sql = expanded("IN (${env:sqlstring}) x", &[("env", &[value])]).unwrap();
            assert_eq!(sql, format!("IN ({quoted}) x"));
        }
        let two = expanded("${env:sqlstring}", &[("env", &["a", "b"])]).unwrap();
        assert_eq!(two, "'a','b'");
    }

    #[test]
    fn values_that_no_name_has_are_refused() {
        let long = "x".repeat(513);
        for value in ["a\0b", "a\nb", "\u{1b}[31m", "\u{85}", long.as_str()] {
            let error = expanded("${env:sqlstring}", &[("env", &["good", value])]).unwrap_err();
            assert!(matches!(error, ExpandError::BadValue { .. }), "{value:?}: {error}");
        }
        for values in [&[][..], &[("env", &[][..])], &[("host", &["x"][..])]] {
            let error = expanded("${env:sqlstring}", values).unwrap_err();
            assert_eq!(error, ExpandError::NoValue("env".to_owned()));
        }
    }

    #[test]
    fn intervals_are_rounded_as_grafana_rounds_them() {
        const HOUR: i64 = 3_600_000;
        for (range, points, minimum, wanted) in [
            (HOUR, 1_000, 1_000, "5s"),
            (HOUR, 1_000, 15_000, "15s"),
            (6 * HOUR, 1_000, 15_000, "20s"),
            (24 * HOUR, 1_000, 15_000, "1m"),
            (7 * 24 * HOUR, 1_000, 15_000, "10m"),
            (90 * 24 * HOUR, 1_000, 15_000, "2h"),
            (400 * 24 * HOUR, 50, 15_000, "7d"),
            (1, 1_000, 0, "1ms"),
            (HOUR, 0, 0, "1h"),
        ] {
            assert_eq!(interval_text(interval_ms(range, points, minimum)), wanted);
        }
        for (text, ms) in [("15s", Some(15_000)), ("1m", Some(60_000)), ("500ms", Some(500))] {
            assert_eq!(parse_interval(text), ms);
        }
        for text in ["", "15", "s", "15x", "-1s x", "99999999999999999h"] {
            assert_eq!(parse_interval(text), None, "{text}");
        }
    }
}

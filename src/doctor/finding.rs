//! What a check found.

use serde::Serialize;

use crate::config::check::{Problem, Severity};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, and will not for ever or not as one may think.
    Warning,
    /// Does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was seen, without secrets.
    pub seen: String,
    /// What causes it; empty when all is well.
    pub cause: String,
    /// The command or setting that mends it; empty when all is well.
    pub remedy: String,
}

impl Finding {
    /// Makes one of a problem of the configuration.
    pub fn of_problem(problem: &Problem) -> Self {
        let path = if problem.path.is_empty() { "" } else { &format!("{}: ", problem.path) };
        let seen = format!("{}: {path}{}", problem.place, problem.message);
        let remedy = problem.hint.clone();
        let remedy = remedy.unwrap_or_else(|| format!("mend {}", problem.place));
        let made = match problem.severity {
            Severity::Error => Self::problem,
            Severity::Warning => Self::warning,
        };
        made("configuration", seen, "periscope does not start with it", remedy)
    }

    pub(super) fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        let seen = seen.into();
        Self { check, level: Level::Ok, seen, cause: String::new(), remedy: String::new() }
    }

    pub(super) fn warning(
        check: &'static str,
        seen: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (seen, cause, remedy) = (seen.into(), cause.into(), remedy.into());
        Self { check, level: Level::Warning, seen, cause, remedy }
    }

    pub(super) fn problem(
        check: &'static str,
        seen: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Problem, ..Self::warning(check, seen, cause, remedy) }
    }
}

//! What `[[alerts.rule]]` of the configuration says → all rules, or its faults with their places.

use std::time::Duration;

use super::problem::{Problem, Problems};
use super::rule::Rule;
use super::{catalog, user};
use crate::config::Config;
use crate::config::alerts::RuleFault;

/// Returns all rules: the shipped ones, changed as `written` says, and the user's own. Daemons are
/// polled at least every `interval`.
///
/// # Errors
/// Everything that is wrong with them.
pub fn rules(written: &[toml::Table], interval: Duration) -> Result<Vec<Rule>, Problems> {
    let mut problems = Vec::new();
    let user = user::read(written, interval, &mut problems)?;
    match catalog::build(&user) {
        Ok(rules) if problems.is_empty() => return Ok(rules),
        Ok(_) => {}
        Err(Problems(more)) => problems.extend(more),
    }
    Err(Problems(problems))
}

/// Returns all rules that `config` asks for.
///
/// # Errors
/// Everything that is wrong with them; a checked configuration has no such rule.
pub fn of(config: &Config) -> Result<Vec<Rule>, Problems> {
    let polled = config.daemons.iter().map(|daemon| daemon.interval);
    let longest = polled.chain([config.collect.interval]).max().unwrap_or_default();
    rules(&config.alerts.rules, longest)
}

/// Returns the faults of `written`, each with the table that it is about.
pub fn check_written(written: &[toml::Table], interval: Duration) -> Vec<RuleFault> {
    let Err(Problems(problems)) = rules(written, interval) else { return Vec::new() };
    problems.into_iter().map(|problem| placed(problem, written)).collect()
}

fn placed(Problem { path, message, hint }: Problem, written: &[toml::Table]) -> RuleFault {
    let number = path.strip_prefix("alerts.rule[").and_then(|rest| rest.split_once(']'));
    let by_number = number.and_then(|(number, _)| number.parse().ok());
    // Checks of finished rules know the id only.
    let id = path.strip_prefix("rule ").and_then(|rest| rest.split([' ', '.']).next());
    let by_id = id.and_then(|id| {
        let of = |table: &toml::Table| table.get("id").and_then(toml::Value::as_str) == Some(id);
        written.iter().position(of)
    });
    RuleFault { index: by_number.or(by_id), path, message, hint }
}

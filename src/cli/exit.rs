//! Exit codes, once: the enum, the help text and the errors that carry them.

use std::fmt;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// It did not work.
    Failure,
    /// Works in part (`status --exit-code`).
    Degraded,
    /// Wrong use of the command line.
    Usage,
    /// A server cannot be reached.
    Unavailable,
    /// A fault of periscope itself.
    Internal,
    /// Something cannot be created, or the data folder is in use.
    CannotCreate,
    /// The configuration is wrong.
    Config,
}

impl Exit {
    /// Every exit code, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Failure,
        Self::Degraded,
        Self::Usage,
        Self::Unavailable,
        Self::Internal,
        Self::CannotCreate,
        Self::Config,
    ];

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failure => 1,
            Self::Degraded => 3,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::CannotCreate => 73,
            Self::Config => 78,
        }
    }

    /// What the number means, for `--help`.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failure => "failure",
            Self::Degraded => "degraded (status --exit-code)",
            Self::Usage => "wrong use of the command line",
            Self::Unavailable => "a server cannot be reached",
            Self::Internal => "a fault of periscope itself",
            Self::CannotCreate => "cannot create something, or the data folder is in use",
            Self::Config => "the configuration is wrong",
        }
    }

    /// Returns the list of exit codes as it stands at the end of `--help`.
    pub fn help() -> String {
        let lines: String = Self::ALL
            .iter()
            .map(|exit| format!("\n  {:>2}  {}", exit.code(), exit.meaning()))
            .collect();
        format!("Exit codes:{lines}")
    }
}

/// An error that decides the exit code; any other error is [`Exit::Failure`].
#[derive(Debug)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What happened, where, and the next step.
    pub message: String,
}

impl Failure {
    /// Makes an error that ends the program with `exit`.
    pub fn error(exit: Exit, message: impl Into<String>) -> anyhow::Error {
        Self { exit, message: message.into() }.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Returns the exit code that `error` asks for.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Failure>().map_or(Exit::Failure, |failure| failure.exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_exit_code_under_more_context() {
        let error = Failure::error(Exit::CannotCreate, "data folder in use");
        let error = error.context("start");
        assert_eq!(exit_of(&error), Exit::CannotCreate);
        assert_eq!(exit_of(&anyhow::anyhow!("other")), Exit::Failure);
    }
}

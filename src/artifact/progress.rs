//! What an acquisition is doing, for a terminal, a log or a status page.

use std::fmt;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// One report of an acquisition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A step begins: "ask maven for questdb 9.3.4".
    Step(String),
    /// Bytes of the current download.
    Bytes {
        /// Received so far.
        done: u64,
        /// Expected in all, if the server has said so.
        total: Option<u64>,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes / (1 << 20);
        match self {
            Self::Step(step) => f.write_str(step),
            Self::Bytes { done, total: Some(total) } => {
                write!(f, "{} of {} MiB", mib(*done), mib(*total))
            }
            Self::Bytes { done, total: None } => write!(f, "{} MiB", mib(*done)),
        }
    }
}

/// A bar on stderr; draws nothing when stderr is no terminal.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// Makes a bar that shows itself at the first report.
    pub fn new() -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self(ProgressBar::with_draw_target(None, target).with_style(spinner()))
    }

    /// Shows `progress`.
    pub fn show(&self, progress: &Progress) {
        match progress {
            Progress::Step(step) => {
                self.0.set_style(spinner());
                self.0.set_message(step.clone());
                // Steps such as Maven report nothing in between: something has to move.
                self.0.enable_steady_tick(Duration::from_millis(120));
            }
            Progress::Bytes { done, total } => {
                if let Some(total) = total {
                    self.0.set_style(bytes());
                    self.0.set_length(*total);
                }
                self.0.set_position(*done);
            }
        }
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bytes() -> ProgressStyle {
    ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid_and_progress_reads_as_words() {
        assert!(ProgressStyle::with_template("{spinner} {msg} ({elapsed})").is_ok());
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
        assert!(ProgressStyle::with_template(template).is_ok());
        let progress = Progress::Bytes { done: 3 << 20, total: Some(9 << 20) };
        assert_eq!(progress.to_string(), "3 of 9 MiB");
    }
}

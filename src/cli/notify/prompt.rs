//! Questions on the terminal. What is asked for may be a secret: it is read without echo.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::base::secret::Secret;

/// Whether somebody can answer.
pub(super) fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Reads one line of stdin as a secret; on a terminal it asks `question` and shows nothing of the
/// answer. `None` at the end of the input or for an empty line.
///
/// # Errors
/// Stdin cannot be read.
pub(super) fn secret(question: &str) -> std::io::Result<Option<Secret>> {
    let stdin = std::io::stdin();
    let _hidden = if is_terminal() {
        ask(question)?;
        Some(Hidden::new()?)
    } else {
        None
    };
    let mut line = String::new();
    stdin.lock().read_line(&mut line)?;
    if is_terminal() {
        // The line end was not shown either.
        ask("\n")?;
    }
    let line = line.trim();
    Ok((!line.is_empty()).then(|| Secret::new(line)))
}

/// Asks `question` on the terminal; `true` unless the answer is no.
///
/// # Errors
/// Stdin cannot be read.
pub(super) fn agrees(question: &str) -> std::io::Result<bool> {
    ask(&format!("{question} [Y/n] "))?;
    let mut line = String::new();
    // The end of the input is no consent.
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(false);
    }
    Ok(matches!(line.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

/// Shows `text` on stderr, where it is seen although stdout goes into a file.
fn ask(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stderr().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _gone = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

//! Logging: to stderr, in text or JSON, through a bounded queue so that a blocked terminal or a full
//! journal never blocks a poll.

use std::io::IsTerminal as _;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people; coloured on a terminal unless NO_COLOR is set.
    Text,
    /// One JSON object a line.
    Json,
}

/// Lines that may wait for a slow reader before further ones are dropped.
const WAITING_LINES: usize = 8_192;

/// Starts logging; `verbosity` 0 is info, 1 debug, 2 trace, -1 warnings, -2 errors only.
///
/// Lines are written as long as the returned guard lives.
pub(super) fn start(format: Format, verbosity: i8) -> WorkerGuard {
    let level = match verbosity {
        i8::MIN..=-2 => "error",
        -1 => "warn",
        0 => "info",
        1 => "info,periscope=debug,questdb=debug",
        2.. => "debug,periscope=trace,questdb=trace",
    };
    let filter = EnvFilter::try_from_env("PERISCOPE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING_LINES)
        .finish(std::io::stderr());
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let started = match format {
        Format::Text => {
            let colour = std::io::stderr().is_terminal() && !no_color;
            registry.with(lines.with_target(true).with_ansi(colour)).try_init()
        }
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    if let Err(error) = started {
        super::output::error_line(&format!("logging is already set up: {error}"));
    }
    log_panics();
    guard
}

/// Sends panics through the log, so that they are in the journal with time and place.
fn log_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "panic");
        usual(panic);
    }));
}

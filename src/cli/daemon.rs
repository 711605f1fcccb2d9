//! `periscope run`: a Python daemon, unmodified, with the status shim on its path.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use super::Global;
use super::exit::{Exit, Failure};
use crate::collect::shim::{self, ShimError};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of the daemon in every table (default: the module's last part)
    #[arg(long)]
    name: Option<String>,
    /// What to read: module:Class[.method][@adapter]; __main__:Class or *:Class for a script's own
    #[arg(long, required = true)]
    target: String,
    /// Command that starts the daemon
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = global.config()?;
    let python_path = std::env::var_os("PYTHONPATH");
    let launch = shim::Launch {
        name: arguments.name.as_deref(),
        target: &arguments.target,
        command: &arguments.command,
        run_dir: &config.data_dir.join("run"),
        shim_dir: &config.data_dir.join("python"),
        python_path: python_path.as_deref(),
    };
    let environment = shim::environment(&launch).map_err(|error| failure(&error))?;
    shim::install(launch.shim_dir).map_err(|error| failure(&error))?;
    let Some((program, rest)) = arguments.command.split_first() else {
        return Err(Failure::error(Exit::Usage, "no command after --"));
    };
    // From here on this process is the daemon: pid, signals, output and exit code are its own.
    let error = std::process::Command::new(program).args(rest).envs(environment).exec();
    Err(Failure::error(Exit::Failure, format!("start {}: {error}", program.display())))
}

fn failure(error: &ShimError) -> anyhow::Error {
    let exit = match error {
        ShimError::Target { .. } | ShimError::Name { .. } | ShimError::Path { .. } => Exit::Usage,
        ShimError::Write { .. } => Exit::CannotCreate,
    };
    Failure::error(exit, error.to_string())
}

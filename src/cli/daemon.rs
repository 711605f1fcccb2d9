//! `periscope run` and `periscope shim`: a Python daemon, unmodified, with the status shim on its path.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use super::exit::{Exit, Failure};
use super::{Global, output};
use crate::collect::shim::{self, ShimError};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of the daemon in every table (default: the module's last part)
    #[arg(long)]
    name: Option<String>,
    /// What to read: module:Class[.method][@adapter]; __main__:Class or *:Class for a script's own;
    /// or a kind of daemon: nautilus, ccxt-pipeline
    #[arg(long, required = true)]
    target: String,
    /// Port on loopback that the shim listens on too: for a periscope that does not share its files
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Only prints the environment that loads the shim, for a unit or a Compose file
    #[arg(long)]
    print_env: bool,
    /// Command that starts the daemon
    #[arg(last = true, required_unless_present = "print_env", value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum ShimCommand {
    /// Puts the shim into a virtual environment: its interpreters load it where PERISCOPE_TARGET is set
    Install {
        /// Folder of the virtual environment
        #[arg(long, value_name = "DIR")]
        venv: PathBuf,
    },
    /// Takes the shim out of a virtual environment
    Remove {
        /// Folder of the virtual environment
        #[arg(long, value_name = "DIR")]
        venv: PathBuf,
    },
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = global.config()?;
    // What is printed is for another process, whose own path is not this one's.
    let python_path = std::env::var_os("PYTHONPATH").filter(|_| !arguments.print_env);
    let launch = shim::Launch {
        name: arguments.name.as_deref(),
        target: &arguments.target,
        command: &arguments.command,
        run_dir: &config.data_dir.join("run"),
        shim_dir: &config.data_dir.join("python"),
        python_path: python_path.as_deref(),
        listen: arguments.listen,
    };
    let environment = shim::environment(&launch).map_err(|error| failure(&error))?;
    shim::install(launch.shim_dir).map_err(|error| failure(&error))?;
    if arguments.print_env {
        let lines = shim::environment_file(&environment).map_err(|error| failure(&error))?;
        output::line(lines.trim_end());
        return Ok(Exit::Done);
    }
    let Some((program, rest)) = arguments.command.split_first() else {
        return Err(Failure::error(Exit::Usage, "no command after --"));
    };
    // From here on this process is the daemon: pid, signals, output and exit code are its own.
    let error = std::process::Command::new(program).args(rest).envs(environment).exec();
    Err(Failure::error(Exit::Failure, format!("start {}: {error}", program.display())))
}

pub(super) fn shim(command: &ShimCommand) -> anyhow::Result<Exit> {
    match command {
        ShimCommand::Install { venv } => {
            for folder in shim::install_into_venv(venv).map_err(|error| failure(&error))? {
                output::line(&format!("the shim is in {}", folder.display()));
            }
            output::line(
                "It does nothing without PERISCOPE_TARGET; `periscope run --print-env --target …` \
                 prints what to set.",
            );
        }
        ShimCommand::Remove { venv } => {
            let removed = shim::remove_from_venv(venv).map_err(|error| failure(&error))?;
            for path in &removed {
                output::line(&format!("removed {}", path.display()));
            }
            if removed.is_empty() {
                output::line(&format!("there is no shim in {}", venv.display()));
            }
        }
    }
    Ok(Exit::Done)
}

fn failure(error: &ShimError) -> anyhow::Error {
    let exit = match error {
        ShimError::Target { .. }
        | ShimError::Name { .. }
        | ShimError::Path { .. }
        | ShimError::Listen(_)
        | ShimError::LineBreak(_)
        | ShimError::Venv { .. } => Exit::Usage,
        ShimError::Write { .. } => Exit::CannotCreate,
    };
    Failure::error(exit, error.to_string())
}

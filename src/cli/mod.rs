//! Layer 4: the command line. Definitions here, one file per command; every command ends with an
//! [`exit::Exit`].

mod alerts;
mod bench;
mod check;
mod compose;
mod credentials;
mod daemon;
mod dashboards;
mod doctor;
pub mod exit;
mod export;
mod grafana;
pub mod instance;
mod log;
mod notify;
pub mod output;
mod query;
mod render;
mod schema;
mod send;
mod service;
mod source;
mod spool;
mod status;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::exit::{Exit, exit_of};
use crate::config::load::{Loaded, Request};
use crate::config::{Config, Profile};

/// Watches trading daemons: status to QuestDB, dashboards and alerts, in one binary.
#[derive(Debug, Parser)]
#[command(name = "periscope", version, about, max_term_width = 100, after_help = Exit::help())]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Configuration file (default: ./periscope.toml, then the user's, then /etc/periscope)
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for spool, databases and secrets
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Replaces one setting, e.g. --set questdb.memory=512MB (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Form of the log on stderr
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: log::Format,
    /// More log (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Less log (twice: errors only)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    quiet: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts everything and stays until SIGINT or SIGTERM
    Up {
        /// Uses servers that run already; starts no child
        #[arg(long)]
        remote: bool,
    },
    /// The dev loop: like up, in ./.periscope, with simulated daemons if none is configured
    Dev,
    /// Starts a Python daemon unmodified, with the status shim
    Run(daemon::Arguments),
    /// Puts the status shim into a virtual environment, or takes it out
    Shim {
        #[command(subcommand)]
        command: daemon::ShimCommand,
    },
    /// Checks the configuration and prints every problem
    Check,
    /// Looks for what is wrong: finding, cause, and the command that mends it
    Doctor(doctor::Arguments),
    /// Shows components and daemons of the running instance
    Status(status::Arguments),
    /// Runs read-only SQL
    Query(query::Arguments),
    /// Writes a table to a file, as CSV
    Export(export::Arguments),
    /// Looks at what a daemon answers
    Source {
        #[command(subcommand)]
        command: source::Command,
    },
    /// Writes one row by hand
    Send(send::Arguments),
    /// Alerts: what fires, what fired, silence, a test message
    Alerts {
        #[command(subcommand)]
        command: alerts::Command,
    },
    /// Sets up how alerts reach you
    Notify {
        #[command(subcommand)]
        command: notify::Command,
    },
    /// Writes the configuration files that up would hand to the servers
    Render(render::Arguments),
    /// Gets QuestDB and Grafana without starting them
    Fetch {
        /// Folder with archives or jars to take it from
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
    },
    /// Brings dashboards out of Grafana into files, and writes those that it is handed
    Dashboards {
        #[command(subcommand)]
        command: dashboards::Command,
    },
    /// Brings dashboards, rules and contact points to a Grafana that runs elsewhere
    Grafana {
        #[command(subcommand)]
        command: grafana::Command,
    },
    /// Looks into the queue on disk and sends from it again
    Spool {
        #[command(subcommand)]
        command: spool::Command,
    },
    /// Measures write path, polls, spool, latency or memory, each with its yardstick
    Bench(bench::Arguments),
    /// Prints the tables as SQL or as a reference
    Schema(schema::Arguments),
    /// Runs periscope as a service of systemd
    Service {
        #[command(subcommand)]
        command: service::Command,
    },
    /// Prints a Compose file: QuestDB, Grafana and periscope in containers
    Compose,
    /// Shows users and passwords of the servers that periscope runs
    Credentials,
    /// Runs simulated daemons that speak the real status protocol
    Simulate(up::SimulateArguments),
    /// Prints a completion script
    Completions {
        /// Shell to print it for
        shell: clap_complete::Shell,
    },
    /// Prints the manual page
    Man,
}

/// Parses the command line, runs the command, and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _gone = error.print();
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            return ExitCode::from(exit.code());
        }
    };
    let exit = match run(cli) {
        Ok(exit) => exit,
        Err(error) => {
            output::error_line(&format!("periscope: {error:#}"));
            exit_of(&error)
        }
    };
    ExitCode::from(exit.code())
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { global, command } = cli;
    match command {
        Command::Up { remote } => up::up(&global, remote),
        Command::Dev => up::dev(&global),
        Command::Run(arguments) => daemon::run(&global, &arguments),
        Command::Shim { command } => daemon::shim(&command),
        Command::Check => check::check(&global),
        Command::Doctor(arguments) => doctor::doctor(&global, &arguments),
        Command::Status(arguments) => status::status(&global, &arguments),
        Command::Query(arguments) => query::query(&global, &arguments),
        Command::Export(arguments) => export::export(&global, &arguments),
        Command::Source { command } => source::source(&global, &command),
        Command::Send(arguments) => send::send(&global, &arguments),
        Command::Alerts { command } => alerts::alerts(&global, &command),
        Command::Notify { command } => notify::notify(&global, &command),
        Command::Render(arguments) => render::render(&global, &arguments),
        Command::Fetch { from } => up::fetch(&global, from),
        Command::Dashboards { command } => dashboards::dashboards(&global, &command),
        Command::Grafana { command } => grafana::grafana(&global, &command),
        Command::Spool { command } => spool::spool(&global, &command),
        Command::Bench(arguments) => bench::bench(&global, &arguments),
        Command::Schema(arguments) => schema::schema(&global, &arguments),
        Command::Service { command } => service::service(&global, &command),
        Command::Compose => compose::compose(),
        Command::Credentials => credentials::credentials(&global),
        Command::Simulate(arguments) => up::simulate(&global, &arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "periscope", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end());
            Ok(Exit::Done)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            output::line(String::from_utf8_lossy(&page).trim_end());
            Ok(Exit::Done)
        }
    }
}

impl Global {
    /// Returns the request to load the configuration with `profile`'s defaults.
    fn request(&self, profile: Profile, remote: bool) -> anyhow::Result<Request> {
        Ok(Request {
            file: self.config.clone(),
            data_dir: self.data_dir.clone(),
            set: self.set.clone(),
            remote,
            profile,
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            directory: std::env::current_dir()
                .map_err(|error| anyhow::anyhow!("read the current folder: {error}"))?,
            machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            check_rules: Some(crate::rules::check_written),
        })
    }

    /// Loads the configuration; all problems together end the program with [`Exit::Config`].
    fn load(&self, profile: Profile, remote: bool) -> anyhow::Result<Loaded> {
        crate::config::load::load(&self.request(profile, remote)?)
            .map_err(|problems| exit::Failure::error(Exit::Config, problems.to_string()))
    }

    /// Loads the configuration for a command that only looks at a running instance.
    ///
    /// Without `--data-dir` and configuration, a data folder of `dev` in the current folder is taken
    /// when an instance runs there: the question is then most likely about it.
    fn config(&self) -> anyhow::Result<Config> {
        Ok(self.load(self.profile(), false)?.config)
    }

    fn profile(&self) -> Profile {
        match (&self.data_dir, std::env::current_dir()) {
            (None, Ok(here)) if instance::runs(&here.join(".periscope")) => Profile::Dev,
            (None | Some(_), _) => Profile::Up,
        }
    }

    fn verbosity(&self) -> i8 {
        let count = |n: u8| i8::try_from(n).unwrap_or(i8::MAX);
        count(self.verbose).saturating_sub(count(self.quiet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    /// Alerts and panels told people to run `doctor`, which there was none of.
    #[test]
    fn every_command_that_people_are_told_to_run_exists() {
        let panels = crate::grafana::dashboards::render(&|_, _| None);
        let mut texts: Vec<String> = panels.into_iter().map(|(_, text)| text).collect();
        texts.push(crate::base::embed::asset_text("alerts.toml").unwrap());
        texts.push(include_str!("../../assets/periscope.toml").to_owned());
        texts.push(include_str!("../../README.md").to_owned());
        let told = regex::Regex::new("(?:`|[Rr]un )periscope ([a-z]+)").unwrap();
        let commands = Cli::command();
        let mut found = 0;
        for text in &texts {
            for name in told.captures_iter(text).map(|found| found[1].to_owned()) {
                assert!(commands.find_subcommand(&name).is_some(), "periscope {name}");
                found += 1;
            }
        }
        assert!(found > 40, "only {found} commands are looked at");
    }

    #[test]
    fn help_lists_every_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for exit in Exit::ALL {
            assert!(help.contains(exit.meaning()), "{exit:?} is missing in\n{help}");
        }
    }
}

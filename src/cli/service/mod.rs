//! `periscope service`: periscope as a service of systemd. The steps are decided first and then done
//! one by one, each printed; `--dry-run` only prints them.

mod unit;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::Context as _;

use self::unit::Unit;
use super::exit::{Exit, Failure};
use super::{Global, output};
use crate::config::Profile;

/// Where the unit lies.
pub(super) const UNIT_PATH: &str = "/etc/systemd/system/periscope.service";
const CONFIG: &str = "/etc/periscope/periscope.toml";
const DATA_DIR: &str = "/var/lib/periscope";
const USER: &str = "periscope";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Writes the unit, makes its user and folders, enables and starts it; again is fine
    Install {
        #[command(flatten)]
        options: Options,
        /// Only prints what it would do
        #[arg(long)]
        dry_run: bool,
    },
    /// Stops it and takes the unit away; configuration, rows and user stay
    Uninstall {
        /// Only prints what it would do
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints the unit
    Unit {
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// Who runs it. Daemons of `periscope run` need the same user; the default one is made
    #[arg(long, default_value = USER)]
    user: String,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Run(Vec<String>),
    /// A folder: path, mode, owner.
    Folder(PathBuf, u32, String),
    /// A file, replaced in one step: path, mode, text.
    Write(PathBuf, u32, String),
    Remove(PathBuf),
    Say(String),
}

/// What the steps depend on.
#[derive(Debug)]
struct Machine {
    unit: Unit,
    user_exists: bool,
    config_exists: bool,
}

pub(super) fn service(global: &Global, command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Unit { options } => {
            output::line(machine(global, options)?.unit.text()?.trim_end());
            Ok(Exit::Done)
        }
        Command::Install { options, dry_run } => {
            act(&install(&machine(global, options)?)?, *dry_run)
        }
        Command::Uninstall { dry_run } => act(&uninstall(), *dry_run),
    }
}

fn machine(global: &Global, options: &Options) -> anyhow::Result<Machine> {
    let here = std::env::current_dir().context("read the current folder")?;
    let absolute = |path: Option<&PathBuf>, usual: &str| {
        path.map_or_else(|| PathBuf::from(usual), |path| here.join(path))
    };
    let config = absolute(global.config.as_ref(), CONFIG);
    // A configuration that does not load says so at the start; the unit needs only the heap.
    let loaded = global.load(Profile::Up, false);
    let heap =
        loaded.map_or(crate::config::defaults::QUESTDB_MEMORY, |it| it.config.questdb.memory);
    let known = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.split(':').next() == Some(name))
    };
    let user = options.user.clone();
    Ok(Machine {
        user_exists: known("/etc/passwd", &user),
        config_exists: config.exists(),
        unit: Unit {
            program: std::env::current_exe().context("find this program")?,
            data_dir: absolute(global.data_dir.as_ref(), DATA_DIR),
            config,
            group: group_of(&user),
            user,
            heap,
        },
    })
}

/// Returns the group of `user`; one that is still to be made gets a group of its name.
fn group_of(user: &str) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    let field = |line: &str, index| line.split(':').nth(index).map(str::to_owned);
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user));
    let id = line.and_then(|line| field(line, 3));
    let found = id.and_then(|id| group.lines().find(|line| field(line, 2).as_ref() == Some(&id)));
    found.and_then(|line| field(line, 0)).unwrap_or_else(|| user.to_owned())
}

/// Returns the steps of an installation. Pure.
fn install(machine: &Machine) -> anyhow::Result<Vec<Step>> {
    let Machine { unit, user_exists, config_exists } = machine;
    let run = |words: &[&str]| Step::Run(words.iter().map(|&word| word.to_owned()).collect());
    let mut steps = Vec::new();
    // Checked before anything is changed.
    let text = unit.text()?;
    if !user_exists {
        if unit.user != USER {
            let message = format!("there is no user {}: make it, or leave --user out", unit.user);
            return Err(Failure::error(Exit::Failure, message));
        }
        let home = unit.data_dir.to_string_lossy().into_owned();
        let shell = "/usr/sbin/nologin";
        steps.push(run(&[
            "useradd",
            "--system",
            "--user-group",
            "--home-dir",
            &home,
            "--no-create-home",
            "--shell",
            shell,
            USER,
        ]));
    }
    if let Some(folder) = unit.config.parent().filter(|_| !config_exists) {
        let owner = format!("root:{}", unit.group);
        if folder == Path::new("/etc/periscope") {
            steps.push(Step::Folder(folder.to_owned(), 0o750, owner.clone()));
        }
        let example = crate::base::embed::asset_text("periscope.toml").unwrap_or_default();
        steps.push(Step::Write(unit.config.clone(), 0o640, example));
        steps.push(run(&["chown", &owner, &unit.config.to_string_lossy()]));
    }
    let owner = format!("{}:{}", unit.user, unit.group);
    steps.push(Step::Folder(unit.data_dir.clone(), 0o700, owner));
    steps.push(Step::Write(UNIT_PATH.into(), 0o644, text));
    steps.push(run(&["systemctl", "daemon-reload"]));
    steps.push(run(&["systemctl", "enable", "periscope.service"]));
    // A start would leave an older one running.
    steps.push(run(&["systemctl", "restart", "periscope.service"]));
    steps.push(Step::Say(format!(
        "periscope runs as {}; its log: journalctl -u periscope -f; its state: sudo -u {} {} \
         --config {} --data-dir {} status",
        unit.user,
        unit.user,
        unit.program.display(),
        unit.config.display(),
        unit.data_dir.display()
    )));
    Ok(steps)
}

fn uninstall() -> Vec<Step> {
    let run = |words: &[&str]| Step::Run(words.iter().map(|&word| word.to_owned()).collect());
    vec![
        run(&["systemctl", "disable", "--now", "periscope.service"]),
        Step::Remove(UNIT_PATH.into()),
        run(&["systemctl", "daemon-reload"]),
        Step::Say(format!(
            "the service is gone; what is left: configuration {CONFIG}, rows {DATA_DIR}, user {USER}. \
             To remove these too: rm -r /etc/periscope {DATA_DIR}; userdel {USER}"
        )),
    ]
}

fn act(steps: &[Step], dry_run: bool) -> anyhow::Result<Exit> {
    if !dry_run {
        if !rustix::process::geteuid().is_root() {
            let message = "writing a unit needs root: run it with sudo";
            return Err(Failure::error(Exit::CannotCreate, message));
        }
        if !Path::new("/run/systemd/system").is_dir() {
            let message = "systemd does not run this machine: `periscope service unit` prints the \
                           unit, `periscope compose` a Compose file";
            return Err(Failure::error(Exit::Unavailable, message));
        }
    }
    for step in steps {
        output::line(&step.words());
        if !dry_run {
            step.act()?;
        }
    }
    Ok(Exit::Done)
}

impl Step {
    fn words(&self) -> String {
        match self {
            Self::Run(words) => words.join(" "),
            Self::Folder(path, mode, owner) => {
                format!(
                    "install -d -m {mode:04o} -o {} {}",
                    owner.replace(':', " -g "),
                    path.display()
                )
            }
            Self::Write(path, mode, text) => {
                format!("write {} ({} bytes, mode {mode:04o})", path.display(), text.len())
            }
            Self::Remove(path) => format!("rm -f {}", path.display()),
            Self::Say(words) => words.clone(),
        }
    }

    fn act(&self) -> anyhow::Result<()> {
        let failed = || format!("do: {}", self.words());
        match self {
            Self::Run(words) => {
                let Some((program, arguments)) = words.split_first() else { return Ok(()) };
                let status = Process::new(program).args(arguments).status().with_context(failed)?;
                anyhow::ensure!(status.success(), "{} ended with {status}", self.words());
            }
            Self::Folder(path, mode, owner) => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(*mode)
                    .create(path)
                    .with_context(failed)?;
                fs::set_permissions(path, fs::Permissions::from_mode(*mode))
                    .with_context(failed)?;
                let path = path.to_string_lossy().into_owned();
                Self::Run(vec!["chown".to_owned(), owner.clone(), path]).act()?;
            }
            Self::Write(path, mode, text) => {
                let partial = path.with_extension("partial");
                fs::write(&partial, text).with_context(failed)?;
                fs::set_permissions(&partial, fs::Permissions::from_mode(*mode))
                    .with_context(failed)?;
                fs::rename(&partial, path).with_context(failed)?;
            }
            Self::Remove(path) => match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(failed);
                }
                Ok(()) | Err(_) => {}
            },
            Self::Say(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(user: &str, user_exists: bool, config_exists: bool) -> Machine {
        let unit = Unit {
            program: "/usr/local/bin/periscope".into(),
            config: CONFIG.into(),
            data_dir: DATA_DIR.into(),
            user: user.into(),
            group: user.into(),
            heap: 256_000_000,
        };
        Machine { unit, user_exists, config_exists }
    }

    #[test]
    fn a_first_installation_makes_user_and_files_before_it_starts() {
        let steps = install(&machine(USER, false, false)).unwrap();
        let words: Vec<String> = steps.iter().map(Step::words).collect();
        let at = |part: &str| words.iter().position(|line| line.contains(part)).unwrap();
        let order = ["useradd", "write /etc/periscope", "write /etc/systemd", "reload", "restart"];
        let places: Vec<usize> = order.map(at).into();
        assert!(places.is_sorted(), "{words:#?}");
    }

    #[test]
    fn a_second_one_keeps_configuration_and_user() {
        let words: Vec<String> =
            install(&machine("trader", true, true)).unwrap().iter().map(Step::words).collect();
        assert!(!words.iter().any(|line| line.contains("useradd")), "{words:#?}");
        assert!(!words.iter().any(|line| line.contains("periscope.toml (")), "{words:#?}");
        assert!(install(&machine("nobody-here", false, true)).is_err());
    }

    #[test]
    fn a_step_replaces_a_file_whole_and_removing_twice_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("periscope.service");
        for text in ["one", "two"] {
            Step::Write(path.clone(), 0o640, text.to_owned()).act().unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        Step::Remove(path.clone()).act().unwrap();
        Step::Remove(path).act().unwrap();
        let failing = Step::Run(vec!["false".to_owned()]).act().unwrap_err().to_string();
        assert!(failing.contains("false ended with"), "{failing}");
    }
}

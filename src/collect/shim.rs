//! `periscope run`: the embedded Python shim in a folder, and the environment that makes a Python
//! program load it. The program itself is not changed.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::base::embed::Assets;

/// The files of the shim, under `assets/python/`.
const FILES: [&str; 2] = ["sitecustomize.py", "_periscope_shim.py"];
/// Longest path of a unix socket on Linux, bytes, without the NUL.
const MAX_SOCKET_PATH: usize = 107;
/// What the shim adds to the name of a daemon: `-PID.sock`; a pid has at most seven digits.
const SOCKET_SUFFIX: usize = "-4194304.sock".len();
/// Longest name of a daemon, bytes.
const MAX_NAME: usize = 255;

/// Why a program cannot be started with the shim.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The target is not written as it should be.
    #[error(
        "target {target:?}: {problem}; write module:Class[.method][@adapter], for example \
         scripts.daemon:DaemonRunner, or __main__:DaemonRunner for a class in the script itself"
    )]
    Target {
        /// As it was given.
        target: String,
        /// What is wrong.
        problem: String,
    },
    /// The name cannot be that of a daemon.
    #[error("name {name:?} {problem}; choose another one with --name")]
    Name {
        /// As it was given.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// No socket can have this path.
    #[error(
        "socket path {path}-PID.sock is too long: {bytes} bytes, unix sockets allow {MAX_SOCKET_PATH}; \
         use a shorter --data-dir or --name"
    )]
    Path {
        /// Folder and name.
        path: String,
        /// Length of the whole path.
        bytes: usize,
    },
    /// A file of the shim cannot be written.
    #[error("write {path}: {source}; is the data folder writable?")]
    Write {
        /// Which file or folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What `periscope run` was asked to do.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// `--name`; made from target and command when missing.
    pub name: Option<&'a str>,
    /// `--target`, several by comma.
    pub target: &'a str,
    /// The program and its arguments.
    pub command: &'a [OsString],
    /// Folder of the sockets, absolute.
    pub run_dir: &'a Path,
    /// Folder of the shim, absolute; see [`install`].
    pub shim_dir: &'a Path,
    /// PYTHONPATH as it is.
    pub python_path: Option<&'a OsStr>,
}

/// Returns the environment variables to set for the program.
///
/// # Errors
/// The target, the name or the path of the socket cannot be used.
pub fn environment(launch: &Launch<'_>) -> Result<Vec<(&'static str, OsString)>, ShimError> {
    let targets = parse_targets(launch.target)?;
    let name = match launch.name {
        Some(name) => name.to_owned(),
        None => default_name(&targets, launch.command),
    };
    check_name(&name)?;
    check_path(launch.run_dir, &name)?;
    let mut python_path = launch.shim_dir.as_os_str().to_owned();
    // An empty PYTHONPATH is none: an empty entry would be the current folder.
    if let Some(before) = launch.python_path.filter(|before| !before.is_empty()) {
        python_path.push(":");
        python_path.push(before);
    }
    let mut socket = launch.run_dir.as_os_str().to_owned();
    socket.push("/");
    Ok(vec![
        ("PYTHONPATH", python_path),
        ("PERISCOPE_TARGET", launch.target.into()),
        ("PERISCOPE_NAME", name.into()),
        ("PERISCOPE_SOCKET", socket),
    ])
}

/// One `module:Class[.method][@adapter]`.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    module: &'a str,
    class: &'a str,
}

fn parse_targets(text: &str) -> Result<Vec<Target<'_>>, ShimError> {
    text.split(',').map(|part| parse_target(part.trim())).collect()
}

fn parse_target(text: &str) -> Result<Target<'_>, ShimError> {
    let wrong =
        |problem: &str| ShimError::Target { target: text.to_owned(), problem: problem.to_owned() };
    let (module, rest) =
        text.split_once(':').ok_or_else(|| wrong("there is no colon between module and class"))?;
    if module.ends_with(".py") || module.contains('/') {
        return Err(wrong("the module is written as a file; write it as in an import"));
    }
    if module != "*" && !module.split('.').all(is_identifier) {
        return Err(wrong("the module is no Python name"));
    }
    let (rest, adapter) = match rest.split_once('@') {
        Some((rest, adapter)) => (rest, Some(adapter)),
        None => (rest, None),
    };
    let (class, method) = match rest.split_once('.') {
        Some((class, method)) => (class, Some(method)),
        None => (rest, None),
    };
    if !is_identifier(class) {
        return Err(wrong("the class is no Python name"));
    }
    if !method.is_none_or(is_identifier) {
        return Err(wrong("the method is no Python name"));
    }
    if !adapter.is_none_or(is_identifier) {
        return Err(wrong("the adapter is no name"));
    }
    Ok(Target { module, class })
}

fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next();
    first.is_some_and(|first| first == '_' || first.is_alphabetic())
        && characters.all(|next| next == '_' || next.is_alphanumeric())
}

/// Returns the last part of the module, for a class of the script the script's name, else that of
/// the class in lower case.
fn default_name(targets: &[Target<'_>], command: &[OsString]) -> String {
    let Some(target) = targets.first() else { return "python".to_owned() };
    if !matches!(target.module, "*" | "__main__") {
        return target.module.rsplit('.').next().unwrap_or_default().to_owned();
    }
    let script = command
        .iter()
        .skip(1)
        .map(Path::new)
        .find(|argument| argument.extension().is_some_and(|extension| extension == "py"));
    let stem = script.and_then(Path::file_stem).and_then(OsStr::to_str);
    stem.map_or_else(|| target.class.to_lowercase(), str::to_owned)
}

fn check_name(name: &str) -> Result<(), ShimError> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME {
        "is longer than 255 bytes"
    } else if name.contains('/') || name.chars().any(char::is_control) {
        "holds a slash or a control character"
    } else {
        return Ok(());
    };
    Err(ShimError::Name { name: name.to_owned(), problem: problem.to_owned() })
}

fn check_path(run_dir: &Path, name: &str) -> Result<(), ShimError> {
    let path = run_dir.join(name);
    let bytes = path.as_os_str().as_bytes().len() + SOCKET_SUFFIX;
    if bytes > MAX_SOCKET_PATH {
        return Err(ShimError::Path { path: path.display().to_string(), bytes });
    }
    Ok(())
}

/// Writes the shim into `folder` (made with mode 0700); files that are already right stay as they are,
/// so that running daemons can go on importing them.
///
/// # Errors
/// A file or the folder cannot be written.
pub fn install(folder: &Path) -> Result<(), ShimError> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        |source| ShimError::Write { path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
    for name in FILES {
        let path = folder.join(name);
        let Some(file) = Assets::get(&format!("python/{name}")) else {
            let source = std::io::Error::other("the file is missing in this build of periscope");
            return Err(at(&path)(source));
        };
        if std::fs::read(&path).is_ok_and(|found| found == *file.data) {
            continue;
        }
        write_atomically(folder, name, &file.data).map_err(at(&path))?;
    }
    Ok(())
}

/// Writes beside the file and renames: a program that starts meanwhile sees the old or the new file.
fn write_atomically(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary)?;
    // The mode above is only for a new file: one that a crash left behind keeps its own.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, folder.join(name))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn launch<'a>(name: Option<&'a str>, target: &'a str, command: &'a [OsString]) -> Launch<'a> {
        Launch {
            name,
            target,
            command,
            run_dir: Path::new("/data/run"),
            shim_dir: Path::new("/data/shim"),
            python_path: None,
        }
    }

    fn name_of(target: &str, command: &[&str]) -> String {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        let environment = environment(&launch(None, target, &command)).unwrap();
        environment[2].1.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_shims_folder_comes_first_and_an_existing_path_stays() {
        for (before, expected) in [
            (None, "/data/shim"),
            (Some(""), "/data/shim"),
            (Some("/lib:/more"), "/data/shim:/lib:/more"),
        ] {
            let launch =
                Launch { python_path: before.map(OsStr::new), ..launch(Some("a"), "m:C", &[]) };
            let environment = environment(&launch).unwrap();
            let expected: Vec<(&str, OsString)> = vec![
                ("PYTHONPATH", expected.into()),
                ("PERISCOPE_TARGET", "m:C".into()),
                ("PERISCOPE_NAME", "a".into()),
                ("PERISCOPE_SOCKET", "/data/run/".into()),
            ];
            assert_eq!(environment, expected);
        }
    }

    #[test]
    fn a_daemon_without_a_name_is_called_like_its_module_or_script() {
        assert_eq!(name_of("scripts.ccxt_daemon:Runner", &["python"]), "ccxt_daemon");
        assert_eq!(
            name_of("__main__:Runner", &["python", "-u", "bin/my_bot.py", "x.py"]),
            "my_bot"
        );
        assert_eq!(name_of("*:Runner", &["./bot"]), "runner");
    }

    #[test]
    fn targets_are_checked() {
        for target in [
            "m:C",
            "a.b_1.c:C.method",
            "m:C@nautilus",
            "m:C.m@x",
            "*:C",
            "__main__:C",
            "m:C, n:D.x",
        ] {
            assert!(environment(&launch(Some("a"), target, &[])).is_ok(), "{target}");
        }
        for (target, problem) in [
            ("", "no colon"),
            ("module", "no colon"),
            ("bot.py:C", "written as a file"),
            ("src/bot:C", "written as a file"),
            ("a..b:C", "the module is no"),
            ("1a:C", "the module is no"),
            ("m:", "the class is no"),
            ("m:C D", "the class is no"),
            ("m:C.", "the method is no"),
            ("m:C.a.b", "the method is no"),
            ("m:C@", "the adapter is no"),
            ("m:C@../x", "the adapter is no"),
            ("m:C,", "no colon"),
        ] {
            let error = environment(&launch(Some("a"), target, &[])).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("module:Class"), "{target}: {error}");
        }
    }

    #[test]
    fn names_and_paths_that_no_socket_can_have_are_refused() {
        for name in ["", "a/b", "a\nb", &"x".repeat(256)] {
            let error = environment(&launch(Some(name), "m:C", &[])).unwrap_err().to_string();
            assert!(error.contains("--name"), "{error}");
        }
        let fits = "x".repeat(MAX_SOCKET_PATH - SOCKET_SUFFIX - "/data/run/".len());
        assert!(environment(&launch(Some(&fits), "m:C", &[])).is_ok());
        let error = environment(&launch(Some(&format!("{fits}x")), "m:C", &[])).unwrap_err();
        assert!(error.to_string().contains("108 bytes"), "{error}");
        assert!(error.to_string().contains("--data-dir"), "{error}");
    }

    #[test]
    fn files_are_written_once_and_only_for_the_owner() {
        let folder = tempfile::tempdir().unwrap();
        let shim: PathBuf = folder.path().join("deep/shim");
        install(&shim).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&shim), 0o700);
        let file = shim.join("_periscope_shim.py");
        assert_eq!(mode(&file), 0o600);
        let written = || std::fs::metadata(&file).unwrap().modified().unwrap();
        let first = written();
        install(&shim).unwrap();
        assert_eq!(written(), first);
        std::fs::write(&file, "old").unwrap();
        install(&shim).unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("def install()"));
        let names: Vec<_> =
            std::fs::read_dir(&shim).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), FILES.len(), "{names:?}");
    }
}

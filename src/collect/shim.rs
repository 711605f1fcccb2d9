//! `periscope run`: the embedded Python shim in a folder or in a virtual environment, and the
//! environment variables that make a Python program load it. The program itself is not changed.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::base::embed::Assets;
use crate::base::files::replace::replace;

/// The files of the shim, under `assets/python/`.
const FILES: [&str; 6] = [
    "sitecustomize.py",
    "_periscope_shim.py",
    "_periscope_start.py",
    "_periscope_ccxt_pipeline.py",
    "_periscope_nautilus.py",
    "periscope_nautilus.py",
];
/// The one of them that only works first on PYTHONPATH: a virtual environment has its own.
const ON_PATH_ONLY: &str = "sitecustomize.py";
/// The file that makes every interpreter of a virtual environment load the shim, and its line. It is
/// run at every start: without a target it must cost nothing.
const PTH: (&str, &str) = (
    "periscope.pth",
    "import os; os.environ.get(\"PERISCOPE_TARGET\") and __import__(\"_periscope_start\")\n",
);
/// Kinds of daemons whose classes and adapters are known, by the words of `preset`.
const KINDS: [(&str, &str); 2] = [
    ("nautilus", "nautilus_trader.live.node:TradingNode@nautilus"),
    ("ccxt-pipeline", "*:DaemonRunner@ccxt-pipeline"),
];
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
         scripts.daemon:DaemonRunner, or __main__:DaemonRunner for a class in the script itself, or \
         a kind of daemon: nautilus, ccxt-pipeline"
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
    /// The port is open to others.
    #[error("listen on {0}: not a loopback address; use 127.0.0.1 and a port")]
    Listen(SocketAddr),
    /// A variable cannot be printed.
    #[error("{0} holds a line break: no environment file can have it; use another --data-dir")]
    LineBreak(&'static str),
    /// A folder is no virtual environment.
    #[error(
        "{path} is no virtual environment: {problem}; make one with `python3 -m venv {path}`, or \
         give the folder that holds pyvenv.cfg"
    )]
    Venv {
        /// The folder.
        path: String,
        /// What is missing.
        problem: &'static str,
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
    /// Port on loopback that the shim listens on too.
    pub listen: Option<SocketAddr>,
}

/// Returns the environment variables to set for the program.
///
/// # Errors
/// The target, the name or the path of the socket cannot be used.
pub fn environment(launch: &Launch<'_>) -> Result<Vec<(&'static str, OsString)>, ShimError> {
    let target = with_kinds(launch.target);
    let targets = parse_targets(&target)?;
    if let Some(listen) = launch.listen.filter(|listen| !listen.ip().is_loopback()) {
        return Err(ShimError::Listen(listen));
    }
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
    let mut variables = vec![
        ("PYTHONPATH", python_path),
        ("PERISCOPE_TARGET", target.into()),
        ("PERISCOPE_NAME", name.into()),
        ("PERISCOPE_SOCKET", socket),
    ];
    if let Some(listen) = launch.listen {
        variables.push(("PERISCOPE_LISTEN", listen.to_string().into()));
    }
    Ok(variables)
}

/// Returns variables as an environment file has them, one `NAME=value` a line; systemd, Compose and a
/// shell read it alike.
///
/// # Errors
/// A value holds a line break, or bytes that are no text.
pub fn environment_file(variables: &[(&'static str, OsString)]) -> Result<String, ShimError> {
    let mut lines = String::new();
    for (name, value) in variables {
        let value = value.to_str().filter(|value| !value.contains(['\n', '\r', '\0']));
        let value = value.ok_or(ShimError::LineBreak(name))?;
        let is_plain = |c: char| c.is_alphanumeric() || "/._-:,@+=".contains(c);
        if value.chars().all(is_plain) {
            lines.push_str(&format!("{name}={value}\n"));
        } else {
            let quoted = value.chars().flat_map(|c| {
                // What has a meaning between double quotes.
                let escape = matches!(c, '"' | '\\' | '$' | '`').then_some('\\');
                escape.into_iter().chain(std::iter::once(c))
            });
            lines.push_str(&format!("{name}=\"{}\"\n", quoted.collect::<String>()));
        }
    }
    Ok(lines)
}

/// Puts classes and adapters in the place of kinds of daemons.
fn with_kinds(text: &str) -> String {
    let known = |part: &str| {
        let part = part.trim();
        let kind = KINDS.iter().find(|(kind, _)| *kind == part);
        kind.map_or(part, |(_, target)| target).to_owned()
    };
    text.split(',').map(known).collect::<Vec<_>>().join(",")
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
    if !adapter.is_none_or(|adapter| is_identifier(&adapter.replace('-', "_"))) {
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
        write(folder, name, &content(name)?, 0o600)?;
    }
    Ok(())
}

/// Writes the shim into the virtual environment `venv`, so that every interpreter of it loads the shim
/// where `PERISCOPE_TARGET` is set; returns the folders that it wrote to.
///
/// # Errors
/// The folder is no virtual environment, or cannot be written to.
pub fn install_into_venv(venv: &Path) -> Result<Vec<PathBuf>, ShimError> {
    let folders = site_packages(venv)?;
    for folder in &folders {
        for name in FILES.iter().filter(|name| **name != ON_PATH_ONLY) {
            // The program may run as another user than the one who installs.
            write(folder, name, &content(name)?, 0o644)?;
        }
        // The last one: it must not load files that are not there yet.
        write(folder, PTH.0, PTH.1.as_bytes(), 0o644)?;
    }
    Ok(folders)
}

/// Takes the shim out of the virtual environment `venv`; returns the files that it removed.
///
/// # Errors
/// The folder is no virtual environment, or a file cannot be removed.
pub fn remove_from_venv(venv: &Path) -> Result<Vec<PathBuf>, ShimError> {
    let mut removed = Vec::new();
    for folder in site_packages(venv)? {
        let names = std::iter::once(PTH.0).chain(FILES);
        for path in names.filter(|name| *name != ON_PATH_ONLY).map(|name| folder.join(name)) {
            match std::fs::remove_file(&path) {
                Ok(()) => removed.push(path),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(ShimError::Write { path: path.display().to_string(), source });
                }
            }
        }
    }
    Ok(removed)
}

/// Returns the folders in which the interpreters of `venv` find packages.
fn site_packages(venv: &Path) -> Result<Vec<PathBuf>, ShimError> {
    let refused = |problem| ShimError::Venv { path: venv.display().to_string(), problem };
    if !venv.join("pyvenv.cfg").is_file() {
        return Err(refused("it has no pyvenv.cfg"));
    }
    let entries = std::fs::read_dir(venv.join("lib")).map_err(|_none| refused("it has no lib"))?;
    let of_pythons = entries.flatten().map(|entry| entry.path().join("site-packages"));
    let folders: Vec<_> = of_pythons.filter(|folder| folder.is_dir()).collect();
    if folders.is_empty() {
        return Err(refused("it has no lib/python3.X/site-packages"));
    }
    Ok(folders)
}

fn content(name: &str) -> Result<std::borrow::Cow<'static, [u8]>, ShimError> {
    let file = Assets::get(&format!("python/{name}"));
    file.map(|file| file.data).ok_or_else(|| {
        let source = std::io::Error::other("the file is missing in this build of periscope");
        ShimError::Write { path: name.to_owned(), source }
    })
}

/// Writes a file that is not so already.
fn write(folder: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), ShimError> {
    let path = folder.join(name);
    if std::fs::read(&path).is_ok_and(|found| found == content) {
        return Ok(());
    }
    let partial = folder.join(format!(".{name}.{}", std::process::id()));
    replace(&path, &partial, content, mode)
        .map_err(|source| ShimError::Write { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
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
            listen: None,
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
            "m:C@ccxt-pipeline",
            "nautilus",
            "ccxt-pipeline, m:C",
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
    fn a_kind_of_daemon_stands_for_its_class_and_adapter() {
        let environment = environment(&launch(Some("a"), "nautilus,m:C", &[])).unwrap();
        let target = "nautilus_trader.live.node:TradingNode@nautilus,m:C";
        assert_eq!(environment[1], ("PERISCOPE_TARGET", target.into()));
        assert_eq!(name_of("ccxt-pipeline", &["python", "bots/okx.py"]), "okx");
        for (kind, target) in KINDS {
            let adapter = target.rsplit('@').next().unwrap().replace('-', "_");
            assert!(FILES.contains(&&*format!("_periscope_{adapter}.py")), "{kind}");
        }
    }

    #[test]
    fn a_port_is_on_loopback_or_refused() {
        let with = |listen: &str| {
            let listen = Some(listen.parse().unwrap());
            environment(&Launch { listen, ..launch(Some("a"), "m:C", &[]) })
        };
        let last = with("127.0.0.1:9200").unwrap().pop().unwrap();
        assert_eq!(last, ("PERISCOPE_LISTEN", "127.0.0.1:9200".into()));
        let error = with("0.0.0.0:9200").unwrap_err().to_string();
        assert!(error.contains("127.0.0.1"), "{error}");
    }

    #[test]
    fn an_environment_file_is_read_alike_by_a_shell() {
        let values = ["/plain:/path-1.x", "a b", "q\"uote $HOME `id` \\ 'x'", ""];
        let names = ["A", "B", "C", "D"];
        let pairs: Vec<_> = names.into_iter().zip(values.map(OsString::from)).collect();
        let text = environment_file(&pairs).unwrap();
        let script = format!("set -eu\n{text}printf '%s\\n' \"$A\" \"$B\" \"$C\" \"$D\"");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let read = String::from_utf8(output.stdout).unwrap();
        assert_eq!(read.lines().collect::<Vec<_>>(), values, "{text}");
        let error = environment_file(&[("A", "x\ny".into())]).unwrap_err().to_string();
        assert!(error.starts_with("A holds a line break"), "{error}");
    }

    #[test]
    fn a_virtual_environment_gets_the_shim_and_loses_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let venv = folder.path();
        let error = install_into_venv(venv).unwrap_err().to_string();
        assert!(error.contains("no pyvenv.cfg") && error.contains("-m venv"), "{error}");
        std::fs::write(venv.join("pyvenv.cfg"), "home = /usr/bin\n").unwrap();
        assert!(install_into_venv(venv).unwrap_err().to_string().contains("no lib"));
        let packages = venv.join("lib/python3.11/site-packages");
        std::fs::create_dir_all(&packages).unwrap();
        std::fs::write(packages.join("theirs.py"), "").unwrap();
        assert_eq!(install_into_venv(venv).unwrap(), std::slice::from_ref(&packages));
        let names = || {
            let entries = std::fs::read_dir(&packages).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names().len(), FILES.len() + 1, "{:?}", names());
        assert!(names().contains(&PTH.0.to_owned()) && !names().contains(&ON_PATH_ONLY.to_owned()));
        assert_eq!(remove_from_venv(venv).unwrap().len(), FILES.len());
        assert_eq!(names(), ["theirs.py"]);
        assert!(remove_from_venv(venv).unwrap().is_empty());
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

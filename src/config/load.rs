//! Finds the file, lays environment and command line over it, checks everything in one go.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::alerts::{self, CheckRules};
use super::check::{Place, Problem, Problems};
use super::file::{self, Table};
use super::reader::{Folders, Section};
use super::secrets::Sources;
use super::{Config, Profile, daemons, notify, overrides, sections, servers};

/// Largest accepted file, bytes.
const LARGEST: u64 = 1 << 20;

/// Name of the file in the current folder.
const FILE: &str = "periscope.toml";

/// Every section of the file.
const SECTIONS: [&str; 12] = [
    "node",
    "listen",
    "questdb",
    "grafana",
    "daemon",
    "collect",
    "writer",
    "spool",
    "retention",
    "alerts",
    "notify",
    "heartbeat",
];

/// Everything that a configuration is made of.
#[derive(Debug, Clone)]
pub struct Request {
    /// `--config`
    pub file: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--set`, each `key.path=value`.
    pub set: Vec<String>,
    /// `--remote`: existing servers, whatever `mode` says.
    pub remote: bool,
    /// Whose defaults are taken.
    pub profile: Profile,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// The current folder, absolute.
    pub directory: PathBuf,
    /// Name of the machine, the default of `node.host`.
    pub machine: String,
    /// Judges `[[alerts.rule]]`; without it they are taken as they are.
    pub check_rules: Option<CheckRules>,
}

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The file that they come from, if there is one.
    pub file: Option<PathBuf>,
    /// What its author should know.
    pub warnings: Vec<Problem>,
}

/// Reads and checks the configuration. Reads files (of secrets too), changes nothing.
///
/// # Errors
/// Every problem at once, warnings included.
pub fn load(request: &Request) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let path = find(request, &mut problems);
    let mut tree = Table::default();
    let mut place = Place::Default;
    if let Some(path) = &path {
        // As short as the user wrote it: relative where it lies in the current folder.
        let shown = path.strip_prefix(&request.directory).unwrap_or(path);
        let name = shown.display().to_string();
        place = Place::File { name: name.clone() };
        if let Some(bytes) = read(path, &place, &mut problems) {
            tree = file::parse(&name, &bytes, &mut problems);
        }
    }
    overrides::apply_environment(&mut tree, &request.environment, &SECTIONS, &mut problems);
    overrides::apply_set(&mut tree, &request.set, &mut problems);
    let folder = path.as_deref().and_then(Path::parent).unwrap_or(&request.directory);
    let folders = Folders { file: folder.to_owned(), current: request.directory.clone() };
    let config = check(&tree, place, request, &folders, &mut problems);
    problems.sort();
    match config {
        Some(config) if !problems.has_errors() => {
            Ok(Loaded { config, file: path, warnings: problems.into_all() })
        }
        Some(_) | None => Err(problems),
    }
}

/// Returns the file to read; one that is named must exist, the usual places need not.
fn find(request: &Request, problems: &mut Problems) -> Option<PathBuf> {
    let variable = "PERISCOPE_CONFIG".to_owned();
    let from_variable = request.environment.get(&variable).filter(|path| !path.is_empty());
    let named = match (&request.file, from_variable) {
        (Some(path), _) => Some((path.clone(), Place::Option { name: "--config" })),
        (None, Some(path)) => Some((path.into(), Place::Environment { variable })),
        (None, None) => None,
    };
    let Some((path, place)) = named else {
        return candidates(request).into_iter().find(|path| path.is_file());
    };
    let path = request.directory.join(path);
    if path.exists() && !path.is_dir() {
        return Some(path);
    }
    let message = format!("there is no file {}", path.display());
    problems.error(&place, "", message, Some("check the path".to_owned()));
    None
}

/// Returns where a file is looked for that nobody names, first match wins.
fn candidates(request: &Request) -> Vec<PathBuf> {
    let home = folder(request, "XDG_CONFIG_HOME", ".config");
    let home = home.map(|folder| folder.join("periscope").join(FILE));
    let mut paths = vec![request.directory.join(FILE)];
    paths.extend(home);
    paths.push(Path::new("/etc/periscope").join(FILE));
    paths
}

/// Returns the folder that `variable` names, or else `fallback` in the home folder. A relative
/// path in `variable` does not count, as the XDG specification says.
fn folder(request: &Request, variable: &str, fallback: &str) -> Option<PathBuf> {
    let absolute = |variable: &str| {
        let path = PathBuf::from(request.environment.get(variable)?);
        path.is_absolute().then_some(path)
    };
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(fallback)))
}

fn read(path: &Path, place: &Place, problems: &mut Problems) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST => {
            let message = format!("is larger than {LARGEST} bytes");
            problems.error(place, "", message, Some("name the right file".to_owned()));
            None
        }
        Ok(_) => Some(bytes),
        Err(error) => {
            let hint = Some("check owner and mode of the file".to_owned());
            problems.error(place, "", format!("cannot be read: {error}"), hint);
            None
        }
    }
}

/// Returns the settings; `None` when no data folder can be told.
fn check(
    tree: &Table,
    place: Place,
    request: &Request,
    folders: &Folders,
    problems: &mut Problems,
) -> Option<Config> {
    let profile = request.profile;
    let sources = Sources { environment: &request.environment, folders };
    let mut root = Section::root(tree, place);
    let node = sections::node(root.section("node", problems), &request.machine, problems);
    let listen = sections::listen(root.section("listen", problems), &sources, problems);
    let questdb = root.section("questdb", problems);
    let questdb = servers::questdb(questdb, request.remote, &sources, problems);
    let grafana = root.section("grafana", problems);
    let grafana = servers::grafana(grafana, request.remote, &sources, problems);
    let collect = sections::collect(root.section("collect", problems), profile, problems);
    let entries = root.sections("daemon", problems);
    let daemons = daemons::daemons(entries, collect, &sources, problems);
    let writer = sections::writer(root.section("writer", problems), profile, problems);
    let spool = sections::spool(root.section("spool", problems), problems);
    let retention = sections::retention(&root.section("retention", problems), problems);
    let alerts = alerts::alerts(root.section("alerts", problems), problems);
    if let Some(check) = request.check_rules {
        let slowest = daemons.iter().map(|daemon| daemon.interval).max();
        let interval = slowest.map_or(collect.interval, |slowest| slowest.max(collect.interval));
        alerts.check_rules(check, interval, problems);
    }
    let notify = notify::notify(root.section("notify", problems), &sources, problems);
    let heartbeat = notify::heartbeat(root.section("heartbeat", problems), problems);
    root.finish(problems);
    let data_dir = data_dir(request, problems)?;
    Some(Config {
        profile,
        node,
        listen,
        questdb,
        grafana,
        daemons,
        collect,
        writer,
        spool,
        retention,
        alerts: alerts.alerts,
        notify,
        heartbeat,
        data_dir,
    })
}

/// Returns the data folder, absolute.
fn data_dir(request: &Request, problems: &mut Problems) -> Option<PathBuf> {
    if let Some(path) = &request.data_dir {
        return Some(request.directory.join(path));
    }
    if request.profile == Profile::Dev {
        return Some(request.directory.join(".periscope"));
    }
    // systemd gives a list when the unit has several; the first is ours.
    let state = request.environment.get("STATE_DIRECTORY").filter(|path| !path.is_empty());
    if let Some(path) = state.and_then(|list| list.split(':').next()) {
        return Some(request.directory.join(path));
    }
    let shared = folder(request, "XDG_DATA_HOME", ".local/share");
    if shared.is_none() {
        let hint = Some("name one with --data-dir, or set HOME".to_owned());
        problems.error(&Place::Default, "", "there is no data folder", hint);
    }
    shared.map(|folder| folder.join("periscope"))
}

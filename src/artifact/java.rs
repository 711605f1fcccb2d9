//! Finds a Java that can run `QuestDB`: 17 or newer.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Oldest Java that runs the supported versions of `QuestDB`.
pub const OLDEST: u32 = 17;

/// A Java executable and its major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Java {
    /// The executable.
    pub program: PathBuf,
    /// Major version: 17, 21, 25.
    pub major: u32,
    /// Full version: `17.0.15`.
    pub version: String,
}

/// Where to look. Taken from the environment by the caller, so that a test can say otherwise.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// `questdb.java`: an executable or a JAVA_HOME; then nothing else is looked at.
    pub configured: Option<PathBuf>,
    /// `$JAVA_HOME`.
    pub java_home: Option<PathBuf>,
    /// The folders of `$PATH`.
    pub path: Vec<PathBuf>,
    /// Folders whose children are Java installations.
    pub usual: Vec<PathBuf>,
}

impl Places {
    /// Reads `$JAVA_HOME`, `$PATH` and `$HOME`.
    pub fn of_environment(configured: Option<PathBuf>) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut usual: Vec<PathBuf> =
            ["/usr/lib/jvm", "/usr/lib64/jvm", "/opt/java", "/opt/jdk", "/opt", "/usr/java"]
                .map(PathBuf::from)
                .into();
        if let Some(home) = std::env::var_os("HOME").map(PathBuf::from) {
            usual.extend([home.join(".sdkman/candidates/java"), home.join(".jdks")]);
        }
        Self {
            configured,
            java_home: std::env::var_os("JAVA_HOME")
                .filter(|home| !home.is_empty())
                .map(Into::into),
            path: std::env::split_paths(&path).collect(),
            usual,
        }
    }

    fn candidates(&self) -> Vec<PathBuf> {
        if let Some(configured) = &self.configured {
            let inside = configured.join("bin/java");
            return vec![if inside.is_file() { inside } else { configured.clone() }];
        }
        let mut found = Vec::new();
        found.extend(self.java_home.iter().map(|home| home.join("bin/java")));
        found.extend(self.path.iter().map(|folder| folder.join("java")));
        for folder in &self.usual {
            let mut homes: Vec<PathBuf> =
                fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
            homes.sort();
            found.extend(homes.into_iter().map(|home| home.join("bin/java")));
        }
        found
    }
}

/// No usable Java; says what was looked at.
#[derive(Debug, thiserror::Error)]
#[error("no Java {OLDEST} or newer: {looked_at}; install one, or set questdb.java or JAVA_HOME")]
pub struct NoJava {
    /// Each Java that was found with its version, or that there was none.
    pub looked_at: String,
}

/// Returns the first suitable Java of `places`: configured, else JAVA_HOME, PATH, usual folders.
///
/// Blocking: may run `java -version`, each at most 10 s.
///
/// # Errors
/// There is none, or the found ones are too old.
pub fn find(places: &Places) -> Result<Java, NoJava> {
    let mut looked_at = String::new();
    let mut seen = Vec::new();
    for candidate in places.candidates() {
        let Ok(real) = candidate.canonicalize() else {
            if places.configured.is_some() {
                describe(&mut looked_at, &candidate, "does not exist");
            }
            continue;
        };
        if seen.contains(&real) {
            continue;
        }
        let version = version_of(&real);
        seen.push(real);
        match version.as_deref().map(|version| (version, major(version))) {
            Some((version, Some(major))) if major >= OLDEST => {
                return Ok(Java { program: candidate, major, version: version.to_owned() });
            }
            Some((version, _)) => {
                describe(&mut looked_at, &candidate, &format!("is {version}, too old"));
            }
            None => describe(&mut looked_at, &candidate, "does not tell its version"),
        }
    }
    if looked_at.is_empty() {
        "none in JAVA_HOME, PATH and the usual folders".clone_into(&mut looked_at);
    }
    Err(NoJava { looked_at })
}

/// Returns what the executable at `program` is, whatever its age; `None` when it does not tell.
/// Blocking: may run `java -version` for at most 10 s.
pub fn inspect(program: &Path) -> Option<Java> {
    let version = version_of(&program.canonicalize().ok()?)?;
    Some(Java { program: program.to_owned(), major: major(&version)?, version })
}

fn describe(text: &mut String, program: &Path, what: &str) {
    let comma = if text.is_empty() { "" } else { ", " };
    // Writing to a String cannot fail.
    let _ignored = write!(text, "{comma}{} {what}", program.display());
}

/// Returns the version of the Java at `program`: out of the `release` file beside it, which costs
/// nothing, else by asking it.
fn version_of(program: &Path) -> Option<String> {
    let release = program.parent()?.parent()?.join("release");
    let recorded = fs::read_to_string(release).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
        Some(line.trim().trim_matches('"').to_owned())
    });
    recorded.or_else(|| ask(program))
}

fn ask(program: &Path) -> Option<String> {
    const LIMIT: Duration = Duration::from_secs(10);
    let mut child = Command::new(program)
        .arg("-version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let start = Instant::now();
    while child.try_wait().ok()?.is_none() {
        if start.elapsed() > LIMIT {
            // It hangs: end it, and reap it whatever comes.
            drop(child.kill());
            drop(child.wait());
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    // The output is a few lines and fits into the pipe, so it could end without being read.
    let mut text = Vec::new();
    child.stderr.take()?.take(64 * 1024).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.split('"').nth(1).map(str::to_owned)
}

/// Returns 8 for `1.8.0_392`, 17 for `17.0.15`, 25 for `25-ea`.
fn major(version: &str) -> Option<u32> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    match numbers.next()?.parse().ok()? {
        1 => numbers.next()?.parse().ok(),
        major => Some(major),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(home: &Path, version: &str, with_release_file: bool) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        fs::create_dir_all(home.join("bin")).unwrap();
        let program = home.join("bin/java");
        fs::write(&program, format!("#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n"))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        if with_release_file {
            fs::write(home.join("release"), format!("JAVA_VERSION=\"{version}\"\n")).unwrap();
        }
        program
    }

    #[test]
    fn major_versions_of_all_ages() {
        let cases =
            [("1.8.0_392", Some(8)), ("17.0.15", Some(17)), ("25-ea", Some(25)), ("x", None)];
        for (version, expected) in cases {
            assert_eq!(major(version), expected, "{version}");
        }
    }

    #[test]
    fn the_first_suitable_one_is_taken_in_the_documented_order() {
        let folder = tempfile::tempdir().unwrap();
        let home = |name: &str| folder.path().join(name);
        fake(&home("old"), "11.0.2", true);
        let in_path = fake(&home("path"), "17.0.1", false);
        let usual = fake(&home("jvm/a"), "21.0.1", true);
        let mut places = Places {
            configured: None,
            java_home: Some(home("old")),
            path: vec![home("nothing"), home("path/bin")],
            usual: vec![home("jvm")],
        };
        let java = find(&places).unwrap();
        assert_eq!((java.program, java.major), (in_path, 17));
        places.path.clear();
        assert_eq!(find(&places).unwrap().program, usual);
        places.usual.clear();
        let error = find(&places).unwrap_err().to_string();
        assert!(error.contains("old/bin/java is 11.0.2, too old"), "{error}");
        places.java_home = None;
        assert!(find(&places).unwrap_err().to_string().contains("none in JAVA_HOME"));
    }

    #[test]
    fn a_configured_java_is_the_only_one_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let good = fake(&folder.path().join("good"), "25.0.1", true);
        let mut places =
            Places { configured: Some(folder.path().join("good")), ..Places::default() };
        assert_eq!(find(&places).unwrap().program, good);
        places.configured = Some(folder.path().join("gone"));
        places.java_home = Some(folder.path().join("good"));
        let error = find(&places).unwrap_err().to_string();
        assert!(error.contains("gone does not exist"), "{error}");
    }
}

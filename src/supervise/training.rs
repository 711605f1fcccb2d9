//! The archive of loaded classes by which `QuestDB` starts in half the time. It is made once per
//! jar and Java, by a server that is started and stopped again: on Java 25 an AOT cache, before
//! that an AppCDS archive.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::questdb::Installed;

/// How a start uses or makes the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Startup {
    /// Without one.
    Plain,
    /// With the one at this path; Java ignores it when it does not fit.
    With(Archive),
    /// Makes one at its end.
    Making(Archive),
}

/// An archive that exists or is going to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    path: PathBuf,
    is_aot: bool,
}

impl Archive {
    /// Returns the archive in `folder` for `installed`. Its name holds all that it depends on.
    ///
    /// `None` when this Java cannot make one: it builds on Java's own archive, which a runtime
    /// image often lacks.
    pub fn of(folder: &Path, installed: &Installed) -> Option<Self> {
        let java = installed.java.program.canonicalize().ok()?;
        let base = java.parent()?.parent()?.join("lib/server/classes.jsa");
        let file = installed.jar.as_deref().unwrap_or(&java);
        let metadata = fs::metadata(file).ok().filter(|_| base.is_file())?;
        let changed = std::os::unix::fs::MetadataExt::mtime(&metadata);
        let is_aot = installed.java.major >= 25;
        let name = format!(
            "questdb-{}-{:x}-{changed:x}-java-{}.{}",
            plain(&installed.version),
            metadata.len(),
            plain(&installed.java.version),
            if is_aot { "aot" } else { "jsa" }
        );
        Some(Self { path: folder.join(name), is_aot })
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.path.is_file()
    }

    /// Whether making it has failed before; it is not tried again.
    pub fn is_given_up(&self) -> bool {
        self.given_up().exists()
    }

    /// Puts what a server has made at its end in place; `false` when it has made none, which is
    /// written down.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn finish(&self) -> io::Result<bool> {
        let made = self.partial();
        if made.is_file() {
            fs::rename(made, &self.path)?;
            self.remove_others()?;
            return Ok(true);
        }
        self.give_up()?;
        Ok(false)
    }

    /// Removes the archives of other versions: each has 30 to 60 MB.
    fn remove_others(&self) -> io::Result<()> {
        let Some(folder) = self.path.parent() else { return Ok(()) };
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path != self.path {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Removes what a server has made that did not end as it should.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn abandon(&self) -> io::Result<()> {
        match fs::remove_file(self.partial()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes down that it cannot be made.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn give_up(&self) -> io::Result<()> {
        fs::write(self.given_up(), "This Java made no archive; remove this file to try again.\n")
    }

    fn partial(&self) -> PathBuf {
        self.path.with_extension("part")
    }

    fn given_up(&self) -> PathBuf {
        self.path.with_extension("none")
    }
}

impl Startup {
    /// Returns the arguments for Java.
    pub fn arguments(&self) -> Vec<OsString> {
        let option = |name: &str, path: &Path| {
            let mut option = OsString::from(name);
            option.push(path);
            option
        };
        match self {
            Self::Plain => Vec::new(),
            Self::With(archive) if archive.is_aot => {
                vec![option("-XX:AOTCache=", &archive.path), "-Xlog:aot=off".into()]
            }
            // "auto": an archive that does not fit is no error.
            Self::With(archive) => vec![
                "-Xshare:auto".into(),
                option("-XX:SharedArchiveFile=", &archive.path),
                "-Xlog:cds=off".into(),
            ],
            Self::Making(archive) if archive.is_aot => {
                vec![option("-XX:AOTCacheOutput=", &archive.partial()), "-Xlog:aot=error".into()]
            }
            Self::Making(archive) => vec![
                option("-XX:ArchiveClassesAtExit=", &archive.partial()),
                "-Xlog:cds=error".into(),
            ],
        }
    }
}

/// Keeps what may stand in a file name.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::java::Java;

    #[test]
    fn the_name_changes_with_jar_and_java() {
        let folder = tempfile::tempdir().unwrap();
        let jar = folder.path().join("questdb.jar");
        fs::write(&jar, "one").unwrap();
        let java = folder.path().join("jdk/bin/java");
        let base = folder.path().join("jdk/lib/server/classes.jsa");
        for file in [&java, &base] {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let installed = |major: u32, version: &str| Installed {
            jar: Some(jar.clone()),
            java: Java { program: java.clone(), major, version: version.to_owned() },
            version: "9.3.4".to_owned(),
            source: "cache",
        };
        let of =
            |major, version: &str| Archive::of(folder.path(), &installed(major, version)).unwrap();
        let first = of(17, "17.0.15");
        assert_ne!(first, of(17, "17.0.16"));
        assert!(of(25, "25.0.1").path.to_str().unwrap().ends_with(".aot"));
        fs::write(&jar, "another").unwrap();
        assert_ne!(first, of(17, "17.0.15"));
        fs::remove_file(base).unwrap();
        assert_eq!(Archive::of(folder.path(), &installed(17, "17.0.15")), None);
    }

    #[test]
    fn what_was_not_made_is_not_tried_again_and_what_was_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive { path: folder.path().join("a.jsa"), is_aot: false };
        assert!(!archive.finish().unwrap());
        assert!(archive.is_given_up() && !archive.exists());
        fs::write(archive.partial(), "classes").unwrap();
        archive.abandon().unwrap();
        assert!(!archive.finish().unwrap());
        fs::write(archive.partial(), "classes").unwrap();
        assert!(archive.finish().unwrap());
        assert!(archive.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "others are removed");
    }
}

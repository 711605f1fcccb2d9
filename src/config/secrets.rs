//! Secrets: by environment variable, file, systemd credential, or as they stand. No message of this
//! file holds a secret, or anything of a file that was not meant to be one.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::check::{Place, Problems, quoted, suggestion};
use super::file::{Table, Value};
use super::reader::{Folders, Section, wrong_kind};
use crate::base::secret::Secret;

/// Largest accepted secret, bytes.
const LARGEST: u64 = 64 * 1024;

const HINT: &str = "write { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }";

/// Where secrets may come from.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) folders: &'a Folders,
}

/// What is wrong with a secret, and the next step.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    message: String,
    hint: String,
}

fn refused<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { message: message.into(), hint: hint.into() })
}

impl Section<'_> {
    /// Reads a secret. One that stands in the file or on the command line gives a warning.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        sources: &Sources<'_>,
        problems: &mut Problems,
    ) -> Option<Secret> {
        let entry = self.take(key)?;
        let read = if let Value::Table(table) = &entry.value {
            from_table(table, &entry.place, sources)
        } else if let Some(text) = entry.value.text() {
            warn_of_inline(&self.path_of(key), &entry.place, problems);
            checked(text, "the value")
        } else {
            refused(wrong_kind(entry), HINT)
        };
        match read {
            Ok(secret) => Some(secret),
            Err(Refused { message, hint }) => {
                self.refuse(key, message, hint, problems);
                None
            }
        }
    }
}

fn warn_of_inline(path: &str, place: &Place, problems: &mut Problems) {
    let readers = match place {
        Place::Line { .. } | Place::File { .. } => "everybody who can read this file",
        Place::Set | Place::Option { .. } => "every process of this machine",
        Place::Environment { .. } | Place::Default => return,
    };
    problems.warn(
        place,
        path,
        format!("the secret is visible to {readers}"),
        Some(HINT.to_owned()),
    );
}

fn from_table(table: &Table, place: &Place, sources: &Sources<'_>) -> Result<Secret, Refused> {
    let [(kind, entry)] = table.0.as_slice() else {
        return refused(format!("has {} keys instead of one", table.0.len()), HINT);
    };
    let Some(name) = entry.value.text().filter(|name| !name.is_empty()) else {
        return refused(format!("{kind} {}", wrong_kind(entry)), HINT);
    };
    match kind.as_str() {
        "env" => match sources.environment.get(name) {
            Some(text) => checked(text, &format!("environment variable {name}")),
            None => {
                let hint = format!("set {name} before periscope starts");
                refused(format!("environment variable {name} is not set"), hint)
            }
        },
        "file" => from_file(&sources.folders.of(place).join(name), Access::OwnerOnly),
        "credential" => from_credential(name, sources),
        _ => refused(
            format!("{} is no kind of secret", quoted(kind)),
            suggestion(kind, ["env", "file", "credential"]),
        ),
    }
}

fn from_credential(name: &str, sources: &Sources<'_>) -> Result<Secret, Refused> {
    if name.contains('/') || name.starts_with('.') {
        return refused(format!("{} is no name of a credential", quoted(name)), HINT);
    }
    let Some(folder) = sources.environment.get("CREDENTIALS_DIRECTORY") else {
        let hint = format!("add LoadCredential={name}:PATH to the unit, or use {{ file = … }}");
        return refused("not started by systemd with credentials", hint);
    };
    // systemd's own folder: it decides who reads it, and by access lists that the mode does not show.
    from_file(&Path::new(folder).join(name), Access::Any)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    OwnerOnly,
    Any,
}

fn from_file(path: &Path, access: Access) -> Result<Secret, Refused> {
    let shown = path.display();
    // Not blocking: opening a FIFO would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(error) => {
            return refused(format!("cannot read {shown}: {error}"), "check path and owner");
        }
    };
    // Of the open file, so that nobody can exchange it between check and reading.
    let metadata = match rustix::fs::fstat(&file) {
        Ok(metadata) => metadata,
        Err(error) => return refused(format!("cannot read {shown}: {error}"), "check the path"),
    };
    if !rustix::fs::FileType::from_raw_mode(metadata.st_mode).is_file() {
        return refused(format!("{shown} is not a regular file"), "name a regular file");
    }
    if access == Access::OwnerOnly {
        let mode = metadata.st_mode & 0o7777;
        if mode & 0o177 != 0 {
            let message = format!("{shown} may be used by others or run (mode {mode:04o})");
            return refused(message, format!("run: chmod 600 {shown}"));
        }
        let us = rustix::process::geteuid();
        if metadata.st_uid != us.as_raw() && metadata.st_uid != 0 {
            let message = format!("{shown} belongs to user {}, not to us", metadata.st_uid);
            return refused(message, format!("run: chown {} {shown}", us.as_raw()));
        }
    }
    let mut text = String::new();
    match file.take(LARGEST + 1).read_to_string(&mut text) {
        Ok(_) if text.len() > usize::try_from(LARGEST).unwrap_or(usize::MAX) => {
            refused(format!("{shown} is larger than {LARGEST} bytes"), "name the right file")
        }
        Ok(_) => checked(text.trim_end_matches(['\r', '\n']), &shown.to_string()),
        Err(error) => refused(format!("cannot read {shown}: {error}"), "check the file"),
    }
}

/// Accepts one line of text: a secret goes into headers and files of one line.
fn checked(text: &str, what: &str) -> Result<Secret, Refused> {
    if text.trim().is_empty() {
        return refused(format!("{what} is empty"), "put the secret there");
    }
    if text.chars().any(char::is_control) {
        return refused(
            format!("{what} holds a line break or control character"),
            "put the secret alone, on one line",
        );
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::file;
    use super::*;

    /// Reads `a.token` of `text`; returns the secret and the problems.
    fn read(text: &str, folder: &Path, environment: &[(&str, &str)]) -> (Option<Secret>, String) {
        let mut problems = Problems::default();
        let tree = file::parse("p.toml", text.as_bytes(), &mut problems);
        let mut root = Section::root(&tree, Place::Default);
        let mut section = root.section("a", &mut problems);
        let folders = Folders { file: folder.to_owned(), current: "/nowhere".into() };
        let environment =
            environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let environment = environment.collect();
        let sources = Sources { environment: &environment, folders: &folders };
        let secret = section.secret("token", &sources, &mut problems);
        (secret, problems.to_string().replace(&folder.display().to_string(), "DIR"))
    }

    fn write(folder: &Path, name: &str, text: &[u8], mode: u32) {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_source_gives_the_secret_without_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "good", b"s3cret\r\n", 0o600);
        write(folder.path(), "cred", b"s3cret", 0o440);
        let directory = folder.path().display().to_string();
        let environment = [("T", "s3cret"), ("CREDENTIALS_DIRECTORY", directory.as_str())];
        for source in ["env = \"T\"", "file = \"good\"", "credential = \"cred\""] {
            let text = format!("[a]\ntoken = {{ {source} }}");
            let (secret, problems) = read(&text, folder.path(), &environment);
            assert_eq!(problems, "");
            assert_eq!(secret.unwrap().reveal(), "s3cret", "{source}");
        }
    }

    #[test]
    fn an_inline_secret_works_and_warns_without_showing_it() {
        let (secret, problems) = read("[a]\ntoken = \"canary\"", Path::new("/"), &[]);
        assert_eq!(secret.unwrap().reveal(), "canary");
        assert!(problems.contains("warning: a.token: the secret is visible"), "{problems}");
        assert!(!problems.contains("canary"), "{problems}");
    }

    #[test]
    fn every_bad_source_is_refused_with_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write(path, "open", b"canary", 0o644);
        write(path, "group", b"canary", 0o640);
        write(path, "empty", b"\n", 0o600);
        write(path, "lines", b"canary\ncanary\n", 0o600);
        write(path, "binary", b"\xff\xfe", 0o600);
        write(path, "large", &[b'x'; 70_000], 0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, path.join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let mut seen = String::new();
        for source in [
            "{ file = \"open\" }",
            "{ file = \"group\" }",
            "{ file = \"empty\" }",
            "{ file = \"lines\" }",
            "{ file = \"binary\" }",
            "{ file = \"large\" }",
            "{ file = \"fifo\" }",
            "{ file = \"missing\" }",
            "{ file = \".\" }",
            "{ env = \"UNSET\" }",
            "{ env = \"EMPTY\" }",
            "{ credential = \"x\" }",
            "{ credential = \"../x\" }",
            "{ fil = \"x\" }",
            "{ file = \"x\", env = \"X\" }",
            "{ file = 7 }",
            "\"two\\nlines\"",
            "5",
        ] {
            let text = format!("[a]\ntoken = {source}");
            let (secret, problems) = read(&text, path, &[("EMPTY", "")]);
            assert_eq!(secret, None, "{source}");
            assert!(!problems.contains("canary"), "{problems}");
            seen.push_str(&problems);
            seen.push('\n');
        }
        insta::assert_snapshot!(seen, @r#"
        p.toml:2: a.token: DIR/open may be used by others or run (mode 0644)
            run: chmod 600 DIR/open
        p.toml:2: a.token: DIR/group may be used by others or run (mode 0640)
            run: chmod 600 DIR/group
        p.toml:2: a.token: DIR/empty is empty
            put the secret there
        p.toml:2: a.token: DIR/lines holds a line break or control character
            put the secret alone, on one line
        p.toml:2: a.token: cannot read DIR/binary: stream did not contain valid UTF-8
            check the file
        p.toml:2: a.token: DIR/large is larger than 65536 bytes
            name the right file
        p.toml:2: a.token: DIR/fifo is not a regular file
            name a regular file
        p.toml:2: a.token: cannot read DIR/missing: No such file or directory (os error 2)
            check path and owner
        p.toml:2: a.token: DIR/. is not a regular file
            name a regular file
        p.toml:2: a.token: environment variable UNSET is not set
            set UNSET before periscope starts
        p.toml:2: a.token: environment variable EMPTY is empty
            put the secret there
        p.toml:2: a.token: not started by systemd with credentials
            add LoadCredential=x:PATH to the unit, or use { file = … }
        p.toml:2: a.token: "../x" is no name of a credential
            write { env = "NAME" }, { file = "PATH" } or { credential = "NAME" }
        p.toml:2: a.token: "fil" is no kind of secret
            did you mean "file"?
        p.toml:2: a.token: has 2 keys instead of one
            write { env = "NAME" }, { file = "PATH" } or { credential = "NAME" }
        p.toml:2: a.token: file 7 is a number
            write { env = "NAME" }, { file = "PATH" } or { credential = "NAME" }
        p.toml:2: a.token: the value holds a line break or control character
            put the secret alone, on one line
        p.toml:2: warning: a.token: the secret is visible to everybody who can read this file
            write { env = "NAME" }, { file = "PATH" } or { credential = "NAME" }
        p.toml:2: a.token: 5 is a number
            write { env = "NAME" }, { file = "PATH" } or { credential = "NAME" }
        "#);
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "foreign", b"canary", 0o600);
        let owner = rustix::fs::Uid::from_raw(12_345);
        // Only root may give files away; without it there is no way to make such a file.
        if rustix::fs::chown(folder.path().join("foreign"), Some(owner), None).is_err() {
            assert!(!rustix::process::geteuid().is_root(), "root may give files away");
            return;
        }
        let (secret, problems) = read("[a]\ntoken = { file = \"foreign\" }", folder.path(), &[]);
        assert_eq!(secret, None);
        assert!(problems.contains("belongs to user 12345"), "{problems}");
    }
}

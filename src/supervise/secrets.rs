//! The passwords of the managed servers: random, one set per data folder, in files that only
//! their owner can read. They never appear in arguments, environment, logs or errors.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::base::files::replace::replace;
use crate::base::secret::Secret;
use crate::model::server::Login;

/// Administrator, over HTTP and PG.
const ADMIN: &str = "periscope";
/// Who may only read, over PG.
const READER: &str = "periscope_reader";

/// Who may do what at the managed `QuestDB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// HTTP: write, create tables, query.
    pub http: Login,
    /// PG wire: everything.
    pub pg_admin: Login,
    /// PG wire: read only.
    pub pg_reader: Login,
}

/// Where the passwords lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Password of the HTTP user.
    pub http: PathBuf,
    /// Password of the PG administrator.
    pub pg_admin: PathBuf,
    /// Password of the PG reader.
    pub pg_reader: PathBuf,
}

/// Who may do what at the managed Grafana, and the key of its stored secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrafanaSecrets {
    /// The administrator.
    pub admin: Login,
    /// Encrypts what Grafana stores; must stay the same as long as its database.
    pub secret_key: Secret,
}

impl GrafanaSecrets {
    fn files(data_dir: &Path) -> (PathBuf, PathBuf) {
        let folder = data_dir.join("secrets");
        (folder.join("grafana-admin-password"), folder.join("grafana-secret-key"))
    }

    /// Reads them in `data_dir`. Blocking.
    ///
    /// # Errors
    /// One is missing, empty or unreadable; the error names the file.
    pub fn load(data_dir: &Path) -> io::Result<Self> {
        let (password, key) = Self::files(data_dir);
        let admin = Login { user: "admin".to_owned(), password: read(&password)? };
        Ok(Self { admin, secret_key: read(&key)? })
    }

    /// Reads them in `data_dir` and makes the missing ones. Blocking.
    ///
    /// # Errors
    /// One cannot be read or written; the error names the file.
    pub fn load_or_create(data_dir: &Path) -> io::Result<Self> {
        let (password, key) = Self::files(data_dir);
        prepare(&data_dir.join("secrets"))?;
        read_or_create(&password, || Secret::random(16))?;
        read_or_create(&key, || Secret::random(32))?;
        Self::load(data_dir)
    }
}

impl Files {
    /// Returns the files in `data_dir`, whether they exist or not.
    pub fn of(data_dir: &Path) -> Self {
        let folder = data_dir.join("secrets");
        Self {
            http: folder.join("questdb-http-password"),
            pg_admin: folder.join("questdb-pg-password"),
            pg_reader: folder.join("questdb-reader-password"),
        }
    }
}

impl Credentials {
    /// Reads the passwords in `data_dir`. Blocking.
    ///
    /// # Errors
    /// One is missing, empty or unreadable; the error names the file.
    pub fn load(data_dir: &Path) -> io::Result<Self> {
        let files = Files::of(data_dir);
        let login = |user: &str, path: &Path| {
            Ok::<_, io::Error>(Login { user: user.to_owned(), password: read(path)? })
        };
        Ok(Self {
            http: login(ADMIN, &files.http)?,
            pg_admin: login(ADMIN, &files.pg_admin)?,
            pg_reader: login(READER, &files.pg_reader)?,
        })
    }

    /// Reads the passwords in `data_dir` and makes the missing ones. Blocking.
    ///
    /// The administrator has one password for both protocols, as every other part holds one login
    /// for both.
    ///
    /// # Errors
    /// One cannot be read or written; the error names the file.
    pub fn load_or_create(data_dir: &Path) -> io::Result<Self> {
        let files = Files::of(data_dir);
        prepare(&data_dir.join("secrets"))?;
        let admin = read_or_create(&files.http, || Secret::random(32))?;
        read_or_create(&files.pg_admin, || Ok(admin))?;
        read_or_create(&files.pg_reader, || Secret::random(32))?;
        Self::load(data_dir)
    }
}

/// Makes the folder of secrets, closed to others.
fn prepare(folder: &Path) -> io::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.and_then(|()| restrict(folder, 0o700)).map_err(|error| at(folder, &error))
}

fn read(path: &Path) -> io::Result<Secret> {
    let text = fs::read_to_string(path).map_err(|error| at(path, &error))?;
    match text.trim() {
        "" => Err(at(path, &io::Error::new(io::ErrorKind::InvalidData, "the file is empty"))),
        password => Ok(Secret::new(password)),
    }
}

fn read_or_create(path: &Path, make: impl FnOnce() -> io::Result<Secret>) -> io::Result<Secret> {
    match read(path) {
        Ok(secret) => {
            restrict(path, 0o600).map_err(|error| at(path, &error))?;
            Ok(secret)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = make()?;
            write(path, &secret).map_err(|error| at(path, &error))?;
            Ok(secret)
        }
        Err(error) => Err(error),
    }
}

/// Writes a secret in one step: the file is never there without its content.
fn write(path: &Path, secret: &Secret) -> io::Result<()> {
    replace(path, &path.with_extension("part"), secret.reveal().as_bytes(), 0o600)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

/// Takes rights away that somebody has added.
fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_grafana_are_made_once() {
        let data = tempfile::tempdir().unwrap();
        let missing = GrafanaSecrets::load(data.path()).unwrap_err();
        assert!(missing.to_string().contains("grafana-admin-password"), "{missing}");
        let made = GrafanaSecrets::load_or_create(data.path()).unwrap();
        assert_eq!(GrafanaSecrets::load_or_create(data.path()).unwrap(), made);
        assert_ne!(made.admin.password, made.secret_key);
        assert!(!format!("{made:?}").contains(made.secret_key.reveal()));
    }

    #[test]
    fn passwords_are_made_once_and_only_their_owner_can_read_them() {
        let data = tempfile::tempdir().unwrap();
        let missing = Credentials::load(data.path()).unwrap_err();
        assert!(missing.to_string().contains("questdb-http-password"), "{missing}");
        let made = Credentials::load_or_create(data.path()).unwrap();
        assert_eq!(made.http, made.pg_admin);
        assert_ne!(made.http.password, made.pg_reader.password);
        assert_eq!(made.http.password.reveal().len(), 64);
        let file = Files::of(data.path()).http;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Credentials::load_or_create(data.path()).unwrap(), made);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(&data.path().join("secrets"))), (0o600, 0o700));
        assert!(!format!("{made:?}").contains(made.http.password.reveal()));
    }
}

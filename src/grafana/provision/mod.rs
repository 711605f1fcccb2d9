//! The files that Grafana reads: data source, dashboards, contact points, policies, grafana.ini.
//! A pure function from settings to files; equal settings give equal bytes. Grafana ends at once
//! when any of them is wrong, so everything that comes from a user is quoted or refused here.

pub mod alerting;
pub mod bundle;
pub mod ini;
pub mod inputs;
pub mod ledger;
pub mod text;
pub mod write;

use std::path::PathBuf;

use crate::base::secret::Secret;
use crate::config::notify::Notify;
use crate::grafana::dashboards::{DATASOURCE_NAME, DATASOURCE_UID, Datasource, FOLDER};
use crate::grafana::yaml::Node;
use text::{Unwritable, plain_path, quoted};

/// Mode of a file that holds a secret.
pub const PRIVATE: u32 = 0o600;
/// Mode of every other file; the folders around them are private anyway.
pub const PUBLIC: u32 = 0o644;

/// Everything that decides the files.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder that the files will lie in, absolute; they name each other by it.
    pub folder: PathBuf,
    /// Folder of Grafana's own data (database, logs, plugins), absolute.
    pub state: PathBuf,
    /// grafana.ini.
    pub server: Server,
    /// `[grafana] datasource`.
    pub datasource: Datasource,
    /// QuestDB's PG wire.
    pub questdb: Questdb,
    /// Where periscope takes Grafana's notifications.
    pub webhook: Webhook,
    /// The listener's page of runbooks, which alert rules link to: `http://…/runbooks`.
    pub runbooks: String,
    /// `[notify]`.
    pub channels: Notify,
    /// Waiting times of notifications.
    pub grouping: Grouping,
    /// Whether alert rules, contact points and policies are written. Without them a Grafana that
    /// died of one of them starts, and periscope's fallback alerts go on.
    pub alerting: bool,
    /// Uids of contact points that earlier settings made and these do not; Grafana keeps them until
    /// it is told to delete them.
    pub retired: Vec<String>,
}

/// `[grafana]` of a managed server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Base URL for links in messages, and for people; `None`: host and port.
    pub url: Option<String>,
    /// Password of the user `admin`.
    pub admin_password: Secret,
    /// Key that Grafana encrypts its stored secrets with; must stay the same.
    pub secret_key: Secret,
    /// Whether people may look without a login.
    pub anonymous_viewer: bool,
}

/// How Grafana reaches QuestDB.
#[derive(Debug, Clone)]
pub struct Questdb {
    /// Host of the PG wire.
    pub host: String,
    /// Port of the PG wire.
    pub port: u16,
    /// User that only reads.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

/// periscope's own webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// `http://…/grafana/webhook`.
    pub url: String,
    /// Token of the listener, if it has one.
    pub token: Option<Secret>,
}

/// Waiting times of notifications, as Grafana writes durations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    /// Before the first message of a group.
    pub wait: String,
    /// The same for critical alerts.
    pub critical_wait: String,
    /// Before a message about new alerts of the group.
    pub interval: String,
    /// Before the same message again.
    pub repeat: String,
}

impl Default for Grouping {
    fn default() -> Self {
        Self {
            wait: "30s".to_owned(),
            critical_wait: "10s".to_owned(),
            interval: "5m".to_owned(),
            repeat: "4h".to_owned(),
        }
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path under [`Settings::folder`].
    pub path: String,
    /// Contents.
    pub contents: Contents,
    /// Mode bits.
    pub mode: u32,
}

/// What stands in a file. A secret does not print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contents {
    /// Anybody who may read the folder may read it.
    Text(String),
    /// One secret and nothing else.
    Secret(Secret),
}

impl Contents {
    /// Returns the text that goes to the disk.
    pub fn reveal(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Secret(secret) => secret.reveal(),
        }
    }
}

impl File {
    fn public(path: &str, text: String) -> Self {
        Self { path: path.to_owned(), contents: Contents::Text(text), mode: PUBLIC }
    }
}

/// Returns every file. `dashboards` are name and JSON; `rules` is the YAML of the alert rules.
///
/// # Errors
/// A path or text that no quoting can bring into these files.
pub fn files(
    settings: &Settings,
    dashboards: &[(String, String)],
    rules: Option<&str>,
) -> Result<Vec<File>, Unwritable> {
    let mut secrets = Secrets::new(settings)?;
    let mut files = vec![
        File::public("grafana.ini", ini::text(settings, &mut secrets)?),
        File::public(
            "provisioning/datasources/periscope.yaml",
            datasource(settings, &mut secrets)?,
        ),
        File::public("provisioning/dashboards/periscope.yaml", provider(settings)?),
        // Grafana complains about a folder of plugins that is not there.
        File::public("provisioning/plugins/periscope.yaml", "apiVersion: 1\napps: []\n".to_owned()),
    ];
    let contacts = if settings.alerting {
        alerting::contact_points(settings, &mut secrets)?
    } else {
        "apiVersion: 1\n".to_owned()
    };
    files.push(File::public("provisioning/alerting/contact-points.yaml", contacts));
    if settings.alerting {
        let policies = alerting::policies(settings);
        files.push(File::public("provisioning/alerting/policies.yaml", policies));
        if let Some(rules) = rules {
            let rules = rules.to_owned();
            files.push(File::public("provisioning/alerting/rules.yaml", rules));
        }
    }
    for (name, json) in dashboards {
        files.push(File::public(&format!("dashboards/{FOLDER}/{name}"), json.clone()));
    }
    files.extend(secrets.files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// How a data source of Grafana is told where the database is.
#[derive(Debug)]
pub struct Connection {
    /// Fields of the data source itself.
    pub fields: Vec<(&'static str, Node)>,
    /// Fields of its `jsonData`.
    pub json: Vec<(&'static str, Node)>,
}

/// Returns the connection of the data source that `settings` ask for; the password is apart.
pub fn connection(settings: &Settings) -> Connection {
    let Questdb { host, port, user, .. } = &settings.questdb;
    match settings.datasource {
        Datasource::Postgres => Connection {
            fields: vec![("url", format!("{host}:{port}").into()), ("user", user.clone().into())],
            json: vec![
                ("database", "qdb".into()),
                ("sslmode", "disable".into()),
                ("postgresVersion", Node::Int(1200)),
                ("timescaledb", Node::Bool(false)),
                ("timeInterval", "1s".into()),
                ("maxOpenConns", Node::Int(10)),
                ("maxIdleConns", Node::Int(4)),
                ("connMaxLifetime", Node::Int(14_400)),
            ],
        },
        // The plugin ignores `url` and `user`, and takes a missing limit for zero.
        Datasource::Questdb => Connection {
            fields: Vec::new(),
            json: vec![
                ("server", host.clone().into()),
                ("port", Node::Int((*port).into())),
                ("username", user.clone().into()),
                ("tlsMode", "disable".into()),
                ("timeInterval", "1s".into()),
                ("timeout", Node::Int(10)),
                ("queryTimeout", Node::Int(60)),
                ("maxOpenConnections", Node::Int(10)),
                ("maxIdleConnections", Node::Int(4)),
                ("maxConnectionLifetime", Node::Int(14_400)),
            ],
        },
    }
}

fn datasource(settings: &Settings, secrets: &mut Secrets) -> Result<String, Unwritable> {
    let password = secrets.reference("questdb-reader-password", &settings.questdb.password);
    let Connection { fields, json } = connection(settings);
    let lines = |depth: usize, fields: &[(&'static str, Node)]| {
        let mut text = String::new();
        for (key, value) in fields {
            let value = match value {
                Node::Text(value) => quoted("the address or user of questdb", value)?,
                other @ (Node::Int(_)
                | Node::Number(_)
                | Node::Bool(_)
                | Node::List(_)
                | Node::Map(_)) => other.json().to_string(),
            };
            text.push_str(&format!("{}{key}: {value}\n", " ".repeat(depth)));
        }
        Ok::<_, Unwritable>(text)
    };
    Ok(format!(
        "apiVersion: 1\ndatasources:\n  - name: {}\n    uid: {DATASOURCE_UID}\n    orgId: 1\n    \
         type: {}\n    access: proxy\n    isDefault: false\n    editable: false\n{}    \
         jsonData:\n{}    secureJsonData:\n      password: {password}\n",
        quoted("name", DATASOURCE_NAME)?,
        settings.datasource.plugin(),
        lines(4, &fields)?,
        lines(6, &json)?,
    ))
}

fn provider(settings: &Settings) -> Result<String, Unwritable> {
    let folder = plain_path(&settings.folder.join("dashboards"))?;
    Ok(format!(
        "apiVersion: 1\nproviders:\n  - name: periscope\n    orgId: 1\n    type: file\n    \
         disableDeletion: false\n    allowUiUpdates: false\n    updateIntervalSeconds: 10\n    \
         options:\n      path: {}\n      foldersFromFilesStructure: true\n",
        quoted("folder", &folder)?
    ))
}

/// Secrets go to files of their own, 0600, and everything else names those files.
#[derive(Debug)]
pub struct Secrets {
    folder: String,
    files: Vec<File>,
}

impl Secrets {
    fn new(settings: &Settings) -> Result<Self, Unwritable> {
        let folder = plain_path(&settings.folder.join("secrets"))?;
        Ok(Self { folder, files: Vec::new() })
    }

    /// Puts `secret` into the file `name` and returns what stands for it in YAML and INI.
    fn reference(&mut self, name: &str, secret: &Secret) -> String {
        let path = format!("secrets/{name}");
        if self.files.iter().all(|file| file.path != path) {
            let contents = Contents::Secret(secret.clone());
            self.files.push(File { path, contents, mode: PRIVATE });
        }
        format!("$__file{{{}/{name}}}", self.folder)
    }
}

#[cfg(test)]
mod tests;

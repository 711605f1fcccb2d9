//! Configuration and surroundings → [`Settings`].

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Grouping, Questdb, Server, Settings, Webhook, ini};
use crate::base::secret::Secret;
use crate::config::{Config, Mode};
use crate::grafana::dashboards::Datasource;
use crate::model::server::{Endpoint, Login};
use crate::supervise::secrets::GrafanaSecrets;

/// Route of periscope's listener that takes Grafana's notifications.
pub const WEBHOOK: &str = "/grafana/webhook";
/// Route of periscope's listener that says what alerts mean.
pub const RUNBOOKS: &str = "/runbooks";

/// What is only known while periscope runs, or is chosen by who writes the files.
#[derive(Debug, Clone)]
pub struct Place {
    /// Folder that the files will lie in, absolute.
    pub folder: PathBuf,
    /// Folder of Grafana's own data, absolute.
    pub state: PathBuf,
    /// Where Grafana listens.
    pub address: SocketAddr,
    /// periscope's listener.
    pub listener: SocketAddr,
    /// The database.
    pub questdb: Endpoint,
    /// Password and key of the managed Grafana.
    pub secrets: GrafanaSecrets,
}

impl Settings {
    /// Returns the settings that `config` asks for at `place`.
    pub fn of(config: &Config, place: Place) -> Self {
        let url = match config.grafana.mode {
            Mode::Managed => config.grafana.url.clone(),
            Mode::Remote | Mode::Off => None,
        };
        Self {
            folder: place.folder,
            state: place.state,
            server: Server {
                host: place.address.ip().to_string(),
                port: place.address.port(),
                url: url.map(|url| format!("{}/", url.trim_end_matches('/'))),
                admin_password: place.secrets.admin.password,
                secret_key: place.secrets.secret_key,
                anonymous_viewer: false,
            },
            // The configuration has checked the name.
            datasource: Datasource::named(&config.grafana.datasource).unwrap_or_default(),
            questdb: questdb(&place.questdb),
            webhook: Webhook { url: webhook(place.listener), token: config.listen.token.clone() },
            runbooks: local(place.listener, RUNBOOKS),
            channels: config.notify.clone(),
            grouping: Grouping::default(),
            alerting: true,
            retired: Vec::new(),
        }
    }
}

impl Settings {
    /// Returns the settings for the API of a remote Grafana, which reads no files of ours.
    pub fn for_api(config: &Config, listener: SocketAddr, questdb: Endpoint) -> Self {
        let nobody = Login { user: String::new(), password: Secret::new("") };
        let secrets = GrafanaSecrets { admin: nobody, secret_key: Secret::new("") };
        let (folder, state) = (PathBuf::new(), PathBuf::new());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::of(config, Place { folder, state, address, listener, questdb, secrets })
    }
}

/// Returns what a Grafana at `url` cannot reach of this machine, in words with the next step.
pub fn unreachable(url: &str, questdb: &Endpoint, listener: SocketAddr) -> Vec<String> {
    let is_local = |host: &str| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    };
    if is_local(ini::domain(url)) {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    let host = questdb.pg.rsplit_once(':').map_or(questdb.pg.as_str(), |(host, _)| host);
    if is_local(host) {
        warnings.push(format!(
            "that Grafana cannot reach QuestDB at {}: its PG wire is on this machine alone; set \
             questdb.pg to an address that it can reach",
            questdb.pg
        ));
    }
    if listener.ip().is_loopback() {
        warnings.push(format!(
            "that Grafana cannot tell periscope of alerts at {listener}: set listen.address and \
             listen.token"
        ));
    }
    warnings
}

/// Returns how Grafana reaches `endpoint`.
pub fn questdb(endpoint: &Endpoint) -> Questdb {
    let (host, port) = endpoint.pg.rsplit_once(':').unwrap_or((&endpoint.pg, ""));
    // What a server takes that nobody has given users to.
    let open = || Login { user: "admin".to_owned(), password: Secret::new("quest") };
    let Login { user, password } = endpoint.reader.clone().unwrap_or_else(open);
    Questdb { host: host.to_owned(), port: port.parse().unwrap_or(8812), user, password }
}

/// Returns the URL by which a Grafana on this machine reaches the listener.
pub fn webhook(listener: SocketAddr) -> String {
    local(listener, WEBHOOK)
}

/// Returns the URL of `path` for who is on this machine.
fn local(listener: SocketAddr, path: &str) -> String {
    let mut address = listener;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grafana_elsewhere_cannot_reach_what_is_on_loopback() {
        let endpoint = |pg: &str| Endpoint {
            http: String::new(),
            pg: pg.to_owned(),
            database: String::new(),
            admin: None,
            reader: None,
        };
        let local = "127.0.0.1:7480".parse().unwrap();
        let open = "10.0.0.1:7480".parse().unwrap();
        let here = endpoint("127.0.0.1:8812");
        assert!(unreachable("http://127.0.0.1:3000", &here, local).is_empty());
        assert_eq!(unreachable("https://grafana.example.org", &here, local).len(), 2);
        assert!(unreachable("https://g.example", &endpoint("db.example:8812"), open).is_empty());
    }

    #[test]
    fn addresses_become_what_grafana_can_reach() {
        assert_eq!(
            webhook("0.0.0.0:7480".parse().unwrap()),
            "http://127.0.0.1:7480/grafana/webhook"
        );
        assert_eq!(webhook("[::1]:80".parse().unwrap()), "http://[::1]:80/grafana/webhook");
        let endpoint = Endpoint {
            http: "http://db:9000".to_owned(),
            pg: "db.example:8813".to_owned(),
            database: "qdb".to_owned(),
            admin: None,
            reader: None,
        };
        let questdb = questdb(&endpoint);
        assert_eq!((questdb.host.as_str(), questdb.port), ("db.example", 8813));
        assert_eq!(questdb.user, "admin");
    }
}

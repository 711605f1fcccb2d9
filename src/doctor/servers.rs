//! QuestDB and Grafana: the programs, their ports, their answers, and who may log in.

use std::net::SocketAddr;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::finding::Finding;
use super::{Instance, LIMIT};
use crate::artifact;
use crate::base::http::Client;
use crate::base::ports;
use crate::base::secret::Secret;
use crate::cli::instance;
use crate::config::{Config, Login as GrafanaLogin, Mode};
use crate::grafana::alerting::DATASOURCE;
use crate::grafana::api::{Api, ApiError};
use crate::model::server::{Endpoint, Login};
use crate::store::exec::Target;
use crate::store::{read, wal};
use crate::supervise::questdb::{OLDEST, parse_version};
use crate::supervise::ready::{self, NotReady};
use crate::supervise::secrets::GrafanaSecrets;

/// Plugin of `grafana.datasource = "questdb"`.
const PLUGIN: &str = "questdb-questdb-datasource";
/// A dashboard that is always there.
const DASHBOARD: &str = "periscope-health";

/// Java, and the files of both servers. Nothing is downloaded.
pub(super) async fn programs(config: &Config, client: &Client) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (stop, quiet) = (CancellationToken::new(), |_| {});
    if config.questdb.mode == Mode::Managed {
        let request = artifact::questdb::Request::of(&config.questdb, &config.data_dir);
        let places = request.java.clone();
        let java = tokio::task::spawn_blocking(move || artifact::java::find(&places)).await;
        match java {
            Ok(Ok(java)) => findings.push(Finding::ok("java", format!("Java {}", java.version))),
            Ok(Err(error)) => findings.push(Finding::problem(
                "java",
                format!("no Java {} or newer: {}", artifact::java::OLDEST, error.looked_at),
                "QuestDB runs in Java; a release with its own Java is got only where there is a \
                 network",
                "apt install openjdk-17-jre-headless, or set questdb.java",
            )),
            Err(error) => findings.push(Finding::problem(
                "java",
                "it could not be looked for",
                error.to_string(),
                "run periscope doctor again",
            )),
        }
        let here = config.data_dir.join(format!("artifacts/questdb-{}", config.questdb.version));
        findings.push(if config.questdb.home.is_some() {
            match artifact::questdb::acquire(&request, client, &stop, &quiet).await {
                Ok(found) => Finding::ok("questdb files", format!("version {}", found.version)),
                Err(error) => home("questdb", &error),
            }
        } else {
            cached("questdb files", &here)
        });
    }
    if config.grafana.mode == Mode::Managed {
        let request = artifact::grafana::Request::of(&config.grafana, &config.data_dir);
        let here = config.data_dir.join(format!("artifacts/grafana-{}", config.grafana.version));
        findings.push(if config.grafana.home.is_some() {
            match artifact::grafana::acquire(&request, client, &stop, &quiet).await {
                Ok(found) => Finding::ok("grafana files", format!("version {}", found.version)),
                Err(error) => home("grafana", &error),
            }
        } else {
            cached("grafana files", &here)
        });
    }
    findings
}

fn home(server: &'static str, error: &artifact::acquired::AcquireError) -> Finding {
    let (check, key) = match server {
        "questdb" => ("questdb files", "questdb.home"),
        _ => ("grafana files", "grafana.home"),
    };
    let remedy = format!("name the folder of an unpacked release in {key}, or remove the line");
    Finding::problem(check, format!("{key} cannot be used"), error.to_string(), remedy)
}

fn cached(check: &'static str, folder: &std::path::Path) -> Finding {
    if folder.is_dir() {
        return Finding::ok(check, format!("in {}", folder.display()));
    }
    Finding::warning(
        check,
        format!("{} does not exist", folder.display()),
        "they are got at the first start, which takes a network",
        "periscope fetch, or periscope fetch --from DIR where there is no network",
    )
}

/// Whether the ports that a start would take are free.
pub(super) fn ports(config: &Config, instance: &Instance) -> Vec<Finding> {
    if !matches!(instance, Instance::None) {
        return Vec::new();
    }
    let mut wanted = vec![("listen.address", config.listen.address.to_string())];
    if config.questdb.mode == Mode::Managed {
        wanted.push(("questdb.http", config.questdb.http.clone()));
        wanted.push(("questdb.pg", config.questdb.pg.clone()));
    }
    if config.grafana.mode == Mode::Managed {
        wanted.push(("grafana.address", config.grafana.address.clone()));
    }
    wanted.into_iter().filter_map(|(key, text)| port(key, &text)).collect()
}

fn port(key: &'static str, text: &str) -> Option<Finding> {
    const CHECK: &str = "port";
    let address: SocketAddr = text.replace("localhost", "127.0.0.1").parse().ok()?;
    let Err(error) = ports::free(address) else {
        return Some(Finding::ok(CHECK, format!("{address} ({key}) is free")));
    };
    let holder = ports::holder(address);
    let who = holder.as_ref().map_or_else(|| "another program".to_owned(), ToString::to_string);
    if error.kind() != std::io::ErrorKind::AddrInUse {
        let cause = "this machine has no such address, or only root may take the port";
        let seen = format!("{address} ({key}) cannot be listened on: {error}");
        return Some(Finding::problem(CHECK, seen, cause, format!("set {key}")));
    }
    let remedy = holder.map_or_else(
        || format!("ss -ltnp shows who; or set {key}"),
        |holder| format!("kill {}, or set {key}", holder.pid),
    );
    Some(Finding::problem(
        CHECK,
        format!("{address} ({key}) is taken"),
        format!("by {who}"),
        remedy,
    ))
}

pub(super) async fn questdb(config: &Config, client: &Client, instance: &Instance) -> Vec<Finding> {
    const CHECK: &str = "questdb";
    let endpoint = match (config.questdb.mode, instance.report()) {
        (Mode::Remote, _) | (_, Some(_)) => instance::database(config).await,
        (Mode::Managed | Mode::Off, None) => return Vec::new(),
    };
    let endpoint = match endpoint {
        Ok(endpoint) => endpoint,
        Err(error) => {
            let remedy = "periscope status --watch; its log is in the data folder, questdb/log";
            let seen = "it has no address yet";
            return vec![Finding::problem(CHECK, seen, format!("{error:#}"), remedy)];
        }
    };
    let mut findings = Vec::new();
    if let Err(error) = ready::probe(client, &endpoint, LIMIT).await {
        return vec![absent(&endpoint, &error)];
    }
    match ready::version(client, &endpoint, LIMIT).await {
        Ok(Some(text)) if parse_version(&text).is_some_and(|number| number < OLDEST) => {
            let (major, minor, patch) = OLDEST;
            findings.push(Finding::problem(
                CHECK,
                format!("{} is version {text}", endpoint.http),
                format!("at least {major}.{minor}.{patch} is needed"),
                "upgrade it",
            ));
        }
        Ok(version) => {
            let version = version.unwrap_or_else(|| "of unknown version".to_owned());
            findings.push(Finding::ok(CHECK, format!("{} answers, {version}", endpoint.http)));
        }
        Err(error) => findings.push(absent(&endpoint, &error)),
    }
    if let Err(error) = read::query(&endpoint, "select 1", LIMIT).await {
        findings.push(Finding::problem(
            CHECK,
            format!("the PostgreSQL wire at {} does not work", endpoint.pg),
            error.to_string(),
            "set questdb.pg, questdb.user and questdb.password as the server has them (pg.user, \
             pg.password, pg.net.bind.to)",
        ));
    }
    findings.extend(tables(client, &endpoint).await);
    findings.extend(logins(client, &endpoint).await);
    findings
}

fn absent(endpoint: &Endpoint, error: &NotReady) -> Finding {
    let (cause, remedy) = match error {
        NotReady::Login { .. } => (
            "it refuses user and password",
            "set questdb.user and questdb.password as http.user and http.password of its server.conf",
        ),
        NotReady::Http(_) => ("nobody listens there", "start it, or mend questdb.http"),
        NotReady::Answer { .. } => ("it is no QuestDB, or it is not well", "mend questdb.http"),
        NotReady::Url(_) => ("questdb.http is no URL", "mend questdb.http"),
    };
    let seen = format!("{} does not answer as it should: {error}", endpoint.http);
    Finding::problem("questdb", seen, cause, remedy)
}

/// Tables that accept rows and do not show them.
async fn tables(client: &Client, endpoint: &Endpoint) -> Vec<Finding> {
    let Ok(target) = Target::new(endpoint) else { return Vec::new() };
    let Ok(tables) = wal::look(&target, client).await else { return Vec::new() };
    let suspended = tables.iter().filter(|table| table.suspended);
    suspended
        .map(|table| {
            let why = [table.tag.as_str(), table.message.as_str()].join(" ");
            let why = if why.trim().is_empty() { "a person suspended it" } else { why.trim() };
            Finding::problem(
                "questdb",
                format!("{} is suspended: it accepts rows and shows none of them", table.name),
                why,
                format!("run \"ALTER TABLE {} RESUME WAL\" in its web console", table.name),
            )
        })
        .collect()
}

/// Who gets in that should not.
async fn logins(client: &Client, endpoint: &Endpoint) -> Vec<Finding> {
    const CHECK: &str = "questdb login";
    let mut findings = Vec::new();
    let default = Login { user: "admin".to_owned(), password: Secret::new("quest") };
    if let Ok(false) = ready::is_protected(client, endpoint, LIMIT).await {
        findings.push(Finding::warning(
            CHECK,
            format!("{} answers without a password", endpoint.http),
            "whoever reaches the port reads and deletes everything",
            "set http.user and http.password in its server.conf and restart it, then questdb.user and \
             questdb.password here",
        ));
    }
    let as_default = Endpoint { reader: Some(default), ..endpoint.clone() };
    if read::query(&as_default, "select 1", LIMIT).await.is_ok() {
        findings.push(Finding::problem(
            CHECK,
            format!("{} lets admin in with the password quest", endpoint.pg),
            "it is the login of every fresh QuestDB, and known to all",
            "set pg.user and pg.password in its server.conf and restart it",
        ));
    }
    findings
}

pub(super) async fn grafana(config: &Config, client: &Client, instance: &Instance) -> Vec<Finding> {
    const CHECK: &str = "grafana";
    let (base, login) = match (config.grafana.mode, instance.report()) {
        (Mode::Off, _) | (Mode::Managed, None) => return Vec::new(),
        (Mode::Remote, _) => (config.grafana.url.clone(), config.grafana.login.clone()),
        (Mode::Managed, Some(report)) => {
            let login = GrafanaSecrets::load(&config.data_dir).ok().map(|secrets| {
                let Login { user, password } = secrets.admin;
                GrafanaLogin::Basic { user, password }
            });
            (report.grafana.http.clone(), login)
        }
    };
    // Why a managed one has no address is told of the part.
    let Some(base) = base else { return Vec::new() };
    let remote = config.grafana.mode == Mode::Remote;
    let api = match Api::new(client.clone(), &base, login.as_ref(), LIMIT) {
        Ok(api) => api,
        Err(error) => return vec![refused(&base, &error, remote)],
    };
    match api.get("/api/health").await {
        Ok(answer) if answer.get("database").is_some_and(|state| state == "ok") => {}
        Ok(answer) => {
            let words = answer.get("database").and_then(Value::as_str);
            let words = words.unwrap_or("no words about its database");
            return vec![Finding::problem(
                CHECK,
                format!("{base} is not healthy: {words}"),
                "its own database cannot be used: a full disk, or a wrong owner of its folder",
                "look into its log; df -h",
            )];
        }
        Err(error) => return vec![refused(&base, &error, remote)],
    }
    if let Err(error) = api.get("/api/org").await {
        return vec![refused(&base, &error, remote)];
    }
    let mut findings = vec![Finding::ok(CHECK, format!("{base} answers and takes the login"))];
    findings.extend(content(&api, config, remote).await);
    let default = GrafanaLogin::Basic { user: "admin".to_owned(), password: Secret::new("admin") };
    if let Ok(stranger) = Api::new(client.clone(), &base, Some(&default), LIMIT)
        && stranger.get("/api/org").await.is_ok()
    {
        findings.push(Finding::problem(
            "grafana login",
            format!("{base} lets admin in with the password admin"),
            "it is the login of every fresh Grafana, and known to all",
            "grafana cli admin reset-admin-password NEW",
        ));
    }
    findings
}

fn refused(base: &str, error: &ApiError, remote: bool) -> Finding {
    let status = error.status().map(|status| status.as_u16());
    let (cause, remedy) = match status {
        Some(401 | 403) if remote => (
            "it refuses the login",
            "set grafana.token to one of a service account with role Admin",
        ),
        Some(401 | 403) => (
            "its password was changed by hand",
            "grafana cli admin reset-admin-password with the password that periscope credentials shows",
        ),
        Some(_) => {
            ("it is not well, or it is no Grafana", "mend grafana.url, or look into its log")
        }
        None if remote => ("nobody answers there", "start it, or mend grafana.url"),
        None => ("it hangs or has ended", "periscope status --watch; its log says why"),
    };
    let seen = format!("{base} does not answer as it should: {error}");
    Finding::problem("grafana", seen, cause, remedy)
}

/// Data source, dashboards and plugin.
async fn content(api: &Api, config: &Config, remote: bool) -> Vec<Finding> {
    const CHECK: &str = "grafana content";
    let again = if remote { "periscope grafana apply" } else { "end and start periscope" };
    let mut findings = Vec::new();
    if config.grafana.datasource == "questdb"
        && let Ok(None) = api.find(&format!("/api/plugins/{PLUGIN}/settings")).await
    {
        findings.push(Finding::problem(
            CHECK,
            format!("it has no plugin {PLUGIN}"),
            "grafana.datasource = \"questdb\" needs it",
            format!("grafana cli plugins install {PLUGIN}, or grafana.datasource = \"postgres\""),
        ));
    }
    let missing = |what: &str| {
        Finding::problem(
            CHECK,
            format!("it has no {what}"),
            "it was never brought there, or somebody removed it",
            again,
        )
    };
    match api.find(&format!("/api/datasources/uid/{DATASOURCE}")).await {
        Ok(None) => findings.push(missing(&format!("data source {DATASOURCE}"))),
        Ok(Some(_)) => {
            let health = api.get(&format!("/api/datasources/uid/{DATASOURCE}/health")).await;
            let words = match &health {
                Ok(answer) if answer.get("status").is_some_and(|status| status == "OK") => None,
                Ok(answer) => answer.get("message").and_then(Value::as_str).map(str::to_owned),
                Err(error) => Some(error.to_string()),
            };
            findings.push(match words {
                None => Finding::ok(CHECK, "its data source reaches QuestDB"),
                Some(words) => Finding::problem(
                    CHECK,
                    "its data source does not reach QuestDB",
                    words,
                    format!("address and password of QuestDB as Grafana sees them; {again}"),
                ),
            });
        }
        Err(error) => findings.push(refused(api.base(), &error, remote)),
    }
    match api.find(&format!("/api/dashboards/uid/{DASHBOARD}")).await {
        Ok(None) => findings.push(missing("dashboards of periscope")),
        Ok(Some(_)) => findings.push(Finding::ok(CHECK, "its dashboards are there")),
        Err(error) => findings.push(refused(api.base(), &error, remote)),
    }
    findings
}

//! The checks of `[questdb]` and `[grafana]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use super::check::Problems;
use super::reader::Section;
use super::secrets::Sources;
use super::sections::tag;
use super::values::{self, Fault, Url};
use super::{Grafana, Login, Mode, Questdb, defaults};

const HEAPS: RangeInclusive<u64> = 64_000_000..=(1 << 40);

/// Versions of `QuestDB` below this lack what the tables need.
const OLDEST_QUESTDB: [u32; 3] = [9, 2, 3];
/// Versions of Grafana below this read other provisioning files.
const OLDEST_GRAFANA: [u32; 3] = [11, 0, 0];

pub(super) fn questdb(
    mut section: Section<'_>,
    remote: bool,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Questdb {
    let modes = [("managed", Mode::Managed), ("remote", Mode::Remote)];
    let mode = section.choice("mode", &modes, problems).unwrap_or(Mode::Managed);
    let mode = if remote { Mode::Remote } else { mode };
    let insecure = section.boolean("insecure", problems).unwrap_or(false);
    let (http, pg) = match mode {
        Mode::Remote => remote_addresses(&mut section, insecure, problems),
        Mode::Managed | Mode::Off => managed_addresses(&mut section, problems),
    };
    let version = oldest(&mut section, OLDEST_QUESTDB, defaults::QUESTDB_VERSION, problems);
    let home = section.path_buf("home", sources.folders, true, problems);
    let offline = section.path_buf("offline", sources.folders, true, problems);
    let java = section.path_buf("java", sources.folders, false, problems);
    let memory = section.size("memory", HEAPS, problems).unwrap_or(defaults::QUESTDB_MEMORY);
    let user = section.parsed("user", tag, problems);
    let has_password = section.has("password");
    let password = section.secret("password", sources, problems);
    if section.has_whole_login(problems) && has_password && mode != Mode::Remote {
        let hint = "leave user and password out, or set mode = \"remote\"".to_owned();
        let message = "has no effect: a managed QuestDB gets its own passwords";
        let path = section.path_of("user");
        problems.warn(section.place_of("user"), path, message, Some(hint));
    }
    section.finish(problems);
    Questdb { mode, http, pg, version, home, offline, java, memory, user, password, insecure }
}

/// Reads `http` and `pg` of a server that periscope runs: addresses of this machine.
fn managed_addresses(section: &mut Section<'_>, problems: &mut Problems) -> (String, String) {
    let http = managed(section, ["http", "http_port"], defaults::QUESTDB_HTTP_PORT, problems);
    let pg = managed(section, ["pg", "pg_port"], defaults::QUESTDB_PG_PORT, problems);
    if http == pg && http.port() != 0 {
        let written = ["pg_port", "pg", "http_port"].into_iter().find(|key| section.has(key));
        let message = format!("\"{pg}\" is also the address of http");
        section.refuse(written.unwrap_or("http"), message, "use another port", problems);
    }
    (http.to_string(), pg.to_string())
}

/// Reads an address and the key that replaces its port.
fn managed(
    section: &mut Section<'_>,
    [key, port_key]: [&'static str; 2],
    default_port: u16,
    problems: &mut Problems,
) -> SocketAddr {
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), default_port);
    let address = section.parsed(key, values::listen_address, problems).unwrap_or(default);
    if !address.ip().is_loopback() {
        let message = format!("\"{address}\" can be reached by others");
        let hint = "a managed QuestDB listens on loopback: write 127.0.0.1:PORT";
        section.refuse(key, message, hint, problems);
    }
    let port = port(section, port_key, 0, problems).unwrap_or(address.port());
    SocketAddr::new(address.ip(), port)
}

/// Reads `http` and `pg` of an existing server: a base URL and `host:port`.
fn remote_addresses(
    section: &mut Section<'_>,
    insecure: bool,
    problems: &mut Problems,
) -> (String, String) {
    let http_port = port(section, "http_port", 1, problems);
    let pg_port = port(section, "pg_port", 1, problems);
    let base = section.parsed("http", base_url, problems);
    let mut base = base.unwrap_or_else(|| Url {
        scheme: "http".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: Some(defaults::QUESTDB_HTTP_PORT),
        path: "/".to_owned(),
    });
    base.port = http_port.or(base.port);
    if base.scheme == "http" && !values::is_loopback(&base.host) && !insecure {
        section.refuse(
            "http",
            format!("\"{}\" sends passwords and rows in the clear", base.origin()),
            "use https, or set questdb.insecure = true",
            problems,
        );
    }
    // Its PG wire is at the same host unless said otherwise.
    let pg = section.parsed("pg", remote_pg, problems);
    let (pg_host, port) = pg.unwrap_or_else(|| (base.host.clone(), defaults::QUESTDB_PG_PORT));
    let http = format!("{}{}", base.origin(), base.path.trim_end_matches('/'));
    (http, format!("{pg_host}:{}", pg_port.unwrap_or(port)))
}

fn port(
    section: &mut Section<'_>,
    key: &'static str,
    lowest: usize,
    problems: &mut Problems,
) -> Option<u16> {
    section.integer(key, lowest..=65_535, problems).and_then(|port| u16::try_from(port).ok())
}

/// Reads a base URL, or `host:port` for plain http.
fn base_url(text: &str) -> Result<Url, Fault> {
    let url = if text.contains("://") {
        values::url(text)?
    } else {
        let (host, port) = remote_pg(text)?;
        Url { scheme: "http".to_owned(), host, port: Some(port), path: "/".to_owned() }
    };
    if url.path.contains('?') {
        let hint = "write scheme, host, port and path only".to_owned();
        return Err(Fault { message: "holds a query".to_owned(), hint });
    }
    Ok(url)
}

fn remote_pg(text: &str) -> Result<(String, u16), Fault> {
    let (host, port) = values::host_port(text)?;
    if port == 0 {
        let hint = "write the port of the running server".to_owned();
        return Err(Fault { message: "has no port".to_owned(), hint });
    }
    Ok((host, port))
}

fn oldest(
    section: &mut Section<'_>,
    oldest: [u32; 3],
    default: &str,
    problems: &mut Problems,
) -> String {
    let [major, minor, patch] = oldest;
    let hint = format!("write a version such as \"{default}\", at least {major}.{minor}.{patch}");
    let parse = |text: &str| match values::version(text) {
        Some(version) if version >= oldest => Ok(text.to_owned()),
        Some(_) => Err(Fault { message: "is too old".to_owned(), hint }),
        None => Err(Fault { message: "is no version".to_owned(), hint }),
    };
    section.parsed("version", parse, problems).unwrap_or_else(|| default.to_owned())
}

pub(super) fn grafana(
    mut section: Section<'_>,
    remote: bool,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Grafana {
    let modes = [("managed", Mode::Managed), ("remote", Mode::Remote), ("off", Mode::Off)];
    let mode = section.choice("mode", &modes, problems).unwrap_or(Mode::Managed);
    let mode = if remote && mode == Mode::Managed { Mode::Remote } else { mode };
    let insecure = section.boolean("insecure", problems).unwrap_or(false);
    let address = section.parsed("address", values::listen_address, problems);
    let address = address.unwrap_or(defaults::GRAFANA_ADDRESS);
    if mode == Mode::Managed && !address.ip().is_loopback() {
        let message = format!("\"{address}\" can be reached by others");
        let hint = "a managed Grafana listens on loopback: write 127.0.0.1:PORT, and put a proxy \
                    with TLS before it";
        section.refuse("address", message, hint, problems);
    }
    let url = section.parsed("url", base_url, problems);
    if mode == Mode::Remote
        && let Some(url) = &url
        && url.scheme == "http"
        && !values::is_loopback(&url.host)
        && !insecure
    {
        let message = format!("\"{}\" sends passwords in the clear", url.origin());
        section.refuse("url", message, "use https, or set grafana.insecure = true", problems);
    }
    let url = url.map(|url| format!("{}{}", url.origin(), url.path.trim_end_matches('/')));
    // A remote Grafana that is not named is looked for where a managed one would listen.
    let url = match mode {
        Mode::Remote => url.or_else(|| Some(format!("http://{address}"))),
        Mode::Managed | Mode::Off => url,
    };
    let version = oldest(&mut section, OLDEST_GRAFANA, defaults::GRAFANA_VERSION, problems);
    let home = section.path_buf("home", sources.folders, true, problems);
    let offline = section.path_buf("offline", sources.folders, true, problems);
    let datasources = [("postgres", "postgres"), ("questdb", "questdb")];
    let datasource = section.choice("datasource", &datasources, problems);
    let datasource = datasource.unwrap_or(defaults::GRAFANA_DATASOURCE).to_owned();
    let login = login(&mut section, mode, sources, problems);
    section.finish(problems);
    let address = address.to_string();
    Grafana { mode, address, url, version, home, offline, datasource, login, insecure }
}

/// Reads `token`, or `user` and `password`.
fn login(
    section: &mut Section<'_>,
    mode: Mode,
    sources: &Sources<'_>,
    problems: &mut Problems,
) -> Option<Login> {
    let token = section.secret("token", sources, problems);
    let user = section.parsed("user", tag, problems);
    let has_user = section.has("user");
    let password = section.secret("password", sources, problems);
    let _reported = section.has_whole_login(problems);
    if section.has("token") && has_user {
        section.refuse("token", "there is a user too", "set token, or user and password", problems);
    }
    if token.as_ref().is_some_and(|token| !token.reveal().is_ascii()) {
        let hint = "it is sent in a header: use letters, digits and signs of ASCII";
        section.refuse("token", "holds characters outside ASCII", hint, problems);
    }
    let written = ["token", "user"].into_iter().find(|key| section.has(key));
    if let (Some(key), true) = (written, mode != Mode::Remote) {
        let hint = Some("leave it out, or set mode = \"remote\"".to_owned());
        let message = "has no effect: a managed Grafana gets its own password";
        problems.warn(section.place_of(key), section.path_of(key), message, hint);
    }
    match (token, user, password) {
        (Some(token), ..) => Some(Login::Token(token)),
        (None, Some(user), Some(password)) => Some(Login::Basic { user, password }),
        (None, ..) => None,
    }
}

//! How `QuestDB` is started: settings, environment, arguments of its Java. Pure, besides reading
//! the paths it is given.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::secrets::{Credentials, Files};
use super::training::Startup;
use crate::artifact::questdb::Installed;
use crate::config;
use crate::model::server::Endpoint;

/// Oldest version that periscope works with.
pub const OLDEST: (u32, u32, u32) = (9, 2, 3);

/// Oldest version known to read passwords from files.
const PASSWORD_FILES: (u32, u32, u32) = (9, 3, 4);

/// Settings beside addresses and users: hardened, and small enough for a server of 1 GB. Every key
/// is known to the oldest and the newest supported version; a test asks them.
const SETTINGS: &str = "\
# Closed: a second HTTP port without a password, and the protocols that nobody needs.
http.min.enabled=false
line.tcp.enabled=false
line.udp.enabled=false
# Tables and columns come from periscope alone; a typing error must not become a column.
line.auto.create.new.tables=false
line.auto.create.new.columns=false
telemetry.enabled=false
# A small server: it shares the machine with trading daemons.
http.net.connection.limit=64
pg.net.connection.limit=32
query.timeout=60s
shared.worker.count=1
wal.apply.worker.count=0
# Without this worker a materialized view stays empty for good.
mat.view.refresh.worker.count=1
# Nearly empty tables: 63 MiB of disk with these sizes, 1149 MiB with the defaults.
cairo.writer.data.append.page.size=1M
cairo.system.writer.data.append.page.size=256k
cairo.wal.writer.data.append.page.size=256k
cairo.o3.column.memory.size=256k
";

/// Returns `server.conf` for a server that listens at `http` and `pg`. Holds no password.
pub fn server_conf(_config: &config::Questdb, http: SocketAddr, pg: SocketAddr) -> String {
    server_conf_at(http, pg)
}

/// As [`server_conf`], which is the same for every configuration so far.
pub fn server_conf_at(http: SocketAddr, pg: SocketAddr) -> String {
    format!(
        "# Written by periscope at every start; changes are lost.\n\
         http.bind.to={http}\n\
         http.user=periscope\n\
         pg.net.bind.to={pg}\n\
         pg.user=periscope\n\
         pg.readonly.user.enabled=true\n\
         pg.readonly.user=periscope_reader\n\
         {SETTINGS}"
    )
}

/// Returns the passwords as settings for a version that cannot read them from files; empty for the
/// others. The text must only go into a file that its owner alone can read.
pub fn password_conf(version: &str, credentials: &Credentials) -> String {
    if parse_version(version).is_none_or(|version| version >= PASSWORD_FILES) {
        return String::new();
    }
    let mut text = String::new();
    for (key, login) in [
        ("http.password", &credentials.http),
        ("pg.password", &credentials.pg_admin),
        ("pg.readonly.password", &credentials.pg_reader),
    ] {
        // Writing to a String cannot fail.
        let _ignored = writeln!(text, "{key}={}", login.password.reveal());
    }
    text
}

/// Returns the numbers of `9.3.4`, `9.3.4-SNAPSHOT`.
pub fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.trim().splitn(3, '.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    let patch = numbers.next()?;
    let digits: String = patch.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor, digits.parse().ok()?))
}

/// Returns the address that `text` (`host:port`) names; the server listens on loopback only.
///
/// # Errors
/// Words for an operator: what is wrong with `key`.
pub fn listen_address(key: &str, text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        Some(_) | None => text.to_owned(),
    };
    let address: SocketAddr = numeric
        .parse()
        .map_err(|_| format!("{key} = {text} is no address such as 127.0.0.1:9000"))?;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ok(address),
        IpAddr::V4(_) | IpAddr::V6(_) => Err(format!(
            "{key} = {text}: a managed server listens on loopback only, such as {}:{}",
            Ipv4Addr::LOCALHOST,
            address.port()
        )),
    }
}

/// Returns where the server answers and as whom.
pub fn endpoint(http: SocketAddr, pg: SocketAddr, credentials: &Credentials) -> Endpoint {
    Endpoint {
        http: format!("http://{http}"),
        pg: pg.to_string(),
        database: "qdb".to_owned(),
        admin: Some(credentials.http.clone()),
        reader: Some(credentials.pg_reader.clone()),
    }
}

/// Folders that a start needs.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Data root.
    pub root: PathBuf,
    /// Logs, crash reports.
    pub log: PathBuf,
    /// Temporary files; emptied at each start, as the server leaves its libraries there when it is
    /// killed.
    pub temporary: PathBuf,
}

/// Returns the arguments of Java.
pub fn arguments(
    config: &config::Questdb,
    installed: &Installed,
    folders: &Folders,
    startup: &Startup,
) -> Vec<OsString> {
    let mebibytes = (config.memory >> 20).max(1);
    let mut arguments: Vec<OsString> = vec![
        "-XX:+UseSerialGC".into(),
        format!("-Xms{}m", mebibytes.min(64)).into(),
        format!("-Xmx{mebibytes}m").into(),
        // A server out of heap limps on for ever; a new one works.
        "-XX:+ExitOnOutOfMemoryError".into(),
        "-XX:-UsePerfData".into(),
        joined("-XX:ErrorFile=", &folders.log.join("crash.log")),
        joined("-Djava.io.tmpdir=", &folders.temporary),
    ];
    // Known from Java 22 on; older ones refuse to start with it.
    if installed.java.major >= 22 {
        arguments.push("--enable-native-access=io.questdb".into());
    }
    arguments.extend(startup.arguments());
    if let Some(jar) = &installed.jar {
        arguments.extend(["-p".into(), jar.clone().into_os_string()]);
    }
    arguments.extend(["-m".into(), "io.questdb/io.questdb.ServerMain".into(), "-d".into()]);
    arguments.push(folders.root.clone().into_os_string());
    arguments
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(path);
    argument
}

/// Returns the whole environment: what a program may expect, and where the passwords lie.
pub fn environment(files: &Files) -> Vec<(OsString, OsString)> {
    let inherited = ["PATH", "HOME", "LANG", "TZ", "JAVA_HOME"].into_iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some((name.into(), value))
    });
    let passwords = [
        ("QDB_HTTP_PASSWORD_FILE", &files.http),
        ("QDB_PG_PASSWORD_FILE", &files.pg_admin),
        ("QDB_PG_READONLY_PASSWORD_FILE", &files.pg_reader),
    ];
    let passwords =
        passwords.into_iter().map(|(name, path)| (name.into(), path.clone().into_os_string()));
    inherited.chain(passwords).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::java::Java;
    use crate::base::secret::Secret;
    use crate::model::server::Login;

    fn config() -> config::Questdb {
        config::Questdb {
            mode: config::Mode::Managed,
            http: "127.0.0.1:9000".to_owned(),
            pg: "127.0.0.1:8812".to_owned(),
            version: "9.3.4".to_owned(),
            home: None,
            offline: None,
            java: None,
            memory: 256 << 20,
            user: None,
            password: None,
            insecure: false,
        }
    }

    fn credentials() -> Credentials {
        let login = Login { user: "u".to_owned(), password: Secret::new("canary") };
        Credentials { http: login.clone(), pg_admin: login.clone(), pg_reader: login }
    }

    #[test]
    fn passwords_appear_only_where_an_old_version_needs_them() {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert!(!server_conf(&config(), at(1), at(2)).contains("password="));
        assert_eq!(password_conf("9.3.4", &credentials()), "");
        assert_eq!(password_conf("10.0.0", &credentials()), "");
        assert!(password_conf("9.2.3", &credentials()).contains("pg.readonly.password=canary\n"));
    }

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(parse_version("9.3.4"), Some((9, 3, 4)));
        assert_eq!(parse_version("9.10.0-SNAPSHOT"), Some((9, 10, 0)));
        assert!(parse_version("9.10.0") > parse_version("9.3.4"));
        for text in ["", "9", "9.3", "x.y.z", "9.3.x"] {
            assert_eq!(parse_version(text), None, "{text}");
        }
    }

    #[test]
    fn the_server_listens_on_loopback_only() {
        assert_eq!(listen_address("k", "localhost:0").unwrap().to_string(), "127.0.0.1:0");
        assert_eq!(listen_address("k", "127.0.0.2:9000").unwrap().port(), 9000);
        for text in ["0.0.0.0:9000", "10.0.0.1:9000", "[::1]:9000", "db:9000", "9000", ""] {
            let error = listen_address("questdb.http", text).unwrap_err();
            assert!(error.starts_with("questdb.http = "), "{text}: {error}");
        }
    }

    #[test]
    fn java_gets_what_its_version_understands() {
        let java = |major| Java { program: "java".into(), major, version: String::new() };
        let installed = |major| Installed {
            jar: Some("/a/questdb.jar".into()),
            java: java(major),
            version: "9.3.4".to_owned(),
            source: "cache",
        };
        let folders =
            Folders { root: "/d/root".into(), log: "/d/log".into(), temporary: "/d/tmp".into() };
        let text = |major| {
            let arguments = arguments(&config(), &installed(major), &folders, &Startup::Plain);
            arguments.join(&OsString::from(" ")).into_string().unwrap()
        };
        assert!(!text(17).contains("native-access"));
        assert!(text(25).contains("--enable-native-access=io.questdb"));
        assert!(text(17).contains("-Xmx256m"));
        let end = "-p /a/questdb.jar -m io.questdb/io.questdb.ServerMain -d /d/root";
        assert!(text(17).ends_with(end), "{}", text(17));
    }
}

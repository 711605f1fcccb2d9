//! `periscope compose`: a Compose file for those who want containers. All three containers use the
//! host's network and listen on loopback, as without containers: daemons of the host can be polled, and
//! nothing is open to others.

use std::fmt::Write as _;

use super::exit::Exit;
use super::output;
use crate::config::defaults;
use crate::supervise::questdb::server_conf_at;

pub(super) fn compose() -> anyhow::Result<Exit> {
    output::line(text().trim_end());
    Ok(Exit::Done)
}

/// Returns the file.
fn text() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (questdb, grafana) = (defaults::QUESTDB_VERSION, defaults::GRAFANA_VERSION);
    let address = defaults::GRAFANA_ADDRESS;
    let (http, port) = (address.ip(), address.port());
    let heap = defaults::QUESTDB_MEMORY / 1_000_000;
    let settings = questdb_environment();
    format!(
        "# periscope, QuestDB and Grafana in containers, for Linux. Beside it a file .env, mode 0600:\n\
         #   QUESTDB_PASSWORD=…   GRAFANA_PASSWORD=…   (each: openssl rand -hex 24)\n\
         # Your periscope.toml, with the daemons, lies in ./periscope/.\n\
         # The image: docker build -t periscope:{version} .   Start: docker compose up -d\n\
         name: periscope\n\
         \n\
         x-periscope: &periscope\n\
         \x20 image: periscope:{version}\n\
         \x20 network_mode: host\n\
         \x20 user: \"10001:10001\"\n\
         \x20 read_only: true\n\
         \x20 tmpfs: [/tmp]\n\
         \x20 cap_drop: [ALL]\n\
         \x20 security_opt: [\"no-new-privileges:true\"]\n\
         \x20 volumes:\n\
         \x20   - ./periscope:/etc/periscope:ro\n\
         \x20   - periscope:/var/lib/periscope\n\
         \x20 environment:\n\
         \x20   PERISCOPE_QUESTDB__MODE: remote\n\
         \x20   PERISCOPE_QUESTDB__USER: periscope\n\
         \x20   PERISCOPE_QUESTDB__PASSWORD: ${{QUESTDB_PASSWORD:?set it in .env}}\n\
         \x20   PERISCOPE_GRAFANA__MODE: remote\n\
         \x20   PERISCOPE_GRAFANA__URL: http://{address}\n\
         \x20   PERISCOPE_GRAFANA__USER: admin\n\
         \x20   PERISCOPE_GRAFANA__PASSWORD: ${{GRAFANA_PASSWORD:?set it in .env}}\n\
         \n\
         services:\n\
         \x20 questdb:\n\
         \x20   image: questdb/questdb:{questdb}\n\
         \x20   network_mode: host\n\
         \x20   restart: unless-stopped\n\
         \x20   stop_grace_period: 30s\n\
         \x20   mem_limit: {memory}m\n\
         \x20   ulimits: {{nofile: 1048576}}\n\
         \x20   security_opt: [\"no-new-privileges:true\"]\n\
         \x20   volumes: [\"questdb:/var/lib/questdb\"]\n\
         \x20   environment:\n\
         \x20     JVM_PREPEND: -Xmx{heap}m\n\
         {settings}\
         \x20 grafana:\n\
         \x20   image: grafana/grafana-oss:{grafana}\n\
         \x20   network_mode: host\n\
         \x20   restart: unless-stopped\n\
         \x20   mem_limit: 512m\n\
         \x20   cap_drop: [ALL]\n\
         \x20   security_opt: [\"no-new-privileges:true\"]\n\
         \x20   volumes: [\"grafana:/var/lib/grafana\"]\n\
         \x20   environment:\n\
         \x20     GF_SERVER_HTTP_ADDR: {http}\n\
         \x20     GF_SERVER_HTTP_PORT: \"{port}\"\n\
         \x20     GF_SECURITY_ADMIN_PASSWORD: ${{GRAFANA_PASSWORD:?set it in .env}}\n\
         \x20     GF_SECURITY_DISABLE_GRAVATAR: \"true\"\n\
         \x20     GF_USERS_ALLOW_SIGN_UP: \"false\"\n\
         \x20     GF_AUTH_ANONYMOUS_ENABLED: \"false\"\n\
         \x20     GF_ANALYTICS_REPORTING_ENABLED: \"false\"\n\
         \x20     GF_ANALYTICS_CHECK_FOR_UPDATES: \"false\"\n\
         \x20     GF_SNAPSHOTS_EXTERNAL_ENABLED: \"false\"\n\
         \x20 periscope:\n\
         \x20   <<: *periscope\n\
         \x20   command: [up, --remote]\n\
         \x20   restart: unless-stopped\n\
         \x20   stop_grace_period: 90s\n\
         \x20   mem_limit: 256m\n\
         \x20 # Brings dashboards, rules and contact points to Grafana once it answers, and ends.\n\
         \x20 dashboards:\n\
         \x20   <<: *periscope\n\
         \x20   command: [grafana, apply]\n\
         \x20   restart: on-failure\n\
         \x20   depends_on: [grafana, periscope]\n\
         \n\
         volumes:\n\
         \x20 periscope:\n\
         \x20 questdb:\n\
         \x20 grafana:\n",
        memory = heap * 3 + 256,
    )
}

/// Returns the settings of a managed QuestDB as the image's variables: `http.user` is `QDB_HTTP_USER`.
fn questdb_environment() -> String {
    let localhost = std::net::Ipv4Addr::LOCALHOST;
    let at = |port| std::net::SocketAddr::new(localhost.into(), port);
    let conf = server_conf_at(at(defaults::QUESTDB_HTTP_PORT), at(defaults::QUESTDB_PG_PORT));
    let mut text = String::new();
    let settings = conf.lines().filter(|line| !line.starts_with('#'));
    // One login for everything: a remote QuestDB has no reader of periscope's.
    for (key, value) in settings.filter_map(|line| line.split_once('=')) {
        if key.starts_with("pg.readonly") {
            continue;
        }
        let name = key.replace('.', "_").to_uppercase();
        // Writing to a String cannot fail.
        let _ignored = writeln!(text, "      QDB_{name}: \"{value}\"");
    }
    for protocol in ["HTTP", "PG"] {
        let password = "${QUESTDB_PASSWORD:?set it in .env}";
        let _ignored = writeln!(text, "      QDB_{protocol}_PASSWORD: {password}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_yaml_ng::Value;

    use super::*;
    use crate::config::load::{Request, load};
    use crate::config::{Mode, Profile};

    fn parsed() -> Value {
        let mut value: Value = serde_yaml_ng::from_str(&text()).unwrap();
        value.apply_merge().unwrap();
        value
    }

    #[test]
    fn every_container_is_pinned_bounded_and_on_loopback() {
        let file = parsed();
        let services = file["services"].as_mapping().unwrap();
        assert_eq!(services.len(), 4);
        for (name, service) in services {
            let image = service["image"].as_str().unwrap();
            let tag = image.rsplit_once(':').unwrap().1;
            assert!(tag.starts_with(|c: char| c.is_ascii_digit()), "{name:?}: {image}");
            assert_eq!(service["network_mode"], Value::from("host"), "{name:?}");
            assert!(service.get("ports").is_none(), "{name:?}");
            assert!(service["security_opt"].is_sequence(), "{name:?}");
        }
        let questdb = &services["questdb"]["environment"];
        assert_eq!(questdb["QDB_HTTP_BIND_TO"], Value::from("127.0.0.1:9000"));
        assert_eq!(questdb["QDB_PG_NET_BIND_TO"], Value::from("127.0.0.1:8812"));
        assert_eq!(questdb["QDB_LINE_TCP_ENABLED"], Value::from("false"));
        assert_eq!(questdb["QDB_HTTP_MIN_ENABLED"], Value::from("false"));
        let grafana = &services["grafana"]["environment"];
        assert_eq!(grafana["GF_SERVER_HTTP_ADDR"], Value::from("127.0.0.1"));
    }

    #[test]
    fn the_settings_of_periscopes_container_are_a_valid_configuration() {
        let file = parsed();
        let variables = file["services"]["periscope"]["environment"].as_mapping().unwrap();
        let mut environment: BTreeMap<String, String> =
            BTreeMap::from([("STATE_DIRECTORY".to_owned(), "/var/lib/periscope".to_owned())]);
        for (name, value) in variables {
            let value = value.as_str().unwrap();
            let value = if value.starts_with("${") { "secret" } else { value };
            environment.insert(name.as_str().unwrap().to_owned(), value.to_owned());
        }
        let request = Request {
            file: None,
            data_dir: None,
            set: Vec::new(),
            remote: true,
            profile: Profile::Up,
            environment,
            directory: "/".into(),
            machine: "test".into(),
            check_rules: None,
        };
        let loaded = load(&request).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        assert_eq!(loaded.config.questdb.mode, Mode::Remote);
        assert_eq!(loaded.config.grafana.url.as_deref(), Some("http://127.0.0.1:3000"));
        assert!(loaded.config.questdb.password.is_some() && loaded.config.grafana.login.is_some());
    }

    #[test]
    fn no_password_stands_in_the_file() {
        for line in text().lines().filter(|line| line.contains("PASSWORD:")) {
            assert!(line.contains("${"), "{line}");
        }
    }
}

//! The folder as a whole: broken files against golden texts, the example file against the defaults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::Problems;
use super::load::{Loaded, Request, load};
use super::notify::Tls;
use super::{Mode, Profile, Source};

/// A request that reads nothing of this machine but `text`, which is in a folder of its own.
struct Case {
    folder: tempfile::TempDir,
    request: Request,
}

impl Case {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("periscope.toml"), text).unwrap();
        let request = Request {
            file: None,
            data_dir: None,
            set: Vec::new(),
            remote: false,
            profile: Profile::Up,
            environment: BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]),
            directory: folder.path().to_owned(),
            machine: "vps-1".to_owned(),
            check_rules: Some(crate::rules::check_written),
        };
        Self { folder, request }
    }

    fn with(mut self, variable: &str, value: &str) -> Self {
        self.request.environment.insert(variable.to_owned(), value.to_owned());
        self
    }

    fn set(mut self, setting: &str) -> Self {
        self.request.set.push(setting.to_owned());
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        load(&self.request)
    }

    #[track_caller]
    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// Every problem or warning as text, without the name of the temporary folder.
    fn text(&self) -> String {
        let text = match self.load() {
            Ok(loaded) => {
                let warnings: Vec<String> =
                    loaded.warnings.iter().map(ToString::to_string).collect();
                warnings.join("\n")
            }
            Err(problems) => problems.to_string(),
        };
        text.replace(&self.folder.path().display().to_string(), "DIR")
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config").join(name)
}

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/periscope.toml");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_fault_of_every_broken_file_is_named() {
    let mut names: Vec<String> = std::fs::read_dir(golden(""))
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .strip_suffix(".toml")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    let mut wrong = Vec::new();
    for name in names {
        let text = std::fs::read_to_string(golden(&format!("{name}.toml"))).unwrap();
        let case = Case::new(&text);
        let problems = case.load().expect_err(&name);
        assert!(problems.has_errors(), "{name}");
        let shown = case.text() + "\n";
        assert!(!shown.contains("canary"), "{name} shows a secret:\n{shown}");
        let expected = golden(&format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &shown).unwrap();
        }
        if std::fs::read_to_string(&expected).ok().as_ref() != Some(&shown) {
            wrong.push(format!("{name}:\n{shown}"));
        }
    }
    assert!(wrong.is_empty(), "run with UPDATE_GOLDEN=1 and look:\n{}", wrong.join("\n"));
}

#[test]
fn the_example_as_it_stands_is_the_defaults() {
    let (example, empty) = (Case::new(&example()), Case::new(""));
    assert_eq!(example.text(), "");
    assert_eq!(format!("{:#?}", example.loaded().config), format!("{:#?}", empty.loaded().config));
}

#[test]
fn the_lines_of_the_example_that_show_defaults_show_the_defaults() {
    let mut keys = 0;
    let mut uncommented = String::new();
    for line in example().lines() {
        let shown = line.strip_prefix('#').filter(|rest| rest.starts_with(char::is_alphabetic));
        keys += usize::from(shown.is_some());
        uncommented.push_str(shown.unwrap_or(line));
        uncommented.push('\n');
    }
    assert!(keys >= 20, "only {keys} defaults are shown");
    let (example, empty) = (Case::new(&uncommented), Case::new(""));
    assert_eq!(example.text(), "");
    assert_eq!(format!("{:#?}", example.loaded().config), format!("{:#?}", empty.loaded().config));
}

/// Writes an unknown key into every section: the answer lists the known ones.
#[test]
fn the_example_names_every_key() {
    let example = example();
    let sections = [
        "[node]",
        "[listen]",
        "[questdb]",
        "[grafana]",
        "[collect]",
        "[[daemon]]",
        "[writer]",
        "[spool]",
        "[alerts]",
        "[[alerts.mute]]",
        "[notify]",
        "[notify.telegram]",
        "[notify.discord]",
        "[notify.email]",
        "[notify.webhook]",
        "[notify.ntfy]",
        "[heartbeat]",
    ];
    let text: String = sections.iter().map(|header| format!("{header}\nqqq = 1\n")).collect();
    let problems = Case::new(&text).load().unwrap_err();
    let mut checked = 0;
    for problem in problems.all().iter().filter(|problem| problem.path.ends_with(".qqq")) {
        let section = problem.path.split(['.', '[']).next().unwrap();
        let known = problem.hint.as_ref().unwrap().strip_prefix("known: ").unwrap();
        for key in known.split(", ") {
            let start = [
                format!("#{key} = "),
                format!("# {key} = "),
                format!("# [{section}.{key}]"),
                format!("# [[{section}.{key}]]"),
            ];
            let shown = example.lines().any(|line| start.iter().any(|s| line.starts_with(s)));
            assert!(shown, "[{section}] {key} is not in the example");
            checked += 1;
        }
    }
    assert!(checked >= 35, "only {checked} keys");
}

#[test]
fn the_commented_examples_are_valid_when_taken_alone() {
    let mut text = String::new();
    for line in example().lines() {
        let body = line.strip_prefix("# ").unwrap_or(line);
        let header = body.starts_with('[');
        let setting = body.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        if header || setting {
            text.push_str(body.replace("/etc/periscope/", "").as_str());
            text.push('\n');
        }
    }
    let remote = text.replace("[questdb]", "[questdb]\nmode = \"remote\"");
    let remote = remote.replace("[grafana]", "[grafana]\nmode = \"remote\"");
    let case = Case::new(&remote)
        .with("BOT_TOKEN", "t")
        .with("TELEGRAM_BOT_TOKEN", "1:a")
        .with("DISCORD_WEBHOOK_URL", "https://discord.example.org/api/webhooks/1/a");
    for name in [
        "token",
        "questdb-password",
        "freqtrade-password",
        "maker-password",
        "grafana-token",
        "smtp-password",
    ] {
        use std::os::unix::fs::PermissionsExt as _;
        let path = case.folder.path().join(name);
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = case.text();
    // What is left are paths that only exist on the machine of the example.
    for line in text.lines().filter(|line| !line.starts_with("    ")) {
        assert!(line.contains(" does not exist"), "{text}");
    }
}

#[test]
fn dev_differs_in_defaults_only() {
    let mut case = Case::new("[writer]\nflush_interval = \"3s\"\n");
    case.request.profile = Profile::Dev;
    let config = case.loaded().config;
    assert_eq!(config.data_dir, case.folder.path().join(".periscope"));
    assert_eq!(config.collect.interval, Duration::from_secs(1));
    assert_eq!(config.writer.flush_interval, Duration::from_secs(3));
    case.request.set.push("node.env=prod".to_owned());
    assert_eq!(case.loaded().config.node.env, "prod");
}

#[test]
fn the_file_is_found_in_the_agreed_order() {
    let case = Case::new("[node]\nhost = \"here\"\n");
    let host = |case: &Case| case.loaded().config.node.host;
    assert_eq!(host(&case), "here");
    std::fs::write(case.folder.path().join("named.toml"), "[node]\nhost = \"named\"\n").unwrap();
    let mut case = case.with("PERISCOPE_CONFIG", "named.toml");
    assert_eq!(host(&case), "named");
    std::fs::write(case.folder.path().join("option.toml"), "[node]\nhost = \"option\"\n").unwrap();
    case.request.file = Some("option.toml".into());
    assert_eq!(host(&case), "option");
    case.request.file = Some("missing.toml".into());
    assert!(case.text().starts_with("--config: there is no file DIR/missing.toml"));
    std::fs::remove_file(case.folder.path().join("periscope.toml")).unwrap();
    std::fs::create_dir_all(case.folder.path().join("xdg/periscope")).unwrap();
    let home = case.folder.path().join("xdg");
    let text = "[node]\nhost = \"home\"\n";
    std::fs::write(home.join("periscope/periscope.toml"), text).unwrap();
    case.request.file = None;
    case.request.environment.remove("PERISCOPE_CONFIG");
    let case = case.with("XDG_CONFIG_HOME", &home.display().to_string());
    assert_eq!(host(&case), "home");
}

#[test]
fn the_data_folder_follows_option_systemd_and_xdg() {
    let mut case = Case::new("");
    let data = |case: &Case| case.loaded().config.data_dir;
    assert_eq!(data(&case), Path::new("/home/me/.local/share/periscope"));
    case = case.with("XDG_DATA_HOME", "/xdg");
    assert_eq!(data(&case), Path::new("/xdg/periscope"));
    case = case.with("STATE_DIRECTORY", "/var/lib/periscope:/var/lib/other");
    assert_eq!(data(&case), Path::new("/var/lib/periscope"));
    case.request.data_dir = Some("here".into());
    assert_eq!(data(&case), case.folder.path().join("here"));
    let mut case = Case::new("");
    case.request.environment.clear();
    assert!(case.text().contains("there is no data folder"), "{}", case.text());
}

#[test]
fn environment_and_set_are_named_as_the_place() {
    let case = Case::new("[collect]\ninterval = \"5s\"\n")
        .with("PERISCOPE_COLLECT__INTERVAL", "5")
        .with("PERISCOPE_QUESTDB__HTP", "x")
        .set("spool.max_bytes=1Gb")
        .set("spool.min_free=none");
    assert_eq!(
        case.text(),
        "environment PERISCOPE_QUESTDB__HTP: questdb.htp: unknown key\n    \
         did you mean \"http\"?\n\
         environment PERISCOPE_COLLECT__INTERVAL: collect.interval: \"5\" has no unit\n    \
         write a whole number and ms, s, m, h or d, such as \"5s\"\n\
         --set: spool.min_free: \"none\" is no size\n    \
         write a whole number and B, kB, MB, GB, KiB, MiB or GiB, such as \"256MB\""
    );
}

#[test]
fn a_port_alone_replaces_the_port() {
    let case = Case::new("").with("PERISCOPE_QUESTDB__HTTP_PORT", "9001").set("questdb.pg_port=0");
    let questdb = case.loaded().config.questdb;
    assert_eq!([questdb.http.as_str(), &questdb.pg], ["127.0.0.1:9001", "127.0.0.1:0"]);
    let case = Case::new("").set("questdb.http=127.0.0.1:auto").set("listen.address='[::1]:auto'");
    let config = case.loaded().config;
    assert_eq!(config.questdb.http, "127.0.0.1:0");
    assert_eq!(config.listen.address.to_string(), "[::1]:0");
}

#[test]
fn remote_servers_have_base_urls() {
    let mut case = Case::new("[questdb]\nhttp = \"https://db.example.org/q/\"\n");
    case.request.remote = true;
    let config = case.loaded().config;
    assert_eq!(config.questdb.mode, Mode::Remote);
    assert_eq!(config.questdb.http, "https://db.example.org/q");
    assert_eq!(config.questdb.pg, "db.example.org:8812");
    assert_eq!(config.grafana.url.as_deref(), Some("http://127.0.0.1:3000"));
    let case = Case::new("[questdb]\nmode = \"remote\"\nhttp = \"127.0.0.1:9100\"\n");
    assert_eq!(case.loaded().config.questdb.http, "http://127.0.0.1:9100");
    let far = "[questdb]\nmode = \"remote\"\nhttp = \"10.0.0.1:9000\"\ninsecure = true\n";
    assert_eq!(Case::new(far).loaded().config.questdb.http, "http://10.0.0.1:9000");
}

#[test]
fn daemons_are_read_with_their_secrets_as_headers() {
    let text = "[collect]\ninterval = \"30s\"\n\
                [[daemon]]\nname = \"a\"\n\
                [[daemon]]\nname = \"b\"\nsource = \"http\"\nurl = \"http://127.0.0.1:1/s?x=1\"\n\
                interval = \"2s\"\ntoken = { env = \"T\" }\n\
                [[daemon]]\nname = \"c\"\nsource = \"http\"\nurl = \"http://[::1]\"\n\
                timeout = \"30s\"\nuser = \"me\"\npassword = { env = \"T\" }\n\
                [[daemon]]\nname = \"d\"\nsource = \"push\"\n\
                [[daemon]]\nname = \"e\"\nsource = \"push\"\ninterval = \"10s\"\n";
    let loaded = Case::new(text).with("T", "canary").loaded();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(!format!("{loaded:?}").contains("canary"));
    let [a, b, c, d, e] = loaded.config.daemons.as_slice() else { panic!("{loaded:?}") };
    assert_eq!([&d.source, &e.source], [&Source::Push; 2]);
    assert_eq!([d.interval, e.interval].map(|time| time.as_secs()), [60, 10]);
    assert_eq!((&a.source, a.interval), (&Source::Shim, Duration::from_secs(30)));
    assert_eq!([a.timeout, b.timeout, c.timeout].map(|t| t.as_secs()), [5, 1, 30]);
    let header = |source: &Source| {
        let Source::Http { url, authorization, .. } = source else { panic!("{source:?}") };
        (url.clone(), authorization.as_ref().unwrap().reveal().to_owned())
    };
    let bearer = ("http://127.0.0.1:1/s?x=1".to_owned(), "Bearer canary".to_owned());
    assert_eq!(header(&b.source), bearer);
    // "me:canary" in base64.
    assert_eq!(header(&c.source), ("http://[::1]/".to_owned(), "Basic bWU6Y2FuYXJ5".to_owned()));
}

#[test]
fn every_source_has_its_keys() {
    let text = "[[daemon]]\nname = \"a\"\nsource = \"websocket\"\nurl = \"wss://[::1]:1/s?k=1\"\n\
                subscribe = \"hello\"\n\
                [[daemon]]\nname = \"b\"\nsource = \"exec\"\ncommand = [\"/bin/b\", \"-j\"]\n\
                [[daemon]]\nname = \"c\"\nsource = \"file\"\npath = \"c.json\"\n\
                [[daemon]]\nname = \"d\"\nsource = \"file\"\npath = \"/d\"\ninterval = \"1m\"\n\
                [[daemon]]\nname = \"e\"\nsource = \"socket\"\npath = \"/e\"\n";
    let case = Case::new(text);
    let sources: Vec<Source> =
        case.loaded().config.daemons.into_iter().map(|daemon| daemon.source).collect();
    let stale =
        |path: PathBuf, seconds| Source::File { path, stale_after: Duration::from_secs(seconds) };
    let expected = [
        Source::Websocket {
            url: "wss://[::1]:1/s?k=1".to_owned(),
            authorization: None,
            subscribe: Some("hello".to_owned()),
        },
        Source::Exec { command: vec!["/bin/b".to_owned(), "-j".to_owned()] },
        stale(case.folder.path().join("c.json"), 15),
        stale("/d".into(), 180),
        Source::Socket { path: "/e".into(), request: "/status".to_owned() },
    ];
    assert_eq!(sources, expected);
}

#[test]
fn alerts_and_channels_are_read() {
    let text = "[alerts]\nevaluation_interval = \"20s\"\n[[alerts.rule]]\nid = \"disk_low\"\n\
                severity = \"critical\"\nthreshold = 3\n[[alerts.mute]]\nfrom = \"22:30\"\n\
                to = \"07:00\"\ndays = [\"sun\"]\n[notify.telegram]\ntoken = { env = \"T\" }\n\
                chat_id = -100\n[notify.email]\nserver = \"smtps://[::1]\"\nfrom = \"a@b\"\n\
                to = [\"c@d\"]\n[heartbeat]\nurls = [\"https://hc.example.org/canary\"]\n";
    let config = Case::new(text).with("T", "1:canary").loaded().config;
    assert_eq!(config.alerts.evaluation_interval, Duration::from_secs(20));
    assert_eq!(config.alerts.rules[0]["threshold"], toml::Value::Integer(3));
    let [mute] = config.alerts.mutes.as_slice() else { panic!("{:?}", config.alerts) };
    assert_eq!((mute.days.as_slice(), mute.from, mute.to), ([6].as_slice(), 22 * 60 + 30, 420));
    let telegram = config.notify.telegram.as_ref().unwrap();
    assert_eq!((telegram.chat_id, telegram.token.reveal()), (-100, "1:canary"));
    let email = config.notify.email.as_ref().unwrap();
    assert_eq!((email.host.as_str(), email.port, email.tls), ("[::1]", 465, Tls::Implicit));
    assert_eq!(config.heartbeat.urls[0].reveal(), "https://hc.example.org/canary");
    assert!(!format!("{config:?}").contains("canary"));
}

#[test]
fn files_of_other_systems_load() {
    let text = "\u{feff}[node]\r\nhost = \"crlf\"\r\n[retention]\r\ndefault = \"30d\"\r\n";
    let config = Case::new(text).loaded().config;
    assert_eq!(config.node.host, "crlf");
    assert_eq!(config.retention.default_days, Some(30));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    /// Whatever stands in the file, the environment and on the command line: an answer, no panic.
    #[test]
    fn nothing_that_is_written_makes_it_panic(
        key in "(node|listen|questdb|grafana|daemon|retention|spool|x)(__|\\.|\\[)?[a-z0-9_\\[\\].]{0,8}",
        value in "\\PC{0,12}|[0-9]{1,20}(ms|s|GiB|d)?|\\{ *(env|file) *= *\"x\" *\\}|https?://\\PC{0,12}",
    ) {
        let toml = format!("{key} = {value}\n[questdb]\nhttp = {value:?}\n[[daemon]]\nname = \"a\"\nsource = \"http\"\nurl = {value:?}\ninterval = {value:?}");
        let case = Case::new(&toml).with(&format!("PERISCOPE_{key}"), &value).set(&format!("{key}={value}"));
        let _text = case.text();
    }
}

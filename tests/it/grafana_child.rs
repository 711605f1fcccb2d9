//! Grafana as a child, played by a stand-in: starts, refusals, crashes, hangs, orphans, ports. What
//! these tests hold is the supervision; what the real server thinks of the files is not tested here.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use periscope::artifact::grafana::Sources;
use periscope::base::health::{Board, Health, Part};
use periscope::base::http::Client;
use periscope::base::metrics::Metrics;
use periscope::base::secret::Secret;
use periscope::base::time::Clock;
use periscope::config::load::{Request, load};
use periscope::config::{Config, Mode, Profile};
use periscope::grafana::server::live::Live;
use periscope::grafana::server::task::{Options, Setup, run_with};
use periscope::model::server::{Endpoint, Login, Phase, ServerState};
use periscope::rules::catalog;
use periscope::supervise::policy::Limits;
use periscope::supervise::spawner;
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::grafana::StandIn;
use crate::support::periscope::{Periscope, processes_naming, send_signal};
use crate::support::questdb::free_port;
use crate::support::wait::until;

struct Supervised {
    data: tempfile::TempDir,
    stand_in: StandIn,
    config: Config,
    options: Options,
    board: Board,
    metrics: Metrics,
    questdb: watch::Sender<ServerState>,
    stop: CancellationToken,
    state: watch::Receiver<ServerState>,
    live: Option<Live>,
    task: Option<tokio::task::JoinHandle<()>>,
}

fn questdb(pg: &str) -> ServerState {
    let login = Login { user: "reader".to_owned(), password: Secret::new("canary-reader") };
    let endpoint = Endpoint {
        http: "http://127.0.0.1:9000".to_owned(),
        pg: pg.to_owned(),
        database: "qdb".to_owned(),
        admin: None,
        reader: Some(login),
    };
    ServerState { phase: Phase::Ready, endpoint: Some(endpoint), ..ServerState::absent() }
}

fn config(data: &Path, home: &Path) -> Config {
    let request = Request {
        file: None,
        data_dir: Some(data.to_owned()),
        set: vec![
            format!("grafana.home=\"{}\"", home.display()),
            "grafana.address=\"127.0.0.1:0\"".to_owned(),
        ],
        remote: false,
        profile: Profile::Up,
        environment: Default::default(),
        directory: data.to_owned(),
        machine: "machine".to_owned(),
        check_rules: None,
    };
    load(&request).unwrap_or_else(|problems| panic!("{problems}")).config
}

impl Supervised {
    fn new() -> Self {
        let data = tempfile::Builder::new().prefix("periscope-grafana-data-").tempdir().unwrap();
        let stand_in = StandIn::new();
        Self {
            config: config(data.path(), &stand_in.home()),
            data,
            stand_in,
            options: Options::default(),
            board: Board::new(Clock::system()),
            metrics: Metrics::new(),
            questdb: watch::channel(questdb("127.0.0.1:8812")).0,
            stop: CancellationToken::new(),
            state: watch::channel(ServerState::absent()).1,
            live: None,
            task: None,
        }
    }

    fn setup(&self) -> Setup {
        Setup {
            config: self.config.clone(),
            rules: catalog::shipped().unwrap(),
            listener: "127.0.0.1:7480".parse().unwrap(),
            questdb: self.questdb.subscribe(),
            board: self.board.clone(),
            metrics: self.metrics.clone(),
            client: Client::new().unwrap(),
            spawner: spawner::start().unwrap(),
            seed: 1,
            live: self.live.clone(),
        }
    }

    fn start(&mut self) {
        assert!(self.task.is_none(), "still running");
        let (sender, receiver) = watch::channel(ServerState::absent());
        self.state = receiver;
        self.stop = CancellationToken::new();
        let (setup, options, stop) = (self.setup(), self.options.clone(), self.stop.clone());
        self.task = Some(periscope::base::tasks::spawn_detached(async move {
            run_with(setup, options, sender, stop).await;
        }));
    }

    fn state(&self) -> ServerState {
        self.state.borrow().clone()
    }

    async fn until_state(
        &self,
        what: &str,
        mut wanted: impl FnMut(&ServerState) -> bool,
    ) -> ServerState {
        until(what, Duration::from_secs(90), || {
            let state = self.state();
            // At every moment: never two servers.
            let servers = self.servers();
            assert!(servers.len() <= 1, "two servers: {servers:?}");
            let found = wanted(&state);
            std::future::ready(if found {
                Ok(state)
            } else {
                Err(format!("{state:?}\n{}", self.log()))
            })
        })
        .await
    }

    async fn ready(&self) -> ServerState {
        self.until_state("grafana to be ready", |state| state.phase == Phase::Ready).await
    }

    async fn stop(&mut self) -> Duration {
        let start = Instant::now();
        self.stop.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("a stop ends").unwrap();
        assert!(self.servers().is_empty(), "left: {:?}", self.servers());
        start.elapsed()
    }

    fn servers(&self) -> Vec<(u32, String)> {
        processes_naming(self.data.path())
            .into_iter()
            .filter(|(_, command)| command.contains("bin/grafana"))
            .collect()
    }

    fn file(&self, path: &str) -> String {
        fs::read_to_string(self.data.path().join("grafana").join(path)).unwrap_or_default()
    }

    fn log(&self) -> String {
        self.file("log/grafana.log")
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- state {:?}\n--- log of the stand-in\n{}", self.state(), self.log());
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
        for (pid, _) in processes_naming(self.data.path()) {
            send_signal(pid, Signal::KILL);
        }
    }
}

#[tokio::test]
async fn it_starts_with_its_files_a_password_of_its_own_and_a_clean_environment() {
    let mut supervised = Supervised::new();
    supervised.start();
    let state = supervised.ready().await;
    assert_eq!(state.version.as_deref(), Some("12.4.2"));
    assert_eq!(supervised.board.get(Part::Grafana), Some(Health::Ok));
    // The first start on an empty database needs the alerts to be read again, and only that one.
    let reload = "POST /api/admin/provisioning/alerting/reload";
    assert_eq!(supervised.stand_in.requests().matches(reload).count(), 1);
    let rules = supervised.file("conf/provisioning/alerting/rules.yaml");
    assert!(rules.contains("uid: \"periscope-daemon-down-critical\""), "{rules}");
    let contacts = supervised.file("conf/provisioning/alerting/contact-points.yaml");
    assert_eq!(contacts.matches("type: ").count(), 1, "the webhook alone: {contacts}");
    assert!(contacts.contains("http://127.0.0.1:7480/grafana/webhook"), "{contacts}");
    let source = supervised.file("conf/provisioning/datasources/periscope.yaml");
    assert!(source.contains("url: \"127.0.0.1:8812\""), "{source}");
    assert!(supervised.file("conf/dashboards/Trading/health.json").contains("periscope-health"));
    // Secrets: in files of mode 0600, and nowhere that others can read.
    let secrets = periscope::supervise::secrets::GrafanaSecrets::load(supervised.data.path());
    let secrets = secrets.unwrap();
    let pid = state.pid.unwrap();
    let proc_text = |file: &str| {
        String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned()
    };
    for secret in [secrets.admin.password.reveal(), secrets.secret_key.reveal(), "canary-reader"] {
        for text in [proc_text("cmdline"), proc_text("environ"), supervised.log(), source.clone()] {
            assert!(!text.contains(secret), "a secret is public");
        }
        assert!(!supervised.file("conf/grafana.ini").contains(secret), "a secret is public");
    }
    let environment = supervised.stand_in.environment();
    for name in environment.as_object().unwrap().keys() {
        let allowed = ["PATH", "LANG", "TZ", "HOME", "PERISCOPE_INSTANCE", "LC_CTYPE", "PWD"];
        assert!(allowed.contains(&name.as_str()), "inherited: {name}");
    }
    assert_eq!(proc_text("oom_score_adj").trim(), "700");
    let metrics = supervised.metrics.render().unwrap();
    assert!(metrics.contains("periscope_child_ready{child=\"grafana\"} 1"), "{metrics}");
    supervised.stop().await;
    assert_eq!(supervised.state().phase, Phase::Absent);
    // The second start: same password, no reload.
    supervised.start();
    supervised.ready().await;
    assert_eq!(supervised.stand_in.requests().matches(reload).count(), 1);
    supervised.stop().await;
}

#[tokio::test]
async fn alert_files_that_it_refuses_are_left_out_once_and_that_is_said() {
    let mut supervised = Supervised::new();
    supervised.stand_in.behave(&json!({"refuse": "daemon_down"}));
    supervised.start();
    let state = supervised.ready().await;
    assert!(state.reason.contains("runs without them"), "{}", state.reason);
    assert!(state.reason.contains("daemon_down is not wanted here"), "{}", state.reason);
    let told = supervised.board.get(Part::Grafana);
    assert!(matches!(told, Some(Health::Degraded { .. })), "{told:?}");
    assert_eq!(supervised.file("conf/provisioning/alerting/rules.yaml"), "");
    assert!(!supervised.stand_in.requests().contains("alerting/reload"));
    supervised.stop().await;
    // periscope starts again with the cause gone: all files are back.
    supervised.stand_in.behave(&json!({}));
    supervised.start();
    assert_eq!(supervised.ready().await.reason, "");
    assert_ne!(supervised.file("conf/provisioning/alerting/rules.yaml"), "");
    supervised.stop().await;
}

#[tokio::test]
async fn what_it_refuses_besides_alerts_is_told_in_its_words() {
    let mut supervised = Supervised::new();
    supervised.stand_in.behave(&json!({"refuse": "QuestDB (periscope)"}));
    supervised.options.limits.pause_limit = Duration::from_millis(300);
    supervised.start();
    let state = supervised
        .until_state("broken", |state| state.phase == Phase::Broken && state.restarts >= 9)
        .await;
    assert!(state.reason.contains("QuestDB (periscope) is not wanted here"), "{}", state.reason);
    supervised.stop().await;
}

#[tokio::test]
async fn rules_and_contact_points_that_are_gone_are_deleted() {
    let mut supervised = Supervised::new();
    let telegram = periscope::config::notify::Telegram {
        token: Secret::new("1:canary-telegram"),
        chat_id: 1,
        api_url: "https://api.telegram.org".to_owned(),
    };
    supervised.config.notify.telegram = Some(telegram);
    supervised.start();
    supervised.ready().await;
    supervised.stop().await;
    supervised.config.notify.telegram = None;
    supervised.start();
    supervised.ready().await;
    let contacts = supervised.file("conf/provisioning/alerting/contact-points.yaml");
    let (_, deleted) = contacts.split_once("deleteContactPoints:").expect("something is deleted");
    assert!(deleted.contains("\"periscope-critical-telegram\""), "{deleted}");
    supervised.stop().await;
    // Once it has been read, nothing is left to delete.
    supervised.start();
    supervised.ready().await;
    let contacts = supervised.file("conf/provisioning/alerting/contact-points.yaml");
    assert!(!contacts.contains("deleteContactPoints"), "{contacts}");
    supervised.stop().await;
}

#[tokio::test]
async fn a_killed_one_comes_back() {
    let mut supervised = Supervised::new();
    supervised.start();
    let before = supervised.ready().await;
    for round in 1..=3 {
        let state = supervised.ready().await;
        send_signal(state.pid.unwrap(), Signal::KILL);
        let state = supervised
            .until_state("a new one", |now| {
                now.phase == Phase::Ready && now.generation > state.generation
            })
            .await;
        assert_eq!(state.restarts, round);
        assert_eq!(state.endpoint, before.endpoint, "port 0 keeps its port over restarts");
    }
    supervised.stop().await;
}

#[tokio::test]
async fn a_crash_loop_is_broken_with_its_last_words_and_mending_it_is_enough() {
    let mut supervised = Supervised::new();
    supervised.stand_in.behave(&json!({"crash": 3}));
    supervised.options.limits = Limits {
        pause_limit: Duration::from_millis(300),
        broken_pause: Duration::from_secs(2),
        ..Limits::default()
    };
    supervised.start();
    let state = supervised.until_state("broken", |state| state.phase == Phase::Broken).await;
    assert!(state.reason.contains("exit code 3"), "{}", state.reason);
    assert!(state.reason.contains("stand-in crashes as told"), "{}", state.reason);
    supervised.stand_in.behave(&json!({}));
    supervised.ready().await;
    supervised.stop().await;
}

#[tokio::test]
async fn one_that_hangs_is_unhealthy_first_and_then_restarted() {
    let mut supervised = Supervised::new();
    supervised.options.limits = Limits {
        probe_interval: Duration::from_millis(200),
        probe: Duration::from_secs(2),
        unhealthy: Duration::from_secs(5),
        stop_hung: Duration::from_secs(1),
        ..Limits::default()
    };
    supervised.start();
    let before = supervised.ready().await;
    send_signal(before.pid.unwrap(), Signal::STOP);
    supervised.until_state("unhealthy", |state| state.phase == Phase::Unhealthy).await;
    let after = supervised
        .until_state("a new one", |state| {
            state.phase == Phase::Ready && state.generation > before.generation
        })
        .await;
    assert_ne!(after.pid, before.pid);
    // A database that does not work is the same as no answer.
    supervised.stand_in.behave(&json!({"unhealthy": true}));
    supervised.until_state("unhealthy", |state| state.phase == Phase::Unhealthy).await;
    supervised.stand_in.behave(&json!({}));
    supervised.ready().await;
    supervised.stop().await;
}

#[tokio::test]
async fn a_slow_start_is_waited_for_and_a_stop_in_it_leaves_nothing() {
    let mut supervised = Supervised::new();
    supervised.stand_in.behave(&json!({"start_seconds": 5}));
    supervised.start();
    supervised.until_state("a pid", |state| state.pid.is_some()).await;
    assert_eq!(supervised.state().phase, Phase::Starting);
    supervised.stop().await;
    supervised.start();
    supervised.ready().await;
    supervised.stop().await;
}

#[tokio::test]
async fn one_that_ignores_the_stop_is_killed_within_the_limit() {
    let mut supervised = Supervised::new();
    supervised.stand_in.behave(&json!({"ignore_term": true}));
    supervised.options.limits.stop = Duration::from_secs(1);
    supervised.start();
    let state = supervised.ready().await;
    supervised.stop().await;
    assert!(!Path::new(&format!("/proc/{}/exe", state.pid.unwrap())).exists());
}

#[tokio::test]
async fn the_one_of_a_killed_owner_is_ended_before_the_next_start() {
    let mut supervised = Supervised::new();
    // As a killed periscope leaves it behind: with its mark, and no parent that knows it.
    let mut orphan = std::process::Command::new("/bin/sh")
        .args(["-c", "exec sleep 600 # bin/grafana"])
        .env(spawner::OWNER, supervised.data.path().join("grafana"))
        .spawn()
        .unwrap();
    supervised.start();
    supervised.until_state("the end of the orphan", |_| orphan.try_wait().unwrap().is_some()).await;
    supervised.ready().await;
    supervised.stop().await;
}

#[tokio::test]
async fn a_taken_port_names_its_holder_and_dev_takes_another() {
    let mut supervised = Supervised::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    supervised.config.grafana.address = address.to_string();
    supervised.start();
    let state = supervised.until_state("its name", |state| state.phase == Phase::Backoff).await;
    let expected = format!("port {} (grafana.address) is taken by ", address.port());
    assert!(state.reason.starts_with(&expected), "{}", state.reason);
    assert!(state.reason.ends_with("; stop it or set grafana.address"), "{}", state.reason);
    drop(listener);
    supervised.ready().await;
    supervised.stop().await;
    let listener = TcpListener::bind(address).unwrap();
    supervised.config.profile = Profile::Dev;
    supervised.start();
    let state = supervised.ready().await;
    assert_ne!(state.endpoint.unwrap().http, format!("http://{address}"));
    supervised.stop().await;
    drop(listener);
}

#[tokio::test]
async fn none_to_be_had_is_told_once_with_the_remedy() {
    let mut supervised = Supervised::new();
    supervised.config.grafana.home = None;
    supervised.options.sources =
        Sources { releases: "http://127.0.0.1:1".to_owned(), ..Sources::default() };
    supervised.options.limits.broken_pause = Duration::from_millis(50);
    let mut changes = supervised.board.watch();
    supervised.start();
    let state = supervised.until_state("broken", |state| state.phase == Phase::Broken).await;
    for words in ["official archive", "grafana.home", "grafana.mode = \"off\"", "works without it"]
    {
        assert!(state.reason.contains(words), "{words}: {}", state.reason);
    }
    changes.mark_unchanged();
    // Many tries later nothing new has been said.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!changes.has_changed().unwrap(), "{:?}", supervised.board.get(Part::Grafana));
    // A home that appears is used at the next try.
    supervised.stop().await;
}

#[tokio::test]
async fn a_home_without_the_program_is_named() {
    let mut supervised = Supervised::new();
    let empty = supervised.data.path().join("empty");
    fs::create_dir(&empty).unwrap();
    supervised.config.grafana.home = Some(empty);
    supervised.start();
    let state = supervised.until_state("broken", |state| state.phase == Phase::Broken).await;
    assert!(state.reason.contains("grafana.home = "), "{}", state.reason);
    assert!(state.reason.contains("holds no bin/grafana"), "{}", state.reason);
    supervised.stop().await;
}

#[tokio::test]
async fn a_well_known_password_is_refused_and_a_lost_one_is_named() {
    let mut supervised = Supervised::new();
    supervised.stand_in.behave(&json!({"open": true}));
    supervised.start();
    let state = supervised.until_state("broken", |state| state.phase == Phase::Broken).await;
    assert!(state.reason.contains("the password that everybody knows"), "{}", state.reason);
    supervised.stop().await;
    supervised.stand_in.behave(&json!({"locked": true}));
    supervised.start();
    let state = supervised.ready().await;
    assert!(state.reason.contains("reset-admin-password"), "{}", state.reason);
    supervised.stop().await;
}

#[tokio::test]
async fn a_database_that_moves_is_told_to_it() {
    let mut supervised = Supervised::new();
    supervised.options.limits.probe_interval = Duration::from_millis(100);
    supervised.questdb = watch::channel(ServerState::absent()).0;
    supervised.start();
    supervised
        .until_state("waiting", |state| state.reason.contains("until questdb has an address"))
        .await;
    supervised.questdb.send_replace(questdb("127.0.0.1:8812"));
    let before = supervised.ready().await;
    supervised.questdb.send_replace(questdb("127.0.0.1:8999"));
    until("the reload", Duration::from_secs(30), || async {
        let requests = supervised.stand_in.requests();
        if requests.contains("datasources/reload") { Ok(()) } else { Err(requests) }
    })
    .await;
    let source = supervised.file("conf/provisioning/datasources/periscope.yaml");
    assert!(source.contains("url: \"127.0.0.1:8999\""), "{source}");
    assert_eq!(supervised.ready().await.generation, before.generation, "no restart for that");
    supervised.stop().await;
}

/// The dev loop: dashboards are written anew, rules are read again, and mistakes change nothing.
#[tokio::test]
async fn edited_dashboards_and_rules_are_brought_to_it_while_it_runs() {
    let mut supervised = Supervised::new();
    supervised.options.limits.probe_interval = Duration::from_millis(100);
    let own = tempfile::tempdir().unwrap();
    let written = own.path().join("periscope.toml");
    fs::write(&written, "999").unwrap();
    let file = written.clone();
    let rules = move || {
        // The number of rules that there are; anything else is a mistake.
        let text = fs::read_to_string(&file).unwrap();
        let count: usize = text.trim().parse().map_err(|_| format!("{text} is no number"))?;
        Ok(catalog::shipped().unwrap().into_iter().take(count).collect())
    };
    supervised.live = Some(Live {
        dashboards: own.path().join("dashboards"),
        config: Some(written.clone()),
        rules: Arc::new(rules),
    });
    supervised.start();
    let before = supervised.ready().await;
    let reload = "POST /api/admin/provisioning/alerting/reload";
    let reloads = |supervised: &Supervised| supervised.stand_in.requests().matches(reload).count();
    let contains = async |path: &str, words: &str| {
        until(words, Duration::from_secs(30), || async {
            let text = supervised.file(path);
            if text.contains(words) { Ok(()) } else { Err(text.len()) }
        })
        .await;
    };
    fs::create_dir(own.path().join("dashboards")).unwrap();
    let mine = "{\"uid\":\"periscope-health\",\"title\":\"Edited\"}\n";
    fs::write(own.path().join("dashboards/health.json"), mine).unwrap();
    contains("conf/dashboards/Trading/health.json", "Edited").await;
    assert_eq!(reloads(&supervised), 1, "no rule has changed since the first start");
    fs::write(&written, "2 ").unwrap();
    contains("conf/provisioning/alerting/deletions.yaml", "periscope-").await;
    until("the reload", Duration::from_secs(30), || async {
        if reloads(&supervised) == 2 { Ok(()) } else { Err(reloads(&supervised)) }
    })
    .await;
    // A mistake leaves the rules as they are, and dashboards go on.
    fs::write(&written, "two").unwrap();
    fs::remove_file(own.path().join("dashboards/health.json")).unwrap();
    contains("conf/dashboards/Trading/health.json", "\"panels\"").await;
    assert_eq!(reloads(&supervised), 2);
    assert_eq!(supervised.ready().await.generation, before.generation, "no restart for that");
    supervised.stop().await;
}

#[tokio::test]
async fn behind_a_proxy_it_is_asked_by_its_public_name() {
    let mut supervised = Supervised::new();
    supervised.config.grafana.url = Some("https://watch.example.org/".to_owned());
    supervised.start();
    supervised.ready().await;
    let requests = supervised.stand_in.requests();
    assert!(requests.contains("GET /api/user watch.example.org"), "{requests}");
    assert!(
        supervised.file("conf/grafana.ini").contains("root_url = https://watch.example.org/\n")
    );
    supervised.stop().await;
}

#[tokio::test]
async fn a_remote_one_is_watched_and_nothing_is_started() {
    let mut own = Supervised::new();
    own.config.grafana.address = format!("127.0.0.1:{}", free_port());
    own.start();
    let running = own.ready().await;
    let mut watching = Supervised::new();
    watching.config.grafana.mode = Mode::Remote;
    watching.config.grafana.url = Some(running.endpoint.unwrap().http);
    watching.options.limits = Limits {
        probe_interval: Duration::from_millis(100),
        blocked_pause: Duration::from_millis(100),
        ..Limits::default()
    };
    watching.start();
    let state = watching.ready().await;
    assert_eq!((state.version.as_deref(), state.pid), (Some("12.4.2"), None));
    own.stop().await;
    let gone = watching.until_state("its absence", |state| state.phase == Phase::Backoff).await;
    assert!(gone.reason.contains("mend [grafana]"), "{}", gone.reason);
    own.start();
    own.ready().await;
    watching.ready().await;
    watching.stop().await;
    own.stop().await;
}

fn offline_request(data: &Path) -> periscope::artifact::grafana::Request {
    periscope::artifact::grafana::Request {
        version: "0.0.1".to_owned(),
        home: None,
        offline: Some(data.join("offline")),
        folder: data.join("artifacts/grafana"),
        sources: Sources { releases: "http://127.0.0.1:1".to_owned(), ..Sources::default() },
    }
}

/// A kill at any moment of an installation leaves nothing half installed, and the next one works.
#[tokio::test]
async fn kills_during_an_installation_leave_nothing_half_installed() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let data = tempfile::tempdir().unwrap();
    let offline = data.path().join("offline");
    fs::create_dir(&offline).unwrap();
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let program: Vec<u8> = (0..16 << 20).map(|_| random.u8(..)).collect();
    let file = fs::File::create(offline.join(format!("grafana_0.0.1_1_linux_{machine}.tar.gz")));
    let gzip = flate2::write::GzEncoder::new(file.unwrap(), flate2::Compression::none());
    let mut builder = tar::Builder::new(gzip);
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len().try_into().unwrap());
    header.set_mode(0o755);
    header.set_cksum();
    let inside = "grafana-0.0.1/bin/grafana";
    builder.append_data(&mut header, inside, program.as_slice()).unwrap();
    builder.into_inner().unwrap().finish().unwrap();
    let installed = data.path().join("artifacts/grafana/grafana-0.0.1");
    let mut interrupted = 0;
    for round in 0..12 {
        let mut installer = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "grafana_child::installer_to_be_killed"])
            .env("PERISCOPE_TEST_OWNER", data.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // An installation takes 50 ms on one machine and a second on another.
        let longest = 50 << (round % 5);
        tokio::time::sleep(Duration::from_millis(random.u64(0..longest))).await;
        interrupted += u32::from(installer.try_wait().unwrap().is_none());
        installer.kill().unwrap();
        installer.wait().unwrap();
        if installed.exists() {
            let whole = fs::read(installed.join("bin/grafana")).unwrap() == program;
            assert!(whole, "round {round}: half installed");
            fs::remove_dir_all(data.path().join("artifacts")).unwrap();
        }
    }
    assert!(interrupted > 0, "no kill came in time");
    let (client, stop) = (Client::new().unwrap(), CancellationToken::new());
    let request = offline_request(data.path());
    periscope::artifact::grafana::acquire(&request, &client, &stop, &|_| {}).await.unwrap();
    assert!(installed.exists());
}

/// No test by itself: the process that the test above kills.
#[tokio::test]
#[ignore = "started by another test"]
async fn installer_to_be_killed() {
    let data = std::env::var_os("PERISCOPE_TEST_OWNER").expect("set by the test that starts it");
    let (client, stop) = (Client::new().unwrap(), CancellationToken::new());
    let request = offline_request(Path::new(&data));
    periscope::artifact::grafana::acquire(&request, &client, &stop, &|_| {}).await.unwrap();
}

/// The whole program with a real database: Grafana reads it, and everybody is told where it is.
#[tokio::test]
async fn up_starts_it_beside_questdb_and_says_where_it_is() {
    let stand_in = StandIn::new();
    let home = format!("grafana.home=\"{}\"", stand_in.home().display());
    let settings = ["grafana.mode=\"managed\"", &home, "grafana.address=\"127.0.0.1:0\""];
    let mut periscope = Periscope::up_set("", &settings);
    let questdb = periscope.ready().await["questdb"]["pg"].as_str().unwrap().to_owned();
    let grafana = until("grafana to be ready", Duration::from_secs(60), || async {
        let grafana = periscope.status().await?["grafana"].clone();
        if grafana["state"] == "ready" { Ok(grafana) } else { Err(grafana.to_string()) }
    })
    .await;
    assert_eq!(grafana["version"], "12.4.2");
    let url = grafana["url"].as_str().unwrap();
    let pid = u32::try_from(grafana["pid"].as_u64().unwrap()).unwrap();
    let conf = periscope.data().join("grafana/conf");
    let source = fs::read_to_string(conf.join("provisioning/datasources/periscope.yaml")).unwrap();
    assert!(source.contains(&format!("url: \"{questdb}\"")), "{questdb}: {source}");
    let listener = periscope.listener().unwrap();
    let contacts = conf.join("provisioning/alerting/contact-points.yaml");
    let contacts = fs::read_to_string(contacts).unwrap();
    assert!(contacts.contains(&format!("{listener}/grafana/webhook")), "{contacts}");
    assert!(periscope.log().contains("  grafana       http://127.0.0.1"), "{}", periscope.log());
    let (code, out, err) = periscope.run(&["credentials"]);
    let password = periscope.data().join("secrets/grafana-admin-password");
    let password = fs::read_to_string(password).unwrap();
    assert!(code == 0 && out.contains(&password) && out.contains("admin"), "{err}");
    let (_, out, _) = periscope.run(&["status"]);
    assert!(out.contains(url), "{out}");
    assert!(!periscope.log().contains(&password), "a password is in the log");
    periscope.signal(Signal::TERM);
    let ended = periscope.ended(Duration::from_secs(60)).await;
    assert!(ended.success(), "{ended}");
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "it still runs");
}

#[tokio::test]
async fn up_without_any_grafana_stores_rows_and_says_what_helps() {
    // No archive is known for that version: nobody is asked.
    let settings = ["grafana.mode=\"managed\"", "grafana.version=\"99.0.0\""];
    let periscope = Periscope::up_set("", &settings);
    let status = periscope.ready().await;
    assert_eq!(status["grafana"]["state"], "broken", "{}", status["grafana"]);
    let reason = status["grafana"]["reason"].as_str().unwrap();
    assert!(reason.contains("99.0.0") && reason.contains("grafana.home"), "{reason}");
    let (_, out, _) = periscope.run(&["status"]);
    assert!(out.contains("set grafana.home"), "{out}");
    let (code, _, err) = periscope.run(&["send", "daemon_metrics", "daemon=d", "fetch_count=1"]);
    assert_eq!(code, 0, "{err}");
    periscope.until_count("select count() from daemon_metrics", |count| count == 1).await;
}

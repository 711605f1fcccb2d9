//! The supervision of `QuestDB` in-process, with real servers: starts, kills, hangs, orphans, ports.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use periscope::artifact::questdb::Sources;
use periscope::base::health::{Board, Health, Part};
use periscope::base::http::{Client, Limits as HttpLimits};
use periscope::base::metrics::Metrics;
use periscope::base::time::Clock;
use periscope::config::{self, Mode, Profile};
use periscope::model::server::{Phase, ServerState};
use periscope::supervise::policy::Limits;
use periscope::supervise::secrets::Credentials;
use periscope::supervise::spawner;
use periscope::supervise::task::{Options, Setup, run_with};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::periscope::{VERSIONS, processes_naming, send_signal};
use crate::support::questdb::{PASSWORD, QuestDb};
use crate::support::wait::until;

/// As the shared helper, which two threads at once would run into each other.
fn questdb_home(version: &str) -> PathBuf {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    crate::support::periscope::questdb_home(version)
}

/// Where another Java may be; `JAVA_25_HOME` names another folder.
fn java_25() -> PathBuf {
    let home = std::env::var_os("JAVA_25_HOME").map_or_else(
        || {
            let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/jvm")
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| {
                    fs::read_to_string(path.join("release"))
                        .is_ok_and(|text| text.contains("JAVA_VERSION=\"25"))
                })
                .collect();
            found.pop().expect("a JDK 25 in /usr/lib/jvm, or set JAVA_25_HOME")
        },
        PathBuf::from,
    );
    assert!(home.join("bin/java").is_file(), "{}", home.display());
    home
}

struct Supervised {
    data: tempfile::TempDir,
    config: config::Questdb,
    profile: Profile,
    options: Options,
    board: Board,
    metrics: Metrics,
    stop: CancellationToken,
    state: watch::Receiver<ServerState>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Supervised {
    fn new(version: &str) -> Self {
        let data = tempfile::Builder::new().prefix("periscope-supervise-").tempdir().unwrap();
        let config = config::Questdb {
            mode: Mode::Managed,
            http: "127.0.0.1:0".to_owned(),
            pg: "127.0.0.1:0".to_owned(),
            version: version.to_owned(),
            home: Some(questdb_home(version)),
            offline: None,
            java: None,
            memory: 256 << 20,
            user: None,
            password: None,
            insecure: false,
        };
        Self {
            data,
            config,
            profile: Profile::Up,
            options: Options::default(),
            board: Board::new(Clock::system()),
            metrics: Metrics::new(),
            stop: CancellationToken::new(),
            state: watch::channel(ServerState::absent()).1,
            task: None,
        }
    }

    fn start(&mut self) {
        assert!(self.task.is_none(), "still running");
        let setup = Setup {
            config: self.config.clone(),
            profile: self.profile,
            data_dir: self.data.path().to_owned(),
            clock: Clock::system(),
            board: self.board.clone(),
            metrics: self.metrics.clone(),
            client: Client::new().unwrap(),
            spawner: spawner::start().unwrap(),
            seed: 1,
        };
        let (sender, receiver) = watch::channel(ServerState::absent());
        self.state = receiver;
        self.stop = CancellationToken::new();
        let (options, stop) = (self.options.clone(), self.stop.clone());
        self.task = Some(periscope::base::tasks::spawn_detached(async move {
            run_with(setup, options, sender, stop).await;
        }));
    }

    fn state(&self) -> ServerState {
        self.state.borrow().clone()
    }

    async fn until_state(&self, what: &str, wanted: impl Fn(&ServerState) -> bool) -> ServerState {
        until(what, Duration::from_secs(90), || async {
            let state = self.state();
            // At every moment: never two servers.
            let servers = self.servers();
            assert!(servers.len() <= 1, "two servers: {servers:?}");
            if wanted(&state) { Ok(state) } else { Err(format!("{state:?}\n{}", self.log())) }
        })
        .await
    }

    async fn ready(&self) -> ServerState {
        self.until_state("questdb to be ready", |state| state.phase == Phase::Ready).await
    }

    /// Stops and returns how long it took; nothing may be left.
    async fn stop(&mut self) -> Duration {
        let start = Instant::now();
        self.stop.cancel();
        let task = self.task.take().unwrap();
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("a stop ends").unwrap();
        assert!(self.servers().is_empty(), "left: {:?}", self.servers());
        start.elapsed()
    }

    /// Server processes of this data folder. The one that assembles the archive of classes on
    /// Java 25 is none: it opens no data.
    fn servers(&self) -> Vec<(u32, String)> {
        processes_naming(self.data.path())
            .into_iter()
            .filter(|(_, command)| command.contains("io.questdb.ServerMain"))
            .collect()
    }

    fn root(&self) -> PathBuf {
        self.data.path().join("questdb/root")
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.data.path().join("questdb/log/questdb.log"));
        let log = log.unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(12).collect();
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    async fn exec(&self, sql: &str) -> Result<serde_json::Value, String> {
        use base64::Engine as _;
        let endpoint = self.state().endpoint.ok_or("no endpoint")?;
        let login = endpoint.admin.ok_or("no login")?;
        let token = base64::engine::general_purpose::STANDARD.encode(format!(
            "{}:{}",
            login.user,
            login.password.reveal()
        ));
        let query: String = sql.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let request = hyper::Request::get(format!("{}/exec?query={query}", endpoint.http))
            .header("authorization", format!("Basic {token}"));
        let answer = send(request.body(http_body_util::Full::default()).unwrap()).await?;
        serde_json::from_str(&answer.1).map_err(|error| error.to_string())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- state {:?}\n--- log of questdb\n{}", self.state(), self.log());
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
        for (pid, _) in processes_naming(self.data.path()) {
            send_signal(pid, Signal::KILL);
        }
    }
}

async fn send(
    request: hyper::Request<http_body_util::Full<bytes::Bytes>>,
) -> Result<(u16, String), String> {
    let limits = HttpLimits { time: Duration::from_secs(10), body: 1 << 20 };
    let answer = Client::new().unwrap().send(request, limits).await;
    let answer = answer.map_err(|error| error.to_string())?;
    Ok((answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned()))
}

fn listens(address: SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_ok()
}

/// Checks that the running server is as closed as promised.
async fn assert_hardened(supervised: &Supervised) {
    let state = supervised.ready().await;
    let endpoint = state.endpoint.unwrap();
    let get = |path: &str| {
        let request = hyper::Request::get(format!("{}{path}", endpoint.http));
        send(request.body(http_body_util::Full::default()).unwrap())
    };
    assert_eq!(get("/exec?query=select%201").await.unwrap().0, 401);
    // The log names every key that this version does not know.
    let log = fs::read_to_string(supervised.data.path().join("questdb/log/questdb.log")).unwrap();
    for complaint in ["not recognized", "Invalid settings", "Deprecated settings"] {
        assert!(!log.contains(complaint), "{complaint}:\n{log}");
    }
    // Only the two ports that were asked for are open.
    let pid = state.pid.unwrap();
    let ports = listening_ports(pid);
    let wanted = [&endpoint.http, &endpoint.pg]
        .map(|text| text.rsplit(':').next().unwrap().parse::<u16>().unwrap());
    assert!(ports.len() == 2 && wanted.iter().all(|port| ports.contains(port)), "{ports:?}");

    let credentials = Credentials::load(supervised.data.path()).unwrap();
    let (host, port) = endpoint.pg.rsplit_once(':').unwrap();
    let connect = |user: &str, password: &str| {
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port.parse().unwrap()).dbname("qdb").user(user).password(password);
        async move {
            let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
            periscope::base::tasks::spawn_detached(async move { drop(connection.await) });
            Ok::<_, tokio_postgres::Error>(client)
        }
    };
    assert!(connect("admin", "quest").await.is_err(), "the well-known login works");
    let admin = connect("periscope", credentials.pg_admin.password.reveal()).await.unwrap();
    admin
        .simple_query("create table t (x long, ts timestamp) timestamp(ts) partition by day wal")
        .await
        .unwrap();
    let reader =
        connect("periscope_reader", credentials.pg_reader.password.reveal()).await.unwrap();
    reader.simple_query("select * from t").await.unwrap();
    for statement in ["insert into t values (1, now())", "drop table t", "create table u (x long)"]
    {
        let refused = reader.simple_query(statement).await.unwrap_err();
        let text = refused.as_db_error().map(ToString::to_string).unwrap_or_default();
        assert!(text.to_lowercase().contains("denied"), "{statement}: {text}");
    }
    // ILP: no table and no column of its own accord.
    let write = |line: &'static str| {
        use base64::Engine as _;
        let login = &credentials.http;
        let token = base64::engine::general_purpose::STANDARD.encode(format!(
            "{}:{}",
            login.user,
            login.password.reveal()
        ));
        let request = hyper::Request::post(format!("{}/write", endpoint.http))
            .header("authorization", format!("Basic {token}"));
        send(request.body(http_body_util::Full::from(line)).unwrap())
    };
    assert_eq!(write("t x=1i 1000000000000000000\n").await.unwrap().0, 204);
    assert_eq!(write("unknown x=1i 1000000000000000000\n").await.unwrap().0, 400);
    assert_eq!(write("t y=1i 1000000000000000000\n").await.unwrap().0, 400);
    // Passwords are neither in the arguments nor in the environment.
    let proc_text = |file: &str| {
        String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned()
    };
    for login in [&credentials.http, &credentials.pg_reader] {
        for text in [proc_text("cmdline"), proc_text("environ"), log.clone()] {
            assert!(!text.contains(login.password.reveal()), "a password is public");
        }
    }
    assert_eq!(proc_text("oom_score_adj").trim(), "500");
}

/// Ports on which the process listens.
fn listening_ports(pid: u32) -> Vec<u16> {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let open = fields[3] == "0A" || table.starts_with("udp");
            if open && sockets.contains(&format!("socket:[{}]", fields[9])) {
                ports.push(u16::from_str_radix(fields[1].rsplit(':').next().unwrap(), 16).unwrap());
            }
        }
    }
    ports
}

#[tokio::test]
async fn both_supported_versions_start_hardened_and_know_every_setting() {
    for version in VERSIONS {
        let mut supervised = Supervised::new(version);
        supervised.start();
        assert_hardened(&supervised).await;
        assert_eq!(supervised.state().version.as_deref(), Some(version));
        assert_eq!(supervised.board.get(Part::Questdb), Some(Health::Ok));
        let metrics = supervised.metrics.render().unwrap();
        assert!(metrics.contains("periscope_child_ready{child=\"questdb\"} 1"), "{metrics}");
        let took = supervised.stop().await;
        assert!(took < Duration::from_secs(20), "the stop took {took:?}");
        assert_eq!(supervised.state().phase, Phase::Absent);
    }
}

/// The archive of classes is made at the first start and used by every later one.
#[tokio::test]
async fn the_second_start_is_faster_on_java_17_and_25() {
    for java in [None, Some(java_25())] {
        let mut supervised = Supervised::new(VERSIONS[0]);
        supervised.config.java = java;
        let mut times = Vec::new();
        for _ in 0..2 {
            let start = Instant::now();
            supervised.start();
            assert_hardened_once(&supervised, times.is_empty()).await;
            times.push(start.elapsed());
            supervised.stop().await;
        }
        let archives: Vec<_> = fs::read_dir(supervised.data.path().join("questdb/startup"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(archives.len(), 1, "{archives:?}");
        assert!(
            ["jsa", "aot"].iter().any(|kind| archives[0].extension().unwrap() == *kind),
            "{archives:?}"
        );
        let aside = archives[0].with_extension("none");
        let (mut with, mut without) = (Vec::new(), Vec::new());
        // In turns, so that both meet the same load from beside.
        for _ in 0..4 {
            with.push(start_time(&mut supervised, Some(&archives[0])).await);
            fs::rename(&archives[0], &aside).unwrap();
            without.push(start_time(&mut supervised, None).await);
            fs::rename(&aside, &archives[0]).unwrap();
        }
        // The quickest of each is what the machine's other work disturbed least.
        let (with, without) = (with.iter().min().unwrap(), without.iter().min().unwrap());
        println!(
            "{:?}: first start {:?}, with archive {with:?}, without {without:?}, ratio {:.2}",
            archives[0].extension().unwrap(),
            times[0],
            with.as_secs_f64() / without.as_secs_f64()
        );
        assert!(with < without, "with {with:?}, without {without:?}");
    }
}

async fn assert_hardened_once(supervised: &Supervised, first: bool) {
    if first {
        assert_hardened(supervised).await;
    } else {
        supervised.ready().await;
    }
}

/// Returns the time from the start of the task to ready. The server has `archive` mapped, or none.
async fn start_time(supervised: &mut Supervised, archive: Option<&Path>) -> Duration {
    let start = Instant::now();
    supervised.start();
    supervised.state.wait_for(|state| state.phase == Phase::Ready).await.unwrap();
    let elapsed = start.elapsed();
    let pid = supervised.state().pid.unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let folder = supervised.data.path().join("questdb/startup");
    let expected =
        archive.map_or_else(|| folder.display().to_string(), |a| a.display().to_string());
    assert_eq!(maps.contains(&expected), archive.is_some(), "{expected} in {maps}");
    supervised.stop().await;
    elapsed
}

/// A kill in the first boot can ruin a data root for good: the next start must be healthy anyhow.
#[tokio::test]
async fn kills_during_the_first_boot_never_ruin_the_data_root() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..10 {
        let mut supervised = Supervised::new(VERSIONS[0]);
        supervised.start();
        let delay = Duration::from_millis(random.u64(0..2200));
        let state = supervised.until_state("a pid", |state| state.pid.is_some()).await;
        tokio::time::sleep(delay).await;
        if !supervised.root().exists() {
            send_signal(state.pid.unwrap(), Signal::KILL);
        }
        supervised.ready().await;
        let table = supervised.exec("create table a (x long)").await.unwrap();
        assert_eq!(table["ddl"], "OK", "round {round}, {delay:?}: {table}");
        assert!(!supervised.data.path().join("questdb/root.new").exists());
        supervised.stop().await;
    }
}

#[tokio::test]
async fn a_killed_server_comes_back_with_its_data_and_a_new_generation() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    supervised.start();
    let before = supervised.ready().await;
    supervised.exec("create table kept (x long)").await.unwrap();
    for round in 1..=3 {
        let state = supervised.ready().await;
        send_signal(state.pid.unwrap(), Signal::KILL);
        let state = supervised
            .until_state("a new server", |now| {
                now.phase == Phase::Ready && now.generation > state.generation
            })
            .await;
        assert_eq!(state.restarts, round);
        assert_eq!(state.endpoint, before.endpoint, "port 0 keeps its port over restarts");
    }
    let count = supervised.exec("select count() from kept").await.unwrap();
    assert_eq!(count["dataset"][0][0], 0, "{count}");
    let metrics = supervised.metrics.render().unwrap();
    assert!(metrics.contains("periscope_child_restarts_total{child=\"questdb\"} 3"), "{metrics}");
    supervised.stop().await;
}

#[tokio::test]
async fn a_server_that_hangs_is_unhealthy_first_and_then_restarted() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    supervised.options.limits = Limits {
        probe_interval: Duration::from_millis(200),
        probe: Duration::from_millis(500),
        unhealthy: Duration::from_secs(3),
        stop_hung: Duration::from_secs(1),
        ..Limits::default()
    };
    supervised.start();
    let before = supervised.ready().await;
    send_signal(before.pid.unwrap(), Signal::STOP);
    supervised.until_state("unhealthy", |state| state.phase == Phase::Unhealthy).await;
    // It may recover by itself.
    send_signal(before.pid.unwrap(), Signal::CONT);
    let recovered = supervised.ready().await;
    assert_eq!(recovered.generation, before.generation);
    send_signal(before.pid.unwrap(), Signal::STOP);
    let after = supervised
        .until_state("a new server", |state| {
            state.phase == Phase::Ready && state.generation > before.generation
        })
        .await;
    assert_ne!(after.pid, before.pid);
    supervised.stop().await;
}

#[tokio::test]
async fn a_server_that_ignores_the_stop_is_killed_within_the_limit() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    supervised.options.limits.stop = Duration::from_secs(2);
    supervised.start();
    let state = supervised.ready().await;
    send_signal(state.pid.unwrap(), Signal::STOP);
    let took = supervised.stop().await;
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn a_stop_at_any_moment_of_the_start_leaves_no_process() {
    for milliseconds in [0, 30, 200, 700, 1500, 2500, 4000] {
        let mut supervised = Supervised::new(VERSIONS[0]);
        supervised.start();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        let took = supervised.stop().await;
        assert!(took < Duration::from_secs(22), "{milliseconds} ms: {took:?}");
    }
}

#[tokio::test]
async fn a_taken_port_names_its_holder_and_is_retried_until_it_is_free() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    supervised.config.http = address.to_string();
    supervised.start();
    let state =
        supervised.until_state("the port to be named", |state| state.phase == Phase::Backoff).await;
    let port = address.port();
    let expected = format!("port {port} (questdb.http) is taken by ");
    assert!(state.reason.starts_with(&expected), "{}", state.reason);
    let pid = format!("(pid {})", std::process::id());
    assert!(state.reason.contains(&pid), "{}", state.reason);
    assert!(state.reason.ends_with("; stop it or set questdb.http"), "{}", state.reason);
    drop(listener);
    supervised.ready().await;
    assert!(listens(address));
    supervised.stop().await;
    // The dev loop takes another port instead.
    let listener = TcpListener::bind(address).unwrap();
    supervised.profile = Profile::Dev;
    supervised.start();
    let state = supervised.ready().await;
    assert!(!state.endpoint.unwrap().http.ends_with(&format!(":{port}")));
    supervised.stop().await;
    drop(listener);
}

#[tokio::test]
async fn a_corrupt_jar_in_a_home_is_named_and_mending_it_is_enough() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    let home = supervised.data.path().join("home");
    fs::create_dir(&home).unwrap();
    let good = questdb_home(VERSIONS[0]).join("questdb.jar");
    let whole = fs::read(&good).unwrap();
    let jar = home.join("questdb.jar");
    supervised.config.home = Some(home);
    // Cut off, as by a broken download.
    fs::write(&jar, &whole[..whole.len() / 2]).unwrap();
    supervised.start();
    let state =
        supervised.until_state("the jar to be named", |state| state.phase == Phase::Backoff).await;
    assert!(state.reason.contains("corrupt"), "{}", state.reason);
    assert!(state.reason.contains(jar.to_str().unwrap()), "{}", state.reason);
    // Whole at both ends, damaged in between: Java itself has to notice.
    let mut damaged = whole.clone();
    let middle = damaged.len() / 8..damaged.len() * 7 / 8;
    damaged[middle].fill(0xa5);
    fs::write(&jar, &damaged).unwrap();
    let state = supervised
        .until_state("the damage to be named", |state| {
            state.phase == Phase::Backoff && state.reason.contains("exit code")
        })
        .await;
    assert!(state.reason.contains("corrupt"), "{}", state.reason);
    fs::write(&jar, &whole).unwrap();
    supervised.ready().await;
    supervised.stop().await;
}

#[tokio::test]
async fn a_damaged_data_root_is_broken_at_once_and_kept() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    supervised.start();
    supervised.ready().await;
    supervised.exec("create table kept (x long)").await.unwrap();
    supervised.stop().await;
    let registry = fs::read_dir(supervised.root().join("db"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("tables.d."))
        .filter(|path| !path.to_str().unwrap().ends_with("lock"))
        .unwrap();
    // A length far beyond the file; a negative one would be taken for an empty registry.
    fs::write(&registry, [0x26; 4096]).unwrap();
    supervised.start();
    let state = supervised.until_state("broken", |state| state.phase == Phase::Broken).await;
    assert!(state.reason.contains("restore a backup"), "{}", state.reason);
    assert!(supervised.root().join("db").exists());
    supervised.stop().await;
}

#[tokio::test]
async fn too_little_memory_is_named() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    supervised.config.memory = 8 << 20;
    supervised.start();
    let state = supervised.until_state("a reason", |state| state.phase == Phase::Backoff).await;
    assert!(state.reason.contains("raise questdb.memory"), "{}", state.reason);
    supervised.stop().await;
}

/// Runs `owner_to_be_killed` in a process of its own, which is then killed.
#[tokio::test]
async fn the_server_of_a_killed_owner_is_ended_before_the_next_start() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "supervise_unit::owner_to_be_killed"])
        .env("PERISCOPE_TEST_OWNER", supervised.data.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let marker = supervised.data.path().join("owner-ready");
    let ready = until("the owner's server", Duration::from_secs(60), || async {
        fs::read_to_string(&marker).map_err(|error| error.to_string())
    });
    let pid: u32 = ready.await.parse().unwrap();
    // The kernel's own signal must not get through: a stopped server stays behind.
    send_signal(pid, Signal::STOP);
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_eq!(supervised.servers().len(), 1);
    supervised.options.limits.stop_hung = Duration::from_secs(2);
    supervised.start();
    let state = supervised.ready().await;
    assert_ne!(state.pid, Some(pid));
    supervised.stop().await;
}

/// The kernel ends the server of a killed owner, without anybody's help.
#[tokio::test]
async fn a_killed_owner_takes_its_server_with_it() {
    let supervised = Supervised::new(VERSIONS[0]);
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "supervise_unit::owner_to_be_killed"])
        .env("PERISCOPE_TEST_OWNER", supervised.data.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let marker = supervised.data.path().join("owner-ready");
    until("the owner's server", Duration::from_secs(60), || async {
        if marker.exists() { Ok(()) } else { Err("not ready") }
    })
    .await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("the server to end", Duration::from_secs(20), || async {
        let left = supervised.servers();
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
}

/// No test by itself: the process that the tests above kill.
#[tokio::test]
#[ignore = "started by other tests"]
async fn owner_to_be_killed() {
    let folder = std::env::var_os("PERISCOPE_TEST_OWNER").expect("set by the test that starts it");
    let folder = Path::new(&folder);
    let own = Supervised::new(VERSIONS[0]);
    let setup = Setup {
        config: own.config.clone(),
        profile: Profile::Up,
        data_dir: folder.to_owned(),
        clock: Clock::system(),
        board: own.board.clone(),
        metrics: own.metrics.clone(),
        client: Client::new().unwrap(),
        spawner: spawner::start().unwrap(),
        seed: 1,
    };
    let (sender, mut receiver) = watch::channel(ServerState::absent());
    let run = run_with(setup, Options::default(), sender, CancellationToken::new());
    let tell = async {
        let state = receiver.wait_for(|state| state.phase == Phase::Ready).await.unwrap().clone();
        let partial = folder.join("owner-part");
        fs::write(&partial, state.pid.unwrap().to_string()).unwrap();
        fs::rename(partial, folder.join("owner-ready")).unwrap();
        std::future::pending::<()>().await;
    };
    tokio::join!(run, tell);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named_and_retried() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    let blocker = supervised.data.path().join("questdb");
    fs::write(&blocker, "a file where a folder should be").unwrap();
    supervised.start();
    let state =
        supervised.until_state("the folder to be named", |s| s.phase == Phase::Backoff).await;
    assert!(state.reason.starts_with("cannot write the data folder"), "{}", state.reason);
    assert!(state.reason.contains("--data-dir"), "{}", state.reason);
    fs::remove_file(&blocker).unwrap();
    supervised.ready().await;
    supervised.stop().await;
}

#[tokio::test]
async fn without_any_source_every_way_is_named() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    supervised.config.home = None;
    supervised.config.version = "0.0.1".to_owned();
    supervised.options.sources = Sources {
        releases: "http://127.0.0.1:1/files".to_owned(),
        releases_api: "http://127.0.0.1:1/api".to_owned(),
        mvn: "/nowhere/mvn".to_owned(),
        repository: None,
        ..Sources::default()
    };
    supervised.start();
    let state = supervised.until_state("a reason", |state| state.phase == Phase::Backoff).await;
    for way in ["cache", "offline folder", "release archive", "maven", "periscope fetch --from"] {
        assert!(state.reason.contains(way), "{way}: {}", state.reason);
    }
    supervised.stop().await;
}

/// The jar comes out of Maven's local repository into the cache; a damaged cache mends itself.
#[tokio::test]
async fn a_corrupt_jar_in_the_cache_is_replaced_before_the_next_start() {
    let mut supervised = Supervised::new(VERSIONS[0]);
    let repository = supervised.data.path().join("repository");
    let version = VERSIONS[0];
    let folder = repository.join(format!("org/questdb/questdb/{version}"));
    fs::create_dir_all(&folder).unwrap();
    let jar = questdb_home(version).join("questdb.jar");
    fs::copy(jar, folder.join(format!("questdb-{version}.jar"))).unwrap();
    supervised.config.home = None;
    supervised.options.sources = Sources {
        repository: Some(repository),
        mvn: "/nowhere/mvn".to_owned(),
        ..Sources::default()
    };
    supervised.start();
    supervised.ready().await;
    supervised.stop().await;
    let cached = supervised.data.path().join(format!("artifacts/questdb-{version}/questdb.jar"));
    fs::write(&cached, "damaged").unwrap();
    supervised.start();
    supervised.ready().await;
    supervised.stop().await;
    assert!(fs::metadata(&cached).unwrap().len() > 1_000_000);
}

fn remote(supervised: &mut Supervised, server: &QuestDb, password: &str) {
    supervised.config.mode = Mode::Remote;
    supervised.config.http = server.http();
    supervised.config.pg = format!("127.0.0.1:{}", server.pg_port);
    supervised.config.user = Some("admin".to_owned());
    supervised.config.password = Some(periscope::base::secret::Secret::new(password));
    supervised.options.limits = Limits {
        probe_interval: Duration::from_millis(100),
        probe: Duration::from_millis(500),
        ..Limits::default()
    };
}

#[tokio::test]
async fn a_remote_server_is_watched_and_its_return_is_a_new_generation() {
    let mut server = QuestDb::start(VERSIONS[0]).await;
    let mut supervised = Supervised::new(VERSIONS[0]);
    remote(&mut supervised, &server, PASSWORD);
    supervised.start();
    let first = supervised.ready().await;
    assert_eq!((first.version.as_deref(), first.generation), (Some(VERSIONS[0]), 1));
    assert_eq!(first.pid, None);
    server.kill();
    let gone = supervised.until_state("its absence", |state| state.phase == Phase::Backoff).await;
    assert!(gone.reason.contains("mend questdb.http"), "{}", gone.reason);
    server.restart().await;
    assert_eq!(supervised.ready().await.generation, 2);
    supervised.stop().await;
    remote(&mut supervised, &server, "wrong");
    supervised.start();
    let refused = supervised.until_state("a refusal", |state| state.phase == Phase::Backoff).await;
    let expected = "wrong user or password (questdb.user, questdb.password)";
    assert!(refused.reason.starts_with(expected), "{}", refused.reason);
    supervised.stop().await;
}

/// What is in the cache of `data`, besides the files that every use leaves there.
fn cached(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join("artifacts")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|name| !["lock.toml", "in-use"].contains(&name.as_str())).collect();
    names.sort();
    names
}

fn offline_request(data: &Path) -> periscope::artifact::questdb::Request {
    let mut own = Supervised::new(VERSIONS[0]);
    own.config.home = None;
    own.config.offline = Some(data.join("offline"));
    let mut request = periscope::artifact::questdb::Request::of(&own.config, data);
    request.sources = Sources {
        releases: "http://127.0.0.1:1".to_owned(),
        releases_api: "http://127.0.0.1:1".to_owned(),
        mvn: "/nowhere/mvn".to_owned(),
        repository: None,
        ..Sources::default()
    };
    request
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
    let version = VERSIONS[0];
    let archive = offline.join(format!("questdb-{version}-no-jre-bin.tar.gz"));
    let gzip = flate2::write::GzEncoder::new(
        fs::File::create(&archive).unwrap(),
        flate2::Compression::fast(),
    );
    let mut builder = tar::Builder::new(gzip);
    let jar = questdb_home(version).join("questdb.jar");
    let inside = format!("questdb-{version}-no-jre-bin/questdb.jar");
    builder.append_path_with_name(&jar, inside).unwrap();
    builder.into_inner().unwrap().finish().unwrap();
    let mut interrupted = 0;
    for round in 0..20 {
        let mut installer = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "supervise_unit::installer_to_be_killed"])
            .env("PERISCOPE_TEST_OWNER", data.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(random.u64(0..800))).await;
        let finished = installer.try_wait().unwrap().is_some();
        interrupted += u32::from(!finished);
        installer.kill().unwrap();
        installer.wait().unwrap();
        let names = cached(data.path());
        let installed = format!("questdb-{version}");
        // Both are cleared by the next start.
        let halves = ["staging", "lock.part"];
        let unexpected =
            names.iter().find(|name| **name != installed && !halves.contains(&name.as_str()));
        assert_eq!(unexpected, None, "round {round}: {names:?}");
        if names.contains(&installed) {
            let jar =
                fs::metadata(data.path().join("artifacts").join(installed).join("questdb.jar"));
            assert_eq!(
                jar.unwrap().len(),
                fs::metadata(questdb_home(version).join("questdb.jar")).unwrap().len()
            );
            fs::remove_dir_all(data.path().join("artifacts")).unwrap();
        }
    }
    assert!(interrupted > 0, "no kill came in time");
    let stop = CancellationToken::new();
    let request = offline_request(data.path());
    let client = Client::new().unwrap();
    periscope::artifact::questdb::acquire(&request, &client, &stop, &|_| {}).await.unwrap();
    assert_eq!(cached(data.path()), [format!("questdb-{version}")]);
}

/// No test by itself: the process that the test above kills.
#[tokio::test]
#[ignore = "started by another test"]
async fn installer_to_be_killed() {
    let data = std::env::var_os("PERISCOPE_TEST_OWNER").expect("set by the test that starts it");
    let request = offline_request(Path::new(&data));
    let (client, stop) = (Client::new().unwrap(), CancellationToken::new());
    periscope::artifact::questdb::acquire(&request, &client, &stop, &|_| {}).await.unwrap();
}

/// The user's own `mvn`, as it is set up on this machine, gives the jar of the pinned checksum.
#[tokio::test]
async fn maven_itself_gives_the_jar() {
    let data = tempfile::tempdir().unwrap();
    let mut request = offline_request(data.path());
    request.offline = None;
    request.sources.mvn = "mvn".to_owned();
    let (client, stop) = (Client::new().unwrap(), CancellationToken::new());
    let acquired = periscope::artifact::questdb::acquire(&request, &client, &stop, &|_| {}).await;
    let installed = acquired.unwrap();
    assert_eq!((installed.source, installed.version.as_str()), ("maven", VERSIONS[0]));
    assert!(installed.jar.unwrap().starts_with(data.path()));
}

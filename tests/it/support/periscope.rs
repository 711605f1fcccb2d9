//! The built binary with a data folder of its own, and `QuestDB` asked past it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use periscope::base::http::{Client, Limits};
use serde_json::Value;

use super::mount::Tmpfs;
use super::wait::until;

/// Newest and oldest supported version.
pub const VERSIONS: [&str; 2] = ["9.3.4", "9.2.3"];

const LIMITS: Limits = Limits { time: Duration::from_secs(20), body: 64 << 20 };

/// Returns the folder that holds `questdb.jar` of `version`; fetches it with Maven if need be.
///
/// `QUESTDB_HOME_9_3_4` (`…_9_2_3`) names another folder.
pub fn questdb_home(version: &str) -> PathBuf {
    let variable = format!("QUESTDB_HOME_{}", version.replace('.', "_"));
    if let Some(home) = std::env::var_os(&variable) {
        return home.into();
    }
    // Tests run at the same time; the first one gets it.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/questdb").join(version);
    let jar = home.join("questdb.jar");
    if jar.is_file() {
        return home;
    }
    fs::create_dir_all(&home).unwrap();
    let repository = std::env::var_os("MAVEN_REPO").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".m2/repository"),
        PathBuf::from,
    );
    let cached = repository.join(format!("org/questdb/questdb/{version}/questdb-{version}.jar"));
    if !cached.is_file() {
        let status = Command::new("mvn")
            .args(["-q", "-B", "dependency:get", "-Dtransitive=false"])
            .arg(format!("-Dartifact=org.questdb:questdb:{version}"))
            .status();
        assert!(
            status.as_ref().is_ok_and(ExitStatus::success),
            "no QuestDB {version}: set {variable} to a folder with questdb.jar ({status:?})"
        );
    }
    // Several tests may do this at once.
    let partial = tempfile::NamedTempFile::new_in(&home).unwrap();
    fs::copy(&cached, partial.path()).unwrap();
    partial.persist(&jar).unwrap();
    home
}

pub struct Periscope {
    child: Option<Child>,
    /// Before `folder`: what is mounted there has to go first.
    mounts: Vec<Tmpfs>,
    folder: tempfile::TempDir,
    client: Client,
    arguments: Vec<String>,
}

impl Periscope {
    /// Starts `periscope up` with `config` on free ports and `QuestDB` of the newest version.
    pub fn up(config: &str) -> Self {
        Self::up_with(config, VERSIONS[0])
    }

    /// Starts `periscope up` with `config` on free ports and `QuestDB` of `version`.
    pub fn up_with(config: &str, version: &str) -> Self {
        Self::started("up", config, &questdb_home(version), version, &[])
    }

    /// As [`Self::up`], with the program of `QuestDB` in `home`.
    pub fn up_at(config: &str, home: &Path) -> Self {
        Self::started("up", config, home, VERSIONS[0], &[])
    }

    /// As [`Self::up`], with settings `key=value` that replace the usual ones.
    pub fn up_set(config: &str, settings: &[&str]) -> Self {
        Self::started("up", config, &questdb_home(VERSIONS[0]), VERSIONS[0], settings)
    }

    /// Starts `periscope up` against a server that `config` names.
    pub fn up_remote(config: &str) -> Self {
        Self::up_remote_with(config, &[])
    }

    /// As [`Self::up_remote`], with further settings.
    pub fn up_remote_with(config: &str, settings: &[&str]) -> Self {
        Self::launched(
            "up",
            config,
            settings.iter().map(|setting| (*setting).to_owned()).chain([
                "listen.address=\"127.0.0.1:0\"".to_owned(),
                "grafana.mode=\"off\"".to_owned(),
            ]),
        )
    }

    /// Starts `periscope up` with servers that all are named in `config`.
    pub fn up_beside(config: &str) -> Self {
        Self::launched("up", config, ["listen.address=\"127.0.0.1:0\"".to_owned()].into_iter())
    }

    /// Starts `periscope dev` without a configuration of its own, on free ports.
    pub fn dev() -> Self {
        Self::started("dev", "", &questdb_home(VERSIONS[0]), VERSIONS[0], &[])
    }

    fn started(command: &str, config: &str, home: &Path, version: &str, settings: &[&str]) -> Self {
        let usual = [
            "listen.address=\"127.0.0.1:0\"".to_owned(),
            "questdb.http=\"127.0.0.1:0\"".to_owned(),
            "questdb.pg=\"127.0.0.1:0\"".to_owned(),
            "grafana.mode=\"off\"".to_owned(),
            format!("questdb.home=\"{}\"", home.display()),
            format!("questdb.version=\"{version}\""),
        ];
        let own = settings.iter().map(|setting| (*setting).to_owned());
        let key = |setting: &str| setting.split('=').next().unwrap().to_owned();
        let taken: Vec<String> = settings.iter().map(|setting| key(setting)).collect();
        let usual = usual.into_iter().filter(|setting| !taken.contains(&key(setting)));
        Self::launched(command, config, own.chain(usual))
    }

    /// As [`Self::up_remote_with`], with the spool's folder on a file system of its own.
    pub fn up_remote_spooling_to(config: &str, settings: &[&str], bytes: u64) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).chain([
            "listen.address=\"127.0.0.1:0\"".to_owned(),
            "grafana.mode=\"off\"".to_owned(),
        ]);
        let mut this = Self::prepared("up", config, settings);
        let spool = this.data().join("spool");
        fs::create_dir_all(&spool).unwrap();
        this.mounts.push(Tmpfs::mount(&spool, bytes));
        this.start();
        this
    }

    /// The file system of the spool, where it has one of its own.
    pub fn disk(&self) -> &Tmpfs {
        self.mounts.first().expect("started with up_remote_spooling_to")
    }

    fn launched(command: &str, config: &str, settings: impl Iterator<Item = String>) -> Self {
        let mut this = Self::prepared(command, config, settings);
        this.start();
        this
    }

    fn prepared(command: &str, config: &str, settings: impl Iterator<Item = String>) -> Self {
        let folder = tempfile::Builder::new().prefix("periscope-it-").tempdir().unwrap();
        let file = folder.path().join("periscope.toml");
        fs::write(&file, config).unwrap();
        let mut arguments = vec![command.to_owned(), "--config".to_owned()];
        arguments.push(file.display().to_string());
        for setting in settings {
            arguments.extend(["--set".to_owned(), setting]);
        }
        let (client, mounts) = (Client::new().unwrap(), Vec::new());
        Self { child: None, mounts, folder, client, arguments }
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the binary again on the same data folder.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "still running");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let child = self
            .command(&self.arguments.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// A command of the binary on this data folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_periscope"));
        command.args(arguments).arg("--data-dir").arg(self.data()).current_dir(self.folder.path());
        command.env_remove("PERISCOPE_CONFIG");
        command
    }

    /// Runs a command of the binary and returns exit code, stdout and stderr.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Process id of the running binary.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What it has written to stdout and stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal to the binary.
    pub fn signal(&self, signal: rustix::process::Signal) {
        send_signal(self.pid(), signal);
    }

    /// SIGKILLs the binary and waits for its end.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for the end of the binary; panics after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > limit {
                let _killed = child.kill();
                panic!("still running after {limit:?}\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn get(&self, url: &str, user: Option<(String, String)>) -> Result<Value, String> {
        use base64::Engine as _;
        let mut request = hyper::Request::get(url);
        if let Some((user, password)) = user {
            let token =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            request = request.header("authorization", format!("Basic {token}"));
        }
        let request = request.body(http_body_util::Full::default()).unwrap();
        let answer = self.client.send(request, LIMITS).await.map_err(|error| error.to_string())?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if !answer.status.is_success() {
            return Err(format!("{}: {body}", answer.status));
        }
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
    }

    /// Base URL of the own listener, as the running instance has written it down.
    pub fn listener(&self) -> Result<String, String> {
        let instance = self.instance()?;
        if self.child.is_some() && instance["pid"] != self.pid() {
            return Err(format!("written by an instance before this one: {instance}"));
        }
        let address = instance["address"].as_str().ok_or("no address yet")?;
        Ok(format!("http://{address}"))
    }

    fn instance(&self) -> Result<Value, String> {
        let text = fs::read_to_string(self.data().join("run/instance.json"))
            .map_err(|error| format!("run/instance.json: {error}"))?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// `GET /api/v1/status`.
    pub async fn status(&self) -> Result<Value, String> {
        self.get(&format!("{}/api/v1/status", self.listener()?), None).await
    }

    /// Value of one of the own metrics, 0 when it is not there; `name` with its labels.
    pub async fn metric(&self, name: &str) -> Result<f64, String> {
        let request = hyper::Request::get(format!("{}/metrics", self.listener()?))
            .body(http_body_util::Full::default())
            .unwrap();
        let answer = self.client.send(request, LIMITS).await.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(Ok(0.0), |value| value.parse().map_err(|error| format!("{value}: {error}")))
    }

    /// Waits until `part` is told as something else than well, in words that hold `words`.
    pub async fn told(&self, part: &str, words: &str) -> String {
        let what = format!("{part} to tell of {words:?}");
        until(&what, Duration::from_secs(60), || async {
            let told = self.status().await?["parts"][part].to_string();
            let is_bad = ["\"degraded\"", "\"down\""].iter().any(|state| told.contains(state));
            if is_bad && told.contains(words) { Ok(told) } else { Err(told) }
        })
        .await
    }

    /// Waits until `part` is well.
    pub async fn well(&self, part: &str) {
        let what = format!("{part} to be well");
        until(&what, Duration::from_secs(90), || async {
            let told = self.status().await?["parts"][part].to_string();
            if told.contains("\"ok\"") { Ok(()) } else { Err(self.failure(&told)) }
        })
        .await;
    }

    /// Waits until `QuestDB` answers.
    pub async fn ready(&self) -> Value {
        let what = "questdb to be ready";
        until(what, Duration::from_secs(90), || async {
            let status = self.status().await.map_err(|error| self.failure(&error))?;
            match status["questdb"]["state"].as_str() {
                Some("ready") => Ok(status),
                _ => Err(self.failure(&status["questdb"].to_string())),
            }
        })
        .await
    }

    fn failure(&self, error: &str) -> String {
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("{error}\n{}", tail.join("\n"))
    }

    /// Asks `QuestDB` itself over HTTP, as its administrator: the oracle of the tests.
    pub async fn sql(&self, query: &str) -> Result<Vec<Vec<Value>>, String> {
        let status = self.status().await?;
        let http = status["questdb"]["http"].as_str().ok_or("no questdb yet")?.to_owned();
        self.sql_at(&http, query).await
    }

    /// As [`Self::sql`], at a base URL known from before.
    pub async fn sql_at(&self, http: &str, query: &str) -> Result<Vec<Vec<Value>>, String> {
        let secrets = self.data().join("secrets");
        let password = fs::read_to_string(secrets.join("questdb-http-password"))
            .map_err(|error| format!("secrets: {error}"))?;
        let user = ("periscope".to_owned(), password.trim().to_owned());
        let mut encoded = String::new();
        for byte in query.bytes() {
            encoded.push_str(&format!("%{byte:02x}"));
        }
        let answer = self.get(&format!("{http}/exec?query={encoded}"), Some(user)).await?;
        let rows = answer["dataset"].as_array().ok_or_else(|| answer.to_string())?;
        Ok(rows.iter().map(|row| row.as_array().unwrap().clone()).collect())
    }

    /// Waits until the single number that `query` returns satisfies `enough`.
    pub async fn until_count(&self, query: &str, enough: impl Fn(i64) -> bool) -> i64 {
        until(query, Duration::from_secs(60), || async {
            let rows = self.sql(query).await.map_err(|error| self.failure(&error))?;
            let count = rows.first().and_then(|row| row[0].as_i64()).unwrap_or(0);
            if enough(count) { Ok(count) } else { Err(self.failure(&count.to_string())) }
        })
        .await
    }

    /// Pids of `QuestDB` servers on this data folder.
    pub fn questdb_pids(&self) -> Vec<u32> {
        processes_naming(self.folder.path())
            .into_iter()
            .filter(|(_, command)| command.contains("io.questdb"))
            .map(|(pid, _)| pid)
            .collect()
    }
}

impl Drop for Periscope {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of periscope\n{}", self.failure(""));
        }
        if let Some(mut child) = self.child.take() {
            let _killed = child.kill();
            let _waited = child.wait();
        }
        let start = Instant::now();
        loop {
            let left = processes_naming(self.folder.path());
            if left.is_empty() || start.elapsed() > Duration::from_secs(10) {
                break;
            }
            for (pid, _) in left {
                send_signal(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Sends `signal` to `pid`; a process that has ended meanwhile is fine.
pub fn send_signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    let _gone = rustix::process::kill_process(pid, signal);
}

/// Returns pid and command line of every live process whose command line or environment names
/// `folder`, this test itself left out.
pub fn processes_naming(folder: &Path) -> Vec<(u32, String)> {
    let needle = folder.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let read = |file: &str| {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        let names = command.contains(&needle) || read("environ").contains(&needle);
        let zombie = read("stat").rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'));
        if names && !zombie && pid != std::process::id() {
            found.push((pid, command));
        }
    }
    found
}

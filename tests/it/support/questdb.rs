//! A real `QuestDB` of a test's own, past periscope: for remote mode and as the oracle.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use periscope::base::http::{Answer, Client, Limits};
use serde_json::Value;

use super::periscope::questdb_home;
use super::wait::until;

const LIMITS: Limits = Limits { time: Duration::from_secs(60), body: 256 << 20 };

/// Password of the users `admin` (HTTP and PG) and `reader` (PG, read-only).
pub const PASSWORD: &str = "only-for-tests";

pub struct QuestDb {
    child: Option<Child>,
    root: PathBuf,
    _folder: Option<tempfile::TempDir>,
    version: String,
    heap: &'static str,
    /// Further settings, by environment variable; they count from the next start on.
    pub settings: Vec<(&'static str, &'static str)>,
    pub http_port: u16,
    pub pg_port: u16,
    client: Client,
}

/// Returns a port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl QuestDb {
    /// Starts a server of `version` on an empty root and waits until it answers.
    pub async fn start(version: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("periscope-questdb-").tempdir().unwrap();
        let root = folder.path().join("root");
        Self::start_at(version, root, Some(folder)).await
    }

    /// As [`Self::start`]; it makes tables that it does not know, as it does by default.
    pub async fn start_making_tables(version: &str) -> Self {
        let settings = [
            ("QDB_LINE_AUTO_CREATE_NEW_TABLES", "true"),
            ("QDB_LINE_AUTO_CREATE_NEW_COLUMNS", "true"),
        ];
        Self::start_set(version, &settings).await
    }

    /// As [`Self::start`], with further settings by environment variable.
    pub async fn start_set(version: &str, settings: &[(&'static str, &'static str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("periscope-questdb-").tempdir().unwrap();
        let mut this = Self::new(version, folder.path().join("root"), Some(folder));
        this.settings = settings.to_vec();
        this.restart().await;
        this
    }

    /// Starts a server of `version` on `root`.
    pub async fn start_at(version: &str, root: PathBuf, folder: Option<tempfile::TempDir>) -> Self {
        let mut this = Self::new(version, root, folder);
        this.restart().await;
        this
    }

    fn new(version: &str, root: PathBuf, folder: Option<tempfile::TempDir>) -> Self {
        fs::create_dir_all(&root).unwrap();
        Self {
            child: None,
            root,
            _folder: folder,
            version: version.to_owned(),
            heap: "-Xmx512m",
            settings: Vec::new(),
            http_port: free_port(),
            pg_port: free_port(),
            client: Client::new().unwrap(),
        }
    }

    /// Starts the server again on the same ports and root; it must have ended.
    pub async fn restart(&mut self) {
        self.spawn();
        until("questdb of the test to answer", Duration::from_secs(60), || self.sql("select 1"))
            .await;
    }

    /// Starts the server without waiting for an answer.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "still running");
        let jar = questdb_home(&self.version).join("questdb.jar");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.root.with_extension("log"))
            .unwrap();
        let java = std::env::var_os("JAVA_HOME")
            .map_or_else(|| PathBuf::from("java"), |home| PathBuf::from(home).join("bin/java"));
        let child = Command::new(java)
            .args(["-XX:+UseSerialGC", "-Xms64m", self.heap, "-p"])
            .arg(&jar)
            .args(["-m", "io.questdb/io.questdb.ServerMain", "-d"])
            .arg(&self.root)
            .env("QDB_HTTP_BIND_TO", format!("127.0.0.1:{}", self.http_port))
            .env("QDB_PG_NET_BIND_TO", format!("127.0.0.1:{}", self.pg_port))
            .env("QDB_HTTP_MIN_ENABLED", "false")
            .env("QDB_LINE_TCP_ENABLED", "false")
            .env("QDB_TELEMETRY_ENABLED", "false")
            // Lets a test suspend a table.
            .env("QDB_DEV_MODE_ENABLED", "true")
            .env("QDB_LINE_AUTO_CREATE_NEW_TABLES", "false")
            .env("QDB_LINE_AUTO_CREATE_NEW_COLUMNS", "false")
            .env("QDB_HTTP_USER", "admin")
            .env("QDB_HTTP_PASSWORD", PASSWORD)
            .env("QDB_PG_USER", "admin")
            .env("QDB_PG_PASSWORD", PASSWORD)
            .env("QDB_PG_READONLY_USER_ENABLED", "true")
            .env("QDB_PG_READONLY_USER", "reader")
            .env("QDB_PG_READONLY_PASSWORD", PASSWORD)
            .env("QDB_SHARED_WORKER_COUNT", "2")
            .env("QDB_CAIRO_WRITER_DATA_APPEND_PAGE_SIZE", "1M")
            .envs(self.settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("start java (a JDK 17 or newer): {error}"));
        self.child = Some(child);
    }

    /// SIGKILLs the server and waits for its end.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Whether the server has ended by itself; it can be started again then.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
        if ended {
            self.child = None;
        }
        ended
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Base URL for HTTP.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// The data root.
    pub fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// Sends `GET path` (or `POST` with a body) as the administrator.
    pub async fn request(&self, path: &str, body: Option<Vec<u8>>) -> Result<Answer, String> {
        use base64::Engine as _;
        let login = base64::engine::general_purpose::STANDARD.encode(format!("admin:{PASSWORD}"));
        let url = format!("{}{path}", self.http());
        let request = match &body {
            Some(_) => hyper::Request::post(url),
            None => hyper::Request::get(url),
        };
        let request = request
            .header("authorization", format!("Basic {login}"))
            .body(http_body_util::Full::from(body.unwrap_or_default()))
            .unwrap();
        self.client.send(request, LIMITS).await.map_err(|error| error.to_string())
    }

    /// Runs a statement and returns its rows.
    pub async fn sql(&self, statement: &str) -> Result<Vec<Vec<Value>>, String> {
        let mut encoded = String::new();
        for byte in statement.bytes() {
            encoded.push_str(&format!("%{byte:02x}"));
        }
        let answer = self.request(&format!("/exec?query={encoded}"), None).await?;
        let body = String::from_utf8_lossy(&answer.body);
        if !answer.status.is_success() {
            return Err(format!("{}: {body}", answer.status));
        }
        let answer: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let rows = answer["dataset"].as_array().cloned().unwrap_or_default();
        Ok(rows.into_iter().map(|row| row.as_array().unwrap().clone()).collect())
    }

    /// Runs a statement that must succeed and returns its single number.
    pub async fn number(&self, statement: &str) -> i64 {
        let rows = self.sql(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        rows.first().and_then(|row| row[0].as_i64()).unwrap_or(0)
    }

    /// Configuration lines that make periscope use this server.
    pub fn remote_config(&self) -> String {
        self.remote_config_at(self.http_port)
    }

    /// As [`Self::remote_config`], with HTTP at another port (a proxy).
    pub fn remote_config_at(&self, http_port: u16) -> String {
        format!(
            "[questdb]\nmode = \"remote\"\nhttp = \"http://127.0.0.1:{http_port}\"\n\
             pg = \"127.0.0.1:{}\"\nuser = \"admin\"\npassword = \"{PASSWORD}\"\n",
            self.pg_port
        )
    }
}

impl Drop for QuestDb {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.root.with_extension("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            eprintln!("--- log of questdb, newest first\n{}", tail.join("\n"));
        }
        if let Some(mut child) = self.child.take() {
            let _killed = child.kill();
            let _waited = child.wait();
        }
    }
}

//! Daemons whose faults are switched on and off from outside, in a process of their own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use periscope::base::http::{Client, Limits};
use rustix::process::Signal;

use super::periscope::{Periscope, send_signal};

const PROGRAM: &str = r#"
import datetime, http.server, json, sys, time
start = time.time()
class Daemon:
    def __init__(self):
        self.since, self.errors = None, 0
    def switch(self, on):
        if self.since is not None:
            self.errors += int((time.time() - self.since) * 1000)
        self.since = time.time() if on else None
    def status(self, name):
        now = time.time()
        bad = name if self.since is not None else ""
        iso = lambda t: datetime.datetime.fromtimestamp(t, datetime.timezone.utc).isoformat()
        failing = int((now - self.since) * 1000) if bad == "failing" else 0
        venue = {"connected": bad != "venue", "latency_ms": 5.0, "reconnect_count": 0,
            "last_message_at": iso(self.since if bad in ("venue", "silent") else now)}
        if bad == "venue":
            venue["disconnected_at"] = iso(self.since)
        errors = self.errors if name == "failing" else 0
        return {"running": True, "shutdown_requested": False, "error_count": errors + failing,
            "fetch_count": int((now - start) * 10), "uptime_seconds": now - start,
            "exchange_status": {"alpha": venue}}
daemons = {}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        parts = self.path.strip("/").split("/")
        daemon = daemons.setdefault(parts[0], Daemon())
        if len(parts) > 1:
            daemon.switch(parts[1] == "bad")
        body = json.dumps(daemon.status(parts[0])).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    def handle_error(self, *arguments):
        pass
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// A daemon with the shim, whose event loop stands still while the file `flag` exists.
const LOOP: &str = r#"
import asyncio, os, sys, time
class Runner:
    def __init__(self):
        self.count = 0
    def get_status(self):
        return {"running": True, "shutdown_requested": False, "error_count": 0,
            "fetch_count": self.count}
runner = Runner()
async def main():
    while True:
        runner.count += 1
        while os.path.exists(sys.argv[1]):
            time.sleep(0.05)
        await asyncio.sleep(0.1)
asyncio.run(main())
"#;

/// What can be wrong with a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// SIGKILL.
    Killed,
    /// Its event loop stands still.
    Blocked,
    /// A thousand errors a second, and ten fetches.
    Failing,
    /// Its venue is not connected.
    Venue,
    /// Its venue is connected and sends nothing.
    Silent,
    /// SIGSTOP.
    Stopped,
}

impl Trouble {
    pub const ALL: [Self; 6] =
        [Self::Killed, Self::Blocked, Self::Failing, Self::Venue, Self::Silent, Self::Stopped];

    /// Name of the daemon that has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped",
            Self::Blocked => "blocked",
            Self::Failing => "failing",
            Self::Venue => "venue",
            Self::Silent => "silent",
        }
    }
}

/// A process with one daemon.
pub struct Faulty {
    trouble: Trouble,
    child: Option<Child>,
    port: u16,
    client: Client,
    folder: tempfile::TempDir,
}

impl Faulty {
    fn new(trouble: Trouble) -> Self {
        let (client, folder) = (Client::new().unwrap(), tempfile::tempdir().unwrap());
        Self { trouble, child: None, port: 0, client, folder }
    }

    /// Starts one that answers over HTTP.
    pub fn start(trouble: Trouble) -> Self {
        let mut this = Self::new(trouble);
        this.spawn();
        this
    }

    /// Starts the one with an event loop, with the shim of `periscope`.
    pub fn start_loop(periscope: &Periscope) -> Self {
        let mut this = Self::new(Trouble::Blocked);
        let target = ["run", "--name", "blocked", "--target", "__main__:Runner"];
        let mut command = periscope.command(&target);
        command.args(["--", "python3", "-c", LOOP]).arg(this.flag());
        this.child = Some(command.stdin(Stdio::null()).spawn().unwrap());
        this
    }

    fn flag(&self) -> std::path::PathBuf {
        self.folder.path().join("stand-still")
    }

    fn spawn(&mut self) {
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM, &self.port.to_string()])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.child = Some(child);
        self.port = line.trim().parse().unwrap();
    }

    /// Its entry in the configuration.
    pub fn config(&self, interval: &str) -> String {
        let name = self.trouble.name();
        format!(
            "[[daemon]]\nname = \"{name}\"\nsource = \"http\"\ntimeout = \"400ms\"\n\
             url = \"http://127.0.0.1:{}/{name}\"\ninterval = \"{interval}\"\n",
            self.port
        )
    }

    async fn switch(&self, word: &str) {
        let url = format!("http://127.0.0.1:{}/{}/{word}", self.port, self.trouble.name());
        let limits = Limits { time: Duration::from_secs(10), body: 1 << 20 };
        let request = hyper::Request::get(url).body(http_body_util::Full::default()).unwrap();
        self.client.send(request, limits).await.unwrap();
    }

    /// Makes it bad; returns since when it is.
    pub async fn spoil(&mut self) -> Instant {
        match self.trouble {
            Trouble::Killed => {
                let mut child = self.child.take().unwrap();
                child.kill().unwrap();
                child.wait().unwrap();
            }
            Trouble::Stopped => send_signal(self.child.as_ref().unwrap().id(), Signal::STOP),
            Trouble::Blocked => std::fs::write(self.flag(), "").unwrap(),
            Trouble::Failing | Trouble::Venue | Trouble::Silent => self.switch("bad").await,
        }
        Instant::now()
    }

    /// Makes it well again.
    pub async fn heal(&mut self) {
        match self.trouble {
            Trouble::Killed => self.spawn(),
            Trouble::Stopped => send_signal(self.child.as_ref().unwrap().id(), Signal::CONT),
            Trouble::Blocked => std::fs::remove_file(self.flag()).unwrap(),
            Trouble::Failing | Trouble::Venue | Trouble::Silent => self.switch("well").await,
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _killed = child.kill();
            let _waited = child.wait();
        }
    }
}

//! Daemons with ten venues each, whose connections are switched from outside, in one process.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use periscope::base::http::{Client, Limits};

const PROGRAM: &str = r#"
import datetime, http.server, json, sys, time
start, bad = time.time(), {}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name, *word = self.path.strip("/").split("/")
        if word:
            bad[name] = word[0] == "bad"
        now = time.time()
        stamp = datetime.datetime.fromtimestamp(now, datetime.timezone.utc).isoformat()
        venue = {"connected": not bad.get(name), "latency_ms": 5.0, "reconnect_count": 0,
            "last_message_at": stamp}
        body = json.dumps({"running": True, "shutdown_requested": False, "error_count": 0,
            "fetch_count": int((now - start) * 10), "uptime_seconds": now - start,
            "exchange_status": {f"v{n}": venue for n in range(10)}}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    def handle_error(self, *arguments):
        pass
server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// Venues of each daemon: `v0`, `v1`, …
pub const VENUES: usize = 10;

/// Daemons `d0`, `d1`, …
pub struct Fleet {
    child: Child,
    port: u16,
    client: Client,
}

impl Fleet {
    pub fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap(), client: Client::new().unwrap() }
    }

    /// Entries of `count` daemons in the configuration.
    pub fn config(&self, count: usize, interval: &str) -> String {
        (0..count)
            .map(|n| {
                format!(
                    "[[daemon]]\nname = \"d{n}\"\nsource = \"http\"\ninterval = \"{interval}\"\n\
                     url = \"http://127.0.0.1:{}/d{n}\"\n",
                    self.port
                )
            })
            .collect()
    }

    /// Cuts the connections of all venues of a daemon, or makes them again.
    pub async fn switch(&self, daemon: usize, bad: bool) {
        let word = if bad { "bad" } else { "well" };
        let url = format!("http://127.0.0.1:{}/d{daemon}/{word}", self.port);
        let request = hyper::Request::get(url).body(http_body_util::Full::default()).unwrap();
        let limits = Limits { time: Duration::from_secs(20), body: 1 << 20 };
        self.client.send(request, limits).await.unwrap();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

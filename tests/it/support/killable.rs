//! Daemons in a process of their own, to be killed for real.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = r#"
import http.server, json, sys, time
start = time.time()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        seconds = time.time() - start
        body = json.dumps({"running": True, "shutdown_requested": False, "error_count": 0,
            "fetch_count": int(seconds * 10), "uptime_seconds": seconds,
            "last_error": "venue closed"}).encode()
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
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// One process that answers for any number of daemons, each at a path of its own.
pub struct Killable {
    child: Option<Child>,
    pub port: u16,
}

impl Killable {
    pub fn start() -> Self {
        let mut this = Self { child: None, port: 0 };
        this.restart();
        this
    }

    /// Starts it (again, on the same port).
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
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

    /// SIGKILLs it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// `[[daemon]]` entries for `count` daemons `d0`, `d1`, …
    pub fn config(&self, count: usize, interval: &str) -> String {
        (0..count)
            .map(|n| {
                format!(
                    "[[daemon]]\nname = \"d{n}\"\nsource = \"http\"\n\
                     url = \"http://127.0.0.1:{}/d{n}\"\ninterval = \"{interval}\"\n",
                    self.port
                )
            })
            .collect()
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _killed = child.kill();
            let _waited = child.wait();
        }
    }
}

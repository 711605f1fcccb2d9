//! A local receiver of `[notify.webhook]` and of heartbeats, which can refuse.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::wait::until;

pub struct Receiver {
    pub url: String,
    taken: Arc<Mutex<Vec<Value>>>,
    status: Arc<AtomicU16>,
    server: tokio::task::JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let taken = Arc::<Mutex<Vec<Value>>>::default();
        let status = Arc::new(AtomicU16::new(200));
        let (kept, answer) = (Arc::clone(&taken), Arc::clone(&status));
        let server = periscope::base::tasks::spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                periscope::base::tasks::spawn_detached(async move {
                    let _closed = serve(stream, &kept, &answer).await;
                });
            }
        });
        Self { url, taken, status, server }
    }

    /// Answers with `status` from now on; only what is answered 200 counts as taken.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// What was taken so far.
    pub fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap().clone()
    }

    /// What was taken so far of this kind.
    pub fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.taken().into_iter().filter(|message| message["kind"] == kind).collect()
    }

    /// Waits for `count` messages of this kind.
    pub async fn wait(&self, kind: &str, count: usize, failure: impl Fn() -> String) -> Vec<Value> {
        let what = format!("{count} messages of kind {kind}");
        until(&what, Duration::from_secs(120), || {
            let found = self.of_kind(kind);
            let enough = found.len() >= count;
            let tail = failure();
            let tail: String = tail.lines().rev().take(25).collect::<Vec<_>>().join("\n");
            std::future::ready(if enough { Ok(found) } else { Err(format!("{found:?}\n{tail}")) })
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    taken: &Mutex<Vec<Value>>,
    status: &AtomicU16,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut chunk = [0_u8; 2048];
            match stream.read(&mut chunk).await? {
                0 => return Ok(()),
                read => buffer.extend_from_slice(&chunk[..read]),
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
            .unwrap_or(0_usize);
        while buffer.len() < head + length {
            let mut chunk = [0_u8; 2048];
            match stream.read(&mut chunk).await? {
                0 => return Ok(()),
                read => buffer.extend_from_slice(&chunk[..read]),
            }
        }
        let body: Vec<u8> = buffer.drain(..head + length).skip(head).collect();
        let code = status.load(Ordering::SeqCst);
        if code == 200 {
            let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
            taken.lock().unwrap().push(message);
        }
        let answer = format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
    }
}

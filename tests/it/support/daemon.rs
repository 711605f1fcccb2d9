//! A daemon as periscope sees it over HTTP: a loopback server whose documents a test chooses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What to send for the n-th request (from 1): the raw bytes of an HTTP answer.
pub type Script = dyn FnMut(u64) -> Vec<u8> + Send;

pub struct Daemon {
    pub url: String,
    answered: Arc<AtomicU64>,
    server: tokio::task::JoinHandle<()>,
}

impl Daemon {
    /// Serves a status document whose `fetch_count` is the number of the request.
    pub async fn counting() -> Self {
        Self::serving(|n| ok_json(&counting_status(n))).await
    }

    /// Serves what `script` returns.
    pub async fn serving(script: impl FnMut(u64) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/status", listener.local_addr().unwrap());
        let answered = Arc::new(AtomicU64::new(0));
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
        let counter = Arc::clone(&answered);
        let server = periscope::base::tasks::spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, counter) = (Arc::clone(&script), Arc::clone(&counter));
                periscope::base::tasks::spawn_detached(async move {
                    let _closed = serve(stream, &script, &counter).await;
                });
            }
        });
        Self { url, answered, server }
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &Mutex<Box<Script>>,
    counter: &AtomicU64,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0_u8; 4096];
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..read]);
        if !request.windows(4).any(|window| window == b"\r\n\r\n") {
            continue;
        }
        request.clear();
        let answer = {
            let mut script = script.lock().unwrap();
            let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
            script(n)
        };
        if answer.is_empty() {
            // The script's way to say "hang".
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        stream.write_all(&answer).await?;
    }
}

/// Wraps a document into an HTTP answer.
pub fn ok_json(document: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{document}",
        document.len()
    )
    .into_bytes()
}

/// The document of a daemon that has fetched `n` times.
pub fn counting_status(n: u64) -> String {
    format!(
        r#"{{"running":true,"shutdown_requested":false,"fetch_count":{n},"error_count":0,"liquidation_count":2,"uptime_seconds":{n}.5,"last_fetch_time":"2026-11-24T03:55:27.827025+00:00","last_error":null,"symbols":["BTCUSDT-PERP"],"exchanges":["binance"]}}"#
    )
}

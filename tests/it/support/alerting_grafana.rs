//! A stand-in for the part of Grafana that periscope asks to know who sends alerts: health, rules,
//! receivers and silences, in the words of recorded answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use periscope::base::time::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct AlertingGrafana {
    pub url: String,
    broken: Arc<AtomicBool>,
    silences: Arc<Mutex<Vec<String>>>,
    server: tokio::task::JoinHandle<()>,
}

impl AlertingGrafana {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (broken, silences) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (faulty, kept) = (Arc::clone(&broken), Arc::clone(&silences));
        let server = periscope::base::tasks::spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (faulty, kept) = (Arc::clone(&faulty), Arc::clone(&kept));
                periscope::base::tasks::spawn_detached(async move {
                    let _closed = serve(stream, &faulty, &kept).await;
                });
            }
        });
        Self { url, broken, silences, server }
    }

    /// Answers 500 to everything from now on, or works again.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    /// Bodies of the silences that were asked for.
    pub fn silences(&self) -> Vec<String> {
        self.silences.lock().unwrap().clone()
    }
}

impl Drop for AlertingGrafana {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    broken: &AtomicBool,
    silences: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    loop {
        let mut text = String::new();
        let (head, body) = loop {
            let mut chunk = [0_u8; 2_048];
            match stream.read(&mut chunk).await? {
                0 => return Ok(()),
                read => text.push_str(&String::from_utf8_lossy(&chunk[..read])),
            }
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        };
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (status, answer) = if broken.load(Ordering::SeqCst) {
            (500, "{}".to_owned())
        } else {
            match path {
                "/api/health" => (200, r#"{"database":"ok","version":"11.0.0"}"#.to_owned()),
                "/api/prometheus/grafana/api/v1/rules" => {
                    let now = Clock::system().now();
                    let rule = format!(r#"{{"health":"ok","lastEvaluation":"{now}"}}"#);
                    (200, format!(r#"{{"data":{{"groups":[{{"rules":[{rule}]}}]}}}}"#))
                }
                "/api/alertmanager/grafana/config/api/v1/receivers" => (200, "[]".to_owned()),
                "/api/alertmanager/grafana/api/v2/silences" => {
                    silences.lock().unwrap().push(body);
                    (202, r#"{"silenceID":"s1"}"#.to_owned())
                }
                _ => (404, "{}".to_owned()),
            }
        };
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all(format!("{head}{answer}").as_bytes()).await?;
    }
}

//! A TCP proxy that misbehaves on demand, between periscope and a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Faults that a test switches on and off; the default passes everything on.
#[derive(Default)]
pub struct Faults {
    /// Answers still to be cut: the server has answered, the client sees a reset instead.
    pub cut_answers: AtomicU64,
    /// Answers cut so far.
    pub answers_cut: AtomicU64,
    /// Whether new connections are closed at once.
    pub refuse: AtomicBool,
}

pub struct Proxy {
    pub port: u16,
    pub faults: Arc<Faults>,
    server: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and passes connections on to `port` of loopback.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let shared = Arc::clone(&faults);
        let server = periscope::base::tasks::spawn_detached(async move {
            while let Ok((client, _)) = listener.accept().await {
                let faults = Arc::clone(&shared);
                periscope::base::tasks::spawn_detached(async move {
                    if !faults.refuse.load(Ordering::SeqCst) {
                        let _closed = pass(client, port, &faults).await;
                    }
                });
            }
        });
        Self { port: own, faults, server }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn pass(client: TcpStream, port: u16, faults: &Faults) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let down = async {
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            let take_one = |left: u64| left.checked_sub(1);
            let cut = faults
                .cut_answers
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one)
                .is_ok();
            if cut {
                // The server has done its work: exactly the answer is lost.
                faults.answers_cut.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

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
    /// Answers to `POST /write` still to be cut, about every second one, some of them in their
    /// middle: by then the server has committed the rows.
    pub cut_writes: AtomicU64,
    /// Answers cut so far.
    pub answers_cut: AtomicU64,
    /// Whether new connections are closed at once.
    pub refuse: AtomicBool,
    /// Ends the connections that there are.
    hang_up: tokio::sync::Notify,
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

impl Proxy {
    /// Ends every connection that there is.
    pub fn cut_all(&self) {
        self.faults.hang_up.notify_waiters();
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
    // Whether the request in flight on this connection is a write.
    let is_write = AtomicBool::new(false);
    let up = async {
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            let bytes = &buffer[..read];
            if bytes.starts_with(b"POST /write") {
                is_write.store(true, Ordering::SeqCst);
            } else if bytes.starts_with(b"GET ") {
                is_write.store(false, Ordering::SeqCst);
            }
            to_server.write_all(bytes).await?;
        }
    };
    let down = async {
        let mut buffer = vec![0_u8; 64 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            let take_one = |left: u64| left.checked_sub(1);
            let take =
                |from: &AtomicU64| from.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one);
            let cut = take(&faults.cut_answers).is_ok()
                || (is_write.load(Ordering::SeqCst)
                    && fastrand::bool()
                    && take(&faults.cut_writes).is_ok());
            if cut {
                // The server has done its work: exactly the answer is lost, or a part of it.
                faults.answers_cut.fetch_add(1, Ordering::SeqCst);
                to_client.write_all(&buffer[..fastrand::usize(0..16).min(read - 1)]).await?;
                return Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
        () = faults.hang_up.notified() => Ok(()),
    }
}

//! The oracle of the write path: pushes numbered rows to `/write` and keeps a journal of what was
//! acknowledged, outside the process under test.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use periscope::base::http::{Client, Limits};
use periscope::base::time::Clock;
use tokio::sync::Mutex;

/// Where the listener is; it moves when periscope restarts on another port.
pub type Address = Arc<Mutex<Option<String>>>;

pub struct Pusher {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<BTreeSet<u64>>,
}

impl Pusher {
    /// Pushes `rows` rows every `pause` until stopped; acknowledged numbers go into `journal`.
    pub fn start(address: Address, rows: u64, pause: Duration, mut journal: File) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (stopping, sending) = (Arc::clone(&stop), Arc::clone(&sent));
        let task = periscope::base::tasks::spawn_detached(async move {
            let client = Client::new().unwrap();
            let limits = Limits { time: Duration::from_secs(5), body: 1 << 20 };
            let mut acknowledged = BTreeSet::new();
            let mut next = 1_u64;
            let mut tick = tokio::time::interval(pause);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !stopping.load(Ordering::SeqCst) {
                tick.tick().await;
                let Some(base) = address.lock().await.clone() else { continue };
                let now = Clock::system().now().nanos();
                let mut body = String::new();
                for offset in 0..rows {
                    let seq = next + offset;
                    body.push_str(&format!(
                        "pipeline_metrics,exchange=x,symbol=s,data_type=push,daemon=pusher,host=it,\
                         env=dev records_count={seq}i {}\n",
                        now + i64::try_from(offset).unwrap() * 1000
                    ));
                }
                let range = next..next + rows;
                next += rows;
                sending.store(next - 1, Ordering::SeqCst);
                let request = hyper::Request::post(format!("{base}/write"))
                    .body(http_body_util::Full::from(body))
                    .unwrap();
                match client.send(request, limits).await {
                    Ok(answer) if answer.status == 204 => {
                        writeln!(journal, "{} {}", range.start, range.end - 1).unwrap();
                        journal.sync_data().unwrap();
                        acknowledged.extend(range);
                    }
                    // Not acknowledged: these rows may be there or not, but never twice.
                    Ok(answer) => assert!(
                        answer.status == 503,
                        "{}: {}",
                        answer.status,
                        String::from_utf8_lossy(&answer.body)
                    ),
                    Err(_) => {}
                }
            }
            acknowledged
        });
        Self { stop, sent, task }
    }

    /// Rows sent so far, acknowledged or not.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Stops and returns the numbers of all acknowledged rows.
    pub async fn stop(self) -> BTreeSet<u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

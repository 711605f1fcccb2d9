//! A start with much to deliver: polls do not wait for it, and memory does not grow with it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::rig::Rig;
use crate::support::daemon::Daemon;
use crate::support::periscope::{Periscope, VERSIONS};
use crate::support::proxy::Proxy;
use crate::support::pusher::Load;
use crate::support::questdb::QuestDb;
use crate::support::scale::{scaled, seed};
use crate::support::wait::until;

/// How much later the first poll may be than without a backlog.
const LATER: Duration = Duration::from_secs(2);
/// Largest resident memory with any backlog, KiB.
const MEMORY_KIB: u64 = 64 << 10;

/// Starts an instance by `start` and returns the time until `daemon` is polled.
async fn first_poll(daemon: &Daemon, start: impl FnOnce()) -> Duration {
    let before = daemon.answered();
    let began = Instant::now();
    start();
    while daemon.answered() == before {
        assert!(began.elapsed() < Duration::from_secs(60), "no poll");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// A figure of `/proc/PID/status` in KiB.
fn memory(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_start_with_a_backlog_polls_at_once_and_stays_small() {
    let backlog = scaled("MiB of backlog", 64, 1024) << 20;
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let daemon = Daemon::counting().await;
    let proxy = Proxy::to(questdb.http_port).await;
    proxy.faults.refuse.store(true, Ordering::SeqCst);
    let config = format!(
        "{}[[daemon]]\nname = \"counter\"\nsource = \"http\"\nurl = \"{}\"\ninterval = \"200ms\"\n",
        questdb.remote_config_at(proxy.port),
        daemon.url
    );
    let settings = ["spool.max_bytes=\"2GiB\"", "spool.min_free=0"];
    let mut started = None;
    let empty = first_poll(&daemon, || {
        started = Some(Periscope::up_remote_with(&config, &settings));
    })
    .await;
    let mut rig = Rig::remote(started.unwrap(), questdb);
    let pause = Duration::from_millis(10);
    let load = Load { lanes: 4, rows: 2_000, pause, repeat: false, padding: 250, seed: seed() };
    let pusher = rig.push(load).await;
    until("the backlog", Duration::from_secs(60 + (backlog >> 20)), || async {
        let bytes = rig.periscope.status().await?["spool"]["bytes"].as_u64().unwrap();
        if bytes >= backlog { Ok(()) } else { Err(bytes) }.map_err(|bytes| bytes.to_string())
    })
    .await;
    let pushed = pusher.stop().await;
    rig.periscope.kill();
    // Answers to polls of the killed instance may still be on their way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let full = first_poll(&daemon, || rig.periscope.start()).await;
    let ratio = full.as_secs_f64() / empty.as_secs_f64();
    println!("first poll after {empty:?} when empty, {full:?} with the backlog: {ratio:.2} times");
    assert!(full <= empty + LATER, "{full:?}, and {empty:?} without a backlog");
    rig.listen().await;
    let waiting = rig.periscope.status().await.unwrap()["spool"]["bytes"].as_u64().unwrap();
    assert!(waiting >= backlog, "{waiting} bytes found");
    let found = memory(rig.periscope.pid(), "VmHWM:");

    let start = Instant::now();
    proxy.faults.refuse.store(false, Ordering::SeqCst);
    rig.periscope.ready().await;
    rig.assert_exactly_once(&pushed).await;
    let largest = memory(rig.periscope.pid(), "VmHWM:");
    println!(
        "resident memory {found} KiB after the start, {largest} KiB at most while {} MiB were \
         delivered within {:?}",
        waiting >> 20,
        start.elapsed()
    );
    assert!(largest <= MEMORY_KIB, "{largest} KiB resident");
}

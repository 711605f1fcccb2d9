//! Full, read-only and vanished disks, under the spool and under the database.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rig::Rig;
use crate::support::daemon::Daemon;
use crate::support::mount::Tmpfs;
use crate::support::periscope::{Periscope, VERSIONS};
use crate::support::proxy::Proxy;
use crate::support::pusher::{Load, Pusher};
use crate::support::questdb::QuestDb;
use crate::support::scale::seed;
use crate::support::wait::until;

const DISK: u64 = 16 << 20;

/// More rows of `system_health` than there can be in the longest wait of a test here.
const HEALTH_ROWS: u64 = 100;

/// Segments of 256 KiB, so that a few seconds fill several.
const SMALL: [&str; 2] = ["spool.min_free=0", "spool.max_bytes=\"2MiB\""];
/// Room for what a database on a busy machine is behind: nothing is to be dropped.
const ROOMY: [&str; 2] = ["spool.min_free=0", "spool.max_bytes=\"12MiB\""];

fn polled(daemon: &Daemon) -> String {
    format!(
        "[[daemon]]\nname = \"counter\"\nsource = \"http\"\nurl = \"{}\"\ninterval = \"100ms\"\n",
        daemon.url
    )
}

/// Clients that never repeat, so that every row enters at most once.
fn once() -> Load {
    Load { repeat: false, ..Load::usual(seed()) }
}

/// Waits until `daemon` was polled `times` more.
async fn polls_go_on(daemon: &Daemon, times: u64) {
    let before = daemon.answered();
    until("polls to go on", Duration::from_secs(20), || {
        let now = daemon.answered();
        std::future::ready(if now >= before + times { Ok(()) } else { Err(now) })
    })
    .await;
}

/// Waits until `rows` more rows are acknowledged.
async fn acknowledges(pusher: &Pusher, rows: u64) {
    let before = pusher.acknowledged();
    until("rows to be acknowledged", Duration::from_secs(60), || {
        let now = pusher.acknowledged();
        std::future::ready(if now >= before + rows { Ok(()) } else { Err(now - before) })
    })
    .await;
}

/// Fills `disk` again and again, because the spool gives up what it need not keep, until periscope
/// says so.
async fn filled_until_told(periscope: &Periscope) {
    until("the full disk to be told", Duration::from_secs(60), || async {
        periscope.disk().fill();
        let told = periscope.status().await?["parts"]["spool"].to_string();
        let is_told = told.contains("degraded") && told.contains("No space left");
        if is_told { Ok(()) } else { Err(told) }
    })
    .await;
}

/// Every poll from the first to the last stored one is there once; one that timed out has a row
/// of its own, without a number.
async fn assert_no_poll_lost(rig: &Rig, daemon: &Daemon) {
    let wanted = daemon.answered();
    until("every poll to be stored", Duration::from_secs(60), || async {
        let rows = rig
            .sql(
                "select min(fetch_count), max(fetch_count), count(fetch_count), \
                 count_distinct(fetch_count), count() from daemon_metrics \
                 where daemon = 'counter'",
            )
            .await?;
        let number = |index: usize| rows[0][index].as_u64().unwrap_or(0);
        let (failed, numbered) = (number(4) - number(2), number(2));
        let absent = number(1) - number(0) + 1 - numbered;
        let is_whole = absent <= failed && numbered == number(3);
        if is_whole && number(1) >= wanted { Ok(()) } else { Err(format!("{wanted} {rows:?}")) }
    })
    .await;
}

/// The spool's disk is full while the database takes rows: nothing is lost, polls go on, and the
/// way back needs nobody.
#[tokio::test]
async fn a_full_disk_under_the_spool_loses_nothing_while_the_database_answers() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let daemon = Daemon::counting().await;
    let config = format!("{}{}", questdb.remote_config(), polled(&daemon));
    let periscope = Periscope::up_remote_spooling_to(&config, &ROOMY, DISK);
    let rig = Rig::remote(periscope, questdb);
    rig.periscope.ready().await;
    let pusher = rig.push(once()).await;
    acknowledges(&pusher, 2_000).await;
    for _ in 0..2 {
        filled_until_told(&rig.periscope).await;
        polls_go_on(&daemon, 20).await;
        rig.periscope.disk().free();
        rig.periscope.well("spool").await;
        acknowledges(&pusher, 2_000).await;
    }
    let pushed = pusher.stop().await;
    assert!(!pushed.in_memory.is_empty(), "the disk was never full for a request");
    let compared = rig.compare(&pushed).await;
    assert_eq!(compared.missing, [0; 0]);
    // Not acknowledged, and yet delivered from memory.
    let lost = pushed.in_memory.difference(&compared.stored).count();
    assert_eq!((lost, rig.counted_as_lost().await), (0, 0));
    assert_no_poll_lost(&rig, &daemon).await;
}

/// Disk full and the database away until even the memory is full: what is lost is counted exactly,
/// and nothing of it was acknowledged.
#[tokio::test]
async fn what_a_full_disk_and_a_full_memory_lose_is_counted_exactly() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let daemon = Daemon::counting().await;
    let proxy = Proxy::to(questdb.http_port).await;
    let config = format!("{}{}", questdb.remote_config_at(proxy.port), polled(&daemon));
    let settings = ["spool.min_free=0", "spool.max_bytes=\"32MiB\""];
    let periscope = Periscope::up_remote_spooling_to(&config, &settings, DISK);
    let rig = Rig::remote(periscope, questdb);
    rig.periscope.ready().await;
    let pusher = rig.push(Load { padding: 250, rows: 500, ..once() }).await;
    acknowledges(&pusher, 2_000).await;
    proxy.faults.refuse.store(true, Ordering::SeqCst);
    proxy.cut_all();
    filled_until_told(&rig.periscope).await;
    rig.periscope.told("spool", "memory_ring").await;
    polls_go_on(&daemon, 20).await;
    rig.periscope.disk().free();
    proxy.faults.refuse.store(false, Ordering::SeqCst);
    until("rows on disk again", Duration::from_secs(60), || async {
        let told = rig.periscope.status().await?["parts"]["spool"].to_string();
        if told.contains("No space left") { Err(told) } else { Ok(()) }
    })
    .await;
    acknowledges(&pusher, 2_000).await;
    let pushed = pusher.stop().await;
    let compared = rig.compare(&pushed).await;
    assert_eq!(compared.missing, [0; 0], "what was acknowledged is on disk");
    let lost = pushed.in_memory.difference(&compared.stored).count();
    assert!(lost > 0, "the memory never overflowed");
    assert_counted(&rig, u64::try_from(lost).unwrap(), "memory_ring").await;
}

/// The largest size of the spool is reached: the oldest rows go, and exactly they are counted.
#[tokio::test]
async fn what_the_cap_drops_is_counted_exactly() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let proxy = Proxy::to(questdb.http_port).await;
    let config = questdb.remote_config_at(proxy.port);
    let rig = Rig::remote(Periscope::up_remote_with(&config, &SMALL), questdb);
    rig.periscope.ready().await;
    let pusher = rig.push(once()).await;
    acknowledges(&pusher, 2_000).await;
    proxy.faults.refuse.store(true, Ordering::SeqCst);
    proxy.cut_all();
    rig.periscope.told("spool", "(cap)").await;
    acknowledges(&pusher, 4_000).await;
    proxy.faults.refuse.store(false, Ordering::SeqCst);
    rig.periscope.ready().await;
    let pushed = pusher.stop().await;
    let missing = rig.compare(&pushed).await.missing;
    assert!(!missing.is_empty(), "nothing was dropped");
    assert!(pushed.in_memory.is_empty());
    assert_counted(&rig, u64::try_from(missing.len()).unwrap(), "cap").await;
}

/// Most rows of a request of a lane that keeps up.
const ONE_REQUEST: u64 = 2_500;

/// `lost` pushed rows are told as lost in `sample_gaps`; the metric holds them too. The one request
/// whose answer was cut may be stored although nobody could know it: when its rows are given up
/// later, they are counted as well.
async fn assert_counted(rig: &Rig, lost: u64, reason: &str) {
    until("the loss to be counted in sample_gaps", Duration::from_secs(30), || async {
        let counted = rig.counted_as_lost().await;
        let is_right = (lost..=lost + ONE_REQUEST).contains(&counted);
        if is_right { Ok(()) } else { Err(format!("{lost} lost, {counted} counted")) }
    })
    .await;
    let metric = format!("periscope_spool_lost_rows_total{{reason=\"{reason}\"}}");
    let counted = rig.periscope.metric(&metric).await.unwrap();
    println!("{lost} rows lost, {counted} counted for all tables");
    // Rows of the host and of polls may be among them.
    let all = rig.number("select sum(rows) from sample_gaps").await;
    assert!(counted >= lost as f64 && (counted - all as f64).abs() < 0.5, "{counted} {all}");
}

/// The spool's folder turns read-only under the running program, in both ways it can.
#[tokio::test]
async fn a_read_only_spool_degrades_and_comes_back() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let daemon = Daemon::counting().await;
    let config = format!("{}{}", questdb.remote_config(), polled(&daemon));
    let periscope = Periscope::up_remote_spooling_to(&config, &ROOMY, DISK);
    let rig = Rig::remote(periscope, questdb);
    rig.periscope.ready().await;
    let pusher = rig.push(once()).await;
    acknowledges(&pusher, 2_000).await;

    // Another file system comes to lie over the folder.
    let above = Tmpfs::mount_with(&rig.periscope.data().join("spool"), "size=1m,ro");
    rig.periscope.told("spool", "Read-only file system").await;
    polls_go_on(&daemon, 20).await;
    drop(above);
    rig.periscope.well("spool").await;
    acknowledges(&pusher, 2_000).await;

    // The same files, but nothing can be made among them.
    let above = Tmpfs::read_only(&rig.periscope.data().join("spool"));
    rig.periscope.told("spool", "Read-only file system").await;
    polls_go_on(&daemon, 20).await;
    drop(above);
    rig.periscope.well("spool").await;
    acknowledges(&pusher, 2_000).await;

    let pushed = pusher.stop().await;
    assert!(!pushed.in_memory.is_empty(), "no request met the read-only disk");
    let compared = rig.compare(&pushed).await;
    assert_eq!(compared.missing, [0; 0]);
    assert_eq!(pushed.in_memory.difference(&compared.stored).count(), 0);
    assert_no_poll_lost(&rig, &daemon).await;
    assert!(!rig.periscope.log().contains("panicked"), "{}", rig.periscope.log());
}

/// Deletes `folder` while a program writes there: a file that appears behind the deletion leaves it
/// not empty, and the deletion is repeated.
fn delete(folder: &Path) {
    let is_deleted = (0..100).any(|_| match fs::remove_dir_all(folder) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty, "{}: {error}", folder.display());
            false
        }
    });
    assert!(is_deleted, "{} fills up faster than it is deleted", folder.display());
}

/// The folder is deleted under the running program: made again, and what is lost with it is
/// counted exactly.
#[tokio::test]
async fn a_deleted_spool_folder_is_made_again() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let daemon = Daemon::counting().await;
    let proxy = Proxy::to(questdb.http_port).await;
    let config = format!("{}{}", questdb.remote_config_at(proxy.port), polled(&daemon));
    let settings = ["spool.min_free=0", "spool.max_bytes=\"64MiB\""];
    let rig = Rig::remote(Periscope::up_remote_with(&config, &settings), questdb);
    rig.periscope.ready().await;
    let spool = rig.periscope.data().join("spool");
    let pusher = rig.push(Load { padding: 250, ..once() }).await;
    acknowledges(&pusher, 2_000).await;
    delete(&spool);
    acknowledges(&pusher, 2_000).await;
    polls_go_on(&daemon, 10).await;
    rig.periscope.well("spool").await;
    assert!(fs::read_dir(&spool).unwrap().count() > 0, "{} is not used", spool.display());

    // With a backlog in several files: of those that are complete only the newest rows are in
    // memory too; the others are gone for good, and counted.
    proxy.faults.refuse.store(true, Ordering::SeqCst);
    proxy.cut_all();
    until("a backlog beyond what is in memory", Duration::from_secs(90), || async {
        let bytes = rig.periscope.status().await?["spool"]["bytes"].as_u64().unwrap();
        if bytes > 20 << 20 { Ok(()) } else { Err(bytes.to_string()) }
    })
    .await;
    let segments = fs::read_dir(&spool).unwrap().count();
    delete(&spool);
    acknowledges(&pusher, 2_000).await;
    proxy.faults.refuse.store(false, Ordering::SeqCst);
    rig.periscope.ready().await;
    acknowledges(&pusher, 2_000).await;
    let pushed = pusher.stop().await;
    let missing = rig.compare(&pushed).await.missing.len();
    println!("{segments} files deleted");
    assert!(missing > 0, "the deletion met no complete segment");
    // Of a file that is gone only the number of its rows is known, not whose they were. The first
    // polls may be among them, when the server took its first rows late.
    let polls = "select max(fetch_count) - count(fetch_count) \
                 from daemon_metrics where daemon = 'counter'";
    let others = rig.number(polls).await + HEALTH_ROWS;
    let missing = u64::try_from(missing).unwrap();
    let counted = rig.counted_as_lost().await;
    println!("{missing} pushed rows lost, {counted} counted, at most {others} of other tables");
    assert!((missing..=missing + others).contains(&counted));
    assert!(!rig.periscope.log().contains("panicked"), "{}", rig.periscope.log());
}

/// Room for the database: tables and views of this program alone take 1 GiB before there are rows.
const DATABASE_DISK: u64 = 2 << 30;
/// What must be free again after the fault, so that every suspended table can go on at once.
const DATABASE_ROOM: u64 = 512 << 20;

/// The database's own disk is full: rows wait or are not visible, and everything is there once it
/// has space again, without anybody's help.
#[tokio::test]
async fn a_full_disk_under_the_database_costs_delay_only() {
    let folder = tempfile::Builder::new().prefix("periscope-questdb-").tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(&root).unwrap();
    let disk = Tmpfs::mount(&root, DATABASE_DISK);
    let questdb = QuestDb::start_at(VERSIONS[0], root, None).await;
    let daemon = Daemon::counting().await;
    let config = format!("{}{}", questdb.remote_config(), polled(&daemon));
    let mut rig = Rig::remote(Periscope::up_remote(&config), questdb);
    rig.periscope.ready().await;
    let pusher = rig.push(Load::usual(seed())).await;
    acknowledges(&pusher, 4_000).await;
    let taken = disk.fill();
    println!("{taken} bytes taken beside {}", rig.own_questdb().root().display());
    assert!(taken > DATABASE_ROOM, "DATABASE_DISK is too small for what the database takes");
    let told = until("the full disk to be told", Duration::from_secs(90), || async {
        disk.fill();
        let status = rig.periscope.status().await?;
        let told = format!("{} {}", status["parts"]["writer"], status["questdb"]["reason"]);
        if told.contains("degraded") { Ok(told) } else { Err(told) }
    })
    .await;
    println!("told: {told}");
    polls_go_on(&daemon, 20).await;
    acknowledges(&pusher, 10_000).await;
    disk.free();
    // What a service manager does: the server may have ended over it.
    if rig.own_questdb().has_ended() {
        println!("questdb ended on its full disk");
        rig.own_questdb().restart().await;
    }
    rig.periscope.ready().await;
    acknowledges(&pusher, 2_000).await;
    let pushed = pusher.stop().await;
    rig.assert_exactly_once(&pushed).await;
    assert_no_poll_lost(&rig, &daemon).await;
    rig.periscope.well("writer").await;
    drop(rig);
    drop(disk);
}

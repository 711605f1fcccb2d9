//! Kills at random moments under load, and answers that are lost after the commit.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::process::Signal;

use super::rig::Rig;
use crate::support::periscope::{Periscope, VERSIONS, send_signal};
use crate::support::proxy::Proxy;
use crate::support::pusher::Load;
use crate::support::questdb::QuestDb;
use crate::support::scale::{scaled, seed};
use crate::support::wait::until;

#[derive(Clone, Copy, PartialEq)]
enum Victim {
    Periscope,
    QuestDb,
}

/// Kills both at random moments of up to `pause` under 2,000 rows/s.
async fn survives_kills(mut rig: Rig, pause: Duration) {
    let kills = scaled("kills of periscope", 6, 200);
    let kills_of_questdb = scaled("kills of questdb", 3, 50);
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut victims = vec![Victim::Periscope; usize::try_from(kills).unwrap()];
    victims.resize(victims.len() + usize::try_from(kills_of_questdb).unwrap(), Victim::QuestDb);
    random.shuffle(&mut victims);
    rig.periscope.ready().await;
    let pusher = rig.push(Load::usual(seed)).await;
    for victim in victims {
        let pause = random.u64(100..u64::try_from(pause.as_millis()).unwrap());
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match (victim, &mut rig.questdb) {
            (Victim::Periscope, _) => rig.restart().await,
            (Victim::QuestDb, Some(questdb)) => {
                println!("kill questdb, pid {}", questdb.pid());
                questdb.kill();
                questdb.spawn();
            }
            (Victim::QuestDb, None) => {
                let pids = until("a server to kill", Duration::from_secs(90), || {
                    let pids = rig.periscope.questdb_pids();
                    std::future::ready(if pids.is_empty() { Err(pids) } else { Ok(pids) })
                })
                .await;
                assert_eq!(pids.len(), 1, "more than one server on a root");
                send_signal(pids[0], Signal::KILL);
            }
        }
    }
    let before = pusher.acknowledged();
    until("rows after the last kill", Duration::from_secs(30), || {
        let now = pusher.acknowledged();
        std::future::ready(if now > before + 2_000 { Ok(()) } else { Err(now - before) })
    })
    .await;
    let pushed = pusher.stop().await;
    rig.periscope.ready().await;
    rig.assert_exactly_once(&pushed).await;
}

#[tokio::test]
async fn acknowledged_rows_survive_kills_of_both_exactly_once_with_a_remote_server() {
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let periscope = Periscope::up_remote(&questdb.remote_config());
    survives_kills(Rig::remote(periscope, questdb), Duration::from_secs(3)).await;
}

#[tokio::test]
async fn acknowledged_rows_survive_kills_of_both_exactly_once_with_a_managed_server() {
    survives_kills(Rig::managed(""), Duration::from_secs(6)).await;
}

/// The answer is lost after the commit: the rows are sent again and are there once.
#[tokio::test]
async fn answers_lost_after_the_commit_double_nothing() {
    let cuts = scaled("answers cut after the commit", 50, 1_000);
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let proxy = Proxy::to(questdb.http_port).await;
    let periscope = Periscope::up_remote(&questdb.remote_config_at(proxy.port));
    let rig = Rig::remote(periscope, questdb);
    rig.periscope.ready().await;
    let pusher = rig.push(Load::usual(seed())).await;
    proxy.faults.cut_writes.store(cuts, Ordering::SeqCst);
    until("the answers to be cut", Duration::from_secs(20 + 3 * cuts), || {
        let cut = proxy.faults.answers_cut.load(Ordering::SeqCst);
        std::future::ready(if cut >= cuts { Ok(()) } else { Err(cut) })
    })
    .await;
    let pushed = pusher.stop().await;
    rig.assert_exactly_once(&pushed).await;
    let lost_answers = "periscope_write_retries_total{reason=\"connection_lost\"}";
    let counted = rig.periscope.metric(lost_answers).await.unwrap();
    println!("{cuts} answers cut, {counted} counted as lost connections");
    assert!(counted > 0.0);
}

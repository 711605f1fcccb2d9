//! An alert reaches people, once, whatever is down: the real process, daemons that are killed for
//! real, a local receiver.

use std::time::Duration;

use serde_json::Value;

use super::support::alerting_grafana::AlertingGrafana;
use super::support::faulty::{Faulty, Trouble};
use super::support::killable::Killable;
use super::support::periscope::{Periscope, VERSIONS};
use super::support::questdb::QuestDb;
use super::support::receiver::Receiver;
use super::support::wait::until;

/// `daemon_unreachable` after 10 s, messages to `receiver`.
fn config(receiver: &Receiver) -> String {
    format!(
        "[node]\nhost = \"it\"\n[writer]\nflush_interval = \"200ms\"\n\
         [alerts]\nevaluation_interval = \"10s\"\n\
         [[alerts.rule]]\nid = \"daemon_unreachable\"\nfor = \"10s\"\n\
         [notify.webhook]\nurl = \"{}\"\n",
        receiver.url
    )
}

/// A database where nobody listens.
const NOBODY: &str = "[questdb]\nmode = \"remote\"\nhttp = \"http://127.0.0.1:1\"\n\
                      pg = \"127.0.0.1:1\"\n";

fn fact<'a>(message: &'a Value, name: &str) -> &'a str {
    let facts = message["facts"].as_array().unwrap();
    // As pairs or as objects.
    facts
        .iter()
        .find_map(|fact| {
            let found = fact[0].as_str().or(fact["name"].as_str()) == Some(name);
            found.then(|| fact[1].as_str().or(fact["value"].as_str()).unwrap())
        })
        .unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// Waits until every daemon was polled with success.
async fn polled(periscope: &Periscope, count: usize) {
    until("every daemon to be polled", Duration::from_secs(60), || async {
        let status = periscope.status().await?;
        let daemons = status["daemons"].as_array().unwrap();
        let up = daemons.iter().filter(|daemon| daemon["state"] == "up").count();
        if up >= count { Ok(()) } else { Err(format!("{up} up")) }
    })
    .await;
}

/// Waits for `more` further evaluations of all rules.
async fn evaluations(periscope: &Periscope, more: u64) {
    let name = "periscope_alert_evaluations_total{reason=\"own\"}";
    let start = periscope.metric(name).await.unwrap();
    // Three rules are about what only periscope knows.
    let wanted = start + f64::from(u32::try_from(more * 3).unwrap());
    until("further evaluations", Duration::from_secs(120), || async {
        let now = periscope.metric(name).await?;
        if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted}")) }
    })
    .await;
}

/// With the real database: by SQL, as Grafana would, and the history says where it went.
#[tokio::test]
async fn a_killed_daemon_is_told_and_its_return_too() {
    let (mut daemon, receiver) = (Killable::start(), Receiver::start().await);
    let periscope = Periscope::up(&format!("{}{}", config(&receiver), daemon.config(1, "500ms")));
    periscope.ready().await;
    polled(&periscope, 1).await;
    until("the database to be asked", Duration::from_secs(60), || async {
        let asked =
            periscope.metric("periscope_alert_evaluations_total{reason=\"database\"}").await?;
        if asked > 10.0 { Ok(()) } else { Err(asked.to_string()) }
    })
    .await;
    assert_eq!(receiver.taken(), Vec::<Value>::new(), "nothing is wrong yet");
    until("a canary to arrive", Duration::from_secs(120), || async {
        let last = periscope.metric("periscope_canary_hop_seconds{hop=\"journal\"}").await?;
        if last > 0.0 { Ok(()) } else { Err(last.to_string()) }
    })
    .await;
    daemon.kill();
    let firing = receiver.wait("firing", 1, || periscope.log()).await;
    assert_eq!(firing[0]["title"], "d0 on it does not answer");
    assert_eq!(firing[0]["severity"], "critical");
    assert_eq!(fact(&firing[0], "Daemon"), "d0");
    assert_eq!(fact(&firing[0], "Last error"), "venue closed");
    let status = periscope.status().await.unwrap();
    assert_eq!(status["alerts"]["path"], "fallback");
    assert_eq!(status["alerts"]["firing"][0]["rule"], "daemon_unreachable");
    let (code, out, err) = periscope.run(&["alerts", "list"]);
    assert!(code == 0 && out.contains("d0 on it does not answer"), "{out}{err}");
    daemon.restart();
    let resolved = receiver.wait("resolved", 1, || periscope.log()).await;
    assert_eq!(resolved[0]["title"], "d0 on it does not answer");
    assert_ne!(resolved[0]["id"], firing[0]["id"]);
    let id = firing[0]["id"].as_str().unwrap();
    let query = format!(
        "select count() from alert_events where rule = 'daemon_unreachable' and \
         state = 'alerting' and sent_to = 'webhook' and notification = '{id}' and path = 'fallback'"
    );
    periscope.until_count(&query, |count| count == 1).await;
    let (code, out, err) = periscope.run(&["alerts", "history", "--rule", "daemon_unreachable"]);
    assert!(code == 0 && out.contains(id) && out.contains("pending"), "{out}{err}");
    let (code, _, err) = periscope.run(&["alerts", "history", "--rule", "a'b"]);
    assert!(code == 64 && err.contains("letters"), "{code} {err}");
    // That it has restarted is another alert.
    let taken = receiver.taken();
    let told = taken.iter().filter(|message| message["title"] == firing[0]["title"]).count();
    assert_eq!(told, 2, "{taken:?}");
}

#[tokio::test]
async fn with_the_database_down_as_well_a_killed_daemon_is_told_and_a_kill_of_periscope_repeats_nothing()
 {
    let (mut daemon, receiver) = (Killable::start(), Receiver::start().await);
    let config = format!("{NOBODY}{}{}", config(&receiver), daemon.config(2, "500ms"));
    let mut periscope = Periscope::up_remote(&config);
    polled(&periscope, 2).await;
    evaluations(&periscope, 1).await;
    // The message waits in the outbox when periscope is killed.
    receiver.answer(503);
    daemon.kill();
    until("a message in the outbox", Duration::from_secs(120), || async {
        let tried = periscope
            .metric("periscope_alert_deliveries_total{channel=\"webhook\",result=\"retried\"}")
            .await?;
        if tried > 0.0 { Ok(()) } else { Err(tried.to_string()) }
    })
    .await;
    periscope.kill();
    receiver.answer(200);
    periscope.start();
    let firing = receiver.wait("firing", 1, || periscope.log()).await;
    assert_eq!(firing[0]["title"], "Daemon unreachable: 2 alerts fire");
    // It goes on firing, and nobody is told again, through another kill.
    evaluations(&periscope, 2).await;
    periscope.kill();
    periscope.start();
    until("the listener", Duration::from_secs(60), || periscope.status()).await;
    evaluations(&periscope, 2).await;
    let status = periscope.status().await.unwrap();
    let unreachable = status["alerts"]["firing"].as_array().unwrap().iter();
    let unreachable = unreachable.filter(|alert| alert["rule"] == "daemon_unreachable").count();
    assert_eq!(unreachable, 2, "still firing: {}", status["alerts"]);
    assert_eq!(receiver.of_kind("firing").len(), 1, "{:?}", receiver.taken());
    daemon.restart();
    let resolved = receiver.wait("resolved", 1, || periscope.log()).await;
    assert_eq!(resolved[0]["title"], "Daemon unreachable: 2 alerts are over");
    assert_eq!(receiver.of_kind("resolved").len(), 1, "{:?}", receiver.taken());
}

/// The database ends while periscope knows it, and then a daemon and a venue are lost.
#[tokio::test]
async fn with_the_database_killed_a_killed_daemon_and_a_lost_venue_are_told() {
    let receiver = Receiver::start().await;
    let mut daemons = [Faulty::start(Trouble::Killed), Faulty::start(Trouble::Venue)];
    let mut questdb = QuestDb::start(VERSIONS[0]).await;
    let entries: String = daemons.iter().map(|daemon| daemon.config("500ms")).collect();
    let venue = "[[alerts.rule]]\nid = \"exchange_disconnected\"\nseverity = \"warning\"\n\
                 for = \"10s\"\n";
    let alerts = config(&receiver).replace("[notify.webhook]", &format!("{venue}[notify.webhook]"));
    let periscope = Periscope::up_remote(&format!("{}{alerts}{entries}", questdb.remote_config()));
    periscope.ready().await;
    polled(&periscope, 2).await;
    evaluations(&periscope, 1).await;
    assert_eq!(receiver.of_kind("firing"), Vec::<Value>::new(), "nothing is wrong yet");
    questdb.kill();
    periscope.told("questdb", "refused").await;
    for daemon in &mut daemons {
        daemon.spoil().await;
    }
    until("both messages", Duration::from_secs(90), || async {
        let told = receiver.of_kind("firing");
        let has = |title: &str| told.iter().any(|message| message["title"] == title);
        let all =
            has("killed on it does not answer") && has("venue on it is not connected to alpha");
        if all { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    for daemon in &mut daemons {
        daemon.heal().await;
    }
    // Still without a database.
    until("both ends", Duration::from_secs(150), || async {
        let told = receiver.of_kind("resolved");
        let has = |title: &str| told.iter().any(|message| message["title"] == title);
        let all =
            has("killed on it does not answer") && has("venue on it is not connected to alpha");
        if all { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_muted_alert_is_told_once_the_mute_ends() {
    let (mut daemon, receiver) = (Killable::start(), Receiver::start().await);
    let config = format!("{NOBODY}{}{}", config(&receiver), daemon.config(1, "500ms"));
    let mut periscope = Periscope::up_remote(&config);
    polled(&periscope, 1).await;
    let (code, out, err) = periscope.run(&["alerts", "mute", "--for", "1h", "--daemon", "d0"]);
    assert!(code == 0 && out.contains("unmute m1"), "{out}{err}");
    let (code, _, err) = periscope.run(&["alerts", "mute", "--for", "1h", "--rule", "nonsense"]);
    assert!(code == 1 && err.contains("no rule \"nonsense\""), "{code} {err}");
    daemon.kill();
    until("it to fire", Duration::from_secs(120), || async {
        let status = periscope.status().await?;
        let firing = status["alerts"]["firing"].clone();
        if firing.as_array().is_some_and(|list| !list.is_empty()) {
            Ok(())
        } else {
            Err(firing.to_string())
        }
    })
    .await;
    // A mute outlives a restart.
    periscope.kill();
    periscope.start();
    until("the listener", Duration::from_secs(60), || periscope.status()).await;
    evaluations(&periscope, 2).await;
    assert_eq!(receiver.taken(), Vec::<Value>::new());
    let (code, out, err) = periscope.run(&["alerts", "unmute", "m1"]);
    assert!(code == 0 && out.contains("mutes ended: 1"), "{out}{err}");
    receiver.wait("firing", 1, || periscope.log()).await;
}

/// Fault matrix, row 38.
#[tokio::test]
async fn five_hundred_daemons_killed_at_once_are_at_most_two_messages() {
    let (mut daemon, receiver) = (Killable::start(), Receiver::start().await);
    let config = format!("{NOBODY}{}{}", config(&receiver), daemon.config(500, "5s"));
    let periscope = Periscope::up_remote(&config);
    polled(&periscope, 500).await;
    daemon.kill();
    receiver.wait("firing", 1, || periscope.log()).await;
    let all_told = || async {
        let status = periscope.status().await?;
        let firing = status["alerts"]["firing"].as_array().unwrap().clone();
        let told = firing
            .iter()
            .filter(|alert| alert["rule"] == "daemon_unreachable" && !alert["told_at"].is_null());
        let told = told.count();
        if told == 500 { Ok(()) } else { Err(format!("{told} of {}", firing.len())) }
    };
    until("all to be told", Duration::from_secs(120), all_told).await;
    evaluations(&periscope, 2).await;
    let messages = receiver.of_kind("firing");
    assert!(messages.len() <= 2, "{messages:?}");
    let told: u64 = messages
        .iter()
        .map(|message| {
            let title = message["title"].as_str().unwrap();
            let words = title.strip_prefix("Daemon unreachable: ");
            words.map_or(1, |words| words.split(' ').next().unwrap().parse().unwrap())
        })
        .sum();
    assert_eq!(told, 500);
}

/// Waits until `path` sends.
async fn sent_by(periscope: &Periscope, path: &str) {
    until(&format!("{path} to send"), Duration::from_secs(120), || async {
        let alerts = periscope.status().await?["alerts"].clone();
        if alerts["path"] == path { Ok(()) } else { Err(alerts.to_string()) }
    })
    .await;
}

/// The rules are warm: what Grafana has not told when it goes away is told at once.
#[tokio::test]
async fn a_grafana_that_answers_500_is_stood_in_for_and_gets_its_work_back() {
    let (mut daemon, receiver) = (Killable::start(), Receiver::start().await);
    let grafana = AlertingGrafana::start().await;
    let config = format!(
        "{NOBODY}[grafana]\nmode = \"remote\"\nurl = \"{}\"\n{}{}",
        grafana.url,
        config(&receiver).replace("[alerts]\n", "[alerts]\ntakeover_after = \"5s\"\n"),
        daemon.config(1, "500ms")
    );
    let periscope = Periscope::up_beside(&config);
    polled(&periscope, 1).await;
    sent_by(&periscope, "grafana").await;
    daemon.kill();
    until("it to fire", Duration::from_secs(120), || async {
        let firing = periscope.status().await?["alerts"]["firing"].clone();
        let fires = firing.as_array().unwrap().iter().any(|a| a["rule"] == "daemon_unreachable");
        if fires { Ok(()) } else { Err(firing.to_string()) }
    })
    .await;
    evaluations(&periscope, 1).await;
    assert_eq!(receiver.taken(), Vec::<Value>::new(), "Grafana tells of it");
    grafana.set_broken(true);
    let start = std::time::Instant::now();
    let firing = receiver.wait("firing", 1, || periscope.log()).await;
    println!("told {:?} after Grafana broke, takeover_after 5s", start.elapsed());
    assert_eq!(firing[0]["title"], "d0 on it does not answer");
    let notices = receiver.wait("notice", 1, || periscope.log()).await;
    assert_eq!(notices[0]["title"], "periscope sends alerts now, because Grafana does not");
    grafana.set_broken(false);
    sent_by(&periscope, "grafana").await;
    let notices = receiver.wait("notice", 2, || periscope.log()).await;
    assert_eq!(notices[1]["title"], "Grafana sends alerts again");
    let silences = grafana.silences();
    assert!(silences.iter().any(|silence| silence.contains("daemon_unreachable")), "{silences:?}");
    evaluations(&periscope, 1).await;
    let of_daemon = |kind: &str| {
        let told = receiver.of_kind(kind).into_iter();
        told.filter(|message| message["title"] == "d0 on it does not answer").count()
    };
    assert_eq!(of_daemon("firing"), 1, "{:?}", receiver.taken());
    daemon.restart();
    until("the end to be told", Duration::from_secs(120), || {
        let told = of_daemon("resolved");
        std::future::ready(if told == 1 { Ok(()) } else { Err(receiver.taken()) })
    })
    .await;
}

/// The dead man's switch is fed while all is well.
#[tokio::test]
async fn heartbeats_are_sent() {
    let receiver = Receiver::start().await;
    let config = format!(
        "{NOBODY}[node]\nhost = \"it\"\n[heartbeat]\nurls = [\"{}\"]\ninterval = \"10s\"\n",
        receiver.url
    );
    let periscope = Periscope::up_remote(&config);
    until("two heartbeats", Duration::from_secs(90), || async {
        let sent = periscope.metric("periscope_heartbeats_total{reason=\"sent\"}").await?;
        if sent >= 2.0 { Ok(()) } else { Err(sent.to_string()) }
    })
    .await;
    assert!(receiver.taken().len() >= 2);
}

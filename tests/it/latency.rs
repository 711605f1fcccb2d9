//! From the moment that something goes wrong to the message on a phone: the real process, a real
//! database, daemons with real faults, a local Telegram.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::support::faulty::{Faulty, Trouble};
use super::support::periscope::{Periscope, VERSIONS};
use super::support::questdb::QuestDb;
use super::support::scale::scaled;
use super::support::telegram::{CHAT, TOKEN, Telegram};
use super::support::wait::until;

const POLL: Duration = Duration::from_millis(500);
/// `for` of every rule here.
const HOLD: Duration = Duration::from_secs(10);
/// A venue is silent once it was so for this long: its usual gap is far shorter.
const FLOOR: Duration = Duration::from_secs(40);
/// Window of the errors for each fetch.
const WINDOW: Duration = Duration::from_secs(20);
/// What a message may take beyond poll interval and `for`: promised, and judged at full scale.
const ALLOWED: Duration = Duration::from_secs(2);
/// What it takes when no look between two evaluations finds the fault: looks are rare on a machine
/// that is busy with other tests, or in a program that is not optimised.
const EVALUATION: Duration = Duration::from_secs(20);
/// Rounds of one instance: a group of alerts has six messages in five minutes, and two of these
/// faults are of one rule.
const ROUNDS: usize = 3;
/// Instances at a time.
const LANES: u64 = 9;

fn config(telegram: &Telegram, questdb: &QuestDb, lane: u64) -> String {
    format!(
        "[node]\nhost = \"lane-{lane}\"\n{}[collect]\ninterval = \"500ms\"\n[alerts]\n\
         [[alerts.rule]]\nid = \"daemon_unreachable\"\nfor = \"10s\"\n\
         [[alerts.rule]]\nid = \"event_loop_blocked\"\nfor = \"10s\"\nkeep_firing = \"0s\"\n\
         [[alerts.rule]]\nid = \"daemon_error_ratio\"\nfor = \"10s\"\nkeep_firing = \"0s\"\n\
         window = \"20s\"\n\
         [[alerts.rule]]\nid = \"exchange_disconnected\"\nseverity = \"warning\"\nfor = \"10s\"\n\
         [[alerts.rule]]\nid = \"exchange_silent\"\nthreshold = 2\nfor = \"10s\"\n\
         [notify.telegram]\ntoken = \"{TOKEN}\"\nchat_id = {CHAT}\napi_url = \"{}\"\n",
        questdb.remote_config(),
        telegram.url(),
    )
}

/// What the message about a fault says, and no other.
const fn words(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Killed => "killed on lane-# does not answer",
        Trouble::Stopped => "stopped on lane-# does not answer",
        Trouble::Blocked => "The event loop of blocked on lane-# is blocked",
        Trouble::Failing => "failing on lane-# fails at what it does",
        Trouble::Venue => "venue on lane-# is not connected to alpha",
        Trouble::Silent => "alpha sends nothing to silent on lane-#, though connected",
    }
}

/// How many messages have `words` and say (or do not) that something is over.
fn count(telegram: &Telegram, words: &str, over: bool) -> usize {
    let told = telegram.sent();
    let is_over = |text: &str| text.contains("Lasted") || text.contains("are over");
    told.iter().filter(|sent| sent.text.contains(words) && is_over(&sent.text) == over).count()
}

/// One periscope, its daemons and its chat.
struct Lane {
    number: u64,
    telegram: Telegram,
    daemons: BTreeMap<Trouble, Faulty>,
    periscope: Periscope,
}

impl Lane {
    async fn start(questdb: &QuestDb, number: u64) -> Self {
        let telegram = Telegram::start().await;
        let with_http = Trouble::ALL.into_iter().filter(|trouble| *trouble != Trouble::Blocked);
        let mut daemons: BTreeMap<Trouble, Faulty> =
            with_http.map(|trouble| (trouble, Faulty::start(trouble))).collect();
        let entries: String = daemons.values().map(|daemon| daemon.config("500ms")).collect();
        let config = format!("{}{entries}", config(&telegram, questdb, number));
        let periscope = Periscope::up_remote(&config);
        until("the listener", Duration::from_secs(60), || periscope.status()).await;
        daemons.insert(Trouble::Blocked, Faulty::start_loop(&periscope));
        until("every daemon to be polled", Duration::from_secs(60), || async {
            let status = periscope.status().await?;
            let daemons = status["daemons"].as_array().unwrap();
            let up = daemons.iter().filter(|daemon| daemon["state"] == "up").count();
            if up == Trouble::ALL.len() { Ok(()) } else { Err(format!("{up} up")) }
        })
        .await;
        periscope.ready().await;
        // What is a mean over a window is found at once when all of the window was seen.
        tokio::time::sleep(WINDOW + Duration::from_secs(2)).await;
        Self { number, telegram, daemons, periscope }
    }

    fn words(&self, trouble: Trouble) -> String {
        words(trouble).replace('#', &self.number.to_string())
    }

    /// Since when `trouble` counts, after its daemon was spoilt.
    const fn delay(trouble: Trouble) -> Duration {
        match trouble {
            Trouble::Silent => FLOOR,
            // The shim says so of a loop that is a second late.
            Trouble::Blocked => Duration::from_secs(1),
            Trouble::Killed | Trouble::Stopped | Trouble::Failing | Trouble::Venue => {
                Duration::ZERO
            }
        }
    }

    /// Spoils and heals every daemon; returns how long each message took beyond its `for`.
    async fn round(&mut self, round: usize) -> Vec<(Trouble, Duration)> {
        let mut since = BTreeMap::new();
        for (trouble, daemon) in &mut self.daemons {
            if *trouble == Trouble::Stopped {
                // Both are of one rule; together they would be one message.
                tokio::time::sleep(HOLD).await;
            }
            since.insert(*trouble, daemon.spoil().await);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let mut told = Vec::new();
        let started = Instant::now();
        while told.len() < Trouble::ALL.len() {
            for trouble in Trouble::ALL {
                let is_new = !told.iter().any(|(known, _)| *known == trouble);
                let words = self.words(trouble);
                if is_new && count(&self.telegram, &words, false) > round {
                    let due = HOLD + Self::delay(trouble);
                    let took = since[&trouble].elapsed().saturating_sub(due);
                    told.push((trouble, took));
                }
            }
            assert!(
                started.elapsed() < Duration::from_secs(90),
                "told only {told:?}\n{:?}\n{}",
                self.telegram.sent(),
                self.periscope.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for daemon in self.daemons.values_mut() {
            daemon.heal().await;
        }
        for trouble in Trouble::ALL {
            let words = self.words(trouble);
            until(&format!("the end of {words}"), Duration::from_secs(90), || {
                let over = count(&self.telegram, &words, true);
                let told = self.telegram.sent();
                std::future::ready(if over > round { Ok(()) } else { Err(format!("{told:?}")) })
            })
            .await;
            let messages = count(&self.telegram, &words, false);
            assert_eq!(messages, round + 1, "{:?}", self.telegram.sent());
        }
        assert_eq!(self.telegram.refused(), Vec::<String>::new());
        told
    }
}

/// Fault matrix, rows 29 to 34. Beyond its `for` time a message takes the time until the next poll
/// and two seconds at most.
#[tokio::test]
async fn every_kind_of_fault_is_told_apart_and_in_time() {
    let runs = scaled("instances of each lane, with three rounds", 0, 2);
    let questdb = QuestDb::start(VERSIONS[0]).await;
    let mut all: BTreeMap<Trouble, Vec<Duration>> = BTreeMap::new();
    let lanes = (0..if runs == 0 { 1 } else { LANES }).map(|lane| {
        let questdb = &questdb;
        async move {
            let mut told = Vec::new();
            for run in 0..runs.max(1) {
                let mut lane = Lane::start(questdb, lane * 100 + run).await;
                for round in 0..if runs == 0 { 1 } else { ROUNDS } {
                    told.extend(lane.round(round).await);
                }
            }
            told
        }
    });
    for (trouble, took) in futures_util::future::join_all(lanes).await.into_iter().flatten() {
        all.entry(trouble).or_default().push(took);
    }
    println!("beyond `for`, polls every {POLL:?}:   runs  median    p99");
    for (trouble, times) in &mut all {
        times.sort();
        let median = times[times.len() / 2];
        let p99 = times[(times.len() * 99).div_ceil(100) - 1];
        println!("{:>30} {:>6} {median:>7.2?} {p99:>7.2?}", trouble.name(), times.len());
        let timeout = if *trouble == Trouble::Stopped {
            // That it does not answer is known once the poll has waited for it.
            Duration::from_millis(400)
        } else {
            Duration::ZERO
        };
        let allowed = if runs == 0 { EVALUATION } else { ALLOWED };
        assert!(p99 <= POLL + allowed + timeout, "{}: {p99:?}", trouble.name());
    }
}

//! A thousand alerts, a Telegram that fails in every way, a periscope that is killed every ten
//! seconds: the real process and a real database.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::support::fleet::{Fleet, VENUES};
use super::support::periscope::{Periscope, VERSIONS};
use super::support::questdb::QuestDb;
use super::support::scale::{scaled, seed};
use super::support::site::Fault;
use super::support::telegram::{CHAT, TOKEN, Telegram};
use super::support::wait::until;

/// Time between two kills.
const LIFE: Duration = Duration::from_secs(10);
/// Time between two daemons that go bad or well: their alerts are messages of their own.
const PACE: Duration = Duration::from_secs(3);

/// One rule for each daemon, so that every ten alerts are a message that names them all.
fn config(telegram: &Telegram, questdb: &QuestDb, fleet: &Fleet, daemons: usize) -> String {
    let mut text = format!(
        "[node]\nhost = \"it\"\n{}[writer]\nflush_interval = \"200ms\"\n[alerts]\n\
         [[alerts.rule]]\nid = \"exchange_disconnected\"\nenabled = false\n\
         [[alerts.rule]]\nid = \"exchange_silent\"\nenabled = false\n\
         [notify.telegram]\ntoken = \"{TOKEN}\"\nchat_id = {CHAT}\napi_url = \"{}\"\n{}",
        questdb.remote_config(),
        telegram.url(),
        fleet.config(daemons, "1s"),
    );
    for n in 0..daemons {
        write!(
            text,
            "[[alerts.rule]]\nid = \"away_{n}\"\ntable = \"exchange_status\"\n\
             by = [\"env\", \"host\", \"daemon\", \"exchange\"]\nwhere = {{ daemon = \"d{n}\" }}\n\
             aggregate = \"lasted\"\nstate = {{ connected = false }}\nwindow = \"1h\"\n\
             comparison = \"above\"\nunit = \"seconds\"\nseverity = \"warning\"\nthreshold = 0\n\
             summary = \"{{{{ $labels.daemon }}}}-{{{{ $labels.exchange }}}} is away\"\n"
        )
        .unwrap();
    }
    text
}

/// Three requests of ten fail: with 500, with 429 and a pause, cut before or after they were taken.
/// Between `from` and `to` every connection is cut.
fn haunt(telegram: &Telegram, from: Duration, to: Duration, lost: Arc<AtomicUsize>) {
    let mut random = fastrand::Rng::with_seed(seed());
    let start = Instant::now();
    telegram.site.set_chance(Box::new(move |path| {
        if !path.to_lowercase().contains("sendmessage") {
            return None;
        }
        let time = start.elapsed();
        if time > from && time < to {
            return Some(Fault::Cut);
        }
        match random.u8(0..20) {
            0 | 1 => Some(Fault::status(500, "Internal Server Error")),
            2 => Some(Fault::Answer {
                status: 429,
                headers: Vec::new(),
                body: r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 2","parameters":{"retry_after":2}}"#.to_owned(),
            }),
            3 | 4 => Some(Fault::Cut),
            5 => {
                lost.fetch_add(1, Ordering::SeqCst);
                Some(Fault::Lost)
            }
            _ => None,
        }
    }));
}

/// What was told of the alerts: name of the alert → moments (numbers of messages) and ids.
#[derive(Default)]
struct Told {
    firing: BTreeMap<String, Vec<(usize, String)>>,
    over: BTreeMap<String, Vec<(usize, String)>>,
    ids: BTreeMap<String, usize>,
}

fn told(telegram: &Telegram) -> Told {
    let mut told = Told::default();
    let name = regex::Regex::new(r"d\d+-v\d+ is away").unwrap();
    let id = regex::Regex::new(r"\nid (\w+) ").unwrap();
    for (number, sent) in telegram.sent().into_iter().enumerate() {
        let id = id.captures(&sent.text).map(|found| found[1].to_owned()).unwrap_or_default();
        *told.ids.entry(id.clone()).or_default() += 1;
        let is_over = sent.text.contains("Lasted") || sent.text.contains("are over");
        let list = if is_over { &mut told.over } else { &mut told.firing };
        for found in name
            .find_iter(&sent.text)
            .map(|found| found.as_str().to_owned())
            .collect::<BTreeSet<_>>()
        {
            list.entry(found).or_default().push((number, id.clone()));
        }
    }
    told
}

async fn until_told(
    what: &str,
    wanted: usize,
    telegram: &Telegram,
    count: impl Fn(&Told) -> usize,
) {
    until(what, Duration::from_secs(900), || {
        let found = count(&told(telegram));
        std::future::ready(if found == wanted {
            Ok(())
        } else {
            Err(format!("{found} of {wanted}"))
        })
    })
    .await;
}

/// Fault matrix, rows 39 to 43.
#[tokio::test]
async fn a_thousand_alerts_arrive_through_a_failing_telegram_and_kills() {
    let daemons = usize::try_from(scaled("daemons with ten alerts", 5, 100)).unwrap();
    let gone = Duration::from_secs(scaled("seconds without Telegram", 12, 120));
    let (questdb, telegram) = (QuestDb::start(VERSIONS[0]).await, Telegram::start().await);
    let (fleet, lost) = (Fleet::start(), Arc::new(AtomicUsize::new(0)));
    let mut periscope = Periscope::up_remote(&config(&telegram, &questdb, &fleet, daemons));
    periscope.ready().await;
    until("every daemon to be polled", Duration::from_secs(120), || async {
        let status = periscope.status().await?;
        let up =
            status["daemons"].as_array().unwrap().iter().filter(|d| d["state"] == "up").count();
        if up == daemons { Ok(()) } else { Err(format!("{up} up")) }
    })
    .await;
    // In the midst of it.
    let from = PACE.mul_f64(daemons as f64 / 3.0);
    haunt(&telegram, from, from + gone, Arc::clone(&lost));
    let wanted = daemons * VENUES;
    let (done, mut kills) = (AtomicBool::new(false), 0);
    let driving = async {
        for bad in [true, false] {
            for daemon in 0..daemons {
                fleet.switch(daemon, bad).await;
                tokio::time::sleep(PACE).await;
            }
            if bad {
                until_told("all that fires", wanted, &telegram, |told| told.firing.len()).await;
            } else {
                until_told("all ends", wanted, &telegram, |told| told.over.len()).await;
            }
        }
        done.store(true, Ordering::SeqCst);
    };
    let killing = async {
        while !done.load(Ordering::SeqCst) {
            tokio::time::sleep(LIFE).await;
            periscope.kill();
            kills += 1;
            periscope.start();
        }
    };
    tokio::join!(driving, killing);
    // For what would come twice.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let told = told(&telegram);
    for (name, firing) in &told.firing {
        let over = &told.over[name];
        let distinct =
            |all: &[(usize, String)]| all.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len();
        assert_eq!((distinct(firing), distinct(over)), (1, 1), "{name}: {firing:?} {over:?}");
        let (last, first) = (firing.last().unwrap().0, over[0].0);
        assert!(last < first, "{name}: its end came before: {firing:?} {over:?}");
    }
    let doubled: usize = told.ids.values().map(|count| count - 1).sum();
    let lost = lost.load(Ordering::SeqCst);
    println!(
        "{wanted} alerts and their ends in {} messages, {kills} kills, {lost} answers lost after \
         they were taken: {doubled} came twice, each with its id",
        telegram.sent().len()
    );
    // Nobody can know that a message was taken whose answer is lost, or whose mark a kill prevents.
    assert!(doubled <= lost + kills, "{doubled} doubled, {lost} lost answers, {kills} kills");
    assert_eq!(telegram.refused(), Vec::<String>::new());
}

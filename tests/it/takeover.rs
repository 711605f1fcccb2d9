//! Grafana is a child and fails in one of four ways while an alert fires that it has not told of: the
//! real process, a stand-in for Grafana's, a daemon that is killed for real.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::support::grafana::StandIn;
use super::support::killable::Killable;
use super::support::periscope::{Periscope, send_signal};
use super::support::receiver::Receiver;
use super::support::wait::until;

/// `alerts.takeover_after`.
const TAKEOVER: Duration = Duration::from_secs(10);
/// What the first message may take beyond it.
const ALLOWED: Duration = Duration::from_secs(2);
/// Rules are evaluated every ten seconds: only after that is one missed.
const EVALUATION: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Failing {
    Killed,
    Stopped,
    /// Answers 500.
    Broken,
    /// Answers, and evaluates no more.
    Stalled,
}

struct Rig {
    how: Failing,
    stand_in: StandIn,
    daemon: Killable,
    receiver: Receiver,
    periscope: Periscope,
}

impl Rig {
    async fn start(how: Failing) -> Self {
        let (stand_in, daemon) = (StandIn::new(), Killable::start());
        let receiver = Receiver::start().await;
        let config = format!(
            "[node]\nhost = \"it\"\n[writer]\nflush_interval = \"200ms\"\n\
             [questdb]\nmode = \"remote\"\nhttp = \"http://127.0.0.1:1\"\npg = \"127.0.0.1:1\"\n\
             [grafana]\nmode = \"managed\"\nhome = \"{}\"\naddress = \"127.0.0.1:0\"\n\
             [alerts]\ntakeover_after = \"10s\"\n\
             [[alerts.rule]]\nid = \"daemon_unreachable\"\nfor = \"10s\"\n\
             [notify.webhook]\nurl = \"{}\"\n{}",
            stand_in.home().display(),
            receiver.url,
            daemon.config(1, "500ms")
        );
        let periscope = Periscope::up_beside(&config);
        let rig = Self { how, stand_in, daemon, receiver, periscope };
        rig.sent_by("grafana").await;
        rig
    }

    async fn sent_by(&self, path: &str) {
        until(&format!("{path} to send, {:?}", self.how), Duration::from_secs(180), || async {
            let status = self.periscope.status().await?;
            let is_up = status["daemons"][0]["state"] == "up" || path == "fallback";
            let is_ready = status["grafana"]["state"] == "ready" || path == "fallback";
            let found = status["alerts"]["path"] == path && is_up && is_ready;
            if found { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }

    async fn pid(&self) -> u32 {
        let pid = self.periscope.status().await.unwrap()["grafana"]["pid"].as_u64().unwrap();
        u32::try_from(pid).unwrap()
    }

    /// Whether the alert fires by periscope's own book.
    async fn fires(&self) {
        until("the alert to fire", Duration::from_secs(60), || async {
            let firing = self.periscope.status().await?["alerts"]["firing"].clone();
            let found =
                firing.as_array().unwrap().iter().any(|a| a["rule"] == "daemon_unreachable");
            if found { Ok(()) } else { Err(firing.to_string()) }
        })
        .await;
    }

    fn told(&self, kind: &str) -> usize {
        let all = self.receiver.of_kind(kind).into_iter();
        all.filter(|message| message["title"] == "d0 on it does not answer").count()
    }

    /// Runs it all; returns how long the first message took beyond what is promised for `how`.
    async fn run(mut self) -> Duration {
        self.daemon.kill();
        self.fires().await;
        // Long enough for whoever would tell of it wrongly.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(self.told("firing"), 0, "Grafana tells of it: {:?}", self.receiver.taken());
        let begun = Instant::now();
        match self.how {
            Failing::Killed => send_signal(self.pid().await, Signal::KILL),
            Failing::Stopped => send_signal(self.pid().await, Signal::STOP),
            Failing::Broken => self.stand_in.behave(&json!({ "broken": true })),
            Failing::Stalled => self.stand_in.behave(&json!({ "stalled": true })),
        }
        while self.told("firing") == 0 {
            let (log, taken) = (self.periscope.log(), self.receiver.taken());
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?} {taken:?}\n{log}", self.how);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let promised = match self.how {
            // It is known at once.
            Failing::Killed => Duration::ZERO,
            Failing::Stopped | Failing::Broken => TAKEOVER,
            Failing::Stalled => TAKEOVER + EVALUATION,
        };
        let beyond = begun.elapsed().saturating_sub(promised);
        self.stand_in.behave(&json!({}));
        // The one that was stopped is ended by its supervision, and started again.
        self.sent_back().await;
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(self.told("firing"), 1, "{:?}", self.receiver.taken());
        self.daemon.restart();
        until("its end to be told", Duration::from_secs(120), || {
            let told = self.told("resolved");
            let taken = self.receiver.taken();
            std::future::ready(if told == 1 { Ok(()) } else { Err(format!("{taken:?}")) })
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!((self.told("firing"), self.told("resolved")), (1, 1));
        beyond
    }

    /// Waits until Grafana sends again.
    async fn sent_back(&self) {
        until(
            &format!("Grafana to send again, {:?}", self.how),
            Duration::from_secs(180),
            || async {
                let status = self.periscope.status().await?;
                let found = status["alerts"]["path"] == "grafana";
                if found { Ok(()) } else { Err(status["grafana"].to_string()) }
            },
        )
        .await;
    }
}

/// Fault matrix, rows 35 to 37: the rules are warm, one message comes in time, and none twice.
#[tokio::test]
async fn whatever_becomes_of_grafana_the_alert_is_told_in_time_and_once() {
    let all = [Failing::Killed, Failing::Stopped, Failing::Broken, Failing::Stalled];
    let runs = all.map(|how| async move { (how, Rig::start(how).await.run().await) });
    for (how, beyond) in futures_util::future::join_all(runs).await {
        println!("{how:?}: told {beyond:.2?} beyond what is promised, {ALLOWED:?} allowed");
        assert!(beyond <= ALLOWED, "{how:?}: {beyond:?}");
    }
}

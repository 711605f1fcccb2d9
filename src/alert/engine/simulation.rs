//! Days of simulated time: restarts, jumps of the clock, suspends and short delays raise no alarm,
//! and every fault is found, once.

use std::time::Duration;

use super::super::book::Book;
use super::super::message::Kind;
use super::super::noise::tests::{World, daemon};
use crate::base::time::Timestamp;

const DAEMONS: usize = 5;
/// Seconds in which one thing happens.
const SLOT: i64 = 1_200;
const DAY: i64 = 86_400;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Happening {
    Nothing,
    /// periscope is away for so many seconds.
    Restart(i64),
    /// The clock jumps by so many seconds.
    Jump(i64),
    /// The machine sleeps for so many seconds.
    Suspend(i64),
    /// A daemon answers no poll for so many seconds, fewer than the rules allow.
    Hiccup(usize, i64),
    /// A daemon is unreachable for so many seconds.
    Fault(usize, i64),
}

/// What the polls have seen of a daemon, by the wall clock.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Newest row.
    newest: i64,
    /// Newest row that was answered.
    good: i64,
}

struct Day {
    world: World,
    random: fastrand::Rng,
    start: Timestamp,
    /// Wall clock minus true time, seconds.
    offset: i64,
    seen: [Seen; DAEMONS],
    /// No fault before this: rows from before a jump back hide it, in the database too.
    hidden_until: i64,
}

impl Day {
    fn new(seed: u64) -> Self {
        let world = World::new();
        let start = world.now;
        let random = fastrand::Rng::with_seed(seed);
        let seen = [Seen::default(); DAEMONS];
        Self { world, random, start, offset: 0, seen, hidden_until: 0 }
    }

    fn choose(&mut self, time: i64) -> Happening {
        let which = self.random.usize(0..DAEMONS);
        match self.random.u8(0..9) {
            0 => Happening::Restart(self.random.i64(1..700)),
            1 => Happening::Jump(self.random.i64(1..3_600)),
            2 => Happening::Jump(-self.random.i64(1..3_600)),
            3 => Happening::Suspend(self.random.i64(30..700)),
            4 | 5 => Happening::Hiccup(which, self.random.i64(5..25)),
            6 | 7 if time >= self.hidden_until => {
                Happening::Fault(which, self.random.i64(180..600))
            }
            _ => Happening::Nothing,
        }
    }

    /// Polls that take place at `time`, of which those of `bad` fail.
    fn poll(&mut self, time: i64, bad: Option<usize>) {
        let wall = time + self.offset;
        for (index, seen) in self.seen.iter_mut().enumerate() {
            // The newest by its time, as the database orders them.
            seen.newest = seen.newest.max(wall);
            if bad != Some(index) {
                seen.good = seen.good.max(wall);
            }
        }
    }

    fn evaluate(&mut self, time: i64) -> Vec<(Kind, String)> {
        let wall = time + self.offset;
        let rows = |value: &dyn Fn(&Seen) -> i64| {
            let values = self.seen.iter().enumerate();
            values
                .map(|(index, seen)| {
                    (daemon(&format!("d{index}")), f64::from(i32::try_from(value(seen)).unwrap()))
                })
                .collect::<Vec<_>>()
        };
        let down = rows(&|seen| wall - seen.newest);
        let lasted =
            rows(&|seen| if seen.good == seen.newest { 0 } else { (wall - seen.good).max(1) });
        self.world.bad.insert("daemon_down".to_owned(), down);
        self.world.bad.insert("daemon_unreachable".to_owned(), lasted);
        let seconds = |count: i64| Duration::from_secs(count.unsigned_abs());
        let now = if wall >= 0 {
            self.start.plus(seconds(wall))
        } else {
            self.start.minus(seconds(wall))
        };
        // `tick` moves it by ten seconds.
        self.world.now = now.minus(Duration::from_secs(10));
        let entries = self.world.tick();
        entries
            .into_iter()
            .flat_map(|entry| {
                let kind = entry.message.kind;
                entry.alerts.into_iter().map(move |alert| (kind, alert.summary))
            })
            .collect()
    }

    fn restart(&mut self) {
        let text = serde_json::to_string(&self.world.book).unwrap();
        self.world.book = serde_json::from_str::<Book>(&text).unwrap();
    }

    /// Runs one slot; returns what was told in it.
    fn slot(&mut self, begin: i64, happening: Happening) -> Vec<(Kind, String)> {
        let mut told = Vec::new();
        // In the middle of a slot, so that it is over at its end.
        let from = begin + 120;
        let (mut away, mut asleep, mut bad) = (None, None, None);
        match happening {
            Happening::Nothing | Happening::Jump(_) => {}
            Happening::Restart(seconds) => away = Some(from..from + seconds),
            Happening::Suspend(seconds) => asleep = Some(from..from + seconds),
            Happening::Hiccup(which, seconds) | Happening::Fault(which, seconds) => {
                bad = Some((which, from..from + seconds));
            }
        }
        for time in (begin..begin + SLOT).step_by(5) {
            if let Happening::Jump(seconds) = happening
                && time == from
            {
                self.offset += seconds;
                if seconds < 0 {
                    self.hidden_until = time - seconds + 60;
                }
            }
            let gone = [&away, &asleep];
            if gone.iter().any(|range| range.as_ref().is_some_and(|range| range.contains(&time))) {
                continue;
            }
            if away.as_ref().is_some_and(|range| time - 5 < range.end && range.end <= time) {
                self.restart();
            }
            // The first evaluation after an absence comes before the first poll.
            if time % 10 == 0 {
                told.extend(self.evaluate(time));
            }
            let failing = bad.as_ref().filter(|(_, range)| range.contains(&time));
            self.poll(time, failing.map(|(which, _)| *which));
        }
        told
    }
}

/// Fault matrix, rows 42, 43 and 44.
#[test]
fn simulated_days_without_a_false_alarm() {
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut faults, mut others) = (0, 0);
    for seed in first..first + 20 {
        println!("SEED={seed}");
        let mut day = Day::new(seed);
        for begin in (0..DAY).step_by(usize::try_from(SLOT).unwrap()) {
            let happening = day.choose(begin);
            let told = day.slot(begin, happening);
            let Happening::Fault(which, _) = happening else {
                assert_eq!(told, [], "seed {seed}, second {begin}: {happening:?}");
                others += usize::from(happening != Happening::Nothing);
                continue;
            };
            let summary = format!("d{which} on h does not answer");
            let expected = [(Kind::Firing, summary.clone()), (Kind::Resolved, summary)];
            assert_eq!(told, expected, "seed {seed}, second {begin}: {happening:?}");
            faults += 1;
        }
    }
    println!("{faults} faults found, {others} other happenings without a word");
    assert!(faults > 100 && others > 300, "{faults} {others}");
}

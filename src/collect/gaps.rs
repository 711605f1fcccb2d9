//! Gaps in pipelines whose daemon does not tell them: a record counter that has not grown for much
//! longer than it usually takes to. Pure: time is a parameter.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::Timestamp;
use crate::model::status::Pipeline;

/// Spacings of a pipeline that are remembered.
const REMEMBERED: usize = 64;
/// Spacings that must be known before anything is called a gap.
const LEARNED: usize = 16;
/// How many times the usual spacing is a gap.
const FACTOR: u32 = 3;
/// The shortest gap.
const FLOOR: Duration = Duration::from_secs(60);
/// Data that comes when the market makes it: its silence is no gap.
const BY_THE_MARKET: [&str; 1] = ["liquidation"];

type Key = (Arc<str>, Option<Arc<str>>, Arc<str>);

/// The pipelines of one daemon.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    flows: BTreeMap<Key, Flow>,
}

#[derive(Debug)]
struct Flow {
    count: i64,
    /// When the counter was last seen to grow; `None` when it was not looked at without a break.
    grown_at: Option<Timestamp>,
    /// Times between two growths, newest last; gaps are not among them.
    spacings: VecDeque<Duration>,
    /// Time from which on nothing is a gap; `None` before it is known.
    limit: Option<Duration>,
}

impl Flow {
    /// Takes note of the counter at `at`.
    fn note(&mut self, count: i64, at: Timestamp) {
        // A counter that falls is another process's: its first record comes when it comes.
        if count == self.count && self.grown_at.is_some() {
            return;
        }
        if count > self.count
            && let Some(since) = self.since(at)
            && self.limit.is_none_or(|limit| since <= limit)
        {
            self.spacings.push_back(since);
            if self.spacings.len() > REMEMBERED {
                self.spacings.pop_front();
            }
            self.limit = limit(&self.spacings);
        }
        self.count = count;
        self.grown_at = Some(at);
    }

    fn since(&self, at: Timestamp) -> Option<Duration> {
        self.grown_at.map(|grown_at| at.since(grown_at))
    }
}

fn limit(spacings: &VecDeque<Duration>) -> Option<Duration> {
    if spacings.len() < LEARNED {
        return None;
    }
    let mut sorted: Vec<_> = spacings.iter().copied().collect();
    sorted.sort_unstable();
    // Not the longest: one odd wait must not hide the gaps of the next hours.
    let usual = sorted.into_iter().rev().nth(1)?;
    Some(usual.saturating_mul(FACTOR).max(FLOOR))
}

impl Gaps {
    /// Completes those of `pipelines` that do not tell themselves whether data is missing.
    pub(super) fn complete(&mut self, pipelines: &mut [Pipeline], at: Timestamp) {
        let key = |one: &Pipeline| {
            (Arc::clone(&one.exchange), one.symbol.clone(), Arc::clone(&one.data_type))
        };
        for pipeline in &mut *pipelines {
            if pipeline.gap_detected.is_some() || BY_THE_MARKET.contains(&&*pipeline.data_type) {
                continue;
            }
            let Some(count) = pipeline.records_count else { continue };
            let fresh =
                || Flow { count, grown_at: Some(at), spacings: VecDeque::new(), limit: None };
            let flow = self.flows.entry(key(pipeline)).or_insert_with(fresh);
            flow.note(count, at);
            let (Some(since), Some(limit)) = (flow.since(at), flow.limit) else { continue };
            let is_gap = since > limit;
            pipeline.gap_detected = Some(is_gap);
            pipeline.gap_duration_seconds = Some(if is_gap { since.as_secs_f64() } else { 0.0 });
        }
        if self.flows.len() > pipelines.len() {
            self.flows.retain(|known, _| pipelines.iter().any(|one| key(one) == *known));
        }
    }

    /// Takes note that nothing was seen of the daemon: what its counters did meanwhile took nobody
    /// knows how long.
    pub(super) fn interrupt(&mut self) {
        for flow in self.flows.values_mut() {
            flow.grown_at = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_795_492_800_000 + second * 1000)
    }

    fn pipeline(data_type: &str, count: i64) -> Pipeline {
        Pipeline {
            exchange: "okx".into(),
            data_type: data_type.into(),
            symbol: Some("BTC".into()),
            records_count: Some(count),
            error_count: None,
            bytes_written: None,
            latency_ms: None,
            gap_detected: None,
            gap_duration_seconds: None,
        }
    }

    fn see(
        gaps: &mut Gaps,
        data_type: &str,
        count: i64,
        second: i64,
    ) -> (Option<bool>, Option<f64>) {
        let mut seen = [pipeline(data_type, count)];
        gaps.complete(&mut seen, at(second));
        (seen[0].gap_detected, seen[0].gap_duration_seconds)
    }

    /// Polled every 5 s, a record every 60 s: returns the memory after `minutes`.
    fn learned(minutes: i64) -> Gaps {
        let mut gaps = Gaps::default();
        for second in (0..minutes * 60).step_by(5) {
            see(&mut gaps, "oi", second / 60, second);
        }
        gaps
    }

    #[test]
    fn a_gap_is_three_times_the_usual_wait_and_lasts_until_the_next_record() {
        let mut gaps = learned(20);
        let last = 19 * 60;
        assert_eq!(see(&mut gaps, "oi", 19, last + 180), (Some(false), Some(0.0)));
        assert_eq!(see(&mut gaps, "oi", 19, last + 185), (Some(true), Some(185.0)));
        assert_eq!(see(&mut gaps, "oi", 19, last + 900), (Some(true), Some(900.0)));
        assert_eq!(see(&mut gaps, "oi", 20, last + 905), (Some(false), Some(0.0)));
        // The gap itself has taught nothing.
        assert_eq!(see(&mut gaps, "oi", 20, last + 905 + 185), (Some(true), Some(185.0)));
    }

    #[test]
    fn nothing_is_a_gap_before_the_usual_wait_is_known_nor_below_a_minute() {
        let mut gaps = learned(8);
        assert_eq!(see(&mut gaps, "oi", 7, 5_000), (None, None));
        let mut gaps = Gaps::default();
        for second in 0..100 {
            see(&mut gaps, "funding", second, second);
        }
        assert_eq!(see(&mut gaps, "funding", 99, 159), (Some(false), Some(0.0)));
        assert_eq!(see(&mut gaps, "funding", 99, 160), (Some(true), Some(61.0)));
    }

    #[test]
    fn what_the_market_makes_has_no_gaps_and_what_the_daemon_says_stands() {
        let mut gaps = Gaps::default();
        for second in 0..100 {
            see(&mut gaps, "liquidation", second, second);
        }
        assert_eq!(see(&mut gaps, "liquidation", 99, 9_000), (None, None));
        let mut gaps = learned(20);
        let mut said = [Pipeline { gap_detected: Some(false), ..pipeline("oi", 19) }];
        gaps.complete(&mut said, at(9_000));
        assert_eq!((said[0].gap_detected, said[0].gap_duration_seconds), (Some(false), None));
    }

    #[test]
    fn a_restart_and_a_time_without_answers_are_no_gaps() {
        let mut gaps = learned(20);
        // The process starts anew: its counter is lower, its first record takes its time.
        assert_eq!(see(&mut gaps, "oi", 0, 1_200), (Some(false), Some(0.0)));
        assert_eq!(see(&mut gaps, "oi", 0, 1_380), (Some(false), Some(0.0)));
        assert_eq!(see(&mut gaps, "oi", 0, 1_381), (Some(true), Some(181.0)));
        let mut gaps = learned(20);
        gaps.interrupt();
        assert_eq!(see(&mut gaps, "oi", 19, 9_000), (Some(false), Some(0.0)));
        assert_eq!(see(&mut gaps, "oi", 19, 9_181), (Some(true), Some(181.0)));
        let mut gaps = learned(20);
        gaps.interrupt();
        see(&mut gaps, "oi", 50, 9_000);
        assert_eq!(see(&mut gaps, "oi", 50, 9_181), (Some(true), Some(181.0)), "taught nothing");
    }

    #[test]
    fn pipelines_that_are_gone_are_forgotten() {
        let mut gaps = learned(20);
        let mut others = [pipeline("funding", 1)];
        gaps.complete(&mut others, at(1_300));
        assert_eq!(gaps.flows.len(), 1);
    }

    /// Records at random, on average one a minute: over 30 days hardly anything is called a gap.
    #[test]
    fn random_records_cry_no_wolf() {
        let seed = 5;
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut gaps, mut count, mut begun, mut was_gap) = (Gaps::default(), 0, 0, false);
        for second in (0..30 * 86_400).step_by(5) {
            count += i64::from(random.f64() < 5.0 / 60.0);
            let is_gap = see(&mut gaps, "oi", count, second).0 == Some(true);
            begun += u32::from(is_gap && !was_gap);
            was_gap = is_gap;
        }
        assert!(begun <= 4, "seed {seed}: {begun} gaps in {count} records");
    }
}

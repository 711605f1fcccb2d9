//! Waiting longer after each failure. Pure: the caller sleeps.

use std::time::Duration;

/// Doubling delays with jitter, from `first` to `limit`.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    failures: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Starts with no failure. Equal `seed`s give equal delays.
    pub fn new(first: Duration, limit: Duration, seed: u64) -> Self {
        Self { first, limit, failures: 0, random: fastrand::Rng::with_seed(seed) }
    }

    /// Returns how long to wait after one more failure: the doubled delay times 0.5 to 1.0.
    pub fn after_failure(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(self.failures.min(20)));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.limit).mul_f64(self.random.f64().mul_add(0.5, 0.5))
    }

    /// Returns the failures since the last success.
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Forgets all failures.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30), 7);
        let delays: Vec<Duration> = (0..12).map(|_| backoff.after_failure()).collect();
        for (exponent, delay) in delays.iter().enumerate() {
            let full = Duration::from_millis(200 << exponent).min(Duration::from_secs(30));
            assert!(*delay <= full && *delay >= full / 2, "delay {exponent} is {delay:?}");
        }
        backoff.reset();
        assert!(backoff.after_failure() <= Duration::from_millis(200));
    }
}

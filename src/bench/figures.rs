//! Measuring: CPU of this process, medians, tables.

use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid};

/// One measured stretch of work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// Things done.
    pub count: u64,
    /// Wall time.
    pub wall: Duration,
    /// CPU of this process, all threads.
    pub cpu: Duration,
}

impl Stretch {
    /// Things per second of wall time.
    pub fn per_second(&self) -> f64 {
        number(self.count) / self.wall.as_secs_f64()
    }

    /// Things per second of CPU time.
    pub fn per_cpu_second(&self) -> f64 {
        number(self.count) / self.cpu.as_secs_f64()
    }

    /// CPU seconds per million things.
    pub fn cpu_per_million(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / number(self.count)
    }
}

/// Starts measuring; [`Watch::stop`] ends it.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    wall: Instant,
    cpu: Duration,
}

impl Watch {
    /// Starts now.
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: process_cpu() }
    }

    /// Returns what `count` things took since the start.
    pub fn stop(self, count: u64) -> Stretch {
        Stretch { count, wall: self.wall.elapsed(), cpu: process_cpu().saturating_sub(self.cpu) }
    }
}

/// CPU time of this process so far, all threads.
pub fn process_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory of this process, bytes; 0 when `/proc` does not tell.
pub fn resident_bytes() -> u64 {
    resident_bytes_of(getpid())
}

/// Resident memory of `pid`, bytes; 0 when `/proc` does not tell.
pub fn resident_bytes_of(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    let kib = status.ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Returns the median of `values`; `NaN` of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// Returns the value below which the share `q` (0 to 1) of `values` lies; `NaN` of none.
pub fn quantile(values: impl IntoIterator<Item = f64>, q: f64) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "q is between 0 and 1, so the index lies between 0 and the last one"
    )]
    let index = (number(u64::try_from(last).unwrap_or(0)) * q.clamp(0.0, 1.0)).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// Returns `count` as a float; exact up to 2^53.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^53"
)]
pub const fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_list() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert_eq!(median(values), 3.0);
        assert_eq!(quantile(values, 0.99), 5.0);
        assert_eq!(quantile(values, 0.0), 1.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn cpu_and_memory_of_this_process_are_seen() {
        let watch = Watch::start();
        let mut sum = 0_u64;
        while watch.stop(1).cpu < Duration::from_millis(5) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        assert!(sum > 0 && resident_bytes() > 1 << 20);
    }
}

//! Time as a value. The only reader of the wall clock; everything else takes `now` as a parameter
//! or holds a [`Clock`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Nanoseconds since 1970-01-01T00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The first instant of 1970, UTC.
    pub const EPOCH: Self = Self(0);

    /// Makes a timestamp from nanoseconds since 1970, UTC.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Makes a timestamp from microseconds since 1970, UTC; saturates at the ends of the range.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// Makes a timestamp from milliseconds since 1970, UTC; saturates at the ends of the range.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Makes a timestamp from seconds since 1970, UTC, fractions kept; `None` when not finite or
    /// outside the years 1677 to 2262.
    pub fn from_seconds_f64(seconds: f64) -> Option<Self> {
        let nanos = seconds * 1e9;
        #[expect(clippy::as_conversions, reason = "the range is checked in the same expression")]
        (nanos.is_finite() && nanos.abs() < 9.2e18).then_some(Self(nanos as i64))
    }

    /// Returns nanoseconds since 1970, UTC.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Returns whole microseconds since 1970, UTC.
    pub const fn micros(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Returns whole milliseconds since 1970, UTC.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Returns the time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns the moment `duration` later; saturates in the year 2262.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Returns the moment `duration` earlier; saturates in the year 1677.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Parses RFC 3339 / ISO 8601 with an offset (`2026-11-24T03:55:27.827025+00:00`, `…Z`).
    ///
    /// `None` when the text is no such time or lies outside the range.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed: jiff::Timestamp = text.trim().parse().ok()?;
        i64::try_from(parsed.as_nanosecond()).ok().map(Self)
    }
}

/// RFC 3339 in UTC with as many fractional digits as needed.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

/// Where "now" comes from: the system, or a value that a test moves.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// The clock of the machine.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until [`Clock::set`] moves it.
    pub fn fixed(start: Timestamp) -> Self {
        Self(Source::Fixed(Arc::new(AtomicI64::new(start.0))))
    }

    /// Returns the current time.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Fixed(nanos) => Timestamp(nanos.load(Ordering::SeqCst)),
        }
    }

    /// Moves a fixed clock; has no effect on the system's.
    pub fn set(&self, now: Timestamp) {
        match &self.0 {
            Source::System => {}
            Source::Fixed(nanos) => nanos.store(now.0, Ordering::SeqCst),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn system_now() -> Timestamp {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)),
        // A clock before 1970: report the epoch rather than wrap around.
        Err(_) => Timestamp::EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints_the_times_that_daemons_send() {
        let time = Timestamp::parse("2026-11-24T03:55:27.827025+00:00").unwrap();
        assert_eq!(time.micros(), 1_795_492_527_827_025);
        assert_eq!(time.to_string(), "2026-11-24T03:55:27.827025Z");
        assert_eq!(Timestamp::parse("2026-11-24 03:55"), None);
    }

    #[test]
    fn differences_never_wrap() {
        let early = Timestamp::from_nanos(i64::MIN);
        let late = Timestamp::from_nanos(i64::MAX);
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.plus(Duration::from_secs(1)), late);
        assert_eq!(early.minus(Duration::from_secs(1)), early);
    }
}

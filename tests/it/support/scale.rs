//! How long the repeated tests run: short by default, as long as promised with `TEST_SCALE=full`.

/// Returns `full` when `TEST_SCALE=full` is set, `quick` otherwise, and prints which.
pub fn scaled(what: &str, quick: u64, full: u64) -> u64 {
    let is_full = std::env::var("TEST_SCALE").is_ok_and(|scale| scale == "full");
    let chosen = if is_full { full } else { quick };
    println!("{what}: {chosen} (TEST_SCALE=full: {full})");
    chosen
}

/// Returns the seed of this run, `SEED` or the clock's, and prints it for a repetition.
pub fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        u64::try_from(periscope::base::time::Clock::system().now().nanos()).unwrap()
    });
    println!("SEED={seed}");
    seed
}

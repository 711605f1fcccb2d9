//! Waiting for a condition, never for an amount of time.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// Asks `probe` until it returns `Ok`; panics with its last `Err` once `limit` has passed.
pub async fn until<T, E, F, Fut>(what: &str, limit: Duration, mut probe: F) -> T
where
    E: Debug,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(last) if start.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; last: {last:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

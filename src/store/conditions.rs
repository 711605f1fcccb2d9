//! What is wrong with delivery, from several sources, as one health.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::base::health::{Board, Health, Part};

/// How long refused rows stay in the health.
const REFUSED_SHOWN: Duration = Duration::from_secs(600);

/// Where a condition comes from; the first of them is told first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The server is not ready or must not be written to now.
    Gate,
    /// Requests of new rows fail.
    Live,
    /// Requests of the backlog fail.
    Backlog,
    /// Accepted rows do not become visible.
    Wal,
    /// Too many different values in a column.
    Values,
}

#[derive(Debug, Default)]
struct State {
    reasons: BTreeMap<Source, String>,
    refused: Option<(Instant, u64)>,
    was_open: bool,
}

/// Clones share the conditions.
#[derive(Debug, Clone)]
pub struct Conditions {
    state: Arc<Mutex<State>>,
    board: Board,
}

impl Conditions {
    /// Makes one without conditions.
    pub fn new(board: Board) -> Self {
        Self { state: Arc::default(), board }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets or clears the condition of `source`.
    pub fn set(&self, source: Source, reason: Option<String>) {
        {
            let mut state = self.lock();
            state.was_open |= source == Source::Gate && reason.is_none();
            match reason {
                Some(reason) => state.reasons.insert(source, reason),
                None => state.reasons.remove(&source),
            };
        }
        self.publish();
    }

    /// Takes rows as refused by the server.
    pub fn refused(&self, rows: u64) {
        {
            let mut state = self.lock();
            let before = state.refused.map_or(0, |(_, rows)| rows);
            state.refused = Some((Instant::now(), before.saturating_add(rows)));
        }
        self.publish();
    }

    /// Forgets what is over and tells the board. To be called now and then.
    pub fn publish(&self) {
        let health = {
            let mut state = self.lock();
            if state.refused.is_some_and(|(at, _)| at.elapsed() > REFUSED_SHOWN) {
                state.refused = None;
            }
            health(&state)
        };
        self.board.set(Part::Writer, health);
    }
}

fn health(state: &State) -> Health {
    if let (false, Some(doing)) = (state.was_open, state.reasons.get(&Source::Gate)) {
        return Health::Starting { doing: doing.clone() };
    }
    let mut reasons: Vec<String> = state.reasons.values().cloned().collect();
    // Both lanes mostly fail for the same reason.
    reasons.dedup();
    if let Some((_, rows)) = state.refused {
        reasons.push(format!(
            "{rows} rows refused by questdb within the last 10 minutes: see the folder dead-letter"
        ));
    }
    if reasons.is_empty() {
        return Health::Ok;
    }
    Health::Degraded { reason: reasons.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{Clock, Timestamp};

    #[test]
    fn conditions_add_up_and_the_first_wait_is_no_fault() {
        let board = Board::new(Clock::fixed(Timestamp::EPOCH));
        let conditions = Conditions::new(board.clone());
        conditions.set(Source::Gate, Some("waits for questdb".into()));
        let starting = Health::Starting { doing: "waits for questdb".into() };
        assert_eq!(board.get(Part::Writer), Some(starting));
        conditions.set(Source::Gate, None);
        assert_eq!(board.get(Part::Writer), Some(Health::Ok));
        conditions.set(Source::Live, Some("refused".into()));
        conditions.set(Source::Backlog, Some("refused".into()));
        conditions.set(Source::Gate, Some("down".into()));
        let degraded = Health::Degraded { reason: "down; refused".into() };
        assert_eq!(board.get(Part::Writer), Some(degraded));
        conditions.set(Source::Live, None);
        conditions.set(Source::Backlog, None);
        conditions.set(Source::Gate, None);
        conditions.refused(3);
        let Some(Health::Degraded { reason }) = board.get(Part::Writer) else { panic!("not told") };
        assert!(reason.starts_with("3 rows refused"), "{reason}");
    }
}

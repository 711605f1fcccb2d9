//! The highest equity of every account and strategy, and the drawdown from it where a daemon does not
//! tell its own. Peaks outlive a restart: without them an open drawdown would be forgotten.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::files::replace::replace;
use crate::model::status::Trading;

/// Name of the file in the data folder.
const FILE: &str = "peaks.json";
/// Most peaks that are kept.
const MAX_PEAKS: usize = 10_000;
/// How often they are written, when one has risen.
const PAUSE: Duration = Duration::from_secs(10);

/// Daemon, strategy, symbol, venue, currency; empty where there is none.
type Key = [String; 5];

#[derive(Debug, Default)]
struct State {
    peaks: BTreeMap<Key, f64>,
    is_new: bool,
}

/// Clones share the peaks.
#[derive(Debug, Clone, Default)]
pub(super) struct Peaks {
    state: Arc<Mutex<State>>,
    /// `None`: they are kept in memory only.
    path: Option<Arc<Path>>,
}

impl Peaks {
    /// Reads the peaks in `data_dir`. A file that cannot be read is named in the log and laid aside:
    /// drawdowns then begin at the equity of now.
    pub(super) fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let peaks = match read(&path) {
            Ok(peaks) => peaks,
            Err(error) => {
                let aside = path.with_extension("json.unreadable");
                let kept = fs::rename(&path, &aside).is_ok();
                tracing::warn!(
                    path = %path.display(), %error, kept_as = kept.then(|| aside.display().to_string()),
                    "peaks of equity cannot be read; drawdowns are counted from now on"
                );
                BTreeMap::new()
            }
        };
        let state = State { peaks, is_new: false };
        Self { state: Arc::new(Mutex::new(state)), path: Some(path.into()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of the equities in `rows` of `daemon`, and completes drawdowns that it does not tell.
    pub(super) fn complete(&self, daemon: &str, rows: &mut [Trading]) {
        for row in rows.iter_mut() {
            let Some(equity) = row.equity.filter(|equity| equity.is_finite()) else { continue };
            let text = |tag: &Option<Arc<str>>| tag.as_deref().unwrap_or_default().to_owned();
            let key = [
                daemon.to_owned(),
                row.strategy.to_string(),
                text(&row.symbol),
                text(&row.venue),
                text(&row.currency),
            ];
            let peak = self.raised(key, equity);
            // Without a peak above zero there is no share of it.
            if row.drawdown.is_none() && peak > 0.0 {
                row.drawdown = Some((peak - equity) / peak);
            }
        }
    }

    /// Returns the peak, which is at least `equity`.
    fn raised(&self, key: Key, equity: f64) -> f64 {
        let mut state = self.lock();
        let full = state.peaks.len() >= MAX_PEAKS;
        match state.peaks.get_mut(&key) {
            Some(peak) if *peak >= equity => return *peak,
            Some(peak) => *peak = equity,
            None if full => return equity,
            None => {
                state.peaks.insert(key, equity);
            }
        }
        state.is_new = true;
        equity
    }

    /// Writes the peaks whenever one has risen, until `stop` and once more then.
    pub(super) async fn keep(self, stop: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                () = stop.cancelled() => true,
                () = tokio::time::sleep(PAUSE) => false,
            };
            let this = self.clone();
            let saved = tokio::task::spawn_blocking(move || this.save()).await;
            if let Ok(Err(error)) = saved {
                // The next time again: only a restart before that would forget the last rise.
                tracing::warn!(%error, "peaks of equity cannot be written; is the disk full?");
            }
            if is_last {
                return;
            }
        }
    }

    fn save(&self) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let text = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.is_new) {
                return Ok(());
            }
            let list: Vec<_> = state.peaks.iter().collect();
            serde_json::to_vec(&list)?
        };
        let saved = replace(path, &path.with_extension("json.partial"), &text, 0o600);
        if saved.is_err() {
            self.lock().is_new = true;
        }
        saved
    }
}

fn read(path: &Path) -> Result<BTreeMap<Key, f64>, std::io::Error> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice::<Vec<(Key, f64)>>(&text)?.into_iter().collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(strategy: &str, equity: Option<f64>) -> Trading {
        Trading { strategy: strategy.into(), equity, ..Trading::default() }
    }

    fn drawdown(peaks: &Peaks, strategy: &str, equity: f64) -> Option<f64> {
        let mut rows = [row(strategy, Some(equity))];
        peaks.complete("bot", &mut rows);
        rows[0].drawdown
    }

    #[test]
    fn drawdown_is_the_share_of_the_peak_that_is_lost() {
        let peaks = Peaks::default();
        for (equity, expected) in
            [(100.0, 0.0), (90.0, 0.1), (200.0, 0.0), (50.0, 0.75), (-20.0, 1.1)]
        {
            assert_eq!(drawdown(&peaks, "ema", equity), Some(expected), "{equity}");
        }
        assert_eq!(drawdown(&peaks, "other", 50.0), Some(0.0), "a peak of its own");
        assert_eq!(drawdown(&peaks, "poor", -5.0), None, "no share of a loss");
        let mut rows = [row("none", None), row("ema", Some(100.0))];
        rows[1].drawdown = Some(0.01);
        peaks.complete("bot", &mut rows);
        assert_eq!((rows[0].drawdown, rows[1].drawdown), (None, Some(0.01)));
    }

    #[test]
    fn a_peak_outlives_a_restart_and_a_ruined_file_is_laid_aside() {
        let folder = tempfile::tempdir().unwrap();
        let peaks = Peaks::load(folder.path());
        drawdown(&peaks, "ema", 100.0);
        peaks.save().unwrap();
        let path = folder.path().join(FILE);
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        drawdown(&peaks, "ema", 90.0);
        peaks.save().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written, "nothing has risen");
        assert_eq!(drawdown(&Peaks::load(folder.path()), "ema", 80.0), Some(0.2));

        fs::write(&path, "[[").unwrap();
        assert_eq!(drawdown(&Peaks::load(folder.path()), "ema", 80.0), Some(0.0));
        assert_eq!(fs::read(path.with_extension("json.unreadable")).unwrap(), b"[[");
    }

    #[tokio::test]
    async fn the_last_rise_is_written_at_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let (peaks, stop) = (Peaks::load(folder.path()), CancellationToken::new());
        drawdown(&peaks, "ema", 100.0);
        stop.cancel();
        peaks.keep(stop).await;
        assert_eq!(drawdown(&Peaks::load(folder.path()), "ema", 50.0), Some(0.5));
    }
}

//! What the threads of a soak tell each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines that are kept of one kind.
const LINES: usize = 20;

/// State of a soak.
#[derive(Debug, Default)]
pub(super) struct Shared {
    stop: AtomicBool,
    /// Odd while servers are being killed and mounts are not what they should be.
    epoch: AtomicU64,
    wrong: Mutex<Vec<String>>,
    errors: Mutex<Vec<String>>,
    tallies: Mutex<BTreeMap<&'static str, u64>>,
    beats: Mutex<Vec<Arc<Beat>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(lines: &Mutex<Vec<String>>, text: &str) {
    let mut lines = lock(lines);
    if lines.len() < LINES {
        lines.push(text.to_owned());
    }
}

impl Shared {
    pub(super) fn stop(&self) {
        self.stop.store(true, SeqCst);
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.load(SeqCst)
    }

    /// The time in which nothing was disturbed; `None` in a time in which something is.
    pub(super) fn calm(&self) -> Option<u64> {
        let epoch = self.epoch.load(SeqCst);
        epoch.is_multiple_of(2).then_some(epoch)
    }

    /// Whether it has been calm since.
    pub(super) fn still_calm(&self, since: Option<u64>) -> bool {
        since.is_some() && self.calm() == since
    }

    /// Begins or ends a disturbance.
    pub(super) fn turn(&self) {
        self.epoch.fetch_add(1, SeqCst);
    }

    pub(super) fn wrong(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    pub(super) fn errors(&self) -> Vec<String> {
        lock(&self.errors).clone()
    }

    /// Something was read that is not what was committed.
    pub(super) fn found_wrong(&self, text: &str) {
        keep(&self.wrong, text);
    }

    /// Something failed that should not have.
    pub(super) fn error(&self, text: &str) {
        keep(&self.errors, text);
    }

    pub(super) fn count(&self, what: &'static str, by: u64) {
        *lock(&self.tallies).entry(what).or_default() += by;
    }

    pub(super) fn tallies(&self) -> Vec<(&'static str, u64)> {
        lock(&self.tallies)
            .iter()
            .map(|(what, count)| (*what, *count))
            .collect()
    }

    /// A thread that tells what it is about to do.
    pub(super) fn beat(&self) -> Arc<Beat> {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let beat = Arc::new(Beat {
            name,
            doing: Mutex::new((Instant::now(), Duration::MAX, "start".to_owned())),
        });
        lock(&self.beats).push(Arc::clone(&beat));
        beat
    }

    /// Who takes longer than allowed.
    pub(super) fn late(&self) -> Vec<String> {
        let beats = lock(&self.beats);
        let late = |beat: &Arc<Beat>| {
            let (since, limit, what) = &*lock(&beat.doing);
            let time = since.elapsed();
            (time > *limit).then(|| format!("{}: {what}: for {} s", beat.name, time.as_secs()))
        };
        beats.iter().filter_map(late).collect()
    }
}

/// What a thread does, and since when.
#[derive(Debug)]
pub(super) struct Beat {
    name: String,
    doing: Mutex<(Instant, Duration, String)>,
}

impl Beat {
    /// The next thing takes no longer than `limit`, or it hangs.
    pub(super) fn begin(&self, what: &str, limit: Duration) {
        *lock(&self.doing) = (Instant::now(), limit, what.to_owned());
    }

    /// Nothing is done.
    pub(super) fn rest(&self) {
        self.begin("rest", Duration::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happens_in_a_calm_time_counts() {
        let shared = Shared::default();
        let calm = shared.calm();
        assert!(shared.still_calm(calm));
        shared.turn();
        assert!(!shared.still_calm(calm) && shared.calm().is_none());
        assert!(!shared.still_calm(shared.calm()));
        shared.turn();
        assert!(!shared.still_calm(calm) && shared.still_calm(shared.calm()));
    }

    #[test]
    fn who_makes_no_progress_is_late() {
        let shared = Shared::default();
        let beat = shared.beat();
        assert!(shared.late().is_empty());
        beat.begin("a read", Duration::ZERO);
        let late = shared.late();
        assert!(late.len() == 1 && late[0].contains("a read"), "{late:?}");
        beat.rest();
        assert!(shared.late().is_empty());
    }
}

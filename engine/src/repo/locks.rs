//! Who may do what at the same time. The rules: docs/format.md, "Locks and concurrency".

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Repository;
use crate::error::{Error, Result};
use crate::fs::lease::{Lease, Leased, held};
use crate::fs::lock::{Lock, LockMode};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::Monitor;

/// How long operations wait for a lock before they say who holds it.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Another prune is not waited for. But a child process that is being started may hold a copy of
/// a lock that has just been given back.
const UPKEEP_PATIENCE: Duration = Duration::from_secs(1);
/// How often a waiting prune tries again.
const RETRY: Duration = Duration::from_millis(10);
/// A prune that has waited this long for a gap between writers holds up new ones at the gate ...
const GATE_AFTER: Duration = Duration::from_millis(500);
/// ... for this long at a time, then for the same time not.
const GATE_STINT: Duration = Duration::from_secs(2);

impl Repository {
    fn lock_path(&self) -> PathBuf {
        self.path.join("lock")
    }

    fn gate_path(&self) -> PathBuf {
        self.path.join("lock.gate")
    }

    fn leases_dir(&self) -> PathBuf {
        self.path.join("leases")
    }

    /// Holds off deletion for as long as the lock lives: for writers, and for readers that cannot
    /// say which commits they need.
    pub fn lock_shared(&self) -> Result<Lock> {
        // A prune that finds no gap between writers closes the gate for a moment.
        let _gate = match Lock::acquire(&self.gate_path(), LockMode::Shared, LOCK_PATIENCE) {
            // On a read-only medium there may be none, and nobody who would close it.
            Err(Error::Io { .. }) => None,
            other => Some(other?),
        };
        Lock::acquire(&self.lock_path(), LockMode::Shared, LOCK_PATIENCE)
    }

    /// Keeps commits from being deleted for as long as the lease lives, while deletion of others
    /// goes on: for long readers such as mounts and checkouts.
    ///
    /// # Errors
    /// [`Error::MissingObject`] if one of the commits is not there.
    pub fn lease(&self, commits: &[ObjectId]) -> Result<Lease> {
        // The commits cannot go between being looked for and being leased.
        let lock = self.lock_shared()?;
        self.store.refresh()?;
        for id in commits {
            if !self.contains(ObjectKind::Commit, id)? {
                let kind = ObjectKind::Commit;
                return Err(Error::MissingObject { kind, id: *id });
            }
        }
        Lease::take(&self.leases_dir(), commits, lock)
    }

    /// The leases that living processes hold.
    pub(crate) fn leases(&self) -> Result<Vec<Leased>> {
        held(&self.leases_dir())
    }

    /// Held by the one operation at a time that rewrites or deletes packs, from its first look to
    /// its end: until then no other one takes away a pack that it has seen.
    pub(crate) fn lock_upkeep(&self) -> Result<Lock> {
        let path = self.path.join("upkeep.lock");
        Lock::acquire(&path, LockMode::Exclusive, UPKEEP_PATIENCE)
    }

    /// Waits until nobody writes; until the lock is dropped nobody begins to.
    ///
    /// # Errors
    /// [`Error::Locked`] when the time is over, [`Error::Cancelled`].
    pub(crate) fn lock_exclusive(&self, patience: Duration, monitor: &dyn Monitor) -> Result<Lock> {
        let begin = Instant::now();
        let mut gate = None;
        loop {
            match Lock::acquire(&self.lock_path(), LockMode::Exclusive, Duration::ZERO) {
                Err(error @ Error::Locked { .. }) if begin.elapsed() >= patience => {
                    return Err(error);
                }
                Err(Error::Locked { .. }) => {}
                other => return other,
            }
            if monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let waited = begin.elapsed().saturating_sub(GATE_AFTER).as_millis();
            let stint = waited / GATE_STINT.as_millis();
            if begin.elapsed() < GATE_AFTER || stint % 2 == 1 {
                gate = None;
            } else if gate.is_none() {
                gate = Lock::acquire(&self.gate_path(), LockMode::Exclusive, Duration::ZERO).ok();
            }
            std::thread::sleep(RETRY);
        }
    }
}

//! Push instead of pull: what was decoded together with what was read goes to the kernel unasked.
//!
//! Small files are stored many to a block. A second read that a block answers tells that its files
//! are being read, not only looked at; then all others of them that the kernel knows are put into
//! its page cache by one thread, which answers no requests itself: giving a page to the kernel can
//! wait for a READ of that page.
//!
//! A push is never owed: the queue is short, and what does not fit is left to be asked for.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use grove_engine::{Group, Member};

use crate::stats::Counters;

/// Blocks that may wait; each keeps about 1 MiB in memory.
const QUEUE: usize = 16;
/// Within this time, at most the share below of the available memory is pushed.
const WINDOW: Duration = Duration::from_secs(1);
/// See [`WINDOW`].
const SHARE: u64 = 16;

/// The kernel's page cache, as far as one can write to it.
pub(crate) trait Pages: Send + Sync + 'static {
    /// Puts bytes of a file there. They must be what a read would give, and end a page or the file.
    fn store(&self, number: u64, offset: u64, bytes: &[u8]) -> io::Result<Stored>;
}

/// What became of what was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is in the cache.
    Taken,
    /// The kernel has no such inode (any more).
    Unknown,
}

/// Whose files are pushed.
pub(crate) trait Files: Send + Sync + 'static {
    /// The inode numbers that the kernel may know of files that are exactly this payload.
    fn numbers_of(&self, member: &Member<'_>) -> Vec<u64>;
    /// Nobody will ask for this payload any more.
    fn note_done(&self, group: &Group, number: usize);
}

/// Hands blocks to the thread that pushes. Dropped, it waits for that thread to end.
#[derive(Debug)]
pub(crate) struct Pusher {
    queue: Option<SyncSender<Group>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
}

impl Pusher {
    /// Starts the thread.
    pub(crate) fn start(
        files: Arc<dyn Files>,
        pages: Arc<dyn Pages>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let (queue, blocks) = sync_channel(QUEUE);
        let shared = Arc::clone(&counters);
        let thread = thread::Builder::new()
            .name("grove-push".into())
            .spawn(move || push_all(&blocks, &*files, &*pages, &shared))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            counters,
        })
    }

    /// To be told of each read that a group answered, after its reply.
    pub(crate) fn note_read(&self, group: Group) {
        if !group.is_offer_due() {
            return;
        }
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_)) = queue.try_send(group) {
            self.counters.data.push_dropped.add(1);
        }
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told on its own; nothing depends on the thread.
            let _ = thread.join();
        }
    }
}

fn push_all(blocks: &Receiver<Group>, files: &dyn Files, pages: &dyn Pages, counters: &Counters) {
    let mut budget = Budget::new(available_memory);
    for group in blocks {
        if push_group(&group, files, pages, counters, &mut budget).is_err() {
            // The session is over, or the kernel takes no such messages.
            return;
        }
    }
}

fn push_group(
    group: &Group,
    files: &dyn Files,
    pages: &dyn Pages,
    counters: &Counters,
    budget: &mut Budget,
) -> io::Result<()> {
    let data = &counters.data;
    for member in group.unread() {
        let numbers = files.numbers_of(&member);
        if numbers.is_empty() {
            continue;
        }
        if !budget.take(member.bytes.len() as u64) {
            data.push_dropped.add(1);
            return Ok(());
        }
        for number in numbers {
            match pages.store(number, 0, member.bytes)? {
                Stored::Taken => {
                    data.pushed_files.add(1);
                    data.pushed_bytes.add(member.bytes.len() as u64);
                    files.note_done(group, member.number);
                }
                Stored::Unknown => data.push_unknown.add(1),
            }
        }
    }
    Ok(())
}

/// How much may be pushed for the time being.
#[derive(Debug)]
struct Budget {
    left: u64,
    since: Instant,
    available: fn() -> Option<u64>,
}

impl Budget {
    fn new(available: fn() -> Option<u64>) -> Self {
        Self {
            left: share(available),
            since: Instant::now(),
            available,
        }
    }

    fn take(&mut self, bytes: u64) -> bool {
        if self.since.elapsed() >= WINDOW {
            *self = Self::new(self.available);
        }
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// Nothing is pushed where nobody knows how much memory there is.
fn share(available: fn() -> Option<u64>) -> u64 {
    available().map_or(0, |bytes| bytes / SHARE)
}

/// Bytes that programs could get without swapping.
pub(crate) fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_pushed_than_a_share_of_what_is_available() {
        let mut budget = Budget::new(|| Some(16 * 100));
        assert!(budget.take(60));
        assert!(!budget.take(41));
        assert!(budget.take(40));
        assert!(!budget.take(1));
        assert!(!Budget::new(|| None).take(1));
    }

    #[test]
    fn available_memory_is_known_here() {
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}

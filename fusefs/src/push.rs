//! Push instead of pull: what will be read next goes to the kernel unasked.
//!
//! That is what [`Ahead`] says of directories that are being read; and what was decoded together with
//! what was read. Small files are stored many to a block: a second read that a block answers tells
//! that its files are being read, not only looked at; then all others of them that the kernel knows
//! are put into its page cache, too. One thread does all this. It answers no requests itself: giving
//! a page to the kernel can wait for a READ of that page.
//!
//! A push is never owed: the queue is short, and what does not fit is left to be asked for.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use grove_engine::{Group, Member};

use crate::adapter::ErrorSink;
use crate::ahead::{Ahead, FILE_MAX, PageId, Told};
use crate::caught::caught;
use crate::prefetch::Contents;
use crate::stats::Counters;

/// Jobs that may wait; a block keeps about 1 MiB in memory.
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
pub(crate) trait Files: Contents {
    /// The inode numbers, among those that are `wanted`, of files that are exactly this payload.
    fn numbers_of(&self, member: &Member<'_>, wanted: &dyn Fn(u64) -> bool) -> Vec<u64>;
    /// Nobody will ask for this payload any more.
    fn note_done(&self, group: &Group, number: usize);
}

/// What there is to push.
enum Job {
    /// The files of a block.
    Block(Group),
    /// The files of a page of a listing.
    Page(PageId),
}

/// Hands jobs to the thread that pushes. Dropped, it waits for that thread to end.
#[derive(Debug)]
pub(crate) struct Pusher {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    ahead: Arc<Ahead>,
    counters: Arc<Counters>,
}

impl Pusher {
    /// Starts the thread.
    pub(crate) fn start(
        files: Arc<dyn Files>,
        pages: Arc<dyn Pages>,
        counters: Arc<Counters>,
        on_error: ErrorSink,
    ) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let ahead = Arc::new(Ahead::default());
        let worker = Worker {
            files,
            pages,
            counters: Arc::clone(&counters),
            ahead: Arc::clone(&ahead),
            budget: Budget::new(available_memory),
            buffer: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("grove-push".into())
            .spawn(move || worker.run(&jobs, &on_error))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            ahead,
            counters,
        })
    }

    /// To be told of regular files in a listing, after its reply.
    pub(crate) fn note_listed(&self, files: Vec<Told>) {
        if let Some(page) = self.ahead.note_listed(files) {
            self.give_page(page);
        }
    }

    /// To be told of files that are looked up by name.
    pub(crate) fn note_found(&self, number: u64) {
        self.ahead.note_found(number);
    }

    /// To be told of each read of the beginning of a file, before it is answered.
    pub(crate) fn note_asked(&self, number: u64) {
        if let Some(page) = self.ahead.note_asked(number) {
            self.give_page(page);
        }
    }

    /// To be told of each read that a group answered, after its reply.
    pub(crate) fn note_read(&self, group: Group) {
        if group.is_offer_due() {
            self.send(Job::Block(group));
        }
    }

    fn give_page(&self, page: PageId) {
        if !self.send(Job::Page(page)) {
            self.ahead.give_back(page);
        }
    }

    fn send(&self, job: Job) -> bool {
        let Some(queue) = &self.queue else {
            return false;
        };
        let full = matches!(queue.try_send(job), Err(TrySendError::Full(_)));
        if full {
            self.counters.data.push_dropped.add(1);
        }
        !full
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // Nothing depends on how it ended.
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Worker {
    files: Arc<dyn Files>,
    pages: Arc<dyn Pages>,
    counters: Arc<Counters>,
    ahead: Arc<Ahead>,
    budget: Budget,
    buffer: Vec<u8>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>, on_error: &ErrorSink) {
        for job in jobs {
            let done = caught(|| match job {
                Job::Block(group) => self.push_group(&group),
                Job::Page(page) => self.push_page(page),
            });
            match done {
                Ok(Ok(())) => {}
                // The session is over, or the kernel takes no such messages.
                Ok(Err(_)) => return,
                Err(panic) => {
                    let text = format!("internal error: giving files to the kernel: {panic}");
                    // The sink is someone else's code.
                    let _ = caught(|| on_error(&text));
                }
            }
        }
    }

    fn push_group(&mut self, group: &Group) -> io::Result<()> {
        let ahead = Arc::clone(&self.ahead);
        for member in group.unread() {
            let wanted = |number| ahead.is_missing(number);
            for number in self.files.numbers_of(&member, &wanted) {
                if !self.may_push(member.bytes.len() as u64) {
                    return Ok(());
                }
                ahead.note_given(number);
                if self.push(number, member.bytes)? == Stored::Taken {
                    self.files.note_done(group, member.number);
                }
            }
        }
        Ok(())
    }

    fn push_page(&mut self, page: PageId) -> io::Result<()> {
        let ahead = Arc::clone(&self.ahead);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(FILE_MAX as usize, 0);
        while let Some(file) = ahead.next(page) {
            if !self.may_push(file.size) {
                ahead.give_back(page);
                break;
            }
            let Some(into) = buffer.get_mut(..file.size as usize) else {
                continue;
            };
            // Damage is told to whoever reads the file.
            let read = self.files.read(file.number, 0, into);
            if read.is_ok_and(|n| n == into.len())
                && self.push(file.number, into)? == Stored::Unknown
            {
                ahead.refuse(page, file);
                break;
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    fn may_push(&mut self, bytes: u64) -> bool {
        let may = self.budget.take(bytes);
        if !may {
            self.counters.data.push_dropped.add(1);
        }
        may
    }

    fn push(&self, number: u64, bytes: &[u8]) -> io::Result<Stored> {
        let stored = self.pages.store(number, 0, bytes)?;
        let data = &self.counters.data;
        match stored {
            Stored::Taken => {
                data.pushed_files.add(1);
                data.pushed_bytes.add(bytes.len() as u64);
            }
            Stored::Unknown => data.push_unknown.add(1),
        }
        Ok(stored)
    }
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

//! Files that the kernel reads by itself: passthrough to plain copies in the repository's cache.
//!
//! The kernel wants all opens of an inode that exist at a time to be alike, so how the first was
//! opened holds until the last is closed.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fuser::{BackingId, FileHandle, FopenFlags, INodeNo, ReplyOpen};
use grove_engine::PayloadId;
use lru::LruCache;

use crate::view::PlainCopy;

/// Registrations kept for files that are not open: registering costs two system calls.
const KEPT: usize = 128;

/// What is open, and how.
#[derive(Debug)]
pub(super) struct Backings {
    open: Mutex<HashMap<u64, Opened>>,
    ids: Mutex<LruCache<PayloadId, Arc<BackingId>>>,
}

#[derive(Debug)]
struct Opened {
    count: u64,
    /// `None`: through the page cache of the mount.
    id: Option<Arc<BackingId>>,
}

impl Backings {
    pub(super) fn new() -> Self {
        let kept = NonZeroUsize::new(KEPT).expect("because it is not zero");
        Self {
            open: Mutex::default(),
            ids: Mutex::new(LruCache::new(kept)),
        }
    }

    /// Answers an OPEN; without a copy, or where the kernel refuses it, as if there were no passthrough.
    pub(super) fn open(&self, number: INodeNo, copy: Option<&PlainCopy>, reply: ReplyOpen) {
        let mut open = lock(&self.open);
        let opened = open.entry(number.0).or_insert_with(|| Opened {
            count: 0,
            id: copy.and_then(|copy| self.register(copy, &reply).ok()),
        });
        opened.count += 1;
        // The registration must live until the kernel has the answer, and does: it is in the table.
        match &opened.id {
            Some(id) => reply.opened_passthrough(FileHandle(0), FopenFlags::FOPEN_NOFLUSH, id),
            None => reply.opened(
                FileHandle(0),
                FopenFlags::FOPEN_NOFLUSH | FopenFlags::FOPEN_KEEP_CACHE,
            ),
        }
    }

    /// Notes a RELEASE.
    pub(super) fn release(&self, number: INodeNo) {
        let mut open = lock(&self.open);
        if let Some(opened) = open.get_mut(&number.0) {
            opened.count -= 1;
            if opened.count == 0 {
                open.remove(&number.0);
            }
        }
    }

    fn register(&self, copy: &PlainCopy, reply: &ReplyOpen) -> io::Result<Arc<BackingId>> {
        let mut ids = lock(&self.ids);
        if let Some(id) = ids.get(&copy.payload) {
            return Ok(Arc::clone(id));
        }
        let id = Arc::new(reply.open_backing(&copy.file)?);
        ids.put(copy.payload, Arc::clone(&id));
        Ok(id)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

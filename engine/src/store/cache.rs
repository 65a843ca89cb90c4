//! Decoded blocks, least recently used first to go, within a byte budget.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use lru::LruCache;

use super::lock;
use crate::error::Result;
use crate::id::PackId;
use crate::pack::decoded::DecodedBlock;

/// A pack, the offset of a block in it, and for what was made from a delta or a recipe the
/// position of that entry in the block.
pub(crate) type BlockKey = (PackId, u32, Option<u32>);

#[derive(Debug)]
pub(crate) struct BlockCache {
    budget: usize,
    state: Mutex<State>,
    decoded: Condvar,
    hits: AtomicU64,
    misses: AtomicU64,
    decoded_bytes: AtomicU64,
}

/// What the block cache was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheCounts {
    /// Blocks that were there.
    pub hits: u64,
    /// Blocks and extents that had to be decoded.
    pub misses: u64,
    /// Bytes that decoding gave.
    pub decoded_bytes: u64,
}

#[derive(Debug)]
struct State {
    blocks: LruCache<BlockKey, Arc<DecodedBlock>>,
    bytes: usize,
    /// Blocks that some thread is decoding now.
    decoding: HashSet<BlockKey>,
}

impl BlockCache {
    pub(crate) fn new(budget: usize) -> Self {
        let state = State {
            blocks: LruCache::unbounded(),
            bytes: 0,
            decoding: HashSet::new(),
        };
        Self {
            budget,
            state: Mutex::new(state),
            decoded: Condvar::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            decoded_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            decoded_bytes: self.decoded_bytes.load(Relaxed),
        }
    }

    /// Notes that bytes were decoded, whether what they gave is kept here or not.
    pub(crate) fn note_decoded(&self, bytes: usize) {
        self.misses.fetch_add(1, Relaxed);
        self.decoded_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn peek(&self, key: &BlockKey) -> Option<Arc<DecodedBlock>> {
        let found = lock(&self.state).blocks.get(key).cloned();
        self.hits.fetch_add(u64::from(found.is_some()), Relaxed);
        found
    }

    /// Forgets a block.
    pub(crate) fn remove(&self, key: &BlockKey) {
        let mut state = lock(&self.state);
        if let Some(block) = state.blocks.pop(key) {
            state.bytes -= block.weight();
        }
    }

    /// Keeps a block that was decoded elsewhere.
    pub(crate) fn insert(&self, key: BlockKey, block: DecodedBlock) -> Arc<DecodedBlock> {
        let block = Arc::new(block);
        self.note_decoded(block.weight());
        let mut state = lock(&self.state);
        state.bytes += block.weight();
        if let Some(old) = state.blocks.put(key, Arc::clone(&block)) {
            state.bytes -= old.weight();
        }
        // The newest stays even if it is larger than the budget: its maker is about to read it.
        while state.bytes > self.budget && state.blocks.len() > 1 {
            match state.blocks.pop_lru() {
                Some((_, old)) => state.bytes -= old.weight(),
                None => break,
            }
        }
        block
    }

    /// Gives the block, decoding it at most once even when several threads want it together.
    pub(crate) fn get_or_decode(
        &self,
        key: BlockKey,
        decode: impl FnOnce() -> Result<DecodedBlock>,
    ) -> Result<Arc<DecodedBlock>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(block) = state.blocks.get(&key) {
                self.hits.fetch_add(1, Relaxed);
                return Ok(Arc::clone(block));
            }
            if state.decoding.insert(key) {
                break;
            }
            state = self
                .decoded
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // Waiters are released even if decoding fails or panics; the next of them tries itself.
        let _release = Release { cache: self, key };
        Ok(self.insert(key, decode()?))
    }
}

struct Release<'a> {
    cache: &'a BlockCache,
    key: BlockKey,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        lock(&self.cache.state).decoding.remove(&self.key);
        self.cache.decoded.notify_all();
    }
}

//! Decoded blocks, least recently used first to go, within a byte budget.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use lru::LruCache;

use super::lock;
use crate::error::Result;
use crate::id::PackId;
use crate::pack::reader::DecodedBlock;

/// A pack, the offset of a block in it, and for what was made from a delta or a recipe the
/// position of that entry in the block.
pub(crate) type BlockKey = (PackId, u32, Option<u32>);

#[derive(Debug)]
pub(crate) struct BlockCache {
    budget: usize,
    state: Mutex<State>,
    decoded: Condvar,
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
        }
    }

    pub(crate) fn peek(&self, key: &BlockKey) -> Option<Arc<DecodedBlock>> {
        lock(&self.state).blocks.get(key).cloned()
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
        let block = Arc::new(decode()?);
        let mut state = lock(&self.state);
        state.bytes += block.weight();
        state.blocks.put(key, Arc::clone(&block));
        // The newest stays even if it is larger than the budget: its maker is about to read it.
        while state.bytes > self.budget && state.blocks.len() > 1 {
            match state.blocks.pop_lru() {
                Some((_, old)) => state.bytes -= old.weight(),
                None => break,
            }
        }
        Ok(block)
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

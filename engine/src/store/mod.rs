//! Finds and decodes entries: open packs, the block cache, and the current index.

mod batch;
pub(crate) mod cache;
pub(crate) mod copies;
pub(crate) mod group;
pub(crate) mod ordered;
pub(crate) mod payload;
mod spill;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use lru::LruCache;

pub(crate) use self::cache::CacheCounts;
use self::cache::{BlockCache, BlockKey};
use self::copies::Copies;
use self::group::Group;
use crate::error::{Error, IoResultExt, Result};
use crate::id::PackId;
use crate::index::set::{Index, IndexPaths};
use crate::index::{Location, ObjectIndex};
use crate::pack::decoded::DecodedBlock;
use crate::pack::reader::{Entry, PackReader};
use crate::pack::{BlockClass, Key};

/// Open file descriptors kept for packs.
const OPEN_PACKS: usize = 256;

/// How often a read is tried when packs vanish under it.
const ATTEMPTS: u32 = 4;

/// Default budget of the block cache.
pub(crate) const CACHE_BYTES: usize = 64 << 20;

/// Read access to all packs of a repository.
#[derive(Debug)]
pub(crate) struct Store {
    paths: IndexPaths,
    index: RwLock<Arc<Index>>,
    /// How often it was loaded anew.
    loads: AtomicU64,
    packs: Mutex<LruCache<PackId, Arc<PackReader>>>,
    /// Sizes of packs: they never change.
    sizes: Mutex<HashMap<PackId, u64>>,
    cache: BlockCache,
    copies: Copies,
}

/// An entry in its decoded block.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    block: Arc<DecodedBlock>,
    entry: Entry,
    /// Position of the entry in the block.
    number: usize,
    /// What the cache knows the block by.
    key: BlockKey,
}

impl Found {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.block.bytes(&self.entry)
    }

    fn is_extent(&self) -> bool {
        self.block.class == BlockClass::Extent
    }

    /// The only entry of a block of one.
    fn first_of(block: Arc<DecodedBlock>, key: BlockKey) -> Self {
        let entry = block.entries[0];
        Self {
            block,
            entry,
            number: 0,
            key,
        }
    }
}

/// Locks a mutex whose data stays valid when a holder panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub(crate) fn open(repo: &Path) -> Result<Self> {
        let paths = IndexPaths::new(repo);
        let index = RwLock::new(Arc::new(Index::load(&paths)?));
        let open_packs = NonZeroUsize::new(OPEN_PACKS).expect("because it is not zero");
        let packs = Mutex::new(LruCache::new(open_packs));
        Ok(Self {
            paths,
            index,
            loads: AtomicU64::new(0),
            packs,
            sizes: Mutex::default(),
            cache: BlockCache::new(CACHE_BYTES, repo),
            copies: Copies::new(repo),
        })
    }

    /// What the block cache was asked for so far.
    pub(crate) fn cache_counts(&self) -> CacheCounts {
        self.cache.counts()
    }

    /// Notes that nobody will ask for an entry of a group any more.
    pub(crate) fn note_done(&self, group: &Group, entry: usize) {
        if group.block.note_done(entry) {
            self.cache.remove(&group.key);
        }
    }

    pub(crate) fn paths(&self) -> &IndexPaths {
        &self.paths
    }

    /// The index as it was last loaded.
    pub(crate) fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_index(&self, index: Index) {
        let index = Arc::new(index);
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&index);
        self.loads.fetch_add(1, Ordering::Release);
        // An open file keeps the space of a deleted pack.
        let mut packs = lock(&self.packs);
        let gone = packs.iter().map(|(id, _)| *id);
        let gone: Vec<PackId> = gone.filter(|id| !index.present().contains(id)).collect();
        gone.iter().for_each(|id| drop(packs.pop(id)));
        lock(&self.sizes).retain(|id, _| index.present().contains(id));
    }

    /// A number that grows with each index that is loaded.
    pub(crate) fn generation(&self) -> u64 {
        self.loads.load(Ordering::Acquire)
    }

    /// Loads the index anew if packs have come or gone; says whether they had.
    pub(crate) fn refresh(&self) -> Result<bool> {
        if *self.index().present() == self.paths.present()? {
            return Ok(false);
        }
        self.set_index(Index::load(&self.paths)?);
        Ok(true)
    }

    /// An open pack.
    pub(crate) fn pack(&self, id: &PackId) -> Result<Arc<PackReader>> {
        // A deleted pack could still be read, but would keep its space.
        if let Some(pack) = lock(&self.packs).get(id)
            && !pack.is_deleted()
        {
            return Ok(Arc::clone(pack));
        }
        let pack = Arc::new(PackReader::open(&self.paths.pack(id), *id)?);
        lock(&self.packs).put(*id, Arc::clone(&pack));
        Ok(pack)
    }

    /// Where an entry lies, looking again at the directory of packs before giving up.
    pub(crate) fn locate(&self, key: &Key) -> Result<Option<Location>> {
        let index = self.index();
        if let Some(at) = index.get(key)? {
            return Ok(Some(at));
        }
        self.refresh()?;
        let now = self.index();
        // Another thread may have been the one that loaded it anew.
        if Arc::ptr_eq(&index, &now) {
            return Ok(None);
        }
        now.get(key)
    }

    /// Bytes of all packs.
    pub(crate) fn stored_bytes(&self) -> Result<u64> {
        for _ in 1..ATTEMPTS {
            match self.add_sizes() {
                Err(error) if self.may_be_stale(&error)? => {}
                other => return other,
            }
        }
        self.add_sizes()
    }

    fn add_sizes(&self) -> Result<u64> {
        let mut sizes = lock(&self.sizes);
        let mut sum = 0;
        for id in self.index().present() {
            sum += match sizes.get(id) {
                Some(size) => *size,
                None => {
                    let path = self.paths.pack(id);
                    let size = std::fs::metadata(&path).at(&path)?.len();
                    sizes.insert(*id, size);
                    size
                }
            };
        }
        Ok(sum)
    }

    /// Finds an entry and decodes it; `None` when it is in no pack.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Found>> {
        self.get_whole(key)
    }

    /// Finds an entry and decodes its block, but not the entry itself if it is a delta.
    pub(crate) fn get_stored(&self, key: &Key) -> Result<Option<(Location, Found)>> {
        self.get_stored_at(key, self.locate(key)?)
    }

    /// The same for an entry that was looked up already.
    fn get_stored_at(
        &self,
        key: &Key,
        mut at: Option<Location>,
    ) -> Result<Option<(Location, Found)>> {
        let mut attempt = 1;
        while let Some(place) = at {
            match self.entry(key, &place, self.block(&place)) {
                Err(error) if attempt < ATTEMPTS && self.may_be_stale(&error)? => attempt += 1,
                other => return Ok(Some((place, other?))),
            }
            at = self.locate(key)?;
        }
        Ok(None)
    }

    fn corrupt(&self, detail: String) -> Error {
        Error::Corrupt {
            path: self.paths.packs_dir().to_owned(),
            detail,
        }
    }

    fn entry(&self, key: &Key, at: &Location, block: Result<Arc<DecodedBlock>>) -> Result<Found> {
        let block = block?;
        let entry = block
            .entries
            .get(at.entry as usize)
            .copied()
            .filter(|e| e.key == *key);
        let entry = entry.ok_or_else(|| Error::Corrupt {
            path: self.paths.flat(),
            detail: format!("leads to the wrong place in pack {}", at.pack),
        })?;
        Ok(Found {
            block,
            entry,
            number: at.entry as usize,
            key: (at.pack, at.offset, None),
        })
    }

    /// A decoded block, by way of the cache.
    pub(crate) fn block(&self, at: &Location) -> Result<Arc<DecodedBlock>> {
        self.cache.get_or_decode((at.pack, at.offset, None), || {
            self.pack(&at.pack)?
                .block(u64::from(at.offset), at.block_len)
        })
    }

    fn block_uncached(&self, at: &Location) -> Result<Arc<DecodedBlock>> {
        match self.cache.peek(&(at.pack, at.offset, None)) {
            Some(block) => Ok(block),
            None => self
                .pack(&at.pack)?
                .block(u64::from(at.offset), at.block_len)
                .map(Arc::new),
        }
    }

    /// After a failed read: was the index out of date (a pack rewritten by a prune), or is it
    /// itself damaged? Then it is loaded or made anew, and the read is worth another try.
    fn may_be_stale(&self, error: &Error) -> Result<bool> {
        match error {
            // Worth another try even if another thread was the one to refresh.
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                self.refresh()?;
                Ok(true)
            }
            Error::Corrupt { path, .. } if self.paths.is_merged_file(path) => {
                self.set_index(Index::rebuild(&self.paths, |_| ())?);
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

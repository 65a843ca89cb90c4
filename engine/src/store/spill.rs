//! Blocks of small payloads that had to leave the cache before all of them was read, in a file.
//!
//! Small payloads are packed by kind and name, and read by directory: whoever reads a whole tree
//! works on hundreds of blocks at a time, more than memory should hold, and without this each would
//! be decoded ten times. The file has no name and belongs to this process; the kernel keeps it in
//! memory as long as it has no better use for that. Where it cannot be made, blocks are decoded
//! again.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use lru::LruCache;
use rustix::fs::{Mode, OFlags};
use xxhash_rust::xxh3::xxh3_64;

use super::lock;
use crate::id::PackId;
use crate::pack::decoded::DecodedBlock;
use crate::pack::reader::Entry;
use crate::pack::{BlockClass, GROUP_TARGET, Key};

/// Blocks that the file holds: 1 GiB, and as much room as they take.
const SLOTS: NonZeroUsize = NonZeroUsize::new(1024).expect("because it is not zero");
/// There is no file where less than this is free: four times its size.
const MIN_FREE: u64 = 4 << 30;

/// The pack of a block and its place in it.
type Place = (PackId, u32);

#[derive(Debug)]
pub(crate) struct Spill {
    dir: PathBuf,
    /// Made when it is first needed.
    file: OnceLock<Option<File>>,
    slots: Mutex<LruCache<Place, Arc<Slot>>>,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    entries: Box<[(Entry, u64)]>,
}

impl Spill {
    pub(crate) fn new(repo: &Path) -> Self {
        Self {
            dir: repo.join("cache"),
            file: OnceLock::new(),
            slots: Mutex::new(LruCache::new(SLOTS)),
        }
    }

    /// Keeps a block that leaves the cache, if more of it may be wanted.
    pub(crate) fn put(&self, place: Place, block: &DecodedBlock) {
        let raw = block.raw();
        if block.class != BlockClass::Group || block.is_used_up() || raw.len() > GROUP_TARGET {
            return;
        }
        let Some(file) = self.file.get_or_init(|| make_file(&self.dir)) else {
            return;
        };
        let mut slots = lock(&self.slots);
        if slots.contains(&place) {
            return;
        }
        let taken = slots.len() as u64;
        let oldest = if slots.len() == SLOTS.get() {
            slots.pop_lru()
        } else {
            None
        };
        let number = oldest.map_or(taken, |(_, slot)| slot.number);
        let sum = |entry: &Entry| (*entry, xxh3_64(block.bytes(entry)));
        let entries = block.entries.iter().map(sum).collect();
        // Under the lock: nobody finds the slot before it is written. What cannot be written is found
        // to be wrong when it is read.
        let written = file.write_all_at(raw, number * GROUP_TARGET as u64);
        drop(written);
        slots.put(place, Arc::new(Slot { number, entries }));
    }

    /// Bytes of an entry from `skip` on, if its block is here: how many were copied to `buf`.
    pub(crate) fn read(
        &self,
        place: Place,
        (entry, key): (u32, &Key),
        skip: usize,
        buf: &mut [u8],
    ) -> Option<usize> {
        let file = self.file.get()?.as_ref()?;
        let slot = Arc::clone(lock(&self.slots).get(&place)?);
        let (entry, sum) = slot.entries.get(entry as usize)?;
        if entry.key != *key {
            return None;
        }
        let len = entry.len as usize;
        let at = slot.number * GROUP_TARGET as u64 + u64::from(entry.start);
        // The slot may have got another block by now: only the whole entry can be checked.
        if skip == 0 && buf.len() >= len {
            let into = &mut buf[..len];
            file.read_exact_at(into, at).ok()?;
            return (xxh3_64(into) == *sum).then_some(len);
        }
        let mut whole = vec![0; len];
        file.read_exact_at(&mut whole, at).ok()?;
        let rest = whole.get(skip..).filter(|_| xxh3_64(&whole) == *sum)?;
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Some(n)
    }
}

fn make_file(dir: &Path) -> Option<File> {
    let space = rustix::fs::statvfs(dir).ok()?;
    if space.f_bavail.saturating_mul(space.f_frsize) < MIN_FREE {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR);
    file.ok().map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::EntryKind;

    fn block(seed: u8) -> DecodedBlock {
        let entry = |n: u8| Entry {
            key: Key::new(EntryKind::Payload, [n; 32]),
            start: u32::from(n) * 1000,
            len: 1000,
        };
        let raw = (0..5000u32).map(|n| (n as u8).wrapping_mul(seed)).collect();
        DecodedBlock::new(BlockClass::Group, (0..5).map(entry).collect(), raw)
    }

    fn place(n: usize) -> Place {
        (PackId::from_bytes([7; 16]), n as u32)
    }

    #[test]
    fn entries_of_a_spilled_block_are_read_whole_and_in_part() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("cache")).unwrap();
        let spill = Spill::new(dir.path());
        let key = |n: u8| Key::new(EntryKind::Payload, [n; 32]);
        let read = |at: usize, n: u8, skip: usize, len: usize| {
            let mut buf = vec![0; len];
            let n = spill.read(place(at), (u32::from(n), &key(n)), skip, &mut buf)?;
            buf.truncate(n);
            Some(buf)
        };
        assert_eq!(read(1, 3, 0, 1000), None);
        let block = block(3);
        spill.put(place(1), &block);
        let bytes = block.bytes(&block.entries[3]);
        assert_eq!(read(1, 3, 0, 4096).unwrap(), bytes);
        assert_eq!(read(1, 3, 990, 100).unwrap(), bytes[990..]);
        assert_eq!(read(1, 3, 100, 10).unwrap(), bytes[100..110]);
        let mut buf = [0; 1000];
        assert_eq!(spill.read(place(1), (3, &key(2)), 0, &mut buf), None);
        assert_eq!(spill.read(place(1), (9, &key(9)), 0, &mut buf), None);
    }

    #[test]
    fn the_oldest_blocks_make_room_and_used_up_ones_are_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("cache")).unwrap();
        let spill = Spill::new(dir.path());
        let used = block(1);
        for n in 0..5 {
            used.note_done(n);
        }
        spill.put(place(9999), &used);
        for n in 0..SLOTS.get() + 2 {
            spill.put(place(n), &block(n as u8 | 1));
        }
        let key = Key::new(EntryKind::Payload, [4; 32]);
        let mut buf = [0; 1000];
        let mut found = |n: usize| spill.read(place(n), (4, &key), 0, &mut buf);
        assert_eq!((found(9999), found(0), found(1)), (None, None, None));
        for n in 2..SLOTS.get() + 2 {
            assert_eq!(found(n), Some(1000), "block {n}");
        }
    }

    #[test]
    fn without_a_place_for_the_file_nothing_is_kept() {
        let spill = Spill::new(Path::new("/proc/nowhere"));
        spill.put(place(1), &block(1));
        let key = Key::new(EntryKind::Payload, [0; 32]);
        assert_eq!(spill.read(place(1), (0, &key), 0, &mut [0; 9]), None);
    }
}

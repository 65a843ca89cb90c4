//! Decoded blocks, and how much of each was read.
//!
//! Whoever reads payloads through a cache of the kernel asks for each byte once, so a block of which
//! everything was read need not be kept. Counting is approximate where it is cheap to be: it
//! decides what stays in memory, never what is read.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::reader::Entry;
use super::{BlockClass, EntryKind, Key};

/// A decoded block.
#[derive(Debug)]
pub(crate) struct DecodedBlock {
    pub(crate) class: BlockClass,
    pub(crate) entries: Vec<Entry>,
    raw: Vec<u8>,
    /// Bytes that nobody has read yet.
    left: AtomicU64,
    /// Entries of a group that were read to their ends, one bit each.
    done: Box<[AtomicU64]>,
    /// Reads that this block answered.
    reads: AtomicU32,
}

impl DecodedBlock {
    /// A block whose entries lie within `raw`.
    pub(crate) fn new(class: BlockClass, entries: Vec<Entry>, raw: Vec<u8>) -> Self {
        let words = match class {
            BlockClass::Group => entries.len().div_ceil(64),
            _ => 0,
        };
        Self {
            class,
            left: AtomicU64::new(raw.len() as u64),
            done: (0..words).map(|_| AtomicU64::new(0)).collect(),
            reads: AtomicU32::new(0),
            entries,
            raw,
        }
    }

    /// Bytes that were made from an entry of another block, as a block of their own.
    pub(crate) fn derived(raw: Vec<u8>) -> Self {
        let entry = Entry {
            key: Key::new(EntryKind::Payload, [0; 32]),
            start: 0,
            len: raw.len() as u32,
        };
        Self::new(BlockClass::Extent, vec![entry], raw)
    }

    /// The bytes of an entry of this block.
    pub(crate) fn bytes(&self, entry: &Entry) -> &[u8] {
        // Entries are checked against the raw length when the block is decoded.
        &self.raw[entry.start as usize..(entry.start + entry.len) as usize]
    }

    /// Memory that the block holds, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.raw.capacity() + self.entries.capacity() * size_of::<Entry>() + size_of::<Self>()
    }

    /// Notes that `len` bytes of an entry were read, up to `end` in the entry. Says whether all of the
    /// block has been read now.
    pub(crate) fn note_read(&self, entry: usize, end: u64, len: u64) -> bool {
        self.reads.fetch_add(1, Relaxed);
        if self.done.is_empty() {
            return self.take(len);
        }
        let whole = self.entries.get(entry).map_or(0, |e| u64::from(e.len));
        end >= whole && self.note_done(entry)
    }

    /// Notes that nobody will ask for an entry of a group any more. Says whether this holds for all of
    /// them now.
    pub(crate) fn note_done(&self, entry: usize) -> bool {
        let Some(word) = self.done.get(entry / 64) else {
            return false;
        };
        let bit = 1 << (entry % 64);
        if word.fetch_or(bit, Relaxed) & bit != 0 {
            return false;
        }
        self.take(self.entries.get(entry).map_or(0, |e| u64::from(e.len)))
    }

    /// Whether an entry of a group was read or dealt with otherwise.
    pub(crate) fn is_done(&self, entry: usize) -> bool {
        let word = self
            .done
            .get(entry / 64)
            .map_or(0, |word| word.load(Relaxed));
        word & (1 << (entry % 64)) != 0
    }

    /// Reads that this block answered.
    pub(crate) fn reads(&self) -> u32 {
        self.reads.load(Relaxed)
    }

    /// Whether nothing is left to be read.
    fn take(&self, len: u64) -> bool {
        let taken = self
            .left
            .fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(len)));
        taken.is_ok_and(|left| left > 0 && left <= len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> DecodedBlock {
        let entry = |n: u8, start: u32, len: u32| Entry {
            key: Key::new(EntryKind::Payload, [n; 32]),
            start,
            len,
        };
        let entries = vec![entry(1, 0, 10), entry(2, 10, 5), entry(3, 15, 1)];
        DecodedBlock::new(BlockClass::Group, entries, vec![0; 16])
    }

    #[test]
    fn a_group_is_used_up_when_each_entry_was_read_to_its_end() {
        let block = group();
        assert!(!block.note_read(0, 4, 4));
        assert!(!block.is_done(0));
        assert!(!block.note_read(0, 10, 6));
        assert!(!block.note_read(0, 10, 10), "a second time does not count");
        assert!(!block.note_done(2));
        assert!(block.note_read(1, 5, 5));
        assert!(!block.note_read(1, 5, 5), "told once");
        assert_eq!(block.reads(), 5);
    }

    #[test]
    fn an_extent_is_used_up_when_as_many_bytes_were_read() {
        let block = DecodedBlock::derived(vec![0; 100]);
        assert!(!block.note_read(0, 60, 60));
        assert!(block.note_read(0, 100, 60));
        assert!(!block.note_read(0, 10, 10));
        assert!(!block.note_done(0) && !block.is_done(7));
    }
}

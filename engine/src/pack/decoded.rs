//! Decoded blocks, and how much of each was read.
//!
//! Whoever reads payloads through a cache of the kernel asks for each byte once, so a block of which
//! everything was read need not be kept. Counting is approximate where it is cheap to be: it
//! decides what stays in memory, never what is read.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::reader::Entry;
use super::{BlockClass, EntryKind, Key, buffers};

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
    /// At how many of them its other entries are worth offering to whoever reads.
    offer: AtomicU32,
}

/// A second read tells that entries of a group are being read, not only looked at.
const FIRST_OFFER: u32 = 2;
/// As more is read, more may be wanted.
const OFFER_STEP: u32 = 4;

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
            offer: AtomicU32::new(FIRST_OFFER),
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

    /// The bytes of all entries.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Whether everything has been read.
    pub(crate) fn is_used_up(&self) -> bool {
        self.left.load(Relaxed) == 0
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

    /// Whether enough was read to offer the other entries: at the second read, and whenever the number
    /// of reads has become four times as large. True once each time.
    pub(crate) fn is_offer_due(&self) -> bool {
        let reads = self.reads.load(Relaxed);
        let next = |due| (reads >= due).then(|| reads.saturating_mul(OFFER_STEP));
        self.offer.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Whether nothing is left to be read.
    fn take(&self, len: u64) -> bool {
        let taken = self
            .left
            .fetch_update(Relaxed, Relaxed, |left| Some(left.saturating_sub(len)));
        taken.is_ok_and(|left| left > 0 && left <= len)
    }
}

impl Drop for DecodedBlock {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.raw));
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
    }

    #[test]
    fn a_group_is_offered_at_the_second_read_and_at_four_times_as_many() {
        let block = group();
        let due = (1..=40).filter(|_| {
            block.note_read(0, 1, 1);
            block.is_offer_due()
        });
        assert_eq!(due.collect::<Vec<_>>(), [2, 8, 32]);
        assert!(!block.is_offer_due());
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

//! A set of inode numbers that may err: some that were never put in are in it.
//!
//! It takes the same memory whatever it is asked to hold, and is right often enough for what merely
//! saves work.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits, as a power of two: a million files leave seven of eight other numbers outside.
const BITS: u32 = 23;
/// Spreads numbers that follow one another; any odd number with many ones and zeros does.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Inode numbers, roughly.
#[derive(Default)]
pub(crate) struct Seen {
    /// Made when the first number comes: a mount does not wait for it.
    words: OnceLock<Box<[AtomicU64]>>,
}

impl Seen {
    /// Puts a number in; says whether it was not there.
    pub(crate) fn insert(&self, number: u64) -> bool {
        let empty = || (0..1 << (BITS - 6)).map(|_| AtomicU64::new(0)).collect();
        self.words.get_or_init(empty);
        let (word, bit) = self.at(number);
        word.is_some_and(|word| word.fetch_or(bit, Relaxed) & bit == 0)
    }

    /// Whether a number, or one that looks like it, was put in.
    pub(crate) fn contains(&self, number: u64) -> bool {
        let (word, bit) = self.at(number);
        word.is_some_and(|word| word.load(Relaxed) & bit != 0)
    }

    /// Takes a number out, and those that look like it.
    pub(crate) fn remove(&self, number: u64) {
        let (word, bit) = self.at(number);
        if let Some(word) = word {
            word.fetch_and(!bit, Relaxed);
        }
    }

    /// Takes all out.
    pub(crate) fn clear(&self) {
        for word in self.words.get().into_iter().flatten() {
            word.store(0, Relaxed);
        }
    }

    fn at(&self, number: u64) -> (Option<&AtomicU64>, u64) {
        let place = number.wrapping_mul(SPREAD) >> (64 - BITS);
        let words = self.words.get();
        let word = words.and_then(|words| words.get(place as usize / 64));
        (word, 1 << (place % 64))
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_there_and_nearly_nothing_else() {
        let seen = Seen::default();
        assert!((0..100_000).filter(|n| seen.insert(*n)).count() > 98_000);
        assert!((0..100_000).all(|n| seen.contains(n)));
        let others = (100_000..200_000).filter(|n| seen.contains(*n)).count();
        assert!(others < 3_000, "{others}");
        seen.remove(5);
        assert!(!seen.contains(5) && seen.contains(6));
        seen.clear();
        assert!(!seen.contains(6));
    }
}

//! Tells whether two files are likely versions of each other, each being read alone.
//!
//! A gear hash rolls over a file, and about one position in [`SPACING`] is sampled, as in Odess: a
//! sample stands for the 64 bytes before it. Of their hashes the smallest ones are the *features*.
//! The larger the part of its samples that a file shares with another, wherever they lie, the more
//! features the two have in common. Nothing here says where the likeness is: that is for
//! [`anchors`](crate::anchors).

use crate::anchors::roll;

/// Features of a sketch.
pub(crate) const FEATURES: usize = 16;
/// Samples are on average this many bytes apart (a power of two).
const SPACING: u64 = 64;
/// Only so many of the first bytes of a file count.
const SKETCHED_MAX: u64 = 64 << 20;

/// What is kept of a file to compare it with others: 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sketch {
    /// Ascending, all different.
    features: [u32; FEATURES],
}

/// Makes a sketch of a file whose bytes come piece by piece.
#[derive(Debug, Default)]
pub(crate) struct SketchBuilder {
    hash: u64,
    position: u64,
    /// The smallest so far, ascending, all different.
    features: Vec<u32>,
}

impl SketchBuilder {
    /// Takes the next bytes; says whether those that follow count, too.
    pub(crate) fn update(&mut self, bytes: &[u8]) -> bool {
        let left = SKETCHED_MAX - self.position;
        let bytes = &bytes[..left.min(bytes.len() as u64) as usize];
        let features = &mut self.features;
        let mut largest = largest_that_counts(features);
        self.hash = roll(self.hash, bytes, (SPACING - 1).reverse_bits(), |hash, _| {
            let feature = mix(hash);
            if feature < largest
                && let Err(at) = features.binary_search(&feature)
            {
                features.insert(at, feature);
                features.truncate(FEATURES);
                largest = largest_that_counts(features);
            }
        });
        self.position += bytes.len() as u64;
        self.position < SKETCHED_MAX
    }

    /// The sketch; none of a file that is too short, or that repeats itself all over.
    pub(crate) fn finish(self) -> Option<Sketch> {
        let features = self.features.try_into().ok()?;
        Some(Sketch { features })
    }
}

/// What a feature must be smaller than to be among the smallest.
fn largest_that_counts(features: &[u32]) -> u32 {
    features.get(FEATURES - 1).copied().unwrap_or(u32::MAX)
}

/// All samples have their upper bits in common, and the lower ones know the last few bytes only.
fn mix(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

impl Sketch {
    /// The sketch of bytes in memory.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let mut builder = SketchBuilder::default();
        builder.update(bytes);
        builder.finish()
    }

    /// What is compared: two files are the more alike, the more of these they share.
    pub(crate) fn features(&self) -> &[u32; FEATURES] {
        &self.features
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        let next = |_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..len).map(next).collect()
    }

    fn common(a: &[u8], b: &[u8]) -> usize {
        let (a, b) = (Sketch::of(a).unwrap(), Sketch::of(b).unwrap());
        a.features()
            .iter()
            .filter(|f| b.features().contains(f))
            .count()
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_a_file_comes(
            seed: u64, len in 0usize..40_000, step in 1usize..5000,
        ) {
            let bytes = noise(seed, len);
            let mut builder = SketchBuilder::default();
            for piece in bytes.chunks(step) {
                prop_assert!(builder.update(piece));
            }
            let sketch = builder.finish();
            prop_assert_eq!(&sketch, &Sketch::of(&bytes));
            prop_assert!(sketch.is_some() || len < 4000);
            prop_assert!(sketch.is_none_or(|s| s.features().is_sorted_by(|a, b| a < b)));
        }

        #[test]
        fn what_moved_inside_a_file_and_small_edits_leave_features(
            seed: u64, at in 0usize..50_000, every in 300usize..2000,
        ) {
            let old = noise(seed, 50_000);
            let mut new = [&old[at..], b"inserted", &old[..at]].concat();
            prop_assert!(common(&old, &new) >= 12);
            new.iter_mut().step_by(every).for_each(|byte| *byte ^= 0x55);
            prop_assert!(common(&old, &new) >= 3, "{}", common(&old, &new));
        }

        #[test]
        fn strangers_have_no_features_in_common(seed: u64, len in 20_000usize..100_000) {
            prop_assert!(common(&noise(seed, len), &noise(!seed, len)) < 2);
        }
    }

    #[test]
    fn repetition_has_no_sketch() {
        assert_eq!(Sketch::of(&[0; 100_000]), None);
        assert_eq!(Sketch::of(&b"all work and no play ".repeat(5000)), None);
    }

    #[test]
    fn of_large_files_only_the_first_bytes_count() {
        let mut builder = SketchBuilder::default();
        let piece = noise(1, 1 << 20);
        for _ in 1..64 {
            assert!(builder.update(&piece));
        }
        assert!(!builder.update(&piece));
        let sketch = builder.finish();
        let mut longer = piece.repeat(64);
        longer.extend(noise(2, 1 << 20));
        assert_eq!(sketch, Sketch::of(&longer));
    }
}

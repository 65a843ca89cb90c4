//! Finds where the bytes of one file lie in another version of it.
//!
//! A gear hash rolls over the base; positions where its top bits are zero are *anchors*, known by
//! the whole hash, that is by the last 64 bytes. A block of the new version votes with the anchors
//! it shares: the median of their displacements says where in the base the block came from. Linker
//! noise changes bytes every few hundred, so some anchors always survive.

/// Anchors are on average this many bytes apart (a power of two) in bases up to
/// [`FULL_DENSITY`]; further in larger ones, so that the table stays small.
const SPACING: u64 = 256;
/// Bases up to this size get anchors at full density.
const FULL_DENSITY: u64 = 64 << 20;
/// Fewer votes than this are chance.
const MIN_VOTES: usize = 3;

/// The anchors of a base.
#[derive(Debug)]
pub(crate) struct Anchors {
    /// An anchor's hash has none of these bits.
    mask: u64,
    /// Hash and end position, sorted; hashes that occur more than once are left out.
    table: Vec<(u64, u64)>,
}

/// Finds the anchors of a base whose bytes come piece by piece.
#[derive(Debug)]
pub(crate) struct AnchorBuilder {
    hash: u64,
    position: u64,
    anchors: Anchors,
}

impl AnchorBuilder {
    /// For a base of this size.
    pub(crate) fn new(size: u64) -> Self {
        let spacing = SPACING * size.div_ceil(FULL_DENSITY).max(1).next_power_of_two();
        let anchors = Anchors {
            mask: (spacing - 1).reverse_bits(),
            table: Vec::new(),
        };
        Self {
            hash: 0,
            position: 0,
            anchors,
        }
    }

    /// Takes the next bytes of the base.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let (mask, table) = (self.anchors.mask, &mut self.anchors.table);
        let start = self.position;
        self.hash = roll(self.hash, bytes, mask, |hash, n| {
            table.push((hash, start + n as u64));
        });
        self.position += bytes.len() as u64;
    }

    /// The table, ready for look-ups.
    pub(crate) fn finish(self) -> Anchors {
        let Anchors { mask, mut table } = self.anchors;
        table.sort_unstable();
        let mut unique = Vec::with_capacity(table.len());
        unique.extend(
            table
                .chunk_by(|a, b| a.0 == b.0)
                .filter(|same| same.len() == 1)
                .map(|same| same[0]),
        );
        Anchors {
            mask,
            table: unique,
        }
    }
}

impl Anchors {
    /// By how much the bytes of a block at `position` of the new version are displaced from where
    /// they stand in the base (new minus base); `None` when they share too little to say.
    pub(crate) fn displacement(&self, block: &[u8], position: u64) -> Option<i64> {
        let mut votes = Vec::new();
        roll(0, block, self.mask, |hash, n| {
            if let Ok(at) = self.table.binary_search_by_key(&hash, |anchor| anchor.0) {
                votes.push((position + n as u64) as i64 - self.table[at].1 as i64);
            }
        });
        if votes.len() < MIN_VOTES {
            return None;
        }
        let middle = votes.len() / 2;
        Some(*votes.select_nth_unstable(middle).1)
    }
}

/// Rolls the hash over bytes; tells of each anchor and how many bytes end with it.
pub(crate) fn roll(
    mut hash: u64,
    bytes: &[u8],
    mask: u64,
    mut anchor: impl FnMut(u64, usize),
) -> u64 {
    for (n, byte) in bytes.iter().enumerate() {
        hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
        if hash & mask == 0 {
            anchor(hash, n + 1);
        }
    }
    hash
}

/// One random number for each byte value, by splitmix64.
static GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = 0u64;
    let mut n = 0;
    while n < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[n] = z ^ (z >> 31);
        n += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 5u64;
        let next = |_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..len).map(next).collect()
    }

    fn anchors(base: &[u8]) -> Anchors {
        let mut builder = AnchorBuilder::new(base.len() as u64);
        base.chunks(1000).for_each(|piece| builder.update(piece));
        builder.finish()
    }

    #[test]
    fn a_block_that_moved_is_found_in_spite_of_changes() {
        let base = noise(1_000_000);
        let mut new = noise(300);
        new.extend_from_slice(&base[..400_000]);
        new.extend_from_slice(&base[500_000..]);
        for at in (0..new.len()).step_by(700) {
            new[at] ^= 0x55;
        }
        let anchors = anchors(&base);
        let block = |start: usize| &new[start..start + 100_000];
        assert_eq!(anchors.displacement(block(100_000), 100_000), Some(300));
        let moved = 300 - 100_000;
        assert_eq!(anchors.displacement(block(600_000), 600_000), Some(moved));
    }

    #[test]
    fn strangers_and_repetition_have_no_displacement() {
        let base = noise(300_000);
        assert_eq!(anchors(&base).displacement(&[7; 100_000], 0), None);
        let zeros = vec![0; 300_000];
        assert_eq!(anchors(&zeros).displacement(&zeros[..100_000], 0), None);
        assert_eq!(anchors(&[]).displacement(&base, 0), None);
    }

    #[test]
    fn tables_of_large_bases_are_thinned_out() {
        assert_eq!(AnchorBuilder::new(1 << 20).anchors.mask, 0xff << 56);
        assert_eq!(AnchorBuilder::new(65 << 20).anchors.mask, 0x1ff << 55);
    }
}

//! Finds where runs of bytes of a new file stand in an old one.
//!
//! A hash table of the old file's positions, by the bytes that follow them, in place of the suffix
//! array that bsdiff sorts: a tenth of the time and a bounded share of memory, for matches that are
//! at least [`SEED`] bytes long. Where they are that long the longest of a few is found, which is
//! nearly always the longest of all.

/// Bytes that two places must have in common to be compared.
const SEED: usize = 12;
/// Places that are compared for one position.
const MAX_TRIES: usize = 12;
/// Longer matches are as good as this long.
const MAX_LEN: usize = 2048;
/// Old files up to this size have every position in the table, larger ones every second, fourth...
const FULL_DENSITY: usize = 16 << 20;
/// No place: positions are below it.
const NONE: u32 = u32::MAX;

/// Memory of tables, which one search leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Position, divided by the step, that was added last for each hash.
    heads: Vec<u32>,
    /// For each position that of the same hash that was added before it.
    before: Vec<u32>,
}

/// The positions of an old file.
#[derive(Debug)]
pub(super) struct Places<'a> {
    old: &'a [u8],
    /// Bits of the hash that are dropped.
    shift: u32,
    /// Positions in the table are multiples of this.
    step: usize,
    heads: &'a [u32],
    before: &'a [u32],
}

impl<'a> Places<'a> {
    pub(super) fn new(old: &'a [u8], tables: &'a mut Tables) -> Self {
        let step = old.len().div_ceil(FULL_DENSITY).max(1).next_power_of_two();
        let count = (old.len() + 1).saturating_sub(SEED).div_ceil(step);
        let bits = (usize::BITS - count.leading_zeros()).clamp(8, 24);
        let shift = 64 - bits;
        let Tables { heads, before } = tables;
        heads.clear();
        heads.resize(1 << bits, NONE);
        before.clear();
        before.resize(count, NONE);
        let mut last = usize::MAX;
        // Descending, so that of equal places the first is tried first.
        for number in (0..count).rev() {
            let hash = hash(&old[number * step..]) >> shift;
            // In a run of one byte all positions are alike, and matches are longest at its start.
            before[number] = if hash as usize == last {
                before[number + 1]
            } else {
                heads[hash as usize]
            };
            heads[hash as usize] = number as u32;
            last = hash as usize;
        }
        Self {
            old,
            shift,
            step,
            heads,
            before,
        }
    }

    /// Length and position in the old file of the longest of a few matches of what `new` begins
    /// with; length 0 if there is none.
    pub(super) fn longest(&self, new: &[u8]) -> (usize, usize) {
        let mut best = (0, 0);
        if new.len() < SEED {
            return best;
        }
        let mut number = self.heads[(hash(new) >> self.shift) as usize];
        for _ in 0..MAX_TRIES {
            if number == NONE {
                break;
            }
            let at = number as usize * self.step;
            let len = common(&self.old[at..], new);
            if len > best.0 {
                best = (len, at);
                if len == MAX_LEN {
                    break;
                }
            }
            number = self.before[number as usize];
        }
        if best.0 < SEED { (0, 0) } else { best }
    }
}

/// Of at least [`SEED`] bytes.
fn hash(bytes: &[u8]) -> u64 {
    let (low, rest) = bytes
        .split_first_chunk::<8>()
        .expect("because seeds are longer");
    let high = rest.first_chunk::<4>().expect("because seeds are longer");
    let low = u64::from_le_bytes(*low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let high = u64::from(u32::from_le_bytes(*high));
    (low.rotate_left(23) ^ high).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// How many bytes two strings begin with are the same; at most [`MAX_LEN`].
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    let max = a.len().min(b.len()).min(MAX_LEN);
    let (a, b) = (&a[..max], &b[..max]);
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let mut len = 0;
    for (x, y) in words {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return len + (differ.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    let rest = a[len..].iter().zip(&b[len..]);
    len + rest.take_while(|(x, y)| x == y).count()
}

//! Differences between two versions of a file, in the form that OSTree's clients patch with.
//!
//! Owns the search for likeness ([`Aligner`]) and the byte stream of bsdiff ([`encode`], [`Patch`]).
//! It never reads files and knows no objects. The stream has no head and is not compressed:
//! triples of numbers, each followed by bytes to add to the source and bytes to take as they are.
//! What bsdiff calls control is a [`Stretch`] here.

mod search;

use search::{Places, Tables, common};

/// Size of the three numbers before each stretch.
pub(crate) const HEAD_SIZE: usize = 24;
/// A match must be better by so many bytes than going on at the same displacement.
const MIN_GAIN: usize = 4;
/// Bytes in a row that agree at the same displacement make it needless to look elsewhere.
const CALM: usize = 16;

/// A stretch of the new file: bytes that resemble the old file, then bytes that do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Where in the old file the bytes are that the first ones resemble.
    pub(crate) from: usize,
    /// How many bytes resemble old ones.
    pub(crate) alike: usize,
    /// How many bytes follow that do not.
    pub(crate) fresh: usize,
}

/// Finds what files have in common; its memory serves one search after the other.
#[derive(Debug, Default)]
pub(crate) struct Aligner(Tables);

impl Aligner {
    /// Divides a new file into stretches by what it has in common with an old one.
    ///
    /// This is the algorithm of bsdiff: a match somewhere else begins a new stretch if it is better
    /// than going on; then the end of one stretch and the beginning of the next grow towards each other
    /// for as long as more than half of the bytes agree.
    pub(crate) fn align(&mut self, old: &[u8], new: &[u8]) -> Vec<Stretch> {
        let places = Places::new(old, &mut self.0);
        let mut stretches = Vec::new();
        let mut here = Cursor {
            old,
            new,
            scan: 0,
            from: 0,
        };
        let mut scan = 0;
        while scan < new.len() {
            let (at, len, from) = here.next_match(&places, scan);
            if let Some(from) = from {
                stretches.push(here.close(at, from));
            } else if at == new.len() {
                break;
            }
            scan = at + len;
        }
        let last = here.rest();
        if last.alike + last.fresh > 0 {
            stretches.push(last);
        }
        stretches
    }
}

/// The stretch under construction.
struct Cursor<'a> {
    old: &'a [u8],
    new: &'a [u8],
    /// Where the stretch begins in the new file.
    scan: usize,
    /// Where it begins in the old one.
    from: usize,
}

impl Cursor<'_> {
    /// The old byte that stands at a place of the new file, at the stretch's displacement.
    fn opposite(&self, at: usize) -> Option<u8> {
        self.old
            .get((self.from + at).checked_sub(self.scan)?)
            .copied()
    }

    fn agrees(&self, at: usize) -> bool {
        self.opposite(at) == Some(self.new[at])
    }

    /// From `scan` on: where the next match is, its length, and where in the old file, if it is not
    /// this stretch that goes on.
    fn next_match(&self, places: &Places<'_>, mut scan: usize) -> (usize, usize, Option<usize>) {
        let mut score = 0;
        let mut scored = scan;
        while scan < self.new.len() {
            let opposite = (self.from + scan).checked_sub(self.scan);
            let opposite = opposite
                .and_then(|at| self.old.get(at..))
                .unwrap_or_default();
            let run = common(opposite, &self.new[scan..]);
            if run >= CALM {
                return (scan, run, None);
            }
            let (len, from) = places.longest(&self.new[scan..]);
            for at in scored..scan + len {
                score += usize::from(self.agrees(at));
            }
            scored = scored.max(scan + len);
            if len > 0 && len == score {
                return (scan, len, None);
            }
            if len > score + MIN_GAIN {
                return (scan, len, Some(from));
            }
            if scored > scan {
                score -= usize::from(self.agrees(scan));
            } else {
                scored = scan + 1;
            }
            scan += 1;
        }
        (scan, 0, None)
    }

    /// How far a stretch reaches forward from its beginning, towards `end`.
    fn forward(&self, end: usize) -> usize {
        let (mut agree, mut best, mut len) = (0isize, 0isize, 0);
        let limit = (end - self.scan).min(self.old.len() - self.from);
        let pairs = self.new[self.scan..]
            .iter()
            .zip(&self.old[self.from..])
            .take(limit);
        for (n, (a, b)) in pairs.enumerate() {
            agree += if a == b { 1 } else { -1 };
            if agree > best {
                (best, len) = (agree, n + 1);
            }
        }
        len
    }

    /// How far the match of `at` with `from` reaches backward.
    fn backward(&self, at: usize, from: usize) -> usize {
        let (mut agree, mut best, mut len) = (0isize, 0isize, 0);
        let pairs = self.new[self.scan..at]
            .iter()
            .rev()
            .zip(self.old[..from].iter().rev());
        for (n, (a, b)) in pairs.enumerate() {
            agree += if a == b { 1 } else { -1 };
            if agree > best {
                (best, len) = (agree, n + 1);
            }
        }
        len
    }

    /// Ends the stretch where it meets the match of `at` with `from`, and begins the next.
    fn close(&mut self, at: usize, from: usize) -> Stretch {
        let mut alike = self.forward(at);
        let mut back = self.backward(at, from);
        let overlap = (self.scan + alike + back).saturating_sub(at);
        if overlap > 0 {
            // Each byte of the overlap goes to the side on which more of them agree.
            let start = self.scan + alike - overlap;
            let other = from - back;
            let (mut lead, mut best, mut keep) = (0isize, 0isize, 0);
            for n in 0..overlap {
                let byte = self.new[start + n];
                lead += isize::from(self.opposite(start + n) == Some(byte));
                lead -= isize::from(self.old[other + n] == byte);
                if lead > best {
                    (best, keep) = (lead, n + 1);
                }
            }
            alike = alike - overlap + keep;
            back -= keep;
        }
        let next = at - back;
        let stretch = Stretch {
            from: self.from,
            alike,
            fresh: next - self.scan - alike,
        };
        (self.scan, self.from) = (next, from - back);
        stretch
    }

    /// The last stretch.
    fn rest(&self) -> Stretch {
        let alike = self.forward(self.new.len());
        Stretch {
            from: self.from,
            alike,
            fresh: self.new.len() - self.scan - alike,
        }
    }
}

/// The stream that makes `new` from `old`.
pub(crate) fn encode(old: &[u8], new: &[u8], stretches: &[Stretch]) -> Vec<u8> {
    let mut out = Vec::with_capacity(new.len() + stretches.len() * HEAD_SIZE);
    let mut at = 0;
    for (n, stretch) in stretches.iter().enumerate() {
        let end = stretch.from + stretch.alike;
        let next = stretches.get(n + 1).map_or(end, |next| next.from);
        let (alike, fresh) = (stretch.alike as i64, stretch.fresh as i64);
        for number in [alike, fresh, next as i64 - end as i64] {
            out.extend_from_slice(&put_number(number));
        }
        let (resembling, rest) = new[at..].split_at(stretch.alike);
        let pairs = resembling.iter().zip(&old[stretch.from..end]);
        out.extend(pairs.map(|(new, old)| new.wrapping_sub(*old)));
        out.extend_from_slice(&rest[..stretch.fresh]);
        at += stretch.alike + stretch.fresh;
    }
    out
}

/// Sign and magnitude, little-endian.
fn put_number(number: i64) -> [u8; 8] {
    let sign = u64::from(number < 0) << 63;
    (number.unsigned_abs() | sign).to_le_bytes()
}

/// Why a stream does not make what it shall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatchError {
    /// The stream ends before the file does.
    #[error("patch ends too early")]
    Short,
    /// A stretch is longer than the rest of the file, or has a length that none can have.
    #[error("patch makes more than it shall")]
    Long,
}

/// Takes a stream apart: what to do, one step after the other, until `size` bytes are made.
#[derive(Debug)]
pub(crate) struct Patch<'a> {
    stream: &'a [u8],
    left: u64,
    /// Where in the source the next bytes are; streams may point outside of it.
    from: i64,
    /// Fresh bytes of this stretch, and by how much the source is skipped after them.
    pending: Option<(u64, i64)>,
}

/// One step of a [`Patch`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// These bytes are added to those of the source at a position.
    Add(i64, &'a [u8]),
    /// These bytes are taken as they are.
    Take(&'a [u8]),
}

impl<'a> Patch<'a> {
    /// A stream that makes a file of this size.
    pub(crate) fn new(stream: &'a [u8], size: u64) -> Self {
        Self {
            stream,
            left: size,
            from: 0,
            pending: None,
        }
    }

    /// The next step; none when the file is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Step<'a>>, PatchError> {
        if let Some((fresh, skip)) = self.pending.take() {
            let bytes = self.take(fresh)?;
            self.from = self.from.wrapping_add(skip);
            return Ok(Some(Step::Take(bytes)));
        }
        if self.left == 0 {
            return Ok(None);
        }
        let (head, rest) = self
            .stream
            .split_first_chunk::<HEAD_SIZE>()
            .ok_or(PatchError::Short)?;
        self.stream = rest;
        let numbers = head.as_chunks::<8>().0;
        let length = |number: i64| match u64::try_from(number) {
            Ok(number) if number <= i32::MAX as u64 => Ok(number),
            _ => Err(PatchError::Long),
        };
        let (alike, fresh) = (
            length(get_number(numbers[0]))?,
            length(get_number(numbers[1]))?,
        );
        let from = self.from;
        let bytes = self.take(alike)?;
        self.from = self.from.wrapping_add(alike as i64);
        self.pending = Some((fresh, get_number(numbers[2])));
        Ok(Some(Step::Add(from, bytes)))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], PatchError> {
        self.left = self.left.checked_sub(len).ok_or(PatchError::Long)?;
        let len = usize::try_from(len).map_err(|_| PatchError::Long)?;
        let (bytes, rest) = self.stream.split_at_checked(len).ok_or(PatchError::Short)?;
        self.stream = rest;
        Ok(bytes)
    }
}

fn get_number(bytes: [u8; 8]) -> i64 {
    let number = u64::from_le_bytes(bytes);
    let magnitude = (number & (u64::MAX >> 1)) as i64;
    if number >> 63 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What bspatch does.
    fn patch(old: &[u8], stream: &[u8], size: usize) -> Result<Vec<u8>, PatchError> {
        let mut patch = Patch::new(stream, size as u64);
        let mut new = Vec::new();
        while let Some(step) = patch.next()? {
            match step {
                Step::Add(from, bytes) => new.extend(bytes.iter().enumerate().map(|(n, byte)| {
                    let at = usize::try_from(from + n as i64).ok();
                    byte.wrapping_add(at.and_then(|at| old.get(at)).copied().unwrap_or(0))
                })),
                Step::Take(bytes) => new.extend_from_slice(bytes),
            }
        }
        Ok(new)
    }

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

    fn streamed(old: &[u8], new: &[u8]) -> (Vec<Stretch>, Vec<u8>) {
        let stretches = Aligner::default().align(old, new);
        let stream = encode(old, new, &stretches);
        (stretches, stream)
    }

    proptest! {
        #[test]
        fn what_is_patched_is_what_was_new(
            seed: u64, cuts in prop::collection::vec((0usize..3000, 0usize..3000, 0usize..40), 0..12),
        ) {
            let old = noise(seed, 3000);
            let mut new = Vec::new();
            for (n, (a, b, fresh)) in cuts.into_iter().enumerate() {
                new.extend_from_slice(&old[a.min(b)..a.max(b)]);
                new.extend(noise(n as u64, fresh));
                if let Some(byte) = new.get_mut(a) {
                    *byte ^= 1;
                }
            }
            let (stretches, stream) = streamed(&old, &new);
            let total: usize = stretches.iter().map(|s| s.alike + s.fresh).sum();
            prop_assert_eq!(total, new.len());
            prop_assert_eq!(stream.len(), new.len() + stretches.len() * HEAD_SIZE);
            prop_assert_eq!(patch(&old, &stream, new.len()).unwrap(), new);
        }

        #[test]
        fn of_short_and_repetitive_files_too(
            old in prop::collection::vec(0u8..3, 0..200), new in prop::collection::vec(0u8..3, 0..200),
        ) {
            let (_, stream) = streamed(&old, &new);
            prop_assert_eq!(patch(&old, &stream, new.len()).unwrap(), new);
        }

        #[test]
        fn any_bytes_are_a_patch_or_an_error(stream: Vec<u8>, size in 0usize..1000) {
            if let Ok(new) = patch(b"old", &stream, size) {
                prop_assert_eq!(new.len(), size);
            }
        }
    }

    #[test]
    fn moved_code_with_changed_addresses_is_found() {
        let old = noise(1, 200_000);
        let mut new = [&old[90_000..], b"inserted", &old[..90_000]].concat();
        new.iter_mut()
            .step_by(37)
            .for_each(|byte| *byte = byte.wrapping_add(4));
        let (stretches, stream) = streamed(&old, &new);
        assert!(stretches.len() <= 4, "{stretches:?}");
        let zeros = stream.iter().filter(|byte| **byte == 0).count();
        assert!(zeros > new.len() * 9 / 10, "{zeros}");
        assert_eq!(patch(&old, &stream, new.len()).unwrap(), new);
    }

    #[test]
    fn long_repetition_takes_no_long_time() {
        let old = vec![7; 3_000_000];
        let mut new = vec![7; 3_000_000];
        new.iter_mut().step_by(50_000).for_each(|byte| *byte = 0);
        let (_, stream) = streamed(&old, &new);
        assert_eq!(patch(&old, &stream, new.len()).unwrap(), new);
    }

    #[test]
    fn wrong_streams_are_errors() {
        let (old, new) = (noise(1, 1000), noise(1, 900));
        let (_, stream) = streamed(&old, &new);
        for cut in [0, 10, 24, stream.len() - 1] {
            assert_eq!(patch(&old, &stream[..cut], 900), Err(PatchError::Short));
        }
        assert_eq!(patch(&old, &stream, 899), Err(PatchError::Long));
        // Stretches of nothing are allowed, but a file does not become whole by them.
        let nothing = [0u8; 2 * HEAD_SIZE];
        assert_eq!(patch(&old, &nothing, 5), Err(PatchError::Short));
        let mut negative = stream.clone();
        negative[7] |= 0x80;
        assert_eq!(patch(&old, &negative, 900), Err(PatchError::Long));
    }
}

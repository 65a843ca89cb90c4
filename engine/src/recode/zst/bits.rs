//! Bit streams of zstd: read forwards for table descriptions, backwards for what is entropy coded.

/// Reads from the first byte on, low bits first.
#[derive(Debug, Clone)]
pub(super) struct Forward<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Forward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 16; zeroes after the end, as the last bit may be given back.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.bytes.get(self.at / 8).copied().unwrap_or(0);
            value |= u32::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        value
    }

    /// Gives the last bit back.
    pub(super) fn rewind(&mut self) {
        self.at -= 1;
    }

    /// Bytes that were begun, if there were as many.
    pub(super) fn bytes_taken(&self) -> Option<usize> {
        let taken = self.at.div_ceil(8);
        (taken <= self.bytes.len()).then_some(taken)
    }
}

/// Reads from the last byte on, below the highest set bit, high bits first.
#[derive(Debug, Clone)]
pub(super) struct Backward<'a> {
    bytes: &'a [u8],
    /// Bits not read; below zero when more were asked for than there are.
    left: isize,
}

impl<'a> Backward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let last = bytes.last().filter(|last| **last != 0)?;
        let bits = bytes.len() * 8 - 1 - last.leading_zeros() as usize;
        let left = isize::try_from(bits).ok()?;
        Some(Self { bytes, left })
    }

    /// The next `count` bits, at most 32; zeroes after the end.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        self.left -= count as isize;
        let mask = (1u64 << count) - 1;
        let Ok(at) = usize::try_from(self.left) else {
            let below = self.left.unsigned_abs();
            return match below < 64 {
                true => (self.window(0) << below & mask) as u32,
                false => 0,
            };
        };
        (self.window(at / 8) >> (at % 8) & mask) as u32
    }

    /// Eight bytes from a place on, with zeroes after the end.
    fn window(&self, at: usize) -> u64 {
        match self.bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(chunk) => u64::from_le_bytes(*chunk),
            None => {
                let rest = self.bytes.get(at..).unwrap_or_default();
                rest.iter()
                    .rev()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
        }
    }

    /// Bits not read; below zero after reading too many.
    pub(super) fn left(&self) -> isize {
        self.left
    }
}

/// Writes what [`Backward`] reads: last things first, and a set bit at the end.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    bits: u64,
    count: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            bits: 0,
            count: 0,
        }
    }

    /// Adds the low `count` bits of a value, at most 32.
    pub(super) fn put(&mut self, value: u32, count: u32) {
        let mask = (1u64 << count) - 1;
        self.bits |= (u64::from(value) & mask) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.out
                .extend_from_slice(&(self.bits as u32).to_le_bytes());
            self.bits >>= 32;
            self.count -= 32;
        }
    }

    /// Adds the mark of the end.
    pub(super) fn finish(mut self) {
        self.put(1, 1);
        let bytes = self.count.div_ceil(8) as usize;
        self.out
            .extend_from_slice(&self.bits.to_le_bytes()[..bytes]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_last_is_read_first(values in vec((any::<u32>(), 0u32..=32), 0..50)) {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out);
            values.iter().for_each(|(value, count)| writer.put(*value, *count));
            writer.finish();
            let mut reader = Backward::new(&out).unwrap();
            for (value, count) in values.iter().rev() {
                let mask = (1u64 << count) - 1;
                prop_assert_eq!(u64::from(reader.take(*count)), u64::from(*value) & mask);
            }
            prop_assert_eq!(reader.left(), 0);
            prop_assert_eq!(reader.take(7), 0);
            prop_assert_eq!(reader.left(), -7);
        }
    }
}

//! Streams: bytes of one sort, so that compression finds their like, and their packed form.
//!
//! A section is some streams in a fixed order. Each is compressed by itself, with a window that
//! reaches back over all of it.

use std::io;

use rayon::prelude::*;

use crate::compress::{compress_far, decompress_with_prefix};
use crate::ops::changes::{Fault, put_number, put_signed, take_number};
use crate::pack::le32;

/// Codec, length and packed length of a stream.
pub(crate) const STREAM_ROW_SIZE: usize = 12;
/// Streams that are stored as they are.
const RAW: u32 = 0;
/// Streams that are one zstd frame.
const ZSTD: u32 = 1;
/// Streams that are one zstd frame with a prefix.
const ZSTD_PREFIX: u32 = 2;

/// Some streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Streams<const N: usize>(pub(super) [Vec<u8>; N]);

impl<const N: usize> Default for Streams<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Vec::new()))
    }
}

impl<const N: usize> Streams<N> {
    /// Bytes in all of them.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    pub(super) fn number(&mut self, stream: usize, value: u64) {
        put_number(&mut self.0[stream], value);
    }

    pub(super) fn signed(&mut self, stream: usize, value: i64) {
        put_signed(&mut self.0[stream], value);
    }

    pub(super) fn bytes(&mut self, stream: usize, bytes: &[u8]) {
        self.0[stream].extend_from_slice(bytes);
    }

    /// Adds those of another one behind these.
    pub(super) fn append(&mut self, other: Self) {
        for (own, mut more) in self.0.iter_mut().zip(other.0) {
            match own.is_empty() {
                true => *own = more,
                false => own.append(&mut more),
            }
        }
    }

    /// The section that holds them. `prefix` is what the last one resembles.
    pub(super) fn pack(&self, prefix: &[u8], level: i32) -> io::Result<Vec<u8>> {
        let packed: Vec<(u32, Vec<u8>)> = self
            .0
            .par_iter()
            .enumerate()
            .map(|(n, stream)| {
                let prefix = if n + 1 == N { prefix } else { &[] };
                let packed = compress_far(stream, prefix, level)?;
                Ok(match (packed.len() < stream.len(), prefix.is_empty()) {
                    (false, _) => (RAW, stream.clone()),
                    (true, true) => (ZSTD, packed),
                    (true, false) => (ZSTD_PREFIX, packed),
                })
            })
            .collect::<io::Result<_>>()?;
        let mut out = Vec::new();
        for ((codec, packed), stream) in packed.iter().zip(&self.0) {
            for number in [*codec, stream.len() as u32, packed.len() as u32] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        packed
            .iter()
            .for_each(|(_, bytes)| out.extend_from_slice(bytes));
        Ok(out)
    }

    /// The streams of a section; together they are at most `limit` long.
    pub(super) fn unpack(section: &[u8], prefix: &[u8], limit: u64) -> Result<Self, Fault> {
        let rows = rows::<N>(section, limit)?;
        let streams: Vec<Vec<u8>> = rows
            .par_iter()
            .map(|row| row.unpack(prefix))
            .collect::<Result<_, Fault>>()?;
        let streams = streams.try_into().expect("because there are as many rows");
        Ok(Self(streams))
    }

    /// One stream of a section, which needs no prefix.
    pub(super) fn unpack_one(section: &[u8], number: usize, limit: u64) -> Result<Vec<u8>, Fault> {
        rows::<N>(section, limit)?[number].unpack(&[])
    }
}

/// A packed stream.
#[derive(Debug, Clone, Copy)]
struct Row<'a> {
    codec: u32,
    len: usize,
    packed: &'a [u8],
}

fn rows<const N: usize>(section: &[u8], limit: u64) -> Result<Vec<Row<'_>>, Fault> {
    let short = || Fault::invalid("it is cut short");
    let (head, mut rest) = section
        .split_at_checked(N * STREAM_ROW_SIZE)
        .ok_or_else(short)?;
    let mut left = limit;
    let mut rows = Vec::with_capacity(N);
    for row in head.as_chunks::<STREAM_ROW_SIZE>().0 {
        let (len, packed_len) = (le32(row, 4), le32(row, 8) as usize);
        left = left
            .checked_sub(len.into())
            .ok_or_else(|| Fault::invalid("it is larger than any"))?;
        let (packed, after) = rest.split_at_checked(packed_len).ok_or_else(short)?;
        rest = after;
        rows.push(Row {
            codec: le32(row, 0),
            len: len as usize,
            packed,
        });
    }
    match rest.is_empty() {
        true => Ok(rows),
        false => Err(Fault::invalid("something follows its streams")),
    }
}

impl Row<'_> {
    fn unpack(&self, prefix: &[u8]) -> Result<Vec<u8>, Fault> {
        let prefix = match self.codec {
            RAW if self.packed.len() == self.len => return Ok(self.packed.to_vec()),
            ZSTD => &[],
            ZSTD_PREFIX => prefix,
            _ => return Err(Fault::invalid("one of its streams has an unknown codec")),
        };
        let mut out = vec![0; self.len];
        decompress_with_prefix(self.packed, prefix, &mut out)
            .map_err(|error| Fault::invalid(format!("it cannot be decompressed: {error}")))?;
        Ok(out)
    }
}

/// Takes streams apart, from the front.
#[derive(Debug)]
pub(super) struct Cursors<'a, const N: usize>([&'a [u8]; N]);

impl<'a, const N: usize> Cursors<'a, N> {
    pub(super) fn new(streams: &'a Streams<N>) -> Self {
        Self(std::array::from_fn(|n| streams.0[n].as_slice()))
    }

    pub(super) fn is_empty(&self, stream: usize) -> bool {
        self.0[stream].is_empty()
    }

    /// Bytes that are left of a stream.
    pub(super) fn left(&self, stream: usize) -> usize {
        self.0[stream].len()
    }

    pub(super) fn number(&mut self, stream: usize) -> Result<u64, Fault> {
        take_number(&mut self.0[stream])
    }

    /// A count of things that take at least one byte of a stream each.
    pub(super) fn count(&mut self, stream: usize, of: usize) -> Result<usize, Fault> {
        let count = self.number(stream)?;
        let fits = usize::try_from(count)
            .ok()
            .filter(|count| *count <= self.left(of));
        fits.ok_or_else(|| Fault::invalid("it has fewer bytes than it counts"))
    }

    pub(super) fn bytes(&mut self, stream: usize, len: u64) -> Result<&'a [u8], Fault> {
        let split = usize::try_from(len).ok();
        let split = split.and_then(|len| self.0[stream].split_at_checked(len));
        let (bytes, rest) = split.ok_or_else(|| Fault::invalid("its bytes are cut short"))?;
        self.0[stream] = rest;
        Ok(bytes)
    }

    /// The next numbers of a stream, unread, and their sum.
    pub(super) fn numbers(
        &mut self,
        stream: usize,
        count: usize,
    ) -> Result<(&'a [u8], u64), Fault> {
        let before = self.0[stream];
        let mut sum = 0u64;
        for _ in 0..count {
            sum = sum.saturating_add(self.number(stream)?);
        }
        let len = before.len() - self.left(stream);
        Ok((&before[..len], sum))
    }

    /// Fails if anything is left.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.0.iter().all(|rest| rest.is_empty()) {
            true => Ok(()),
            false => Err(Fault::invalid("it holds more than it says")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Streams<3> {
        let mut streams = Streams::default();
        streams.bytes(0, &b"again and ".repeat(1000));
        streams.bytes(2, &noise());
        streams
    }

    /// Bytes that do not compress.
    fn noise() -> Vec<u8> {
        let squares = (0..2000u32).map(|n| (n * n).wrapping_mul(2_654_435_761) >> 24);
        squares.map(|byte| byte as u8).collect()
    }

    #[test]
    fn streams_come_back_and_a_prefix_makes_the_last_one_small() {
        let streams = example();
        for prefix in [&[][..], &noise()] {
            let section = streams.pack(prefix, 19).unwrap();
            assert!(section.len() < 2200, "{}", section.len());
            assert_eq!(
                Streams::<3>::unpack(&section, prefix, 20_000).unwrap(),
                streams
            );
            let first = Streams::<3>::unpack_one(&section, 0, 20_000).unwrap();
            assert_eq!(first, streams.0[0]);
        }
        let alone = streams.pack(&[], 19).unwrap().len();
        // In memory of its own: zstd takes a prefix that it is asked to compress for changed.
        let with_prefix = streams.pack(&noise(), 19).unwrap().len();
        assert!(with_prefix + 1800 < alone, "{with_prefix} {alone}");
    }

    #[test]
    fn sections_that_are_cut_longer_or_lie_are_refused() {
        let section = example().pack(&[], 3).unwrap();
        let unpack = |bytes: &[u8], limit| Streams::<3>::unpack(bytes, &[], limit);
        for len in 0..section.len() {
            assert!(unpack(&section[..len], 20_000).is_err(), "{len}");
        }
        assert!(unpack(&[&section[..], b"x"].concat(), 20_000).is_err());
        assert!(unpack(&section, 11_999).is_err());
        for (at, value) in [(0, 7), (4, 1), (8, 1), (16, 1)] {
            let mut changed = section.clone();
            changed[at] ^= value;
            assert!(unpack(&changed, 1 << 30).is_err(), "{at}");
        }
    }

    #[test]
    fn cursors_stop_at_the_end() {
        let mut streams = Streams::<2>::default();
        for number in [3, 300, 1] {
            streams.number(0, number);
        }
        streams.bytes(1, b"four");
        let mut cursors = Cursors::new(&streams);
        assert_eq!(cursors.numbers(0, 2).unwrap(), (&[3, 0xac, 2][..], 303));
        assert!(cursors.numbers(0, 2).is_err());
        assert!(cursors.bytes(1, 5).is_err());
        assert_eq!(cursors.bytes(1, 4).unwrap(), b"four");
        assert!(cursors.is_empty(1));
    }
}

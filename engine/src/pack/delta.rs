//! Delta records: a part as the difference to a window of another payload.
//! Layout: docs/format.md, "Delta records".

use super::{Key, le32, le64, part_count};
use crate::id::PayloadId;

/// Size of what precedes the zstd frame of a delta record.
pub(crate) const DELTA_HEAD_SIZE: usize = 56;
/// Raw size at which a block of delta records is closed.
pub(crate) const DELTA_TARGET: usize = 64 << 10;
/// No window of a base is larger than this.
pub(crate) const MAX_WINDOW: u32 = 16 << 20;
/// No part that a delta makes is larger than this: the largest extent.
const MAX_DELTA_RAW: u32 = 4 << 20;

/// What a delta refers to and what it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeltaHead {
    /// The base payload, stored without a delta.
    pub(crate) base: PayloadId,
    /// Size of the base, which says how it is cut into parts.
    pub(crate) base_size: u64,
    /// Where in the base the window begins.
    pub(crate) offset: u64,
    /// Length of the window.
    pub(crate) window: u32,
    /// Length of the part that decoding gives.
    pub(crate) raw_len: u32,
}

impl DeltaHead {
    /// The record: this head and the frame.
    pub(crate) fn encode(&self, frame: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(DELTA_HEAD_SIZE + frame.len());
        out.extend_from_slice(self.base.as_bytes());
        out.extend_from_slice(&self.base_size.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.window.to_le_bytes());
        out.extend_from_slice(&self.raw_len.to_le_bytes());
        out.extend_from_slice(frame);
        out
    }

    /// Splits a record into head and frame.
    pub(crate) fn decode(record: &[u8]) -> Result<(Self, &[u8]), &'static str> {
        let (head, frame) = record
            .split_first_chunk::<DELTA_HEAD_SIZE>()
            .ok_or("delta record is too short")?;
        let base = PayloadId::from_slice(&head[..32]).ok_or("delta record is too short")?;
        let found = Self {
            base,
            base_size: le64(head, 32),
            offset: le64(head, 40),
            window: le32(head, 48),
            raw_len: le32(head, 52),
        };
        let end = found.offset.checked_add(u64::from(found.window));
        if end.is_none_or(|end| end > found.base_size) {
            return Err("window of a delta record lies outside its base");
        }
        if part_count(found.base_size) > u64::from(Key::MAX_PART) {
            return Err("base of a delta record is larger than any payload");
        }
        if found.window > MAX_WINDOW || found.raw_len > MAX_DELTA_RAW {
            return Err("sizes of a delta record are out of range");
        }
        Ok((found, frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_survive_and_impossible_ones_are_refused() {
        let head = DeltaHead {
            base: PayloadId::of(b"base"),
            base_size: 1000,
            offset: 100,
            window: 900,
            raw_len: 5,
        };
        let record = head.encode(b"frame");
        assert_eq!(DeltaHead::decode(&record), Ok((head, &b"frame"[..])));
        assert!(DeltaHead::decode(&record[..DELTA_HEAD_SIZE - 1]).is_err());
        for bad in [
            DeltaHead {
                window: 901,
                ..head
            },
            DeltaHead {
                offset: u64::MAX,
                ..head
            },
            DeltaHead {
                base_size: u64::MAX,
                ..head
            },
            DeltaHead {
                raw_len: MAX_DELTA_RAW + 1,
                ..head
            },
            DeltaHead {
                base_size: 1 << 40,
                window: MAX_WINDOW + 1,
                ..head
            },
        ] {
            assert!(DeltaHead::decode(&bad.encode(b"")).is_err(), "{bad:?}");
        }
    }
}

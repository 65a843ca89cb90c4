//! Blocks of small payloads as others see them: what else was decoded together with what they read.

use std::sync::Arc;

use super::Found;
use super::cache::BlockKey;
use crate::id::PayloadId;
use crate::pack::decoded::DecodedBlock;
use crate::pack::{BlockClass, EntryKind};

/// A decoded block of small payloads.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) key: BlockKey,
    pub(super) block: Arc<DecodedBlock>,
}

/// A payload of a [`Group`].
#[derive(Debug, Clone, Copy)]
pub struct Member<'g> {
    /// Its position in the group.
    pub number: usize,
    /// Its name.
    pub id: PayloadId,
    /// All of it.
    pub bytes: &'g [u8],
}

/// What a read gave.
#[derive(Debug)]
#[non_exhaustive]
pub struct Read {
    /// Bytes read; fewer than asked for only at the end of the payload.
    pub len: usize,
    /// The block that a small payload was found in.
    pub group: Option<Group>,
}

impl From<usize> for Read {
    fn from(len: usize) -> Self {
        Self { len, group: None }
    }
}

impl Group {
    pub(super) fn of(found: Found) -> Option<Self> {
        (found.block.class == BlockClass::Group).then_some(Self {
            key: found.key,
            block: found.block,
        })
    }

    /// Whether so much of it was read that more of it will be: at the second read since it was decoded,
    /// and whenever the number of reads has become four times as large. True once each time.
    pub fn is_offer_due(&self) -> bool {
        self.block.is_offer_due()
    }

    /// The payloads that nobody has read to the end since it was decoded.
    pub fn unread(&self) -> impl Iterator<Item = Member<'_>> {
        let entries = self.block.entries.iter().enumerate();
        let unread = entries.filter(|(number, entry)| {
            entry.key.kind == EntryKind::Payload && !self.block.is_done(*number)
        });
        unread.map(|(number, entry)| Member {
            number,
            id: entry.key.payload(),
            bytes: self.block.bytes(entry),
        })
    }
}

//! What commits need, as it is remembered in the repository. Layout: docs/format.md, "Reach".

use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

use super::{EntrySet, Reached, Totals};
use crate::id::PackId;
use crate::pack::{le32, le64};

const MAGIC: [u8; 8] = *b"GROVERC1";
/// Magic, checksum, five counts, number of packs.
const HEAD_SIZE: usize = 64;
/// Fixed part of each pack's row: name and length of the bitmap.
const ROW_SIZE: usize = PackId::LEN + 4;

/// Encodes what a commit needs.
pub(crate) fn encode(reached: &Reached) -> Vec<u8> {
    let Reached {
        entries,
        totals,
        unique_bytes,
    } = reached;
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[0; 8]);
    let Totals {
        files,
        symlinks,
        dirs,
        logical_bytes,
    } = *totals;
    for count in [files, symlinks, dirs, logical_bytes, *unique_bytes] {
        out.extend_from_slice(&count.to_le_bytes());
    }
    out.extend_from_slice(&(entries.packs().len() as u64).to_le_bytes());
    for (pack, bitmap) in entries.packs() {
        let mut bitmap = bitmap.clone();
        bitmap.optimize();
        out.extend_from_slice(pack.as_bytes());
        out.extend_from_slice(&(bitmap.serialized_size() as u32).to_le_bytes());
        let written = bitmap.serialize_into(&mut out);
        written.expect("because writing to memory cannot fail");
    }
    let sum = xxh3_64(&out[16..]);
    out[8..16].copy_from_slice(&sum.to_le_bytes());
    out
}

/// Decodes what [`encode`] made; `None` for anything else.
pub(crate) fn decode(bytes: &[u8]) -> Option<Reached> {
    let (head, mut rest) = bytes.split_at_checked(HEAD_SIZE)?;
    if head[..8] != MAGIC || xxh3_64(&bytes[16..]) != le64(head, 8) {
        return None;
    }
    let mut entries = EntrySet::default();
    for _ in 0..le64(head, 56) {
        let (row, after) = rest.split_at_checked(ROW_SIZE)?;
        let len = le32(row, PackId::LEN) as usize;
        let (bitmap, after) = after.split_at_checked(len)?;
        let bitmap = RoaringBitmap::deserialize_from(bitmap).ok()?;
        entries.add(PackId::from_slice(&row[..PackId::LEN])?, &bitmap);
        rest = after;
    }
    rest.is_empty().then_some(Reached {
        entries,
        totals: Totals {
            files: le64(head, 16),
            symlinks: le64(head, 24),
            dirs: le64(head, 32),
            logical_bytes: le64(head, 40),
        },
        unique_bytes: le64(head, 48),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(packs: &[Vec<u32>]) -> Reached {
        let mut entries = EntrySet::default();
        for (n, ordinals) in packs.iter().enumerate() {
            let bitmap = ordinals.iter().copied().collect();
            entries.add(PackId::from_bytes([n as u8; 16]), &bitmap);
        }
        let totals = Totals {
            files: 1,
            symlinks: 2,
            dirs: 3,
            logical_bytes: 4,
        };
        Reached {
            entries,
            totals,
            unique_bytes: 5,
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(packs in prop::collection::vec(
            prop::collection::vec(0u32..200_000, 0..50), 0..6,
        )) {
            let reached = sample(&packs);
            prop_assert_eq!(decode(&encode(&reached)), Some(reached));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut sealed = MAGIC.to_vec();
            sealed.extend_from_slice(&[0; 8]);
            sealed.extend_from_slice(&bytes);
            let sum = xxh3_64(&sealed[16..]);
            sealed[8..16].copy_from_slice(&sum.to_le_bytes());
            drop(decode(&sealed));
            prop_assert_eq!(decode(&bytes), None);
        }
    }

    #[test]
    fn any_damage_is_noticed() {
        let good = encode(&sample(&[vec![0, 1, 2, 70_000], vec![9]]));
        for at in 0..good.len() {
            assert_eq!(decode(&good[..at]), None, "cut at {at}");
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), None, "flipped at {at}");
        }
    }
}

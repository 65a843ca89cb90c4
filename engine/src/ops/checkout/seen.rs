//! What the files that links are made to looked like when they were last known to be whole.
//!
//! Whoever writes to a file can set its modification time back, but not its change time. That changes
//! with the number of names, too, which checkouts come and go with, so both are noted. The notes are
//! part of the cache: what they do not tell is found out by reading.

use std::collections::HashMap;
use std::sync::LazyLock;

use rustix::fs::Stat;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::id::ObjectId;
use crate::pack::le64;

const MAGIC: [u8; 8] = *b"GROVELN1";
/// Magic and checksum.
const HEAD_SIZE: usize = 16;
/// Object, inode, change time, number of names.
const ROW_SIZE: usize = ObjectId::LEN + 3 * 8;

/// What a file looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    inode: u64,
    /// Nanoseconds since 1970.
    ctime: i64,
    names: u64,
}

/// What has happened to a file since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// Nothing at all.
    Nothing,
    /// It has got names, or lost some: this alone explains that its change time is another one.
    Names,
    /// It may have been written to.
    Anything,
}

impl Seen {
    pub fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            ctime: stat
                .st_ctime
                .saturating_mul(1_000_000_000)
                .saturating_add_unsigned(stat.st_ctime_nsec),
            // Its type differs between architectures.
            names: stat.st_nlink,
        }
    }

    /// What has happened between this and what it looks like now.
    pub fn since(&self, now: &Self) -> Since {
        if self == now {
            Since::Nothing
        } else if self.inode == now.inode && self.names != now.names {
            Since::Names
        } else {
            Since::Anything
        }
    }

    fn fields(&self) -> [u64; 3] {
        [self.inode, self.ctime.cast_unsigned(), self.names]
    }
}

/// Of this boot of the machine. What an earlier one noted is not believed: power may have failed
/// before the bytes were on the disk that the notes speak of.
fn boot() -> u64 {
    static BOOT: LazyLock<u64> = LazyLock::new(|| {
        let id = std::fs::read("/proc/sys/kernel/random/boot_id");
        xxh3_64(&id.unwrap_or_default())
    });
    *BOOT
}

/// The bytes of the file that holds the notes.
pub(super) fn encode(seen: &HashMap<ObjectId, Seen>) -> Vec<u8> {
    encode_in(boot(), seen)
}

fn encode_in(boot: u64, seen: &HashMap<ObjectId, Seen>) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_SIZE + seen.len() * ROW_SIZE);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 8]);
    for (id, seen) in seen {
        out.extend_from_slice(id.as_bytes());
        for field in seen.fields() {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }
    let sum = xxh3_64_with_seed(&out[HEAD_SIZE..], boot);
    out[8..HEAD_SIZE].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The notes; nothing if the bytes are damaged, or of another boot.
pub(super) fn decode(bytes: &[u8]) -> Option<HashMap<ObjectId, Seen>> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_SIZE>()?;
    let (rows, left) = rest.as_chunks::<ROW_SIZE>();
    if head[..8] != MAGIC || le64(head, 8) != xxh3_64_with_seed(rest, boot()) || !left.is_empty() {
        return None;
    }
    let row = |row: &[u8; ROW_SIZE]| {
        let id = ObjectId::from_slice(&row[..ObjectId::LEN])?;
        let field = |number: usize| le64(row, ObjectId::LEN + 8 * number);
        let seen = Seen {
            inode: field(0),
            ctime: field(1).cast_signed(),
            names: field(2),
        };
        Some((id, seen))
    };
    rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen {
        inode: 7,
        ctime: -8,
        names: 2,
    };

    #[test]
    fn notes_round_trip_and_damage_is_noticed() {
        let notes = HashMap::from([
            (ObjectId::of(b"a"), SEEN),
            (ObjectId::of(b"b"), Seen { ctime: 9, ..SEEN }),
        ]);
        let good = encode(&notes);
        assert_eq!(decode(&good), Some(notes));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "byte {at}");
            assert_eq!(decode(&good[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn notes_of_another_boot_are_not_believed() {
        let notes = HashMap::from([(ObjectId::of(b"a"), SEEN)]);
        assert_eq!(decode(&encode_in(boot(), &notes)), Some(notes.clone()));
        assert_eq!(decode(&encode_in(boot() ^ 1, &notes)), None);
    }

    #[test]
    fn only_names_that_come_or_go_explain_another_change_time() {
        let later = Seen { ctime: 1, ..SEEN };
        assert_eq!(SEEN.since(&SEEN), Since::Nothing);
        assert_eq!(SEEN.since(&later), Since::Anything);
        assert_eq!(SEEN.since(&Seen { names: 3, ..later }), Since::Names);
        assert_eq!(
            SEEN.since(&Seen {
                inode: 8,
                names: 3,
                ..later
            }),
            Since::Anything
        );
    }
}

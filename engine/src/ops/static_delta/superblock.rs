//! The superblock of a static delta: which commit it makes, and what its parts hold.
//!
//! `(a{sv}tayay(a{sv}aya(say)sstayay)aya(uayttay)a(yaytt))`. Most numbers are in the byte order
//! that the metadata declares; see docs/ostree.md, "Static deltas".

use super::name::DeltaName;
use crate::id::{ObjectId, ObjectKind};
use crate::object::gvariant::{Elements, Frame, Part, Tuple};
use crate::object::{Commit, DecodeError, Metadata, Variant};
use crate::ops::changes::Object;

/// Metadata key that says in which byte order numbers are.
const ENDIANNESS: &str = "ostree.endianness";
/// Bytes of an object in the list of a part: its type and its checksum.
const OBJECT_LEN: usize = 1 + ObjectId::LEN;
/// No part or object is larger: numbers beyond are of the other byte order.
const PLAUSIBLE: u64 = 1 << 40;

/// A parsed superblock.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    pub(super) metadata: Metadata,
    /// When it was made, in seconds since 1970.
    pub(super) timestamp: u64,
    pub(super) name: DeltaName,
    /// The target commit, verbatim.
    pub(super) commit: Vec<u8>,
    pub(super) parts: Vec<PartHead>,
    pub(super) fallbacks: Vec<Fallback>,
    /// Whether numbers are big-endian.
    pub(super) big_endian: bool,
}

/// What a superblock says of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartHead {
    /// SHA-256 of the part file.
    pub(super) checksum: ObjectId,
    /// Size of the part file.
    pub(super) size: u64,
    /// What its objects take when they are made.
    pub(super) made_size: u64,
    pub(super) objects: Vec<Object>,
}

/// An object that is not in the delta, and is to be fetched by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fallback {
    pub(super) object: Object,
    /// Size of what is fetched.
    pub(super) size: u64,
    /// Size of what it holds.
    pub(super) made_size: u64,
}

/// OSTree's number of a kind.
pub(super) fn type_of(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::File => 1,
        ObjectKind::Dirtree => 2,
        ObjectKind::Dirmeta => 3,
        ObjectKind::Commit => 4,
    }
}

pub(super) fn kind_of(number: u8) -> Result<ObjectKind, DecodeError> {
    let kinds = [
        ObjectKind::File,
        ObjectKind::Dirtree,
        ObjectKind::Dirmeta,
        ObjectKind::Commit,
    ];
    let found = kinds.into_iter().find(|kind| type_of(*kind) == number);
    found.ok_or(DecodeError::Rule("an object of an unknown type"))
}

impl Superblock {
    /// The bytes of the file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut metadata = self.metadata.clone();
        if metadata.get(ENDIANNESS).is_none() {
            let order = if self.big_endian { b'B' } else { b'l' };
            let order = Variant::from_parts("y", &[order]);
            metadata.push(ENDIANNESS, order.expect("because any byte is a byte"));
        }
        let mut parts = Frame::default();
        for part in &self.parts {
            parts.variable(8, &self.part_to_bytes(part));
        }
        let mut fallbacks = Frame::default();
        for fallback in &self.fallbacks {
            let mut tuple = Frame::default();
            tuple.fixed(1, &[type_of(fallback.object.0)]);
            tuple.variable(1, fallback.object.1.as_bytes());
            tuple.fixed(8, &self.u64(fallback.size));
            tuple.fixed(8, &self.u64(fallback.made_size));
            fallbacks.variable(8, &tuple.into_tuple());
        }
        let mut tuple = Frame::default();
        tuple.variable(8, &metadata.to_bytes());
        tuple.fixed(8, &self.timestamp.to_be_bytes());
        tuple.variable(
            1,
            self.name
                .from
                .as_ref()
                .map_or(&[], |id| id.as_bytes().as_slice()),
        );
        tuple.variable(1, self.name.to.as_bytes());
        tuple.variable(8, &self.commit);
        tuple.variable(1, &[]);
        tuple.variable(8, &parts.into_array());
        tuple.variable(8, &fallbacks.into_array());
        tuple.into_tuple()
    }

    fn part_to_bytes(&self, part: &PartHead) -> Vec<u8> {
        let objects: Vec<u8> = part
            .objects
            .iter()
            .flat_map(|(kind, id)| std::iter::once(type_of(*kind)).chain(*id.as_bytes()))
            .collect();
        let mut tuple = Frame::default();
        // The version, which is 0 in either byte order.
        tuple.fixed(4, &[0; 4]);
        tuple.variable(1, part.checksum.as_bytes());
        tuple.fixed(8, &self.u64(part.size));
        tuple.fixed(8, &self.u64(part.made_size));
        tuple.variable(1, &objects);
        tuple.into_tuple()
    }

    fn u64(&self, number: u64) -> [u8; 8] {
        if self.big_endian {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    /// Parses a superblock; checks that the commit in it is the one that it names.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut tuple = Tuple::new(Part::whole(bytes), 6)?;
        let metadata = Metadata::parse(tuple.variable(8)?.bytes())?;
        let timestamp = u64::from_be_bytes(tuple.fixed(8, 8)?.array()?);
        let from = tuple.variable(1)?.bytes();
        let to = tuple.variable(1)?.bytes();
        let commit = tuple.variable(8)?.bytes();
        // Deltas that must be applied before were never written by anyone.
        tuple.variable(1)?;
        let parts = tuple.variable(8)?;
        let fallbacks = tuple.last(8)?;
        let checksum = DecodeError::Rule("a commit's checksum is not 32 bytes long");
        let name = DeltaName {
            from: match from {
                [] => None,
                _ => Some(ObjectId::from_slice(from).ok_or(checksum.clone())?),
            },
            to: ObjectId::from_slice(to).ok_or(checksum)?,
        };
        Commit::parse(commit)?;
        if ObjectId::of(commit) != name.to {
            return Err(DecodeError::Rule(
                "the commit in it is not the one that it names",
            ));
        }
        let mut parsed = Self {
            big_endian: false,
            metadata,
            timestamp,
            name,
            commit: commit.to_vec(),
            parts: Elements::new(parts, 8)?
                .map(|part| read_part(part?))
                .collect::<Result<_, _>>()?,
            fallbacks: Elements::new(fallbacks, 8)?
                .map(|fallback| read_fallback(fallback?))
                .collect::<Result<_, _>>()?,
        };
        parsed.set_byte_order()?;
        Ok(parsed)
    }

    /// Numbers were read as little-endian ones: swaps them if they are not.
    fn set_byte_order(&mut self) -> Result<(), DecodeError> {
        let parts = self
            .parts
            .iter_mut()
            .flat_map(|p| [&mut p.size, &mut p.made_size]);
        let fallbacks = self
            .fallbacks
            .iter_mut()
            .flat_map(|f| [&mut f.size, &mut f.made_size]);
        let mut numbers: Vec<&mut u64> = parts.chain(fallbacks).collect();
        self.big_endian = match self.metadata.get(ENDIANNESS).map(Variant::bytes) {
            Some(b"l") => false,
            Some(b"B") => true,
            Some(_) => return Err(DecodeError::Rule("the byte order is unknown")),
            // Deltas from before the key was invented.
            None => numbers.iter().any(|number| **number >= PLAUSIBLE),
        };
        if self.big_endian {
            numbers
                .iter_mut()
                .for_each(|number| **number = number.swap_bytes());
        }
        if numbers.iter().any(|number| **number >= PLAUSIBLE) {
            return Err(DecodeError::Rule("a size is out of range"));
        }
        // Parts and objects are counted together later.
        let mut sizes = numbers.iter();
        match sizes.try_fold(0u64, |sum, number| sum.checked_add(**number)) {
            Some(_) => Ok(()),
            None => Err(DecodeError::Rule("its sizes are together out of range")),
        }
    }
}

fn read_part(part: Part<'_>) -> Result<PartHead, DecodeError> {
    let mut tuple = Tuple::new(part, 1)?;
    if tuple.fixed(4, 4)?.bytes() != [0; 4] {
        return Err(DecodeError::Rule("a part of an unknown version"));
    }
    let checksum = ObjectId::from_slice(tuple.variable(1)?.bytes());
    let size = u64::from_le_bytes(tuple.fixed(8, 8)?.array()?);
    let made_size = u64::from_le_bytes(tuple.fixed(8, 8)?.array()?);
    let (objects, rest) = tuple.last(1)?.bytes().as_chunks::<OBJECT_LEN>();
    if !rest.is_empty() {
        return Err(DecodeError::Rule(
            "the list of a part's objects is cut short",
        ));
    }
    Ok(PartHead {
        checksum: checksum.ok_or(DecodeError::Rule("a part's checksum is not 32 bytes long"))?,
        size,
        made_size,
        objects: objects.iter().map(read_object).collect::<Result<_, _>>()?,
    })
}

fn read_fallback(part: Part<'_>) -> Result<Fallback, DecodeError> {
    let mut tuple = Tuple::new(part, 1)?;
    let [number] = tuple.fixed(1, 1)?.array()?;
    let id = ObjectId::from_slice(tuple.variable(1)?.bytes());
    let size = u64::from_le_bytes(tuple.fixed(8, 8)?.array()?);
    let made_size = u64::from_le_bytes(tuple.fixed(8, 8)?.array()?);
    tuple.finish()?;
    let id = id.ok_or(DecodeError::Rule(
        "an object's checksum is not 32 bytes long",
    ))?;
    Ok(Fallback {
        object: (kind_of(number)?, id),
        size,
        made_size,
    })
}

fn read_object(bytes: &[u8; OBJECT_LEN]) -> Result<Object, DecodeError> {
    let (number, id) = bytes.split_first().expect("because it has a fixed length");
    let id = ObjectId::from_slice(id).expect("because it has a fixed length");
    Ok((kind_of(*number)?, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(big_endian: bool) -> Superblock {
        let commit = Commit {
            metadata: Metadata::default(),
            parent: None,
            subject: "subject".into(),
            body: String::new(),
            timestamp: 1,
            tree: ObjectId::of(b"tree"),
            meta: ObjectId::of(b"meta"),
        };
        let object = (ObjectKind::File, ObjectId::of(b"file"));
        Superblock {
            metadata: Metadata::default(),
            timestamp: 77,
            name: DeltaName {
                from: Some(ObjectId::of(b"from")),
                to: commit.object_id(),
            },
            commit: commit.to_bytes(),
            parts: vec![
                PartHead {
                    checksum: ObjectId::of(b"0"),
                    size: 5,
                    made_size: 6,
                    objects: vec![object],
                },
                PartHead {
                    checksum: ObjectId::of(b"1"),
                    size: 7,
                    made_size: 0,
                    objects: vec![],
                },
            ],
            fallbacks: vec![Fallback {
                object,
                size: 1,
                made_size: 2,
            }],
            big_endian,
        }
    }

    #[test]
    fn what_is_written_is_read_in_either_byte_order() {
        for big_endian in [false, true] {
            let written = superblock(big_endian);
            let read = Superblock::parse(&written.to_bytes()).unwrap();
            assert_eq!((read.timestamp, read.name), (77, written.name));
            assert_eq!(
                (&read.parts, &read.fallbacks),
                (&written.parts, &written.fallbacks)
            );
            assert_eq!(
                (read.big_endian, &read.commit),
                (big_endian, &written.commit)
            );
            assert_eq!(read.to_bytes(), written.to_bytes());
        }
    }

    #[test]
    fn superblocks_that_contradict_themselves_are_refused() {
        let good = superblock(false);
        let other = Superblock {
            name: DeltaName {
                to: ObjectId::of(b"x"),
                ..good.name
            },
            ..good.clone()
        };
        assert!(Superblock::parse(&other.to_bytes()).is_err());
        let mut huge = good.clone();
        huge.parts[0].size = u64::MAX / 2;
        assert!(Superblock::parse(&huge.to_bytes()).is_err());
        let bytes = good.to_bytes();
        for len in 0..bytes.len() {
            assert!(Superblock::parse(&bytes[..len]).is_err(), "{len}");
        }
    }
}

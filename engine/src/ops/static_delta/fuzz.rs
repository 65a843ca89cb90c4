//! Entry points for fuzzing the formats of static deltas: any bytes, no panic.

use std::path::Path;

use super::Fault;
use super::files::{Opened, signed_part};
use super::machine::{Sink, Sources, run};
use super::part::{Body, open, open_within};
use super::superblock::{PartHead, Superblock, kind_of, type_of};
use crate::error::Result;
use crate::id::ObjectId;
use crate::monitor::Silent;
use crate::object::FileHeader;
use crate::ops::changes::Object;
use crate::repo::Repository;

/// No input of the fuzzer makes more.
const MAX_MADE: u64 = 1 << 20;

/// Superblocks, with and without signatures around them: what is read is written as it was.
pub(crate) fn try_superblock(data: &[u8]) {
    let inner = signed_part(data).unwrap_or(data);
    let Ok(superblock) = Superblock::parse(inner) else {
        return;
    };
    let again = Superblock::parse(&superblock.to_bytes());
    let again = again.expect("because this program wrote it");
    assert_eq!(again.name, superblock.name);
    assert_eq!(again.parts, superblock.parts);
    assert_eq!(again.fallbacks, superblock.fallbacks);
}

/// Part files, and bodies of parts that take bytes from a repository: how much is made, the kinds of
/// as many objects as the next two bytes say, the body.
pub(crate) fn try_part(repo: &Repository, data: &[u8]) {
    drop(open_within(data, MAX_MADE));
    let Some((made_size, rest)) = data.split_first_chunk() else {
        return;
    };
    let Some((count, rest)) = rest.split_first_chunk() else {
        return;
    };
    let made_size = u64::from(u32::from_le_bytes(*made_size)).min(MAX_MADE);
    let count = usize::from(u16::from_le_bytes(*count)).min(rest.len());
    let (kinds, bytes) = rest.split_at(count);
    let nameless = |kind| (kind, ObjectId::of(b""));
    let head = PartHead {
        checksum: ObjectId::of(b""),
        size: 0,
        made_size,
        objects: kinds
            .iter()
            .filter_map(|kind| kind_of(*kind).ok().map(nameless))
            .collect(),
    };
    let Ok(body) = Body::parse(bytes) else {
        return;
    };
    let mut made = Made::default();
    let mut sources = Sources::new(repo);
    drop(run(body, &head, &mut sources, &mut made, &Silent));
    assert!(made.bytes <= made_size, "{} of {made_size}", made.bytes);
    assert!(made.objects <= head.objects.len());
}

/// Inputs of [`try_part`] with the parts of a delta.
pub(crate) fn part_seeds(delta: &Path) -> Result<Vec<Vec<u8>>> {
    let opened = Opened::at(delta)?;
    let parts = opened.superblock.parts.iter().enumerate();
    let seed = |(number, head): (usize, &PartHead)| {
        let body =
            open(&opened.part(number, head)?).map_err(|fault| opened.fault(number, fault))?;
        let made_size = u32::try_from(head.made_size).unwrap_or(u32::MAX);
        let count = u16::try_from(head.objects.len()).unwrap_or(u16::MAX);
        let kinds: Vec<u8> = head
            .objects
            .iter()
            .map(|(kind, _)| type_of(*kind))
            .collect();
        Ok([
            &made_size.to_le_bytes()[..],
            &count.to_le_bytes(),
            &kinds,
            &body,
        ]
        .concat())
    };
    parts.map(seed).collect()
}

/// Counts what is made, whatever it is called.
#[derive(Debug, Default)]
struct Made {
    objects: usize,
    bytes: u64,
}

impl Sink for Made {
    fn metadata(&mut self, _: &Object, bytes: &[u8]) -> Result<(), Fault> {
        self.objects += 1;
        self.write(bytes)
    }

    fn begin(&mut self, _: &ObjectId, _: FileHeader, _: u64) -> Result<(), Fault> {
        self.objects += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        Ok(())
    }
}

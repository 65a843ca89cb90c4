//! What a delta holds, as far as its file alone tells.

use std::path::Path;

use super::content::{Content, Group, HEADS, Way};
use super::file::{DeltaFile, Kind};
use super::limits::MAX_CONTENTS_RAW;
use super::streams::Cursors;
use super::tree::count_metadata;
use crate::error::Result;
use crate::id::ObjectId;
use crate::ops::changes::Fault;

/// What a delta holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeltaInfo {
    /// The commit that it begins at.
    pub from: Option<ObjectId>,
    /// The commit that it makes.
    pub to: ObjectId,
    /// Size of the file.
    pub size: u64,
    /// What the commit and the directories take of it.
    pub tree_size: u64,
    /// What the metadata of files takes.
    pub files_size: u64,
    /// What contents take.
    pub contents_size: u64,
    /// Metadata objects, with the commit.
    pub metadata: u64,
    /// Files.
    pub files: u64,
    /// Contents that are there as they are.
    pub whole_contents: u64,
    /// Contents that are made by patching others.
    pub patched_contents: u64,
    /// Contents that are compressed with others in front.
    pub framed_contents: u64,
    /// Contents that are put together from others.
    pub joined_contents: u64,
    /// Contents that are compressed again.
    pub recompressed_contents: u64,
    /// What all contents take when they are made, those that others are made of included.
    pub made_bytes: u64,
}

/// Describes a delta. All of its checksums are compared.
///
/// # Errors
/// [`crate::Error::InvalidDelta`] if it is damaged, [`crate::Error::UnsupportedFormat`] if a newer
/// program made it.
pub fn show(path: &Path) -> Result<DeltaInfo> {
    let delta = DeltaFile::open(path)?;
    let size_of = |kind| {
        let sections = delta.sections.iter();
        sections.filter(|s| s.kind == kind).map(|s| s.size).sum()
    };
    let mut info = DeltaInfo {
        from: delta.from,
        to: delta.to,
        size: delta.size,
        tree_size: size_of(Kind::Tree),
        files_size: size_of(Kind::Files),
        contents_size: size_of(Kind::Contents),
        metadata: delta.counts.metadata,
        files: delta.counts.files,
        whole_contents: 0,
        patched_contents: 0,
        framed_contents: 0,
        joined_contents: 0,
        recompressed_contents: 0,
        made_bytes: delta.counts.made_bytes,
    };
    for (number, section) in delta.sections.iter().enumerate() {
        let bytes = delta.read(number)?;
        let counted = match section.kind {
            Kind::Contents => count(&bytes, &mut info),
            Kind::Files => Ok(()),
            Kind::Tree => match count_metadata(&bytes) {
                Ok(count) if count == info.metadata => Ok(()),
                Ok(_) => Err(Fault::invalid("it holds other objects than the table says")),
                Err(fault) => Err(fault),
            },
        };
        counted.map_err(|fault| delta.fault(number, fault))?;
    }
    Ok(info)
}

fn count(section: &[u8], info: &mut DeltaInfo) -> Result<(), Fault> {
    visit(section, |content| {
        *match content.way {
            Way::Whole(_) => &mut info.whole_contents,
            Way::Patch { .. } => &mut info.patched_contents,
            Way::Frame { .. } => &mut info.framed_contents,
            Way::Concat(_) => &mut info.joined_contents,
            Way::Recode { .. } => &mut info.recompressed_contents,
        } += 1;
    })
}

fn visit(section: &[u8], mut each: impl FnMut(&Content<'_>)) -> Result<(), Fault> {
    let group = Group::unpack(section, &[], MAX_CONTENTS_RAW)?;
    let mut cursors = Cursors::new(&group);
    while !cursors.is_empty(HEADS) {
        each(&Content::take(&mut cursors)?);
    }
    cursors.finish()
}

/// Reads a section of contents, and makes what needs few bytes of others: for fuzzing.
pub(crate) fn try_section(section: &[u8]) {
    let old = [7; 4096];
    // What is wrong with the section is no matter here.
    drop(visit(section, |content| {
        if let Way::Patch { patch, .. } = &content.way
            && let Ok(made) = patch.apply(&old, content.size)
        {
            assert_eq!(made.len() as u64, content.size);
        }
    }));
}

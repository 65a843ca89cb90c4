//! What one commit has and another one lacks: the part that both kinds of delta share.
//!
//! Owns the list of new objects, the search for old files that new ones are like, the choice of how
//! a new file is made from them, and the reception of new objects on the other side. It knows
//! neither kind of file, only that both have numbers and faults.

mod encode;
mod fault;
mod numbers;
mod receive;
mod sources;

use std::collections::HashSet;
use std::path::Path;

pub(in crate::ops) use self::encode::{Encoded, Encoder, Run, share_features};
pub(in crate::ops) use self::fault::Fault;
pub(in crate::ops) use self::numbers::{put_number, put_signed, signed, take_number};
pub(in crate::ops) use self::receive::{NewTree, Receiver, Visitor};
pub(in crate::ops) use self::sources::{Contents, NewFile, OldFiles, Readable, piece};
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::repo::Repository;
use crate::repo::bases::base_name;

/// Bytes of new files that are encoded at the same time.
const BATCH: u64 = 32 << 20;

/// An object by kind and name.
pub(in crate::ops) type Object = (ObjectKind, ObjectId);

/// The payloads of a commit.
pub(in crate::ops) fn payloads_of(
    repo: &Repository,
    commit: &ObjectId,
) -> Result<HashSet<PayloadId>> {
    let contents = Contents::of(repo, commit, |_| false)?;
    let ids: Vec<ObjectId> = contents.files.iter().map(|(_, id)| *id).collect();
    let files = repo.files(&ids).into_iter();
    files
        .filter_map(|file| file.map(|file| file.payload).transpose())
        .collect()
}

/// Fails if the repository lacks the commit that a delta begins at, or has it in part only.
pub(in crate::ops) fn check_base(repo: &Repository, from: ObjectId, delta: &Path) -> Result<()> {
    let path = delta.to_owned();
    if !repo.contains(ObjectKind::Commit, &from)? {
        return Err(Error::WrongBase { path, from });
    }
    match repo.is_partial(&from) {
        true => Err(Error::PartialBase { path, from }),
        false => Ok(()),
    }
}

/// Puts files next to those that they likely have something in common with: the compression of a
/// part sees them one after the other.
pub(in crate::ops) fn order(files: &mut [NewFile]) {
    files.sort_by(|a, b| key(a).cmp(&key(b)));
    fn key(new: &NewFile) -> (bool, &str, &str, &str) {
        let name = base_name(&new.path);
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        (new.sources.is_empty(), extension, name, &new.path)
    }
}

/// How many files may be encoded at the same time.
pub(in crate::ops) fn batch_len<F: std::borrow::Borrow<NewFile>>(files: &[F]) -> usize {
    let mut bytes = 0;
    let fits = |new: &&F| {
        let new: &NewFile = (*new).borrow();
        let sources: u64 = new.sources.iter().map(|source| source.payload.size).sum();
        bytes += new.file.size.max(sources);
        bytes <= BATCH
    };
    files.iter().take_while(fits).count().max(1)
}

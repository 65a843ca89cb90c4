//! What a client transfers to get from one commit to another, worked out from metadata: the requests
//! that `ostree pull` makes of an exported repository, and the bytes of the answers. Nothing is
//! transferred here.
//!
//! A ref is pulled from a server with a summary: the summary's signature (which is not there), the
//! summary, the configuration and the commit's detached metadata are asked for each time; then what
//! the client lacks. Where the summary tells of no static delta at all, a client that could use one
//! asks for the one that would fit; one with an archive of its own does not, and makes a request less.
//! Answers of 404 count as requests without bytes.

use std::collections::BTreeMap;
use std::path::Path;

use super::export::deltas::{self, DeltaDir, SUPERBLOCK};
use super::export::{Outline, config_text};
use super::sizes::Sizes;
use super::walk::{Gatherer, Needed, commit};
use super::{RepoMode, config_of};
use crate::error::{Error, IoResultExt, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::{FileObject, Value, Variant};
use crate::repo::Repository;

/// Unit in which file systems give space to files.
const DISK_BLOCK: u64 = 4096;
const SUPERBLOCK_TYPE: &str = "(a{sv}tayay(a{sv}aya(say)sstayay)aya(uayttay)a(yaytt))";
/// What clients read of a superblock.
const MAX_SUPERBLOCK: u64 = 128 << 20;

/// Requests, and the bytes that they bring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pull {
    /// Requests, those included that are answered with 404.
    pub requests: u64,
    /// Bytes of the answers, without their headers.
    pub bytes: u64,
}

impl Pull {
    fn add(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
    }
}

/// The way from one commit to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// What the client has; `None` = nothing.
    pub from: Option<ObjectId>,
    /// What it wants.
    pub to: ObjectId,
    /// Without a static delta.
    pub loose: Pull,
    /// Of it, commit, dirtree and dirmeta objects.
    pub metadata: Pull,
    /// Of it, file objects.
    pub files: Pull,
    /// With a static delta, if the repository has one that fits.
    pub delta: Option<Pull>,
    /// Sizes of the objects that the client adds to its repository, uncompressed.
    pub disk_bytes: u64,
    /// The same in whole blocks of 4 KiB.
    pub allocated_bytes: u64,
}

/// Works out transfers from one repository.
#[derive(Debug)]
pub struct Planner<'r> {
    repo: &'r Repository,
    sizes: Sizes,
    summary_size: u64,
    /// Clients try to guess a delta where the summary tells of none at all.
    lists_deltas: bool,
    config_size: u64,
    deltas: BTreeMap<String, DeltaDir>,
}

impl<'r> Planner<'r> {
    /// Looks at what an export of all refs would say of the repository.
    pub fn new(repo: &'r Repository) -> Result<Self> {
        let config = config_text(RepoMode::Archive, &config_of(repo)?);
        let summary = Outline::of_repository(repo)?;
        Ok(Self {
            repo,
            sizes: Sizes::load(repo),
            summary_size: summary.size(),
            lists_deltas: summary.lists_deltas(),
            config_size: config.len() as u64,
            deltas: deltas::list(repo.path())?,
        })
    }

    /// The way from a commit, or from nothing, to another. The first time, sizes of compressed files
    /// have to be found out, which takes a while; then they are remembered.
    pub fn transfer(
        &mut self,
        from: Option<&ObjectId>,
        to: &ObjectId,
        monitor: &dyn Monitor,
    ) -> Result<Transfer> {
        let repo = self.repo;
        let commits: Vec<ObjectId> = from.into_iter().chain([to]).copied().collect();
        let _lease = repo.lease(&commits)?;
        let (needed, commit_size) = self.needed(from, to, monitor)?;
        let ids: Vec<ObjectId> = needed.files.keys().copied().collect();
        let files: Vec<FileObject> = repo.files(&ids).into_iter().collect::<Result<_>>()?;
        self.sizes.complete(repo, &files, monitor)?;
        let mut found = Transfer {
            from: from.copied(),
            to: *to,
            loose: self.always(to)?,
            metadata: Pull::default(),
            files: Pull::default(),
            delta: self.delta(from, to, monitor)?,
            disk_bytes: 0,
            allocated_bytes: 0,
        };
        if from != Some(to) {
            found.add_metadata(commit_size);
            found.loose.requests += u64::from(!self.lists_deltas);
        }
        let dirtrees = needed.dirtrees.iter().map(|(_, bytes)| bytes);
        let dirmetas = needed.dirmetas.values().map(|(_, bytes)| bytes);
        for bytes in dirmetas.chain(dirtrees) {
            found.add_metadata(bytes.len() as u64);
        }
        for file in &files {
            found.files.add(self.archived(&file.id)?);
            let target = file.header.symlink_target.len() as u64;
            found.disk_bytes += file.size + target;
            found.allocated_bytes += file.size.next_multiple_of(DISK_BLOCK);
        }
        for part in [found.metadata, found.files] {
            found.loose.requests += part.requests;
            found.loose.bytes += part.bytes;
        }
        Ok(found)
    }

    /// Objects of `to` that `from` has not, and the size of the commit object.
    fn needed(
        &self,
        from: Option<&ObjectId>,
        to: &ObjectId,
        monitor: &dyn Monitor,
    ) -> Result<(Needed, u64)> {
        monitor.begin(Phase::Scan, None);
        let mut gatherer = Gatherer::default();
        let mut last = (Needed::default(), 0);
        for id in from.into_iter().chain([to]) {
            let missing = || Error::MissingObject {
                kind: ObjectKind::Commit,
                id: *id,
            };
            let (commit, bytes) = commit(self.repo, id)?.ok_or_else(missing)?;
            let needed = gatherer.commit(self.repo, &commit, false, monitor)?;
            last = (needed, bytes.len() as u64);
        }
        monitor.end(Phase::Scan);
        Ok(last)
    }

    /// What is asked for whatever the client has.
    fn always(&self, to: &ObjectId) -> Result<Pull> {
        let detached = self.repo.detached_metadata(to)?;
        let mut pull = Pull::default();
        let none = 0;
        for bytes in [
            none,
            self.summary_size,
            self.config_size,
            detached.map_or(none, |bytes| bytes.len() as u64),
        ] {
            pull.add(bytes);
        }
        Ok(pull)
    }

    fn archived(&self, id: &ObjectId) -> Result<u64> {
        let missing = || Error::MissingObject {
            kind: ObjectKind::File,
            id: *id,
        };
        self.sizes.get(id).ok_or_else(missing)
    }

    /// The delta that a client would use. One from nothing is used by those who know no commit.
    fn delta(
        &mut self,
        from: Option<&ObjectId>,
        to: &ObjectId,
        monitor: &dyn Monitor,
    ) -> Result<Option<Pull>> {
        let found = |delta: &&DeltaDir| delta.name.from.as_ref() == from && delta.name.to == *to;
        let Some(delta) = self.deltas.values().find(found).cloned() else {
            return Ok(None);
        };
        let mut pull = self.always(to)?;
        for (name, size) in delta.files()? {
            pull.add(size);
            if name == SUPERBLOCK {
                let fallbacks = fallbacks(&delta.path.join(name), size)?;
                let files = self.repo.files(&fallbacks).into_iter();
                let files: Vec<FileObject> = files.collect::<Result<_>>()?;
                self.sizes.complete(self.repo, &files, monitor)?;
                for file in &files {
                    pull.add(self.archived(&file.id)?);
                }
            }
        }
        Ok(Some(pull))
    }
}

impl Transfer {
    fn add_metadata(&mut self, size: u64) {
        self.metadata.add(size);
        self.disk_bytes += size;
        self.allocated_bytes += size.next_multiple_of(DISK_BLOCK);
    }
}

/// The file objects that a delta does not contain, and that are loaded as they are.
fn fallbacks(path: &Path, size: u64) -> Result<Vec<ObjectId>> {
    if size > MAX_SUPERBLOCK {
        let detail = format!("a superblock of {size} bytes");
        return Err(deltas::malformed(path, detail));
    }
    let bytes = std::fs::read(path).at(path)?;
    let parsed = Variant::from_parts(SUPERBLOCK_TYPE, &bytes);
    let parsed = parsed.map_err(|error| deltas::malformed(path, error.to_string()))?;
    let Value::Tuple(members) = parsed.value() else {
        return Err(deltas::malformed(path, "not a superblock"));
    };
    let Some(Value::Array { items, .. }) = members.into_iter().next_back() else {
        return Err(deltas::malformed(path, "no list of fallback objects"));
    };
    let id = |object: Value| match object {
        Value::Tuple(members) => match members.get(1) {
            Some(Value::Bytes(id)) => ObjectId::from_slice(id),
            _ => None,
        },
        _ => None,
    };
    let malformed = || deltas::malformed(path, "a checksum is malformed");
    items
        .into_iter()
        .map(|object| id(object).ok_or_else(malformed))
        .collect()
}

//! The summary of an exported repository, which tells clients of refs and static deltas. What it
//! says is looked up where it is written, so that it also holds where others export, too.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::deltas;
use super::target::{Target, write_file};
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::Monitor;
use crate::object::{Summary, SummaryRef};
use crate::ops::ostree::walk::{Objects, commit, history};
use crate::ops::ostree::{MIRRORS, RepoMode};
use crate::repo::Repository;

/// A summary.
#[derive(Debug)]
pub(in crate::ops::ostree) struct Outline(Summary);

impl Outline {
    /// That of a repository which has just been written to.
    pub(super) fn of_export(target: &Target, monitor: &dyn Monitor) -> Result<Self> {
        let repo = &target.repo;
        let refs = repo.refs(monitor)?;
        let config = repo.config();
        let collection = config.get("core", "collection-id").map(str::to_owned);
        let deltas = deltas::list(repo.path())?;
        Self::new(repo, refs, collection, &deltas)
    }

    /// The one that an export of all refs would have.
    pub(in crate::ops::ostree) fn of_repository(repo: &Repository) -> Result<Self> {
        let config = super::super::config_of(repo)?;
        let collection = config.get("core", "collection-id").map(str::to_owned);
        let refs = repo.refs()?.map;
        let exported = history(repo, refs.values().copied(), None)?;
        let mut deltas = deltas::list(repo.path())?;
        deltas.retain(|_, delta| exported.contains(&delta.name.to));
        Self::new(repo, refs, collection, &deltas)
    }

    fn new(
        from: &dyn Objects,
        refs: BTreeMap<String, ObjectId>,
        collection_id: Option<String>,
        deltas: &BTreeMap<String, deltas::DeltaDir>,
    ) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let mut summary = Summary {
            mode: RepoMode::Archive.as_config().to_owned(),
            last_modified: now.map_or(0, |time| time.as_secs()),
            collection_id,
            ..Summary::default()
        };
        for (name, id) in refs {
            // Refs of remotes are never listed.
            if name.contains(':') {
                continue;
            }
            let at = describe(from, &id)?;
            let mirror = name
                .strip_prefix(MIRRORS)
                .and_then(|name| name.split_once('/'));
            match mirror {
                None => drop(summary.refs.insert(name, at)),
                Some((collection, name)) => {
                    let refs = summary.collections.entry(collection.to_owned());
                    refs.or_default().insert(name.to_owned(), at);
                }
            }
        }
        for (name, delta) in deltas {
            let superblock = delta.superblock()?;
            summary.static_deltas.insert(name.clone(), superblock);
        }
        Ok(Self(summary))
    }

    pub(in crate::ops::ostree) fn lists_deltas(&self) -> bool {
        !self.0.static_deltas.is_empty()
    }

    pub(in crate::ops::ostree) fn size(&self) -> u64 {
        self.0.to_bytes().len() as u64
    }

    /// Replaces the summary; a signature of an older one goes.
    pub(super) fn write(&self, target: &Target) -> Result<()> {
        let signature = target.repo.path().join("summary.sig");
        match std::fs::remove_file(&signature) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let path = signature;
                return Err(Error::Io {
                    path,
                    source: error,
                });
            }
            _ => {}
        }
        let bytes = self.0.to_bytes();
        target.stage_at("summary".to_owned(), |path| write_file(path, &bytes))?;
        target.flush()
    }
}

fn describe(from: &dyn Objects, id: &ObjectId) -> Result<SummaryRef> {
    let missing = || from.fault(ObjectKind::Commit, id, crate::error::ObjectFault::Missing);
    let (found, bytes) = commit(from, id)?.ok_or_else(missing)?;
    let version = found.metadata.get("version").and_then(|v| v.as_str());
    Ok(SummaryRef {
        commit: *id,
        size: bytes.len() as u64,
        timestamp: found.timestamp,
        version: version.map(str::to_owned),
    })
}

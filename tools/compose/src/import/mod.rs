//! Importing packages: payloads stream into the store, and a record remembers where they went.
//!
//! Owns the key of an import and the flow between threads. Packages are read by a few threads at a
//! time and stored by the caller's, strictly in the order given, so that the same packages always
//! make the same packs. Nothing is unpacked to disk here. A package whose record exists is not
//! read, and one whose file is known by its stamp is not even opened.

mod collect;
mod digests;
mod record;
mod store;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use grove_engine::monitor::Phase;
use grove_engine::{Monitor, ObjectId, Repository, Transaction};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

pub use digests::{DigestCache, DigestTable, FileStamp};
pub use record::{DirKind, Item, Record, RecordError, Skipped};

use crate::package::{Package, PackageError};
use crate::{Error, Owners, PathRules};

/// Counts with every change of what an import makes of a package.
const IMPORTER_VERSION: u32 = 1;

/// How packages become entries of trees.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Where files go.
    pub rules: PathRules,
    /// Who owns them.
    pub owners: Owners,
    /// Owner of everything, instead of the package's.
    pub owner_uid: Option<u32>,
    /// Group of everything, instead of the package's.
    pub owner_gid: Option<u32>,
    /// Owner and group 0, modes masked with 0755, no capabilities.
    pub canonical_permissions: bool,
    /// Leave out what a commit cannot hold (devices, FIFOs, sockets, names that are not UTF-8),
    /// with a count, instead of failing.
    pub skip_special: bool,
}

impl ImportOptions {
    /// Stands for the options in keys.
    fn fingerprint(&self) -> [u8; 32] {
        let Self {
            rules,
            owners,
            owner_uid,
            owner_gid,
            canonical_permissions,
            skip_special,
        } = self;
        let mut hasher = Sha256::new();
        hasher.update(match rules {
            PathRules::AsPackaged => [0],
            PathRules::RpmOstree => [1],
        });
        hasher.update(owners.fingerprint());
        for id in [owner_uid, owner_gid] {
            hasher.update(id.map_or(u64::MAX, u64::from).to_le_bytes());
        }
        hasher.update([u8::from(*canonical_permissions), u8::from(*skip_special)]);
        hasher.finalize().into()
    }

    /// The name of an import: SHA-256 of `grove-import`, a zero byte, the importer's version
    /// (u32, little-endian), the package file's SHA-256 and the options' fingerprint.
    fn key(&self, digest: &[u8; 32]) -> ObjectId {
        let version = IMPORTER_VERSION.to_le_bytes();
        let parts = [
            b"grove-import\0".as_slice(),
            &version,
            digest,
            &self.fingerprint(),
        ];
        ObjectId::of(&parts.concat())
    }
}

/// A package whose files are in the repository or in a transaction.
#[derive(Debug, Clone)]
pub struct ImportedPackage {
    /// The file it came from.
    pub path: PathBuf,
    /// SHA-256 of that file.
    pub digest: [u8; 32],
    /// The import's key.
    pub key: ObjectId,
    /// Facts and entries.
    pub record: Arc<Record>,
    /// Whether it was imported before.
    pub known: bool,
}

/// A package file and what its bytes are called.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    stamp: FileStamp,
    digest: [u8; 32],
    key: ObjectId,
}

/// Imports one package. See [`import_packages`].
pub fn import_package(
    txn: &mut Transaction<'_>,
    path: &Path,
    options: &ImportOptions,
    digests: &dyn DigestCache,
    monitor: &dyn Monitor,
) -> Result<ImportedPackage, Error> {
    let imported = import_packages(txn, &[path.to_owned()], options, digests, monitor)?;
    Ok(imported
        .into_iter()
        .next()
        .expect("because one path was given"))
}

/// Imports packages; the results are in the order of `paths`. After an error the transaction may
/// hold part of a package and must not be published.
pub fn import_packages(
    txn: &mut Transaction<'_>,
    paths: &[PathBuf],
    options: &ImportOptions,
    digests: &dyn DigestCache,
    monitor: &dyn Monitor,
) -> Result<Vec<ImportedPackage>, Error> {
    monitor.begin(Phase::Import, Some(paths.len() as u64));
    let known = look_up(txn.repository(), paths, options, digests, monitor)?;
    let mut missing = Vec::new();
    let mut slots = HashMap::new();
    for (named, record) in &known {
        if record.is_none() && !slots.contains_key(&named.key) {
            slots.insert(named.key, missing.len());
            missing.push(named);
        }
    }
    // Of the parent's files, only those of packages that are new or gone may have moved.
    let stay: Vec<&Record> = known
        .iter()
        .filter_map(|(_, record)| record.as_ref())
        .collect();
    if !stay.is_empty() {
        txn.announce_paths(stay.iter().flat_map(|record| record.file_paths()));
    }
    let stored = store::store(txn, &missing, options, monitor)?;
    let stored: Vec<_> = stored.into_iter().map(Arc::new).collect();
    let imported = known.into_iter().map(|(named, record)| {
        let fresh = slots.get(&named.key).and_then(|at| stored.get(*at));
        let record = record.map(Arc::new).or_else(|| fresh.cloned());
        ImportedPackage {
            path: named.path,
            digest: named.digest,
            key: named.key,
            record: record.expect("because what was missing is stored now"),
            known: fresh.is_none(),
        }
    });
    let imported = imported.collect();
    monitor.end(Phase::Import);
    Ok(imported)
}

/// Names every package, and finds the records of those imported before.
fn look_up(
    repo: &Repository,
    paths: &[PathBuf],
    options: &ImportOptions,
    digests: &dyn DigestCache,
    monitor: &dyn Monitor,
) -> Result<Vec<(Named, Option<Record>)>, Error> {
    let look_up = |path: &PathBuf| {
        if monitor.is_cancelled() {
            return Err(grove_engine::Error::Cancelled.into());
        }
        let named = name(path, options, digests)?;
        // A record that cannot be read is made anew.
        let import = repo.import(&named.key)?;
        let record = import.and_then(|i| Record::decode(&i.bytes, &i.files).ok());
        if record.is_some() {
            monitor.advance(Phase::Import, 1);
        }
        Ok((named, record))
    };
    let found: Vec<Result<_, Error>> = paths.par_iter().map(look_up).collect();
    found.into_iter().collect()
}

/// A package's digest and key; its bytes are read only where no stamp knows them.
fn name(path: &Path, options: &ImportOptions, digests: &dyn DigestCache) -> Result<Named, Error> {
    let status = std::fs::metadata(path);
    let status = status.map_err(|source| Error::package(path, PackageError::Io(source)))?;
    let stamp = FileStamp::new(&status);
    let digest = match digests.get(&stamp) {
        Some(digest) => digest,
        None => {
            let read_at = SystemTime::now();
            let package = Package::open(path)?;
            let digest = package.verify()?;
            check_unchanged(&package, &stamp)?;
            digests.put(stamp, digest, read_at);
            digest
        }
    };
    Ok(Named {
        path: path.to_owned(),
        stamp,
        digest,
        key: options.key(&digest),
    })
}

/// A file that changes while it is read may be anything.
fn check_unchanged(package: &Package, stamp: &FileStamp) -> Result<(), Error> {
    if FileStamp::new(&package.status()?) == *stamp {
        return Ok(());
    }
    Err(grove_engine::Error::InputChanged {
        path: package.path().to_owned(),
    }
    .into())
}

/// Every `*.rpm` file below a directory, source packages aside, in order of their paths.
pub fn find_packages(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let fail = |source| Error::package(&dir, PackageError::Io(source));
        for entry in std::fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let path = entry.path();
            let kind = entry.file_type().map_err(fail)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if kind.is_dir() {
                todo.push(path);
            } else if name.ends_with(".rpm") && !is_source(&name) && path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn is_source(name: &str) -> bool {
    name.ends_with(".src.rpm") || name.ends_with(".nosrc.rpm")
}

//! Leases: which commits a long reader needs, told to whoever deletes.
//!
//! A lease is a file that its owner keeps locked for as long as it lives; a file that nobody has
//! locked is of a process that died, and is removed by whoever finds it. Layout: docs/format.md,
//! "Leases".

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock::{Lock, LockMode, is_at, try_lock};
use crate::error::{Error, IoResultExt, Result};
use crate::id::ObjectId;

const HEADER: &str = "grove-lease 1";
const FOOTER: &str = "end";

/// Numbers the leases of this process.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Keeps commits from being deleted for as long as it lives.
#[derive(Debug)]
pub struct Lease {
    held: Held,
}

#[derive(Debug)]
enum Held {
    File {
        path: PathBuf,
        _file: File,
    },
    /// In place of a file where none can be made: no prune ends while it is held.
    Lock {
        _lock: Lock,
    },
}

/// A lease of some process, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leased {
    pub(crate) holder: String,
    pub(crate) commits: Vec<ObjectId>,
}

impl Lease {
    /// Takes a lease. The caller holds `lock`, the shared lock of the repository: so whoever
    /// deletes sees the whole file. Where no file can be made, the lock itself takes its place.
    pub(crate) fn take(dir: &Path, commits: &[ObjectId], lock: Lock) -> Result<Self> {
        match Self::take_file(dir, commits) {
            Err(Error::Io { source, .. }) if is_refusal(&source) => Ok(Self {
                held: Held::Lock { _lock: lock },
            }),
            other => other,
        }
    }

    fn take_file(dir: &Path, commits: &[ObjectId]) -> Result<Self> {
        std::fs::create_dir_all(dir).at(dir)?;
        held(dir)?;
        let mut text = format!("{HEADER}\n");
        for id in commits {
            text.push_str(&format!("{id}\n"));
        }
        text.push_str(&format!("{FOOTER}\n"));
        loop {
            let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{}.{number}", std::process::id()));
            let made = File::options().write(true).create_new(true).open(&path);
            let mut file = match made {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).at(&path),
            };
            // Before it was locked another process may have taken it for a dead one.
            if try_lock(&file, LockMode::Exclusive).at(&path)? && is_at(&file, &path) {
                file.write_all(text.as_bytes()).at(&path)?;
                return Ok(Self {
                    held: Held::File { path, _file: file },
                });
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Held::File { path, .. } = &self.held {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Whether a file cannot be made here at all, by this user or by anyone, or has no room: what is in
/// a repository can be read nevertheless.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
    )
}

/// The leases of living processes; those of dead ones are removed.
///
/// A lease that is being written is left out; under the exclusive lock there is none.
pub(crate) fn held(dir: &Path) -> Result<Vec<Leased>> {
    let listing = match std::fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at(dir),
    };
    let mut leases = Vec::new();
    for entry in listing {
        let path = entry.at(dir)?.path();
        let file = match File::open(&path) {
            Ok(file) => file,
            // Given up meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).at(&path),
        };
        if try_lock(&file, LockMode::Exclusive).at(&path)? {
            if is_at(&file, &path) {
                drop(std::fs::remove_file(&path));
            }
            continue;
        }
        let text = std::fs::read_to_string(&path);
        if let Some(commits) = text.ok().as_deref().and_then(decode) {
            let holder = owner(&path);
            leases.push(Leased { holder, commits });
        }
    }
    Ok(leases)
}

/// Who made a lease, from the name of its file: to ask the kernel for its table of locks would make
/// everybody on the machine wait who locks a file, for milliseconds.
fn owner(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = name.split('.').next().unwrap_or_default();
    format!("process {process}")
}

fn decode(text: &str) -> Option<Vec<ObjectId>> {
    let mut lines = text.lines();
    let first = lines.next();
    let last = lines.next_back();
    (first == Some(HEADER) && last == Some(FOOTER)).then_some(())?;
    lines.map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn take(dir: &Path, commits: &[ObjectId]) -> Lease {
        let path = dir.join("lock");
        let lock = Lock::acquire(&path, LockMode::Shared, Duration::ZERO).unwrap();
        Lease::take(&dir.join("leases"), commits, lock).unwrap()
    }

    #[test]
    fn a_lease_is_seen_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let leases = dir.path().join("leases");
        assert_eq!(held(&leases).unwrap(), []);
        let commits = [ObjectId::of(b"a"), ObjectId::of(b"b")];
        let lease = take(dir.path(), &commits);
        let empty = take(dir.path(), &[]);
        let seen = held(&leases).unwrap();
        assert_eq!(seen.len(), 2);
        assert!(seen.iter().any(|l| l.commits == commits));
        assert!(seen[0].holder.contains(&std::process::id().to_string()));
        drop((lease, empty));
        assert_eq!(held(&leases).unwrap(), []);
    }

    #[test]
    fn what_the_dead_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("99999999.0"), "grove-lease 1\nend\n").unwrap();
        assert_eq!(held(dir.path()).unwrap(), []);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn many_may_take_and_give_up_leases_at_once() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for n in 0..6u8 {
                let dir = dir.path();
                scope.spawn(move || {
                    for _ in 0..50 {
                        let id = ObjectId::of(&[n]);
                        let _lease = take(dir, &[id]);
                        let seen = held(&dir.join("leases")).unwrap();
                        assert!(seen.iter().any(|l| l.commits == [id]));
                    }
                });
            }
        });
    }

    #[test]
    fn a_malformed_lease_is_not_taken_for_an_empty_one() {
        let id = ObjectId::of(b"");
        let good = format!("{HEADER}\n{id}\n{FOOTER}\n");
        assert_eq!(decode(&good), Some(vec![id]));
        for bad in [
            "",
            HEADER,
            &good[..good.len() - 4],
            "grove-lease 1\nx\nend\n",
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }
}

//! Refs: names for commits, all in one file that is replaced atomically. Layout: docs/format.md,
//! "Refs".

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::{Lock, LockMode};
use crate::fs::{Storage, replace_file};
use crate::id::ObjectId;

const HEADER: &str = "grove-refs 1 ";
const FOOTER: &str = "sum ";
/// How long to wait for another process that is changing refs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A snapshot of all refs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs {
    /// Grows by one with each change.
    pub generation: u64,
    /// Name to commit.
    pub map: BTreeMap<String, ObjectId>,
}

/// One ref to change by compare-and-swap.
#[derive(Debug, Clone)]
pub struct RefUpdate {
    /// Ref name.
    pub name: String,
    /// The value the ref must still have: `None` = any value, `Some(None)` = must not exist.
    pub expected: Option<Option<ObjectId>>,
    /// New value; `None` deletes.
    pub new: Option<ObjectId>,
}

/// Whether OSTree accepts a ref name: fragments of `[A-Za-z0-9_][-._A-Za-z0-9]*` joined by `/`,
/// with an optional `remote:` in front.
pub fn is_valid_ref_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fragment = |f: &str| {
        f.bytes().next().is_some_and(word) && f.bytes().all(|b| word(b) || b == b'-' || b == b'.')
    };
    let branch = match name.split_once(':') {
        Some((remote, branch)) if fragment(remote) => branch,
        Some(_) => return false,
        None => name,
    };
    branch.split('/').all(fragment)
}

/// The refs file of a repository.
#[derive(Debug)]
pub(crate) struct RefsFile {
    path: PathBuf,
    copy: PathBuf,
    lock: PathBuf,
}

impl RefsFile {
    pub(crate) fn new(repo: &Path) -> Self {
        Self {
            path: repo.join("refs"),
            copy: repo.join("refs.copy"),
            lock: repo.join("refs.lock"),
        }
    }

    /// Writes the file of an empty repository.
    pub(crate) fn init(&self, storage: &dyn Storage) -> Result<()> {
        self.write(storage, &Refs::default())
    }

    pub(crate) fn load(&self) -> Result<Refs> {
        load(&self.path)
    }

    /// Loads the copy, which may be older than the file by some changes.
    pub(crate) fn load_copy(&self) -> Result<Refs> {
        load(&self.copy)
    }

    /// Replaces the file whatever is in it, and its copy: for a repair.
    pub(crate) fn restore(&self, storage: &dyn Storage, refs: &Refs) -> Result<()> {
        let _lock = Lock::acquire(&self.lock, LockMode::Exclusive, PATIENCE)?;
        self.write(storage, refs)
    }

    fn write(&self, storage: &dyn Storage, refs: &Refs) -> Result<()> {
        let text = encode(refs);
        replace_file(storage, &self.path, text.as_bytes())?;
        // The refs have changed now, whatever becomes of the copy.
        drop(replace_file(storage, &self.copy, text.as_bytes()));
        Ok(())
    }

    /// Keeps others from changing refs, and what else is changed under their lock.
    pub(crate) fn hold(&self) -> Result<Lock> {
        Lock::acquire(&self.lock, LockMode::Exclusive, PATIENCE)
    }

    /// Changes refs, all or none.
    pub(crate) fn update(&self, storage: &dyn Storage, updates: &[RefUpdate]) -> Result<()> {
        if updates.is_empty() {
            return Ok(());
        }
        if let Some(bad) = updates.iter().find(|u| !is_valid_ref_name(&u.name)) {
            return Err(Error::InvalidRefName {
                name: bad.name.clone(),
            });
        }
        let _lock = self.hold()?;
        let mut refs = self.load()?;
        for update in updates {
            let found = refs.map.get(&update.name).copied();
            if let Some(expected) = update.expected
                && expected != found
            {
                return Err(Error::RefChanged {
                    name: update.name.clone(),
                    expected,
                    found,
                });
            }
            match update.new {
                Some(commit) => {
                    self.check_free(&refs, &update.name)?;
                    refs.map.insert(update.name.clone(), commit);
                }
                None => drop(refs.map.remove(&update.name)),
            }
        }
        refs.generation += 1;
        self.write(storage, &refs)
    }

    /// As refs are files and directories elsewhere, `a` and `a/b` cannot both be refs.
    fn check_free(&self, refs: &Refs, name: &str) -> Result<()> {
        let below = format!("{name}/");
        let clash = refs.map.keys().find(|other| {
            other.starts_with(&below)
                || name
                    .strip_prefix(other.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        });
        match clash {
            Some(other) => Err(Error::RefConflict {
                name: name.to_owned(),
                other: other.clone(),
            }),
            None => Ok(()),
        }
    }
}

fn load(path: &Path) -> Result<Refs> {
    let bytes = std::fs::read(path).at(path)?;
    decode(&bytes).map_err(|detail| Error::Corrupt {
        path: path.to_owned(),
        detail: detail.to_owned(),
    })
}

pub(crate) fn encode(refs: &Refs) -> String {
    let mut text = format!("{HEADER}{}\n", refs.generation);
    for (name, commit) in &refs.map {
        writeln!(text, "{commit} {name}").expect("because writing to a string cannot fail");
    }
    let sum = xxh3_64(text.as_bytes());
    writeln!(text, "{FOOTER}{sum:016x}").expect("because writing to a string cannot fail");
    text
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Refs, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    let body_len = text
        .rfind(FOOTER)
        .ok_or("truncated: the last line is missing")?;
    let (body, footer) = text.split_at(body_len);
    if footer != format!("{FOOTER}{:016x}\n", xxh3_64(body.as_bytes())) {
        return Err("checksum mismatch");
    }
    let mut lines = body.lines();
    let generation = lines
        .next()
        .and_then(|line| line.strip_prefix(HEADER))
        .and_then(|number| number.parse().ok())
        .ok_or("malformed first line")?;
    let map = lines.map(|line| {
        let (commit, name) = line.split_once(' ')?;
        is_valid_ref_name(name).then_some(())?;
        Some((name.to_owned(), commit.parse().ok()?))
    });
    let map = map.collect::<Option<_>>().ok_or("malformed line")?;
    Ok(Refs { generation, map })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ref_names_follow_ostree() {
        for good in ["a", "os/x86_64/stable", "0", "_x", "a-b.c_d", "remote:a/b"] {
            assert!(is_valid_ref_name(good), "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", "-a", ".a", "a/.b", "a b", "\u{e9}", "a:b:c", ":a", "a\n",
        ] {
            assert!(!is_valid_ref_name(bad), "{bad}");
        }
    }

    #[test]
    fn the_file_round_trips_and_any_damage_is_noticed() {
        let id = ObjectId::of(b"");
        let map = [("a/b".to_owned(), id), ("c".to_owned(), id)].into();
        let refs = Refs { generation: 7, map };
        let text = encode(&refs);
        assert_eq!(decode(text.as_bytes()), Ok(refs));
        for cut in 0..text.len() {
            assert!(decode(&text.as_bytes()[..cut]).is_err(), "cut at {cut}");
            let mut flipped = text.clone().into_bytes();
            flipped[cut] ^= 1;
            assert!(decode(&flipped).is_err(), "flipped at {cut}");
        }
    }
}

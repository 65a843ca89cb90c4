//! A strict comparison of two directory trees.
//!
//! Compared are names, types, permissions, owners, extended attributes, sizes, bytes and link targets.
//! Not compared is what a commit does not hold: times, hard links, inode numbers, sizes of directories,
//! extended attributes with an empty value (OSTree drops them).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::error::{At, Error, Result};

/// Differences that are listed; more are only counted.
const LISTED: usize = 50;
/// Bytes of an attribute's value that are shown.
const SHOWN: usize = 40;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Entries that both trees have.
    pub entries: u64,
    /// Bytes of regular files that were compared.
    pub bytes: u64,
    /// How many differences there are.
    pub different: u64,
    /// The first of them, sorted by path.
    pub differences: Vec<String>,
}

/// Compares everything below two directories, and the directories themselves.
pub fn compare(left: &Path, right: &Path) -> Result<Comparison> {
    let job = Job::default();
    job.entry(left, right, Path::new("/"));
    let mut differences = job
        .differences
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    differences.sort();
    let different = differences.len() as u64;
    differences.truncate(LISTED);
    Ok(Comparison {
        entries: job.entries.into_inner(),
        bytes: job.bytes.into_inner(),
        different,
        differences,
    })
}

#[derive(Debug, Default)]
struct Job {
    entries: AtomicU64,
    bytes: AtomicU64,
    differences: Mutex<Vec<String>>,
}

impl Job {
    fn note(&self, path: &Path, what: &str) {
        let line = format!("{}: {what}", path.display());
        self.differences
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    /// A failure to look at something is a difference like any other.
    fn entry(&self, left: &Path, right: &Path, path: &Path) {
        self.entries.fetch_add(1, Relaxed);
        if let Err(error) = self.try_entry(left, right, path) {
            let cause = match &error {
                Error::Io { source, .. } => source.to_string(),
                _ => String::new(),
            };
            self.note(path, &format!("cannot be compared: {error}: {cause}"));
        }
    }

    fn try_entry(&self, left: &Path, right: &Path, path: &Path) -> Result<()> {
        let (a, b) = (
            fs::symlink_metadata(left).at(left)?,
            fs::symlink_metadata(right).at(right)?,
        );
        self.metadata(&a, &b, path);
        let (x, y) = (xattrs(left)?, xattrs(right)?);
        if x != y {
            self.note(
                path,
                &format!("extended attributes {} and {}", show(&x), show(&y)),
            );
        }
        if a.file_type() != b.file_type() {
            return Ok(());
        }
        if a.is_dir() {
            self.dir(left, right, path)
        } else if a.is_symlink() {
            let (x, y) = (
                fs::read_link(left).at(left)?,
                fs::read_link(right).at(right)?,
            );
            if x != y {
                self.note(path, &format!("target {} and {}", x.display(), y.display()));
            }
            Ok(())
        } else if a.is_file() && a.size() == b.size() {
            self.content(left, right, path)
        } else {
            Ok(())
        }
    }

    fn metadata(&self, a: &Metadata, b: &Metadata, path: &Path) {
        if a.mode() != b.mode() {
            self.note(path, &format!("mode {:o} and {:o}", a.mode(), b.mode()));
        }
        if (a.uid(), a.gid()) != (b.uid(), b.gid()) {
            let text = format!("owner {}:{} and {}:{}", a.uid(), a.gid(), b.uid(), b.gid());
            self.note(path, &text);
        }
        if !a.is_dir() && a.size() != b.size() {
            self.note(path, &format!("size {} and {}", a.size(), b.size()));
        }
    }

    fn dir(&self, left: &Path, right: &Path, path: &Path) -> Result<()> {
        let (a, b) = (names(left)?, names(right)?);
        for name in a.symmetric_difference(&b) {
            let side = if a.contains(name) { "first" } else { "second" };
            self.note(&path.join(name), &format!("only in the {side} tree"));
        }
        let both: Vec<&OsString> = a.intersection(&b).collect();
        both.par_iter()
            .for_each(|name| self.entry(&left.join(name), &right.join(name), &path.join(name)));
        Ok(())
    }

    fn content(&self, left: &Path, right: &Path, path: &Path) -> Result<()> {
        let each = |bytes| {
            self.bytes.fetch_add(bytes, Relaxed);
        };
        if let Some(at) = first_difference(left, right, &each)? {
            self.note(path, &format!("content differs at byte {at}"));
        }
        Ok(())
    }
}

/// Whether two files of one size hold the same bytes.
pub(crate) fn same_content(left: &Path, right: &Path) -> Result<bool> {
    Ok(first_difference(left, right, &|_| {})?.is_none())
}

/// Where two files differ first; `each` gets numbers of bytes that are the same.
fn first_difference(left: &Path, right: &Path, each: &dyn Fn(u64)) -> Result<Option<u64>> {
    let (mut a, mut b) = (File::open(left).at(left)?, File::open(right).at(right)?);
    let (mut x, mut y) = (vec![0; 1 << 17], vec![0; 1 << 17]);
    let mut offset = 0;
    loop {
        let (n, m) = (
            fill(&mut a, &mut x).at(left)?,
            fill(&mut b, &mut y).at(right)?,
        );
        let (x, y) = (
            x.get(..n).unwrap_or_default(),
            y.get(..m).unwrap_or_default(),
        );
        if x != y {
            let same = x.iter().zip(y).take_while(|(x, y)| x == y).count();
            return Ok(Some(offset + same as u64));
        }
        if n == 0 {
            return Ok(None);
        }
        offset += n as u64;
        each(n as u64);
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

fn names(dir: &Path) -> Result<BTreeSet<OsString>> {
    fs::read_dir(dir)
        .at(dir)?
        .map(|entry| Ok(entry.at(dir)?.file_name()))
        .collect()
}

/// Names and values, sorted.
pub(crate) type Attributes = Vec<(OsString, Vec<u8>)>;

/// Extended attributes of an entry, those with a value.
pub(crate) fn xattrs(path: &Path) -> Result<Attributes> {
    let mut list = vec![0; 1 << 16];
    let len = match rustix::fs::llistxattr(path, &mut list) {
        Ok(len) => len,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(errno) => return Err(errno).at(path),
    };
    let mut found = Vec::new();
    for name in list.get(..len).unwrap_or_default().split(|byte| *byte == 0) {
        if name.is_empty() {
            continue;
        }
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(path, name, &mut value).at(path)?;
        value.truncate(len);
        if !value.is_empty() {
            found.push((OsString::from_vec(name.to_vec()), value));
        }
    }
    found.sort();
    Ok(found)
}

fn show(xattrs: &Attributes) -> String {
    let one = |(name, value): &(OsString, Vec<u8>)| {
        let (name, size) = (PathBuf::from(name), value.len());
        let value = value.get(..SHOWN).unwrap_or(value);
        let text = OsStr::from_bytes(value);
        format!("{}={text:?} ({size} bytes)", name.display())
    };
    format!(
        "[{}]",
        xattrs.iter().map(one).collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn pair() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for root in [&a, &b] {
            fs::create_dir_all(root.join("sub")).unwrap();
            fs::write(root.join("sub/file"), [7; 200_000]).unwrap();
            symlink("sub", root.join("link")).unwrap();
        }
        (dir, a, b)
    }

    #[test]
    fn equal_trees_have_no_differences() {
        let (_dir, a, b) = pair();
        let found = compare(&a, &b).unwrap();
        assert_eq!(
            (found.entries, found.bytes, found.different),
            (4, 200_000, 0),
            "{found:?}"
        );
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        type Change = fn(&Path);
        let cases: &[(Change, &str)] = &[
            (
                |b| fs::write(b.join("new"), b"").unwrap(),
                "/new: only in the second tree",
            ),
            (
                |b| fs::remove_file(b.join("link")).unwrap(),
                "/link: only in the first tree",
            ),
            (
                |b| {
                    let mut bytes = vec![7; 200_000];
                    bytes[150_000] = 8;
                    fs::write(b.join("sub/file"), bytes).unwrap();
                },
                "/sub/file: content differs at byte 150000",
            ),
            (
                |b| fs::write(b.join("sub/file"), b"short").unwrap(),
                "/sub/file: size 200000 and 5",
            ),
            (
                |b| fs::set_permissions(b.join("sub"), Permissions::from_mode(0o700)).unwrap(),
                "/sub: mode 40755 and 40700",
            ),
            (
                |b| {
                    fs::remove_file(b.join("link")).unwrap();
                    symlink("bus", b.join("link")).unwrap();
                },
                "/link: target sub and bus",
            ),
        ];
        for (change, wanted) in cases {
            let (_dir, a, b) = pair();
            fs::set_permissions(a.join("sub"), Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(b.join("sub"), Permissions::from_mode(0o755)).unwrap();
            change(&b);
            assert_eq!(compare(&a, &b).unwrap().differences, [*wanted]);
        }
    }
}

//! Which files of the trees the clients work on.
//!
//! Lists are made from the trees on disk, never through a mount, and are the same for every file system:
//! sorted by path, one a line, so files whose names hold a line break are in none of them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use grove_fixtures::rng::Rng;

use crate::compare::{same_content, xattrs};
use crate::error::{At, Result};
use crate::walk;

/// Up to here a file is small.
const SMALL: u64 = 64 << 10;
/// Reads at random places.
const PLACES: u64 = 500;
const PAGE: u64 = 4096;
/// Programs that are mapped, and programs that are executed.
const PROGRAMS: usize = 200;
/// Bytes of files that two commits share, to be read by both.
const SHARED: u64 = 1 << 30;
/// The loader that the clients know how to stop.
const LOADER: &[u8] = b"/ld-linux-";
/// Where a program names its loader: behind the headers.
const HEADERS: u64 = 4096;

/// Files that hold the lists.
#[derive(Debug, Clone)]
pub(super) struct Lists {
    dir: PathBuf,
}

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// Every file of at most 64 KiB.
    Small,
    /// Every file.
    Files,
    /// The largest file.
    Largest,
    /// Random places in files that are not small.
    Places,
    /// Programs to be mapped.
    Map,
    /// Programs to be executed, others than those.
    Exec,
    /// Files of the second tree that are the same in the first.
    Shared,
    /// Random places in files of the second tree that are different in the first.
    Changed,
}

impl Lists {
    pub(super) fn path(&self, list: List) -> PathBuf {
        let name = match list {
            List::Small => "small",
            List::Files => "files",
            List::Largest => "largest",
            List::Places => "places",
            List::Map => "map",
            List::Exec => "exec",
            List::Shared => "shared",
            List::Changed => "changed",
        };
        self.dir.join(name)
    }

    /// How many lines a list has.
    pub(super) fn len(&self, list: List) -> Result<usize> {
        let path = self.path(list);
        match fs::read(&path) {
            Ok(text) => Ok(text.iter().filter(|byte| **byte == b'\n').count()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).at(path),
        }
    }

    /// Makes those that are not there yet.
    pub(super) fn make(dir: &Path, tree: &Path, second: Option<&Path>) -> Result<Self> {
        let lists = Self {
            dir: dir.to_owned(),
        };
        fs::create_dir_all(dir).at(dir)?;
        if !lists.path(List::Files).exists() {
            lists.make_first(&Entry::all(tree)?)?;
        }
        if let Some(second) = second.filter(|_| !lists.path(List::Changed).exists()) {
            lists.make_second(&Entry::all(tree)?, &Entry::all(second)?)?;
        }
        Ok(lists)
    }

    fn make_first(&self, entries: &[Entry]) -> Result<()> {
        let small: Vec<&Entry> = entries.iter().filter(|entry| entry.size <= SMALL).collect();
        let large: Vec<&Entry> = entries.iter().filter(|entry| entry.size > SMALL).collect();
        self.write(List::Small, &names(&small))?;
        let largest = entries.iter().max_by_key(|entry| entry.size);
        self.write(
            List::Largest,
            &names(&largest.into_iter().collect::<Vec<_>>()),
        )?;
        self.write(List::Places, &places(&large))?;
        let (mut map, mut exec) = (Vec::new(), Vec::new());
        for entry in entries.iter().filter(|entry| entry.is_program()) {
            let list = if map.len() > exec.len() {
                &mut exec
            } else {
                &mut map
            };
            list.push(entry);
        }
        self.write(List::Map, &names(&some(&map)))?;
        self.write(List::Exec, &names(&some(&exec)))?;
        // The last one says that the others are complete.
        self.write(List::Files, &names(&entries.iter().collect::<Vec<_>>()))
    }

    fn make_second(&self, first: &[Entry], second: &[Entry]) -> Result<()> {
        let known: HashMap<&[u8], &Entry> =
            first.iter().map(|entry| (&*entry.name, entry)).collect();
        let (mut shared, mut changed, mut bytes) = (Vec::new(), Vec::new(), 0);
        for entry in second {
            let Some(old) = known.get(&*entry.name) else {
                continue;
            };
            if old.size == entry.size && same_content(&old.path, &entry.path)? {
                bytes += entry.size;
                if bytes <= SHARED && old.looks_like(entry)? {
                    shared.push(entry);
                }
            } else if entry.size > SMALL {
                changed.push(entry);
            }
        }
        self.write(List::Shared, &names(&shared))?;
        self.write(List::Changed, &places(&changed))
    }

    fn write(&self, list: List, lines: &[Vec<u8>]) -> Result<()> {
        let mut text = lines.join(&b'\n');
        if !text.is_empty() {
            text.push(b'\n');
        }
        let path = self.path(list);
        fs::write(&path, text).at(path)
    }
}

/// A regular file.
#[derive(Debug)]
struct Entry {
    /// Below the tree.
    name: Vec<u8>,
    path: PathBuf,
    size: u64,
    mode: u32,
    owner: (u32, u32),
}

impl Entry {
    /// All that can be read, sorted by name.
    fn all(tree: &Path) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        walk::walk(tree, &mut |path, meta| {
            let name = path
                .strip_prefix(tree)
                .unwrap_or(&path)
                .as_os_str()
                .as_bytes();
            if meta.is_file() && !name.contains(&b'\n') && File::open(&path).is_ok() {
                found.push(Self {
                    name: name.to_vec(),
                    size: meta.size(),
                    mode: meta.mode(),
                    owner: (meta.uid(), meta.gid()),
                    path,
                });
            }
            Ok(())
        })?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Whether both files are one in a repository, if their contents are the same.
    fn looks_like(&self, other: &Self) -> Result<bool> {
        Ok((self.mode, self.owner) == (other.mode, other.owner)
            && xattrs(&self.path)? == xattrs(&other.path)?)
    }

    /// A dynamically linked program that runs with the rights of who starts it.
    fn is_program(&self) -> bool {
        let mut head = Vec::new();
        let starts = |head: &mut Vec<u8>| {
            let file = File::open(&self.path)?;
            file.take(HEADERS).read_to_end(head)
        };
        self.mode & 0o111 != 0
            && self.mode & 0o6000 == 0
            && starts(&mut head).is_ok()
            && head.starts_with(b"\x7fELF")
            && head.windows(LOADER.len()).any(|part| part == LOADER)
    }
}

fn names(entries: &[&Entry]) -> Vec<Vec<u8>> {
    entries.iter().map(|entry| entry.name.clone()).collect()
}

/// As many as are wanted, from everywhere.
fn some<'e>(entries: &[&'e Entry]) -> Vec<&'e Entry> {
    let every = entries.len().div_ceil(PROGRAMS).max(1);
    entries.iter().step_by(every).copied().collect()
}

/// Pages that are equally likely, whatever file they are in.
fn places(entries: &[&Entry]) -> Vec<Vec<u8>> {
    let mut ends = Vec::new();
    let mut pages = 0;
    for entry in entries {
        pages += entry.size / PAGE;
        ends.push(pages);
    }
    let mut rng = Rng::named(PLACES, "places");
    let mut found = Vec::new();
    for _ in 0..PLACES.min(pages) {
        let page = rng.word() % pages;
        let at = ends.partition_point(|end| *end <= page);
        let before = at.checked_sub(1).and_then(|at| ends.get(at)).unwrap_or(&0);
        if let Some(entry) = entries.get(at) {
            let offset = format!("\t{}", (page - before) * PAGE);
            found.push([&*entry.name, offset.as_bytes()].concat());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn lists_say_what_is_small_shared_and_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        for (tree, byte) in [(&one, 1), (&two, 2)] {
            write(&tree.join("a/same"), b"same");
            write(&tree.join("a/line\nbreak"), b"");
            write(&tree.join("b/large"), &[byte; 200_000]);
            write(&tree.join("b/larger"), &[7; 300_000]);
            write(&tree.join("changed"), &[byte; 10]);
        }
        write(&two.join("new"), b"new");
        let lists = Lists::make(&dir.path().join("lists"), &one, Some(&two)).unwrap();
        let text = |list| fs::read_to_string(lists.path(list)).unwrap();
        assert_eq!(text(List::Small), "a/same\nchanged\n");
        assert_eq!(text(List::Files), "a/same\nb/large\nb/larger\nchanged\n");
        assert_eq!(text(List::Largest), "b/larger\n");
        assert_eq!(text(List::Shared), "a/same\nb/larger\n");
        assert_eq!(lists.len(List::Exec).unwrap(), 0);
        let (places, changed) = (text(List::Places), text(List::Changed));
        // 48 pages of one file and 73 of the other.
        assert_eq!(places.lines().count(), 48 + 73);
        assert!(places.contains("b/large\t") && places.contains("b/larger\t"));
        assert!(changed.lines().all(|line| line.starts_with("b/large\t")));
        for line in places.lines().chain(changed.lines()) {
            let (name, offset) = line.split_once('\t').unwrap();
            let size = fs::metadata(one.join(name)).unwrap().size();
            assert!(offset.parse::<u64>().unwrap() + PAGE <= size, "{line}");
        }
    }
}

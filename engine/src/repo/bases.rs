//! Finds the older version of a file: what a delta is made against.
//!
//! The path is a nearly perfect predictor: the file at the same path in the parent commit. Where
//! there is none, numbers in names are versions, so a file whose path, or else whose base name, is
//! the same but for numbers takes its place (`usr/lib/modules/6.1.0-47/...`, `libz.so.1.2.13`).
//! What names do not tell, [`Alike`] finds by contents.
//! Nothing here fails: what cannot be read is no base.

use std::collections::HashMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::Repository;
use super::alike::Alike;
use super::ingest::NewPayload;
use crate::id::ObjectId;
use crate::object::Dirtree;
use crate::pack::recipe::Piece;

/// Directory listings kept; files come in path order, so few are needed at a time.
const LISTINGS: usize = 1024;

/// The files of a commit, to be found by path or by likeness of names or contents.
#[derive(Debug)]
pub(crate) struct Bases {
    tree: ObjectId,
    listings: HashMap<ObjectId, Arc<Dirtree>>,
    names: Option<Names>,
    alike: Alike,
}

/// Files by what is left of their names without numbers; a million take about 70 MiB.
#[derive(Debug, Default)]
struct Names {
    files: Vec<Piece>,
    /// Hash of the name and position in `files`, sorted.
    paths: Vec<(u64, u32)>,
    base_names: Vec<(u64, u32)>,
}

impl Bases {
    /// The files of a commit, given its tree.
    pub(crate) fn new(tree: ObjectId) -> Self {
        Self {
            tree,
            listings: HashMap::new(),
            names: None,
            alike: Alike::default(),
        }
    }

    /// Notes the paths of an input before its files come.
    pub(super) fn announce(&mut self, paths: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        self.alike.set_announced();
        for path in paths {
            self.note_path(path.as_ref());
        }
    }

    /// Notes a path at which the new tree has a file.
    pub(super) fn note_path(&mut self, path: &[u8]) {
        self.alike.note_path(path);
        if path.starts_with(b"etc/") {
            self.alike.note_path(&[b"usr/", path].concat());
        }
    }

    /// The payload that a new file at this path, of this size, most likely came from.
    pub(crate) fn find(&mut self, repo: &Repository, path: &[u8], size: u64) -> Option<Piece> {
        let path = std::str::from_utf8(path).ok()?.trim_start_matches('/');
        if let Some(found) = self.at_path(repo, path) {
            return Some(found);
        }
        // Composing moves the configuration that packages bring.
        if path.starts_with("etc/")
            && let Some(found) = self.at_path(repo, &format!("usr/{path}"))
        {
            return Some(found);
        }
        self.names(repo).find(path, size)
    }

    /// The payloads that new ones, for which names lead nowhere, most likely came from.
    pub(super) fn find_alike(
        &mut self,
        repo: &Repository,
        new: &[&NewPayload],
    ) -> Vec<Option<Piece>> {
        self.names(repo);
        self.alike.find(repo.store(), new)
    }

    /// The names; the first call reads the whole tree.
    fn names(&mut self, repo: &Repository) -> &Names {
        self.names.get_or_insert_with(|| {
            let mut names = Names::default();
            each_file(repo, &self.tree, |path, payload| {
                names.add(path, payload);
                self.alike.add(path, payload);
            });
            names.sort();
            self.alike.sort();
            names
        })
    }

    fn at_path(&mut self, repo: &Repository, path: &str) -> Option<Piece> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut listing = self.listing(repo, &self.tree.clone())?;
        for part in dir.split('/').filter(|part| !part.is_empty()) {
            listing = self.listing(repo, &listing.dir(part)?.tree)?;
        }
        payload_of(repo, listing.file(name)?)
    }

    fn listing(&mut self, repo: &Repository, id: &ObjectId) -> Option<Arc<Dirtree>> {
        if let Some(listing) = self.listings.get(id) {
            return Some(Arc::clone(listing));
        }
        if self.listings.len() >= LISTINGS {
            self.listings.clear();
        }
        let listing = repo.dirtree(id).ok()?;
        self.listings.insert(*id, Arc::clone(&listing));
        Some(listing)
    }
}

fn payload_of(repo: &Repository, id: &ObjectId) -> Option<Piece> {
    let file = repo.file(id).ok()?;
    Some(Piece {
        id: file.payload?,
        size: file.size,
    })
}

/// Visits the files of a tree that have a payload; what cannot be read is left out.
fn each_file(repo: &Repository, tree: &ObjectId, mut visit: impl FnMut(&str, Piece)) {
    let mut todo = vec![(*tree, String::new(), 0)];
    while let Some((id, path, depth)) = todo.pop() {
        let Ok(listing) = repo.dirtree(&id) else {
            continue;
        };
        for (name, file) in &listing.files {
            if let Some(payload) = payload_of(repo, file) {
                visit(&format!("{path}{name}"), payload);
            }
        }
        if depth < crate::tree::MAX_DEPTH {
            let below = |name: &str| format!("{path}{name}/");
            todo.extend(
                listing
                    .dirs
                    .iter()
                    .map(|d| (d.tree, below(&d.name), depth + 1)),
            );
        }
    }
}

impl Names {
    fn add(&mut self, path: &str, payload: Piece) {
        let Ok(n) = u32::try_from(self.files.len()) else {
            return;
        };
        self.files.push(payload);
        self.paths.push((unnumbered(path), n));
        self.base_names.push((unnumbered(base_name(path)), n));
    }

    /// To be called when all files are added.
    fn sort(&mut self) {
        self.paths.sort_unstable();
        self.base_names.sort_unstable();
    }

    /// A file with the same path but for numbers, else with the same base name but for numbers;
    /// of several the one closest in size, which must be within a factor of two.
    fn find(&self, path: &str, size: u64) -> Option<Piece> {
        self.closest(&self.paths, unnumbered(path), size)
            .or_else(|| self.closest(&self.base_names, unnumbered(base_name(path)), size))
    }

    fn closest(&self, table: &[(u64, u32)], name: u64, size: u64) -> Option<Piece> {
        let first = table.partition_point(|row| row.0 < name);
        table[first..]
            .iter()
            .take_while(|row| row.0 == name)
            .map(|row| self.files[row.1 as usize])
            .filter(|file| file.size / 2 <= size && size / 2 <= file.size)
            .min_by_key(|file| (file.size.abs_diff(size), file.id))
    }
}

pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Hash of a name in which every version number counts as the same.
pub(crate) fn unnumbered(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    for (n, byte) in bytes.iter().enumerate() {
        let in_number = out.last() == Some(&b'0');
        let next_is_digit = bytes.get(n + 1).is_some_and(u8::is_ascii_digit);
        match byte {
            b'0'..=b'9' if in_number => {}
            b'0'..=b'9' => out.push(b'0'),
            b'.' if in_number && next_is_digit => {}
            other => out.push(*other),
        }
    }
    xxh3_64(&out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PayloadId;

    fn piece(name: &str, size: u64) -> Piece {
        Piece {
            id: PayloadId::of(name.as_bytes()),
            size,
        }
    }

    fn names(files: &[(&str, u64)]) -> Names {
        let mut names = Names::default();
        for (path, size) in files {
            names.add(path, piece(path, *size));
        }
        names.sort();
        names
    }

    #[test]
    fn versions_in_directories_and_names_do_not_matter() {
        let old = "usr/lib/modules/6.1.0-47-amd64/kernel/fs/ext4/ext4.ko";
        let names = names(&[
            (old, 1000),
            ("usr/lib/debug/6.1.0-47-amd64/ext4.ko", 1001),
            ("usr/lib/libz.so.1.2.13", 100),
            ("usr/lib/python3.11/os.py", 40),
        ]);
        for (new, size, expected) in [
            (
                "usr/lib/modules/6.1.0-50-amd64/kernel/fs/ext4/ext4.ko",
                1001,
                Some(old),
            ),
            ("usr/lib/libz.so.1.3", 120, Some("usr/lib/libz.so.1.2.13")),
            ("usr/lib/libz.so", 120, None),
            (
                "usr/lib/libz.so.1.2.14",
                120,
                Some("usr/lib/libz.so.1.2.13"),
            ),
            (
                "usr/lib64/libz.so.1.2.14",
                120,
                Some("usr/lib/libz.so.1.2.13"),
            ),
            (
                "usr/lib/python3.12/os.py",
                41,
                Some("usr/lib/python3.11/os.py"),
            ),
            ("usr/lib/python3.12/os.py", 400, None),
            ("usr/lib/elsewhere", 40, None),
        ] {
            let found = names.find(new, size).map(|file| file.id);
            assert_eq!(found, expected.map(|p| piece(p, 0).id), "{new}");
        }
    }
}

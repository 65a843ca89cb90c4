//! A tree under construction, as one or several inputs overlay each other.

use std::collections::BTreeMap;

use crate::Repository;
use crate::error::{Error, Result};
use crate::id::{ObjectId, PayloadId};
use crate::object::{DirEntry, DirMeta, Dirtree, FileHeader};
use crate::repo::Transaction;

/// Deeper trees are refused: no real system has them, and they exhaust the stack of readers.
pub const MAX_DEPTH: usize = 512;

/// A file as it stands in a tree under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Name of the file object.
    pub id: ObjectId,
    /// What the store needs to write the file's record; `None` when the record is known to be
    /// stored already.
    pub new: Option<Box<NewRecord>>,
}

/// Contents of a file record that is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Metadata.
    pub header: FileHeader,
    /// Payload size in bytes.
    pub size: u64,
    /// Payload name; `None` for symbolic links and empty files.
    pub payload: Option<PayloadId>,
}

/// A directory under construction.
#[derive(Debug, Clone, Default)]
pub struct MutableTree {
    /// Metadata; a directory that never got any is an error when the tree is written.
    pub meta: Option<DirMeta>,
    /// Files and symbolic links by name.
    pub files: BTreeMap<String, FileEntry>,
    /// Subdirectories by name.
    pub dirs: BTreeMap<String, Subtree>,
}

/// A subdirectory: as stored already, or under construction.
#[derive(Debug, Clone)]
pub enum Subtree {
    /// Unchanged from a stored commit.
    Stored {
        /// Listing.
        tree: ObjectId,
        /// Metadata.
        meta: ObjectId,
    },
    /// Under construction.
    Mutable(Box<MutableTree>),
}

impl MutableTree {
    /// A tree as it stands in the repository, to be changed.
    pub fn load(repo: &Repository, tree: &ObjectId, meta: &ObjectId) -> Result<Self> {
        let listing = repo.dirtree(tree)?;
        let files = listing.files.iter();
        let dirs = listing.dirs.iter();
        Ok(Self {
            meta: Some((*repo.dirmeta(meta)?).clone()),
            files: files
                .map(|(n, id)| (n.clone(), FileEntry { id: *id, new: None }))
                .collect(),
            dirs: dirs
                .map(|d| {
                    (
                        d.name.clone(),
                        Subtree::Stored {
                            tree: d.tree,
                            meta: d.meta,
                        },
                    )
                })
                .collect(),
        })
    }

    /// The subdirectory of this name, made (without metadata) where missing, loaded where stored.
    /// Fails where a file stands in its place.
    pub fn ensure_child(&mut self, repo: &Repository, name: &str) -> Result<&mut Self> {
        check_name(name)?;
        if self.files.contains_key(name) {
            return Err(Error::UnsupportedInput {
                path: name.to_owned(),
                reason: DIR_OVER_FILE.to_owned(),
            });
        }
        let child = self
            .dirs
            .entry(name.to_owned())
            .or_insert_with(|| Subtree::Mutable(Box::default()));
        if let Subtree::Stored { tree, meta } = child {
            *child = Subtree::Mutable(Box::new(Self::load(repo, tree, meta)?));
        }
        match child {
            Subtree::Mutable(tree) => Ok(tree),
            Subtree::Stored { .. } => unreachable!("it was just loaded"),
        }
    }

    /// The directory at a `/`-separated relative path, made (without metadata) where missing.
    /// Fails where a file stands in the way.
    pub fn ensure_dir(&mut self, repo: &Repository, path: &str) -> Result<&mut Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        check_depth(path, parts.len())?;
        parts
            .into_iter()
            .try_fold(self, |dir, part| dir.ensure_child(repo, part))
            .map_err(in_path(path))
    }

    /// Puts a file into this directory, replacing one of the same name; fails where a directory
    /// stands in its place.
    pub fn put_file(&mut self, name: &str, file: FileEntry) -> Result<()> {
        check_name(name)?;
        if self.dirs.contains_key(name) {
            return Err(Error::UnsupportedInput {
                path: name.to_owned(),
                reason: "a file cannot replace a directory".to_owned(),
            });
        }
        self.files.insert(name.to_owned(), file);
        Ok(())
    }

    /// Lays a stored tree over this one, as `ostree commit --tree=ref=` does: its files replace,
    /// its directories merge and bring their metadata.
    pub fn overlay(&mut self, repo: &Repository, tree: &ObjectId, meta: &ObjectId) -> Result<()> {
        self.overlay_at(repo, tree, meta, "", 0)
    }

    fn overlay_at(
        &mut self,
        repo: &Repository,
        tree: &ObjectId,
        meta: &ObjectId,
        path: &str,
        depth: usize,
    ) -> Result<()> {
        check_depth(path, depth)?;
        self.meta = Some((*repo.dirmeta(meta)?).clone());
        let listing = repo.dirtree(tree)?;
        for (name, id) in &listing.files {
            self.put_file(name, FileEntry { id: *id, new: None })
                .map_err(in_path(path))?;
        }
        for DirEntry { name, tree, meta } in &listing.dirs {
            if !self.dirs.contains_key(name) && !self.files.contains_key(name) {
                self.dirs.insert(
                    name.clone(),
                    Subtree::Stored {
                        tree: *tree,
                        meta: *meta,
                    },
                );
                continue;
            }
            let child = self.ensure_child(repo, name).map_err(in_path(path))?;
            child.overlay_at(repo, tree, meta, &format!("{path}/{name}"), depth + 1)?;
        }
        Ok(())
    }

    /// Writes what is not stored yet, children first.
    pub(crate) fn write(&self, txn: &mut Transaction<'_>) -> Result<(ObjectId, ObjectId)> {
        self.write_at(txn, "", 0)
    }

    fn write_at(
        &self,
        txn: &mut Transaction<'_>,
        path: &str,
        depth: usize,
    ) -> Result<(ObjectId, ObjectId)> {
        check_depth(path, depth)?;
        let meta = self.meta.as_ref().ok_or_else(|| Error::UnsupportedInput {
            path: if path.is_empty() {
                "/".to_owned()
            } else {
                path.to_owned()
            },
            reason: "directory without owner and mode: no input describes it".to_owned(),
        })?;
        let mut listing = Dirtree::default();
        for (name, file) in &self.files {
            txn.put_listed_file(file)?;
            listing.files.push((name.clone(), file.id));
        }
        for (name, child) in &self.dirs {
            let (tree, meta) = match child {
                Subtree::Stored { tree, meta } => (*tree, *meta),
                Subtree::Mutable(child) => {
                    child.write_at(txn, &format!("{path}/{name}"), depth + 1)?
                }
            };
            listing.dirs.push(DirEntry {
                name: name.clone(),
                tree,
                meta,
            });
        }
        txn.advance_tree((listing.files.len() + listing.dirs.len()) as u64);
        let meta = txn.put_dirmeta(meta)?;
        Ok((txn.put_dirtree(&listing)?, meta))
    }

    /// Number of entries of the directories that are yet to be written, down to the deepest that can
    /// be.
    pub(crate) fn entries(&self, depth: usize) -> u64 {
        if depth > MAX_DEPTH {
            return 0;
        }
        let below = self.dirs.values().map(|child| match child {
            Subtree::Stored { .. } => 0,
            Subtree::Mutable(child) => child.entries(depth + 1),
        });
        (self.files.len() + self.dirs.len()) as u64 + below.sum::<u64>()
    }
}

/// Refuses names that no directory entry can have.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']);
    if bad {
        let reason = "not a valid file name".to_owned();
        return Err(Error::UnsupportedInput {
            path: name.to_owned(),
            reason,
        });
    }
    Ok(())
}

/// Bytes of a path that are remembered of a tree that is not to be trusted.
const MAX_HINT: usize = 1024;

/// The path of an entry of a tree that is not to be trusted. Of a very long one only the end is kept:
/// else a small tree of long names would be a large one in memory.
pub(crate) fn path_hint(above: &str, name: &str) -> String {
    let cut = above.len().saturating_sub(MAX_HINT);
    let end = (cut..above.len()).find(|at| above.is_char_boundary(*at));
    let end = end.map_or("", |at| &above[at..]);
    format!("{end}{name}")
}

pub(crate) fn check_depth(path: &str, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        let path = path.chars().take(80).chain("...".chars()).collect();
        let reason = format!("nested deeper than {MAX_DEPTH} directories");
        return Err(Error::UnsupportedInput { path, reason });
    }
    Ok(())
}

/// Completes the name in an error to the path that it is about: an entry of `dir`, or `dir` itself
/// where that was what could not be entered.
pub(crate) fn in_path(dir: &str) -> impl Fn(Error) -> Error + '_ {
    move |error| match error {
        Error::UnsupportedInput { path, reason } => {
            let is_dir = dir.rsplit('/').next() == Some(path.as_str()) && reason == DIR_OVER_FILE;
            let path = match (is_dir, dir.is_empty()) {
                (true, _) => dir.to_owned(),
                (false, true) => path,
                (false, false) => format!("{dir}/{path}"),
            };
            Error::UnsupportedInput { path, reason }
        }
        other => other,
    }
}

const DIR_OVER_FILE: &str = "a directory cannot replace a file";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_very_long_path_the_end_is_remembered() {
        assert_eq!(path_hint("", "a"), "a");
        assert_eq!(path_hint("usr/bin/", "sh"), "usr/bin/sh");
        // Of two bytes each.
        let above = "\u{e9}".repeat(3 * MAX_HINT) + "/";
        let hint = path_hint(&above, "sh");
        assert!(hint.ends_with("\u{e9}/sh"), "{hint}");
        assert!((MAX_HINT - 2..=MAX_HINT + 2).contains(&hint.len()));
    }
}

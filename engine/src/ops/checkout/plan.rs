//! What a checkout is to write: directories, and the entries of each.
//!
//! Memory grows with the number of entries, not with what is in them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::beneath::split;
use super::update::Compared;
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::{DirMeta, Dirtree, FileObject, Xattrs};
use crate::ops::diff::ChangeKind;
use crate::ops::ls::Node;
use crate::repo::Repository;
use crate::tree::check_depth;

/// Directories, those above before those below, and the file objects that they name.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub dirs: Vec<DirRow>,
    pub objects: Vec<FileObject>,
    numbers: HashMap<ObjectId, u32>,
    metas: HashMap<ObjectId, Arc<DirMeta>>,
}

/// A directory in which something is to be written.
#[derive(Debug)]
pub(super) struct DirRow {
    /// From the destination, without leading `/`; the destination itself is empty.
    pub path: String,
    pub depth: usize,
    /// Whether it is new: what else has its name gives way.
    pub make: bool,
    /// Set when everything in it is written.
    pub meta: Option<Arc<DirMeta>>,
    /// Extended attributes that it may have from an older commit, and shall not have.
    pub stale_xattrs: Vec<Vec<u8>>,
    /// Names, and positions in [`Plan::objects`].
    pub files: Vec<(String, u32)>,
}

/// A regular file or link to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    /// Position in [`Plan::dirs`].
    pub dir: u32,
    /// Position in [`DirRow::files`].
    pub file: u32,
}

impl DirRow {
    fn new(path: String) -> Self {
        Self {
            depth: if path.is_empty() {
                0
            } else {
                1 + path.matches('/').count()
            },
            path,
            make: false,
            meta: None,
            stale_xattrs: Vec::new(),
            files: Vec::new(),
        }
    }

    pub fn child(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.path)
        }
    }
}

impl Plan {
    /// Everything below a directory of a commit.
    pub fn of_tree(
        repo: &Repository,
        tree: ObjectId,
        meta: ObjectId,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let mut plan = Self::default();
        let mut ids = Vec::new();
        let mut root = DirRow::new(String::new());
        root.meta = Some(plan.meta(repo, &meta, "/")?);
        plan.dirs.push(root);
        let mut trees = vec![tree];
        let mut at = 0;
        while let Some(tree) = trees.get(at).copied() {
            if monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let path = format!("/{}", plan.dirs[at].path);
            check_depth(&path, plan.dirs[at].depth)?;
            let listing = repo.dirtree(&tree);
            let listing = listing.map_err(|e| e.hitting(&path, ObjectKind::Dirtree, &tree))?;
            for entry in &listing.dirs {
                let mut dir = DirRow::new(plan.dirs[at].child(&entry.name));
                dir.make = true;
                dir.meta = Some(plan.meta(repo, &entry.meta, &format!("/{}", dir.path))?);
                plan.dirs.push(dir);
                trees.push(entry.tree);
            }
            monitor.advance(Phase::Scan, listing.files.len() as u64);
            let files = listing.files.iter();
            plan.dirs[at].files = files
                .map(|(name, id)| (name.clone(), plan.numbers.number(*id, &mut ids)))
                .collect();
            at += 1;
        }
        plan.load(repo, &ids)?;
        Ok(plan)
    }

    /// What comparisons say is new or different in their second tree, the directory `root`, and the
    /// directories that have got or lost entries.
    pub fn of_changes(repo: &Repository, root: Node, compared: &[Compared]) -> Result<Self> {
        let mut plan = Self::default();
        let mut ids = Vec::new();
        let mut listings = Listings::new(repo, root);
        let mut dirs: BTreeMap<String, DirRow> = BTreeMap::new();
        let mut no_dirs: HashSet<String> = HashSet::new();
        // The root's own metadata is set whatever changed below it.
        row(&mut dirs, "");
        let changes = compared.iter().enumerate();
        let changes =
            changes.flat_map(|(at, one)| one.report.iter().map(move |change| (at, change)));
        let mut olds: Vec<Listings<'_>> = compared
            .iter()
            .map(|one| Listings::new(repo, one.old))
            .collect();
        for (at, change) in changes {
            let path = change.path.trim_start_matches('/');
            let (above, name) = split(path);
            let mut up = above;
            while !up.is_empty() {
                row(&mut dirs, up);
                up = split(up).0;
            }
            let above = row(&mut dirs, above);
            if change.kind == ChangeKind::Removed {
                no_dirs.insert(path.to_owned());
                continue;
            }
            match listings.get(path)? {
                Node::File(id) => {
                    above
                        .files
                        .push((name.to_owned(), plan.numbers.number(id, &mut ids)));
                    no_dirs.insert(path.to_owned());
                }
                Node::Dir { meta, .. } => {
                    let dir = row(&mut dirs, path);
                    dir.make |= !matches!(olds[at].find(path)?, Some(Node::Dir { .. }));
                    dir.meta = Some(plan.meta(repo, &meta, &change.path)?);
                }
            }
        }
        let dirs = dirs
            .into_values()
            .filter(|dir| !no_dirs.contains(&dir.path));
        for mut dir in dirs {
            let path = format!("/{}", dir.path);
            let Node::Dir { meta: new, .. } = listings.get(&dir.path)? else {
                continue;
            };
            let meta = plan.meta(repo, &new, &path)?;
            for listings in &mut olds {
                if let Some(Node::Dir { meta: old, .. }) = listings.find(&dir.path)?
                    && old != new
                {
                    let old = plan.meta(repo, &old, &path)?;
                    dir.stale_xattrs.extend(only_in(&old.xattrs, &meta.xattrs));
                }
            }
            dir.meta = Some(meta);
            // Several comparisons may name the same entry.
            dir.files.sort_unstable();
            dir.files.dedup();
            plan.dirs.push(dir);
        }
        plan.dirs.sort_by_key(|dir| dir.depth);
        plan.load(repo, &ids)?;
        Ok(plan)
    }

    /// A single file or link in the destination.
    pub fn of_file(repo: &Repository, id: ObjectId, name: &str) -> Result<Self> {
        let mut plan = Self::default();
        let mut root = DirRow::new(String::new());
        root.files.push((name.to_owned(), 0));
        plan.dirs.push(root);
        plan.load(repo, &[id])?;
        Ok(plan)
    }

    fn meta(&mut self, repo: &Repository, id: &ObjectId, path: &str) -> Result<Arc<DirMeta>> {
        if let Some(meta) = self.metas.get(id) {
            return Ok(Arc::clone(meta));
        }
        let meta = repo
            .dirmeta(id)
            .map_err(|e| e.hitting(path, ObjectKind::Dirmeta, id))?;
        self.metas.insert(*id, Arc::clone(&meta));
        Ok(meta)
    }

    fn load(&mut self, repo: &Repository, ids: &[ObjectId]) -> Result<()> {
        let objects: Result<Vec<FileObject>, (usize, Error)> = repo
            .files(ids)
            .into_iter()
            .enumerate()
            .map(|(at, file)| file.map_err(|error| (at, error)))
            .collect();
        self.objects = objects.map_err(|(at, error)| {
            let dirs = self.dirs.iter();
            let mut files = dirs.flat_map(|dir| dir.files.iter().map(move |file| (dir, file)));
            let place = files.find(|(_, (_, number))| *number as usize == at);
            let path = place.map(|(dir, (name, _))| format!("/{}", dir.child(name)));
            error.hitting(&path.unwrap_or_default(), ObjectKind::File, &ids[at])
        })?;
        Ok(())
    }

    /// Every file and link.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let dirs = self.dirs.iter().enumerate();
        dirs.flat_map(|(dir, row)| {
            (0..row.files.len()).map(move |file| Row {
                dir: dir as u32,
                file: file as u32,
            })
        })
    }

    pub fn object(&self, row: Row) -> &FileObject {
        let (_, number) = self.dirs[row.dir as usize].files[row.file as usize];
        &self.objects[number as usize]
    }

    /// In its directory.
    pub fn name(&self, row: Row) -> &str {
        &self.dirs[row.dir as usize].files[row.file as usize].0
    }

    /// From the destination, without leading `/`.
    pub fn path(&self, row: Row) -> String {
        let dir = &self.dirs[row.dir as usize];
        dir.child(&dir.files[row.file as usize].0)
    }
}

/// The directories of a tree by path, each read once: many changes lie in one directory.
struct Listings<'r> {
    repo: &'r Repository,
    root: Node,
    /// `None` for what is no directory.
    known: HashMap<String, Option<Arc<Dirtree>>>,
}

impl<'r> Listings<'r> {
    fn new(repo: &'r Repository, root: Node) -> Self {
        Self {
            repo,
            root,
            known: HashMap::new(),
        }
    }

    /// What is at a path, which has no leading `/`.
    fn get(&mut self, path: &str) -> Result<Node> {
        self.find(path)?.ok_or_else(|| Error::PathNotFound {
            path: format!("/{path}"),
        })
    }

    fn find(&mut self, path: &str) -> Result<Option<Node>> {
        if path.is_empty() {
            return Ok(Some(self.root));
        }
        let (above, name) = split(path);
        let Some(listing) = self.listing(above)? else {
            return Ok(None);
        };
        Ok(match (listing.dir(name), listing.file(name)) {
            (Some(dir), _) => Some(Node::Dir {
                tree: dir.tree,
                meta: dir.meta,
            }),
            (None, file) => file.copied().map(Node::File),
        })
    }

    fn listing(&mut self, path: &str) -> Result<Option<Arc<Dirtree>>> {
        if let Some(known) = self.known.get(path) {
            return Ok(known.clone());
        }
        let listing = match self.find(path)? {
            Some(Node::Dir { tree, .. }) => {
                let listing = self.repo.dirtree(&tree);
                let path = format!("/{path}");
                Some(listing.map_err(|e| e.hitting(&path, ObjectKind::Dirtree, &tree))?)
            }
            _ => None,
        };
        self.known.insert(path.to_owned(), listing.clone());
        Ok(listing)
    }
}

/// Names of attributes that only the first of two sets has.
fn only_in(old: &Xattrs, new: &Xattrs) -> Vec<Vec<u8>> {
    let kept: HashSet<&[u8]> = new.iter().map(|(name, _)| name).collect();
    let gone = old.iter().filter(|(name, _)| !kept.contains(name));
    gone.map(|(name, _)| name.to_vec()).collect()
}

fn row<'d>(dirs: &'d mut BTreeMap<String, DirRow>, path: &str) -> &'d mut DirRow {
    dirs.entry(path.to_owned())
        .or_insert_with(|| DirRow::new(path.to_owned()))
}

/// Gives each object a number.
trait Number {
    fn number(&mut self, id: ObjectId, ids: &mut Vec<ObjectId>) -> u32;
}

impl Number for HashMap<ObjectId, u32> {
    fn number(&mut self, id: ObjectId, ids: &mut Vec<ObjectId>) -> u32 {
        *self.entry(id).or_insert_with(|| {
            ids.push(id);
            ids.len() as u32 - 1
        })
    }
}

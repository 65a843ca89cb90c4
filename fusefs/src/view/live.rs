//! The directories above the commits, which change while they are mounted.
//!
//! Their modification time is that of the last change noticed: the kernel drops its copy of a
//! listing when it differs. Offsets in their listings are derived from the names, so a listing in
//! several steps misses nothing that was there all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use grove_engine::{Error as EngineError, ObjectId};

use super::attr::{S_IFDIR, dir_attr, link_entry, placeholder};
use super::{
    Attr, Entry, Item, Lifetime, Result, Source, View, ViewError, join, object_error,
    repository_error,
};
use crate::inode::{DirKind, cookie};

const COMMITS: &str = "commits";
const REFS: &str = "refs";

type RefMap = BTreeMap<String, ObjectId>;

/// What was last seen of refs and commits, and when that was news.
#[derive(Debug, Default)]
pub(super) struct Live {
    refs: Mutex<Seen<RefMap>>,
    commits: Mutex<Seen<Vec<ObjectId>>>,
}

#[derive(Debug)]
struct Seen<T> {
    value: Arc<T>,
    changed: SystemTime,
}

impl<T: Default> Default for Seen<T> {
    fn default() -> Self {
        Self {
            value: Arc::default(),
            changed: SystemTime::now(),
        }
    }
}

impl<T: PartialEq> Seen<T> {
    fn update(seen: &Mutex<Self>, value: T) -> (Arc<T>, SystemTime) {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen.value != value {
            seen.value = Arc::new(value);
            seen.changed = SystemTime::now().max(seen.changed + Duration::from_nanos(1));
        }
        (Arc::clone(&seen.value), seen.changed)
    }
}

/// An entry of a directory above the commits.
#[derive(Debug)]
enum LiveChild {
    /// A directory above the commits, last changed at some time.
    Dir(DirKind, SystemTime),
    /// A ref: where its link leads.
    Ref(String),
    /// A commit.
    Commit(ObjectId),
}

impl<S: Source> View<S> {
    pub(super) fn live_attr(&self, number: u64, kind: &DirKind) -> Result<Entry> {
        match kind {
            DirKind::Commits => Ok(live_dir(number, self.commits()?.1)),
            DirKind::Refs(prefix) => {
                let (refs, changed) = self.refs()?;
                match prefix.is_empty() || has_below(&refs, prefix) {
                    true => Ok(live_dir(number, changed)),
                    false => Err(ViewError::NotFound),
                }
            }
            DirKind::Top | DirKind::Tree { .. } => {
                let attr = dir_attr(number, S_IFDIR | 0o755);
                Ok(Entry {
                    attr,
                    lifetime: Lifetime::Forever,
                })
            }
        }
    }

    pub(super) fn live_child(
        &self,
        parent: u64,
        kind: &DirKind,
        name: &str,
    ) -> Result<Option<Entry>> {
        let child = match kind {
            DirKind::Commits => name.parse().ok().map(LiveChild::Commit),
            DirKind::Refs(prefix) => {
                let (refs, changed) = self.refs()?;
                ref_child(&refs, changed, prefix, name)
            }
            kind => self.live_children(kind)?.remove(name),
        };
        child.map_or(Ok(None), |child| self.live_entry(parent, name, child))
    }

    pub(super) fn list_live(
        &self,
        number: u64,
        kind: &DirKind,
        offset: u64,
        full: &mut dyn FnMut(&Item<'_>) -> bool,
    ) -> Result<()> {
        let mut children: Vec<_> = self
            .live_children(kind)?
            .into_iter()
            .map(|(name, child)| (cookie(&name) + 1, name, child))
            .filter(|(next, ..)| *next > offset)
            .collect();
        children.sort_unstable_by_key(|(next, ..)| *next);
        for (next, name, child) in children {
            let (entry, damage) = match self.live_entry(number, &name, child) {
                Ok(Some(entry)) => (entry, None),
                Ok(None) => continue,
                Err(damage) => (self.damaged_commit(number, &name), Some(damage)),
            };
            if full(&Item {
                name: &name,
                next,
                entry,
                damage,
            }) {
                break;
            }
        }
        Ok(())
    }

    /// Everything in a directory above the commits.
    fn live_children(&self, kind: &DirKind) -> Result<BTreeMap<String, LiveChild>> {
        match kind {
            DirKind::Top => {
                let commits = LiveChild::Dir(DirKind::Commits, self.commits()?.1);
                let refs = LiveChild::Dir(DirKind::Refs("".into()), self.refs()?.1);
                Ok([(COMMITS.to_owned(), commits), (REFS.to_owned(), refs)].into())
            }
            DirKind::Commits => {
                let (commits, _) = self.commits()?;
                Ok(commits
                    .iter()
                    .map(|id| (id.to_string(), LiveChild::Commit(*id)))
                    .collect())
            }
            DirKind::Refs(prefix) => {
                let (refs, changed) = self.refs()?;
                let names = names_below(&refs, prefix).into_iter();
                let child = |name: &str| ref_child(&refs, changed, prefix, name);
                Ok(names
                    .filter_map(|name| Some((name.to_owned(), child(name)?)))
                    .collect())
            }
            DirKind::Tree { .. } => Ok(BTreeMap::new()),
        }
    }

    fn live_entry(&self, parent: u64, name: &str, child: LiveChild) -> Result<Option<Entry>> {
        match child {
            LiveChild::Dir(kind, changed) => {
                Ok(Some(live_dir(self.inodes.dir(parent, name, kind), changed)))
            }
            LiveChild::Ref(target) => {
                let number = self.inodes.ref_link(&target);
                Ok(Some(link_entry(number, &target, Lifetime::Short)))
            }
            LiveChild::Commit(id) => self.commit_entry(parent, &id),
        }
    }

    fn commit_entry(&self, parent: u64, id: &ObjectId) -> Result<Option<Entry>> {
        let commit = match self.source.commit(id) {
            Ok(commit) => commit,
            Err(EngineError::MissingObject { .. } | EngineError::RevNotFound { .. }) => {
                return Ok(None);
            }
            Err(source) => {
                let path = format!("{COMMITS}/{id}");
                return Err(object_error(path, "commit", *id, source));
            }
        };
        let kind = DirKind::Tree {
            tree: commit.tree,
            meta: commit.meta,
        };
        let number = self.inodes.dir(parent, &id.to_string(), kind);
        let entry = self.tree_attr(number, &commit.meta)?;
        Ok(Some(Entry {
            lifetime: Lifetime::Short,
            ..entry
        }))
    }

    /// Stands in a listing for a commit that cannot be read: a lookup tells the error.
    fn damaged_commit(&self, parent: u64, name: &str) -> Entry {
        let unknown = ObjectId::from_bytes([0; ObjectId::LEN]);
        let kind = DirKind::Tree {
            tree: unknown,
            meta: unknown,
        };
        placeholder(self.inodes.dir(parent, name, kind), S_IFDIR)
    }

    fn refs(&self) -> Result<(Arc<RefMap>, SystemTime)> {
        let refs = self.source.refs();
        let refs = refs.map_err(|source| repository_error("refs", source))?;
        Ok(Seen::update(&self.live.refs, refs.map))
    }

    fn commits(&self) -> Result<(Arc<Vec<ObjectId>>, SystemTime)> {
        let commits = self.source.commits();
        let commits = commits.map_err(|source| repository_error("commits", source))?;
        Ok(Seen::update(&self.live.commits, commits))
    }
}

fn live_dir(number: u64, changed: SystemTime) -> Entry {
    let attr = Attr {
        mtime: changed,
        ..dir_attr(number, S_IFDIR | 0o755)
    };
    Entry {
        attr,
        lifetime: Lifetime::Short,
    }
}

/// What a name in a directory of refs stands for.
fn ref_child(refs: &RefMap, changed: SystemTime, dir: &str, name: &str) -> Option<LiveChild> {
    let full = join(dir, name);
    if has_below(refs, &full) {
        return Some(LiveChild::Dir(DirKind::Refs(full.into()), changed));
    }
    let up = "../".repeat(full.split('/').count());
    refs.get(&full)
        .map(|id| LiveChild::Ref(format!("{up}{COMMITS}/{id}")))
}

/// Whether there are refs in the directory of this name.
fn has_below(refs: &RefMap, dir: &str) -> bool {
    below(refs, dir).next().is_some()
}

/// Names of the refs in the directory of this name, without the directory's.
fn below<'a>(refs: &'a RefMap, dir: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let prefix = if dir.is_empty() {
        String::new()
    } else {
        format!("{dir}/")
    };
    refs.range(prefix.clone()..)
        .map_while(move |(name, _)| name.strip_prefix(prefix.as_str()))
}

/// First components of the names in a directory of refs, each once.
fn names_below<'a>(refs: &'a RefMap, dir: &str) -> BTreeSet<&'a str> {
    below(refs, dir)
        .filter_map(|rest| rest.split('/').next())
        .collect()
}

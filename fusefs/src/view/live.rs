//! The directories above the commits, which change while they are mounted.
//!
//! Their modification time is that of the last change noticed, or suspected: the kernel drops its
//! copy of a listing when it differs. Offsets in their listings are derived from the names, so a
//! listing in several steps misses nothing that was there all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use grove_engine::{Error as EngineError, ObjectId};

use super::attr::{S_IFDIR, dir_attr, link_entry, placeholder, root_entry};
use super::{
    Attr, Entry, Item, Lifetime, Numbering, Result, Source, View, ViewError, join, object_error,
    repository_error,
};
use crate::inode::{Inside, LiveDir, Named, ROOT, cookie};

const COMMITS: &str = "commits";
const REFS: &str = "refs";
const UNIQUE: &str = "unique";

type RefMap = BTreeMap<String, ObjectId>;

/// What was last seen of refs and commits, and when that was news.
#[derive(Debug, Default)]
pub(super) struct Live {
    refs: Mutex<Seen<RefMap>>,
    commits: Mutex<Seen<Vec<ObjectId>>>,
    /// That of the source when its commits were last thought of.
    generation: AtomicU64,
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
            seen.touch();
        }
        (Arc::clone(&seen.value), seen.changed)
    }

    /// It may have changed; the time from when on nobody knows.
    fn outdate(seen: &Mutex<Self>) -> SystemTime {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.touch();
        seen.changed
    }

    fn touch(&mut self) {
        self.changed = SystemTime::now().max(self.changed + Duration::from_nanos(1));
    }

    fn changed(seen: &Mutex<Self>) -> SystemTime {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.changed
    }
}

/// An entry of a directory above the commits.
#[derive(Debug)]
enum LiveChild {
    /// A directory above the commits, last changed at some time.
    Dir(LiveDir, SystemTime),
    /// A ref: where its link leads.
    Ref(String),
    /// A commit.
    Commit(ObjectId, Numbering),
}

impl<S: Source> View<S> {
    /// Gives numbers to the directories that are always there: they are known after a restart.
    pub(super) fn name_live_dirs(&self) {
        for dir in [LiveDir::Commits, LiveDir::Unique, LiveDir::Refs("".into())] {
            self.names.number(&Named::Live(dir));
        }
    }

    /// The number of the directory that one is in.
    pub(super) fn live_parent(&self, dir: &LiveDir) -> u64 {
        match dir {
            LiveDir::Refs(name) if !name.is_empty() => {
                let (above, _) = name.rsplit_once('/').unwrap_or_default();
                let above = Named::Live(LiveDir::Refs(above.into()));
                self.names.number(&above)
            }
            _ => ROOT,
        }
    }

    pub(super) fn live_attr(&self, number: u64, kind: &LiveDir) -> Result<Entry> {
        match kind {
            LiveDir::Commits | LiveDir::Unique => Ok(live_dir(number, self.commits()?.1)),
            LiveDir::Refs(prefix) => {
                let (refs, changed) = self.refs()?;
                match prefix.is_empty() || has_below(&refs, prefix) {
                    true => Ok(live_dir(number, changed)),
                    false => Err(ViewError::NotFound),
                }
            }
            LiveDir::Top => {
                let attr = dir_attr(number, S_IFDIR | 0o755);
                Ok(Entry {
                    attr,
                    lifetime: Lifetime::Forever,
                })
            }
        }
    }

    pub(super) fn live_child(&self, dir: &LiveDir, name: &str) -> Result<Option<Entry>> {
        let child = match dir {
            LiveDir::Commits | LiveDir::Unique => {
                let commit = name.parse().ok();
                commit.map(|commit| LiveChild::Commit(commit, self.numbering_in(dir)))
            }
            LiveDir::Refs(prefix) => {
                let (refs, changed) = self.refs()?;
                ref_child(&refs, changed, prefix, name)
            }
            LiveDir::Top => self.top_child(name),
        };
        child.map_or(Ok(None), |child| self.live_entry(child))
    }

    /// A directory in the root. Its time tells of changes that nobody has noticed yet: the kernel asks
    /// for nothing else before it shows a listing that it has.
    fn top_child(&self, name: &str) -> Option<LiveChild> {
        let (dir, changed) = match name {
            COMMITS => (LiveDir::Commits, self.commits_changed()),
            UNIQUE if self.numbering == Numbering::Shared => {
                (LiveDir::Unique, self.commits_changed())
            }
            REFS => (LiveDir::Refs("".into()), self.refs_changed()),
            _ => return None,
        };
        Some(LiveChild::Dir(dir, changed))
    }

    /// Commits are not looked for: how long that takes grows with the repository, and the way to one
    /// leads through here; also when the repository cannot be asked.
    fn commits_changed(&self) -> SystemTime {
        let live = &self.live;
        match self.source.generation() {
            Ok(now) if live.generation.swap(now, Ordering::AcqRel) != now => {
                Seen::outdate(&live.commits)
            }
            _ => Seen::changed(&live.commits),
        }
    }

    fn refs_changed(&self) -> SystemTime {
        match self.refs() {
            Ok((_, changed)) => changed,
            Err(_) => Seen::changed(&self.live.refs),
        }
    }

    /// How the commits in a directory number their files.
    fn numbering_in(&self, dir: &LiveDir) -> Numbering {
        match dir {
            LiveDir::Unique => Numbering::Unique,
            _ => self.numbering,
        }
    }

    pub(super) fn list_live(
        &self,
        dir: &LiveDir,
        offset: u64,
        full: &mut dyn FnMut(&Item<'_>) -> bool,
    ) -> Result<()> {
        let mut children: Vec<_> = self
            .live_children(dir)?
            .into_iter()
            .map(|(name, child)| (cookie(&name) + 1, name, child))
            .filter(|(next, ..)| *next > offset)
            .collect();
        children.sort_unstable_by_key(|(next, ..)| *next);
        for (next, name, child) in children {
            let commit = match &child {
                LiveChild::Commit(id, numbering) => Some((*id, *numbering)),
                _ => None,
            };
            let (entry, damage) = match (self.live_entry(child), commit) {
                (Ok(Some(entry)), _) => (entry, None),
                (Ok(None), _) => continue,
                // Stands in for what cannot be read: a lookup tells the error. The number that the
                // commit would have may be another commit's.
                (Err(damage), Some((commit, numbering))) => {
                    let inside = Named::Inside(Arc::new(Inside {
                        commit,
                        numbering,
                        path: "".into(),
                        is_dir: true,
                    }));
                    let number = self.names.number(&inside);
                    (placeholder(number, S_IFDIR), Some(damage))
                }
                (Err(damage), None) => return Err(damage),
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
    fn live_children(&self, dir: &LiveDir) -> Result<BTreeMap<String, LiveChild>> {
        match dir {
            LiveDir::Top => {
                let child = |name: &str| Some((name.to_owned(), self.top_child(name)?));
                Ok([COMMITS, REFS].into_iter().filter_map(child).collect())
            }
            LiveDir::Commits | LiveDir::Unique => {
                let (commits, _) = self.commits()?;
                let numbering = self.numbering_in(dir);
                Ok(commits
                    .iter()
                    .map(|id| (id.to_string(), LiveChild::Commit(*id, numbering)))
                    .collect())
            }
            LiveDir::Refs(prefix) => {
                let (refs, changed) = self.refs()?;
                let names = names_below(&refs, prefix).into_iter();
                let child = |name: &str| ref_child(&refs, changed, prefix, name);
                Ok(names
                    .filter_map(|name| Some((name.to_owned(), child(name)?)))
                    .collect())
            }
        }
    }

    fn live_entry(&self, child: LiveChild) -> Result<Option<Entry>> {
        match child {
            LiveChild::Dir(dir, changed) => {
                let number = self.names.number(&Named::Live(dir));
                Ok(Some(live_dir(number, changed)))
            }
            LiveChild::Ref(target) => {
                let number = self.names.number(&Named::RefLink(target.as_str().into()));
                Ok(Some(link_entry(number, &target, Lifetime::Short)))
            }
            LiveChild::Commit(id, numbering) => self.commit_entry(&id, numbering),
        }
    }

    fn commit_entry(&self, id: &ObjectId, numbering: Numbering) -> Result<Option<Entry>> {
        let path = || self.below(id, numbering, "");
        let commit = match self.source.commit(id) {
            Ok(commit) => commit,
            Err(EngineError::MissingObject { .. } | EngineError::RevNotFound { .. }) => {
                return Ok(None);
            }
            Err(source) => {
                return Err(object_error(path(), "commit", *id, source));
            }
        };
        self.claim_slot(id)?;
        let number = self.root_number(id, numbering);
        let entry = root_entry(number, &*self.dirmeta(&commit.meta, path)?);
        Ok(Some(Entry {
            lifetime: Lifetime::Short,
            ..entry
        }))
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

/// Path of a directory below the mount's root.
pub(super) fn path(dir: &LiveDir) -> String {
    match dir {
        LiveDir::Top => String::new(),
        LiveDir::Commits => COMMITS.to_owned(),
        LiveDir::Unique => UNIQUE.to_owned(),
        LiveDir::Refs(prefix) if prefix.is_empty() => REFS.to_owned(),
        LiveDir::Refs(prefix) => format!("{REFS}/{prefix}"),
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
        return Some(LiveChild::Dir(LiveDir::Refs(full.into()), changed));
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

//! What differs between two trees, each a commit or a directory.
//!
//! Equal subtrees of two commits are left out by their ids alone; local files are read only when
//! everything cheaper (type, mode, owner, size) is equal.

mod content;
mod local;
mod moves;
mod report;
mod totals;

use std::path::{Path, PathBuf};

pub use self::content::Content;
pub use self::moves::{Move, MovedBy};
pub use self::report::{
    Aspects, Change, ChangeKind, DiffOptions, DiffReport, Event, FileKind, Info, LABEL, Source,
};
pub use self::totals::Totals;
use crate::error::{Error, IoResultExt, Result};
use crate::id::{ObjectId, ObjectKind, PayloadId};
use crate::monitor::{Monitor, Phase};
use crate::ops::ls::{Node, normalise};
use crate::repo::Repository;
use crate::tree::check_depth;

/// The path of the root.
const ROOT: &str = "/";

/// One of the two trees.
#[derive(Debug, Clone, Copy)]
pub enum Side<'a> {
    /// A directory of a commit, usually its root.
    Stored(Node),
    /// A directory of the file system.
    Local(&'a Path),
}

/// Compares two trees. `repo` is where commits are; directories need none.
pub fn diff(
    repo: Option<&Repository>,
    a: Side<'_>,
    b: Side<'_>,
    options: &DiffOptions,
    monitor: &dyn Monitor,
) -> Result<DiffReport> {
    monitor.begin(Phase::Scan, None);
    let mut walk = Walk {
        repo,
        options,
        monitor,
        report: DiffReport::default(),
    };
    walk.at_subpath(Dir::of(a)?, Dir::of(b)?)?;
    let mut report = walk.report;
    if options.moves {
        report.moves = moves::find(repo, &mut report, monitor)?;
    }
    monitor.end(Phase::Scan);
    Ok(report)
}

/// A directory of either side.
#[derive(Debug, Clone)]
enum Dir {
    Stored { tree: ObjectId, meta: ObjectId },
    Local(PathBuf),
}

/// A regular file or symbolic link of either side.
#[derive(Debug, Clone)]
enum File {
    Stored(ObjectId),
    Local(PathBuf),
}

#[derive(Debug, Clone, Copy)]
enum Item<'l> {
    File(&'l File),
    Dir(&'l Dir),
}

/// The same, on its own.
#[derive(Debug, Clone)]
enum Place {
    File(File),
    Dir(Dir),
}

impl Place {
    fn item(&self) -> Item<'_> {
        match self {
            Self::File(file) => Item::File(file),
            Self::Dir(dir) => Item::Dir(dir),
        }
    }
}

impl From<Item<'_>> for Place {
    fn from(item: Item<'_>) -> Self {
        match item {
            Item::File(file) => Self::File(file.clone()),
            Item::Dir(dir) => Self::Dir(dir.clone()),
        }
    }
}

/// Files, then directories, each sorted by name.
#[derive(Debug, Default)]
struct Listing {
    files: Vec<(String, File)>,
    dirs: Vec<(String, Dir)>,
}

impl Dir {
    fn of(side: Side<'_>) -> Result<Self> {
        match side {
            Side::Stored(Node::Dir { tree, meta }) => Ok(Self::Stored { tree, meta }),
            Side::Stored(Node::File(_)) => Err(Error::UnsupportedInput {
                path: ROOT.into(),
                reason: "not a directory".into(),
            }),
            // Its metadata is that of where it leads.
            Side::Local(path) if path.is_symlink() => {
                Ok(Self::Local(std::fs::canonicalize(path).at(path)?))
            }
            Side::Local(path) => Ok(Self::Local(path.to_owned())),
        }
    }
}

impl Listing {
    fn item(&self, name: &str) -> Option<Item<'_>> {
        fn find<'l, T>(list: &'l [(String, T)], name: &str) -> Option<&'l T> {
            let at = list.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok()?;
            list.get(at).map(|(_, item)| item)
        }
        find(&self.files, name)
            .map(Item::File)
            .or_else(|| find(&self.dirs, name).map(Item::Dir))
    }

    /// Names in OSTree's order: files, then directories.
    fn items(&self) -> impl Iterator<Item = (&str, Item<'_>)> {
        let files = self
            .files
            .iter()
            .map(|(name, file)| (name.as_str(), Item::File(file)));
        files.chain(
            self.dirs
                .iter()
                .map(|(name, dir)| (name.as_str(), Item::Dir(dir))),
        )
    }
}

struct Walk<'r> {
    repo: Option<&'r Repository>,
    options: &'r DiffOptions,
    monitor: &'r dyn Monitor,
    report: DiffReport,
}

impl Walk<'_> {
    /// Compares what is at the subpath.
    fn at_subpath(&mut self, a: Dir, b: Dir) -> Result<()> {
        let path = normalise(&self.options.subpath);
        if path == ROOT {
            if !self.same_dirmeta(&a, &b)? {
                self.modified(&Item::Dir(&a), &Item::Dir(&b), ROOT)?;
            }
            return self.dirs(&a, &b, &mut String::new(), 0);
        }
        let depth = path.matches('/').count();
        let (a, b) = (self.look_up(a, &path)?, self.look_up(b, &path)?);
        // What was left out on the way there is not part of this.
        self.report.skipped = 0;
        let mut buffer = path.clone();
        match (a, b) {
            (None, None) => Err(Error::PathNotFound { path }),
            (Some(a), None) => self.only(ChangeKind::Removed, &a.item(), &mut buffer, depth, false),
            (None, Some(b)) => self.only(ChangeKind::Added, &b.item(), &mut buffer, depth, false),
            (Some(a), Some(b)) => self.both(&a.item(), &b.item(), &mut buffer, depth),
        }
    }

    /// Where an object is to be found.
    fn repo(&self, kind: ObjectKind, id: &ObjectId) -> Result<&Repository> {
        self.repo.ok_or(Error::MissingObject { kind, id: *id })
    }

    fn look_up(&mut self, root: Dir, path: &str) -> Result<Option<Place>> {
        let mut place = Place::Dir(root);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Place::Dir(dir) = &place else {
                return Ok(None);
            };
            let listing = self.list(dir)?;
            let Some(item) = listing.item(name) else {
                return Ok(None);
            };
            place = item.into();
        }
        Ok(Some(place))
    }

    fn list(&mut self, dir: &Dir) -> Result<Listing> {
        match dir {
            Dir::Local(path) => local::list(path, self.options, &mut self.report.skipped),
            Dir::Stored { tree, .. } => {
                let listing = self.repo(ObjectKind::Dirtree, tree)?.dirtree(tree)?;
                let files = listing.files.iter();
                Ok(Listing {
                    files: files
                        .map(|(name, id)| (name.clone(), File::Stored(*id)))
                        .collect(),
                    dirs: listing
                        .dirs
                        .iter()
                        .map(|d| {
                            (
                                d.name.clone(),
                                Dir::Stored {
                                    tree: d.tree,
                                    meta: d.meta,
                                },
                            )
                        })
                        .collect(),
                })
            }
        }
    }

    /// Compares the contents of two directories; their own metadata is the caller's business.
    fn dirs(&mut self, a: &Dir, b: &Dir, path: &mut String, depth: usize) -> Result<()> {
        check_depth(path, depth)?;
        if self.monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if let (Dir::Stored { tree: a, .. }, Dir::Stored { tree: b, .. }) = (a, b)
            && a == b
        {
            return Ok(());
        }
        let (in_a, in_b) = (self.list(a)?, self.list(b)?);
        self.monitor
            .advance(Phase::Scan, (in_a.files.len() + in_b.files.len()) as u64);
        let length = path.len();
        for (name, item) in in_a.items() {
            push(path, name);
            match in_b.item(name) {
                None => self.only(ChangeKind::Removed, &item, path, depth, false)?,
                Some(other) => self.both(&item, &other, path, depth)?,
            }
            path.truncate(length);
        }
        for (name, item) in in_b.items().filter(|(name, _)| in_a.item(name).is_none()) {
            push(path, name);
            self.only(ChangeKind::Added, &item, path, depth, false)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn both(&mut self, a: &Item<'_>, b: &Item<'_>, path: &mut String, depth: usize) -> Result<()> {
        match (a, b) {
            (Item::Dir(dir_a), Item::Dir(dir_b)) => {
                if !self.same_dirmeta(dir_a, dir_b)? {
                    self.modified(a, b, path)?;
                }
                self.dirs(dir_a, dir_b, path, depth + 1)
            }
            (Item::File(file_a), Item::File(file_b)) => {
                if !self.same_file(file_a, file_b)? {
                    self.modified(a, b, path)?;
                }
                Ok(())
            }
            (Item::Dir(_), Item::File(_)) => {
                self.modified(a, b, path)?;
                self.below(ChangeKind::Removed, a, path, depth, true)
            }
            (Item::File(_), Item::Dir(_)) => {
                self.modified(a, b, path)?;
                self.below(ChangeKind::Added, b, path, depth, true)
            }
        }
    }

    /// A path that only one side has, and what is below it.
    fn only(
        &mut self,
        kind: ChangeKind,
        item: &Item<'_>,
        path: &mut String,
        depth: usize,
        implied: bool,
    ) -> Result<()> {
        let info = self.info_if_wanted(item)?;
        let file_kind = kind_of(item, info.as_ref());
        let (a, b) = if kind == ChangeKind::Removed {
            (info, None)
        } else {
            (None, info)
        };
        let change = Change {
            kind,
            path: path.clone(),
            file_kind,
            implied,
            a,
            b,
        };
        let below = implied || kind == ChangeKind::Removed;
        let list = if kind == ChangeKind::Removed {
            &mut self.report.removed
        } else {
            &mut self.report.added
        };
        list.push(change);
        self.below(kind, item, path, depth, below)
    }

    fn below(
        &mut self,
        kind: ChangeKind,
        item: &Item<'_>,
        path: &mut String,
        depth: usize,
        implied: bool,
    ) -> Result<()> {
        let Item::Dir(dir) = item else { return Ok(()) };
        check_depth(path, depth)?;
        let length = path.len();
        let listing = self.list(dir)?;
        for (name, item) in listing.items() {
            push(path, name);
            self.only(kind, &item, path, depth + 1, implied)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn modified(&mut self, a: &Item<'_>, b: &Item<'_>, path: &str) -> Result<()> {
        let (mut info_a, mut info_b) = (self.info_if_wanted(a)?, self.info_if_wanted(b)?);
        if let (Item::File(file_a), Some(a), Item::File(file_b), Some(b)) =
            (a, &mut info_a, b, &mut info_b)
        {
            // Files of different sizes need no names to be told apart.
            if a.kind == FileKind::File && b.kind == FileKind::File && a.size == b.size {
                (a.payload, b.payload) = (self.payload(file_a, a)?, self.payload(file_b, b)?);
            }
        }
        let file_kind = kind_of(b, info_b.as_ref());
        self.report.modified.push(Change {
            kind: ChangeKind::Modified,
            path: path.to_owned(),
            file_kind,
            implied: false,
            a: info_a,
            b: info_b,
        });
        Ok(())
    }

    fn same_dirmeta(&self, a: &Dir, b: &Dir) -> Result<bool> {
        if let (Dir::Stored { meta: a, .. }, Dir::Stored { meta: b, .. }) = (a, b)
            && (a == b || !self.options.no_xattrs)
        {
            return Ok(a == b);
        }
        let (a, b) = (self.dir_info(a)?, self.dir_info(b)?);
        Ok(self.same_metadata(&a, &b))
    }

    fn same_file(&self, a: &File, b: &File) -> Result<bool> {
        if let (File::Stored(a), File::Stored(b)) = (a, b)
            && (a == b || !self.options.no_xattrs)
        {
            return Ok(a == b);
        }
        let (info_a, info_b) = (self.file_info(a)?, self.file_info(b)?);
        if !self.same_metadata(&info_a, &info_b) {
            return Ok(false);
        }
        if info_a.kind != FileKind::File {
            return Ok(true);
        }
        Ok(self.payload(a, &info_a)? == self.payload(b, &info_b)?)
    }

    fn same_metadata(&self, a: &Info, b: &Info) -> bool {
        a.kind == b.kind
            && (a.mode, a.uid, a.gid, a.size) == (b.mode, b.uid, b.gid, b.size)
            && a.symlink_target == b.symlink_target
            && (self.options.no_xattrs || a.xattrs == b.xattrs)
    }

    fn payload(&self, file: &File, info: &Info) -> Result<Option<PayloadId>> {
        match file {
            _ if info.size == 0 => Ok(None),
            File::Stored(_) => Ok(info.payload),
            File::Local(path) => local::payload(path, self.monitor).map(Some),
        }
    }

    fn info_if_wanted(&self, item: &Item<'_>) -> Result<Option<Info>> {
        if !self.options.details {
            return Ok(None);
        }
        match item {
            Item::Dir(dir) => self.dir_info(dir).map(Some),
            Item::File(file) => self.file_info(file).map(Some),
        }
    }

    fn dir_info(&self, dir: &Dir) -> Result<Info> {
        match dir {
            Dir::Local(path) => local::info(path, self.options),
            Dir::Stored { meta: id, .. } => {
                let meta = self.repo(ObjectKind::Dirmeta, id)?.dirmeta(id)?;
                Ok(Info {
                    kind: FileKind::Directory,
                    mode: meta.mode,
                    uid: meta.uid,
                    gid: meta.gid,
                    size: 0,
                    xattrs: meta.xattrs.clone(),
                    symlink_target: Vec::new(),
                    payload: None,
                    source: Source::Stored(*id),
                })
            }
        }
    }

    fn file_info(&self, file: &File) -> Result<Info> {
        match file {
            File::Local(path) => local::info(path, self.options),
            File::Stored(id) => {
                let file = self.repo(ObjectKind::File, id)?.file(id)?;
                let kind = if file.header.is_symlink() {
                    FileKind::Symlink
                } else {
                    FileKind::File
                };
                Ok(Info {
                    kind,
                    mode: file.header.mode,
                    uid: file.header.uid,
                    gid: file.header.gid,
                    size: file.size,
                    xattrs: file.header.xattrs,
                    symlink_target: file.header.symlink_target,
                    payload: file.payload,
                    source: Source::Stored(*id),
                })
            }
        }
    }
}

fn push(path: &mut String, name: &str) {
    path.push('/');
    path.push_str(name);
}

/// Without details, files are not told from links: that would load every header.
fn kind_of(item: &Item<'_>, info: Option<&Info>) -> FileKind {
    match (item, info) {
        (_, Some(info)) => info.kind,
        (Item::Dir(_), None) => FileKind::Directory,
        (Item::File(_), None) => FileKind::File,
    }
}

//! Merging imported packages into a tree: work on object names only.
//!
//! Owns the rules for what several packages say about one path. Identical files are fine,
//! different ones are an error that names both packages; all conflicts are found before anything
//! is changed. What the tree held before (from another input of the same commit) is laid over as
//! `ostree commit` lays trees over each other: files replace, directories merge.

use std::collections::{HashMap, HashSet};
use std::fmt;

use grove_engine::object::{DirMeta, Variant, Xattrs};
use grove_engine::tree::{FileEntry, MutableTree};
use grove_engine::{ObjectId, Repository};

use crate::Error;
use crate::import::{DirKind, ImportedPackage, Item};
use crate::package::Facts;

/// The metadata key that lists a commit's packages, as rpm-ostree names it.
pub const LIST: &str = "rpmostree.rpmdb.pkglist";

/// Conflicts that an error names; the rest are counted.
const CONFLICTS_NAMED: usize = 50;
/// Metadata of directories that no package describes.
const NOBODYS: DirKind = DirKind {
    uid: 0,
    gid: 0,
    mode: 0o755,
};

/// Two packages that cannot be in one tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Where.
    pub path: String,
    /// The package that comes first, by name.
    pub first: String,
    /// The other package.
    pub second: String,
    /// Whether one has a directory where the other has a file; else their files differ.
    pub is_kind: bool,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            first,
            second,
            is_kind,
        } = self;
        let how = if *is_kind {
            "a directory in one, a file in the other"
        } else {
            "they differ"
        };
        write!(f, "/{path}: {first} and {second}: {how}")
    }
}

/// What merging did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Packages, each counted once.
    pub packages: u64,
    /// Regular files and symbolic links.
    pub files: u64,
    /// Directories that a package describes.
    pub dirs: u64,
    /// Files that several packages have, all the same.
    pub shared_files: u64,
    /// Directories that packages describe differently; the first package's word counts.
    pub differing_dirs: u64,
    /// Directories that no package describes, made with mode 0755 for root.
    pub unowned_dirs: u64,
    /// Files that were in the tree before and are replaced.
    pub replaced_files: u64,
}

/// What a path is, and whose.
#[derive(Debug, Clone, Copy)]
struct Claim {
    what: What,
    package: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    File(ObjectId),
    Dir(DirKind),
    /// A directory that only must exist for what is below it.
    Parent,
}

/// Lays packages over a tree. The order of `packages` makes no difference.
pub fn merge_packages(
    repo: &Repository,
    tree: &mut MutableTree,
    packages: &[ImportedPackage],
) -> Result<MergeReport, Error> {
    let packages = in_order(packages);
    let mut merge = Merge {
        packages: &packages,
        ..Merge::default()
    };
    // The root is there even if no package has anything.
    merge.claim_one(
        "",
        Claim {
            what: What::Parent,
            package: 0,
        },
    );
    for (at, package) in packages.iter().enumerate() {
        for (path, item) in &package.record.entries {
            merge.claim(path, item, at);
        }
    }
    if !merge.conflicts.is_empty() {
        merge.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        let count = merge.conflicting.len();
        merge.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
        return Err(Error::Conflicts {
            conflicts: merge.conflicts,
            count,
        });
    }
    merge.report.packages = packages.len() as u64;
    merge.apply(repo, tree)
}

/// Every package once, by name, EVR and architecture.
fn in_order(packages: &[ImportedPackage]) -> Vec<&ImportedPackage> {
    let mut sorted: Vec<_> = packages.iter().collect();
    sorted.sort_by(|a, b| (&a.record.facts, &a.key).cmp(&(&b.record.facts, &b.key)));
    sorted.dedup_by_key(|package| package.key);
    sorted
}

#[derive(Debug, Default)]
struct Merge<'a> {
    packages: &'a [&'a ImportedPackage],
    claims: HashMap<&'a str, Claim>,
    report: MergeReport,
    conflicts: Vec<Conflict>,
    conflicting: HashSet<&'a str>,
}

impl<'a> Merge<'a> {
    fn claim(&mut self, path: &'a str, item: &Item, package: usize) {
        let what = match item {
            Item::File(id) => What::File(*id),
            Item::Dir(kind) => What::Dir(*kind),
        };
        self.claim_one(path, Claim { what, package });
        let mut rest = path;
        while !rest.is_empty() {
            rest = rest.rsplit_once('/').map_or("", |(parent, _)| parent);
            let parent = self.claims.get(rest);
            if parent.is_some_and(|claim| !matches!(claim.what, What::File(_))) {
                // Then everything above is a directory already.
                break;
            }
            self.claim_one(
                rest,
                Claim {
                    what: What::Parent,
                    package,
                },
            );
        }
    }

    fn claim_one(&mut self, path: &'a str, claim: Claim) {
        let Some(held) = self.claims.get_mut(path) else {
            self.claims.insert(path, claim);
            return;
        };
        match (held.what, claim.what) {
            (What::File(a), What::File(b)) if a == b => self.report.shared_files += 1,
            (What::File(_), What::File(_)) => self.conflict(path, claim, false),
            (What::File(_), _) | (_, What::File(_)) => self.conflict(path, claim, true),
            (What::Parent, What::Dir(_)) => *held = claim,
            (What::Dir(a), What::Dir(b)) => self.report.differing_dirs += u64::from(a != b),
            (_, What::Parent) => {}
        }
    }

    fn conflict(&mut self, path: &'a str, claim: Claim, is_kind: bool) {
        if !self.conflicting.insert(path) || self.conflicts.len() >= CONFLICTS_NAMED {
            return;
        }
        let name = |at: usize| {
            self.packages
                .get(at)
                .map(|p| p.record.facts.nevra())
                .unwrap_or_default()
        };
        let held = self
            .claims
            .get(path)
            .map_or(claim.package, |held| held.package);
        let (first, second) = (name(held), name(claim.package));
        self.conflicts.push(Conflict {
            path: path.to_owned(),
            first,
            second,
            is_kind,
        });
    }

    /// Changes the tree, one directory after the other.
    fn apply(mut self, repo: &Repository, tree: &mut MutableTree) -> Result<MergeReport, Error> {
        let mut by_dir = HashMap::<&str, Vec<(&str, FileEntry)>>::new();
        let mut dirs = Vec::new();
        for (path, claim) in &self.claims {
            match claim.what {
                What::File(id) => {
                    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
                    by_dir
                        .entry(dir)
                        .or_default()
                        .push((name, FileEntry { id, new: None }));
                }
                What::Dir(kind) => dirs.push((*path, Some(kind))),
                What::Parent => dirs.push((*path, None)),
            }
        }
        // Parents first: what is above a directory is then never without metadata.
        dirs.sort_unstable_by_key(|(path, _)| *path);
        for (path, kind) in dirs {
            let dir = tree.ensure_dir(repo, path)?;
            match kind {
                Some(kind) => {
                    dir.meta = Some(dir_meta(kind));
                    self.report.dirs += 1;
                }
                None if dir.meta.is_none() => {
                    dir.meta = Some(dir_meta(NOBODYS));
                    self.report.unowned_dirs += 1;
                }
                None => {}
            }
            for (name, file) in by_dir.remove(path).into_iter().flatten() {
                let before = dir.files.get(name).map(|file| file.id);
                self.report.replaced_files += u64::from(before.is_some_and(|id| id != file.id));
                self.report.files += 1;
                dir.put_file(name, file)?;
            }
        }
        Ok(self.report)
    }
}

fn dir_meta(kind: DirKind) -> DirMeta {
    let DirKind { uid, gid, mode } = kind;
    DirMeta {
        uid,
        gid,
        mode: 0o040_000 | mode,
        xattrs: Xattrs::default(),
    }
}

/// The value of [`LIST`], `a(sssss)`: name, epoch (`0` if there is none),
/// version, release and architecture of each package, sorted.
pub fn package_list(packages: &[ImportedPackage]) -> Variant {
    let mut rows: Vec<_> = in_order(packages)
        .into_iter()
        .map(|package| {
            let Facts {
                name,
                epoch,
                version,
                release,
                arch,
                ..
            } = &package.record.facts;
            [
                name.clone(),
                epoch.unwrap_or(0).to_string(),
                version.clone(),
                release.clone(),
                arch.clone(),
            ]
        })
        .collect();
    rows.sort_unstable();
    rows.dedup();
    let rows = rows.iter().map(|row| row.each_ref().map(String::as_str));
    Variant::string_tuples(rows)
}

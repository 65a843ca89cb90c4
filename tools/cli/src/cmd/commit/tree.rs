//! The trees of a new commit.

use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;

use grove_compose::{ImportedPackage, find_packages};
use grove_engine::error::IoResultExt;
use grove_engine::ops::source::{SourceReport, add_dir, add_ref, add_tar};
use grove_engine::tree::MutableTree;
use grove_engine::{Monitor, Transaction};

use super::{Args, packages};
use crate::exit::Result;

/// The value of `--tree`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory.
    Dir(PathBuf),
    /// An archive.
    Tar(PathBuf),
    /// A commit.
    Ref(String),
    /// A package.
    Rpm(PathBuf),
    /// A directory of packages.
    Rpms(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected dir=PATH, tar=FILE, ref=REV, rpm=FILE or rpms=DIR";
        let (kind, what) = text.split_once('=').ok_or(expected)?;
        if what.is_empty() {
            return Err(format!("nothing after '{kind}='"));
        }
        Ok(match kind {
            "dir" => Self::Dir(what.into()),
            "tar" => Self::Tar(what.into()),
            "ref" => Self::Ref(what.into()),
            "rpm" => Self::Rpm(what.into()),
            "rpms" => Self::Rpms(what.into()),
            _ => return Err(expected.into()),
        })
    }
}

/// What the trees brought.
#[derive(Debug, Default)]
pub struct Found {
    /// Files, directories and so on.
    pub report: SourceReport,
    /// The packages.
    pub packages: Vec<ImportedPackage>,
}

/// Lays all trees over each other.
pub fn build(
    txn: &mut Transaction<'_>,
    tree: &mut MutableTree,
    args: &Args,
    monitor: &dyn Monitor,
) -> Result<Found> {
    let repo = txn.repository();
    if let Some(base) = &args.base {
        add_ref(repo, tree, &repo.resolve_rev(base)?)?;
    }
    let single = [Source::Dir(
        args.path.clone().unwrap_or_else(|| PathBuf::from(".")),
    )];
    let sources = if args.tree.is_empty() {
        &single[..]
    } else {
        &args.tree
    };
    let options = args.source_options();
    let mut found = Found::default();
    let mut set: Vec<PathBuf> = Vec::new();
    for (i, source) in sources.iter().enumerate() {
        let report = match source {
            Source::Dir(path) => add_dir(txn, tree, path, &options, monitor)?,
            Source::Tar(path) => {
                let file = File::open(path).at(path)?;
                add_tar(txn, tree, file, &path.to_string_lossy(), &options, monitor)?
            }
            Source::Ref(rev) => {
                add_ref(repo, tree, &repo.resolve_rev(rev)?)?;
                SourceReport::default()
            }
            Source::Rpm(_) | Source::Rpms(_) => {
                match source {
                    Source::Rpms(dir) => set.extend(find_packages(dir)?),
                    Source::Rpm(path) => set.push(path.clone()),
                    _ => {}
                }
                // Packages named one after the other are one set: they may share paths.
                let more = sources.get(i + 1);
                if matches!(more, Some(Source::Rpm(_) | Source::Rpms(_))) {
                    continue;
                }
                let (report, imported) = packages::add(txn, tree, &set, args, monitor)?;
                found.packages.extend(imported);
                set.clear();
                report
            }
        };
        add(&mut found.report, report);
    }
    Ok(found)
}

fn add(total: &mut SourceReport, one: SourceReport) {
    total.files += one.files;
    total.dirs += one.dirs;
    total.unread_files += one.unread_files;
    total.skipped += one.skipped;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_named_by_kind() {
        assert_eq!("dir=/a=b".parse(), Ok(Source::Dir("/a=b".into())));
        assert_eq!("ref=os/x".parse(), Ok(Source::Ref("os/x".into())));
        for wrong in ["", "dir", "dir=", "zip=a", "=a"] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong:?}");
        }
    }
}

//! RPM packages as trees of a new commit.

use std::path::PathBuf;

use clap::ValueEnum;
use grove_compose::import::DigestTable;
use grove_compose::{
    ImportOptions, ImportedPackage, Owners, PathRules, UnknownOwner, import_packages,
    merge_packages,
};
use grove_engine::error::IoResultExt;
use grove_engine::ops::source::SourceReport;
use grove_engine::tree::MutableTree;
use grove_engine::{Monitor, Transaction};

use super::Args;
use crate::exit::Result;
use crate::ui;

/// Options about packages.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Packages")]
pub struct PackageArgs {
    /// Lay packages out as rpm-ostree does: /etc in /usr/etc, /bin in /usr/bin and so on
    #[arg(long)]
    unified_layout: bool,
    /// Take the ids of users from a file in the form of /etc/passwd
    #[arg(long, value_name = "FILE")]
    passwd: Vec<PathBuf>,
    /// Take the ids of groups from a file in the form of /etc/group
    #[arg(long, value_name = "FILE")]
    group: Vec<PathBuf>,
    /// What to do with files whose owner has no id: give them to root, as rpm does, or refuse the
    /// package
    #[arg(long, value_name = "WHAT", default_value = "root")]
    unknown_owner: Unknown,
}

/// What to do with an owner that has no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Unknown {
    Root,
    Refuse,
}

impl Args {
    fn import_options(&self) -> Result<ImportOptions> {
        let mut owners = Owners::default();
        for path in &self.packages.passwd {
            owners.add_passwd(&std::fs::read_to_string(path).at(path)?);
        }
        for path in &self.packages.group {
            owners.add_group(&std::fs::read_to_string(path).at(path)?);
        }
        owners.unknown = match self.packages.unknown_owner {
            Unknown::Root => UnknownOwner::Root,
            Unknown::Refuse => UnknownOwner::Refuse,
        };
        let mut options = ImportOptions::default();
        options.rules = if self.packages.unified_layout {
            PathRules::RpmOstree
        } else {
            PathRules::AsPackaged
        };
        options.owners = owners;
        options.owner_uid = self.owner_uid;
        options.owner_gid = self.owner_gid;
        options.canonical_permissions = self.canonical_permissions;
        options.skip_special = self.skip_special;
        Ok(options)
    }
}

/// Imports packages that are not yet known and lays them over a tree.
pub fn add(
    txn: &mut Transaction<'_>,
    tree: &mut MutableTree,
    paths: &[PathBuf],
    args: &Args,
    monitor: &dyn Monitor,
) -> Result<(SourceReport, Vec<ImportedPackage>)> {
    let options = args.import_options()?;
    let cache = txn.repository().cache_dir();
    let digests = DigestTable::load(&cache);
    let imported = import_packages(txn, paths, &options, &digests, monitor)?;
    if let Err(error) = digests.store() {
        monitor.warn(&format!(
            "{}: digests were not kept: {error}",
            cache.display()
        ));
    }
    let merged = merge_packages(txn.repository(), tree, &imported)?;
    let skipped = |count: fn(&ImportedPackage) -> u64| imported.iter().map(count).sum::<u64>();
    let unowned = skipped(|package| package.record.skipped.unowned);
    if unowned > 0 {
        let unowned = ui::count(unowned, "entry");
        monitor.warn(&format!("gave {unowned} to root: the owner has no id"));
    }
    let report = SourceReport {
        files: merged.files,
        dirs: merged.dirs + merged.unowned_dirs,
        unread_files: 0,
        skipped: skipped(|package| package.record.skipped.special),
    };
    Ok((report, imported))
}

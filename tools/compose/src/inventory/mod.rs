//! Which packages a tree holds, and which of them a path belongs to.
//!
//! Known from the package database in the tree (rpm's or dpkg's), or, for a commit made from
//! packages, from the list in its metadata and the records of what was imported. Only reads.

mod dpkg;
mod rpm;
mod sqlite;
mod tree;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::path::Path;

use grove_engine::Repository;
use grove_engine::object::{Commit, Value};
use grove_engine::ops::ls::Node;

pub use self::sqlite::SqliteError;
use self::tree::{Local, Stored, Tree};
use crate::import::Record;
use crate::merge::LIST;
use crate::package::{Facts, PackageError};

/// A package that a tree holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Installed {
    /// Name.
    pub name: String,
    /// `[epoch:]version-release` of RPM, or Debian's version.
    pub version: String,
    /// Architecture.
    pub arch: String,
}

/// Why the packages of a tree are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InventoryError {
    /// The database is not one.
    #[error(transparent)]
    Database(#[from] SqliteError),
    /// The database holds a malformed header.
    #[error("package database")]
    Header(#[source] PackageError),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] grove_engine::Error),
}

/// The packages of a tree and their paths.
#[derive(Debug, Default)]
pub struct Inventory {
    packages: Vec<Installed>,
    owners: HashMap<String, u32>,
}

impl Inventory {
    /// What a commit holds.
    pub fn of_commit(repo: &Repository, commit: &Commit) -> Result<Self, InventoryError> {
        let root = Node::root(commit);
        let found = Self::of_tree(&Stored { repo, root })?;
        if found.is_empty() {
            Self::of_imports(repo, commit)
        } else {
            Ok(found)
        }
    }

    /// What a directory holds.
    pub fn of_dir(path: &Path) -> Result<Self, InventoryError> {
        Self::of_tree(&Local(path))
    }

    fn of_tree(tree: &dyn Tree) -> Result<Self, InventoryError> {
        let mut found = Self::default();
        for path in rpm::PLACES {
            if let Some(database) = tree.read(path)? {
                rpm::read(&database, &mut found)?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
        dpkg::read(tree, &mut found)?;
        Ok(found)
    }

    /// The packages that the commit lists, and the paths that they have in records of imports. A
    /// package may have been imported in several ways: all their paths count.
    fn of_imports(repo: &Repository, commit: &Commit) -> Result<Self, InventoryError> {
        let mut found = Self::default();
        let mut numbers = HashMap::new();
        for package in listed(commit) {
            let key = (
                package.name.clone(),
                package.version.clone(),
                package.arch.clone(),
            );
            numbers.insert(key, found.add(package));
        }
        if numbers.is_empty() {
            return Ok(found);
        }
        for key in repo.imports()? {
            // Imports of other programs, or of other versions of this one, have other bytes.
            let import = repo.import(&key)?;
            let record = import.and_then(|i| Record::decode(&i.bytes, &i.files).ok());
            let Some(record) = record else { continue };
            let facts = &record.facts;
            let key = (facts.name.clone(), version(facts), facts.arch.clone());
            if let Some(number) = numbers.get(&key) {
                for (path, _) in &record.entries {
                    found.own(&format!("/{path}"), *number);
                }
            }
        }
        Ok(found)
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    fn add(&mut self, package: Installed) -> u32 {
        self.packages.push(package);
        self.packages.len() as u32 - 1
    }

    /// The first package that has a path is the one it belongs to.
    fn own(&mut self, path: &str, package: u32) {
        if !self.owners.contains_key(path) {
            self.owners.insert(path.to_owned(), package);
        }
    }

    /// All packages.
    pub fn packages(&self) -> &[Installed] {
        &self.packages
    }

    /// Position of the package that a path of the tree belongs to. Images have `/etc` in `/usr/etc`
    /// and the directories that systems have merged in `/usr`, where packages may have them without.
    pub fn owner(&self, path: &str) -> Option<usize> {
        let owner = |path: &str| self.owners.get(path).map(|number| *number as usize);
        owner(path).or_else(|| owner(path.strip_prefix("/usr")?))
    }
}

/// A package's version in the form of [`Installed`]: the list does not tell no epoch from zero.
fn version(facts: &Facts) -> String {
    let epoch = facts.epoch.filter(|epoch| *epoch > 0);
    Facts {
        epoch,
        ..facts.clone()
    }
    .evr()
}

/// The packages that a commit's metadata lists.
fn listed(commit: &Commit) -> Vec<Installed> {
    let Some(Value::Array { items, .. }) = commit.metadata.get(LIST).map(|list| list.value())
    else {
        return Vec::new();
    };
    let package = |item: &Value| {
        let Value::Tuple(fields) = item else {
            return None;
        };
        let text = |at: usize| match fields.get(at) {
            Some(Value::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let epoch = match text(1)? {
            "" | "0" => String::new(),
            epoch => format!("{epoch}:"),
        };
        Some(Installed {
            name: text(0)?.to_owned(),
            version: format!("{epoch}{}-{}", text(2)?, text(3)?),
            arch: text(4)?.to_owned(),
        })
    };
    items.iter().filter_map(package).collect()
}

/// Whether a version is newer than another one, by RPM's rules; Debian's differ in cases that its
/// packages avoid.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    rpm_version::rpm_evr_compare(a, b)
}

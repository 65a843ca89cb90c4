//! From RPM files to trees: reading packages, importing them into a repository, merging them.
//!
//! Layers, each only using those above it:
//!
//! ```text
//! package                one RPM file: facts, file list, linear payload reader
//! caps, owners, layout   capabilities, ids and places of a package's files
//! import                 payloads into the store, a record of where they went
//! merge                  records into a tree
//! source                 payloads of packages for repairs
//! inventory              which packages a tree holds, and whose a path is
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod caps;
mod error;
pub mod import;
pub mod inventory;
pub mod layout;
pub mod merge;
pub mod owners;
pub mod package;
mod source;

pub use error::Error;
pub use import::{ImportOptions, ImportedPackage, find_packages, import_package, import_packages};
pub use inventory::{Installed, Inventory, InventoryError};
pub use layout::PathRules;
pub use merge::{LIST, MergeReport, merge_packages, package_list};
pub use owners::{Owners, UnknownOwner};
pub use package::{Entry, EntryKind, Facts, Package, PackageError};
pub use source::PackageSource;

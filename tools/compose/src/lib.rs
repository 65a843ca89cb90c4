//! From RPM files to trees: reading packages, importing them into a repository, merging them.
//!
//! Layers, each only using those above it:
//!
//! ```text
//! package                one RPM file: facts, file list, linear payload reader
//! caps, owners, layout   capabilities, ids and places of a package's files
//! ```

pub mod caps;
mod error;
pub mod layout;
pub mod owners;
pub mod package;

pub use error::Error;
pub use layout::PathRules;
pub use owners::{Owners, UnknownOwner};
pub use package::{Entry, EntryKind, Facts, Package, PackageError};

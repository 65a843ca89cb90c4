//! From RPM files to trees: reading packages, importing them into a repository, merging them.
//!
//! Layers, each only using those above it:
//!
//! ```text
//! package   one RPM file: facts, file list, linear payload reader
//! ```

mod error;
pub mod package;

pub use error::Error;
pub use package::{Entry, EntryKind, Facts, Package, PackageError};

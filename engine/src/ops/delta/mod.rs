//! Grove's own deltas: one file that holds what one commit has and another one lacks, to be carried
//! anywhere and applied without a network.
//!
//! Owns the format (docs/format.md, "Deltas"), the making of deltas from two commits of a repository,
//! and their application to one that has the first of them. What is made is applied and compared
//! before it is kept; what comes from elsewhere is not believed. What is new, and which old files new
//! ones are like, `changes` says, as for OSTree's deltas.

mod apply;
mod base;
mod builder;
pub(crate) mod content;
mod create;
mod encode;
pub(crate) mod file;
pub(crate) mod limits;
mod make;
mod packed;
mod show;
pub(crate) mod streams;
mod tree;

pub use self::apply::{ApplyOptions, ApplyReport, VerifyReport, apply, verify};
pub use self::create::{CreateOptions, create};
pub(crate) use self::show::try_section;
pub use self::show::{DeltaInfo, show};

/// What the table of a delta announces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct DeltaCounts {
    /// Metadata objects, with the commit.
    metadata: u64,
    files: u64,
    contents: u64,
    /// Bytes of all contents, those that others are made of included.
    made_bytes: u64,
}

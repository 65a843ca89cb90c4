//! OSTree's static deltas: what stock clients fetch in place of objects.
//!
//! Owns the format (superblock, parts, operations), the making of deltas from two commits of a
//! repository, and their application to one. Deltas lie below `deltas/` of the repository under
//! OSTree's names. What is made is applied and compared before it is kept; what comes from elsewhere
//! is not believed. How the format is used: docs/ostree.md, "Static deltas".

mod apply;
mod check;
mod files;
mod fuzz;
mod generate;
mod machine;
mod name;
mod part;
mod superblock;
#[cfg(test)]
mod tests;
mod writer;

pub use self::apply::{ApplyReport, apply_offline};
pub use self::check::{VerifyReport, verify};
pub use self::files::{DeltaAt, DeltaInfo, PartInfo, delete, exists, list, show};
pub(in crate::ops) use self::files::{list_at, size};
pub(crate) use self::fuzz::{part_seeds, try_part, try_superblock};
pub use self::generate::{GenerateOptions, GenerateReport, generate};
pub use self::name::DeltaName;
pub use self::part::Effort;

use crate::ops::changes::Fault;

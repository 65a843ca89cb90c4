//! Grove's storage engine: OSTree's object model on top of a packed, deduplicating store.
//!
//! The engine is synchronous, knows neither RPM nor FUSE nor the terminal, and never reads the
//! environment. Imports go one way only (tests/it/layering.rs reads this table): a module may use
//! those left of it, and those in its own group.
//!
//! ```text
//! id, anchors, bsdiff, compress, recode, sketch <- object <- error, monitor <- fs <- pack <- index <- store, refs <- repo, tree <- ops <- fuzz, probe
//! ```

mod anchors;
mod bsdiff;
mod compress;
pub mod error;
#[cfg(test)]
mod format_doc;
pub mod fs;
#[doc(hidden)]
pub mod fuzz;
pub mod id;
mod index;
pub mod monitor;
pub mod object;
pub mod ops;
mod pack;
#[doc(hidden)]
pub mod probe;
mod recode;
pub mod refs;
pub mod repo;
mod sketch;
mod store;
pub mod tree;

pub use error::{Error, Result};
pub use id::{ObjectId, ObjectKind, PackId, PayloadId};
pub use monitor::{Monitor, Silent};
pub use refs::{RefUpdate, Refs};
pub use repo::ingest::{Body, NewFile};
pub use repo::transaction::WriteReport;
pub use repo::{Import, ReindexReport, Repository, Transaction};
pub use store::cache::CacheCounts;
pub use store::copies::PlainCopy;
pub use store::group::{Group, Member, Read};

//! Grove's storage engine: OSTree's object model on top of a packed, deduplicating store.
//!
//! The engine is synchronous, knows neither RPM nor FUSE nor the terminal, and never reads the
//! environment. Imports go one way only:
//!
//! ```text
//! id, error, monitor <- fs <- object, compress <- pack <- index <- store <- refs, repo <- tree, ops
//! ```

pub mod error;
pub mod id;
pub mod monitor;
pub mod object;
pub mod repo;
pub mod tree;

pub use error::{Error, Result};
pub use id::{ObjectId, ObjectKind, PackId, PayloadId};
pub use monitor::{Monitor, Silent};
pub use repo::{Repository, Transaction};

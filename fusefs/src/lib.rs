//! Commits as read-only directories, through FUSE.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::path::Path;
//! use std::sync::Arc;
//! use grove_fusefs::{MountOptions, What, mount};
//!
//! let repository = Arc::new(grove_engine::Repository::open(Path::new("repo"))?);
//! let commit = repository.resolve_rev("os/june")?;
//! let options = MountOptions::default();
//! let mounted = mount(repository, What::Commit(commit), Path::new("/mnt"), &options)?;
//! mounted.wait()?; // until someone unmounts
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! mount (mount(2), fusermount3)  ->  adapter (fuser)  ->  view (inodes, listings, reads)  ->  image, Source
//! daemon (many mounts, one session)  --^
//! ```
//!
//! Mounting reads the commit and the head of its image, whatever the size of the rest.

mod adapter;
mod ahead;
mod cache;
mod caught;
pub mod daemon;
mod descriptor;
pub mod image;
mod inode;
mod mount;
mod prefetch;
mod push;
mod seen;
mod stats;
mod trace;
pub mod view;

pub use adapter::ErrorSink;
pub use mount::{
    MountAttrs, MountError, MountInfo, MountOptions, MountUser, Mounted, Result, Umount, Unmounter,
    clear_stale, is_stale, mount, mounts, overlay, umount,
};
pub use stats::{BUCKETS, DataStats, Histogram, Latencies, Stats};
pub use view::{Numbering, What};

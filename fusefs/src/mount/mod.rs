//! Mounting and unmounting.
//!
//! With the right to mount, this calls mount(2) itself; without it, `fusermount3` does. [`mount`]
//! returns when the mount is served: it starts threads, so a program that wants to go into the
//! background must fork, or start itself again, before it calls it. Mounts that share one session
//! are the business of [`crate::daemon`].

pub(crate) mod device;
mod error;
mod helper;
mod list;
mod options;
mod overlay;
pub(crate) mod point;
mod private;
pub(crate) mod table;
mod traces;
pub(crate) mod umount;
mod users;

pub use error::{MountError, Result};
pub use list::{MountInfo, mounts};
pub(crate) use list::{SharedRoot, source_name};
pub(crate) use options::READ_AHEAD_KB;
pub use options::{MountAttrs, MountOptions};
pub use overlay::overlay;
pub use private::{Mounted, Unmounter, mount};
pub use umount::{Umount, clear_stale, is_stale, umount};
pub use users::MountUser;

/// Type of file system behind `fuse.`, in tables of mounts.
const SUBTYPE: &str = "grove";
/// Type of file system of our mounts.
pub(crate) const KIND: &str = "fuse.grove";
/// Begins the source of our mounts, before the path of the repository.
const SOURCE: &str = "grove:";

/// Whether a mount is an overlay above one of ours.
pub(crate) fn is_overlay(row: &table::Row) -> bool {
    row.kind == "overlay" && row.source.to_string_lossy().starts_with(SOURCE)
}

//! One session for all mounts of a repository.
//!
//! A daemon shows all commits of a repository in one file system, which it mounts where nobody
//! sees it. A mount of a commit is that commit's directory cut out of it, so it costs no more than
//! a bind mount, and what the kernel has cached of a file serves every commit that has the file.
//! The daemon is started by the first mount and leaves after the last one.
//!
//! ```text
//! client: place (socket, lock) -> protocol ------> server -> sessions -> base (its own namespace)
//!         move_mount(2) at the directory <-- descriptor of a detached mount --'
//! ```
//!
//! The program that calls this decides how a daemon is started, where it tells of errors, and what
//! its signals are.

mod base;
mod bell;
mod client;
mod place;
mod protocol;
mod report;
mod server;
mod sessions;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::adapter::ErrorSink;
use crate::mount::READ_AHEAD_KB;
pub use client::{MountRequest, Shared, mount_shared, shared_stats};
pub use place::Place;
pub use report::{Reporter, SessionReport, private_stats};
pub use server::Daemon;

/// How a daemon serves.
#[derive(Clone)]
#[non_exhaustive]
pub struct DaemonOptions {
    /// Read-ahead of the kernel in KiB.
    pub read_ahead_kb: u32,
    /// Threads that serve; `None` for as many as processors, from 2 to 8.
    pub threads: Option<NonZeroUsize>,
    /// Receives damage found while serving.
    pub on_error: ErrorSink,
}

/// When a daemon leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// With the last mount.
    WhileMounted,
    /// When it is told to.
    UntilSignal,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            read_ahead_kb: READ_AHEAD_KB,
            threads: None,
            on_error: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for DaemonOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonOptions")
            .field("read_ahead_kb", &self.read_ahead_kb)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

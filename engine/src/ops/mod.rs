//! Operations on repositories, one module each.

mod changes;
pub mod checkout;
pub mod compare;
pub mod delta;
pub mod diff;
mod fsck;
pub mod log;
pub mod ls;
pub mod ostree;
mod prune;
mod reach;
mod repack;
pub mod repair;
pub mod source;
pub mod static_delta;
pub mod stats;

pub use self::fsck::{FsckOptions, FsckReport, HitPath, Level, Problem, ProblemKind, fsck};
pub use self::prune::{Gone, PruneOptions, PruneReport, prune};
pub use self::repack::{RepackOptions, RepackReport, repack};

/// An error and its causes in one line.
pub(crate) fn describe(error: &crate::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

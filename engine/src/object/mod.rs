//! OSTree's objects: parsing and writing of commit, dirtree, dirmeta and file headers.
//!
//! Byte-exact with what `ostree` writes; the layouts are OSTree's (ostree-core.h). Parsers
//! take bytes from anywhere: they accept only what the writers here would write again, never
//! panic, and use memory in proportion to their input.

mod commit;
mod dirmeta;
mod dirtree;
mod file;
pub(crate) mod gvariant;
mod summary;
#[cfg(test)]
mod tests;
mod variant;
mod xattrs;

pub use self::commit::{Commit, Metadata};
pub use self::dirmeta::DirMeta;
pub use self::dirtree::{DirEntry, Dirtree, check_name};
pub use self::file::{FileHasher, FileHeader, FileObject, FormHasher};
pub use self::summary::{Summary, SummaryRef};
pub use self::variant::{TextError, Type, Value, Variant};
pub use self::xattrs::Xattrs;

/// Why bytes are not a well-formed object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not in GVariant normal form, or not of the expected type.
    #[error("{what} at byte {offset}")]
    Format {
        /// What is wrong.
        what: &'static str,
        /// Offset from the beginning of the object.
        offset: usize,
    },
    /// A rule of the object model is broken.
    #[error("{0}")]
    Rule(&'static str),
}

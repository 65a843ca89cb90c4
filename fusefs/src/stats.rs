//! Counts of the requests that the kernel sent.
//!
//! Exact numbers, free of noise: tests state how many requests a piece of work may need.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Requests served so far, by kind.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Counters that threads share.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Stats {
            /// All requests. (Messages by which the kernel forgets an inode are not requests.)
            pub fn total(&self) -> u64 {
                0 $(+ self.$name)*
            }
        }

        impl Stats {
            /// Everything, each figure with a name of its own.
            pub fn values(&self) -> Vec<(String, u64)> {
                vec![$((concat!("requests.", stringify!($name)).to_owned(), self.$name),)*]
            }
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Names looked up.
    lookup,
    /// Attributes asked for.
    getattr,
    /// Targets of symbolic links.
    readlink,
    /// Files opened: one at most, the answer says not to ask again.
    open,
    /// Directories opened: one at most.
    opendir,
    /// Reads of file data.
    read,
    /// Pages of listings without attributes.
    readdir,
    /// Pages of listings with attributes.
    readdirplus,
    /// Values of extended attributes.
    getxattr,
    /// Lists of extended attributes.
    listxattr,
    /// File system figures.
    statfs,
    /// Files closed: one at most.
    flush,
    /// Attempts to write.
    write,
    /// Everything else.
    other,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn bump(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

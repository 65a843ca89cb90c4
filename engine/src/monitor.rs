//! Progress and cancellation, as seen from long operations.
//!
//! The engine reports what it does and asks whether to go on; what a person sees is decided
//! elsewhere.

use std::fmt;

/// What a long operation is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Listing the input.
    Scan,
    /// Reading, hashing and storing payloads; counted in bytes.
    Store,
    /// Writing directory objects; counted in their entries, or in objects.
    Tree,
    /// Making packs and index durable.
    Publish,
    /// Importing packages; counted in packages.
    Import,
    /// Writing files of a checkout; counted in files.
    Checkout,
    /// Verifying; counted in bytes.
    Verify,
    /// Working out what other ways of storing would need; counted in bytes.
    Compare,
    /// Rebuilding the index; counted in packs.
    Reindex,
    /// Deleting and rewriting packs; counted in packs.
    Prune,
    /// Rewriting packs; counted in bytes written, of those that the packs had before.
    Repack,
    /// Making, checking or deleting parity files; counted in packs.
    Parity,
    /// Making or applying a delta; counted in bytes of what it makes.
    Delta,
    /// Measuring; counted in steps.
    Measure,
}

/// Receives progress; implementations must be cheap, they are called often and from many threads.
pub trait Monitor: Send + Sync + fmt::Debug {
    /// A phase begins; `total` is in the phase's unit when it is known.
    fn begin(&self, _phase: Phase, _total: Option<u64>) {}
    /// `amount` more units of the phase are done.
    fn advance(&self, _phase: Phase, _amount: u64) {}
    /// The phase is over.
    fn end(&self, _phase: Phase) {}
    /// Something worth telling that does not stop the operation.
    fn warn(&self, _message: &str) {}
    /// Whether the operation should stop at the next safe point with [`crate::Error::Cancelled`].
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A monitor that shows nothing and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {}

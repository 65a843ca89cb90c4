//! Which entries commits need.
//!
//! What a commit needs is a set of entries for each pack ([`EntrySet`]). It is found by a walk
//! ([`Walker`]) the first time it is asked for and remembered in the repository ([`Marker`]). Sets
//! of commits are then joined and compared without reading a tree.

mod cache;
mod marker;
mod needs;
mod places;
mod scales;
mod set;
mod walk;

pub(crate) use self::marker::{Marker, forget};
pub(crate) use self::needs::is_plain;
pub(crate) use self::places::{PackMap, Places, Span};
pub(crate) use self::scales::Scales;
pub(crate) use self::set::{EntrySet, Shared};
pub(crate) use self::walk::Reached;
pub use self::walk::Totals;

use crate::id::ObjectId;
use crate::pack::{EntryKind, Key};

pub(crate) fn key(kind: EntryKind, id: &ObjectId) -> Key {
    Key::new(kind, *id.as_bytes())
}

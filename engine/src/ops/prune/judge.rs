//! What is done with each pack: nothing, a copy of what is needed in its place, or deletion.

use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::REWRITE_SHARE;
use crate::error::Result;
use crate::id::PackId;
use crate::ops::reach::{EntrySet, Marker, PackMap, is_plain};
use crate::pack::{EntryKind, Key};
use crate::repo::Repository;

/// What happens to a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing in it is dead, or too little.
    Stays,
    /// What is alive is copied.
    Rewritten,
    /// Nothing is alive.
    Deleted,
}

/// A pack and what happens to it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) map: Arc<PackMap>,
    pub(super) fate: Fate,
    /// Entries that nothing needs.
    pub(super) dead: u64,
    /// What they take.
    pub(super) dead_bytes: u64,
}

/// Judges packs by what is alive in them.
pub(super) fn judge<'a>(
    repo: &Repository,
    marker: &mut Marker<'_>,
    live: &EntrySet,
    packs: impl IntoIterator<Item = &'a PackId>,
) -> Result<BTreeMap<PackId, Judged>> {
    let nothing = RoaringBitmap::new();
    let mut judged = BTreeMap::new();
    for id in packs {
        let map = marker.places().map(repo, id)?;
        let alive = live.of_pack(id).unwrap_or(&nothing);
        let may_linger = |key: &Key| {
            let needs = repo.store().needs(key)?;
            marker.holds(live, &needs)
        };
        judged.insert(*id, judge_pack(map, alive, may_linger)?);
    }
    Ok(judged)
}

fn judge_pack(
    map: Arc<PackMap>,
    alive: &RoaringBitmap,
    may_linger: impl FnMut(&Key) -> Result<bool>,
) -> Result<Judged> {
    let mut dead = RoaringBitmap::new();
    dead.insert_range(0..map.entries);
    dead -= alive;
    let dead_bytes = map.weigh(&dead)?;
    let fate = if dead.is_empty() {
        Fate::Stays
    } else if alive.is_empty() {
        Fate::Deleted
    } else if dead_bytes * REWRITE_SHARE >= map.size || must_go(&map, &dead, may_linger)? {
        Fate::Rewritten
    } else {
        Fate::Stays
    };
    Ok(Judged {
        map,
        fate,
        dead: dead.len(),
        dead_bytes,
    })
}

/// Whether one of these entries must not be found any more, because what it refers to may be gone:
/// objects and records of deleted commits, and payloads whose decoding needs something dead.
/// Other payloads may linger.
fn must_go(
    map: &PackMap,
    dead: &RoaringBitmap,
    mut may_linger: impl FnMut(&Key) -> Result<bool>,
) -> Result<bool> {
    for (span, _) in map.touched(dead) {
        let head = map.reader().head(u64::from(span.offset))?;
        let entries = span.ordinals().zip(&head.entries);
        for (_, entry) in entries.filter(|(ordinal, _)| dead.contains(*ordinal)) {
            let stays = match entry.key.kind {
                EntryKind::Payload | EntryKind::Recipe if is_plain(span.class) => true,
                EntryKind::Payload | EntryKind::Recipe => may_linger(&entry.key)?,
                _ => false,
            };
            if !stays {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

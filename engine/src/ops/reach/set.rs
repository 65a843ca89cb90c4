//! Sets of entries: for each pack a bitmap of ordinals.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use crate::id::PackId;

/// A set of entries, each named by its pack and its ordinal there: its number in the order of
/// blocks in the footer and of entries in the block.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct EntrySet {
    packs: BTreeMap<PackId, RoaringBitmap>,
}

impl EntrySet {
    /// Adds entries of one pack.
    pub(crate) fn add(&mut self, pack: PackId, entries: &RoaringBitmap) {
        if !entries.is_empty() {
            *self.packs.entry(pack).or_default() |= entries;
        }
    }

    /// Adds all entries of another set.
    pub(crate) fn union(&mut self, other: &Self) {
        for (pack, entries) in &other.packs {
            self.add(*pack, entries);
        }
    }

    /// The entries that are not in another set.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (pack, entries) in &self.packs {
            match other.packs.get(pack) {
                Some(others) => left.add(*pack, &(entries - others)),
                None => left.add(*pack, entries),
            }
        }
        left
    }

    /// The entries that are in both sets.
    pub(crate) fn common(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (pack, entries) in &self.packs {
            if let Some(others) = other.packs.get(pack) {
                both.add(*pack, &(entries & others));
            }
        }
        both
    }

    /// Whether an entry is in the set.
    pub(crate) fn contains(&self, pack: &PackId, ordinal: u32) -> bool {
        self.packs
            .get(pack)
            .is_some_and(|set| set.contains(ordinal))
    }

    /// The entries of one pack.
    pub(crate) fn of_pack(&self, pack: &PackId) -> Option<&RoaringBitmap> {
        self.packs.get(pack)
    }

    /// By pack, in order of names; no bitmap is empty.
    pub(crate) fn packs(&self) -> impl ExactSizeIterator<Item = (&PackId, &RoaringBitmap)> {
        self.packs.iter()
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> u64 {
        self.packs.values().map(RoaringBitmap::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }
}

/// Which entries several sets have in common, found in one pass over them.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    once: EntrySet,
    more: EntrySet,
}

impl Shared {
    pub(crate) fn add(&mut self, set: &EntrySet) {
        let again = self.once.common(set);
        self.more.union(&again);
        self.once.union(set);
    }

    /// The entries of one of the sets that are in no other one.
    pub(crate) fn exclusive(&self, set: &EntrySet) -> EntrySet {
        set.without(&self.more)
    }

    /// The entries of all the sets.
    pub(crate) fn all(&self) -> &EntrySet {
        &self.once
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[(u8, u32)]) -> EntrySet {
        let mut set = EntrySet::default();
        for (pack, ordinal) in entries {
            let one: RoaringBitmap = [*ordinal].into_iter().collect();
            set.add(PackId::from_bytes([*pack; 16]), &one);
        }
        set
    }

    #[test]
    fn sets_are_joined_and_compared_pack_by_pack() {
        let (a, b) = (set(&[(1, 0), (1, 70_000), (2, 5)]), set(&[(1, 0), (3, 1)]));
        assert_eq!(a.without(&b), set(&[(1, 70_000), (2, 5)]));
        assert_eq!(b.without(&a), set(&[(3, 1)]));
        assert_eq!(a.common(&b), set(&[(1, 0)]));
        let mut both = a.clone();
        both.union(&b);
        assert_eq!((both.len(), a.len()), (4, 3));
        assert!(both.contains(&PackId::from_bytes([3; 16]), 1));
        assert!(a.without(&a).is_empty());
    }

    #[test]
    fn exclusive_is_what_no_other_set_has() {
        let sets = [
            set(&[(1, 0), (1, 1)]),
            set(&[(1, 1), (2, 2)]),
            set(&[(2, 2), (1, 1)]),
        ];
        let mut shared = Shared::default();
        sets.iter().for_each(|s| shared.add(s));
        assert_eq!(shared.exclusive(&sets[0]), set(&[(1, 0)]));
        assert!(shared.exclusive(&sets[1]).is_empty());
        assert_eq!(shared.all().len(), 3);
    }
}

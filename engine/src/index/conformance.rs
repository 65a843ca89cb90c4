//! One suite over every index: what they all must do.

use std::collections::BTreeSet;

use super::flat::FlatIndex;
use super::memory::MemoryIndex;
use super::merge::Merge;
use super::sled::SledIndex;
use super::{Location, ObjectIndex};
use crate::id::PackId;
use crate::pack::writer::IndexRow;
use crate::pack::{EntryKind, Key};

fn packs() -> Vec<(PackId, Vec<IndexRow>)> {
    (0..3u8)
        .map(|p| {
            let rows = (0..700u32).map(|n| IndexRow {
                key: Key {
                    id: *crate::ObjectId::of(&[p, n as u8, (n >> 8) as u8]).as_bytes(),
                    kind: EntryKind::ALL[n as usize % EntryKind::ALL.len()],
                    part: n % 3,
                },
                offset: n * 100,
                block_len: 100,
                entry: n % 7,
            });
            (PackId::from_bytes([p * 7; 16]), rows.collect())
        })
        .collect()
}

fn sorted_rows(packs: &[(PackId, Vec<IndexRow>)]) -> Vec<(Key, Location)> {
    let rows = packs
        .iter()
        .flat_map(|(id, rows)| rows.iter().map(|r| (r.key, Location::new(*id, r))));
    let mut rows: Vec<_> = rows.collect();
    rows.sort_unstable_by_key(|(key, _)| *key);
    rows
}

fn check(index: &dyn ObjectIndex) {
    check_packs(index, &packs());
}

fn check_packs(index: &dyn ObjectIndex, packs: &[(PackId, Vec<IndexRow>)]) {
    let expected = sorted_rows(packs);
    for (key, at) in &expected {
        assert_eq!(index.get(key).unwrap(), Some(*at), "{index:?}");
        let absent = Key {
            part: key.part + 9,
            ..*key
        };
        assert_eq!(index.get(&absent).unwrap(), None);
    }
    let mut ids: Vec<PackId> = packs.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    assert_eq!(index.packs().unwrap(), ids);
    let mut seen = Vec::new();
    index
        .for_each(&mut |key, at| {
            seen.push((*key, *at));
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, expected);
}

/// Names between two others, as an index finds them in the first two packs.
type Between<'a> = dyn Fn(EntryKind, ([u8; 32], [u8; 32])) -> BTreeSet<[u8; 32]> + 'a;

fn check_between(between: &Between<'_>, packs: &[(PackId, Vec<IndexRow>)]) {
    let wanted = &packs[..2];
    let rows = sorted_rows(wanted);
    let (first, last) = (rows[100].0.id, rows[900].0.id);
    let ranges = [
        ([0; 32], [0xff; 32]),
        (first, last),
        (first, first),
        (last, first),
        ([0xff; 32], [0xff; 32]),
    ];
    for kind in EntryKind::ALL {
        for (first, last) in ranges {
            let inside = rows.iter().map(|(key, _)| key);
            let inside = inside.filter(|key| first <= key.id && key.id <= last);
            let expected = inside.filter(|key| key.kind == kind).map(|key| key.id);
            let expected: BTreeSet<[u8; 32]> = expected.collect();
            assert_eq!(between(kind, (first, last)), expected, "{kind:?}");
        }
    }
}

#[test]
fn memory_index_conforms() {
    let mut index = MemoryIndex::default();
    for (id, rows) in packs() {
        index.add_pack(id, &rows);
    }
    let index = index.sort();
    check(&index);
    let packs = packs();
    let wanted = |id: &PackId| *id != packs[2].0;
    let between = |kind, (first, last): ([u8; 32], [u8; 32])| {
        let mut found = BTreeSet::new();
        index.ids_between(kind, (&first, &last), wanted, &mut found);
        found
    };
    check_between(&between, &packs);
}

#[test]
fn sled_index_conforms_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sled");
    let packs = packs();
    let borrowed: Vec<_> = packs
        .iter()
        .map(|(id, rows)| (*id, rows.as_slice()))
        .collect();
    let index = SledIndex::open(&path).unwrap();
    index.insert(&borrowed[..1]).unwrap();
    index.insert(&borrowed[1..]).unwrap();
    check(&index);
    drop(index);
    std::fs::write(path.join("snap.00000000FFFFFFFF.generating"), b"").unwrap();
    check(&SledIndex::open(&path).unwrap());
}

#[test]
fn a_damaged_database_is_replaced_by_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sled");
    let packs = packs();
    SledIndex::open(&path)
        .unwrap()
        .insert(&[(packs[0].0, &packs[0].1)])
        .unwrap();
    for damage in [&b"garbage"[..], &[0xa5; 600_000]] {
        std::fs::write(path.join("db"), damage).unwrap();
        let index = SledIndex::open(&path).unwrap();
        assert_eq!(index.packs().unwrap(), []);
        index
            .for_each(&mut |_, _| panic!("no row survives its pack"))
            .unwrap();
        index.insert(&[(packs[0].0, &packs[0].1)]).unwrap();
    }
}

#[test]
fn flat_index_conforms_and_notices_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("objects.idx");
    assert!(FlatIndex::open(&path).unwrap().is_none());
    let packs = packs();
    let mut memory = MemoryIndex::default();
    packs
        .iter()
        .for_each(|(id, rows)| memory.add_pack(*id, rows));
    let present = packs.iter().map(|(id, _)| *id).collect();
    let merge = |memory| Merge::new(&[], memory, &present).unwrap().write(&path);
    merge(&memory.sort()).unwrap();
    let index = FlatIndex::open(&path).unwrap().unwrap();
    check(&index);
    let wanted = |id: &PackId| *id != packs[2].0;
    let between = |kind, (first, last): ([u8; 32], [u8; 32])| {
        let mut found = BTreeSet::new();
        let range = (&first, &last);
        index.ids_between(kind, range, wanted, &mut found).unwrap();
        found
    };
    check_between(&between, &packs);
    index.verify().unwrap();
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(997) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bad).unwrap();
        let noticed = match FlatIndex::open(&path) {
            Ok(index) => index.unwrap().verify().is_err(),
            Err(_) => true,
        };
        // Bytes 20..24 and 40..64 of the header are unused.
        assert!(
            noticed || (20..24).contains(&at) || (40..64).contains(&at),
            "byte {at}"
        );
    }
}

//! Tests of the merged files: few of them, none of their rows lost, little memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files::{Builder, Files};
use super::flat::FlatIndex;
use super::memory::MemoryIndex;
use super::merge::Merge;
use super::set::{Index, IndexPaths, MERGE_ROWS};
use super::{Location, ObjectIndex};
use crate::id::PackId;
use crate::pack::writer::IndexRow;
use crate::pack::{EntryKind, Key};

fn key(n: u64) -> Key {
    Key::new(
        EntryKind::Dirtree,
        *crate::ObjectId::of(&n.to_le_bytes()).as_bytes(),
    )
}

fn rows(numbers: std::ops::Range<u64>) -> Vec<IndexRow> {
    let row = |n: u64| IndexRow {
        key: key(n),
        offset: n as u32,
        block_len: 1,
        entry: 0,
    };
    numbers.map(row).collect()
}

/// A directory that looks like a repository to the index, with packs that are only names.
fn repository(packs: &[PackId]) -> (tempfile::TempDir, IndexPaths) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("packs")).unwrap();
    std::fs::create_dir_all(dir.path().join("index")).unwrap();
    let paths = IndexPaths::new(dir.path());
    for pack in packs {
        std::fs::write(paths.pack(pack), b"").unwrap();
    }
    (dir, paths)
}

fn files_in(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

fn seen(index: &Index) -> BTreeMap<Key, Location> {
    let mut seen = BTreeMap::new();
    index
        .for_each(&mut |key, at| {
            assert!(seen.insert(*key, *at).is_none(), "each key once");
            Ok(())
        })
        .unwrap();
    seen
}

#[test]
fn many_commits_make_few_files_and_each_row_is_found() {
    let (dir, paths) = repository(&[]);
    let count = MERGE_ROWS as u64 + 1;
    let mut most = 0;
    for commit in 0..12u64 {
        let pack = PackId::from_bytes([commit as u8; 16]);
        std::fs::write(paths.pack(&pack), b"").unwrap();
        let rows = rows(commit * count..(commit + 1) * count);
        Index::add(&paths, &[(pack, &rows)]).unwrap();
        most = most.max(files_in(&dir.path().join("index/runs")));
    }
    assert!((1..=3).contains(&most), "{most} files");
    let index = Index::load(&paths).unwrap();
    assert_eq!(index.len() as u64, 12 * count);
    index.verify().unwrap();
    for n in (0..12 * count).step_by(977) {
        let at = index.get(&key(n)).unwrap().unwrap();
        let pack = PackId::from_bytes([(n / count) as u8; 16]);
        assert_eq!((at.pack, at.offset), (pack, n as u32));
        assert_eq!(index.get(&key(n + 12 * count)).unwrap(), None);
    }
    assert_eq!(seen(&index).len() as u64, 12 * count);
    // Whatever is in the directory of runs that belongs to no index is cleared away.
    std::fs::write(dir.path().join("index/runs/7.part"), b"torn").unwrap();
    let pack = PackId::from_bytes([0xee; 16]);
    std::fs::write(paths.pack(&pack), b"").unwrap();
    Index::add(&paths, &[(pack, &rows(0..count))]).unwrap();
    assert!(!dir.path().join("index/runs/7.part").exists());
}

#[test]
fn rows_beyond_the_limit_of_memory_are_merged_from_temporary_files() {
    let packs: Vec<PackId> = (0..7u8).map(|n| PackId::from_bytes([n * 30; 16])).collect();
    let (dir, paths) = repository(&packs);
    let present: BTreeSet<PackId> = packs.iter().copied().collect();
    let mut builder = Builder::with_limit(&paths, 2);
    let mut expected = BTreeMap::new();
    for (n, pack) in packs.iter().enumerate() {
        let rows = rows(n as u64 * 2..n as u64 * 2 + 3);
        builder.memory().add_pack(*pack, &rows);
        builder.spill_if_full(&present).unwrap();
        for row in rows {
            expected
                .entry(row.key)
                .or_insert_with(|| Location::new(*pack, &row));
        }
    }
    assert_eq!(builder.len(), 21);
    builder.merge_into(Files::default(), &present).unwrap();
    assert_eq!(files_in(&dir.path().join("index/runs")), 0);
    let index = Index::load(&paths).unwrap();
    assert_eq!(seen(&index), expected);
}

#[test]
fn an_entry_of_two_packs_is_found_when_one_is_gone() {
    let packs = [PackId::from_bytes([1; 16]), PackId::from_bytes([2; 16])];
    for gone in packs {
        let (_dir, paths) = repository(&packs);
        let mut builder = Builder::spilling(&paths);
        for pack in packs {
            builder.memory().add_pack(pack, &rows(0..40));
        }
        let present = packs.into_iter().collect();
        builder.merge_into(Files::default(), &present).unwrap();
        std::fs::remove_file(paths.pack(&gone)).unwrap();
        let index = Index::load(&paths).unwrap();
        let at = index.get(&key(7)).unwrap().unwrap();
        assert_ne!(at.pack, gone);
        assert_eq!(seen(&index).len(), 40);
    }
}

#[test]
fn a_merge_stops_at_damaged_rows() {
    let pack = PackId::from_bytes([1; 16]);
    let (dir, paths) = repository(&[pack]);
    let present = [pack].into();
    let mut builder = Builder::spilling(&paths);
    builder.memory().add_pack(pack, &rows(0..9000));
    builder.merge_into(Files::default(), &present).unwrap();
    let path = dir.path().join("index/objects.idx");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let file = FlatIndex::open(&path).unwrap().unwrap();
    let memory = MemoryIndex::default();
    let merge = Merge::new(&[&file], &memory, &present).unwrap();
    merge.write(&dir.path().join("new")).unwrap_err();
    assert!(!dir.path().join("new").exists());
}

#[test]
fn keys_are_found_however_unevenly_they_are_spread() {
    let even: Vec<[u8; 32]> = (0..3000).map(|n| key(n).id).collect();
    let same_start = even.iter().map(|id| {
        let mut id = *id;
        id[..12].fill(0x77);
        id
    });
    let edges = [[0; 32], [0xff; 32], [0x77; 32]];
    let mut keys: Vec<Key> = Vec::new();
    for id in even.iter().copied().chain(same_start).chain(edges) {
        keys.push(Key::new(EntryKind::Payload, id));
    }
    // A large payload: many parts under one name.
    keys.extend((0..5000).map(|part| Key {
        part: part * 2,
        ..Key::new(EntryKind::Payload, even[5])
    }));
    keys.sort_unstable();
    keys.dedup();
    let pack = PackId::from_bytes([9; 16]);
    let mut memory = MemoryIndex::default();
    let row = |(n, key): (usize, &Key)| IndexRow {
        key: *key,
        offset: n as u32,
        block_len: 1,
        entry: 0,
    };
    let rows: Vec<IndexRow> = keys.iter().enumerate().map(row).collect();
    memory.add_pack(pack, &rows);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("objects.idx");
    let (memory, present) = (memory.sort(), [pack].into());
    let merge = Merge::new(&[], &memory, &present).unwrap();
    merge.write(&path).unwrap();
    let index = FlatIndex::open(&path).unwrap().unwrap();
    for (n, key) in keys.iter().enumerate() {
        let found = index.get(key).unwrap().map(|at| at.offset);
        assert_eq!(found, Some(n as u32), "{key:?}");
        let absent = Key {
            part: key.part + 1,
            ..*key
        };
        assert_eq!(index.get(&absent).unwrap(), None, "{absent:?}");
    }
}

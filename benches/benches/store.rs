//! The way of bytes into a repository, step by step: cut, compressed, appended to a pack, indexed.

use std::cell::Cell;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use grove_engine::{Repository, probe};
use grove_fixtures::content::code::{self, Object};
use grove_fixtures::content::text;
use grove_fixtures::rng::Rng;

/// Bytes of an extent: large files are stored in such pieces.
const EXTENT: usize = 256 << 10;
/// Extents of a pack.
const EXTENTS: usize = 16;
const TEXT: usize = 4 << 20;
/// Rows of an index that has been in use for some time.
const ROWS: u64 = 100_000;
/// Rows of a pack: the index is asked for as many at a time.
const PACK: u64 = 20_000;

fn chunk(c: &mut Criterion) {
    let text = text::prose(&mut Rng::new(1), TEXT);
    assert!(probe::chunks(&text).len() > 16, "long texts are cut");
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("text", |b| b.iter(|| probe::chunks(black_box(&text))));
    group.finish();
}

fn compress(c: &mut Criterion) {
    let mut rng = Rng::new(1);
    let noise: Vec<u8> = (0..EXTENT / 8)
        .flat_map(|_| rng.word().to_le_bytes())
        .collect();
    let mut group = c.benchmark_group("extent");
    group.throughput(Throughput::Bytes(EXTENT as u64));
    for (name, bytes) in [
        ("text", text::prose(&mut rng, EXTENT)),
        ("program", code::elf(&mut rng, Object::Dynamic, EXTENT, "a")),
        ("noise", noise),
    ] {
        group.bench_function(format!("compress {name}"), |b| {
            b.iter(|| probe::compress(black_box(&bytes)).expect("because it is in memory"));
        });
        let compressed = probe::compress(&bytes).expect("because it is in memory");
        group.bench_function(format!("decompress {name}"), |b| {
            b.iter(|| {
                black_box(&compressed)
                    .decompress()
                    .expect("because it is whole")
            });
        });
    }
    group.finish();
}

fn append(c: &mut Criterion) {
    let mut rng = Rng::new(1);
    let extents: Vec<Vec<u8>> = (0..EXTENTS)
        .map(|_| code::elf(&mut rng, Object::Dynamic, EXTENT, "a"))
        .collect();
    let blocks = probe::Blocks::new(&extents).expect("because they are in memory");
    let dir = tempfile::tempdir().expect("because a benchmark needs a place to work");
    let path = dir.path().join("pack");
    let append = || blocks.append_to(&path).expect("because the place is ours");
    let mut group = c.benchmark_group("pack");
    group.throughput(Throughput::Bytes(append()));
    group.bench_function("append", |b| b.iter(append));
    group.finish();
}

fn index(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("because a benchmark needs a place to work");
    let path = dir.path().join("repo");
    let repo = Repository::init(&path).expect("because the directory does not exist");
    for start in (0..ROWS).step_by(PACK as usize) {
        // One more than what goes into the database, so that they are merged.
        probe::commit_pack(&repo, start..start + PACK + 1).expect("because the place is ours");
    }
    let open = Repository::open(&path).expect("because it was just made");
    let mut rng = Rng::new(1);
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(PACK));
    for (name, first, there) in [("get", 0, true), ("get, absent", 1 << 40, false)] {
        let probes: Vec<_> = (0..PACK)
            .map(|_| probe::probe(first + rng.below(ROWS as usize) as u64))
            .collect();
        group.bench_function(name, |b| {
            b.iter(|| {
                for probe in &probes {
                    let found = probe::has(&open, probe).expect("because the place is ours");
                    assert_eq!(found, there);
                }
            });
        });
    }
    group.sample_size(10);
    let next = Cell::new(1 << 20);
    for (name, rows) in [
        ("insert, into the database", 500),
        ("insert, merging", PACK + 1),
    ] {
        group.throughput(Throughput::Elements(rows));
        group.bench_function(name, |b| {
            b.iter_batched(
                || next.replace(next.get() + rows),
                |start| {
                    probe::commit_pack(&repo, start..start + rows)
                        .expect("because the place is ours");
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, chunk, compress, append, index);
criterion_main!(benches);

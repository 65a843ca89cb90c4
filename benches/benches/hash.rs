//! Naming objects, and parsing them.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use grove_engine::ObjectId;
use grove_engine::object::Dirtree;

fn hash(c: &mut Criterion) {
    let mut group = c.benchmark_group("ObjectId::of");
    for size in [64, 4 << 10, 256 << 10] {
        let bytes = vec![0x5a; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| ObjectId::of(black_box(&bytes)));
        });
    }
    group.finish();
}

fn dirtree(c: &mut Criterion) {
    let mut group = c.benchmark_group("Dirtree");
    for entries in [4, 100, 4000] {
        let files = (0..entries).map(|n| (format!("file-{n:06}.txt"), ObjectId::of(b"x")));
        let tree = Dirtree {
            files: files.collect(),
            dirs: Vec::new(),
        };
        let bytes = tree.to_bytes();
        group.throughput(Throughput::Elements(entries));
        group.bench_function(BenchmarkId::new("parse", entries), |b| {
            b.iter(|| Dirtree::parse(black_box(&bytes)).expect("because it was just written"));
        });
        group.bench_function(BenchmarkId::new("to_bytes", entries), |b| {
            b.iter(|| black_box(&tree).to_bytes());
        });
    }
    group.finish();
}

criterion_group!(benches, hash, dirtree);
criterion_main!(benches);

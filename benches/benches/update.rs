//! What an update costs: likeness found and written down, and OSTree's static deltas of whole commits.

use std::fs;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use grove_benches::workload::{Workload, commit};
use grove_engine::ops::source::SourceOptions;
use grove_engine::ops::static_delta::{DeltaAt, DeltaName, GenerateOptions, generate, verify};
use grove_engine::{ObjectId, Repository, Silent, probe};
use grove_fixtures::content::code::{self, Object};
use grove_fixtures::rng::Rng;
use grove_fixtures::tree::mutate;

const SIZE: usize = 1 << 20;

/// A program, and what an update makes of it.
fn two_programs() -> (Vec<u8>, Vec<u8>) {
    let old = code::elf(&mut Rng::new(1), Object::Dynamic, SIZE, "program");
    let mut new = old.clone();
    code::update(&mut new, &mut Rng::new(2));
    (old, new)
}

fn differences(c: &mut Criterion) {
    let (old, new) = two_programs();
    let difference = probe::bsdiff(&old, &new);
    let made = probe::bspatch(&old, &difference, new.len());
    assert_eq!(made.as_deref(), Some(&*new));
    let delta = probe::compress_against(&old, &new).expect("because it is in memory");
    assert!(delta.len() < new.len() / 4, "{}", delta.len());
    let mut group = c.benchmark_group("difference");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(new.len() as u64));
    group.bench_function("bsdiff", |b| {
        b.iter(|| probe::bsdiff(black_box(&old), black_box(&new)));
    });
    group.bench_function("bspatch", |b| {
        b.iter(|| probe::bspatch(black_box(&old), black_box(&difference), new.len()));
    });
    group.bench_function("compress against the base", |b| {
        b.iter(|| probe::compress_against(black_box(&old), black_box(&new)));
    });
    group.finish();
}

/// A repository with a tree of 300 files and some programs, before and after an update.
fn two_commits(work: &Workload) -> (Repository, [ObjectId; 2]) {
    let repo = work.fresh_repository("update");
    let (old, new) = two_programs();
    let lib = work.tree.join("program.so");
    let write = |bytes: &[u8]| {
        fs::write(&lib, bytes).expect("because the directory is ours");
        commit(&repo, &work.tree, &SourceOptions::default())
    };
    let from = write(&old);
    mutate(&work.tree, 1).expect("because the tree was just built");
    let to = write(&new);
    (repo, [from, to])
}

fn static_delta(c: &mut Criterion) {
    let work = Workload::new(300);
    let (repo, [from, to]) = two_commits(&work);
    let name = DeltaName {
        from: Some(from),
        to,
    };
    let file = work.path("delta");
    let mut options = GenerateOptions::default();
    options.inline = true;
    options.output = Some(file.clone());
    let make = || generate(&repo, name, &options, &Silent).expect("because both commits are there");
    let made = make();
    assert!(made.patched_files + made.spliced_files > 0, "{made:?}");
    let mut group = c.benchmark_group("static delta");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(made.made_bytes));
    group.bench_function("generate", |b| b.iter(make));
    let at = DeltaAt::Path(&file);
    group.bench_function("verify", |b| {
        b.iter(|| verify(&repo, &at, &Silent).expect("because it was just made"));
    });
    group.finish();
}

criterion_group!(benches, differences, static_delta);
criterion_main!(benches);

//! Looking things up in a repository, reading payloads, checking out.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use grove_benches::workload::{Workload, files};
use grove_engine::object::FileObject;
use grove_engine::ops::checkout::{CheckoutOptions, checkout};
use grove_engine::{ObjectId, Repository, Silent};

/// Larger payloads are stored as extents, smaller ones in groups.
const GROUPED_MAX: u64 = 128 << 10;

fn load(repo: &Repository, commit: &ObjectId) -> Vec<FileObject> {
    let ids = files(repo, commit).expect("because the commit is complete");
    let file = |id| repo.file(id).expect("because the commit is complete");
    ids.iter().map(file).collect()
}

/// Reads files whole; gives the number of bytes.
fn read(repo: &Repository, files: &[&FileObject]) -> u64 {
    let mut buffer = vec![0; 4 << 20];
    let one = |file: &&FileObject| {
        let read = repo.read_at(file, 0, &mut buffer);
        read.expect("because the payload is stored") as u64
    };
    files.iter().map(one).sum()
}

fn lookups(c: &mut Criterion) {
    let work = Workload::new(1000);
    let (repo, commit) = work.committed("repo");
    let ids = files(&repo, &commit).expect("because the commit is complete");
    let mut group = c.benchmark_group("lookup");
    group.sample_size(20);
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("file records", |b| {
        b.iter(|| {
            for id in &ids {
                black_box(repo.file(id).expect("because the commit is complete"));
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("ref", |b| {
        b.iter(|| repo.resolve_rev("bench").expect("because it was just set"));
    });
    group.bench_function("open the repository", |b| {
        b.iter(|| Repository::open(repo.path()).expect("because it was just made"));
    });
    group.finish();
}

fn payloads(c: &mut Criterion) {
    let work = Workload::new(1000);
    let (repo, commit) = work.committed("repo");
    let all = load(&repo, &commit);
    let mut group = c.benchmark_group("read");
    group.sample_size(10);
    for (name, is_wanted) in [
        ("grouped", (|size| size <= GROUPED_MAX) as fn(u64) -> bool),
        ("extents", |size| size > GROUPED_MAX),
    ] {
        let wanted: Vec<&FileObject> = all
            .iter()
            .filter(|file| file.size > 0 && is_wanted(file.size))
            .collect();
        group.throughput(Throughput::Bytes(read(&repo, &wanted)));
        // A repository that was just opened has no decoded blocks.
        group.bench_function(format!("{name}, cold"), |b| {
            b.iter_batched(
                || Repository::open(repo.path()).expect("because it was just made"),
                |repo| read(&repo, &wanted),
                BatchSize::PerIteration,
            );
        });
        group.bench_function(format!("{name}, warm"), |b| {
            b.iter(|| read(&repo, &wanted));
        });
    }
    group.finish();
}

fn checkouts(c: &mut Criterion) {
    let work = Workload::new(1000);
    let (repo, commit) = work.committed("repo");
    let target = work.path("checkout");
    let options = CheckoutOptions {
        user_mode: true,
        ..CheckoutOptions::default()
    };
    let mut group = c.benchmark_group("checkout");
    group.sample_size(10);
    group.bench_function("1,000 files", |b| {
        b.iter_batched(
            || {
                if target.exists() {
                    std::fs::remove_dir_all(&target).expect("because nobody else uses it");
                }
            },
            |()| checkout(&repo, &commit, &target, &options, &Silent),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, lookups, payloads, checkouts);
criterion_main!(benches);

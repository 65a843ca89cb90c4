//! Random reads of an older version of large programs, stored plain, and of the next, stored as deltas; and
//! what it costs to make the sketch by which a file that moved is found again.

use std::fs;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use grove_benches::workload::{Workload, commit, files};
use grove_engine::object::FileObject;
use grove_engine::ops::source::SourceOptions;
use grove_engine::{ObjectId, Repository, probe};
use grove_fixtures::content::code::{self, Object};
use grove_fixtures::rng::Rng;

const FILES: usize = 4;
const SIZE: usize = 12 << 20;
/// A page fault in a mapped program reads about as much.
const READ: usize = 128 << 10;

fn load(repo: &Repository, commit: &ObjectId) -> Vec<FileObject> {
    let ids = files(repo, commit).expect("because the commit is complete");
    let file = |id| repo.file(id).expect("because the commit is complete");
    ids.iter().map(file).collect()
}

/// Commits the programs, then the same after an update.
fn two_versions(work: &Workload) -> (Repository, [Vec<FileObject>; 2]) {
    let tree = work.path("programs");
    let lib = tree.join("usr/lib");
    fs::create_dir_all(&lib).expect("because the directory is ours");
    let mut programs: Vec<Vec<u8>> = (0..FILES as u64)
        .map(|n| code::elf(&mut Rng::new(n), Object::Dynamic, SIZE, "program"))
        .collect();
    let repo = work.fresh_repository("deltas");
    let mut versions = Vec::new();
    for version in 0..2 {
        for (n, program) in programs.iter_mut().enumerate() {
            if version > 0 {
                code::update(program, &mut Rng::new(100 + n as u64));
            }
            fs::write(lib.join(format!("{n}.so")), program).expect("because the directory is ours");
        }
        let id = commit(&repo, &tree, &SourceOptions::default());
        versions.push(load(&repo, &id));
    }
    let [old, new] = versions.try_into().expect("because there are two");
    (repo, [old, new])
}

/// Reads at random places of random files.
fn read(repo: &Repository, files: &[FileObject], rng: &mut Rng, buffer: &mut [u8]) -> usize {
    let file = rng.pick(files);
    let offset = rng.below(file.size as usize - READ) as u64;
    repo.read_at(file, offset, buffer)
        .expect("because the payload is stored")
}

fn deltas(c: &mut Criterion) {
    let work = Workload::new(10);
    let (repo, [old, new]) = two_versions(&work);
    let (stored, _) = repo.stored().expect("because the repository is ours");
    let plain = (FILES * SIZE) as u64;
    assert!(
        stored < plain,
        "{stored} bytes: the second version must be deltas"
    );
    let mut group = c.benchmark_group("read 128 KiB");
    group.throughput(Throughput::Bytes(READ as u64));
    let mut buffer = vec![0; READ];
    for (name, files) in [("plain", &old), ("delta", &new)] {
        // A repository that was just opened has no decoded blocks.
        group.sample_size(50);
        let mut rng = Rng::new(1);
        group.bench_function(format!("{name}, cold"), |b| {
            b.iter_batched(
                || Repository::open(repo.path()).expect("because it was just made"),
                |repo| {
                    black_box(read(&repo, files, &mut rng, &mut buffer));
                    repo
                },
                BatchSize::PerIteration,
            );
        });
        // 16 MiB of one file: it stays in the cache.
        let warm = Repository::open(repo.path()).expect("because it was just made");
        let one = files.get(..1).expect("because there are some");
        let mut whole = vec![0; SIZE + SIZE / 2];
        if let Some(file) = one.first() {
            warm.read_at(file, 0, &mut whole)
                .expect("because it is stored");
        }
        let mut rng = Rng::new(2);
        group.bench_function(format!("{name}, warm"), |b| {
            b.iter(|| black_box(read(&warm, one, &mut rng, &mut buffer)));
        });
    }
    group.finish();
}

fn sketches(c: &mut Criterion) {
    let mut group = c.benchmark_group("sketch");
    for (name, size) in [("16 KiB", 16 << 10), ("12 MiB", SIZE)] {
        let program = code::elf(&mut Rng::new(1), Object::Dynamic, size, "program");
        assert!(probe::sketch(&program).is_some(), "{name}");
        group.throughput(Throughput::Bytes(program.len() as u64));
        group.bench_function(name, |b| b.iter(|| probe::sketch(black_box(&program))));
    }
    group.finish();
}

criterion_group!(benches, deltas, sketches);
criterion_main!(benches);

//! Trees as a whole: what differs between two, packages merged into one, its image made and asked.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use grove_benches::workload::{Workload, commit};
use grove_compose::import::DigestTable;
use grove_compose::{ImportOptions, UnknownOwner, find_packages, import_packages, merge_packages};
use grove_engine::ops::diff::{DiffOptions, Side, diff};
use grove_engine::ops::ls::Node;
use grove_engine::ops::source::SourceOptions;
use grove_engine::tree::MutableTree;
use grove_engine::{ObjectId, Repository, Silent};
use grove_fixtures::mini::{Scale, build_distribution};
use grove_fixtures::tree::mutate;
use grove_fusefs::image::prepare;
use grove_fusefs::view::{Lookup, View, What};

/// The inode number of a mount's root.
const ROOT: u64 = 1;
const FILES: u32 = 1000;

fn side(repo: &Repository, commit: &ObjectId) -> Side<'static> {
    let commit = repo.commit(commit).expect("because it was just made");
    Side::Stored(Node::root(&commit))
}

fn diffs(c: &mut Criterion) {
    let work = Workload::new(FILES);
    let (repo, from) = work.committed("diff");
    mutate(&work.tree, 1).expect("because the tree was just built");
    let to = commit(&repo, &work.tree, &SourceOptions::default());
    let (a, b) = (side(&repo, &from), side(&repo, &to));
    let mut group = c.benchmark_group("diff of 1,000 files");
    let paths = DiffOptions::default();
    let details = DiffOptions {
        details: true,
        moves: true,
        ..DiffOptions::default()
    };
    for (name, b, options) in [
        ("paths of two commits", b, &paths),
        ("details and moves of two commits", b, &details),
        (
            "paths of a commit and a directory",
            Side::Local(&work.tree),
            &paths,
        ),
    ] {
        group.sample_size(if matches!(b, Side::Local(_)) { 10 } else { 50 });
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let found = diff(Some(&repo), a, b, options, &Silent);
                assert!(!found.expect("because both are there").is_empty());
            });
        });
    }
    group.finish();
}

fn merges(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("because a benchmark needs a place to work");
    let packages = dir.path().join("packages");
    build_distribution(&packages, 1, Scale::Small).expect("because the place is ours");
    let paths = find_packages(&packages).expect("because they were just built");
    let repo = dir.path().join("repo");
    let repo = Repository::init(&repo).expect("because the directory does not exist");
    let mut txn = repo.begin(&Silent).expect("because nobody else uses it");
    let digests = DigestTable::default();
    let mut options = ImportOptions::default();
    // As the program has it: some packages name users that nobody has.
    options.owners.unknown = UnknownOwner::Root;
    let imported = import_packages(&mut txn, &paths, &options, &digests, &Silent)
        .expect("because they were just built");
    txn.publish(&[]).expect("because the place is ours");
    let mut group = c.benchmark_group("merge of packages");
    group.throughput(Throughput::Elements(imported.len() as u64));
    group.bench_function("a small distribution", |b| {
        b.iter_batched(
            MutableTree::default,
            |mut tree| {
                merge_packages(&repo, &mut tree, &imported).expect("because they fit together");
                tree
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// All names below a directory with the numbers of the directories they are in.
fn names(view: &View<Repository>) -> Vec<(u64, Vec<u8>)> {
    let (mut found, mut todo) = (Vec::new(), vec![ROOT]);
    while let Some(dir) = todo.pop() {
        let mut here = Vec::new();
        let listed = view.readdir(dir, 0, &mut |item| {
            here.push(item.name.as_bytes().to_vec());
            false
        });
        listed.expect("because the commit is complete");
        for name in here {
            if name == b"." || name == b".." {
                continue;
            }
            let Ok(Lookup::Found(entry)) = view.lookup(dir, &name) else {
                panic!("{name:?} is listed and not found");
            };
            if entry.attr.mode & 0o170_000 == 0o040_000 {
                todo.push(entry.attr.number);
            }
            found.push((dir, name));
        }
    }
    found
}

fn images(c: &mut Criterion) {
    let work = Workload::new(FILES);
    let (repo, commit) = work.committed("image");
    let path = repo.image_path(&commit);
    let make = || prepare(&repo, &commit).expect("because the commit is complete");
    let mut group = c.benchmark_group("image of 1,000 files");
    group.sample_size(20);
    group.bench_function("make", |b| {
        b.iter_batched(
            || drop(std::fs::remove_file(&path)),
            |()| make(),
            BatchSize::PerIteration,
        );
    });
    make();
    let repo = Repository::open(repo.path()).expect("because it was just made");
    let view = View::new(Arc::new(repo), What::Commit(commit)).expect("because it is there");
    let names = names(&view);
    assert!(names.len() > FILES as usize, "{}", names.len());
    group.throughput(Throughput::Elements(names.len() as u64));
    group.bench_function("look names up", |b| {
        b.iter(|| {
            for (dir, name) in &names {
                black_box(view.lookup(*dir, name).expect("because it is there"));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, diffs, merges, images);
criterion_main!(benches);

//! Commits of a directory: the first, the same again with the stat cache, the same again without it.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use grove_benches::workload::{Workload, commit};
use grove_engine::ops::source::SourceOptions;

fn commits(c: &mut Criterion) {
    let work = Workload::new(1000);
    let mut group = c.benchmark_group("commit of 1,000 files");
    group.sample_size(10);
    let options = SourceOptions::default();
    group.bench_function("first", |b| {
        b.iter_batched(
            || work.fresh_repository("first"),
            |repo| commit(&repo, &work.tree, &options),
            BatchSize::PerIteration,
        );
    });
    let (repo, _) = work.committed("again");
    group.bench_function("again", |b| {
        b.iter(|| commit(&repo, &work.tree, &options));
    });
    let reading = SourceOptions {
        no_stat_cache: true,
        ..SourceOptions::default()
    };
    group.bench_function("again, reading every file", |b| {
        b.iter(|| commit(&repo, &work.tree, &reading));
    });
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);

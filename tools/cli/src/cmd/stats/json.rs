//! The figures as JSON.

use grove_engine::ops::stats::{CommitStats, LargePayload, RefStats, Savings, StatsReport};
use serde::Serialize;

use crate::time;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    commits: u64,
    files: u64,
    symlinks: u64,
    directories: u64,
    logical_bytes: u64,
    unique_bytes: u64,
    stored_bytes: u64,
    metadata_bytes: u64,
    unreachable_bytes: u64,
    file_objects: u64,
    dirtree_objects: u64,
    payloads: u64,
    stored_objects: u64,
    saved: Saved,
    refs: Vec<Ref>,
    history: Vec<Commit>,
    largest: Vec<Large>,
}

#[derive(Debug, Serialize)]
struct Saved {
    file_dedup_bytes: u64,
    header_split_bytes: u64,
    chunking_bytes: u64,
    compression_bytes: u64,
    grouping_bytes: u64,
    delta_bytes: u64,
    recoding_bytes: u64,
    grouping_sample: Sample,
}

#[derive(Debug, Serialize)]
struct Sample {
    payloads: u64,
    bytes: u64,
    grouped_bytes: u64,
    alone_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Ref {
    name: String,
    commit: String,
    files: u64,
    symlinks: u64,
    directories: u64,
    logical_bytes: u64,
    unique_bytes: u64,
    stored_bytes: u64,
    exclusive_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Commit {
    commit: String,
    date: String,
    subject: String,
    refs: Vec<String>,
    files: u64,
    symlinks: u64,
    directories: u64,
    logical_bytes: u64,
    unique_bytes: u64,
    stored_bytes: u64,
    added_bytes: u64,
    exclusive_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Large {
    payload: String,
    path: String,
    bytes: u64,
    stored_bytes: u64,
    commits: u64,
}

pub(super) fn report(found: &StatsReport) -> Report {
    Report {
        commits: found.commits,
        files: found.totals.files,
        symlinks: found.totals.symlinks,
        directories: found.totals.dirs,
        logical_bytes: found.totals.logical_bytes,
        unique_bytes: found.unique_bytes,
        stored_bytes: found.stored_bytes,
        metadata_bytes: found.metadata_bytes,
        unreachable_bytes: found.unreachable_bytes,
        file_objects: found.file_objects,
        dirtree_objects: found.dirtree_objects,
        payloads: found.payloads,
        stored_objects: found.stored_objects,
        saved: saved(&found.savings),
        refs: found.refs.iter().map(of_ref).collect(),
        history: found.history.iter().map(of_commit).collect(),
        largest: found.largest.iter().map(of_payload).collect(),
    }
}

fn saved(found: &Savings) -> Saved {
    Saved {
        file_dedup_bytes: found.file_dedup,
        header_split_bytes: found.header_split,
        chunking_bytes: found.chunking,
        compression_bytes: found.compression,
        grouping_bytes: found.grouping,
        delta_bytes: found.deltas,
        recoding_bytes: found.recoding,
        grouping_sample: Sample {
            payloads: found.sample.sampled.entries,
            bytes: found.sample.sampled.raw_bytes,
            grouped_bytes: found.sample.sampled.stored_bytes,
            alone_bytes: found.sample.alone_bytes,
        },
    }
}

fn of_ref(row: &RefStats) -> Ref {
    Ref {
        name: row.name.clone(),
        commit: row.commit.to_string(),
        files: row.totals.files,
        symlinks: row.totals.symlinks,
        directories: row.totals.dirs,
        logical_bytes: row.totals.logical_bytes,
        unique_bytes: row.unique_bytes,
        stored_bytes: row.stored_bytes,
        exclusive_bytes: row.exclusive_bytes,
    }
}

fn of_commit(row: &CommitStats) -> Commit {
    Commit {
        commit: row.commit.to_string(),
        date: time::iso(row.timestamp),
        subject: row.subject.clone(),
        refs: row.refs.clone(),
        files: row.totals.files,
        symlinks: row.totals.symlinks,
        directories: row.totals.dirs,
        logical_bytes: row.totals.logical_bytes,
        unique_bytes: row.unique_bytes,
        stored_bytes: row.stored_bytes,
        added_bytes: row.added_bytes,
        exclusive_bytes: row.exclusive_bytes,
    }
}

fn of_payload(row: &LargePayload) -> Large {
    Large {
        payload: row.payload.to_string(),
        path: row.path.clone(),
        bytes: row.size,
        stored_bytes: row.stored_bytes,
        commits: row.commits,
    }
}

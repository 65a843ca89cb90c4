//! The goals of the scenario, met or missed, over all runs.

use super::step;
use crate::record::{GOAL, Record};
use crate::render::{Median, medians};

/// What a ratio is about: step, peer, how many times the peer's figure is allowed.
const RATIOS: [(&str, &str, f64); 8] = [
    (step::WALK, "ext4", 1.05),
    (step::COLD_WALK, "ext4", 1.0),
    (step::COLD_WALK, "squashfs zstd", 1.0),
    (step::COLD_WALK, "EROFS lz4hc", 1.5),
    (step::SMALL, "ext4", 1.3),
    (step::TAR, "ext4", 1.1),
    (step::EVERYTHING, "squashfs zstd", 0.5),
    (step::EVERYTHING, "EROFS lz4hc", 1.4),
];

/// Milliseconds in which a mount is there.
const MOUNT: f64 = 5.0;
/// Milliseconds of a read at a random place, of a file as it is and of one stored as a difference.
const RANDOM: [(&str, f64); 2] = [(step::RANDOM, 1.5), (step::CHANGED, 2.0)];
/// MiB of anonymous memory of the server.
const ANONYMOUS: f64 = 128.0;

/// Adds the verdicts.
pub(in crate::scenario) fn judge(record: &mut Record) {
    let rows = medians(record, "mount");
    let find = |step: &str, tool: &str| {
        let same = |row: &&Median| row.first.step == step && row.first.tool == tool;
        rows.iter().find(same)
    };
    let mut lines = Vec::new();
    for (step, peer, limit) in RATIOS {
        if let (Some(ours), Some(theirs)) = (find(step, "grove"), find(step, peer)) {
            lines.push(ratio(step, peer, ours, theirs, limit));
        }
    }
    for step in [step::MOUNT, step::SECOND_MOUNT, step::MOUNT_MANY] {
        if let Some(ours) = find(step, "grove") {
            let found = ours.figures.wall_seconds * 1e3;
            lines.push(at_most(&format!("{step}, wall ms"), found, MOUNT));
        }
    }
    for (step, limit) in RANDOM {
        if let Some(p50) = find(step, "grove").and_then(|row| row.figures.p50_seconds) {
            lines.push(at_most(&format!("{step}, p50 ms"), p50 * 1e3, limit));
        }
    }
    if let Some(requests) =
        find(step::SHARED_AGAIN, "grove").and_then(|row| row.figures.server_reads)
    {
        let what = format!("{}, requests", step::SHARED_AGAIN);
        lines.push(at_most(&what, requests as f64, 0.0));
    }
    if let Some(ours) = find(step::ANONYMOUS, "grove") {
        let found = ours.figures.peak_rss_bytes as f64 / f64::from(1 << 20);
        let what = "anonymous memory of the server with very many files, MiB";
        lines.push(at_most(what, found, ANONYMOUS));
    }
    for line in lines {
        record.fact(GOAL, format!("mount: {line}"));
    }
}

/// The better of processor and wall time counts; both are told.
fn ratio(step: &str, peer: &str, ours: &Median, theirs: &Median, limit: f64) -> String {
    let over = |ours: f64, theirs: f64| ours / theirs.max(1e-9);
    let cpu = over(ours.figures.cpu_seconds(), theirs.figures.cpu_seconds());
    let wall = over(ours.figures.wall_seconds, theirs.figures.wall_seconds);
    let least_cpu = over(ours.least_cpu_seconds, theirs.least_cpu_seconds);
    let least_wall = over(ours.least_wall_seconds, theirs.least_wall_seconds);
    let what = format!(
        "{step}, against {peer} (CPU {cpu:.2}, wall {wall:.2}; of the least CPU {least_cpu:.2}, wall {least_wall:.2})"
    );
    at_most(&what, cpu.min(wall), limit)
}

fn at_most(what: &str, found: f64, limit: f64) -> String {
    let word = if found <= limit { "met" } else { "MISSED" };
    format!("{word}: {what}: {found:.2}, at most {limit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Row;

    fn row(step: &str, tool: &str, cpu: f64, wall_seconds: f64) -> Row {
        Row {
            scenario: "mount".into(),
            step: step.into(),
            tool: tool.into(),
            user_seconds: cpu,
            wall_seconds,
            ..Row::default()
        }
    }

    #[test]
    fn the_better_of_processor_and_wall_time_counts() {
        let rows = vec![
            row(step::WALK, "ext4", 1.0, 2.0),
            row(step::WALK, "grove", 1.2, 1.9),
            row(step::TAR, "ext4", 1.0, 1.0),
            row(step::TAR, "grove", 1.5, 1.2),
            row(step::MOUNT, "grove", 0.0, 0.004),
        ];
        let mut record = Record {
            rows,
            ..Record::default()
        };
        judge(&mut record);
        let goals: Vec<&str> = record.values(GOAL).collect();
        let [walk, tar, mount] = goals.as_slice() else {
            panic!("{goals:?}");
        };
        assert!(walk.starts_with("mount: met: walk") && walk.ends_with(": 0.95, at most 1.05"));
        assert!(tar.starts_with("mount: MISSED: tar") && tar.ends_with(": 1.20, at most 1.1"));
        assert_eq!(*mount, "mount: met: mount, wall ms: 4.00, at most 5");
    }

    #[test]
    fn a_single_request_misses_the_goal_of_none() {
        let mut record = Record::default();
        for (requests, word) in [(0, "met"), (1, "MISSED")] {
            record.rows = vec![Row {
                server_reads: Some(requests),
                ..row(step::SHARED_AGAIN, "grove", 0.0, 0.0)
            }];
            record.facts.clear();
            judge(&mut record);
            let goals: Vec<&str> = record.values(GOAL).collect();
            assert!(goals.len() == 1 && goals[0].contains(word), "{goals:?}");
        }
    }
}

//! What was aimed at and what was found, over all kept runs: the table at the top of docs/benchmarks.md.

use std::fmt::Write as _;

use crate::record::{GOAL, Record};
use crate::render::{escaped, without_run};

/// A goal, and what each run found.
#[derive(Debug, PartialEq, Eq)]
struct Goal {
    scenario: String,
    what: String,
    /// Such as `at most 0.5`.
    limit: String,
    /// In the order of the runs; what was missed stands out.
    found: Vec<String>,
}

/// A table of all goals in Markdown, with what each of the named runs found.
pub fn table(runs: &[(Record, String)]) -> String {
    let mut goals: Vec<Goal> = Vec::new();
    for (record, run) in runs {
        for line in record.values(GOAL) {
            if let Some(one) = parse(&without_run(line), run) {
                join(&mut goals, one);
            }
        }
    }
    // Each scenario in one piece, in the order in which they first came.
    let order: Vec<String> = goals.iter().map(|goal| goal.scenario.clone()).collect();
    goals.sort_by_key(|goal| order.iter().position(|name| *name == goal.scenario));
    let mut out = String::from("| scenario | goal | | found |\n|---|---|---|---|\n");
    for goal in goals {
        let Goal {
            scenario,
            what,
            limit,
            found,
        } = goal;
        let found = found.join("; ");
        writeln!(
            out,
            "| {scenario} | {} | {limit} | {found} |",
            escaped(&what)
        )
        .expect("because a string takes every write");
    }
    out
}

fn join(goals: &mut Vec<Goal>, one: Goal) {
    let same = |known: &&mut Goal| {
        (&known.scenario, &known.what, &known.limit) == (&one.scenario, &one.what, &one.limit)
    };
    match goals.iter_mut().find(same) {
        Some(known) => known.found.extend(one.found),
        None => goals.push(one),
    }
}

/// From `scenario: met: what (figures): found, limit`.
fn parse(line: &str, run: &str) -> Option<Goal> {
    let (scenario, rest) = line.split_once(": ")?;
    let (word, rest) = rest.split_once(": ")?;
    let (what, rest) = rest.rsplit_once(": ")?;
    let (found, limit) = rest.split_once(", ")?;
    let what = what.split_once(" (").map_or(what, |(what, _)| what);
    let found = match word {
        "met" => format!("{found} ({run})"),
        _ => format!("**{found}** ({run})"),
    };
    Some(Goal {
        scenario: scenario.to_owned(),
        what: what.to_owned(),
        limit: limit.to_owned(),
        found: vec![found],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_of_all_runs_stand_in_one_table() {
        let run = |lines: &[&str], name: &str| {
            let mut record = Record::default();
            lines.iter().for_each(|line| record.fact(GOAL, *line));
            (record, name.to_owned())
        };
        let runs = [
            run(
                &[
                    "mount: met: walk, against ext4 (CPU 1.0, wall 1.1): 1.00, at most 1.05",
                    "delta, run 1: MISSED: bytes: 0.463, at most 0.4",
                    "delta, run 2: met: bytes: 0.399, at most 0.4",
                ],
                "one",
            ),
            run(
                &[
                    "diff: met: CPU: 0.015, at most 0.05",
                    "mount: MISSED: tar: 1.20, at most 1.1",
                    "mount: MISSED: walk, against ext4 (CPU 1.1): 1.10, at most 1.05",
                ],
                "two",
            ),
        ];
        let table = table(&runs);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| mount | walk, against ext4 | at most 1.05 | 1.00 (one); **1.10** (two) |",
                "| mount | tar | at most 1.1 | **1.20** (two) |",
                "| delta | bytes | at most 0.4 | **0.463** (one); 0.399 (one) |",
                "| diff | CPU | at most 0.05 | 0.015 (two) |",
            ]
        );
    }
}

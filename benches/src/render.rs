//! Tables of what was measured: for a terminal, and in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::record::{Record, Row};

/// The median of the repetitions of one step by one program.
#[derive(Debug, Clone, PartialEq)]
pub struct Median {
    /// The first repetition, for everything that does not vary.
    pub first: Row,
    /// Its figures are the medians.
    pub figures: Row,
    /// The least processor time of all repetitions.
    pub least_cpu_seconds: f64,
    /// The least wall time of all repetitions.
    pub least_wall_seconds: f64,
    /// How many there were.
    pub repetitions: usize,
}

/// Medians of the rows of one scenario, steps in the order in which they first came.
pub fn medians(record: &Record, scenario: &str) -> Vec<Median> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in record.rows.iter().filter(|row| row.scenario == scenario) {
        let same = |group: &&mut Vec<&Row>| {
            group
                .first()
                .is_some_and(|r| r.step == row.step && r.tool == row.tool)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups.iter().filter_map(|group| median_of(group)).collect()
}

fn median_of(group: &[&Row]) -> Option<Median> {
    let first = (*group.first()?).clone();
    let figures = Row {
        user_seconds: middle(group, |row| row.user_seconds),
        system_seconds: middle(group, |row| row.system_seconds),
        wall_seconds: middle(group, |row| row.wall_seconds),
        peak_rss_bytes: middle(group, |row| row.peak_rss_bytes as f64) as u64,
        stored_bytes: first
            .stored_bytes
            .map(|_| middle(group, |row| row.stored_bytes.unwrap_or(0) as f64) as u64),
        allocated_bytes: first
            .allocated_bytes
            .map(|_| middle(group, |row| row.allocated_bytes.unwrap_or(0) as f64) as u64),
        added_bytes: first
            .added_bytes
            .map(|_| middle(group, |row| row.added_bytes.unwrap_or(0) as f64) as i64),
        server_seconds: first
            .server_seconds
            .map(|_| middle(group, |row| row.server_seconds.unwrap_or(0.0))),
        kernel_seconds: first
            .kernel_seconds
            .map(|_| middle(group, |row| row.kernel_seconds.unwrap_or(0.0))),
        p50_seconds: first
            .p50_seconds
            .map(|_| middle(group, |row| row.p50_seconds.unwrap_or(0.0))),
        p99_seconds: first
            .p99_seconds
            .map(|_| middle(group, |row| row.p99_seconds.unwrap_or(0.0))),
        server_reads: first
            .server_reads
            .map(|_| middle(group, |row| row.server_reads.unwrap_or(0) as f64) as u64),
        ..first.clone()
    };
    Some(Median {
        first,
        figures,
        least_cpu_seconds: least(group, Row::cpu_seconds),
        least_wall_seconds: least(group, |row| row.wall_seconds),
        repetitions: group.len(),
    })
}

fn least(group: &[&Row], figure: impl Fn(&Row) -> f64) -> f64 {
    let values = group.iter().map(|row| figure(row));
    values.fold(f64::INFINITY, f64::min)
}

fn middle(group: &[&Row], figure: impl Fn(&Row) -> f64) -> f64 {
    let mut values: Vec<f64> = group.iter().map(|row| figure(row)).collect();
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(0.0);
    if values.len() % 2 == 1 {
        return upper;
    }
    let lower = values.get(values.len() / 2 - 1).copied().unwrap_or(upper);
    f64::midpoint(lower, upper)
}

const HEAD: [&str; 19] = [
    "step",
    "program",
    "CPU s",
    "user",
    "system",
    "server",
    "kernel",
    "wall s",
    "least CPU",
    "least wall",
    "p50 ms",
    "p99 ms",
    "server reads",
    "CPU / grove",
    "peak MiB",
    "stored MiB",
    "on disk MiB",
    "added MiB",
    "checksum",
];

/// A table: head and rows, without columns that have nothing in them.
fn grid(rows: &[Median]) -> Vec<Vec<String>> {
    let mut ours: BTreeMap<&str, f64> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.first.tool == "grove") {
        ours.insert(&row.first.step, row.figures.cpu_seconds());
    }
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    for median in rows {
        let (first, row) = (&median.first, &median.figures);
        // Where others than the command are measured, there are more repetitions than runs.
        let repeated = row.server_seconds.is_some() && median.repetitions > 1;
        let least = |value| {
            if repeated {
                seconds(value)
            } else {
                String::new()
            }
        };
        let ratio = ours
            .get(first.step.as_str())
            .filter(|_| first.tool != "grove");
        let ratio = ratio.filter(|ours| **ours > 0.0);
        lines.push(vec![
            first.step.clone(),
            first.tool.clone(),
            seconds(row.cpu_seconds()),
            seconds(row.user_seconds),
            seconds(row.system_seconds),
            row.server_seconds.map_or_else(String::new, seconds),
            row.kernel_seconds.map_or_else(String::new, seconds),
            seconds(row.wall_seconds),
            least(median.least_cpu_seconds),
            least(median.least_wall_seconds),
            row.p50_seconds.map_or_else(String::new, milliseconds),
            row.p99_seconds.map_or_else(String::new, milliseconds),
            row.server_reads.map_or_else(String::new, |n| n.to_string()),
            ratio.map_or_else(String::new, |ours| {
                format!("{:.1}", row.cpu_seconds() / ours)
            }),
            mib(row.peak_rss_bytes as f64),
            row.stored_bytes.map_or_else(String::new, |n| mib(n as f64)),
            row.allocated_bytes
                .map_or_else(String::new, |n| mib(n as f64)),
            row.added_bytes.map_or_else(String::new, |n| mib(n as f64)),
            first
                .checksum
                .as_deref()
                .unwrap_or_default()
                .chars()
                .take(12)
                .collect(),
        ]);
    }
    let filled = |column: usize| {
        let mut cells = lines.iter().skip(1).filter_map(|line| line.get(column));
        cells.any(|cell| !cell.is_empty())
    };
    let keep: Vec<usize> = (0..HEAD.len()).filter(|column| filled(*column)).collect();
    let pick = |line: &Vec<String>| {
        keep.iter()
            .filter_map(|at| line.get(*at).cloned())
            .collect()
    };
    lines.iter().map(pick).collect()
}

fn seconds(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.3}"),
        v if v < 100.0 => format!("{v:.2}"),
        v => format!("{v:.1}"),
    }
}

fn milliseconds(value: f64) -> String {
    format!("{:.3}", value * 1e3)
}

fn mib(bytes: f64) -> String {
    // Adding nothing turns a negative zero into a positive one.
    let value = (bytes / f64::from(1 << 20) * 100.0).round() / 100.0 + 0.0;
    if value.abs() < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

/// The scenarios of a record, in order.
fn scenarios(record: &Record) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for row in &record.rows {
        if !names.contains(&row.scenario.as_str()) {
            names.push(&row.scenario);
        }
    }
    names
}

/// Facts; those that every run found again stand once.
fn facts(record: &Record) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (key, value) in &record.facts {
        let fact = (key.clone(), without_run(value));
        if !found.contains(&fact) {
            found.push(fact);
        }
    }
    found
}

/// Without the number of the run: `commit, run 2: ...`.
pub(crate) fn without_run(text: &str) -> String {
    let parts = text.split_once(", run ").and_then(|(scenario, rest)| {
        let (number, what) = rest.split_once(": ")?;
        number.parse::<u32>().ok()?;
        Some(format!("{scenario}: {what}"))
    });
    parts.unwrap_or_else(|| text.to_owned())
}

/// Everything, for a terminal.
pub fn text(record: &Record) -> String {
    let mut out = String::new();
    for (key, value) in facts(record) {
        line(&mut out, format_args!("{key}: {value}"));
    }
    for scenario in scenarios(record) {
        line(&mut out, format_args!("\n{scenario}"));
        let grid = grid(&medians(record, scenario));
        let width = |at: usize| {
            grid.iter()
                .filter_map(|row| row.get(at))
                .map(|c| c.chars().count())
                .max()
                .unwrap_or(0)
        };
        for row in &grid {
            let cells = row.iter().enumerate().map(|(at, cell)| {
                let width = width(at);
                if at < 2 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
            line(
                &mut out,
                format_args!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end()),
            );
        }
    }
    out
}

/// Everything, in Markdown, under a heading of the second level.
pub fn markdown(record: &Record, title: &str) -> String {
    let mut out = format!("## {title}\n\n");
    for (key, value) in facts(record) {
        line(&mut out, format_args!("- {key}: {}", escaped(&value)));
    }
    let made_by = record.values("command").next().unwrap_or("scenario");
    for scenario in scenarios(record) {
        line(
            &mut out,
            format_args!("\n### {title}: {scenario}\n\nMade by `{made_by}`.\n"),
        );
        let rows = medians(record, scenario);
        for (number, row) in grid(&rows).iter().enumerate() {
            let cells: Vec<String> = row.iter().map(|cell| escaped(cell)).collect();
            line(&mut out, format_args!("| {} |", cells.join(" | ")));
            if number == 0 {
                let rule = |at| if at < 2 { "---|" } else { "---:|" };
                let rules: String = (0..row.len()).map(rule).collect();
                line(&mut out, format_args!("|{rules}"));
            }
        }
        line(&mut out, format_args!("\n```text"));
        for Median { first, .. } in rows.iter().filter(|row| !row.first.command.is_empty()) {
            line(
                &mut out,
                format_args!("# {}: {}\n{}", first.step, first.tool, first.command),
            );
        }
        line(&mut out, format_args!("```"));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("because a string takes every write");
}

/// Without what Markdown would take for markup.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('|', r"\|")
        .replace('<', "&lt;")
        .replace('*', r"\*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: &str, tool: &str, run: u32, user_seconds: f64) -> Row {
        Row {
            scenario: "commit".into(),
            step: step.into(),
            tool: tool.into(),
            run,
            user_seconds,
            command: format!("{tool} commit"),
            ..Row::default()
        }
    }

    fn record() -> Record {
        let mut record = Record::default();
        record.fact("command", "scenario commit");
        for (run, grove, ostree) in [(1, 2.0, 8.0), (2, 1.0, 9.0), (3, 40.0, 7.0)] {
            record.rows.push(row("first", "grove", run, grove));
            record.rows.push(row("first", "ostree", run, ostree));
        }
        record
    }

    #[test]
    fn a_table_has_medians_and_their_ratio() {
        let table = text(&record());
        let lines: Vec<&str> = table.lines().skip(3).collect();
        assert_eq!(
            lines,
            [
                "  step   program  CPU s   user  system  wall s  CPU / grove  peak MiB",
                "  first  grove    2.000  2.000   0.000   0.000                   0.00",
                "  first  ostree   8.000  8.000   0.000   0.000          4.0      0.00",
            ]
        );
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        let rows = [row("a", "b", 1, 1.0), row("a", "b", 2, 2.0)];
        let all: Vec<&Row> = rows.iter().collect();
        assert_eq!(middle(&all, |row| row.user_seconds), 1.5);
    }

    #[test]
    fn what_every_run_found_again_stands_once() {
        let mut record = Record::default();
        record.fact("holds", "commit, run 1: equal");
        record.fact("holds", "commit, run 2: equal");
        record.fact("holds", "commit, run 2: never run 3: this");
        let wanted = "holds: commit: equal\nholds: commit: never run 3: this\n";
        assert_eq!(text(&record), wanted);
    }

    #[test]
    fn markdown_names_the_commands() {
        let text = markdown(&record(), "small");
        for wanted in [
            "## small\n",
            "### small: commit\n\nMade by `scenario commit`.\n",
            "\n| step | program |",
            "\n# first: ostree\nostree commit\n",
        ] {
            assert!(text.contains(wanted), "{wanted:?} in {text}");
        }
    }
}

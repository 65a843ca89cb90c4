//! The figures, for people and programs.

use std::io::Write;

use serde::Serialize;

use super::Bench;
use super::measure::Row;
use crate::exit::Result;
use crate::ui;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    program: &'static str,
    commit: String,
    from: Option<String>,
    runs: u32,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    program: &'static str,
    wall_seconds: f64,
    cpu_seconds: f64,
    peak_bytes: Option<u64>,
}

pub(super) fn report(bench: &Bench<'_>, runs: u32, rows: &[Row]) -> Report {
    let step = |row: &Row| Step {
        step: row.step,
        program: row.program,
        wall_seconds: row.took.wall,
        cpu_seconds: row.took.cpu,
        peak_bytes: row.took.peak,
    };
    Report {
        program: concat!("grove ", env!("CARGO_PKG_VERSION")),
        commit: bench.commit.to_string(),
        from: bench.from.map(|id| id.to_string()),
        runs,
        steps: rows.iter().map(step).collect(),
    }
}

/// Each step with the program that did it, and how many times the time of `grove` that is.
pub(super) fn print(rows: &[Row]) -> Result<()> {
    let mut out = ui::stdout();
    writeln!(
        out,
        "{:18}  {:7}  {:>9}  {:>9}  {:>9}  {:>9}",
        "Step", "Program", "Wall s", "CPU s", "Memory", "CPU ratio"
    )?;
    for row in rows {
        let ours = rows
            .iter()
            .find(|other| other.step == row.step && other.program == "grove");
        let ratio = match ours.filter(|ours| ours.program != row.program && ours.took.cpu > 0.0) {
            Some(ours) => format!("{:.2}", row.took.cpu / ours.took.cpu),
            None => String::new(),
        };
        let (wall, cpu) = (row.took.wall, row.took.cpu);
        let peak = row.took.peak.map_or("-".to_owned(), ui::human);
        let line = format!(
            "{:18}  {:7}  {wall:>9.3}  {cpu:>9.3}  {peak:>9}  {ratio:>9}",
            row.step, row.program
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    out.flush()?;
    Ok(())
}

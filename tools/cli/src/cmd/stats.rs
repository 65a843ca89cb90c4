//! `grove stats`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::ops::stats::{StatsReport, Totals, stats};
use serde::Serialize;

use super::compare;
use crate::cli::Globals;
use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Say what the repository holds and what it takes on disk
///
/// Logical bytes count every path of every commit; unique bytes count equal contents once; stored
/// bytes are what the repository takes on disk. For each ref: what its commit holds, and how much
/// of that no other ref's commit holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove stats\n  grove stats --json\n  \
    grove stats --compare /srv/june /srv/july")]
pub struct Args {
    #[command(flatten)]
    compare: compare::CompareArgs,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    commits: u64,
    files: u64,
    symlinks: u64,
    directories: u64,
    logical_bytes: u64,
    unique_bytes: u64,
    stored_bytes: u64,
    file_objects: u64,
    dirtree_objects: u64,
    payloads: u64,
    stored_objects: u64,
    refs: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    commit: String,
    files: u64,
    symlinks: u64,
    directories: u64,
    logical_bytes: u64,
    unique_bytes: u64,
    exclusive_bytes: u64,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    if args.compare.is_given() {
        return compare::run(&args.compare, args.sizes, args.json, globals);
    }
    let repo = globals.repository()?;
    let progress = globals.progress();
    let found = stats(&repo, &progress)?;
    progress.finish();
    let report = report(found);
    if args.json.json {
        json::print(&report)?;
    } else {
        print(&report, args.sizes)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(found: StatsReport) -> Report {
    let Totals { files, symlinks, dirs, logical_bytes } = found.totals;
    Report {
        commits: found.commits,
        files,
        symlinks,
        directories: dirs,
        logical_bytes,
        unique_bytes: found.unique_bytes,
        stored_bytes: found.stored_bytes,
        file_objects: found.file_objects,
        dirtree_objects: found.dirtree_objects,
        payloads: found.payloads,
        stored_objects: found.stored_objects,
        refs: found
            .refs
            .into_iter()
            .map(|row| Row {
                name: row.name,
                commit: row.commit.to_string(),
                files: row.totals.files,
                symlinks: row.totals.symlinks,
                directories: row.totals.dirs,
                logical_bytes: row.totals.logical_bytes,
                unique_bytes: row.unique_bytes,
                exclusive_bytes: row.exclusive_bytes,
            })
            .collect(),
    }
}

fn print(report: &Report, sizes: SizeSwitch) -> Result<()> {
    let mut out = ui::stdout();
    writeln!(out, "Commits:   {}", report.commits)?;
    writeln!(
        out,
        "Entries:   {}, {}, {}",
        ui::count(report.files, "file"),
        ui::count(report.symlinks, "symbolic link"),
        ui::count(report.directories, "directory"),
    )?;
    let part = |bytes: u64| {
        if report.logical_bytes == 0 {
            return String::new();
        }
        format!("  ({:.1} % of logical)", 100.0 * bytes as f64 / report.logical_bytes as f64)
    };
    writeln!(out, "Logical:   {}", sizes.show(report.logical_bytes))?;
    writeln!(out, "Unique:    {}{}", sizes.show(report.unique_bytes), part(report.unique_bytes))?;
    writeln!(out, "Stored:    {}{}", sizes.show(report.stored_bytes), part(report.stored_bytes))?;
    writeln!(
        out,
        "Objects:   {} ({}, {}, {})",
        report.stored_objects,
        ui::count(report.file_objects, "file"),
        ui::count(report.dirtree_objects, "dirtree"),
        ui::count(report.payloads, "distinct payload"),
    )?;
    if !report.refs.is_empty() {
        let width = report.refs.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(3);
        writeln!(
            out,
            "\n{:width$}  {:>10}  {:>10}  {:>10}  {:>10}",
            "Ref", "Entries", "Logical", "Unique", "Exclusive"
        )?;
        for row in &report.refs {
            writeln!(
                out,
                "{:width$}  {:>10}  {:>10}  {:>10}  {:>10}",
                row.name,
                row.files + row.symlinks + row.directories,
                sizes.show(row.logical_bytes),
                sizes.show(row.unique_bytes),
                sizes.show(row.exclusive_bytes),
            )?;
        }
    }
    out.flush()?;
    Ok(())
}

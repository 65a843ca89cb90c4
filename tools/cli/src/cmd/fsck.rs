//! `grove fsck`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::ops::{FsckReport, Level, fsck};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{PROBLEMS, Result};
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Check the repository
///
/// Checks that every commit is complete and that all stored bytes are as they were written. Prints
/// one line for each problem and ends with exit code 3 if there is one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove fsck\n  grove fsck --quick\n  grove fsck --deep --json")]
pub struct Args {
    /// Read no contents of files: only refs, commits, directories and the index
    #[arg(long, conflicts_with = "deep")]
    quick: bool,
    /// Also compare every object and payload with its checksum
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    commits: u64,
    entries: u64,
    packs: u64,
    read_bytes: u64,
    problems: Vec<String>,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let level = match (args.quick, args.deep) {
        (true, _) => Level::Quick,
        (_, true) => Level::Deep,
        _ => Level::Data,
    };
    let progress = globals.progress();
    let FsckReport { commits, entries, packs, bytes, problems } = fsck(&repo, level, &progress)?;
    progress.finish();
    let report = Report { commits, entries, packs, read_bytes: bytes, problems };
    if args.json.json {
        json::print(&report)?;
    } else {
        print(&report, args.sizes, globals.quiet)?;
    }
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(PROBLEMS) })
}

fn print(report: &Report, sizes: SizeSwitch, quiet: bool) -> Result<()> {
    let mut out = ui::stdout();
    for problem in &report.problems {
        writeln!(out, "problem: {problem}")?;
    }
    if !quiet {
        writeln!(
            out,
            "{}, {} entries, {} checked, {} read: {}",
            ui::count(report.commits, "commit"),
            report.entries,
            ui::count(report.packs, "pack"),
            sizes.show(report.read_bytes),
            match report.problems.len() {
                0 => "no problems found".to_owned(),
                n => format!("{} found", ui::count(n as u64, "problem")),
            },
        )?;
    }
    out.flush()?;
    Ok(())
}

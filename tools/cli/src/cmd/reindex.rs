//! `grove reindex`.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{PROBLEMS, Result};
use crate::json::{self, JsonSwitch};
use crate::ui;

/// Make the index anew from the packs
///
/// The index is only a cache of the packs, so this is always safe. Packs that turn out to be
/// damaged are reported, and everything that can still be read in them is indexed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove reindex")]
pub struct Args {
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    packs: u64,
    entries: u64,
    damaged: Vec<String>,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let progress = globals.progress();
    let found = repo.reindex(&progress)?;
    progress.finish();
    let report = Report {
        packs: found.packs,
        entries: found.entries,
        damaged: found.damaged,
    };
    if args.json.json {
        json::print(&report)?;
    } else {
        let mut out = ui::stdout();
        for damage in &report.damaged {
            writeln!(out, "damaged: {damage}")?;
        }
        let packs = ui::count(report.packs, "pack");
        writeln!(out, "{} in {packs}", ui::count(report.entries, "entry"))?;
        out.flush()?;
    }
    Ok(if report.damaged.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PROBLEMS)
    })
}

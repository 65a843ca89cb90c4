//! `grove repack`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::ops::{RepackOptions, RepackReport, repack};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Rewrite packs, to take less space or to read faster
///
/// Merges small packs. With --all everything is laid down in order again, and the newest version of
/// each file is stored plain, with the older ones as deltas to it. Readers and writers may go on
/// meanwhile; interrupted at any point, everything is still there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove repack\n  grove repack --all\n  \
    grove repack --level=19")]
pub struct Args {
    /// Rewrite all packs, not only small ones
    #[arg(long, short)]
    all: bool,
    /// Compress with this zstd level, from 1 to 22 (commits use 3); implies --all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=22))]
    level: Option<i32>,
    /// With --all, do not make the newest versions the plain ones
    #[arg(long)]
    keep_bases: bool,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    packs_before: u64,
    bytes_before: u64,
    packs_after: u64,
    bytes_after: u64,
    packs_rewritten: u64,
    made_plain: u64,
    made_deltas: u64,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let options = RepackOptions {
        all: args.all || args.level.is_some(),
        level: args.level,
        keep_bases: args.keep_bases,
        patience: None,
    };
    let progress = globals.progress();
    let found = repack(&repo, &options, &progress)?;
    progress.finish();
    if args.json.json {
        json::print(&report(found))?;
    } else if !globals.quiet {
        print(found, args.sizes)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(found: RepackReport) -> Report {
    Report {
        packs_before: found.packs_before,
        bytes_before: found.bytes_before,
        packs_after: found.packs_after,
        bytes_after: found.bytes_after,
        packs_rewritten: found.packs_rewritten,
        made_plain: found.made_plain,
        made_deltas: found.made_deltas,
    }
}

fn print(found: RepackReport, sizes: SizeSwitch) -> Result<()> {
    let mut out = ui::stdout();
    writeln!(
        out,
        "{} of {} -> {} of {}",
        ui::count(found.packs_before, "pack"),
        sizes.show(found.bytes_before),
        ui::count(found.packs_after, "pack"),
        sizes.show(found.bytes_after),
    )?;
    if found.made_plain > 0 {
        writeln!(
            out,
            "newest versions made plain: {}; older ones made deltas to them: {}",
            found.made_plain, found.made_deltas
        )?;
    }
    out.flush()?;
    Ok(())
}

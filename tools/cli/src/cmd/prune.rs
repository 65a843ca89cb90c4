//! `grove prune`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::Error as Engine;
use grove_engine::ops::{PruneOptions, PruneReport, prune};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Delete what no commit needs, and commits that no ref leads to
///
/// Without options only what no commit needs is deleted. Nobody may write to or mount the
/// repository meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove prune --refs-only\n  \
    grove prune --refs-only --depth=10 --no-prune\n  \
    grove prune --keep-younger-than=2024-01-01")]
pub struct Args {
    /// Delete commits that no ref leads to
    #[arg(long)]
    refs_only: bool,
    /// With --refs-only, keep only this many parents of each ref's commit; -1 keeps all
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    depth: i64,
    /// Like --refs-only, but keep all commits that are not older than this
    #[arg(long, value_name = "TIME")]
    keep_younger_than: Option<String>,
    /// Only say what would be deleted
    #[arg(long, visible_alias = "dry-run")]
    no_prune: bool,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    commits: u64,
    commits_deleted: u64,
    entries: u64,
    entries_deleted: u64,
    packs_deleted: u64,
    packs_rewritten: u64,
    freed_bytes: u64,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let keep_younger_than = match &args.keep_younger_than {
        Some(text) => Some(crate::time::parse(text).ok_or_else(|| {
            Error::Usage(format!("--keep-younger-than: not a time: {text:?}"))
        })?),
        None => None,
    };
    let options = PruneOptions {
        // An age says that older commits go, unless a ref leads to them.
        refs_only: args.refs_only || keep_younger_than.is_some(),
        depth: u64::try_from(args.depth).ok(),
        keep_younger_than,
        dry_run: args.no_prune,
    };
    let progress = globals.progress();
    let found = prune(&repo, &options, &progress).map_err(explain)?;
    progress.finish();
    if args.json.json {
        json::print(&report(found, args.no_prune))?;
    } else {
        print(found, args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(error: Engine) -> Error {
    match error {
        Engine::Locked { .. } => Error::Hinted {
            error,
            hint: "try again when nobody writes to the repository or has mounted it",
        },
        other => other.into(),
    }
}

fn report(found: PruneReport, dry_run: bool) -> Report {
    Report {
        dry_run,
        commits: found.commits,
        commits_deleted: found.commits_deleted,
        entries: found.entries,
        entries_deleted: found.entries_deleted,
        packs_deleted: found.packs_deleted,
        packs_rewritten: found.packs_rewritten,
        freed_bytes: found.freed_bytes,
    }
}

fn print(found: PruneReport, args: &Args) -> Result<()> {
    let mut out = ui::stdout();
    writeln!(out, "Total entries: {}", found.entries)?;
    if found.entries_deleted == 0 {
        writeln!(out, "No unreachable entries")?;
    } else {
        let commits = ui::count(found.commits_deleted, "commit");
        let entries = ui::count(found.entries_deleted, "entry");
        let (deleted, freed) =
            if args.no_prune { ("Would delete", "would be freed") } else { ("Deleted", "freed") };
        let size = args.sizes.show(found.freed_bytes);
        writeln!(out, "{deleted} {entries}, {commits}; {size} {freed}")?;
    }
    out.flush()?;
    Ok(())
}

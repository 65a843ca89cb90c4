//! `grove stats`.

mod json;
mod table;

use std::process::ExitCode;

use grove_engine::ops::stats::stats;

use super::compare;
use crate::cli::Globals;
use crate::exit::Result;
use crate::json::JsonSwitch;
use crate::ui::SizeSwitch;

/// Say what the repository holds, what that takes on disk, and what saves how much
///
/// Logical bytes count every path of every commit. Unique bytes count equal contents once. Stored
/// bytes are what the repository takes on disk; those of a commit are what all its contents and
/// metadata take, whoever else needs them, too. Exclusive bytes are what deleting the commit gives
/// back; of a ref, what deleting the ref and the history that only it has gives back.
///
/// What a way of storing saves is counted in the order in which they are applied. What grouping
/// saves is estimated by compressing some of the grouped contents one by one, what differences
/// save by the ratio of contents that are stored without.
///
/// The largest contents are those that take the most space on disk.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove stats\n  grove stats --commits\n  grove stats --json\n  \
    grove stats --compare /srv/june /srv/july")]
pub struct Args {
    /// List every commit, not only the latest 12
    #[arg(long)]
    commits: bool,
    #[command(flatten)]
    compare: compare::CompareArgs,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
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
    if args.json.json {
        crate::json::print(&json::report(&found))?;
    } else {
        table::print(&found, args.sizes, args.commits)?;
    }
    Ok(ExitCode::SUCCESS)
}

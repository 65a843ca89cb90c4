//! `grove stats`.

mod html;
mod json;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use grove_engine::ops::stats::{StatsOptions, stats};
use grove_engine::{ObjectId, Repository};

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
/// back; of a ref, what deleting the ref and the history that only it has gives back. What a commit
/// added is what it needs and no earlier one does.
///
/// What a way of storing saves is counted in the order in which they are applied. What grouping
/// saves is estimated by compressing some of the grouped contents one by one, what differences
/// save by the ratio of contents that are stored without.
///
/// The largest contents are those that take the most space on disk.
///
/// With --html, all of this is one page, with a map of where in a tree the bytes are, and what
/// updates between the latest commits take. It needs neither the network nor any other file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  grove stats\n  grove stats --commits\n  grove stats --json\n  \
    grove stats --html report.html\n  grove stats --compare /srv/june /srv/july"
)]
pub struct Args {
    /// List every commit, not only the latest ones
    #[arg(long, conflicts_with = "last")]
    commits: bool,
    /// List so many of the latest commits; on the page, tell what updates between them take
    #[arg(long, value_name = "N", default_value_t = 12)]
    last: usize,
    /// Write a page for a browser to this file; - is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    html: Option<PathBuf>,
    /// Whose tree the page shows, not that of the latest commit
    #[arg(long, value_name = "REV", requires = "html")]
    rev: Option<String>,
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
    let mut options = StatsOptions::default();
    if args.html.is_some() {
        options.updates = args.last;
        options.tree_of = match &args.rev {
            Some(rev) => Some(repo.resolve_rev(rev)?),
            None => latest(&repo)?,
        };
    }
    let found = stats(&repo, &options, &progress)?;
    progress.finish();
    if let Some(to) = &args.html {
        html::write(to, repo.path(), options.tree_of, &found)?;
    } else if args.json.json {
        crate::json::print(&json::report(&found))?;
    } else {
        let last = if args.commits { usize::MAX } else { args.last };
        table::print(&found, args.sizes, last)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn latest(repo: &Repository) -> Result<Option<ObjectId>> {
    let mut latest = None;
    for id in repo.commits()? {
        latest = latest.max(Some((repo.commit(&id)?.timestamp, id)));
    }
    Ok(latest.map(|(_, id)| id))
}

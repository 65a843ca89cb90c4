//! `grove log`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::ops::log::log;
use serde::Serialize;

use crate::cli::Globals;
use crate::commit_view::{self, CommitReport};
use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui;

/// Show a commit and the commits before it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove log os/stable\n  grove log -n 1 --json os/stable")]
pub struct Args {
    /// Where to begin
    rev: String,
    /// Show at most this many commits
    #[arg(long, short = 'n', value_name = "N")]
    max_count: Option<usize>,
    /// Print the commit objects in GVariant text format
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    commits: Vec<CommitReport>,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let from = repo.resolve_rev(&args.rev)?;
    let mut history = log(&repo, &from).take(args.max_count.unwrap_or(usize::MAX));
    if args.json.json {
        let commits = history.map(|step| step.map(|(id, commit)| CommitReport::new(&id, &commit)));
        json::print(&Report {
            commits: commits.collect::<Result<_, _>>()?,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = ui::stdout();
    history.try_for_each(|step| -> Result<()> {
        let (id, commit) = step?;
        if args.raw {
            commit_view::print_raw(&mut out, &id, &commit, true)?;
        } else {
            commit_view::print(&mut out, &id, &commit)?;
        }
        Ok(())
    })?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

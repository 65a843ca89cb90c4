//! `grove reset`.

use std::process::ExitCode;

use grove_engine::RefUpdate;
use grove_engine::ops::log::log;

use crate::cli::Globals;
use crate::exit::{Error, Result};

/// Move a ref back to an earlier commit of its history
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove reset os/stable os/stable^")]
pub struct Args {
    /// The ref to move
    #[arg(value_name = "REF")]
    name: String,
    /// Where it shall point
    rev: String,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let Args { name, rev } = args;
    let now = repo
        .refs()?
        .map
        .get(name)
        .copied()
        .ok_or_else(|| Error::Failed {
            message: format!("no such ref {name:?}"),
            hint: Some("'grove refs' lists the refs"),
        })?;
    let target = repo.resolve_rev(rev)?;
    for step in log(&repo, &now) {
        if step?.0 == target {
            let update = RefUpdate {
                name: name.clone(),
                expected: Some(Some(now)),
                new: Some(target),
            };
            repo.update_refs(&[update])?;
            return Ok(ExitCode::SUCCESS);
        }
    }
    Err(Error::Failed {
        message: format!("commit {target} is not in the history of {name}"),
        hint: Some("'grove refs --create --force' points a ref anywhere"),
    })
}

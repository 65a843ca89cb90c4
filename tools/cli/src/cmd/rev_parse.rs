//! `grove rev-parse`.

use std::io::Write;
use std::process::ExitCode;

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::ui;

/// Print the checksums that revs stand for
///
/// A rev is a ref, a checksum, the beginning of one that no other commit shares, or one of these
/// followed by '^' for its parent.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  grove rev-parse os/stable\n  grove rev-parse os/stable^^ 3f2a"
)]
pub struct Args {
    /// What to look up
    #[arg(required_unless_present = "single")]
    rev: Vec<String>,
    /// Print the only commit of the repository; fail if there are others
    #[arg(long, short = 'S', conflicts_with = "rev")]
    single: bool,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let mut out = ui::stdout();
    if args.single {
        match repo.commits()?.as_slice() {
            [only] => writeln!(out, "{only}")?,
            [] => return Err(Error::failed("the repository has no commit")),
            several => {
                let count = several.len();
                return Err(Error::failed(format!("the repository has {count} commits")));
            }
        }
    }
    for rev in &args.rev {
        writeln!(out, "{}", repo.resolve_rev(rev)?)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

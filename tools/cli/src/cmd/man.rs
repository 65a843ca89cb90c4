//! `grove man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;
use grove_engine::error::IoResultExt;

use crate::cli::{Cli, Globals};
use crate::exit::Result;

/// Write the manual pages into a directory: grove(1) and one page for each verb
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove man /usr/share/man/man1")]
pub struct Args {
    /// Where; made where it is missing
    dir: PathBuf,
}

/// Runs the verb.
pub fn run(args: &Args, _: &Globals) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.dir).at(&args.dir)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).at(&args.dir)?;
    Ok(ExitCode::SUCCESS)
}

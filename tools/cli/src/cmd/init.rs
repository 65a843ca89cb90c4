//! `grove init`.

use std::path::PathBuf;
use std::process::ExitCode;

use grove_engine::Repository;

use crate::cli::Globals;
use crate::exit::{Error, Result};

/// Make a new empty repository
///
/// The directory is made where it is missing. A directory that is a repository already is left as
/// it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  grove init /srv/images\n  grove init --parity --repo /srv/images"
)]
pub struct Args {
    /// Where, instead of --repo
    dir: Option<PathBuf>,
    /// Make a parity file for each pack: 3 % more space, and damage of as much can be mended
    /// without a second copy
    #[arg(long)]
    parity: bool,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    if args.dir.is_some() && globals.repo.is_some() {
        return Err(Error::Usage(
            "the repository is named twice: --repo and DIR".into(),
        ));
    }
    let path = args.dir.clone().unwrap_or_else(|| globals.repo_path());
    match Repository::init(&path) {
        Err(grove_engine::Error::NotEmpty { .. }) if Repository::open(&path).is_ok() => {}
        Ok(mut repo) => repo.set_parity(args.parity)?,
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

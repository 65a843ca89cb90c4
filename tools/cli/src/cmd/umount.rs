//! `grove umount`.

use std::path::PathBuf;
use std::process::ExitCode;

use grove_fusefs::{MountError, Umount, clear_stale, umount};

use crate::cli::Globals;
use crate::exit::{Error, Result};

/// Take a mount away
///
/// Also clears mounts whose server has died.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove umount /mnt\n  grove umount --lazy /mnt")]
pub struct Args {
    /// Where something is mounted
    #[arg(required = true)]
    dir: Vec<PathBuf>,
    /// Take it away although it is in use; it ends when its last user is gone
    #[arg(long, short)]
    lazy: bool,
}

/// Runs the verb.
pub fn run(args: &Args, _: &Globals) -> Result<ExitCode> {
    let how = if args.lazy {
        Umount::Lazy
    } else {
        Umount::Unused
    };
    for dir in &args.dir {
        if !clear_stale(dir)? {
            umount(dir, how).map_err(explain)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(error: MountError) -> Error {
    match error {
        MountError::Busy { .. } => Error::Failed {
            message: error.to_string(),
            hint: Some("'fuser -m DIR' names who uses it; --lazy takes it away all the same"),
        },
        other => other.into(),
    }
}

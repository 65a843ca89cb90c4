//! `grove checkout`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use grove_engine::Error as Engine;
use grove_engine::ops::checkout::{CheckoutOptions, CheckoutReport, Union, checkout};

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::ui;

/// Write a commit to a new directory
///
/// Files are always copies. Owners, modes and extended attributes are those of the commit;
/// modification times are 0, as OSTree has it. A failure leaves what was written so far.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove checkout os/stable /srv/root\n  \
    grove checkout -U --subpath=/usr/share/doc os/stable doc")]
pub struct Args {
    /// Which commit
    rev: String,
    /// Where; the text of REV when it is not given
    destination: Option<PathBuf>,
    /// Do not change ownership, nor set extended attributes, set-user-ID or set-group-ID
    #[arg(long, short = 'U')]
    user_mode: bool,
    /// Only what is at PATH of the commit
    #[arg(long, value_name = "PATH", default_value = "/", hide_default_value = true)]
    subpath: String,
    /// Keep existing directories, replace existing files
    #[arg(long, group = "overlay")]
    union: bool,
    /// Keep existing directories and files, add what is missing
    #[arg(long, group = "overlay")]
    union_add: bool,
    /// Like --union-add, but fail where an existing file differs
    #[arg(long, group = "overlay")]
    union_identical: bool,
    /// Do nothing if the subpath does not exist
    #[arg(long)]
    allow_noent: bool,
    /// Accepted because ostree has it: files are always copies
    #[arg(long, short = 'C')]
    force_copy: bool,
    /// Make the result durable before returning
    #[arg(long, value_name = "POLICY", default_value = "no", hide_default_value = true)]
    fsync: Fsync,
}

/// ostree's words for yes and no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    /// Do.
    #[value(aliases = ["true", "1"])]
    Yes,
    /// Do not.
    #[value(aliases = ["false", "0"])]
    No,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let commit = repo.resolve_rev(&args.rev)?;
    let destination = args.destination.clone().unwrap_or_else(|| PathBuf::from(&args.rev));
    let options = CheckoutOptions {
        user_mode: args.user_mode,
        subpath: args.subpath.clone(),
        union: match (args.union, args.union_add, args.union_identical) {
            (true, ..) => Union::Overwrite,
            (_, true, _) => Union::Add,
            (_, _, true) => Union::Identical,
            _ => Union::None,
        },
        fsync: args.fsync == Fsync::Yes,
    };
    let progress = globals.progress();
    let done = checkout(&repo, &commit, &destination, &options, &progress);
    progress.finish();
    match done {
        Err(Engine::PathNotFound { .. }) if args.allow_noent => {}
        other => tell(globals, other.map_err(|error| explain(error, args))?),
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(globals: &Globals, report: CheckoutReport) {
    if globals.verbose {
        let CheckoutReport { dirs, files, symlinks, kept, written_bytes } = report;
        eprintln!(
            "{dirs} directories, {}, {}, {} written, {kept} kept",
            ui::count(files, "file"),
            ui::count(symlinks, "symbolic link"),
            ui::human(written_bytes),
        );
    }
}

fn explain(error: Engine, args: &Args) -> Error {
    let kind = match &error {
        Engine::Io { source, .. } => Some(source.kind()),
        _ => None,
    };
    let hint = match kind {
        Some(std::io::ErrorKind::PermissionDenied) if !args.user_mode => {
            "only root can set any owner; -U leaves owners and extended attributes alone"
        }
        Some(std::io::ErrorKind::AlreadyExists) => {
            "name a new directory, or add to an existing one with --union or --union-add"
        }
        _ => return error.into(),
    };
    Error::Hinted { error, hint }
}

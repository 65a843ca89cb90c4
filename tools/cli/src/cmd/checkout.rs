//! `grove checkout`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use grove_engine::ops::checkout::{
    CheckoutOptions, CheckoutReport, Durability, Union, checkout, update,
};
use grove_engine::{Error as Engine, ObjectId};
use rustix::io::Errno;
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Write a commit to a new directory
///
/// Owners, modes and extended attributes are those of the commit; modification times are 0, as
/// OSTree has it. A checkout that was interrupted goes on where it was when it is called again. Where
/// that could not be noted, as the repository's cache cannot be written or the file system knows no
/// times of birth, remove the directory first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove checkout os/stable /srv/root\n  \
    grove checkout --update os/testing /srv/root\n  \
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
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/",
        hide_default_value = true
    )]
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
    /// Make files hard links to whole files in the repository's cache; what writes to one of them in
    /// place changes it in all checkouts made so; in later ones, too, if it sets the modification
    /// time back to 0 and names of the file are added or removed before the next checkout
    #[arg(long, short = 'H')]
    require_hardlinks: bool,
    /// Accepted because ostree has it: without -H, files are always copies
    #[arg(long, short = 'C', conflicts_with = "require_hardlinks")]
    force_copy: bool,
    /// Change a directory that this repository checked out to hold REV, touching only what differs;
    /// what else was done to it stays. A directory that was replaced, by a link for example, stays
    /// replaced: what has changed below it is left out, and told
    #[arg(long, conflicts_with_all = ["overlay", "user_mode", "subpath", "require_hardlinks", "force_copy"])]
    update: bool,
    /// Make the result durable before returning: 'each' file on its own, or the whole file system
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "no",
        hide_default_value = true
    )]
    fsync: Fsync,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    commit: String,
    destination: String,
    directories: u64,
    files: u64,
    cloned_files: u64,
    linked_files: u64,
    symlinks: u64,
    kept: u64,
    left_out: u64,
    written_bytes: u64,
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
    /// File by file.
    Each,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let commit = repo.resolve_rev(&args.rev)?;
    let destination = args
        .destination
        .clone()
        .unwrap_or_else(|| PathBuf::from(&args.rev));
    let options = CheckoutOptions {
        user_mode: args.user_mode,
        subpath: args.subpath.clone(),
        union: match (args.union, args.union_add, args.union_identical) {
            (true, ..) => Union::Overwrite,
            (_, true, _) => Union::Add,
            (_, _, true) => Union::Identical,
            _ => Union::None,
        },
        hard_links: args.require_hardlinks,
        durability: match args.fsync {
            Fsync::Yes => Durability::FileSystem,
            Fsync::No => Durability::None,
            Fsync::Each => Durability::Each,
        },
    };
    let progress = globals.progress();
    let write = if args.update { update } else { checkout };
    let done = write(&repo, &commit, &destination, &options, &progress);
    progress.finish();
    let report = match done {
        Err(Engine::PathNotFound { .. }) if args.allow_noent => CheckoutReport::default(),
        other => other.map_err(|error| explain(error, args))?,
    };
    tell(args, globals, &commit, &destination, &report)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(
    args: &Args,
    globals: &Globals,
    commit: &ObjectId,
    destination: &Path,
    done: &CheckoutReport,
) -> Result<()> {
    if args.json.json {
        return json::print(&Report {
            commit: commit.to_string(),
            destination: destination.display().to_string(),
            directories: done.dirs,
            files: done.files,
            cloned_files: done.cloned_files,
            linked_files: done.linked_files,
            symlinks: done.symlinks,
            kept: done.kept,
            left_out: done.left_out,
            written_bytes: done.written_bytes,
        });
    }
    if globals.verbose {
        eprintln!(
            "{} directories, {}, {}, {}, {} written, {} kept, {} left out",
            done.dirs,
            ui::count(done.files, "file"),
            ui::count(done.linked_files, "hard link"),
            ui::count(done.symlinks, "symbolic link"),
            args.sizes.show(done.written_bytes),
            done.kept,
            done.left_out,
        );
    }
    Ok(())
}

fn explain(error: Engine, args: &Args) -> Error {
    let (kind, number) = match &error {
        Engine::Io { source, .. } => (Some(source.kind()), source.raw_os_error()),
        _ => (None, None),
    };
    let is_privilege = number == Some(Errno::PERM.raw_os_error());
    let hint = match kind {
        Some(std::io::ErrorKind::PermissionDenied) if is_privilege && !args.user_mode => {
            "only root can set any owner; -U leaves owners and extended attributes alone"
        }
        Some(std::io::ErrorKind::AlreadyExists) => {
            "name a new directory, or add to an existing one with --union or --union-add; what an \
             interrupted checkout left there, remove first"
        }
        Some(std::io::ErrorKind::CrossesDevices) => {
            "hard links need a directory on the file system of the repository; leave out -H"
        }
        _ if matches!(error, Engine::UnknownCheckout { .. }) => {
            "only directories that 'grove checkout' of this repository has finished can be updated; \
             lay the commit over another one with --union"
        }
        _ => return error.into(),
    };
    Error::Hinted { error, hint }
}

//! `grove diff`.

mod elf;
mod json;
mod packages;
mod patch;
mod text;

use std::path::Path;
use std::process::ExitCode;

use grove_engine::object::Commit;
use grove_engine::ops::diff::{DiffOptions, DiffReport, Side, diff};
use grove_engine::ops::ls::Node;
use grove_engine::{Monitor, Repository};

use crate::cli::Globals;
use crate::exit::{self, Error, Result};
use crate::json::JsonSwitch;
use crate::pager::PagerSwitch;
use crate::ui::{self, SizeSwitch};

/// Say what differs between two commits or directories
///
/// Prints modified (M), deleted (D) and added (A) paths. An argument that begins with '/' or '.'
/// is a directory, any other one a rev. With one argument, compares the commit with its parent.
/// Several kinds of output can be asked for at once. The plain list is that of 'ostree diff', without
/// the root directory's own mode, owner and attributes; --exit-code and all other output count these as
/// a change of '/'.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove diff os/stable^ os/stable\n  \
    grove diff --stat --packages os/stable os/testing\n  \
    grove diff --patch --subpath=/usr/etc os/stable os/testing\n  \
    grove diff --elf --subpath=/usr/lib64 os/stable os/testing\n  \
    grove diff --files os/stable /srv/root")]
pub struct Args {
    /// What to compare; the only rev, when there is no TO
    #[arg(value_name = "REV_OR_DIR")]
    from: String,
    /// What to compare it with
    #[arg(value_name = "REV_OR_DIR")]
    to: Option<String>,
    /// Say what changed of each path, what was moved (R), and what is below removed directories
    #[arg(long)]
    files: bool,
    /// Print paths only
    #[arg(long, conflicts_with = "files")]
    name_only: bool,
    /// Print totals, and the directories with most changes
    #[arg(long)]
    stat: bool,
    /// With --stat, sum up directories so many levels below the root
    #[arg(long, value_name = "LEVELS", default_value_t = 2, requires = "stat")]
    depth: usize,
    /// Say which packages changed, and how many of their files
    #[arg(long)]
    packages: bool,
    /// Print what changed inside of text files, as patch(1) takes it
    #[arg(long)]
    patch: bool,
    /// Say what changed of programs and libraries: soname, build ID, needed libraries, exported
    /// symbols
    #[arg(long)]
    elf: bool,
    /// Only what is at PATH
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/",
        hide_default_value = true
    )]
    subpath: String,
    /// Take what was moved as removed and added
    #[arg(long)]
    no_renames: bool,
    /// Exit with code 3 if anything differs
    #[arg(long)]
    exit_code: bool,
    /// Leave extended attributes out of the comparison
    #[arg(long)]
    no_xattrs: bool,
    /// Take the files of directories as owned by this user
    #[arg(long, value_name = "UID")]
    owner_uid: Option<u32>,
    /// Take the files of directories as owned by this group
    #[arg(long, value_name = "GID")]
    owner_gid: Option<u32>,
    /// Leave out of directories what a commit cannot hold (devices, sockets, FIFOs, names that are
    /// not UTF-8) instead of failing
    #[arg(long)]
    skip_special: bool,
    #[command(flatten)]
    pager: PagerSwitch,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

impl Args {
    /// Whether paths are listed: where nothing else was asked for.
    fn lists(&self) -> bool {
        self.files || self.name_only || !(self.stat || self.packages || self.patch || self.elf)
    }
}

/// What one of the arguments names.
enum Tree<'r> {
    Commit(&'r Repository, Commit),
    Dir(String),
}

fn is_dir(text: &str) -> bool {
    text.starts_with(['/', '.'])
}

impl<'r> Tree<'r> {
    fn find(repo: Option<&'r Repository>, text: &str) -> Result<Self> {
        match repo {
            Some(repo) if !is_dir(text) => {
                let commit = repo.commit(&repo.resolve_rev(text)?)?;
                Ok(Self::Commit(repo, commit))
            }
            _ => Ok(Self::Dir(text.to_owned())),
        }
    }

    fn side(&self) -> Side<'_> {
        match self {
            Self::Commit(_, commit) => Side::Stored(Node::root(commit)),
            Self::Dir(path) => Side::Local(Path::new(path)),
        }
    }
}

/// A finished comparison and everything that was asked for beyond it.
struct Found {
    report: DiffReport,
    packages: Option<packages::Packages>,
    elf: Option<Vec<elf::Change>>,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let (from, to) = match &args.to {
        Some(to) => (args.from.clone(), to.clone()),
        None if is_dir(&args.from) => {
            let message = format!(
                "{}: a directory has no parent; name what to compare",
                args.from
            );
            return Err(Error::Usage(message));
        }
        None => (format!("{}^", args.from), args.from.clone()),
    };
    // Directories can be compared where there is no repository.
    let repo = match is_dir(&from) && is_dir(&to) {
        true => None,
        false => Some(globals.repository()?),
    };
    let repo = repo.as_ref();
    let details = args.files || args.stat || args.packages || args.patch || args.elf;
    let details = details || args.json.json;
    let options = DiffOptions {
        details,
        moves: details && !args.no_renames,
        subpath: args.subpath.clone(),
        no_xattrs: args.no_xattrs,
        owner_uid: args.owner_uid,
        owner_gid: args.owner_gid,
        skip_special: args.skip_special,
    };
    let progress = globals.progress();
    let (a, b) = (Tree::find(repo, &from)?, Tree::find(repo, &to)?);
    let report = diff(repo, a.side(), b.side(), &options, &progress)?;
    if report.skipped > 0 {
        let entries = ui::count(report.skipped, "entry");
        progress.warn(&format!("left out {entries}: a commit cannot hold such"));
    }
    let packages = args
        .packages
        .then(|| packages::find(&a, &b, &report))
        .transpose()?;
    let elf = args
        .elf
        .then(|| elf::find(repo, &report, &progress))
        .transpose()?;
    progress.finish();
    let found = Found {
        report,
        packages,
        elf,
    };
    if args.json.json {
        json::print(repo, &from, &to, &found, args, &progress)?;
    } else {
        text::print(repo, &found, args, &progress)?;
    }
    let differs = args.exit_code && !found.report.is_empty();
    Ok(ExitCode::from(if differs {
        exit::PROBLEMS
    } else {
        exit::OK
    }))
}

/// An error and its causes in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

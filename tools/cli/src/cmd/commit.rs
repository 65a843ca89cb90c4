//! `grove commit`.

mod metadata;
mod packages;
mod tree;

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use grove_compose::package_list;
use grove_engine::error::IoResultExt;
use grove_engine::object::Commit;
use grove_engine::ops::source::SourceOptions;
use grove_engine::tree::MutableTree;
use grove_engine::{Error as Engine, Monitor, ObjectId, RefUpdate, Repository, WriteReport};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::{time, ui};
use tree::{Found, Source};

/// Make a commit out of directories, archives, commits or packages
///
/// Prints the checksum of the commit and nothing else on standard output. The same input gives the
/// same checksum as 'ostree commit' does.
///
/// The trees are laid over each other in the order in which they are named: later files replace
/// earlier ones, directories merge.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  grove commit -b os/stable -s 'Release 7' --tree=dir=/srv/root\n  \
    grove commit -b os/testing --tree=ref=os/stable --tree=tar=extra.tar.zst\n  \
    grove commit --orphan --timestamp=@0 ."
)]
pub struct Args {
    /// A directory to commit [default: the current one, when there is no --tree]
    #[arg(conflicts_with = "tree")]
    path: Option<PathBuf>,
    /// The ref to set to the new commit
    #[arg(long, short)]
    branch: Option<String>,
    /// Make a commit that no ref points to
    #[arg(long)]
    orphan: bool,
    /// The parent, or 'none' [default: the commit of the branch]
    #[arg(long, value_name = "REV")]
    parent: Option<String>,
    /// One line of description
    #[arg(long, short, default_value = "", hide_default_value = true)]
    subject: String,
    /// A longer description
    #[arg(long, short = 'm', default_value = "", hide_default_value = true)]
    body: String,
    /// Take the longer description from a file
    #[arg(long, short = 'F', value_name = "FILE", conflicts_with = "body")]
    body_file: Option<PathBuf>,
    /// What to commit: dir=PATH, tar=FILE, ref=REV, rpm=FILE or rpms=DIR
    #[arg(long, value_name = "KIND=WHAT")]
    tree: Vec<Source>,
    /// Begin with this commit, below all trees
    #[arg(long, value_name = "REV")]
    base: Option<String>,
    /// The time of the commit: @SECONDS or ISO 8601 [default: SOURCE_DATE_EPOCH, else now]
    #[arg(long, value_name = "TIME")]
    timestamp: Option<String>,
    #[command(flatten)]
    metadata: metadata::MetadataArgs,
    /// The user who owns everything
    #[arg(long, value_name = "UID")]
    owner_uid: Option<u32>,
    /// The group that owns everything
    #[arg(long, value_name = "GID")]
    owner_gid: Option<u32>,
    /// Owner and group 0, modes masked with 0755, no extended attributes
    #[arg(long)]
    canonical_permissions: bool,
    /// Leave out extended attributes
    #[arg(long)]
    no_xattrs: bool,
    /// Leave out what a commit cannot hold (devices, sockets, FIFOs, names that are not UTF-8)
    /// instead of failing
    #[arg(long)]
    skip_special: bool,
    /// Make parent directories that an archive does not list
    #[arg(long)]
    tar_autocreate_parents: bool,
    #[command(flatten)]
    packages: packages::PackageArgs,
    /// Read every file, also those that have not changed since the last commit
    #[arg(long)]
    no_stat_cache: bool,
    /// If the tree is that of the parent, make no commit and print the parent
    #[arg(long)]
    skip_if_unchanged: bool,
    /// Print figures, one 'KEY: VALUE' on a line
    #[arg(long, conflicts_with = "json")]
    table_output: bool,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Debug, Serialize)]
struct Report {
    commit: String,
    parent: Option<String>,
    unchanged: bool,
    files: u64,
    directories: u64,
    unread_files: u64,
    skipped: u64,
    packages: u64,
    packages_known: u64,
    new_files: u64,
    new_metadata: u64,
    new_payload_bytes: u64,
    stored_bytes: u64,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    if args.branch.is_none() && !args.orphan {
        let text = "name the ref to set with --branch, or make a commit without one with --orphan";
        return Err(Error::Usage(text.into()));
    }
    let repo = globals.repository()?;
    let branch = args.branch.as_deref().filter(|_| !args.orphan);
    let (expected, parent) = parent(&repo, args, branch)?;
    // Errors in the options come before the work.
    let mut commit = header(&repo, args, parent)?;
    let progress = globals.progress();

    let mut txn = repo.begin(&progress)?;
    if let Some(parent) = parent {
        txn.set_parent(&parent)?;
    }
    let mut tree = MutableTree::default();
    let found = tree::build(&mut txn, &mut tree, args, &progress)?;
    if found.report.skipped > 0 {
        let skipped = ui::count(found.report.skipped, "entry");
        progress.warn(&format!("left out {skipped}: a commit cannot hold such"));
    }
    (commit.tree, commit.meta) = txn.put_tree(&tree)?;
    if let (true, Some(parent)) = (args.skip_if_unchanged, parent) {
        let old = repo.commit(&parent)?;
        if (old.tree, old.meta) == (commit.tree, commit.meta) {
            drop(txn);
            progress.finish();
            return report(
                args,
                &parent,
                old.parent,
                true,
                &found,
                WriteReport::default(),
            );
        }
    }
    if !found.packages.is_empty() {
        commit
            .metadata
            .push(grove_compose::LIST, package_list(&found.packages));
    }
    let id = txn.put_commit(&commit)?;
    let updates: Vec<RefUpdate> = branch
        .map(|name| RefUpdate {
            name: name.to_owned(),
            expected: Some(expected),
            new: Some(id),
        })
        .into_iter()
        .collect();
    let written = txn.publish(&updates)?;
    progress.finish();
    // A mount makes what is missing here.
    if let Err(error) = grove_fusefs::image::prepare(&repo, &id) {
        progress.warn(&format!("the commit is there, but not its image: {error}"));
    }
    report(args, &id, parent, false, &found, written)
}

/// What the branch points to, and the parent of the new commit.
fn parent(
    repo: &Repository,
    args: &Args,
    branch: Option<&str>,
) -> Result<(Option<ObjectId>, Option<ObjectId>)> {
    let now = match branch {
        Some(name) if !grove_engine::refs::is_valid_ref_name(name) => {
            return Err(Engine::InvalidRefName {
                name: name.to_owned(),
            }
            .into());
        }
        Some(name) => repo.refs()?.map.get(name).copied(),
        None => None,
    };
    let parent = match args.parent.as_deref() {
        Some("none") => None,
        Some(rev) => Some(repo.resolve_rev(rev)?),
        None => now,
    };
    Ok((now, parent))
}

/// The commit without its tree.
fn header(repo: &Repository, args: &Args, parent: Option<ObjectId>) -> Result<Commit> {
    let body = match &args.body_file {
        Some(path) => std::fs::read_to_string(path).at(path)?,
        None => args.body.clone(),
    };
    // The tree is not known yet.
    let nothing = ObjectId::from_bytes([0; ObjectId::LEN]);
    Ok(Commit {
        metadata: args.metadata.build(repo, parent, args.branch.as_deref())?,
        parent,
        subject: args.subject.clone(),
        body,
        timestamp: timestamp(args)?,
        tree: nothing,
        meta: nothing,
    })
}

fn timestamp(args: &Args) -> Result<u64> {
    if let Some(text) = &args.timestamp {
        return time::parse(text).ok_or_else(|| {
            Error::Usage(format!(
                "--timestamp: not a time: {text:?}; use @SECONDS or ISO 8601"
            ))
        });
    }
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.trim().parse().map_err(|_| {
            Error::Usage(format!(
                "SOURCE_DATE_EPOCH: not a number of seconds: {text:?}"
            ))
        }),
        Err(_) => Ok(time::now()),
    }
}

impl Args {
    fn source_options(&self) -> SourceOptions {
        SourceOptions {
            owner_uid: self.owner_uid,
            owner_gid: self.owner_gid,
            canonical_permissions: self.canonical_permissions,
            no_xattrs: self.no_xattrs,
            skip_special: self.skip_special,
            no_stat_cache: self.no_stat_cache,
            tar_autocreate_parents: self.tar_autocreate_parents,
        }
    }
}

fn report(
    args: &Args,
    id: &ObjectId,
    parent: Option<ObjectId>,
    unchanged: bool,
    found: &Found,
    written: WriteReport,
) -> Result<ExitCode> {
    let input = &found.report;
    if args.json.json {
        json::print(&Report {
            commit: id.to_string(),
            parent: parent.map(|parent| parent.to_string()),
            unchanged,
            files: input.files,
            directories: input.dirs,
            unread_files: input.unread_files,
            skipped: input.skipped,
            packages: found.packages.len() as u64,
            packages_known: found
                .packages
                .iter()
                .filter(|package| package.known)
                .count() as u64,
            new_files: written.new_files,
            new_metadata: written.new_metadata,
            new_payload_bytes: written.new_payload_bytes,
            stored_bytes: written.stored_bytes,
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = ui::stdout();
    if args.table_output {
        writeln!(out, "Commit: {id}")?;
        writeln!(out, "Metadata Written: {}", written.new_metadata)?;
        writeln!(out, "Content Total: {}", input.files)?;
        writeln!(out, "Content Written: {}", written.new_files)?;
        writeln!(out, "Content Cache Hits: {}", input.unread_files)?;
        writeln!(out, "Content Bytes Written: {}", written.new_payload_bytes)?;
    } else {
        writeln!(out, "{id}")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

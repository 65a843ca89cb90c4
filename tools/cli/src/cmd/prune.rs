//! `grove prune`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use grove_engine::Error as Engine;
use grove_engine::ops::{PruneOptions, PruneReport, prune};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::time;
use crate::ui::{self, SizeSwitch};

/// Delete what no commit needs, and commits that no ref leads to
///
/// Without options only what no commit needs is deleted. Others may read, mount and commit
/// meanwhile; a commit that is mounted or being checked out is kept.
///
/// Cached files of what is deleted go, too, and so do static deltas to commits that are gone.
///
/// What a commit needs is found once and remembered. With --dry-run, each commit that would go is
/// listed with what its deletion alone would give back; what several share comes on top when they
/// go together.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove prune --refs-only\n  \
    grove prune --refs-only --depth=10 --dry-run\n  \
    grove prune --keep-younger-than=2024-01-01\n  \
    grove prune --depth=0 --retain-branch-depth=os/stable=10\n  \
    grove prune --keep-younger-than=2024-01-01 --only-branch=os/nightly\n  \
    grove prune --delete-commit=0a1b2c --dry-run")]
pub struct Args {
    /// Delete commits that no ref leads to
    #[arg(long)]
    refs_only: bool,
    /// Keep only this many parents of each commit that is kept; -1 keeps all
    #[arg(long, value_name = "DEPTH", default_value_t = -1, allow_negative_numbers = true)]
    depth: i64,
    /// Of each ref's history, keep what is not older than this, and the ref's commit
    #[arg(long, value_name = "TIME")]
    keep_younger_than: Option<String>,
    /// Keep this many parents of the ref BRANCH, whatever other options say; -1 keeps all
    #[arg(long, value_name = "BRANCH=DEPTH", value_parser = branch_depth)]
    retain_branch_depth: Vec<(String, i64)>,
    /// Keep the whole history of all refs but this one; may be given several times
    #[arg(long, value_name = "BRANCH")]
    only_branch: Vec<String>,
    /// Delete this commit, which no ref may point to; may be given several times
    #[arg(long, value_name = "COMMIT")]
    delete_commit: Vec<String>,
    /// Delete only commit objects; a later prune deletes what they needed
    #[arg(long)]
    commit_only: bool,
    /// Only say what would be deleted
    #[arg(long, visible_alias = "dry-run")]
    no_prune: bool,
    /// How many seconds to wait for running commits to end
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

fn branch_depth(text: &str) -> Result<(String, i64), String> {
    let form = || "must be BRANCH=DEPTH".to_owned();
    let (branch, depth) = text.rsplit_once('=').ok_or_else(form)?;
    let depth = depth.parse().map_err(|_| form())?;
    Ok((branch.to_owned(), depth))
}

/// Negative numbers stand for no limit, as with ostree.
fn depth(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    commits: u64,
    commits_deleted: u64,
    entries: u64,
    entries_deleted: u64,
    entries_left: u64,
    packs_deleted: u64,
    packs_rewritten: u64,
    freed_bytes: u64,
    left_bytes: u64,
    cached_files_deleted: u64,
    cached_bytes: u64,
    deltas_deleted: u64,
    delta_bytes: u64,
    leased_commits: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<GoneReport>,
}

#[derive(Serialize)]
struct GoneReport {
    /// What all of them give back together.
    bytes: u64,
    commits: Vec<GoneCommit>,
}

#[derive(Serialize)]
struct GoneCommit {
    commit: String,
    date: String,
    subject: String,
    exclusive_bytes: Option<u64>,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let keep_younger_than =
        match &args.keep_younger_than {
            Some(text) => Some(time::parse(text).ok_or_else(|| {
                Error::Usage(format!("--keep-younger-than: not a time: {text:?}"))
            })?),
            None => None,
        };
    let retained = args.retain_branch_depth.iter();
    let deleted = args.delete_commit.iter().map(|rev| repo.resolve_rev(rev));
    let options = PruneOptions {
        refs_only: args.refs_only,
        depth: depth(args.depth),
        keep_younger_than,
        retain_branch_depth: retained
            .map(|(name, n)| (name.clone(), depth(*n)))
            .collect(),
        only_branches: args.only_branch.clone(),
        delete_commits: deleted.collect::<Result<_, _>>()?,
        commit_only: args.commit_only,
        dry_run: args.no_prune,
        patience: Some(Duration::from_secs(args.wait)),
    };
    let progress = globals.progress();
    let found = prune(&repo, &options, &progress).map_err(explain)?;
    progress.finish();
    if args.json.json {
        json::print(&report(found, args.no_prune))?;
    } else {
        print(&found, args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(error: Engine) -> Error {
    let hint = match error {
        Engine::Locked { .. } => {
            "try again when no commit and no other prune is running, or wait longer with --wait"
        }
        Engine::CommitInUse { .. } => {
            "delete the ref, or unmount the commit, before you delete the commit"
        }
        other => return other.into(),
    };
    Error::Hinted { error, hint }
}

fn report(found: PruneReport, dry_run: bool) -> Report {
    let bytes = found.gone_bytes;
    let commits = found.gone.into_iter().map(|gone| GoneCommit {
        commit: gone.commit.to_string(),
        date: time::iso(gone.timestamp),
        subject: gone.subject,
        exclusive_bytes: gone.exclusive_bytes,
    });
    Report {
        dry_run,
        commits: found.commits,
        commits_deleted: found.commits_deleted,
        entries: found.entries,
        entries_deleted: found.entries_deleted,
        entries_left: found.entries_left,
        packs_deleted: found.packs_deleted,
        packs_rewritten: found.packs_rewritten,
        freed_bytes: found.freed_bytes,
        left_bytes: found.left_bytes,
        cached_files_deleted: found.cached_files_deleted,
        cached_bytes: found.cached_bytes,
        deltas_deleted: found.deltas_deleted,
        delta_bytes: found.delta_bytes,
        leased_commits: found.leased.iter().map(ToString::to_string).collect(),
        gone: dry_run.then(|| GoneReport {
            bytes,
            commits: commits.collect(),
        }),
    }
}

fn print(found: &PruneReport, args: &Args) -> Result<()> {
    let mut out = ui::stdout();
    writeln!(out, "Total entries: {}", found.entries)?;
    if found.entries_deleted + found.entries_left == 0 {
        writeln!(out, "No unreachable entries")?;
    }
    let (deleted, freed) = if args.no_prune {
        ("Would delete", "would be freed")
    } else {
        ("Deleted", "freed")
    };
    if found.entries_deleted > 0 {
        let commits = ui::count(found.commits_deleted, "commit");
        let entries = ui::count(found.entries_deleted, "entry");
        let size = args.sizes.show(found.freed_bytes);
        writeln!(out, "{deleted} {entries}, {commits}; {size} {freed}")?;
    }
    if found.entries_left > 0 {
        let entries = ui::count(found.entries_left, "unreachable entry");
        let size = args.sizes.show(found.left_bytes);
        writeln!(
            out,
            "Left {entries}, {size}, in packs that are mostly in use"
        )?;
    }
    for (count, noun, bytes) in [
        (
            found.cached_files_deleted,
            "cached file",
            found.cached_bytes,
        ),
        (found.deltas_deleted, "static delta", found.delta_bytes),
    ] {
        if count > 0 {
            let size = args.sizes.show(bytes);
            writeln!(out, "{deleted} {}; {size} {freed}", ui::count(count, noun))?;
        }
    }
    for id in &found.leased {
        writeln!(out, "Kept {id}: mounted or being read")?;
    }
    if !found.gone.is_empty() {
        writeln!(out, "\n{:>10}  Commit", "Alone")?;
        for gone in &found.gone {
            let size = gone
                .exclusive_bytes
                .map_or("?".to_owned(), |n| args.sizes.show(n));
            let (commit, time) = (gone.commit, time::show(gone.timestamp));
            writeln!(
                out,
                "{size:>10}  {commit}  {time}  {}",
                ui::printable(&gone.subject)
            )?;
        }
        writeln!(
            out,
            "{:>10}  all of them together",
            args.sizes.show(found.gone_bytes)
        )?;
    }
    out.flush()?;
    Ok(())
}

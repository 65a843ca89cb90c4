//! `grove repair`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use grove_compose::PackageSource;
use grove_engine::fs::{DiskStorage, Storage};
use grove_engine::ops::repair::{
    DirectorySource, RepairOptions, RepairReport, RepositorySource, Source, repair,
};
use grove_engine::{Error as Engine, Repository};
use serde::Serialize;

use super::fsck::{self, JsonProblem};
use crate::cli::Globals;
use crate::exit::{Error, PROBLEMS, Result};
use crate::json::{self, JsonSwitch};
use crate::ui::{self, Style};

/// Mend a damaged repository
///
/// Packs are restored from their parity files where they have one; otherwise everything that is
/// sound in them is kept, and what is not is looked for in the sources, in the order given. The
/// index is made anew, refs are restored from their copy. Damaged packs are kept in 'quarantine'
/// unless everything in them was restored. What is lost is listed with the paths that it hits, and
/// the exit code is then 3. Nobody may use the repository meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove repair --dry-run\n  \
    grove repair --from /mnt/backup/repo --from /srv/rpms/bash-5.2-1.x86_64.rpm\n  \
    grove repair --parity")]
pub struct Args {
    /// Look for what is missing in SOURCE: another repository, a directory such as a checkout, or
    /// an RPM file
    #[arg(long, value_name = "SOURCE")]
    from: Vec<PathBuf>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Also compare every object and payload with its checksum
    #[arg(long)]
    deep: bool,
    /// Make parity files for all packs, and from now on for new ones: 3 % more space, and damage
    /// of as much can be mended without a source
    #[arg(long, conflicts_with = "no_parity")]
    parity: bool,
    /// Delete the parity files, and make no more
    #[arg(long)]
    no_parity: bool,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    notes: Vec<String>,
    packs_mended: u64,
    packs_rewritten: u64,
    packs_quarantined: u64,
    entries_salvaged: u64,
    objects_restored: u64,
    payloads_restored: u64,
    parity_made: u64,
    parity_deleted: u64,
    lost: Vec<JsonProblem>,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let options = RepairOptions {
        dry_run: args.dry_run,
        deep: args.deep,
        parity: match (args.parity, args.no_parity) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        paths: fsck::paths(globals, args.json),
    };
    let mut sources = Vec::new();
    for path in &args.from {
        sources.push(source(path)?);
    }
    let storage: Arc<dyn Storage> = Arc::new(DiskStorage);
    let path = globals.repo_path();
    let progress = globals.progress();
    let done = repair(&path, &storage, &options, &mut sources, &progress);
    progress.finish();
    let report = done.map_err(explain)?;
    if args.json.json {
        json::print(&json_report(&report, args.dry_run))?;
    } else {
        print(&report, args, globals)?;
    }
    Ok(if report.lost.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(PROBLEMS)
    })
}

fn source(path: &Path) -> Result<Box<dyn Source>> {
    let metadata = std::fs::metadata(path).map_err(|source| Engine::Io {
        path: path.to_owned(),
        source,
    })?;
    if !metadata.is_dir() {
        return Ok(Box::new(PackageSource::new(path)));
    }
    match Repository::open(path) {
        Ok(repo) => Ok(Box::new(RepositorySource::new(repo))),
        Err(Engine::NotARepository { .. }) => Ok(Box::new(DirectorySource::new(path))),
        Err(error) => Err(error.into()),
    }
}

fn explain(error: Engine) -> Error {
    match error {
        Engine::Locked { .. } => Error::Hinted {
            error,
            hint: "try again when nobody writes to the repository or has mounted it",
        },
        Engine::Cancelled => Error::Hinted {
            error,
            hint: "nothing is lost; run 'grove repair' again to go on",
        },
        other => other.into(),
    }
}

fn json_report(report: &RepairReport, dry_run: bool) -> Report {
    Report {
        dry_run,
        notes: report.notes.clone(),
        packs_mended: report.packs_mended,
        packs_rewritten: report.packs_rewritten,
        packs_quarantined: report.packs_quarantined,
        entries_salvaged: report.entries_salvaged,
        objects_restored: report.objects_restored,
        payloads_restored: report.payloads_restored,
        parity_made: report.parity_made,
        parity_deleted: report.parity_deleted,
        lost: report.lost.iter().map(JsonProblem::from).collect(),
    }
}

fn print(report: &RepairReport, args: &Args, globals: &Globals) -> Result<()> {
    let mut out = ui::stdout();
    let style = Style::of_output();
    for note in &report.notes {
        writeln!(out, "{}", style.line(note))?;
    }
    let names = Repository::open(&globals.repo_path()).map(|repo| fsck::names(&repo));
    for problem in &report.lost {
        fsck::print_problem(
            &mut out,
            "lost",
            problem,
            names.as_ref().unwrap_or(&Default::default()),
        )?;
    }
    if !globals.quiet {
        print_totals(&mut out, report, args.dry_run)?;
    }
    out.flush()?;
    Ok(())
}

fn print_totals(out: &mut impl Write, report: &RepairReport, dry_run: bool) -> Result<()> {
    if report.parity_made > 0 {
        let files = ui::count(report.parity_made, "parity file");
        writeln!(
            out,
            "{files} {}",
            if dry_run { "would be made" } else { "made" }
        )?;
    }
    if report.parity_deleted > 0 {
        let files = ui::count(report.parity_deleted, "parity file");
        writeln!(
            out,
            "{files} {}",
            if dry_run {
                "would be deleted"
            } else {
                "deleted"
            }
        )?;
    }
    let state = match (report.lost.len(), report.notes.is_empty(), dry_run) {
        (0, true, _) => "no damage found".to_owned(),
        (0, false, false) => "everything is restored".to_owned(),
        (0, false, true) => "everything would be restored".to_owned(),
        (n, _, false) => format!("{n} lost"),
        (n, _, true) => format!("{n} would be lost"),
    };
    writeln!(out, "{state}")?;
    Ok(())
}

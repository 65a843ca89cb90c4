//! `grove stats --compare`: what directories need, stored in several ways.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use grove_engine::error::IoResultExt;
use grove_engine::ops::compare::{Needs, Release, compare};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Options of the comparison.
#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    /// Say instead what these directories need, committed one after the other: as OSTree archive
    /// (one zlib file for each object), as compressed chunks, and here
    #[arg(long, value_name = "DIR", num_args = 1..)]
    compare: Vec<PathBuf>,
    /// Where to make the repository that --compare needs, which is removed afterwards [default: the
    /// system's temporary directory]
    #[arg(long, value_name = "DIR", requires = "compare")]
    scratch: Option<PathBuf>,
}

impl CompareArgs {
    /// Whether a comparison is wanted.
    pub fn is_given(&self) -> bool {
        !self.compare.is_empty()
    }
}

#[derive(Serialize)]
struct Report {
    releases: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    tree: String,
    files: u64,
    logical_bytes: u64,
    skipped: u64,
    ostree_archive: Figures,
    chunks: Figures,
    grove: Figures,
}

#[derive(Serialize)]
struct Figures {
    stored_bytes: u64,
    added_bytes: u64,
    allocated_bytes: u64,
    files: u64,
    seconds: f64,
}

/// A directory that is removed when it goes out of scope.
struct Scratch(PathBuf);

impl Scratch {
    fn create(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("grove-compare-{}", std::process::id()));
        fs::create_dir(&path).at(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind in the temporary directory harms nobody.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Runs the comparison.
pub fn run(
    args: &CompareArgs,
    sizes: SizeSwitch,
    json: JsonSwitch,
    globals: &Globals,
) -> Result<ExitCode> {
    let parent = args.scratch.clone().unwrap_or_else(env::temp_dir);
    let scratch = Scratch::create(&parent)?;
    let progress = globals.progress();
    let found = compare(&args.compare, &scratch.0, &progress)?;
    progress.finish();
    drop(scratch);
    let report = report(&found);
    if json.json {
        json::print(&report)?;
    } else {
        print(&report, sizes)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(found: &[Release]) -> Report {
    let before = std::iter::once(None).chain(found.iter().map(Some));
    let row = |(before, now): (Option<&Release>, &Release)| Row {
        tree: now.tree.display().to_string(),
        files: now.files,
        logical_bytes: now.logical_bytes,
        skipped: now.skipped,
        ostree_archive: figures(before.map(|r| r.archive), now.archive),
        chunks: figures(before.map(|r| r.chunks), now.chunks),
        grove: figures(before.map(|r| r.repository), now.repository),
    };
    Report {
        releases: before.zip(found).map(row).collect(),
    }
}

fn figures(before: Option<Needs>, now: Needs) -> Figures {
    let before = before.map_or(0, |needs| needs.stored_bytes);
    Figures {
        stored_bytes: now.stored_bytes,
        added_bytes: now.stored_bytes.saturating_sub(before),
        allocated_bytes: now.allocated_bytes,
        files: now.files,
        seconds: now.time.as_secs_f64(),
    }
}

fn print(report: &Report, sizes: SizeSwitch) -> Result<()> {
    let mut out = ui::stdout();
    for row in &report.releases {
        writeln!(
            out,
            "{}: {}, {}",
            ui::printable(&row.tree),
            ui::count(row.files, "file"),
            sizes.show(row.logical_bytes)
        )?;
        if row.skipped > 0 {
            writeln!(out, "  left out: {}", ui::count(row.skipped, "entry"))?;
        }
        let head = ["", "stored", "added", "on disk", "files", "time"];
        let mut lines = vec![head.map(str::to_owned)];
        for (name, figures) in [
            ("OSTree archive", &row.ostree_archive),
            ("chunks, 64 KiB", &row.chunks),
            ("Grove", &row.grove),
        ] {
            lines.push([
                name.to_owned(),
                sizes.show(figures.stored_bytes),
                sizes.show(figures.added_bytes),
                sizes.show(figures.allocated_bytes),
                figures.files.to_string(),
                format!("{:.1} s", figures.seconds),
            ]);
        }
        for [name, cells @ ..] in lines {
            write!(out, "  {name:<16}")?;
            for cell in cells {
                write!(out, "{cell:>14}")?;
            }
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(())
}

//! `grove export`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use grove_engine::Error as Engine;
use grove_engine::ops::ostree::{ExportOptions, ExportReport, RepoMode, export};
use serde::Serialize;

use super::checkout::Fsync;
use super::import::{depth, text_of};
use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Write commits as an OSTree repository on disk
///
/// Commits keep their checksums. An archive can be served over HTTP as it is: it has a summary, and the
/// static deltas that lie in 'deltas' of the repository here. An existing OSTree repository is added
/// to; objects that it has are not written again, so an interrupted export goes on when it is run
/// again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove export /srv/www/repo\n  \
    grove export --mode=bare-user --depth=0 /srv/repo os/stable")]
pub struct Args {
    /// The OSTree repository; new, empty, or an existing one
    ostree_repo: PathBuf,
    /// Refs or other revs [default: all refs]
    #[arg(value_name = "REF")]
    refs: Vec<String>,
    /// The mode of a new repository [default: archive]
    #[arg(long)]
    mode: Option<Mode>,
    /// Write N parents of each commit; -1 for all that are there
    #[arg(long, value_name = "N", default_value = "-1", allow_hyphen_values = true)]
    depth: i64,
    /// Make objects durable before refs lead to them
    #[arg(long, value_name = "POLICY", default_value = "yes", hide_default_value = true)]
    fsync: Fsync,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

/// The modes that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Compressed, to be served over HTTP
    #[value(alias = "archive-z2")]
    Archive,
    /// With owners and attributes of its own; takes root
    Bare,
    /// Owners and attributes kept beside; for users
    BareUser,
    /// Only files of owner 0 without attributes
    BareUserOnly,
}

impl From<Mode> for RepoMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Archive => Self::Archive,
            Mode::Bare => Self::Bare,
            Mode::BareUser => Self::BareUser,
            Mode::BareUserOnly => Self::BareUserOnly,
        }
    }
}

#[derive(Serialize)]
struct Report<'r> {
    mode: &'r str,
    refs: BTreeMap<&'r str, String>,
    commits: u64,
    partial_commits: u64,
    objects: u64,
    new_objects: u64,
    written_bytes: u64,
    static_deltas: u64,
    static_delta_bytes: u64,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let options = ExportOptions {
        mode: args.mode.map(RepoMode::from),
        refs: args.refs.clone(),
        depth: depth(args.depth),
        fsync: args.fsync == Fsync::Yes,
    };
    let progress = globals.progress();
    let done = export(&repo, &args.ostree_repo, &options, &progress);
    progress.finish();
    let report = done.map_err(explain)?;
    if args.json.json {
        json::print(&json_report(&report))?;
    } else if !globals.quiet {
        print(&report, args.sizes)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(error: Engine) -> Error {
    let hint = match &error {
        Engine::Cancelled => "what was written is whole; run the same export again to go on",
        Engine::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "only root can set any owner; --mode=bare-user needs no root"
        }
        Engine::NotEmpty { .. } => "name a new or an empty directory, or an OSTree repository",
        _ => return error.into(),
    };
    Error::Hinted { error, hint }
}

fn json_report(report: &ExportReport) -> Report<'_> {
    Report {
        mode: &report.mode,
        refs: text_of(&report.refs),
        commits: report.commits,
        partial_commits: report.partial_commits,
        objects: report.objects,
        new_objects: report.new_objects,
        written_bytes: report.written_bytes,
        static_deltas: report.deltas,
        static_delta_bytes: report.delta_bytes,
    }
}

fn print(report: &ExportReport, sizes: SizeSwitch) -> Result<()> {
    let mut out = ui::stdout();
    for (name, id) in &report.refs {
        writeln!(out, "{id} {name}")?;
    }
    writeln!(
        out,
        "{}, {}; {} written, {}",
        ui::count(report.commits, "commit"),
        ui::count(report.objects, "object"),
        report.new_objects,
        sizes.show(report.written_bytes),
    )?;
    if report.deltas > 0 {
        let deltas = ui::count(report.deltas, "static delta");
        writeln!(out, "{deltas}, {}", sizes.show(report.delta_bytes))?;
    }
    out.flush()?;
    Ok(())
}

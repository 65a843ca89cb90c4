//! `grove export`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use grove_engine::Error as Engine;
use grove_engine::ops::ostree::{ExportOptions, ExportReport, RepoMode, export};
use serde::Serialize;

use super::exchange::{ExchangeArgs, text_of};
use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::ui;

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
    /// Make objects durable before refs lead to them
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "yes",
        hide_default_value = true
    )]
    fsync: Fsync,
    #[command(flatten)]
    exchange: ExchangeArgs,
}

/// ostree's words for yes and no. What is exported is made durable group by group, never file by file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    /// Do.
    #[value(aliases = ["true", "1"])]
    Yes,
    /// Do not.
    #[value(aliases = ["false", "0"])]
    No,
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
        depth: args.exchange.depth(),
        fsync: args.fsync == Fsync::Yes,
    };
    let progress = globals.progress();
    let done = export(&repo, &args.ostree_repo, &options, &progress);
    progress.finish();
    let report = done.map_err(explain)?;
    let exchange = &args.exchange;
    let lines = |out: &mut dyn Write| print(out, &report, exchange);
    exchange.tell(&json_report(&report), &report.refs, lines, globals)
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

fn print(out: &mut dyn Write, report: &ExportReport, args: &ExchangeArgs) -> io::Result<()> {
    writeln!(
        out,
        "{}, {}; {} written, {}",
        ui::count(report.commits, "commit"),
        ui::count(report.objects, "object"),
        report.new_objects,
        args.size(report.written_bytes),
    )?;
    if report.deltas > 0 {
        let deltas = ui::count(report.deltas, "static delta");
        writeln!(out, "{deltas}, {}", args.size(report.delta_bytes))?;
    }
    Ok(())
}

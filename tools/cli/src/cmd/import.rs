//! `grove import`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use grove_engine::Error as Engine;
use grove_engine::ops::ostree::{ImportOptions, ImportReport, import};
use serde::Serialize;

use super::exchange::{ExchangeArgs, text_of};
use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::ui;

/// Take commits over from an OSTree repository on disk
///
/// The repository may have any mode: bare, bare-user, bare-user-only, bare-split-xattrs or archive.
/// Commits keep their checksums, and every object is compared with its own on the way. Commits come with
/// their history, their detached metadata (signatures) and what is known of remotes and collections.
/// What is here already is not read again; an interrupted import goes on when it is run again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove import /ostree/repo\n  \
    grove import --depth=0 /srv/repo fedora:fedora/40/x86_64/silverblue")]
pub struct Args {
    /// The OSTree repository
    ostree_repo: PathBuf,
    /// Refs or checksums of commits [default: all refs]
    #[arg(value_name = "REF")]
    refs: Vec<String>,
    #[command(flatten)]
    exchange: ExchangeArgs,
}

#[derive(Serialize)]
struct Report<'r> {
    mode: &'r str,
    refs: BTreeMap<&'r str, String>,
    commits: u64,
    new_commits: u64,
    partial_commits: u64,
    files: u64,
    read_files: u64,
    read_bytes: u64,
    new_payload_bytes: u64,
    stored_bytes: u64,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let options = ImportOptions {
        refs: args.refs.clone(),
        depth: args.exchange.depth(),
        ..ImportOptions::default()
    };
    let progress = globals.progress();
    let done = import(&repo, &args.ostree_repo, &options, &progress);
    progress.finish();
    let report = done.map_err(explain)?;
    let exchange = &args.exchange;
    let lines = |out: &mut dyn Write| print(out, &report, exchange);
    exchange.tell(&json_report(&report), &report.refs, lines, globals)
}

fn explain(error: Engine) -> Error {
    match error {
        Engine::Cancelled => Error::Hinted {
            error,
            hint: "nothing is lost; run the same import again to go on",
        },
        other => other.into(),
    }
}

fn json_report(report: &ImportReport) -> Report<'_> {
    Report {
        mode: &report.mode,
        refs: text_of(&report.refs),
        commits: report.commits,
        new_commits: report.new_commits,
        partial_commits: report.partial_commits,
        files: report.files,
        read_files: report.read_files,
        read_bytes: report.read_bytes,
        new_payload_bytes: report.new_payload_bytes,
        stored_bytes: report.stored_bytes,
    }
}

fn print(out: &mut dyn Write, report: &ImportReport, args: &ExchangeArgs) -> io::Result<()> {
    writeln!(
        out,
        "{}, {} of them new; {} read, {}; {} stored",
        ui::count(report.commits, "commit"),
        report.new_commits,
        ui::count(report.read_files, "file"),
        args.size(report.read_bytes),
        args.size(report.stored_bytes),
    )?;
    if report.partial_commits > 0 {
        let commits = ui::count(report.partial_commits, "commit");
        writeln!(out, "incomplete where they come from: {commits}")?;
    }
    Ok(())
}

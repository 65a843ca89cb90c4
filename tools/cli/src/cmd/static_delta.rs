//! `grove static-delta`.

mod show;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use grove_engine::ops::static_delta::{
    self, ApplyReport, DeltaAt, DeltaName, Effort, GenerateOptions, GenerateReport, VerifyReport,
};
use grove_engine::{ObjectId, Repository};
use serde::Serialize;

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Make and use OSTree's static deltas
///
/// A static delta holds what one commit has and another one lacks. OSTree's clients fetch it in place
/// of single objects. Deltas of the repository are named FROM-TO, or TO where they hold a whole commit.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove static-delta generate os/stable\n  \
    grove static-delta generate --from=os/stable^^ --inline --filename=update os/stable\n  \
    grove static-delta apply-offline update")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Generate(Generate),
    List(List),
    Show(show::Show),
    Verify(Verify),
    Delete(Delete),
    ApplyOffline(ApplyOffline),
}

/// Make a delta, and see that it gives the commit
///
/// Each part is applied and compared before it is kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove static-delta generate os/stable\n  \
    grove static-delta generate --empty os/stable\n  \
    grove static-delta generate --from=os/stable^^ --inline --filename=update os/stable")]
struct Generate {
    /// The commit that the delta makes
    #[arg(value_name = "TO", required_unless_present = "to_rev")]
    rev: Option<String>,
    /// The same, as an option
    #[arg(long = "to", id = "to_rev", value_name = "REV", conflicts_with = "rev")]
    to: Option<String>,
    /// The commit that clients have [default: the parent of TO]
    #[arg(long, value_name = "REV", conflicts_with = "empty")]
    from: Option<String>,
    /// Make a delta for clients that have nothing
    #[arg(long)]
    empty: bool,
    /// Put everything into one file. Not for serving: clients refuse large ones
    #[arg(long)]
    inline: bool,
    /// Write the delta to PATH, and its parts beside it, not into the repository
    #[arg(long, value_name = "PATH")]
    filename: Option<PathBuf>,
    /// Do nothing if there is such a delta
    #[arg(long, short = 'n')]
    if_not_exists: bool,
    /// Close a part before it holds more than this many megabytes
    #[arg(long, value_name = "MB", default_value_t = 32)]
    max_chunk_size: u64,
    /// Do not patch files of more than this many megabytes
    #[arg(long, value_name = "MB", default_value_t = 128)]
    max_bsdiff_size: u64,
    /// Do not patch files at all
    #[arg(long)]
    disable_bsdiff: bool,
    /// Leave files of more than this many megabytes out, to be fetched as objects; 0 leaves
    /// out only those above 384 MiB
    #[arg(long, value_name = "MB", default_value_t = 0)]
    min_fallback_size: u64,
    /// Order of bytes in numbers
    #[arg(long, value_name = "ENDIAN", default_value = "l")]
    set_endianness: Endianness,
    /// Take several times as long for some percent fewer bytes
    #[arg(long)]
    best: bool,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

/// ostree's letters for the order of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Endianness {
    /// Little-endian.
    #[value(name = "l")]
    Little,
    /// Big-endian.
    #[value(name = "B")]
    Big,
}

/// List the deltas of the repository
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove static-delta list")]
struct List {
    #[command(flatten)]
    json: JsonSwitch,
}

/// Apply a delta without keeping anything, and compare all that it makes
///
/// The repository must have the commit that the delta begins at. Objects that the delta leaves out are counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove static-delta verify update")]
struct Verify {
    /// A delta of the repository, or a file or directory
    delta: String,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

/// Remove a delta from the repository
///
/// Names are those that 'grove static-delta list' prints.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove static-delta delete \
    0d1f9b1cd5ea3bd24c4d2a1a2a7c8c3a58b9ba5f8e1b3c3a8f6f0a8a4a0b3c51")]
struct Delete {
    /// Which one
    name: String,
}

/// Add the commit that a delta makes to the repository
///
/// The repository must have the commit that the delta begins at. No ref is set: 'grove refs --create'
/// gives the commit a name. A delta that is damaged or of another commit leaves no trace.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove static-delta apply-offline update")]
struct ApplyOffline {
    /// A file, or a directory with a file 'superblock'
    path: PathBuf,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    match &args.verb {
        Verb::Generate(args) => generate(args, &repo, globals),
        Verb::List(args) => list(args, &repo),
        Verb::Show(args) => show::run(args, &repo),
        Verb::Verify(args) => verify(args, &repo, globals),
        Verb::Delete(args) => Ok(static_delta::delete(&repo, &parse(&args.name)?)?),
        Verb::ApplyOffline(args) => apply(args, &repo, globals),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn parse(name: &str) -> Result<DeltaName> {
    name.parse().map_err(|_| {
        Error::Usage(format!(
            "{name:?} is not the name of a delta, FROM-TO or TO"
        ))
    })
}

/// A name of a delta of the repository, else a path.
fn find(text: &str) -> DeltaAt<'_> {
    text.parse()
        .map_or(DeltaAt::Path(Path::new(text)), DeltaAt::Name)
}

#[derive(Serialize)]
struct GenerateJson {
    from: Option<String>,
    to: String,
    made: bool,
    parts: u64,
    objects: u64,
    copied_files: u64,
    patched_files: u64,
    spliced_files: u64,
    whole_files: u64,
    fallbacks: u64,
    made_bytes: u64,
    delta_bytes: u64,
}

fn generate(args: &Generate, repo: &Repository, globals: &Globals) -> Result<()> {
    let to = args
        .rev
        .as_ref()
        .or(args.to.as_ref())
        .expect("because one of them is required");
    let to = repo.resolve_rev(to)?;
    let from = match args.empty {
        true => None,
        false => Some(begin(repo, args.from.as_deref(), &to)?),
    };
    let name = DeltaName { from, to };
    let made =
        !(args.if_not_exists && args.filename.is_none() && static_delta::exists(repo, &name));
    let mut report = GenerateReport::default();
    if made {
        let progress = globals.progress();
        let done = static_delta::generate(repo, name, &options(args), &progress);
        progress.finish();
        report = done?;
    }
    if args.json.json {
        return json::print(&GenerateJson {
            from: name.from.map(|id| id.to_string()),
            to: name.to.to_string(),
            made,
            parts: report.parts,
            objects: report.objects,
            copied_files: report.copied_files,
            patched_files: report.patched_files,
            spliced_files: report.spliced_files,
            whole_files: report.whole_files,
            fallbacks: report.fallbacks,
            made_bytes: report.made_bytes,
            delta_bytes: report.delta_bytes,
        });
    }
    let mut out = ui::stdout();
    if made {
        let from = name.from.map_or("empty".to_owned(), |id| id.to_string());
        writeln!(
            out,
            "Generating static delta:\n  From: {from}\n  To:   {}",
            name.to
        )?;
        writeln!(
            out,
            "{}, {} in {}",
            args.sizes.show(report.delta_bytes),
            ui::count(report.objects, "object"),
            ui::count(report.parts, "part"),
        )?;
        writeln!(
            out,
            "{}: {} copied, {} patched, {} spliced, {} whole",
            ui::count(files(&report), "file"),
            report.copied_files,
            report.patched_files,
            report.spliced_files,
            report.whole_files,
        )?;
        if report.fallbacks > 0 {
            writeln!(
                out,
                "{} left out, to be fetched as objects",
                ui::count(report.fallbacks, "file")
            )?;
        }
    } else {
        writeln!(out, "Delta {name} already exists.")?;
    }
    Ok(out.flush()?)
}

fn files(report: &GenerateReport) -> u64 {
    report.copied_files + report.patched_files + report.spliced_files + report.whole_files
}

/// Where a delta begins: at the commit that was given, or at the parent of the one that it makes.
pub(super) fn begin(repo: &Repository, from: Option<&str>, to: &ObjectId) -> Result<ObjectId> {
    if let Some(from) = from {
        return Ok(repo.resolve_rev(from)?);
    }
    let parent = repo.commit(to)?.parent;
    parent.ok_or_else(|| Error::Failed {
        message: format!("commit {to} has no parent"),
        hint: Some(
            "say where the delta begins with --from REV, or that it holds everything with --empty",
        ),
    })
}

fn options(args: &Generate) -> GenerateOptions {
    const MB: u64 = 1_000_000;
    let mut options = GenerateOptions::default();
    options.inline = args.inline;
    options.output = args.filename.clone();
    options.max_chunk_bytes = args.max_chunk_size.saturating_mul(MB);
    options.max_bsdiff_bytes = if args.disable_bsdiff {
        0
    } else {
        args.max_bsdiff_size.saturating_mul(MB)
    };
    options.min_fallback_bytes = args.min_fallback_size.saturating_mul(MB);
    options.effort = if args.best {
        Effort::Best
    } else {
        Effort::Fast
    };
    options.big_endian = args.set_endianness == Endianness::Big;
    options
}

#[derive(Serialize)]
struct ListJson {
    deltas: Vec<ListedJson>,
}

#[derive(Serialize)]
struct ListedJson {
    name: String,
    from: Option<String>,
    to: String,
}

fn list(args: &List, repo: &Repository) -> Result<()> {
    let names = static_delta::list(repo)?;
    if args.json.json {
        let listed = |name: &DeltaName| ListedJson {
            name: name.to_string(),
            from: name.from.map(|id| id.to_string()),
            to: name.to.to_string(),
        };
        return json::print(&ListJson {
            deltas: names.iter().map(listed).collect(),
        });
    }
    let mut out = ui::stdout();
    if names.is_empty() {
        writeln!(out, "(No static deltas)")?;
    }
    names.iter().try_for_each(|name| writeln!(out, "{name}"))?;
    Ok(out.flush()?)
}

#[derive(Serialize)]
struct VerifyJson {
    name: String,
    parts: u64,
    objects: u64,
    fallbacks: u64,
    fallback_bytes: u64,
}

fn verify(args: &Verify, repo: &Repository, globals: &Globals) -> Result<()> {
    let progress = globals.progress();
    let done = static_delta::verify(repo, &find(&args.delta), &progress);
    progress.finish();
    let VerifyReport {
        name,
        parts,
        objects,
        fallbacks,
        fallback_bytes,
    } = done?;
    if args.json.json {
        return json::print(&VerifyJson {
            name: name.to_string(),
            parts,
            objects,
            fallbacks,
            fallback_bytes,
        });
    }
    let mut out = ui::stdout();
    writeln!(
        out,
        "{} in {} are what they shall be",
        ui::count(objects, "object"),
        ui::count(parts, "part"),
    )?;
    if fallbacks > 0 {
        writeln!(
            out,
            "{} of {} left out, to be fetched from a server",
            ui::count(fallbacks, "object"),
            args.sizes.show(fallback_bytes),
        )?;
    }
    Ok(out.flush()?)
}

#[derive(Serialize)]
struct ApplyJson {
    commit: String,
    from: Option<String>,
    was_there: bool,
    metadata: u64,
    files: u64,
    made_bytes: u64,
    stored_bytes: u64,
}

fn apply(args: &ApplyOffline, repo: &Repository, globals: &Globals) -> Result<()> {
    let progress = globals.progress();
    let done = static_delta::apply_offline(repo, &DeltaAt::Path(&args.path), &progress);
    progress.finish();
    let ApplyReport {
        name,
        was_there,
        metadata,
        files,
        made_bytes,
        stored_bytes,
    } = done?;
    if args.json.json {
        let from = name.from.map(|id| id.to_string());
        let commit = name.to.to_string();
        return json::print(&ApplyJson {
            commit,
            from,
            was_there,
            metadata,
            files,
            made_bytes,
            stored_bytes,
        });
    }
    let mut out = ui::stdout();
    writeln!(out, "{}", name.to)?;
    out.flush()?;
    if globals.verbose {
        match was_there {
            true => eprintln!("the repository had that commit"),
            false => eprintln!(
                "{metadata} metadata, {} of {}; the repository grew by {}",
                ui::count(files, "file"),
                args.sizes.show(made_bytes),
                args.sizes.show(stored_bytes),
            ),
        }
    }
    Ok(())
}

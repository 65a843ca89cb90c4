//! `grove delta`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, value_parser};
use grove_engine::ops::delta::{
    self, ApplyOptions, ApplyReport, CreateOptions, DeltaInfo, VerifyReport,
};
use grove_engine::ops::static_delta::DeltaName;
use serde::Serialize;

use super::static_delta::begin;
use crate::cli::Globals;
use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Make and use Grove's own deltas: one file that brings a repository from one commit to another
///
/// Such a delta travels on a stick, needs no server, and is smaller than a static delta: what is
/// compressed inside of files is sent as what changed in it. OSTree cannot read it: see 'grove static-delta'
/// for deltas that stock clients apply.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  grove delta create os/stable update.delta\n  \
    grove delta create --from=os/stable^^ os/stable update.delta\n  \
    grove delta show update.delta\n  \
    grove delta apply --ref=os/stable update.delta"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(Create),
    Apply(Apply),
    Show(Show),
    Verify(Verify),
}

/// Make a delta, and see that it gives the commit
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  grove delta create os/stable update.delta\n  \
    grove delta create --from=os/stable^^ --level=12 os/stable update.delta"
)]
struct Create {
    /// The commit that the delta makes
    to: String,
    /// The file to write
    file: PathBuf,
    /// The commit that is there where the delta is applied [default: the parent of TO]
    #[arg(long, value_name = "REV", conflicts_with = "empty")]
    from: Option<String>,
    /// Put everything into the delta, for repositories that have nothing
    #[arg(long)]
    empty: bool,
    /// zstd level
    #[arg(long, value_name = "N", default_value_t = 19, value_parser = value_parser!(i32).range(1..=22))]
    level: i32,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

/// Add the commit that a delta makes to the repository
///
/// The repository must have the commit that the delta begins at. A delta that is damaged, cut short or of
/// another commit leaves no trace. What was interrupted is done by running it again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove delta apply --ref=os/stable update.delta")]
struct Apply {
    /// The delta
    file: PathBuf,
    /// Let REF point to the commit; may be given several times [default: no ref is set]
    #[arg(long = "ref", value_name = "REF")]
    refs: Vec<String>,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

/// Say what a delta holds; no repository is needed
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove delta show update.delta")]
struct Show {
    /// The delta
    file: PathBuf,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

/// Apply a delta without keeping anything, and compare all that it makes
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove delta verify update.delta")]
struct Verify {
    /// The delta
    file: PathBuf,
    #[command(flatten)]
    json: JsonSwitch,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    match &args.verb {
        Verb::Create(args) => create(args, globals),
        Verb::Apply(args) => apply(args, globals),
        Verb::Show(args) => show(args),
        Verb::Verify(args) => verify(args, globals),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn create(args: &Create, globals: &Globals) -> Result<()> {
    let repo = globals.repository()?;
    let to = repo.resolve_rev(&args.to)?;
    let from = match args.empty {
        true => None,
        false => Some(begin(&repo, args.from.as_deref(), &to)?),
    };
    let mut options = CreateOptions::default();
    options.level = args.level;
    let progress = globals.progress();
    let made = delta::create(
        &repo,
        DeltaName { from, to },
        &args.file,
        &options,
        &progress,
    );
    progress.finish();
    print_info(&made?, args.sizes, args.json)
}

fn show(args: &Show) -> Result<()> {
    print_info(&delta::show(&args.file)?, args.sizes, args.json)
}

#[derive(Serialize)]
struct InfoJson {
    from: Option<String>,
    to: String,
    size: u64,
    tree_size: u64,
    files_size: u64,
    contents_size: u64,
    metadata: u64,
    files: u64,
    whole_contents: u64,
    patched_contents: u64,
    framed_contents: u64,
    joined_contents: u64,
    recompressed_contents: u64,
    made_bytes: u64,
}

fn print_info(info: &DeltaInfo, sizes: SizeSwitch, json: JsonSwitch) -> Result<()> {
    if json.json {
        return json::print(&InfoJson {
            from: info.from.map(|id| id.to_string()),
            to: info.to.to_string(),
            size: info.size,
            tree_size: info.tree_size,
            files_size: info.files_size,
            contents_size: info.contents_size,
            metadata: info.metadata,
            files: info.files,
            whole_contents: info.whole_contents,
            patched_contents: info.patched_contents,
            framed_contents: info.framed_contents,
            joined_contents: info.joined_contents,
            recompressed_contents: info.recompressed_contents,
            made_bytes: info.made_bytes,
        });
    }
    let mut out = ui::stdout();
    let from = info.from.map_or("nothing".to_owned(), |id| id.to_string());
    writeln!(out, "From: {from}\nTo:   {}", info.to)?;
    let line = [
        ("directories", info.tree_size),
        ("files' metadata", info.files_size),
        ("contents", info.contents_size),
    ]
    .map(|(what, size)| format!("{what} {}", sizes.show(size)));
    writeln!(out, "Size: {} ({})", sizes.show(info.size), line.join(", "))?;
    let count = ui::count;
    writeln!(
        out,
        "Makes {}, {} and {} of contents",
        count(info.metadata, "metadata object"),
        count(info.files, "file"),
        sizes.show(info.made_bytes),
    )?;
    writeln!(
        out,
        "Contents: {} whole, {} patched, {} in frames, {} joined, {} recompressed",
        info.whole_contents,
        info.patched_contents,
        info.framed_contents,
        info.joined_contents,
        info.recompressed_contents,
    )?;
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

fn apply(args: &Apply, globals: &Globals) -> Result<()> {
    let repo = globals.repository()?;
    let mut options = ApplyOptions::default();
    options.refs.clone_from(&args.refs);
    let progress = globals.progress();
    let done = delta::apply(&repo, &args.file, &options, &progress);
    progress.finish();
    let ApplyReport {
        from,
        to,
        was_there,
        metadata,
        files,
        made_bytes,
        stored_bytes,
    } = done?;
    if args.json.json {
        let (commit, from) = (to.to_string(), from.map(|id| id.to_string()));
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
    writeln!(out, "{to}")?;
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

#[derive(Serialize)]
struct VerifyJson {
    from: Option<String>,
    to: String,
    metadata: u64,
    files: u64,
}

fn verify(args: &Verify, globals: &Globals) -> Result<()> {
    let repo = globals.repository()?;
    let progress = globals.progress();
    let done = delta::verify(&repo, &args.file, &progress);
    progress.finish();
    let VerifyReport {
        from,
        to,
        metadata,
        files,
    } = done?;
    if args.json.json {
        let (from, to) = (from.map(|id| id.to_string()), to.to_string());
        return json::print(&VerifyJson {
            from,
            to,
            metadata,
            files,
        });
    }
    let mut out = ui::stdout();
    writeln!(
        out,
        "{} and {} are what they shall be",
        ui::count(metadata, "metadata object"),
        ui::count(files, "file"),
    )?;
    Ok(out.flush()?)
}

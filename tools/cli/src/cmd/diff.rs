//! `grove diff`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use grove_engine::Repository;
use grove_engine::ops::diff::{
    Change, ChangeKind, DiffOptions, DiffReport, FileKind, Info, Side, diff,
};
use grove_engine::ops::ls::Node;
use serde::Serialize;

use crate::cli::Globals;
use crate::commit_view::xattrs;
use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui::{self, SizeSwitch};

/// Say what differs between two commits or directories
///
/// Prints modified (M), deleted (D) and added (A) paths. An argument that begins with '/' or '.'
/// is a directory, any other one a rev. With one argument, compares the commit with its parent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove diff os/stable^ os/stable\n  \
    grove diff --stat os/stable os/testing\n  grove diff --files os/stable /srv/root")]
pub struct Args {
    /// What to compare; the only rev, when there is no TO
    #[arg(value_name = "REV_OR_DIR")]
    from: String,
    /// What to compare it with
    #[arg(value_name = "REV_OR_DIR")]
    to: Option<String>,
    /// Say what changed of each path, and name those below removed directories, too
    #[arg(long)]
    files: bool,
    /// Print totals
    #[arg(long)]
    stat: bool,
    /// Leave extended attributes out of the comparison
    #[arg(long)]
    no_xattrs: bool,
    /// Take the files of directories as owned by this user
    #[arg(long, value_name = "UID")]
    owner_uid: Option<u32>,
    /// Take the files of directories as owned by this group
    #[arg(long, value_name = "GID")]
    owner_gid: Option<u32>,
    #[command(flatten)]
    sizes: SizeSwitch,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    from: String,
    to: String,
    totals: Totals,
    changes: Vec<Row>,
}

/// Totals of a comparison; also their JSON form.
#[derive(Debug, Default, Serialize)]
struct Totals {
    modified: u64,
    modified_content: u64,
    removed: u64,
    added: u64,
    modified_bytes_before: u64,
    modified_bytes_after: u64,
    removed_bytes: u64,
    added_bytes: u64,
}

#[derive(Serialize)]
struct Row {
    change: &'static str,
    path: String,
    /// What changed of a modified path.
    aspects: Vec<&'static str>,
    /// Whether it follows from a change above it.
    implied: bool,
    before: Option<Entry>,
    after: Option<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    symlink_target: Option<String>,
    xattrs: String,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let (from, to) = match &args.to {
        Some(to) => (args.from.clone(), to.clone()),
        None => (format!("{}^", args.from), args.from.clone()),
    };
    let options = DiffOptions {
        details: args.files || args.stat || args.json.json,
        no_xattrs: args.no_xattrs,
        owner_uid: args.owner_uid,
        owner_gid: args.owner_gid,
    };
    let progress = globals.progress();
    let (a, b) = (side(&repo, &from)?, side(&repo, &to)?);
    let found = diff(&repo, a, b, &options, &progress)?;
    progress.finish();
    if args.json.json {
        let changes = found.iter().map(row).collect();
        json::print(&Report { from, to, totals: totals(&found), changes })?;
        return Ok(ExitCode::SUCCESS);
    }
    let colour = ui::colour();
    let mut out = ui::stdout();
    if args.files || !args.stat {
        for change in found.iter().filter(|change| args.files || !change.implied) {
            write!(out, "{}    {}", letter(change.kind, colour), change.path)?;
            if args.files {
                write!(out, "  {}", details(change, args.sizes))?;
            }
            writeln!(out)?;
        }
    }
    if args.stat {
        print_totals(&mut out, &totals(&found), args.sizes)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn side<'a>(repo: &Repository, text: &'a str) -> Result<Side<'a>> {
    if text.starts_with(['/', '.']) {
        return Ok(Side::Local(Path::new(text)));
    }
    Ok(Side::Stored(Node::root(&repo.commit(&repo.resolve_rev(text)?)?)))
}

/// The letter of a change, yellow, red or green where colour is wanted.
fn letter(kind: ChangeKind, colour: bool) -> &'static str {
    match (kind, colour) {
        (ChangeKind::Modified, false) => "M",
        (ChangeKind::Removed, false) => "D",
        (ChangeKind::Added, false) => "A",
        (ChangeKind::Modified, true) => "\x1b[33mM\x1b[0m",
        (ChangeKind::Removed, true) => "\x1b[31mD\x1b[0m",
        (ChangeKind::Added, true) => "\x1b[32mA\x1b[0m",
    }
}

fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Symlink => "symlink",
        FileKind::Directory => "directory",
    }
}

fn target(info: &Info) -> String {
    ui::printable(&String::from_utf8_lossy(&info.symlink_target))
}

/// What a path is, of one that only one side has.
fn present(info: &Info, sizes: SizeSwitch) -> String {
    match info.kind {
        FileKind::File => sizes.show(info.size),
        FileKind::Symlink => format!("-> {}", target(info)),
        FileKind::Directory => "directory".into(),
    }
}

fn details(change: &Change, sizes: SizeSwitch) -> String {
    let (a, b) = match (&change.a, &change.b) {
        (Some(a), Some(b)) => (a, b),
        (Some(only), None) | (None, Some(only)) => return present(only, sizes),
        (None, None) => return String::new(),
    };
    let Some(aspects) = change.aspects() else { return String::new() };
    let mut parts = Vec::new();
    if aspects.kind {
        parts.push(format!("{} -> {}", kind_name(a.kind), kind_name(b.kind)));
    }
    if aspects.content && a.kind == FileKind::Symlink {
        parts.push(format!("target {} -> {}", target(a), target(b)));
    } else if aspects.content && a.size == b.size {
        parts.push(format!("content {}", sizes.show(a.size)));
    } else if aspects.content {
        parts.push(format!("content {} -> {}", sizes.show(a.size), sizes.show(b.size)));
    }
    if aspects.mode {
        parts.push(format!("mode {:04o} -> {:04o}", a.mode & 0o7777, b.mode & 0o7777));
    }
    if aspects.owner {
        parts.push(format!("owner {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    if aspects.xattrs {
        parts.push("xattrs".into());
    }
    parts.join(", ")
}

fn totals(report: &DiffReport) -> Totals {
    let mut totals = Totals::default();
    for change in report.iter() {
        let (before, after) =
            (change.a.as_ref().map_or(0, |i| i.size), change.b.as_ref().map_or(0, |i| i.size));
        match change.kind {
            ChangeKind::Added => {
                totals.added += 1;
                totals.added_bytes += after;
            }
            ChangeKind::Removed => {
                totals.removed += 1;
                totals.removed_bytes += before;
            }
            ChangeKind::Modified => {
                let content = change.aspects().is_some_and(|a| a.content || a.kind);
                totals.modified += 1;
                totals.modified_content += u64::from(content);
                if content {
                    totals.modified_bytes_before += before;
                    totals.modified_bytes_after += after;
                }
            }
        }
    }
    totals
}

fn print_totals(out: &mut dyn Write, totals: &Totals, sizes: SizeSwitch) -> Result<()> {
    let Totals { modified, modified_content, removed, added, .. } = totals;
    writeln!(
        out,
        "Modified:  {modified} ({modified_content} in content, {} -> {}; {} in metadata only)",
        sizes.show(totals.modified_bytes_before),
        sizes.show(totals.modified_bytes_after),
        modified - modified_content,
    )?;
    writeln!(out, "Removed:   {removed} ({})", sizes.show(totals.removed_bytes))?;
    writeln!(out, "Added:     {added} ({})", sizes.show(totals.added_bytes))?;
    let before = totals.modified_bytes_before + totals.removed_bytes;
    let after = totals.modified_bytes_after + totals.added_bytes;
    let sign = if after < before { '-' } else { '+' };
    writeln!(out, "Size:      {sign}{}", sizes.show(after.abs_diff(before)))?;
    Ok(())
}

fn row(change: &Change) -> Row {
    let mut aspects = Vec::new();
    if let Some(found) = change.aspects() {
        let all = [
            (found.kind, "type"),
            (found.content, "content"),
            (found.mode, "mode"),
            (found.owner, "owner"),
            (found.xattrs, "xattrs"),
        ];
        aspects.extend(all.iter().filter(|(changed, _)| *changed).map(|(_, name)| *name));
    }
    Row {
        change: match change.kind {
            ChangeKind::Modified => "modified",
            ChangeKind::Removed => "removed",
            ChangeKind::Added => "added",
        },
        path: change.path.clone(),
        aspects,
        implied: change.implied,
        before: change.a.as_ref().map(entry),
        after: change.b.as_ref().map(entry),
    }
}

fn entry(info: &Info) -> Entry {
    let link = info.kind == FileKind::Symlink;
    Entry {
        kind: kind_name(info.kind),
        mode: format!("{:04o}", info.mode & 0o7777),
        uid: info.uid,
        gid: info.gid,
        size: info.size,
        symlink_target: link.then(|| String::from_utf8_lossy(&info.symlink_target).into_owned()),
        xattrs: xattrs(&info.xattrs),
    }
}

//! `grove ls`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::Repository;
use grove_engine::ops::ls::{Depth, Entry, Node, resolve_path, walk};
use serde::Serialize;

use crate::cli::Globals;
use crate::commit_view::xattrs;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::ui::{self, Style};

/// List the paths of a commit
///
/// Prints type, mode, owner, group and size of each path. Directories are printed with their
/// contents, one level deep.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove ls os/stable\n  grove ls -RC os/stable /usr/lib")]
pub struct Args {
    /// Which commit
    rev: String,
    /// What to list; everything from the root when none is given
    path: Vec<String>,
    /// Print directories themselves, not what is in them
    #[arg(long, short)]
    dironly: bool,
    /// Go into directories
    #[arg(long, short = 'R', conflicts_with = "dironly")]
    recursive: bool,
    /// Print the checksums: of the file, or of the directory's listing and metadata
    #[arg(long, short = 'C')]
    checksum: bool,
    /// Print the extended attributes
    #[arg(long, short = 'X')]
    xattrs: bool,
    /// Print paths only, each ended by a NUL byte
    #[arg(long, conflicts_with_all = ["checksum", "xattrs", "json"])]
    nul_filenames_only: bool,
    #[command(flatten)]
    json: JsonSwitch,
}

#[derive(Serialize)]
struct Report {
    commit: String,
    entries: Vec<Row>,
}

/// What is known of a path; also its JSON form.
#[derive(Serialize)]
struct Row {
    path: String,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    symlink_target: Option<String>,
    /// Of the file, or of the directory's listing.
    checksum: String,
    /// Of a directory's metadata.
    meta_checksum: Option<String>,
    payload: Option<String>,
    xattrs: String,
    #[serde(skip)]
    bits: u32,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let id = repo.resolve_rev(&args.rev)?;
    let root = Node::root(&repo.commit(&id)?);
    let depth = match (args.dironly, args.recursive) {
        (true, _) => Depth::Itself,
        (_, true) => Depth::All,
        _ => Depth::Children,
    };
    let whole = [String::from("/")];
    let paths = if args.path.is_empty() {
        &whole[..]
    } else {
        &args.path
    };
    let style = Style::of_output();
    let mut out = ui::stdout();
    let mut rows = Vec::new();
    for path in paths {
        let start = resolve_path(&repo, root, path)?;
        walk(
            &repo,
            path,
            start,
            depth,
            &mut |entry: Entry<'_>| -> Result<()> {
                if args.nul_filenames_only {
                    write!(out, "{}\0", entry.path)?;
                    return Ok(());
                }
                let row = row(&repo, entry)?;
                if args.json.json {
                    rows.push(row);
                } else {
                    print(&mut out, &row, args, style)?;
                }
                Ok(())
            },
        )?;
    }
    out.flush()?;
    drop(out);
    if args.json.json {
        json::print(&Report {
            commit: id.to_string(),
            entries: rows,
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(repo: &Repository, entry: Entry<'_>) -> Result<Row, Error> {
    let path = entry.path.to_owned();
    Ok(match entry.node {
        Node::Dir { tree, meta } => {
            let dirmeta = repo.dirmeta(&meta)?;
            Row {
                path,
                kind: "directory",
                mode: format!("{:04o}", dirmeta.mode & 0o7777),
                uid: dirmeta.uid,
                gid: dirmeta.gid,
                size: 0,
                symlink_target: None,
                checksum: tree.to_string(),
                meta_checksum: Some(meta.to_string()),
                payload: None,
                xattrs: xattrs(&dirmeta.xattrs),
                bits: dirmeta.mode & 0o7777,
            }
        }
        Node::File(id) => {
            let file = repo.file(&id)?;
            let header = &file.header;
            let link = header.is_symlink();
            Row {
                path,
                kind: if link { "symlink" } else { "file" },
                mode: format!("{:04o}", header.mode & 0o7777),
                uid: header.uid,
                gid: header.gid,
                size: file.size,
                symlink_target: link
                    .then(|| String::from_utf8_lossy(&header.symlink_target).into_owned()),
                checksum: id.to_string(),
                meta_checksum: None,
                payload: file.payload.map(|payload| payload.to_string()),
                xattrs: xattrs(&header.xattrs),
                bits: header.mode & 0o7777,
            }
        }
    })
}

fn print(out: &mut dyn Write, row: &Row, args: &Args, style: Style) -> Result<()> {
    let letter = match row.kind {
        "directory" => 'd',
        "symlink" => 'l',
        _ => '-',
    };
    let Row {
        bits,
        uid,
        gid,
        size,
        ..
    } = row;
    write!(out, "{letter}{bits:05o} {uid} {gid} {size:6} ")?;
    if args.checksum {
        write!(out, "{} ", row.checksum)?;
        if let Some(meta) = &row.meta_checksum {
            write!(out, "{meta} ")?;
        }
    }
    if args.xattrs {
        write!(out, "{{ {} }} ", row.xattrs)?;
    }
    write!(out, "{}", style.line(&row.path))?;
    if let Some(target) = &row.symlink_target {
        write!(out, " -> {}", style.line(target))?;
    }
    writeln!(out)?;
    Ok(())
}

//! `grove show`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::object::{Commit, FileObject};
use grove_engine::{Error as Engine, ObjectId, ObjectKind, Repository};
use serde::Serialize;

use crate::cli::Globals;
use crate::commit_view::{self, CommitReport, xattrs};
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::ui::{self, Style};

/// Show an object: a commit, or anything a commit is made of
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  grove show os/stable\n  \
    grove show --print-metadata-key=version os/stable")]
pub struct Args {
    /// A rev, or the checksum of any object
    object: String,
    /// Print the object in GVariant text format
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// With --raw and --print-metadata-key, print integers as they are stored
    #[arg(long, short = 'B')]
    no_byteswap: bool,
    /// Print the value of one metadata key of the commit
    #[arg(long, value_name = "KEY", conflicts_with_all = ["raw", "json"])]
    print_metadata_key: Option<String>,
    /// Print the names of the metadata keys of the commit
    #[arg(long, conflicts_with_all = ["raw", "json", "print_metadata_key"])]
    list_metadata_keys: bool,
    #[command(flatten)]
    json: JsonSwitch,
}

enum Object {
    Commit(ObjectId, Box<Commit>),
    Metadata(ObjectKind, ObjectId, Vec<u8>),
    File(FileObject),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Report {
    Commit(CommitReport),
    Dirtree { checksum: String, value: String },
    Dirmeta { checksum: String, value: String },
    File(FileReport),
}

#[derive(Serialize)]
struct FileReport {
    checksum: String,
    file_type: &'static str,
    size: u64,
    mode: String,
    uid: u32,
    gid: u32,
    symlink_target: Option<String>,
    payload: Option<String>,
    xattrs: String,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let object = find(&repo, &args.object)?;
    let mut out = ui::stdout();
    match object {
        Object::Commit(_, commit) if args.print_metadata_key.is_some() => {
            let key = args.print_metadata_key.as_deref().unwrap_or_default();
            writeln!(out, "{}", metadata_value(&commit, key, args.no_byteswap)?)?;
        }
        Object::Commit(_, commit) if args.list_metadata_keys => {
            let mut keys: Vec<&str> = commit.metadata.iter().map(|(key, _)| key).collect();
            keys.sort_unstable();
            let style = Style::of_output();
            let mut keys = keys.into_iter().map(|key| style.line(key));
            keys.try_for_each(|key| writeln!(out, "{key}"))?;
        }
        object if args.json.json => {
            drop(out);
            json::print(&report(&object))?;
            return Ok(ExitCode::SUCCESS);
        }
        object => print(&mut out, &object, args)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// A rev first; then, for a whole checksum, an object of any other kind.
fn find(repo: &Repository, text: &str) -> Result<Object> {
    let error = match repo
        .resolve_rev(text)
        .and_then(|id| Ok((id, repo.commit(&id)?)))
    {
        Ok((id, commit)) => return Ok(Object::Commit(id, commit.into())),
        Err(error) => error,
    };
    let (Engine::RevNotFound { .. } | Engine::MissingObject { .. }, Ok(id)) =
        (&error, text.parse::<ObjectId>())
    else {
        return Err(error.into());
    };
    for kind in [ObjectKind::Dirtree, ObjectKind::Dirmeta] {
        match repo.object_bytes(kind, &id) {
            Ok(bytes) => return Ok(Object::Metadata(kind, id, bytes)),
            Err(Engine::MissingObject { .. }) => {}
            Err(other) => return Err(other.into()),
        }
    }
    match repo.file(&id) {
        Ok(file) => Ok(Object::File(file)),
        Err(Engine::MissingObject { .. }) => Err(Error::failed(format!("no object {id}"))),
        Err(other) => Err(other.into()),
    }
}

fn metadata_value(commit: &Commit, key: &str, verbatim: bool) -> Result<String> {
    let value = commit.metadata.get(key).ok_or_else(|| Error::Failed {
        message: format!("the commit has no metadata key {key:?}"),
        hint: Some("--list-metadata-keys lists those it has"),
    })?;
    Ok(if verbatim {
        value.print()
    } else {
        value.print_as_ostree()
    })
}

fn print(out: &mut dyn Write, object: &Object, args: &Args) -> Result<()> {
    let swap = !args.no_byteswap;
    match object {
        Object::Commit(id, commit) if args.raw => {
            commit_view::print_raw(out, id, commit, swap)?;
        }
        Object::Commit(id, commit) => commit_view::print(out, id, commit)?,
        Object::Metadata(kind, id, bytes) => {
            writeln!(out, "{kind} {id}")?;
            if args.raw {
                writeln!(out, "{}", commit_view::raw(signature(*kind), bytes, swap))?;
            }
        }
        Object::File(file) => print_file(out, file)?,
    }
    Ok(())
}

fn signature(kind: ObjectKind) -> &'static str {
    if kind == ObjectKind::Dirtree {
        "(a(say)a(sayay))"
    } else {
        "(uuua(ayay))"
    }
}

fn print_file(out: &mut dyn Write, file: &FileObject) -> Result<()> {
    let header = &file.header;
    writeln!(out, "Object: {}\nType: file", file.id)?;
    if header.is_symlink() {
        writeln!(out, "File Type: symlink")?;
        writeln!(
            out,
            "Target: {}",
            String::from_utf8_lossy(&header.symlink_target)
        )?;
    } else {
        writeln!(out, "File Type: regular\nSize: {}", file.size)?;
    }
    writeln!(out, "Mode: 0{:o}", header.mode)?;
    writeln!(out, "Uid: {}\nGid: {}", header.uid, header.gid)?;
    writeln!(out, "Extended Attributes: {{ {} }}", xattrs(&header.xattrs))?;
    Ok(())
}

fn report(object: &Object) -> Report {
    match object {
        Object::Commit(id, commit) => Report::Commit(CommitReport::new(id, commit)),
        Object::Metadata(kind, id, bytes) => {
            let checksum = id.to_string();
            let value = commit_view::raw(signature(*kind), bytes, true);
            if *kind == ObjectKind::Dirtree {
                Report::Dirtree { checksum, value }
            } else {
                Report::Dirmeta { checksum, value }
            }
        }
        Object::File(file) => {
            let header = &file.header;
            let link = header.is_symlink();
            Report::File(FileReport {
                checksum: file.id.to_string(),
                file_type: if link { "symlink" } else { "file" },
                size: file.size,
                mode: format!("{:06o}", header.mode),
                uid: header.uid,
                gid: header.gid,
                symlink_target: link
                    .then(|| String::from_utf8_lossy(&header.symlink_target).into_owned()),
                payload: file.payload.map(|payload| payload.to_string()),
                xattrs: xattrs(&header.xattrs),
            })
        }
    }
}

//! `grove cat`.

use std::io::Write;
use std::process::ExitCode;

use grove_engine::Error as Engine;
use grove_engine::ObjectKind;
use grove_engine::ops::ls::{Node, resolve_following};

use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::ui;

const BUFFER: usize = 256 * 1024;

/// Print the contents of files of a commit
///
/// Symbolic links are followed inside the commit.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  grove cat os/stable /usr/lib/os-release")]
pub struct Args {
    /// Which commit
    rev: String,
    /// Which files, one after the other
    #[arg(required = true)]
    path: Vec<String>,
}

/// Runs the verb.
pub fn run(args: &Args, globals: &Globals) -> Result<ExitCode> {
    let repo = globals.repository()?;
    let root = Node::root(&repo.commit(&repo.resolve_rev(&args.rev)?)?);
    let mut out = ui::stdout();
    let mut buffer = vec![0; BUFFER];
    for path in &args.path {
        let (path, node) = resolve_following(&repo, root, path)?;
        let Node::File(id) = node else {
            return Err(Error::failed(format!("{path} is a directory")));
        };
        let damaged = |error: Engine| error.hitting(&path, ObjectKind::File, &id);
        let file = repo.file(&id).map_err(damaged)?;
        let mut offset = 0;
        while offset < file.size {
            let n = repo.read_at(&file, offset, &mut buffer).map_err(damaged)?;
            let bytes = buffer.get(..n).filter(|bytes| !bytes.is_empty());
            let bytes = bytes.ok_or_else(|| Engine::Corrupt {
                path: repo.path().to_owned(),
                detail: format!("file {id} ends at {offset} of {} bytes", file.size),
            })?;
            out.write_all(bytes)?;
            offset += bytes.len() as u64;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

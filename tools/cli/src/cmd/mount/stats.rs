//! `grove mount --stats`: what sessions did.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use grove_engine::error::IoResultExt;
use grove_fusefs::daemon::{Place, SessionReport, private_stats, shared_stats};
use grove_fusefs::{MountError, MountInfo, mounts};
use serde::Serialize;

use super::list::device;
use crate::cli::Globals;
use crate::exit::{Error, Result};
use crate::json::{self, JsonSwitch};
use crate::ui;

#[derive(Serialize)]
struct Report<'a> {
    repository: String,
    sessions: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    device: String,
    process: u32,
    version: &'a str,
    shared: bool,
    xattrs: bool,
    dirs: Vec<String>,
    figures: BTreeMap<&'a str, u64>,
}

pub fn run(dir: Option<&Path>, json: JsonSwitch, globals: &Globals) -> Result<ExitCode> {
    let all = mounts()?;
    let (repository, sessions) = match dir {
        Some(dir) => of_mount(dir, &all)?,
        None => of_repository(globals, &all)?,
    };
    let dirs = |session: &SessionReport| -> Vec<String> {
        let here = all.iter().filter(|mount| mount.device == session.device);
        here.map(|mount| mount.point.display().to_string())
            .collect()
    };
    if json.json {
        let row = |session| row(session, dirs(session));
        let repository = repository.display().to_string();
        json::print(&Report {
            repository,
            sessions: sessions.iter().map(row).collect(),
        })?;
    } else {
        let mut out = ui::stdout();
        for session in &sessions {
            print(&mut out, session, &dirs(session))?;
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The session of one mount.
fn of_mount(dir: &Path, all: &[MountInfo]) -> Result<(PathBuf, Vec<SessionReport>)> {
    let dir = dir.canonicalize().at(dir)?;
    // Of several on one directory the last is seen.
    let mount = all.iter().rfind(|mount| mount.point == dir);
    let mount = mount.ok_or(MountError::NotMounted { path: dir })?;
    let mut sessions = match Place::of(&mount.repository) {
        Ok(place) => shared_stats(&place)?,
        // The repository is gone, or has another name by now.
        Err(_) => Vec::new(),
    };
    sessions.retain(|session| session.device == mount.device);
    if sessions.is_empty() {
        sessions.extend(private_stats(mount.device)?);
    }
    match sessions.is_empty() {
        false => Ok((mount.repository.clone(), sessions)),
        true => Err(Error::failed(format!(
            "the server of {} does not answer",
            mount.point.display()
        ))),
    }
}

/// All sessions of the repository.
fn of_repository(globals: &Globals, all: &[MountInfo]) -> Result<(PathBuf, Vec<SessionReport>)> {
    let Ok(place) = Place::of(&globals.repo_path()) else {
        // Its error says more.
        globals.repository()?;
        return Err(Error::failed("the repository cannot be found"));
    };
    let mut sessions = shared_stats(&place)?;
    for mount in all
        .iter()
        .filter(|mount| mount.repository == place.repository())
    {
        if sessions
            .iter()
            .all(|session| session.device != mount.device)
        {
            sessions.extend(private_stats(mount.device)?);
        }
    }
    Ok((place.repository().to_owned(), sessions))
}

fn row(session: &SessionReport, dirs: Vec<String>) -> Row<'_> {
    Row {
        device: device(session.device),
        process: session.pid,
        version: &session.version,
        shared: session.shared,
        xattrs: session.xattrs,
        dirs,
        figures: session
            .figures
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect(),
    }
}

fn print(out: &mut impl Write, session: &SessionReport, dirs: &[String]) -> Result<()> {
    let at = match dirs {
        [] => "nowhere to be seen".to_owned(),
        dirs => ui::printable(&dirs.join(", ")),
    };
    let kind = if session.shared { "shared" } else { "private" };
    writeln!(
        out,
        "{at} ({kind}, process {}, device {})",
        session.pid,
        device(session.device)
    )?;
    let width = session
        .figures
        .iter()
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    for (name, value) in &session.figures {
        // A session's process may be another user's.
        let name = ui::printable(name);
        writeln!(out, "  {name:width$}  {value:>12}")?;
    }
    Ok(())
}

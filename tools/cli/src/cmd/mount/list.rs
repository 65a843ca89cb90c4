//! `grove mount` without arguments: what is mounted.

use std::io::Write;
use std::process::ExitCode;

use grove_fusefs::{MountInfo, mounts};
use serde::Serialize;

use crate::exit::Result;
use crate::json::{self, JsonSwitch};
use crate::ui;

#[derive(Serialize)]
struct Report {
    mounts: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    dir: String,
    repository: String,
    /// Missing for all commits.
    commit: Option<String>,
    /// In the commit; empty for all of it.
    path: String,
    options: Vec<String>,
    overlay: bool,
    device: String,
}

pub fn run(json: JsonSwitch) -> Result<ExitCode> {
    let mounts = mounts()?;
    if json.json {
        json::print(&Report {
            mounts: mounts.iter().map(row).collect(),
        })?;
    } else {
        let mut out = ui::stdout();
        for mount in &mounts {
            writeln!(out, "{}", line(mount))?;
        }
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is mounted, as `mount -t fuse.grove` takes it, and where.
fn line(mount: &MountInfo) -> String {
    let mut text = mount.repository.display().to_string();
    if let Some(commit) = &mount.commit {
        text.push_str(&format!("#{commit}"));
    }
    if !mount.path.as_os_str().is_empty() {
        text.push_str(&format!("[/{}]", mount.path.display()));
    }
    text.push_str(&format!(" on {} ({}", mount.point.display(), mount.options));
    text.push_str(if mount.overlay { ",overlay)" } else { ")" });
    ui::printable(&text)
}

fn row(mount: &MountInfo) -> Row {
    Row {
        dir: mount.point.display().to_string(),
        repository: mount.repository.display().to_string(),
        commit: mount.commit.map(|id| id.to_string()),
        path: mount.path.display().to_string(),
        options: mount.options.split(',').map(str::to_owned).collect(),
        overlay: mount.overlay,
        device: device(mount.device),
    }
}

/// A device number as the kernel's tables have it.
pub fn device((major, minor): (u32, u32)) -> String {
    format!("{major}:{minor}")
}

//! Who uses a mount: processes with something open, running or current in it.
//!
//! Goes by the paths that `/proc` shows, so it asks nothing of the mount itself; processes in
//! other mount namespaces, and those that this user may not look into, are not seen.

use std::fmt;
use std::fs;
use std::path::Path;

/// A process that uses a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountUser {
    /// Its process id.
    pub pid: u32,
    /// The name of its program, as the kernel has it.
    pub command: String,
}

impl fmt::Display for MountUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.command, self.pid)
    }
}

/// The processes that use something below a mount point, by process id.
pub(crate) fn of(point: &Path) -> Vec<MountUser> {
    let Ok(listing) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut pids: Vec<u32> = listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter()
        .filter(|pid| uses(*pid, point))
        .map(|pid| MountUser {
            pid,
            command: command(pid),
        })
        .collect()
}

fn uses(pid: u32, point: &Path) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    let leads_there = |link: &Path| fs::read_link(link).is_ok_and(|path| path.starts_with(point));
    if ["cwd", "root", "exe"]
        .iter()
        .any(|name| leads_there(&proc.join(name)))
    {
        return true;
    }
    let open = fs::read_dir(proc.join("fd"));
    if open.is_ok_and(|open| open.flatten().any(|entry| leads_there(&entry.path()))) {
        return true;
    }
    // `address permissions offset device inode path`
    let maps = fs::read_to_string(proc.join("maps")).unwrap_or_default();
    maps.lines()
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .any(|path| Path::new(path).starts_with(point))
}

fn command(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_file_open_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().canonicalize().unwrap();
        assert_eq!(of(&point), []);
        let file = fs::File::create(point.join("open")).unwrap();
        let users = of(&point);
        drop(file);
        let pid = std::process::id();
        assert!(users.iter().any(|user| user.pid == pid), "{users:?}");
        let me = users.iter().find(|user| user.pid == pid).unwrap();
        assert!(me.to_string().ends_with(&format!(" ({pid})")), "{me}");
    }
}

//! Makes a directory that holds one commit hold another one, touching only what differs.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::beneath::{Root, is_no_dir, split};
use super::job::Job;
use super::place::{Place, hold};
use super::plan::Plan;
use super::record::{Identity, Records};
use super::{CheckoutOptions, CheckoutReport, Durability, Existing};
use crate::error::{Error, IoResultExt, Result};
use crate::id::ObjectId;
use crate::monitor::Monitor;
use crate::ops::diff::{DiffOptions, DiffReport, Side, diff};
use crate::ops::ls::{Node, resolve_path};
use crate::repo::Repository;

/// What an update compares with the new tree.
#[derive(Debug)]
pub(super) struct Compared {
    /// The root of the old one.
    pub old: Node,
    /// What differs.
    pub report: DiffReport,
}

/// Updates a checkout that this repository has made: what differs between the commit that it holds
/// and the new one is replaced, added and removed, whatever was done to it meanwhile; the rest is
/// not looked at. Interrupted, it goes on when it is called again, also with another commit.
///
/// Where a directory of both commits is none any more, a symbolic link for example, that stays, and
/// what changed below it is left out with a warning: nothing is ever written through a link.
///
/// Of the options only the durability counts; the others are those of the checkout.
///
/// # Errors
/// [`Error::UnknownCheckout`] if the repository does not know what the directory holds.
pub fn update(
    repo: &Repository,
    commit: &ObjectId,
    destination: &Path,
    options: &CheckoutOptions,
    monitor: &dyn Monitor,
) -> Result<CheckoutReport> {
    let fd = std::fs::File::open(destination).at(destination)?;
    hold(&fd, destination)?;
    let records = Records::new(repo);
    let unknown = || Error::UnknownCheckout {
        path: destination.to_owned(),
    };
    let identity = Identity::of(&fd).map_err(|_| unknown())?;
    let mut record = records.find(&identity).ok_or_else(unknown)?;
    let held = record.commits();
    if record.is_finished && held == [*commit] {
        if options.durability != Durability::None {
            // Whoever wrote it need not have done so.
            rustix::fs::syncfs(&fd).at(destination)?;
        }
        return Ok(CheckoutReport::default());
    }
    // Of a checkout that never came to its end anything may be missing.
    if !record.is_finished && held.len() < 2 {
        return Err(unknown());
    }
    let _lease = repo.lease(&[held.as_slice(), &[*commit]].concat())?;
    let options = CheckoutOptions {
        user_mode: record.user_mode,
        hard_links: record.hard_links,
        subpath: record.subpath.clone(),
        ..options.clone()
    };
    let root_of =
        |commit: &ObjectId| resolve_path(repo, Node::root(&repo.commit(commit)?), &options.subpath);
    let new = root_of(commit)?;
    let compare = |old: &ObjectId| {
        let old = root_of(old)?;
        let (a, b) = (Side::Stored(old), Side::Stored(new));
        let report = diff(Some(repo), a, b, &DiffOptions::default(), monitor)?;
        Ok(Compared { old, report })
    };
    let compared = held
        .iter()
        .map(compare)
        .collect::<Result<Vec<Compared>>>()?;
    record.add_commit(commit);
    // Else a power cut could leave a directory that is known to hold what it holds no more.
    records.put_durably(&record)?;
    let plan = Plan::of_changes(repo, new, &compared)?;
    let place = Place {
        destination,
        root: Root::new(fd.into()),
        existing: Existing::Update,
        is_new: false,
    };
    let job = Job::new(repo, &options, monitor, place, plan)?;
    job.clear(&compared)?;
    job.run()?;
    record.finish(commit);
    records.put(&record)?;
    Ok(job.counters.report())
}

impl Job<'_> {
    /// Removes what is gone, and what is no directory but is to be one. What is in the way of files is
    /// replaced with them.
    fn clear(&self, compared: &[Compared]) -> Result<()> {
        for dir in &self.plan.dirs {
            self.make_writable(&dir.path);
        }
        let changes = compared.iter().flat_map(|one| &one.report.removed);
        let mut removed: Vec<&str> = changes
            .map(|change| change.path.trim_start_matches('/'))
            .collect();
        // In descending order, what is in a directory comes before it.
        removed.sort_unstable_by(|a, b| b.cmp(a));
        removed.dedup();
        let mut above: Vec<&str> = removed.iter().map(|path| split(path).0).collect();
        above.sort_unstable();
        above.dedup();
        above.into_iter().for_each(|dir| self.make_writable(dir));
        for path in removed {
            self.remove_unless(path, None)?;
        }
        for dir in self.plan.dirs.iter().filter(|dir| dir.make) {
            self.remove_unless(&dir.path, Some(FileType::Directory))?;
        }
        Ok(())
    }

    /// Whoever is not root needs the permission to change a directory, which it gets back in the end.
    fn make_writable(&self, path: &str) {
        if !rustix::process::geteuid().is_root()
            && let Ok(dir) = self.root.open_dir(path)
        {
            // If this fails, so will what it is for, and say so.
            let _ = rustix::fs::fchmod(dir, Mode::RWXU);
        }
    }

    /// Removes an entry that is of another type. A directory with foreign entries in it stays, unless
    /// it is in the way.
    fn remove_unless(&self, path: &str, wanted: Option<FileType>) -> Result<()> {
        let at = || self.os_path(path);
        let (above, name) = split(path);
        let dir = match self.root.open_dir(above) {
            // What is above may be gone already, or be something else now.
            Err(error) if error.kind() == ErrorKind::NotFound || is_no_dir(&error) => return Ok(()),
            other => other.at(at())?,
        };
        let kind = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => FileType::from_raw_mode(other.at(at())?.st_mode),
        };
        if wanted == Some(kind) {
            return Ok(());
        }
        let is_dir = kind == FileType::Directory;
        if wanted.is_none() && is_dir {
            self.make_writable(path);
        }
        let flags = if is_dir {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        match rustix::fs::unlinkat(&dir, name, flags) {
            Err(Errno::NOTEMPTY) if wanted.is_none() => {
                self.counters.kept.fetch_add(1, Relaxed);
                Ok(())
            }
            other => other.at(at()),
        }
    }
}

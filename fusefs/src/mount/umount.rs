//! Unmounting, and clearing away what a dead server left.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FsWord;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::error::{MountError, Result};
use super::table::{self, Row};
use super::{KIND, helper, is_overlay, point, users};

/// Type of the figures of an overlay, from the kernel's `linux/magic.h`.
const OVERLAY: FsWord = 0x794c_7630;

/// Whether a mount that is in use may be detached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Umount {
    /// Refuse with [`MountError::Busy`].
    Unused,
    /// Take it out of the tree now; it ends when the last user is gone.
    Lazy,
}

/// Unmounts a Grove mount of whichever process, with the overlay above it if there is one.
pub fn umount(at: &Path, how: Umount) -> Result<()> {
    let point = point::resolve(at)?;
    let rows = table::read()?;
    let layers = layers(&rows, &point);
    if layers == 0 {
        return Err(MountError::NotMounted {
            path: at.to_owned(),
        });
    }
    (0..layers).try_for_each(|_| detach(&point, how))
}

/// The file system of ours that a point leads to, also below an overlay.
pub(crate) fn ours_at<'a>(rows: &'a [Row], point: &Path) -> Option<&'a Row> {
    let above = layers(rows, point).checked_sub(1)?;
    let mut here = rows.iter().rev().filter(|row| row.point == point);
    here.nth(above).filter(|row| is_ours(row))
}

/// How many of the mounts on top of each other at a point are ours and belong together.
pub(crate) fn layers(rows: &[Row], point: &Path) -> usize {
    let mut here = rows.iter().rev().filter(|row| row.point == point);
    match here.next() {
        Some(top) if top.kind == KIND => 1,
        Some(top) if is_overlay(top) => 1 + usize::from(here.next().is_some_and(is_ours)),
        _ => 0,
    }
}

fn is_ours(row: &Row) -> bool {
    row.kind == KIND
}

/// Whether a path is a mount whose server has died. Asks the server, so it waits for one that
/// lives but does not answer.
pub fn is_stale(at: &Path) -> bool {
    // Attributes may be in the kernel's cache; these figures never are.
    match rustix::fs::statfs(at) {
        Err(error) => is_dead(error),
        // Those of an overlay are of its upper layer.
        Ok(figures) => figures.f_type == OVERLAY && is_stale_below(at),
    }
}

/// Whether a path is an overlay of ours above a mount whose server has died.
fn is_stale_below(at: &Path) -> bool {
    let find = || -> Result<bool> {
        let point = point::resolve(at)?;
        let rows = table::read()?;
        if layers(&rows, &point) < 2 {
            return Ok(false);
        }
        // Nobody has asked for this name yet, so the server is asked for it.
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.unwrap_or_default().as_nanos();
        let name = format!(".grove-{}-{time}", std::process::id());
        Ok(matches!(rustix::fs::lstat(point.join(name)), Err(error) if is_dead(error)))
    };
    find().unwrap_or(false)
}

fn is_dead(error: Errno) -> bool {
    matches!(error, Errno::NOTCONN | Errno::CONNABORTED)
}

/// Unmounts a Grove mount whose server has died, and all other mounts that it served; whether
/// there was one.
pub fn clear_stale(at: &Path) -> Result<bool> {
    if !is_stale(at) {
        return Ok(false);
    }
    let point = point::resolve(at)?;
    let rows = table::read()?;
    if let Some(row) = ours_at(&rows, &point) {
        return clear_device(row.device).map(|()| true);
    }
    let path = at.to_owned();
    Err(match rows.iter().rfind(|row| row.point == point) {
        Some(row) => MountError::OtherStale {
            path,
            kind: row.kind.clone(),
        },
        None => MountError::NotMounted { path },
    })
}

/// Unmounts whatever dead servers of mounts with this source left.
pub(crate) fn clear_dead(source: &str) -> Result<()> {
    let mut checked = Vec::new();
    let rows = table::read()?;
    for row in &rows {
        let ours = row.kind == KIND && row.source == source;
        let is_top = || ours_at(&rows, &row.point).is_some_and(|top| top.device == row.device);
        if ours && !checked.contains(&row.device) && is_top() {
            checked.push(row.device);
            if is_stale(&row.point) {
                clear_device(row.device)?;
            }
        }
    }
    Ok(())
}

/// Detaches every mount of a file system, and overlays of ours above them.
pub(crate) fn clear_device(device: (u32, u32)) -> Result<()> {
    take_away(device, Umount::Lazy)
}

/// Unmounts every mount of a file system, the last one first; goes on after one that fails, and
/// then tells the first error.
pub(crate) fn take_away(device: (u32, u32), how: Umount) -> Result<()> {
    let mut result = Ok(());
    for row in table::read()?.iter().rev() {
        if row.device == device && row.kind == KIND {
            result = result.and(take_from(&row.point, device, how));
        }
    }
    result
}

/// Unmounts a file system from a point, and an overlay of ours above it. What someone else mounted
/// above it is not ours to undo.
pub(crate) fn take_from(point: &Path, device: (u32, u32), how: Umount) -> Result<()> {
    let rows = table::read()?;
    match ours_at(&rows, point).is_some_and(|row| row.device == device) {
        true => (0..layers(&rows, point)).try_for_each(|_| detach(point, how)),
        false => Err(MountError::Busy {
            path: point.to_owned(),
            users: Vec::new(),
        }),
    }
}

/// Unmounts what is on top at a point.
pub(crate) fn detach(at: &Path, how: Umount) -> Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, how == Umount::Lazy);
    let done = match rustix::mount::unmount(at, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => helper::umount(at, how == Umount::Lazy),
        Err(Errno::BUSY) => Err(MountError::Busy {
            path: at.to_owned(),
            users: Vec::new(),
        }),
        Err(Errno::INVAL) => Err(MountError::NotMounted {
            path: at.to_owned(),
        }),
        Err(error) => Err(MountError::io("unmount", at)(error)),
    };
    match done {
        Err(MountError::Busy { path, .. }) => {
            let users = users::of(&path);
            Err(MountError::Busy { path, users })
        }
        other => other,
    }
}

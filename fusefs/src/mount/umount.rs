//! Unmounting, and clearing away what a dead server left.

use std::path::Path;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::error::{MountError, Result};
use super::table::{self, Row};
use super::{KIND, helper, is_overlay, point, users};

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
    matches!(
        rustix::fs::statfs(at),
        Err(Errno::NOTCONN | Errno::CONNABORTED)
    )
}

/// Unmounts a Grove mount whose server has died, and all other mounts that it served; whether
/// there was one.
pub fn clear_stale(at: &Path) -> Result<bool> {
    if !is_stale(at) {
        return Ok(false);
    }
    let point = point::resolve(at)?;
    match table::at(&point)? {
        Some(row) if row.kind == KIND => clear_device(row.device).map(|()| true),
        _ => Err(MountError::NotMounted {
            path: at.to_owned(),
        }),
    }
}

/// Unmounts whatever dead servers of mounts with this source left.
pub(crate) fn clear_dead(source: &str) -> Result<()> {
    let mut checked = Vec::new();
    for row in table::read()? {
        let ours = row.kind == KIND && row.source == source;
        if ours && !checked.contains(&row.device) && is_top(&row)? {
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
    let count = layers(&rows, point);
    let mut here = rows.iter().rev().filter(|row| row.point == point);
    let lowest = count.checked_sub(1).and_then(|above| here.nth(above));
    match lowest.is_some_and(|row| row.device == device) {
        true => (0..count).try_for_each(|_| detach(point, how)),
        false => Err(MountError::Busy {
            path: point.to_owned(),
            users: Vec::new(),
        }),
    }
}

fn is_top(row: &Row) -> Result<bool> {
    Ok(table::at(&row.point)?.is_some_and(|top| top.device == row.device))
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

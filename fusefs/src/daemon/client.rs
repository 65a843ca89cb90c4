//! Asking the daemon, and attaching what it gives.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use grove_engine::ObjectId;
use rustix::fs::{CWD, FlockOperation};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::thread::{CapabilitySet, capabilities};

use super::place::{Place, is_refusal, namespace};
use super::protocol::{Reply, Request, Wanted, receive, send};
use super::report::SessionReport;
use crate::mount::{MountAttrs, MountError, Result, point};
use crate::view::Numbering;

/// How often a daemon is looked for that leaves just when it is met.
const ATTEMPTS: usize = 16;

/// How long to wait for others who mount at the same directory, and how often to look.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// What shall be mounted in a shared session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// Names the commit; `None` for all of them.
    pub rev: Option<String>,
    /// What its files may do.
    pub attrs: MountAttrs,
    /// Whether extended attributes are seen. The kernel does not keep them, so it asks for them
    /// often.
    pub xattrs: bool,
    /// Which inode numbers files have; of all commits at once, shared ones only.
    pub numbering: Numbering,
}

/// What came of asking for a mount in a shared session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// It is there, and shows this commit; `None` for all.
    Mounted(Option<ObjectId>),
    /// It cannot be in a shared session, for the reason stated: have a session of its own.
    Not(String),
}

/// Mounts a commit, or all of them, in the session that the repository's mounts share.
/// `start` starts a daemon and returns when that listens; [`Daemon::start`](super::Daemon::start)
/// is what the daemon calls.
pub fn mount_shared<E: From<MountError>>(
    place: &Place,
    request: &MountRequest,
    at: &Path,
    start: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<Shared, E> {
    if request.rev.is_none() && request.numbering == Numbering::Unique {
        return Ok(Shared::Not("inode numbers are shared there".to_owned()));
    }
    if !may_mount() {
        return Ok(Shared::Not("this needs the rights of root".to_owned()));
    }
    let at = point::check(at)?;
    // Of two at once one finds the other's mount.
    let _alone = alone(&at, PATIENCE);
    let at = point::check(&at)?;
    let wanted = Request::Mount(Wanted {
        namespace: namespace()?,
        rev: request.rev.clone(),
        attrs: request.attrs,
        xattrs: request.xattrs,
        unique_inodes: request.numbering == Numbering::Unique,
    });
    // The connection keeps the commit until the mount is seen in the table.
    let (_stream, reply, tree) = match ask(place, &wanted, start) {
        Err(Failed::Here(error)) if is_refusal(&error) => {
            return Ok(Shared::Not(error.to_string()));
        }
        Err(Failed::Here(error)) => return Err(error.into()),
        Err(Failed::Start(error)) => return Err(error),
        Ok(answer) => answer,
    };
    match (reply, tree) {
        (Reply::Mounted { commit }, Some(tree)) => {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&tree, "", CWD, &at, flags).map_err(MountError::io("mount at", &at))?;
            let commit = commit.map(|id| id.parse()).transpose();
            let commit = commit.map_err(|_| place.refused("an odd name of a commit"))?;
            Ok(Shared::Mounted(commit))
        }
        (Reply::Refused { message }, _) => Ok(Shared::Not(message)),
        _ => Err(place.refused("an answer to another question").into()),
    }
}

/// Figures of the sessions that the mounts of a repository share; none without a daemon.
pub fn shared_stats(place: &Place) -> Result<Vec<SessionReport>> {
    match place.connect() {
        Ok(Some(stream)) => match talk(place, &stream, &Request::Stats)? {
            Some((Reply::Stats(reports), _)) => Ok(reports),
            None => Ok(Vec::new()),
            Some(_) => Err(place.refused("an answer to another question")),
        },
        Ok(None) => Ok(Vec::new()),
        Err(error) if is_refusal(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether this process may mount in the way that a shared session needs.
fn may_mount() -> bool {
    let able =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    able && rustix::process::geteuid().is_root()
}

enum Failed<E> {
    Here(MountError),
    Start(E),
}

impl<E> From<MountError> for Failed<E> {
    fn from(error: MountError) -> Self {
        Self::Here(error)
    }
}

fn ask<E>(
    place: &Place,
    request: &Request,
    mut start: impl FnMut() -> std::result::Result<(), E>,
) -> std::result::Result<(UnixStream, Reply, Option<OwnedFd>), Failed<E>> {
    for _ in 0..ATTEMPTS {
        let stream = match place.connect()? {
            Some(stream) => stream,
            None => {
                let _lock = place.lock()?;
                match place.connect()? {
                    Some(stream) => stream,
                    None => {
                        start().map_err(Failed::Start)?;
                        place
                            .connect()?
                            .ok_or_else(|| place.refused("it has gone again"))?
                    }
                }
            }
        };
        // Silence is of a daemon that has just left.
        if let Some((reply, tree)) = talk(place, &stream, request)? {
            return Ok((stream, reply, tree));
        }
    }
    Err(place.refused("it leaves whenever it is met").into())
}

fn talk(
    place: &Place,
    stream: &UnixStream,
    request: &Request,
) -> Result<Option<(Reply, Option<OwnedFd>)>> {
    let said = send(stream, request);
    match said.and_then(|()| receive(stream)) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(None),
        other => other.map_err(MountError::io(
            "speak with the server of",
            place.repository(),
        )),
    }
}

/// Keeps others from mounting at the same directory at the same time. Some file systems have no such
/// locks, and whoever can open the directory can hold one for ever; there, of two at once the second
/// comes to lie above the first.
fn alone(at: &Path, patience: Duration) -> Option<File> {
    let dir = File::open(at).ok()?;
    let end = Instant::now() + patience;
    loop {
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(dir),
            Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => thread::sleep(PAUSE),
            Err(_) => return None,
        }
    }
}

impl Place {
    fn refused(&self, message: &str) -> MountError {
        MountError::Refused {
            repository: self.repository().to_owned(),
            message: message.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_hold_is_not_waited_for_without_limit() {
        let dir = tempfile::tempdir().unwrap();
        let held = alone(dir.path(), Duration::ZERO);
        assert!(held.is_some());
        assert!(alone(dir.path(), Duration::ZERO).is_none());
        drop(held);
        assert!(alone(dir.path(), Duration::ZERO).is_some());
    }
}

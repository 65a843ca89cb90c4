//! Where the daemon of a repository is met: a directory below `/run/grove` with its socket.
//!
//! A daemon appears and disappears under the lock of the directory. Whoever finds no daemon takes
//! the lock, looks again, and starts one; a daemon that wants to leave takes the lock, looks for
//! one last visitor, and takes its socket away. So there is never a second daemon, and nobody
//! starts one beside one that stays.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use grove_engine::ObjectId;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::mount::{MountError, Result};

const RUNTIME_DIR: &str = "/run/grove";
/// The number is that of the protocol: programs that speak another one do not meet.
const SOCKET: &str = "socket.1";

/// Where the daemon of a repository is met.
#[derive(Debug, Clone)]
pub struct Place {
    repository: PathBuf,
    dir: PathBuf,
}

/// Held while a daemon appears or disappears.
#[derive(Debug)]
pub(super) struct PlaceLock {
    _dir: File,
}

impl Place {
    /// That of a repository. Another repository that comes to the same path has another place, and
    /// so has this one under another path: a daemon goes on with the path it was started with.
    pub fn of(repository: &Path) -> Result<Self> {
        let at = |doing| MountError::io::<io::Error>(doing, repository);
        let path = repository.canonicalize().map_err(at("find"))?;
        let meta = fs::metadata(&path).map_err(at("look at"))?;
        let mut key = path.as_os_str().as_encoded_bytes().to_vec();
        key.push(0);
        key.extend_from_slice(&meta.dev().to_le_bytes());
        key.extend_from_slice(&meta.ino().to_le_bytes());
        let mut name = ObjectId::of(&key).to_string();
        name.truncate(32);
        Ok(Self {
            repository: path,
            dir: Path::new(RUNTIME_DIR).join(name),
        })
    }

    /// The repository, by its absolute path.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// Whether a daemon can be met here, one of this user or root.
    pub fn has_daemon(&self) -> bool {
        matches!(self.connect(), Ok(Some(_)))
    }

    /// The directory of the socket; exists while there is a daemon.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn socket(&self) -> PathBuf {
        self.dir.join(SOCKET)
    }

    /// A connection to the daemon, if there is one and it is of this user or root.
    pub(super) fn connect(&self) -> Result<Option<UnixStream>> {
        let socket = self.socket();
        match UnixStream::connect(&socket) {
            Ok(stream) => Ok(is_trusted(&stream).then_some(stream)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(MountError::io("connect to", socket)(error)),
            },
        }
    }

    pub(super) fn lock(&self) -> Result<PlaceLock> {
        let dir = &self.dir;
        loop {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(MountError::io("make", dir))?;
            let file = match File::open(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(MountError::io("open", dir))?,
            };
            let lock = || rustix::fs::flock(&file, FlockOperation::LockExclusive);
            rustix::io::retry_on_intr(lock).map_err(MountError::io("lock", dir))?;
            let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
            let held = file.metadata().map_err(MountError::io("look at", dir))?;
            // A daemon that left may have removed it meanwhile.
            if fs::metadata(dir).is_ok_and(|there| inode(there) == inode(held)) {
                return Ok(PlaceLock { _dir: file });
            }
        }
    }

    /// Called by a daemon that was started by the holder of the lock.
    pub(super) fn listen(&self) -> Result<UnixListener> {
        let socket = self.socket();
        // Left by a daemon that was killed: nobody answered there.
        drop(fs::remove_file(&socket));
        UnixListener::bind(&socket).map_err(MountError::io("listen at", &socket))
    }

    /// Takes the socket away; what a program of another version has there stays.
    pub(super) fn remove(&self, _: &PlaceLock) {
        drop(fs::remove_file(self.socket()));
        drop(fs::remove_dir(&self.dir));
    }
}

/// Whether the other side is root or the user of this process.
pub(super) fn is_trusted(stream: &UnixStream) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(stream);
    peer.is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// Identity of the mount namespace of the process's first thread.
pub(super) fn namespace() -> Result<(u64, u64)> {
    const PATH: &str = "/proc/self/ns/mnt";
    let meta = fs::metadata(PATH).map_err(MountError::io("look at", PATH))?;
    Ok((meta.dev(), meta.ino()))
}

/// Whether an error says that this process has no place where a daemon could be met.
pub(super) fn is_refusal(error: &MountError) -> bool {
    let MountError::Io { source, .. } = error else {
        return false;
    };
    let refusals = [Errno::ACCESS, Errno::PERM, Errno::ROFS, Errno::NOENT];
    refusals
        .iter()
        .any(|errno| source.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_of_a_directory_at_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&a).unwrap();
        let first = Place::of(&a).unwrap();
        assert_eq!(Place::of(&a.join(".")).unwrap().dir, first.dir);
        fs::rename(&a, &b).unwrap();
        assert_ne!(Place::of(&b).unwrap().dir, first.dir, "renamed");
        fs::create_dir(&a).unwrap();
        assert_ne!(Place::of(&a).unwrap().dir, first.dir, "another at its path");
        assert!(Place::of(&dir.path().join("none")).is_err());
    }
}

//! The repository that is exported to: its directories, and how objects get there. They are written
//! to a directory of their own and moved when they are durable, so that an object that is there is
//! whole, and need not be written again.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::OwnedDir;
use crate::id::{ObjectId, ObjectKind};
use crate::ops::ostree::keyfile::KeyFile;
use crate::ops::ostree::loose::LooseRepo;
use crate::ops::ostree::{MIRRORS, RepoMode, loose_path, object_path};

const DIRECTORIES: [&str; 8] = [
    "tmp",
    "extensions",
    "state",
    "refs",
    "refs/heads",
    "refs/mirrors",
    "refs/remotes",
    "objects",
];

/// A repository being written to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) repo: LooseRepo,
    staging: OwnedDir,
    staged: Mutex<Vec<(PathBuf, PathBuf)>>,
    numbers: AtomicU64,
    fsync: bool,
    /// Held shared, as by every writer: a prune of `ostree` takes it alone.
    _lock: File,
}

impl Target {
    /// Opens a repository, or makes one where there is nothing.
    pub(super) fn open(
        path: &Path,
        mode: Option<RepoMode>,
        config: &KeyFile,
        fsync: bool,
    ) -> Result<Self> {
        std::fs::create_dir_all(path).at(path)?;
        if std::fs::read_dir(path).at(path)?.next().is_none() {
            create(path, mode.unwrap_or(RepoMode::Archive), config)?;
        } else if !path.join("config").exists() {
            let path = path.to_owned();
            return Err(Error::NotEmpty { path });
        } else if !path.join("objects").exists() {
            // Made by us, and interrupted before the last directory.
            make_directories(path)?;
        }
        let repo = LooseRepo::open(path)?;
        let refuse = |reason: String| Error::UnsupportedInput {
            path: path.display().to_string(),
            reason,
        };
        if let Some(wanted) = mode.filter(|mode| *mode != repo.mode()) {
            let is = repo.mode();
            return Err(refuse(format!("its mode is {is}, not {wanted}")));
        }
        if repo.mode() == RepoMode::BareSplitXattrs {
            return Err(refuse("repositories of this mode are only read".into()));
        }
        let at = path.join(".lock");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let lock = options.open(&at).at(&at)?;
        rustix::fs::fcntl_lock(&lock, rustix::fs::FlockOperation::LockShared).at(&at)?;
        let parent = path.join("tmp/grove-export");
        std::fs::create_dir_all(&parent).at(&parent)?;
        Ok(Self {
            repo,
            staging: OwnedDir::create(&parent)?,
            staged: Mutex::default(),
            numbers: AtomicU64::new(0),
            fsync,
            _lock: lock,
        })
    }

    /// Makes a file object, by `write`, which gets a path where nothing is yet.
    pub(super) fn stage(
        &self,
        kind: ObjectKind,
        id: &ObjectId,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        self.stage_at(object_path(self.repo.mode(), kind, id), write)
    }

    /// Makes a metadata object.
    pub(super) fn stage_bytes(&self, kind: ObjectKind, id: &ObjectId, bytes: &[u8]) -> Result<()> {
        self.stage(kind, id, |path| write_file(path, bytes))
    }

    /// Makes a file of any name below the repository.
    pub(super) fn stage_at(
        &self,
        name: String,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let staged = self.staging.path().join(number.to_string());
        write(&staged)?;
        let names = (staged, self.repo.path().join(name));
        let mut list = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(names);
        Ok(())
    }

    /// Moves what was staged to where it belongs, in the order in which it was.
    pub(super) fn flush(&self) -> Result<()> {
        let mut list = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if list.is_empty() {
            return Ok(());
        }
        self.sync()?;
        for (from, to) in list.drain(..) {
            if let Err(error) = std::fs::rename(&from, &to) {
                let parent = to.parent().unwrap_or(&to);
                if error.kind() != io::ErrorKind::NotFound {
                    return Err(error).at(&to);
                }
                std::fs::create_dir_all(parent).at(parent)?;
                std::fs::rename(&from, &to).at(&to)?;
            }
        }
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        if self.fsync {
            let path = self.repo.path();
            rustix::fs::syncfs(File::open(path).at(path)?).at(path)?;
        }
        Ok(())
    }

    /// Replaces the detached metadata of a commit.
    pub(super) fn stage_detached(&self, id: &ObjectId, bytes: &[u8]) -> Result<()> {
        let name = loose_path(id, "commitmeta");
        self.stage_at(name, |path| write_file(path, bytes))
    }

    /// Sees that a ref can be put where it belongs, and makes the directories for it.
    ///
    /// # Errors
    /// [`Error::RefConflict`] if a ref is there whose name is the beginning of this one, or the other
    /// way round.
    pub(super) fn make_room_for_ref(&self, name: &str) -> Result<()> {
        let root = self.repo.path();
        let place = ref_place(name);
        let conflict = |other: &Path| {
            let other = other.strip_prefix(root).unwrap_or(other);
            Error::RefConflict {
                name: name.to_owned(),
                other: other.display().to_string(),
            }
        };
        for (at, _) in place.match_indices('/') {
            let above = root.join(&place[..at]);
            match std::fs::create_dir(&above) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.at(&above)?,
            }
            if !above.is_dir() {
                return Err(conflict(&above));
            }
        }
        let path = root.join(&place);
        let above = path.parent().unwrap_or(root);
        accessat(CWD, above, Access::WRITE_OK, AtFlags::EACCESS).at(above)?;
        if std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir())
            && let Some(other) = remove_empty(&path).at(&path)?
        {
            return Err(conflict(&other));
        }
        Ok(())
    }

    /// Sets a ref.
    pub(super) fn stage_ref(&self, name: &str, id: &ObjectId) -> Result<()> {
        let write = |path: &Path| write_file(path, format!("{id}\n").as_bytes());
        self.stage_at(ref_place(name), write)
    }

    /// Tells those who watch the repository that its refs have changed.
    pub(super) fn touch(&self) -> Result<()> {
        let path = self.repo.path();
        let now = std::time::SystemTime::now();
        let times = std::fs::FileTimes::new().set_modified(now);
        File::open(path)
            .and_then(|dir| dir.set_times(times))
            .at(path)
    }
}

/// Where a ref lies below the repository.
fn ref_place(name: &str) -> String {
    match (name.split_once(':'), name.strip_prefix(MIRRORS)) {
        (Some((remote, name)), _) => format!("refs/remotes/{remote}/{name}"),
        (None, Some(_)) => name.to_owned(),
        (None, None) => format!("refs/heads/{name}"),
    }
}

/// Removes a directory that deleted refs have left; or gives a file that is in it.
fn remove_empty(dir: &Path) -> io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            return Ok(Some(entry.path()));
        }
        if let Some(file) = remove_empty(&entry.path())? {
            return Ok(Some(file));
        }
    }
    std::fs::remove_dir(dir)?;
    Ok(None)
}

fn create(path: &Path, mode: RepoMode, config: &KeyFile) -> Result<()> {
    let text = config_text(mode, config);
    write_file(&path.join("config"), text.as_bytes())?;
    make_directories(path)
}

/// The configuration of a new repository, with what is known of remotes and its collection.
pub(in crate::ops::ostree) fn config_text(mode: RepoMode, config: &KeyFile) -> String {
    let mut own = KeyFile::default();
    own.set("core", "repo_version", "1");
    own.set("core", "mode", mode.as_config());
    if let Some(collection) = config.get("core", "collection-id") {
        own.set("core", "collection-id", collection);
    }
    own.groups.extend(config.remotes().cloned());
    own.to_string()
}

fn make_directories(path: &Path) -> Result<()> {
    for name in DIRECTORIES {
        let dir = path.join(name);
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.at(&dir)?,
        }
    }
    Ok(())
}

/// Writes a new file that everybody may read.
pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create_new(path).at(path)?;
    file.write_all(bytes).at(path)?;
    let readable = Permissions::from_mode(0o644);
    file.set_permissions(readable).at(path)
}

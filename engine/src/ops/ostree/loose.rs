//! An OSTree repository on disk, as far as everything but file objects goes: its configuration, its
//! refs, and its metadata objects, which are compared with their names. Writes nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::keyfile::KeyFile;
use super::{MAX_CONFIG, MIRRORS, RepoMode, loose_path, object_path};
use crate::error::{Error, IoResultExt, ObjectFault, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::Monitor;
use crate::refs::is_valid_ref_name;

/// OSTree's limit of a metadata object.
pub(super) const MAX_METADATA: u64 = 128 << 20;
/// A checksum and what may follow it.
const MAX_REF: u64 = 128;
/// Said of what is in the place of one.
pub(super) const NO_FILE: &str = "not a regular file";
/// Directories of refs nested deeper are not looked at.
const MAX_REF_DEPTH: usize = 64;

/// An existing repository.
#[derive(Debug)]
pub(super) struct LooseRepo {
    path: PathBuf,
    mode: RepoMode,
    config: KeyFile,
}

impl LooseRepo {
    /// Opens a repository of any mode.
    ///
    /// # Errors
    /// [`Error::UnsupportedInput`] if the directory is none, or one of an unknown form.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let refuse = |reason: String| Error::UnsupportedInput {
            path: path.display().to_string(),
            reason: format!("not an OSTree repository that can be used: {reason}"),
        };
        let config = path.join("config");
        if !config.is_file() || !path.join("objects").is_dir() {
            return Err(refuse("it has no 'config' file or no 'objects'".into()));
        }
        let text = read_limited(&config, MAX_CONFIG)?;
        let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(|| refuse("'config' is not a text".into()))?;
        let config = KeyFile::parse(&text)
            .map_err(|line| refuse(format!("line {line} of 'config' is malformed")))?;
        let version = config.get("core", "repo_version");
        if version != Some("1") {
            let version = version.unwrap_or("none");
            return Err(refuse(format!("repo_version is {version}, not 1")));
        }
        let mode = config.get("core", "mode").unwrap_or("bare");
        let mode = RepoMode::from_config(mode)
            .ok_or_else(|| refuse(format!("mode {mode:?} is not known")))?;
        let path = path.to_owned();
        Ok(Self { path, mode, config })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn mode(&self) -> RepoMode {
        self.mode
    }

    pub(super) fn config(&self) -> &KeyFile {
        &self.config
    }

    /// Where an object is, if it is there.
    pub(super) fn object(&self, kind: ObjectKind, id: &ObjectId) -> PathBuf {
        self.path.join(object_path(self.mode, kind, id))
    }

    pub(super) fn has(&self, kind: ObjectKind, id: &ObjectId) -> bool {
        std::fs::symlink_metadata(self.object(kind, id)).is_ok()
    }

    /// Bytes of a commit, dirtree or dirmeta object, which have the name that they must have.
    pub(super) fn metadata(&self, kind: ObjectKind, id: &ObjectId) -> Result<Option<Vec<u8>>> {
        let path = self.object(kind, id);
        let bad = |source| Error::BadObject {
            kind,
            id: *id,
            path: path.clone(),
            source: Box::new(source),
        };
        let (file, size) = match find(&path)? {
            Found::File(file, size) => (file, size),
            Found::Nothing => return Ok(None),
            Found::Other => return Err(bad(ObjectFault::Metadata(NO_FILE))),
        };
        let limit = MAX_METADATA;
        if size > limit {
            return Err(bad(ObjectFault::TooLarge { size, limit }));
        }
        let bytes = read_all(file, limit).at(&path)?;
        let found = ObjectId::of(&bytes);
        if found != *id {
            return Err(bad(ObjectFault::Checksum { found }));
        }
        Ok(Some(bytes))
    }

    /// The detached metadata of a commit.
    pub(super) fn detached(&self, id: &ObjectId) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(loose_path(id, "commitmeta"));
        let Some(bytes) = read_limited(&path, MAX_METADATA)? else {
            return Ok(None);
        };
        crate::object::Metadata::parse(&bytes).map_err(|source| Error::BadObject {
            kind: ObjectKind::Commit,
            id: *id,
            path,
            source: Box::new(source.into()),
        })?;
        Ok(Some(bytes))
    }

    /// Where the mark of an incomplete commit is.
    pub(super) fn partial_mark(&self, id: &ObjectId) -> PathBuf {
        self.path.join(format!("state/{id}.commitpartial"))
    }

    /// Every ref, named as in a repository of ours. What is no ref is left out, with a warning.
    pub(super) fn refs(&self, monitor: &dyn Monitor) -> Result<BTreeMap<String, ObjectId>> {
        let mut refs = BTreeMap::new();
        for (dir, prefix) in [("refs/heads", ""), ("refs/mirrors", MIRRORS)] {
            self.list(dir, monitor, &mut |name, id| {
                refs.insert(format!("{prefix}{name}"), id);
            })?;
        }
        self.list("refs/remotes", monitor, &mut |name, id| {
            if let Some((remote, name)) = name.split_once('/') {
                refs.insert(format!("{remote}:{name}"), id);
            }
        })?;
        Ok(refs)
    }

    fn list(
        &self,
        dir: &str,
        monitor: &dyn Monitor,
        found: &mut dyn FnMut(&str, ObjectId),
    ) -> Result<()> {
        let root = self.path.join(dir);
        let mut todo = vec![(root.clone(), 0)];
        while let Some((dir, depth)) = todo.pop() {
            let entries = match std::fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.at(&dir)?,
            };
            for entry in entries {
                let entry = entry.at(&dir)?;
                let path = entry.path();
                let kind = entry.file_type().at(&path)?;
                if kind.is_dir() && depth < MAX_REF_DEPTH {
                    todo.push((path, depth + 1));
                    continue;
                }
                let name = path.strip_prefix(&root).ok().and_then(Path::to_str);
                let name = name.filter(|name| is_valid_ref_name(name) && !name.contains(':'));
                let id = if kind.is_symlink() {
                    self.alias(&path)?
                } else {
                    read_ref(&path)?
                };
                match (name, id) {
                    (Some(name), Some(id)) => found(name, id),
                    _ => monitor.warn(&format!("{} is no ref; left out", path.display())),
                }
            }
        }
        Ok(())
    }

    /// What an alias stands for, which must be another ref of this repository.
    fn alias(&self, path: &Path) -> Result<Option<ObjectId>> {
        let refs = self.path.join("refs");
        let refs = std::fs::canonicalize(&refs).at(&refs)?;
        match std::fs::canonicalize(path) {
            Ok(target) if target.starts_with(&refs) && target.is_file() => read_ref(&target),
            _ => Ok(None),
        }
    }
}

/// What a ref says; `None` if it cannot be one.
fn read_ref(path: &Path) -> Result<Option<ObjectId>> {
    let bytes = match find(path)? {
        Found::File(file, size) if size <= MAX_REF => read_all(file, MAX_REF).at(path)?,
        _ => return Ok(None),
    };
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Ok(text.trim_end().parse().ok())
}

/// What is at a path.
pub(super) enum Found {
    Nothing,
    /// A regular file of this size.
    File(File, u64),
    /// A symbolic link, or anything else that is not read.
    Other,
}

/// Opens a regular file, whatever is in its place.
pub(super) fn find(path: &Path) -> Result<Found> {
    // Not even a FIFO may make us wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        // A symbolic link, and a socket or a device without a driver.
        Err(Errno::LOOP | Errno::NXIO) => return Ok(Found::Other),
        Err(errno) => return Err(errno).at(path),
    };
    let stat = file.metadata().at(path)?;
    Ok(match stat.is_file() {
        true => Found::File(file, stat.len()),
        false => Found::Other,
    })
}

/// All bytes of a file; `None` if it is not there.
pub(super) fn read_limited(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    let refuse = |reason: String| Error::UnsupportedInput {
        path: path.display().to_string(),
        reason,
    };
    match find(path)? {
        Found::Nothing => Ok(None),
        Found::Other => Err(refuse(NO_FILE.to_owned())),
        Found::File(_, size) if size > limit => Err(refuse(format!(
            "{size} bytes are more than the limit of {limit}"
        ))),
        Found::File(file, _) => read_all(file, limit).at(path).map(Some),
    }
}

fn read_all(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! Files of a commit or a directory, for reading package databases.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use grove_engine::error::IoResultExt;
use grove_engine::object::FileObject;
use grove_engine::ops::ls::{Node, resolve_path};
use grove_engine::{Error, Repository, Result};

/// Larger files are not package databases.
const MAX_SIZE: u64 = 1 << 30;

/// What package databases are read from.
pub(super) trait Tree {
    /// The bytes of a regular file, if there is one.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>>;

    /// The files of a directory whose names end so, by the rest of their names.
    fn read_all(&self, dir: &str, end: &str) -> Result<HashMap<String, Vec<u8>>>;
}

/// A commit.
pub(super) struct Stored<'r> {
    pub repo: &'r Repository,
    pub root: Node,
}

impl Stored<'_> {
    fn node(&self, path: &str) -> Result<Option<Node>> {
        match resolve_path(self.repo, self.root, path) {
            Ok(node) => Ok(Some(node)),
            Err(Error::PathNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn bytes(&self, file: &FileObject) -> Result<Vec<u8>> {
        if file.size > MAX_SIZE {
            return Err(too_large(&file.id.to_string()));
        }
        let mut bytes = vec![0; file.size as usize];
        let n = self.repo.read_at(file, 0, &mut bytes)?;
        bytes.truncate(n);
        Ok(bytes)
    }
}

impl Tree for Stored<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(Node::File(id)) = self.node(path)? else {
            return Ok(None);
        };
        self.bytes(&self.repo.file(&id)?).map(Some)
    }

    fn read_all(&self, dir: &str, end: &str) -> Result<HashMap<String, Vec<u8>>> {
        let Some(Node::Dir { tree, .. }) = self.node(dir)? else {
            return Ok(HashMap::new());
        };
        let listing = self.repo.dirtree(&tree)?;
        let files = listing.files.iter();
        let files = files.filter_map(|(name, id)| Some((name.strip_suffix(end)?.to_owned(), *id)));
        let (names, ids): (Vec<_>, Vec<_>) = files.unzip();
        let mut found = HashMap::new();
        for (name, file) in names.into_iter().zip(self.repo.files(&ids)) {
            found.insert(name, self.bytes(&file?)?);
        }
        Ok(found)
    }
}

/// A directory of the file system.
pub(super) struct Local<'p>(pub &'p Path);

impl Tree for Local<'_> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        read_local(&self.0.join(path.trim_start_matches('/')))
    }

    fn read_all(&self, dir: &str, end: &str) -> Result<HashMap<String, Vec<u8>>> {
        let dir = self.0.join(dir.trim_start_matches('/'));
        let entries = match fs::read_dir(&dir) {
            Err(error) if is_absent(&error) => return Ok(HashMap::new()),
            other => other.at(&dir)?,
        };
        let mut found = HashMap::new();
        for entry in entries {
            let entry = entry.at(&dir)?;
            let name = entry.file_name();
            if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(end))
                && let Some(bytes) = read_local(&entry.path())?
            {
                found.insert(name.to_owned(), bytes);
            }
        }
        Ok(found)
    }
}

fn read_local(path: &Path) -> Result<Option<Vec<u8>>> {
    let stat = match fs::symlink_metadata(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        other => other.at(path)?,
    };
    if !stat.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).at(path)?;
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).at(path)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(too_large(&path.display().to_string()));
    }
    Ok(Some(bytes))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn too_large(path: &str) -> Error {
    Error::UnsupportedInput {
        path: path.to_owned(),
        reason: "too large for a package database".into(),
    }
}

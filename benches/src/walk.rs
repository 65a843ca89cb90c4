//! Walks over directories: what is in them, what they occupy, reading all of it.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{At, Result};

/// What a tree holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Regular files.
    pub files: u64,
    /// Directories below the root.
    pub dirs: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Anything else.
    pub others: u64,
    /// Bytes of the regular files, each name counted.
    pub bytes: u64,
}

impl Manifest {
    /// Everything in it.
    pub fn entries(&self) -> u64 {
        self.files + self.dirs + self.symlinks + self.others
    }
}

impl std::fmt::Display for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            files,
            dirs,
            symlinks,
            bytes,
            ..
        } = self;
        write!(
            f,
            "{files} files, {dirs} directories, {symlinks} symbolic links, {bytes} bytes"
        )
    }
}

/// Calls `each` for everything below `root` with what `lstat` says of it.
pub fn walk(root: &Path, each: &mut dyn FnMut(PathBuf, &Metadata) -> Result<()>) -> Result<()> {
    let mut queue = vec![root.to_owned()];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).at(&dir)? {
            let path = entry.at(&dir)?.path();
            let meta = fs::symlink_metadata(&path).at(&path)?;
            if meta.is_dir() {
                queue.push(path.clone());
            }
            each(path, &meta)?;
        }
    }
    Ok(())
}

/// Lists a tree with `lstat` and no more.
pub fn list(root: &Path) -> Result<Manifest> {
    let mut found = Manifest::default();
    walk(root, &mut |_, meta| {
        count(&mut found, meta);
        Ok(())
    })?;
    Ok(found)
}

fn count(found: &mut Manifest, meta: &Metadata) {
    let kind = meta.file_type();
    if kind.is_dir() {
        found.dirs += 1;
    } else if kind.is_symlink() {
        found.symlinks += 1;
    } else if kind.is_file() {
        found.files += 1;
        found.bytes += meta.size();
    } else {
        found.others += 1;
    }
}

/// Lists a tree and reads every file, several at a time.
pub fn read(root: &Path) -> Result<Manifest> {
    let (mut found, mut files) = (Manifest::default(), Vec::new());
    walk(root, &mut |path, meta| {
        count(&mut found, meta);
        if meta.is_file() {
            files.push(path);
        }
        Ok(())
    })?;
    files.par_iter().try_for_each_init(
        || vec![0; 1 << 17],
        |buffer, path| -> Result<()> {
            let mut file = File::open(path).at(path)?;
            while file.read(buffer).at(path)? > 0 {}
            Ok(())
        },
    )?;
    Ok(found)
}

/// What a directory occupies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupied {
    /// Sizes of the files.
    pub apparent_bytes: u64,
    /// Blocks that files and directories have on disk.
    pub allocated_bytes: u64,
}

/// What is below a directory, as `du` counts it: a file with several names once.
pub fn occupied(root: &Path) -> Result<Occupied> {
    let (mut sum, mut seen) = (Occupied::default(), HashSet::new());
    walk(root, &mut |_, meta| {
        if meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
            // Unit of st_blocks.
            sum.allocated_bytes += meta.blocks() * 512;
            if !meta.is_dir() {
                sum.apparent_bytes += meta.size();
            }
        }
        Ok(())
    })?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_is_counted_once_on_disk_and_twice_in_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("a"), [1; 5000]).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("sub/b")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let found = read(dir.path()).unwrap();
        let wanted = Manifest {
            files: 2,
            dirs: 1,
            symlinks: 1,
            others: 0,
            bytes: 10_000,
        };
        assert_eq!(found, wanted);
        assert_eq!(list(dir.path()).unwrap(), wanted);
        // The link's own size is the length of its target.
        assert_eq!(occupied(dir.path()).unwrap().apparent_bytes, 5001);
    }
}

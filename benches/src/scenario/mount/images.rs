//! The trees in the forms in which they are mounted: images, archives, commits.
//!
//! All of them are made once and kept. A file beside them says of which trees, and others are refused.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::fs::FileSystem;
use super::lists::Lists;
use crate::error::{At, Error, Result};
use crate::measure::Invocation;
use crate::record::INPUT;
use crate::scenario::Bench;
use crate::walk::{self, Manifest};

/// Says of which trees everything is.
const MADE_OF: &str = "made-of";
/// Commits of the trees in our repository.
pub(super) const FIRST: &str = "os/first";
pub(super) const SECOND: &str = "os/second";
/// Name of the archive in borg's repository.
pub(super) const ARCHIVE: &str = "first";
/// The commit of very many files.
pub(super) const MANY: &str = "many";

/// Directory of what is kept.
#[derive(Debug, Clone)]
pub(super) struct Images {
    dir: PathBuf,
    pub(super) lists: Lists,
    /// How many files there are very many of.
    pub(super) many: u64,
}

impl Images {
    /// Where a file system's image or repository is.
    pub(super) fn path(&self, kind: FileSystem) -> PathBuf {
        self.dir.join(match kind {
            FileSystem::Ext4 => "ext4.img",
            FileSystem::Erofs => "erofs.img",
            FileSystem::Squashfs | FileSystem::Squashfuse => "squashfs.img",
            FileSystem::Borg => "borg",
            FileSystem::Grove => "grove",
        })
    }

    /// Reads an image or repository, so that it is in the page cache: what is cold is the mount alone.
    pub(super) fn read(&self, kind: FileSystem) -> Result<()> {
        let path = self.path(kind);
        if fs::metadata(&path).at(&path)?.is_dir() {
            return walk::read(&path).map(drop);
        }
        let mut file = File::open(&path).at(&path)?;
        std::io::copy(&mut file, &mut std::io::sink())
            .map(drop)
            .at(&path)
    }

    /// The repository of very many files.
    pub(super) fn many_path(&self) -> PathBuf {
        self.dir.join(format!("many-{}", self.many))
    }

    /// What keeps borg's caches out of the home directory, and it from asking.
    pub(super) fn borg(&self) -> Invocation {
        Invocation::new("borg")
            .env("BORG_BASE_DIR", self.dir.join("borg-base"))
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
    }
}

impl Bench<'_> {
    /// Makes what is not kept yet, and says what there is.
    pub(super) fn images(&mut self, kinds: &[FileSystem]) -> Result<(Images, Vec<FileSystem>)> {
        let tree = self.tree()?;
        let second = self.inputs.second.clone();
        let dir = self.kept();
        fs::create_dir_all(&dir).at(&dir)?;
        let found = walk::list(&tree)?;
        let mut made_of = describe(&tree, &found);
        if let Some(second) = &second {
            made_of.push_str(&describe(second, &walk::list(second)?));
        }
        claim(&dir, &made_of)?;
        let images = Images {
            lists: Lists::make(&dir.join("lists"), &tree, second.as_deref())?,
            many: self.options.many,
            dir,
        };
        let mut available = Vec::new();
        for kind in kinds {
            match self.image(&images, *kind, &tree, &found) {
                Ok(()) => available.push(*kind),
                Err(error) if *kind == FileSystem::Grove => return Err(error),
                Err(error) => {
                    let why = super::super::describe(&error);
                    self.leave_out(&format!("mount: {}: {why}", kind.name()));
                }
            }
        }
        if images.many > 0 {
            self.many_files(&images)?;
        }
        Ok((images, available))
    }

    /// Beside the repositories, unless a place is named.
    fn kept(&self) -> PathBuf {
        let beside = self.work.parent().unwrap_or(&self.work).join("kept");
        self.options.keep.clone().unwrap_or(beside)
    }

    fn image(
        &mut self,
        images: &Images,
        kind: FileSystem,
        tree: &Path,
        found: &Manifest,
    ) -> Result<()> {
        let path = images.path(kind);
        if kind == FileSystem::Grove {
            return self.repository(&path);
        }
        let unfinished = path.with_extension("unfinished");
        let call = image_call(images, kind, &unfinished, tree, found);
        if !path.exists() {
            clear(&unfinished)?;
            if kind == FileSystem::Borg {
                let init = images.borg().args(["init", "-e", "none"]);
                init.arg(&unfinished).output()?;
            }
            call.output()?;
            fs::rename(&unfinished, &path).at(&path)?;
        }
        self.tell_size(kind.name(), &path, &call.to_string())
    }

    fn tell_size(&mut self, name: &str, path: &Path, made_by: &str) -> Result<()> {
        let found = match fs::metadata(path).at(path)?.is_dir() {
            true => walk::occupied(path)?.allocated_bytes,
            // The unit of st_blocks.
            false => std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).at(path)?) * 512,
        };
        let made_by = self.shown(made_by);
        let line = format!("{name}: {found} bytes on disk, made by {made_by}");
        if !self.record.values(INPUT).any(|known| known == line) {
            self.record.fact(INPUT, line);
        }
        Ok(())
    }

    /// A repository with the commits of both trees, the second as an update of the first.
    fn repository(&mut self, path: &Path) -> Result<()> {
        let grove = self.tools.grove.call().option("--repo", path);
        let mut made_by = String::new();
        if !path.exists() {
            grove.clone().arg("init").output()?;
        }
        let trees = [
            (FIRST, self.inputs.tree.clone()),
            (SECOND, self.inputs.second.clone()),
        ];
        for (name, tree) in trees {
            let Some(tree) = tree else { continue };
            let mut source = std::ffi::OsString::from("dir=");
            source.push(&tree);
            let commit = grove.clone().args(["commit", "-b", name]);
            let commit = match name {
                FIRST => commit,
                _ => commit.option("--parent", FIRST),
            };
            let commit = commit.option("--tree", source);
            if grove.clone().args(["rev-parse", name]).output().is_err() {
                commit.output()?;
            }
            made_by.push_str(&format!("{commit}; "));
        }
        self.tell_size("grove", path, made_by.trim_end_matches("; "))
    }

    /// A repository with a commit of very many files, which never were on disk.
    fn many_files(&mut self, images: &Images) -> Result<()> {
        let path = images.many_path();
        let unfinished = path.with_extension("unfinished");
        let grove = |repo: &Path| self.tools.grove.call().option("--repo", repo);
        let commit = |repo: &Path| {
            let commit = grove(repo).args(["commit", "-q", "-b", MANY]);
            commit.option("--tree", "tar=/dev/stdin")
        };
        if !path.exists() {
            clear(&unfinished)?;
            grove(&unfinished).arg("init").output()?;
            let call = commit(&unfinished);
            let mut command = call.command();
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            let mut child = command.spawn().at("grove")?;
            if let Some(pipe) = child.stdin.take() {
                grove_fixtures::many::tar(BufWriter::new(pipe), images.many)?;
            }
            let status = child.wait().at("grove")?;
            if !status.success() {
                return Err(Error::Command {
                    command: call.to_string(),
                    status: status.to_string(),
                    stderr: String::new(),
                });
            }
            fs::rename(&unfinished, &path).at(&path)?;
        }
        let made_by = format!("grove-fixtures many {} | {}", images.many, commit(&path));
        self.tell_size("grove, very many files", &path, &made_by)
    }
}

fn image_call(
    images: &Images,
    kind: FileSystem,
    path: &Path,
    tree: &Path,
    found: &Manifest,
) -> Invocation {
    match kind {
        FileSystem::Ext4 => {
            // Inodes, directories and half-filled blocks beside the data; the file is sparse.
            let size = found.bytes + found.entries() * 6144 + (64 << 20);
            let inodes = format!("-N{}", found.entries() + 1024);
            let call = Invocation::new("mke2fs").args(["-q", "-t", "ext4", "-m0", &inodes]);
            call.arg("-d")
                .arg(tree)
                .arg(path)
                .arg(format!("{}k", size >> 10))
        }
        FileSystem::Erofs => {
            let call = Invocation::new("mkfs.erofs").args(["--quiet", "-zlz4hc"]);
            call.arg(path).arg(tree)
        }
        FileSystem::Squashfs | FileSystem::Squashfuse => {
            let call = Invocation::new("mksquashfs").arg(tree).arg(path);
            let call = call.args(["-comp", "zstd", "-Xcompression-level", "9", "-b", "128K"]);
            call.args(["-noappend", "-quiet", "-no-progress"])
        }
        FileSystem::Borg | FileSystem::Grove => {
            let mut archive = path.as_os_str().to_owned();
            archive.push(format!("::{ARCHIVE}"));
            let call = images.borg().args(["create", "-C", "zstd,3"]);
            call.arg(archive).arg(".").dir(tree)
        }
    }
}

fn describe(tree: &Path, found: &Manifest) -> String {
    format!("{}: {found}\n", tree.display())
}

/// Writes down of which trees a directory is about, or compares with what is written there.
fn claim(dir: &Path, made_of: &str) -> Result<()> {
    let path = dir.join(MADE_OF);
    match fs::read_to_string(&path) {
        Ok(known) if known == made_of => Ok(()),
        Ok(known) => Err(Error::OtherTree {
            path: dir.to_owned(),
            made_of: known.trim().replace('\n', "; "),
        }),
        Err(_) => fs::write(&path, made_of).at(path),
    }
}

fn clear(path: &Path) -> Result<()> {
    let done = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    done.at(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_another_tree_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        claim(dir.path(), "/a: 1 files\n").unwrap();
        claim(dir.path(), "/a: 1 files\n").unwrap();
        let error = claim(dir.path(), "/b: 1 files\n").unwrap_err().to_string();
        assert!(error.contains("another tree (/a: 1 files)"), "{error}");
    }
}

//! What `zstd --patch-from` makes of archives of the two trees: the delta without any knowledge of a
//! repository.
//!
//! It looks back no further than 2 GiB, so larger trees are cut into directories that are smaller.

use std::fs;
use std::path::{Path, PathBuf};

use super::Bench;
use crate::error::{At, Result};
use crate::measure::Invocation;
use crate::walk;

/// Bytes of a piece, with room for what tar adds.
const LARGEST: u64 = 1_900_000_000;
/// A level that ends before one loses patience: 3, 9 and 19 differ little where most bytes are old.
const LEVEL: &str = "-9";

impl Bench<'_> {
    pub(super) fn patch_from(&mut self) -> Result<()> {
        if Invocation::new("zstd").arg("--version").output().is_err() {
            self.leave_out("zstd is not installed: its rows are left out");
            return Ok(());
        }
        let (old, new) = (self.tree()?, self.second()?);
        let mut pieces = Vec::new();
        cut(&new, Path::new("."), &mut pieces)?;
        let [reference, target, delta] =
            ["old.tar", "new.tar", "new.zst"].map(|name| self.work.join(name));
        let step = format!("zstd {LEVEL} --patch-from, of tar archives");
        let (mut bytes, mut sum) = (0, None);
        for paths in &pieces {
            archive(&old, paths, &reference)?;
            archive(&new, paths, &target)?;
            let call = Invocation::new("zstd").args([LEVEL, "-q", "-f", "--long=31"]);
            let call = call.option("--patch-from", &reference).arg(&target);
            let (row, _) = self.step(&step, "zstd", &call.arg("-o").arg(&delta))?;
            bytes += fs::metadata(&delta).at(&delta)?.len();
            sum = Some(self.add_up(sum, row));
        }
        if let Some(sum) = sum {
            self.row(sum).stored_bytes = Some(bytes);
        }
        for file in [reference, target, delta] {
            fs::remove_file(&file).at(&file)?;
        }
        Ok(())
    }

    /// Puts the last row to the sum of those before; gives the number of the sum.
    fn add_up(&mut self, sum: Option<usize>, row: usize) -> usize {
        let Some(sum) = sum else {
            return row;
        };
        let piece = self.record.rows.remove(row);
        let total = self.row(sum);
        total.user_seconds += piece.user_seconds;
        total.system_seconds += piece.system_seconds;
        total.wall_seconds += piece.wall_seconds;
        total.peak_rss_bytes = total.peak_rss_bytes.max(piece.peak_rss_bytes);
        sum
    }
}

/// Groups of paths that tar can pack for `zstd`, each below the size.
fn cut(root: &Path, below: &Path, pieces: &mut Vec<Vec<PathBuf>>) -> Result<()> {
    let dir = root.join(below);
    let (mut group, mut filled) = (Vec::new(), 0);
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).at(&dir)? {
        names.push(below.join(entry.at(&dir)?.file_name()));
    }
    names.sort();
    for name in names {
        let path = root.join(&name);
        let is_dir = fs::symlink_metadata(&path).at(&path)?.is_dir();
        let bytes = if is_dir {
            walk::list(&path)?.bytes
        } else {
            fs::symlink_metadata(&path).at(&path)?.len()
        };
        if bytes > LARGEST && is_dir {
            cut(root, &name, pieces)?;
            continue;
        }
        if filled + bytes > LARGEST {
            pieces.push(std::mem::take(&mut group));
            filled = 0;
        }
        filled += bytes;
        group.push(name);
    }
    if !group.is_empty() {
        pieces.push(group);
    }
    Ok(())
}

/// An archive of those of the paths that are there.
fn archive(root: &Path, paths: &[PathBuf], to: &Path) -> Result<()> {
    let there = paths
        .iter()
        .filter(|path| root.join(path).symlink_metadata().is_ok());
    let call = Invocation::new("tar").args(["--sort=name", "--mtime=@0", "-cf"]);
    let call = call
        .arg(to)
        .arg("-C")
        .arg(root)
        .arg("--no-recursion")
        .arg(".");
    call.arg("--recursion").args(there).output()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_fits_is_one_piece_with_everything() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("b/inner"), "1").unwrap();
        fs::write(dir.path().join("a"), "2").unwrap();
        let mut pieces = Vec::new();
        cut(dir.path(), Path::new("."), &mut pieces).unwrap();
        assert_eq!(pieces, [["./a", "./b"].map(PathBuf::from)]);
        let tar = dir.path().join("out.tar");
        archive(dir.path(), &pieces[0], &tar).unwrap();
        let list = Invocation::new("tar").arg("-tf").arg(&tar).output();
        assert_eq!(list.unwrap(), "./\n./a\n./b/\n./b/inner");
    }

    #[test]
    fn a_large_directory_is_cut_at_its_own_directories() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("big/x", LARGEST - 1),
            ("big/y", LARGEST - 1),
            ("small/z", 1),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Nothing of it is written.
            fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        }
        let mut pieces = Vec::new();
        cut(dir.path(), Path::new("."), &mut pieces).unwrap();
        let wanted = [["./big/x"], ["./big/y"], ["./small"]].map(|paths| paths.map(PathBuf::from));
        assert_eq!(pieces, wanted);
    }
}

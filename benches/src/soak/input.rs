//! The repository that is soaked, and the trees that its commits are made of.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use grove_fixtures::mini::{Scale, build_tree};
use grove_fixtures::rng::Rng;

use crate::error::{At, Result};
use crate::tools::Tool;
use crate::walk::{self, Manifest};

/// Releases that stay mounted.
const RELEASES: u32 = 3;
/// Size of a file that changes a little from release to release.
const LARGE: usize = 24 << 20;
/// Entries of a large directory.
const ENTRIES: u32 = 3000;
/// A program of the host that is executed out of the mounts.
pub(super) const PROGRAM: &str = "soak/cat";

/// A release that stays.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) rev: String,
    /// What was committed.
    pub(super) tree: PathBuf,
    pub(super) mount: PathBuf,
    pub(super) manifest: Manifest,
    /// Regular files, below both.
    pub(super) files: Vec<PathBuf>,
    /// Held by readers for as long as they have files open, against who unmounts.
    pub(super) in_use: RwLock<()>,
}

/// Builds the trees and commits them, one as the update of the other.
pub(super) fn build(grove: &Tool, work: &Path, long: bool) -> Result<Vec<Kept>> {
    let scale = if long { Scale::Default } else { Scale::Small };
    let repo = work.join("repo");
    let call = || grove.call().option("--repo", &repo);
    call().arg("init").output()?;
    let mut kept = Vec::new();
    for release in 1..=RELEASES {
        let tree = work.join(format!("tree-{release}"));
        build_tree(&tree, release, scale)?;
        extras(&tree, release)?;
        let mount = work.join(format!("mnt-{release}"));
        fs::create_dir(&mount).at(&mount)?;
        let rev = format!("kept/{release}");
        let mut source = std::ffi::OsString::from("dir=");
        source.push(&tree);
        let commit = call().args(["commit", "-b", &rev]).option("--tree", source);
        let commit = match release {
            1 => commit,
            _ => commit.arg(format!("--parent=kept/{}", release - 1)),
        };
        commit.output()?;
        let mut files = Vec::new();
        walk::walk(&tree, &mut |path, meta| {
            if meta.is_file() {
                files.push(path.strip_prefix(&tree).unwrap_or(&path).to_owned());
            }
            Ok(())
        })?;
        files.sort();
        kept.push(Kept {
            rev,
            manifest: walk::list(&tree)?,
            tree,
            mount,
            files,
            in_use: RwLock::default(),
        });
    }
    Ok(kept)
}

/// What the small distribution has not.
fn extras(tree: &Path, release: u32) -> Result<()> {
    let dir = tree.join("soak/many");
    fs::create_dir_all(&dir).at(&dir)?;
    for number in 0..ENTRIES {
        let path = dir.join(format!("{number}"));
        fs::write(&path, format!("{}\n", number * (1 + number % release))).at(&path)?;
    }
    let mut bytes = Rng::named(1, "soak").bytes(LARGE);
    let mut rng = Rng::named(u64::from(release), "changes");
    for _ in 0..40 {
        let at = rng.below(LARGE);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x55;
        }
    }
    let long = format!("soak/{}", "n".repeat(255));
    for (name, bytes) in [("soak/large", &*bytes), (&long, b"a long name")] {
        let path = tree.join(name);
        fs::write(&path, bytes).at(&path)?;
    }
    let program = tree.join(PROGRAM);
    fs::copy("/bin/cat", &program).at(&program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).at(&program)
}

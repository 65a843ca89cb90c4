//! An export that was interrupted: no ref of what is not there, and a second run that only writes what
//! is missing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use grove_engine::monitor::{Monitor, Phase};
use grove_engine::ops::ostree::{ExportOptions, RepoMode, export};
use grove_engine::{Error, Repository, Silent};

use crate::support::{commit_dir, have, make_tree, run};

/// Stops when files are written for the last of so many commits.
#[derive(Debug)]
struct StopAtCommit(AtomicUsize);

impl Monitor for StopAtCommit {
    fn begin(&self, phase: Phase, _: Option<u64>) {
        if phase == Phase::Checkout {
            let less = |left: usize| left.checked_sub(1);
            let _ = self.0.fetch_update(Relaxed, Relaxed, less);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed) == 0
    }
}

/// Objects with what would tell that they were written again.
fn objects(repo: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    for dir in fs::read_dir(repo.join("objects")).unwrap() {
        for object in fs::read_dir(dir.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            found.insert(path, (meta.ino(), meta.ctime(), meta.ctime_nsec()));
        }
    }
    found
}

#[test]
fn an_interrupted_export_is_finished_by_the_same_call_without_writing_anything_again() {
    for mode in [RepoMode::Archive, RepoMode::BareUser] {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init(&dir.path().join("grove")).unwrap();
        let tree = dir.path().join("tree");
        for seed in 1..=3 {
            make_tree(&tree.join(seed.to_string()), seed);
            commit_dir(&repo, "os/main", &tree).unwrap();
        }
        let out = dir.path().join("out");
        let options = ExportOptions {
            mode: Some(mode),
            fsync: false,
            ..ExportOptions::default()
        };
        let stopped = export(&repo, &out, &options, &StopAtCommit(3.into()));
        assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
        assert!(!out.join("refs/heads/os/main").exists(), "{mode}");
        let staging = fs::read_dir(out.join("tmp/grove-export")).unwrap();
        assert_eq!(staging.count(), 0, "{mode}");
        let before = objects(&out);
        assert!(before.len() > 20, "{}", before.len());

        let report = export(&repo, &out, &options, &Silent).unwrap();
        assert_eq!(report.objects, report.new_objects + before.len() as u64);
        let after = objects(&out);
        assert_eq!(after.len() as u64, report.objects, "{mode}");
        for (path, stat) in before {
            assert_eq!(after[&path], stat, "{}", path.display());
        }
        let head = fs::read_to_string(out.join("refs/heads/os/main")).unwrap();
        assert_eq!(
            head.trim(),
            repo.resolve_rev("os/main").unwrap().to_string()
        );
        if have("ostree") {
            let out = format!("--repo={}", out.display());
            run(Command::new("ostree").arg(out).arg("fsck"));
        }
    }
}

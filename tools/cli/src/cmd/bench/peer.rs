//! What `ostree` does, with an archive of the commits that is exported for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use grove_engine::ObjectId;

use super::measure::run_measured;
use super::{BRANCH, Bench};
use crate::exit::Result;

const PROGRAM: &str = "ostree";

/// An archive for `ostree`.
#[derive(Debug)]
pub(super) struct Peer {
    archive: PathBuf,
    commit: ObjectId,
}

impl Peer {
    pub(super) fn is_installed() -> bool {
        let version = Command::new(PROGRAM)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    }

    /// Exports the commits that are measured.
    pub(super) fn new(bench: &Bench<'_>) -> Result<Self> {
        let archive = bench.work.join("archive");
        let mut export = bench.grove("export");
        export
            .args(["--mode=archive", "--quiet", "--depth=0", "--fsync=no"])
            .arg(&archive);
        let commits = bench.from.iter().chain([&bench.commit]);
        export.args(commits.map(ObjectId::to_string));
        run_measured(&mut export)?;
        Ok(Self {
            archive,
            commit: bench.commit,
        })
    }

    fn command(&self, repo: &Path, verb: &str) -> Command {
        let mut option = std::ffi::OsString::from("--repo=");
        option.push(repo);
        let mut command = Command::new(PROGRAM);
        command.arg(option).arg(verb);
        command
    }

    pub(super) fn checkout(&self, mode: &[&str], to: &Path) -> Command {
        let mut command = self.command(&self.archive, "checkout");
        command.args(mode).arg(self.commit.to_string()).arg(to);
        command
    }

    pub(super) fn empty_archive(&self, repo: &Path) -> Result<PathBuf> {
        self.init(repo, "--mode=archive")
    }

    fn init(&self, repo: &Path, mode: &str) -> Result<PathBuf> {
        run_measured(self.command(repo, "init").arg(mode))?;
        Ok(repo.to_owned())
    }

    /// A bare repository that takes the files of a tree for its own.
    pub(super) fn bare_of(&self, repo: &Path, tree: &Path) -> Result<PathBuf> {
        let repo = self.init(repo, "--mode=bare")?;
        run_measured(self.commit(&repo, tree).arg("--consume"))?;
        Ok(repo)
    }

    /// Checks out hard links to the files of a bare repository.
    pub(super) fn links(&self, bare: &Path, to: &Path) -> Command {
        let mut command = self.command(bare, "checkout");
        command.args(["-H", BRANCH]).arg(to);
        command
    }

    pub(super) fn commit(&self, repo: &Path, tree: &Path) -> Command {
        let mut command = self.command(repo, "commit");
        command.args(["-b", BRANCH, "-s", ""]).arg(tree);
        command
    }

    pub(super) fn diff(&self, from: &ObjectId, to: &ObjectId) -> Command {
        let mut command = self.command(&self.archive, "diff");
        command.arg(from.to_string()).arg(to.to_string());
        command
    }
}

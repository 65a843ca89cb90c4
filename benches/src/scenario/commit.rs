//! Commits of a directory: the first, the same again, its next version.

use std::fs;
use std::path::{Path, PathBuf};

use super::Bench;
use crate::error::{At, Result};
use crate::measure::Invocation;
use crate::tools::Tool;

/// The ref that is committed to.
pub(super) const REF: &str = "os/june";
/// The step that commits the second tree.
pub(super) const NEXT: &str = "next version";
const SUBJECT: &str = "--subject=Measured";
/// The same for everybody, or the checksums would differ.
const TIMESTAMP: &str = "--timestamp=2024-06-01T00:00:00Z";

/// Who makes commits of directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Grove,
    Ostree,
    Borg,
    Casync,
    Restic,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Grove => "grove",
            Self::Ostree => "ostree",
            Self::Borg => "borg",
            Self::Casync => "casync",
            Self::Restic => "restic",
        }
    }

    /// Whether it answers a commit with a checksum that others make, too.
    pub(super) const fn has_checksum(self) -> bool {
        matches!(self, Self::Grove | Self::Ostree)
    }
}

impl Bench<'_> {
    /// The scenario.
    pub(super) fn commit(&mut self) -> Result<()> {
        let tree = self.tree()?;
        if self.options.grove_repo.is_some() && self.options.scenarios.len() > 1 {
            self.leave_out("commit: there is a repository with the commits already");
            return Ok(());
        }
        let kinds = self.kinds();
        for kind in self.rotated(kinds.clone()) {
            self.init(kind)?;
        }
        let mut versions = vec![("first commit", tree.clone()), ("same tree again", tree)];
        versions.extend(self.inputs.second.clone().map(|dir| (NEXT, dir)));
        for (step, dir) in versions {
            let mut checksums = Vec::new();
            for kind in self.rotated(kinds.clone()) {
                let call = self.commit_call(kind, step, &dir);
                let (row, answer) = self.step(step, kind.name(), &call)?;
                self.weigh(row, &self.repo(kind))?;
                if kind.has_checksum() {
                    self.row(row).checksum = Some(answer.clone());
                    if step == NEXT {
                        self.next_commits.push((kind, answer.clone()));
                    }
                    checksums.push(answer);
                }
            }
            if let [one, other] = checksums.as_slice() {
                self.check_same_checksum(&format!("{step} by grove and ostree"), one, other);
            }
            self.first_commit = self.first_commit.take().or(checksums.pop());
        }
        Ok(())
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = self.all_kinds();
        kinds.retain(|kind| matches!(kind, Kind::Grove | Kind::Ostree | Kind::Borg));
        kinds
    }

    /// Everybody who is installed.
    pub(super) fn all_kinds(&self) -> Vec<Kind> {
        use Kind::{Borg, Casync, Grove, Ostree, Restic};
        let all = [Grove, Ostree, Borg, Casync, Restic];
        let is_there = |kind: &Kind| self.tool(*kind).is_some();
        all.into_iter().filter(is_there).collect()
    }

    fn tool(&self, kind: Kind) -> Option<&Tool> {
        match kind {
            Kind::Grove => Some(&self.tools.grove),
            Kind::Ostree => self.tools.ostree.as_ref(),
            Kind::Borg => self.tools.borg.as_ref(),
            Kind::Casync => self.tools.casync.as_ref(),
            Kind::Restic => self.tools.restic.as_ref(),
        }
    }

    pub(super) fn repo(&self, kind: Kind) -> PathBuf {
        self.work.join(kind.name())
    }

    pub(super) fn call(&self, kind: Kind) -> Invocation {
        let tool = self.tool(kind);
        let call = tool.map_or_else(|| Invocation::new(kind.name()), Tool::call);
        match kind {
            Kind::Grove | Kind::Ostree | Kind::Casync => call,
            // Its caches are no part of the repository, and it must not ask.
            Kind::Borg => call
                .env("BORG_BASE_DIR", self.work.join("borg-base"))
                .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
                .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes"),
            Kind::Restic => call
                .env("RESTIC_PASSWORD", "measured")
                .env("RESTIC_CACHE_DIR", self.work.join("restic-cache")),
        }
    }

    /// Makes an empty repository.
    pub(super) fn init(&mut self, kind: Kind) -> Result<()> {
        if let Some(call) = self.init_call(kind)? {
            let (row, _) = self.step("init", kind.name(), &call)?;
            self.weigh(row, &self.repo(kind))?;
        }
        Ok(())
    }

    /// `None` for who needs no more than a directory.
    fn init_call(&self, kind: Kind) -> Result<Option<Invocation>> {
        let repo = self.repo(kind);
        fs::create_dir_all(&repo).at(&repo)?;
        let call = self.call(kind);
        Ok(match kind {
            Kind::Grove => Some(call.arg("init").option("--repo", &repo)),
            Kind::Ostree => {
                let call = call.option("--repo", &repo);
                Some(call.args(["init", "--mode=archive"]))
            }
            Kind::Borg => Some(call.args(["init", "-e", "none"]).arg(&repo)),
            Kind::Casync => None,
            Kind::Restic => {
                let call = call.option("--repo", &repo);
                Some(call.args(["init", "--repository-version=2"]))
            }
        })
    }

    pub(super) fn commit_call(&self, kind: Kind, step: &str, dir: &Path) -> Invocation {
        self.commit_call_to(kind, &self.repo(kind), step, dir)
    }

    pub(super) fn commit_call_to(
        &self,
        kind: Kind,
        repo: &Path,
        step: &str,
        dir: &Path,
    ) -> Invocation {
        let call = self.call(kind);
        let name = step.replace(' ', "-");
        match kind {
            Kind::Grove | Kind::Ostree => {
                let mut tree = std::ffi::OsString::from("dir=");
                tree.push(dir);
                let call = call.option("--repo", repo).args(["commit", "-b", REF]);
                call.arg(SUBJECT).arg(TIMESTAMP).option("--tree", tree)
            }
            Kind::Borg => {
                let mut archive = repo.as_os_str().to_owned();
                archive.push(format!("::{name}"));
                let call = call.args(["create", "-C", "zstd,3"]).arg(archive);
                call.arg(".").dir(dir)
            }
            Kind::Casync => {
                let call = call.option("--store", repo.join("store.castr"));
                let call = call.args(["--compression=zstd", "make"]);
                call.arg(repo.join(format!("{name}.caidx"))).arg(dir)
            }
            Kind::Restic => {
                let call = call.option("--repo", repo);
                call.args(["backup", "--quiet", "."]).dir(dir)
            }
        }
    }

    /// A repository of ours with a commit of the tree; made where no scenario has made it yet.
    pub(super) fn grove_repo(&mut self) -> Result<(PathBuf, String)> {
        self.prepared(Kind::Grove, self.options.grove_repo.clone())
    }

    /// The same of OSTree, if it is installed.
    pub(super) fn ostree_repo(&mut self) -> Result<Option<(PathBuf, String)>> {
        if self.tools.ostree.is_none() {
            return Ok(None);
        }
        let repo = self.options.ostree_repo.clone();
        self.prepared(Kind::Ostree, repo).map(Some)
    }

    fn prepared(&mut self, kind: Kind, named: Option<PathBuf>) -> Result<(PathBuf, String)> {
        if let Some(repo) = named {
            let rev = self.options.rev.as_deref().unwrap_or(REF);
            let call = self.call(kind).option("--repo", &repo);
            let id = call.args(["rev-parse", rev]).output()?;
            return Ok((repo, id));
        }
        let repo = self.repo(kind);
        if let Some(id) = self.first_commit.clone().filter(|_| repo.exists()) {
            return Ok((repo, id));
        }
        let tree = self.tree()?;
        if let Some(call) = self.init_call(kind)? {
            call.output()?;
        }
        let call = self.commit_call(kind, "first commit", &tree);
        let (row, id) = self.step("preparation", kind.name(), &call)?;
        self.weigh(row, &repo)?;
        self.row(row).checksum = Some(id.clone());
        if let Some(other) = self.first_commit.clone() {
            self.check_same_checksum("commit by grove and ostree", &id, &other);
        }
        self.first_commit = Some(id.clone());
        Ok((repo, id))
    }
}

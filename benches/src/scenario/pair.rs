//! Two consecutive commits in repositories of grove and of OSTree, for whatever goes from one to the
//! next.

use std::path::{Path, PathBuf};

use super::Bench;
use super::commit::{Kind, NEXT};
use crate::error::Result;
use crate::measure::Invocation;

/// The repositories and the commits.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) grove: PathBuf,
    /// If OSTree is installed.
    pub(super) ostree: Option<PathBuf>,
    pub(super) from: String,
    pub(super) to: String,
}

impl Bench<'_> {
    /// The commits of both trees; made where no scenario has made them yet.
    pub(super) fn pair(&mut self) -> Result<Pair> {
        let (grove, from) = self.grove_repo()?;
        let ostree = self.ostree_repo()?.map(|(repo, _)| repo);
        let to = self.next_commit(Kind::Grove, self.options.grove_repo.clone())?;
        if ostree.is_some() {
            let theirs = self.next_commit(Kind::Ostree, self.options.ostree_repo.clone())?;
            if theirs != to {
                self.check_same_checksum("the second tree by grove and ostree", &to, &theirs);
            }
        }
        Ok(Pair {
            grove,
            ostree,
            from,
            to,
        })
    }

    fn next_commit(&mut self, kind: Kind, named: Option<PathBuf>) -> Result<String> {
        if let Some(repo) = named {
            let rev = self.options.second_rev.clone();
            let rev = rev.ok_or_else(|| self.missing("--second-rev REV"))?;
            let call = self.call(kind).option("--repo", &repo);
            return call.arg("rev-parse").arg(rev).output();
        }
        let known = self.next_commits.iter().find(|(known, _)| *known == kind);
        if let Some((_, id)) = known {
            return Ok(id.clone());
        }
        let call = self.commit_call(kind, NEXT, &self.second()?);
        let (row, id) = self.step("preparation", kind.name(), &call)?;
        self.weigh(row, &self.repo(kind))?;
        self.row(row).checksum = Some(id.clone());
        self.next_commits.push((kind, id.clone()));
        Ok(id)
    }

    /// Commits the first tree to another repository of ours, as the scenario has it already. Gives
    /// the commit.
    pub(super) fn commit_first_to(&self, repo: &Path) -> Result<String> {
        let call = self.commit_call_to(Kind::Grove, repo, "first commit", &self.tree()?);
        call.output()
    }

    /// A call of grove on a repository.
    pub(super) fn grove(&self, repo: impl AsRef<std::ffi::OsStr>) -> Invocation {
        self.call(Kind::Grove).option("--repo", repo)
    }

    /// A call of OSTree on a repository.
    pub(super) fn ostree(&self, repo: impl AsRef<std::ffi::OsStr>) -> Invocation {
        self.call(Kind::Ostree).option("--repo", repo)
    }
}

//! Checking repositories that hold the same commits.

use super::Bench;
use crate::error::Result;

/// The step that does what `ostree fsck` does: every object against its checksum.
const DEEP: &str = "every object against its checksum";

impl Bench<'_> {
    /// The scenario.
    pub(super) fn fsck(&mut self) -> Result<()> {
        let (repo, _) = self.grove_repo()?;
        let grove = self.tools.grove.call().option("--repo", &repo).arg("fsck");
        for (step, option) in [
            ("structure only", Some("--quick")),
            ("stored bytes", None),
            (DEEP, Some("--deep")),
        ] {
            self.step(step, "grove", &grove.clone().args(option))?;
        }
        let Some((repo, _)) = self.ostree_repo()? else {
            return Ok(());
        };
        if let Some(ostree) = &self.tools.ostree {
            let call = ostree.call().option("--repo", &repo).arg("fsck");
            self.step(DEEP, "ostree", &call)?;
        }
        Ok(())
    }
}

//! Commits of packages: the first time, with everything imported, the next release.

use std::fs;

use super::Bench;
use crate::error::{At, Error, Result};

const REF: &str = "os/rpms";
const SUBJECT: &str = "--subject=Measured";
const TIMESTAMP: &str = "--timestamp=2024-06-01T00:00:00Z";

impl Bench<'_> {
    /// The scenario.
    pub(super) fn rpms(&mut self) -> Result<()> {
        let missing = Error::MissingInput {
            scenario: self.scenario,
            option: "--rpms DIR",
        };
        let rpms = self.inputs.rpms.clone().ok_or(missing)?;
        let repo = self.work.join("grove-rpms");
        fs::create_dir(&repo).at(&repo)?;
        let grove = self.tools.grove.call().option("--repo", &repo);
        grove.clone().arg("init").output()?;
        let mut steps = vec![
            ("first commit", rpms.clone()),
            ("everything imported", rpms),
        ];
        let second = self.inputs.second_rpms.clone();
        steps.extend(second.map(|dir| ("next release", dir)));
        let mut checksums = Vec::new();
        for (step, dir) in steps {
            let mut tree = std::ffi::OsString::from("rpms=");
            tree.push(dir);
            // Without a parent the same packages give the same commit.
            let call = grove.clone().args(["commit", "-b", REF, "--parent=none"]);
            let call = call.arg(SUBJECT).arg(TIMESTAMP).option("--tree", tree);
            let (row, checksum) = self.step(step, "grove", &call)?;
            self.weigh(row, &repo)?;
            self.row(row).checksum = Some(checksum.clone());
            checksums.push(checksum);
        }
        if let [first, again, ..] = checksums.as_slice() {
            self.check_same_checksum("packages read and imported before", first, again);
        }
        Ok(())
    }
}

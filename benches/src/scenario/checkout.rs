//! Checkouts by copy, and whether they are equal.

use std::path::PathBuf;

use super::{Bench, is_root, remove};
use crate::compare::compare;
use crate::error::Result;
use crate::record::{DIFFERS, FAILS};

impl Bench<'_> {
    /// The scenario.
    pub(super) fn checkout(&mut self) -> Result<()> {
        let grove = self.grove_repo()?;
        let ostree = self.ostree_repo()?;
        let mut modes = vec![("checkout -U", true)];
        if is_root() {
            modes.push(("checkout", false));
        } else {
            self.leave_out("checkout with owners: only root can do it");
        }
        for (step, user_mode) in modes {
            let mut calls = Vec::new();
            for (tool, repo) in [
                (Some(&self.tools.grove), Some(&grove)),
                (self.tools.ostree.as_ref(), ostree.as_ref()),
            ] {
                let (Some(tool), Some((repo, id))) = (tool, repo) else {
                    continue;
                };
                let target = self.work.join(format!("checkout-{}", tool.name));
                let mut call = tool.call().option("--repo", repo).arg("checkout");
                call = call.args(user_mode.then_some("-U")).arg("--fsync=no");
                if tool.name == "ostree" {
                    // Else it would leave uncompressed copies behind and make hard links to them.
                    call = call.arg("--disable-cache");
                }
                calls.push((tool.name, call.arg(id).arg(&target), target));
            }
            let mut targets: Vec<PathBuf> = Vec::new();
            for (name, call, target) in self.rotated(calls) {
                self.step(step, name, &call)?;
                targets.push(target);
            }
            targets.sort();
            if let [ours, theirs] = targets.as_slice() {
                let found = compare(ours, theirs)?;
                let text = format!("{step}: what grove and ostree write is equal");
                // Without owners, permissions are each program's own affair.
                let otherwise = if user_mode { DIFFERS } else { FAILS };
                self.compared(&found, &text, otherwise);
            }
            targets.iter().try_for_each(|target| remove(target))?;
        }
        Ok(())
    }
}

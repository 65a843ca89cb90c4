//! Checkouts by copy and by hard links, changes of a checkout to the next commit, and whether what
//! is written is equal.

use std::path::{Path, PathBuf};

use super::{Bench, is_root};
use crate::compare::compare;
use crate::error::Result;
use crate::measure::Invocation;
use crate::record::{DIFFERS, FAILS};

/// Without this the file system's flushing of everything would be measured.
const NO_FSYNC: &str = "--fsync=no";

impl Bench<'_> {
    /// The scenario.
    pub(super) fn checkout(&mut self) -> Result<()> {
        self.copies("checkout -U", true)?;
        if !is_root() {
            self.leave_out("checkout with owners, and by hard links: only root can do it");
            return Ok(());
        }
        self.copies("checkout", false)?;
        self.hard_links()?;
        if self.inputs.second.is_some() || self.options.second_rev.is_some() {
            self.updates()?;
        }
        Ok(())
    }

    /// Everybody writes copies; `cp` those of the tree.
    fn copies(&mut self, step: &'static str, user_mode: bool) -> Result<()> {
        let grove = self.grove_repo()?;
        let ostree = self.ostree_repo()?;
        let option = user_mode.then_some("-U");
        let mut calls = Vec::new();
        let target = |name: &str| self.work.join(format!("checkout-{name}"));
        let call = self.grove(&grove.0).arg("checkout").args(option);
        let call = call.arg(NO_FSYNC).arg(&grove.1).arg(target("grove"));
        calls.push(("grove", call, target("grove")));
        if let Some((repo, id)) = &ostree {
            let call = self.ostree(repo).arg("checkout").args(option).arg(NO_FSYNC);
            // Else it would leave uncompressed copies behind and make hard links to them.
            let call = call.arg("--disable-cache").arg(id).arg(target("ostree"));
            calls.push(("ostree", call, target("ostree")));
        }
        if let Some(tree) = &self.inputs.tree {
            let call = Invocation::new("cp").arg("-a").arg(tree).arg(target("cp"));
            calls.push(("cp", call, target("cp")));
        }
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (name, call, target) in self.rotated(calls) {
            let (row, _) = self.step(step, name, &call)?;
            rows.push((name, row));
            targets.push(target);
        }
        let (ours, theirs) = (target_of(&targets, "grove"), target_of(&targets, "ostree"));
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let found = compare(ours, theirs)?;
            let text = format!("{step}: what grove and ostree write is equal");
            // Without owners, permissions are each program's own affair.
            let otherwise = if user_mode { DIFFERS } else { FAILS };
            self.compared(&found, &text, otherwise);
        }
        for (peer, limit) in [("ostree", 0.2), ("cp", 1.0)] {
            self.goal_against(step, &rows, peer, limit);
        }
        self.put_away(&targets)
    }

    /// By hard links: grove from whole files in its cache, OSTree from a bare repository.
    fn hard_links(&mut self) -> Result<()> {
        let (repo, id) = self.grove_repo()?;
        let mut targets = Vec::new();
        let mut rows = Vec::new();
        for step in ["checkout -H, nothing there", "checkout -H, again"] {
            let target = self.work.join(format!("links-{}", targets.len()));
            let call = self.grove(&repo).args(["checkout", "-H", NO_FSYNC]);
            let (row, _) = self.step(step, "grove", &call.arg(&id).arg(&target))?;
            rows.push(("grove", row));
            targets.push(target);
        }
        if let Some((archive, id)) = self.ostree_repo()? {
            let (bare, target) = (self.work.join("bare"), self.work.join("links-ostree"));
            let init = self.ostree(&bare);
            init.args(["init", "--mode=bare"]).output()?;
            let pull = self.ostree(&bare).arg("pull-local").arg(archive);
            pull.arg(&id).output()?;
            let call = self.ostree(&bare).args(["checkout", "-H", NO_FSYNC]);
            let call = call.arg(&id).arg(&target);
            let (row, _) = self.step("checkout -H, again", "ostree", &call)?;
            rows.push(("ostree", row));
            if let Some(ours) = targets.last() {
                let found = compare(ours, &target)?;
                let text = "checkout -H: what grove and ostree write is equal";
                self.compared(&found, text, FAILS);
            }
            targets.extend([target, bare]);
            // The first only fills the cache.
            rows.remove(0);
            self.goal_against("checkout -H, again", &rows, "ostree", 0.5);
        }
        self.put_away(&targets)
    }

    /// A checkout of the first commit becomes one of the second.
    fn updates(&mut self) -> Result<()> {
        let pair = self.pair()?;
        for (step, option) in [
            ("--update", None),
            ("--update of hard links", Some("-H")),
            // Now the new files are in the cache.
            ("--update of hard links, again", Some("-H")),
        ] {
            let target = self.work.join("update");
            let call = self.grove(&pair.grove).args(["checkout", NO_FSYNC]);
            let first = call.clone().args(option).arg(&pair.from).arg(&target);
            first.output()?;
            // Which kind of checkout it is, is remembered.
            let call = call.arg("--update").arg(&pair.to).arg(&target);
            let (row, _) = self.step(step, "grove", &call)?;
            let wall = self.row(row).wall_seconds;
            self.goal_below(&format!("{step}, wall seconds"), wall, 2.0);
            if let Some(second) = &self.inputs.second {
                let found = compare(second, &target)?;
                let text = format!("{step}: what is there is the second tree");
                self.compared(&found, &text, FAILS);
            }
            self.put_away(&[target])?;
        }
        Ok(())
    }

    fn goal_against(&mut self, step: &str, rows: &[(&str, usize)], peer: &str, limit: f64) {
        let row_of = |name| rows.iter().find(|(known, _)| *known == name);
        if let (Some((_, ours)), Some((_, theirs))) = (row_of("grove"), row_of(peer)) {
            let ratio = self.cpu(*ours) / self.cpu(*theirs);
            self.goal_below(&format!("CPU of {step} against {peer}'s"), ratio, limit);
        }
    }
}

fn target_of<'t>(targets: &'t [PathBuf], name: &str) -> Option<&'t Path> {
    let mut targets = targets.iter().map(PathBuf::as_path);
    targets.find(|path| {
        path.to_string_lossy()
            .ends_with(&format!("checkout-{name}"))
    })
}

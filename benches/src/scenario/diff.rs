//! What differs between two commits, by everyone who can say it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Bench;
use crate::error::Result;
use crate::record::DIFFERS;

/// Lines in which two answers differ that are written down; more are only counted.
const LISTED: usize = 20;

impl Bench<'_> {
    /// The scenario.
    pub(super) fn diff(&mut self) -> Result<()> {
        let pair = self.pair()?;
        let revs = [&pair.from, &pair.to];
        let step = "modified, deleted and added paths";
        let call = self.grove(&pair.grove).arg("diff").args(revs);
        let (ours, said) = self.step(step, "grove", &call)?;
        if let Some(repo) = &pair.ostree {
            let call = self.ostree(repo).arg("diff").args(revs);
            let (theirs, also) = self.step(step, "ostree", &call)?;
            self.same_lines(&said, &also);
            let ratio = self.cpu(ours) / self.cpu(theirs);
            self.goal_below("CPU of a comparison against ostree's", ratio, 0.05);
        }
        let has_usr_etc = |tree: &PathBuf| tree.join("usr/etc").exists();
        let configuration = match self.inputs.second.as_ref().is_some_and(has_usr_etc) {
            true => "--subpath=/usr/etc",
            false => "--subpath=/etc",
        };
        for (step, options) in [
            ("what was moved and what changed of each", &["--files"][..]),
            ("sums by directory and package", &["--stat", "--packages"]),
            ("text of configuration files", &["--patch", configuration]),
            ("facts of programs and libraries", &["--elf"]),
        ] {
            let call = self.grove(&pair.grove).arg("diff").args(options);
            match self.step(step, "grove", &call.args(revs)) {
                Ok(_) => {}
                Err(error) => self.leave_out(&format!("{step}: {}", super::describe(&error))),
            }
        }
        Ok(())
    }

    fn same_lines(&mut self, ours: &str, theirs: &str) {
        let lines = |text: &str| -> BTreeSet<String> { text.lines().map(normal).collect() };
        let (ours, theirs) = (lines(ours), lines(theirs));
        let different: Vec<&String> = ours.symmetric_difference(&theirs).collect();
        let what = format!(
            "grove and ostree name the same paths: {} and {}, {} different",
            ours.len(),
            theirs.len(),
            different.len()
        );
        if different.is_empty() {
            self.check(true, &what);
            return;
        }
        self.verdict(DIFFERS, &what);
        for line in different.iter().take(LISTED) {
            let who = if ours.contains(*line) {
                "grove"
            } else {
                "ostree"
            };
            self.verdict(DIFFERS, &format!("only {who}: {line}"));
        }
    }
}

/// The letter and the path, whatever is between them.
fn normal(line: &str) -> String {
    let (letter, path) = line.split_once(' ').unwrap_or((line, ""));
    format!("{letter} {}", path.trim_start())
}

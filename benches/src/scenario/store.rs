//! One release after the other into the same repository: what each adds to it, and what that costs.

use std::fs;
use std::path::{Path, PathBuf};

use grove_fixtures::mini::build_tree;

use super::commit::Kind;
use super::{Bench, Options, remove, small};
use crate::error::{At, Result};
use crate::record::{INPUT, RELEASE, Row};
use crate::walk;

/// From this many releases on, the goal is that of a year.
const YEAR: usize = 12;
/// Level of the recompression in the background.
const LEVEL: &str = "--level=9";

/// A release to be stored.
#[derive(Debug)]
enum Release {
    Directory(PathBuf),
    /// Built for the occasion.
    Month(u32),
}

impl Bench<'_> {
    /// The scenario, with repositories of its own: those of other scenarios hold other commits.
    pub(super) fn store(&mut self) -> Result<()> {
        self.put_away(&[])?;
        let own = self.work.join("store");
        fs::create_dir(&own).at(&own)?;
        let shared = std::mem::replace(&mut self.work, own);
        let done = self.store_releases();
        self.work = shared;
        done
    }

    fn store_releases(&mut self) -> Result<()> {
        let releases = self.releases()?;
        let kinds = self.all_kinds();
        for kind in self.rotated(kinds.clone()) {
            self.init(kind)?;
        }
        let mut commits = Vec::new();
        for (at, release) in releases.iter().enumerate() {
            let (name, dir) = self.prepare(release)?;
            commits.extend(self.store_release(&kinds, &name, &dir)?);
            // The last goes with everything else: see `check_out`.
            if matches!(release, Release::Month(_)) && at + 1 < releases.len() {
                remove(&dir)?;
            }
        }
        if let [first, .., last] = commits.as_slice() {
            self.check_out(first, last)?;
        }
        self.repack()?;
        self.judge(releases.len());
        Ok(())
    }

    /// What was named for this, or built; otherwise the two that everything is measured with.
    fn releases(&self) -> Result<Vec<Release>> {
        let Options { months, small, .. } = *self.options;
        // Not every peer can store the odd names of the other small trees.
        let built = small && self.options.tree.is_none();
        let months = if built { months.max(2) } else { months };
        if months > 0 {
            return Ok((1..=months).map(Release::Month).collect());
        }
        let mut dirs = self.inputs.releases.clone();
        if dirs.is_empty() {
            dirs = vec![self.tree()?, self.second()?];
        }
        Ok(dirs.into_iter().map(Release::Directory).collect())
    }

    /// Name and directory of a release.
    fn prepare(&mut self, release: &Release) -> Result<(String, PathBuf)> {
        match release {
            Release::Directory(dir) => {
                let name = dir.file_name().unwrap_or_default();
                Ok((name.to_string_lossy().into_owned(), dir.clone()))
            }
            Release::Month(number) => {
                let (name, dir) = (format!("month {number:02}"), self.work.join("tree"));
                build_tree(&dir, *number, small::scale(self.options))?;
                let found = walk::list(&dir)?;
                self.record.fact(INPUT, format!("{name}: {found}"));
                Ok((name, dir))
            }
        }
    }

    /// Everybody stores a release. Gives the commit that grove made.
    fn store_release(&mut self, kinds: &[Kind], name: &str, dir: &Path) -> Result<Option<String>> {
        let mut answers = Vec::new();
        for kind in self.rotated(kinds.to_vec()) {
            let call = self.commit_call(kind, name, dir);
            let (row, answer) = self.step(name, kind.name(), &call)?;
            self.weigh(row, &self.repo(kind))?;
            let row = self.row(row);
            RELEASE.clone_into(&mut row.note);
            if kind.has_checksum() {
                row.checksum = Some(answer.clone());
                answers.push((kind, answer));
            }
        }
        if let [(_, one), (_, other)] = answers.as_slice() {
            self.check_same_checksum(&format!("{name} by grove and ostree"), one, other);
        }
        let ours = answers.into_iter().find(|(kind, _)| *kind == Kind::Grove);
        Ok(ours.map(|(_, commit)| commit))
    }

    /// What is stored as a delta must not be much slower to check out.
    ///
    /// Nothing is removed between the two: for a minute or more ext4 makes no use of the inodes of
    /// removed files, and looks at all of them for each file that it makes.
    fn check_out(&mut self, first: &str, last: &str) -> Result<()> {
        let repo = self.repo(Kind::Grove);
        let mut speeds = Vec::new();
        let mut targets = Vec::new();
        for (step, commit) in [("check out the first", first), ("check out the last", last)] {
            let call = self.call(Kind::Grove).option("--repo", &repo);
            let call = call.args(["checkout", "-U", "--fsync=no", commit]);
            let target = self.work.join(format!("checkout-{}", targets.len()));
            let (row, _) = self.step(step, "grove", &call.arg(&target))?;
            // What is slow to make is kept in the repository for the next checkout.
            self.weigh(row, &repo)?;
            let bytes = walk::list(&target)?.bytes;
            speeds.push(bytes as f64 / self.row(row).cpu_seconds().max(1e-9));
            targets.push(target);
        }
        targets.iter().try_for_each(|target| remove(target))?;
        if let [first, last] = speeds.as_slice() {
            let what = "speed of checking out the last release against the first, by CPU";
            self.goal_above(what, last / first, 0.8);
        }
        Ok(())
    }

    /// Recompression, if the program can do it.
    fn repack(&mut self) -> Result<()> {
        let help = self.call(Kind::Grove).args(["repack", "--help"]);
        if help.output().is_err() {
            self.leave_out("grove repack: this program does not have it");
            return Ok(());
        }
        let repo = self.repo(Kind::Grove);
        let call = self.call(Kind::Grove).option("--repo", &repo);
        let (row, _) = self.step("repack", "grove", &call.args(["repack", LEVEL]))?;
        self.weigh(row, &repo)
    }

    fn stored_rows(&self, tool: &str) -> Vec<&Row> {
        let wanted = |row: &&Row| row.run == self.run && row.tool == tool && row.note == RELEASE;
        self.record.rows.iter().filter(wanted).collect()
    }

    /// The goals, met or missed.
    fn judge(&mut self, releases: usize) {
        let ours = figures(&self.stored_rows("grove"));
        let peers: Vec<(&str, Figures)> = ["ostree", "borg", "casync", "restic"]
            .into_iter()
            .map(|tool| (tool, figures(&self.stored_rows(tool))))
            .filter(|(_, figures)| figures.stored > 0.0)
            .collect();
        if let Some((_, ostree)) = peers.iter().find(|(tool, _)| *tool == "ostree") {
            let limit = if releases < YEAR { 0.55 } else { 0.3 };
            let what = format!("{releases} releases against ostree's archive");
            self.goal_below(
                &format!("{what}, stored"),
                ours.stored / ostree.stored,
                limit,
            );
            let on_disk = ours.allocated / ostree.allocated;
            self.goal_below(&format!("{what}, on disk"), on_disk, limit);
            let what = "CPU of the second commit against ostree's";
            self.goal_below(what, ours.second_cpu / ostree.second_cpu, 0.25);
        }
        let best = peers
            .iter()
            .min_by(|a, b| a.1.growth.total_cmp(&b.1.growth));
        if let (Some((tool, best)), true) = (best, releases > 1) {
            let what = format!("growth after the first release against {tool}'s, the best peer's");
            self.goal_below(&what, ours.growth / best.growth, 0.2);
        }
    }
}

/// What goals are about.
#[derive(Debug, Default)]
struct Figures {
    stored: f64,
    allocated: f64,
    /// Of all releases after the first.
    growth: f64,
    second_cpu: f64,
}

fn figures(rows: &[&Row]) -> Figures {
    let stored = |row: &&Row| row.stored_bytes.unwrap_or(0) as f64;
    let last = rows.last();
    Figures {
        stored: last.map_or(0.0, stored),
        allocated: last.map_or(0.0, |row| row.allocated_bytes.unwrap_or(0) as f64),
        growth: last.map_or(0.0, stored) - rows.first().map_or(0.0, stored),
        second_cpu: rows.get(1).map_or(f64::NAN, |row| row.cpu_seconds()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_came_after_the_first_release() {
        let row = |stored, user_seconds| Row {
            stored_bytes: Some(stored),
            allocated_bytes: Some(stored + 1),
            user_seconds,
            ..Row::default()
        };
        let rows = [row(100, 1.0), row(130, 2.0), row(150, 3.0)];
        let found = figures(&rows.iter().collect::<Vec<_>>());
        assert_eq!((found.stored, found.allocated), (150.0, 151.0));
        assert_eq!((found.growth, found.second_cpu), (50.0, 2.0));
        assert!(figures(&[]).second_cpu.is_nan());
    }
}

//! Deltas from one commit to the next: made, and applied where only the first is.

use std::fs;
use std::path::{Path, PathBuf};

use super::Bench;
use super::pair::Pair;
use crate::error::{At, Error, Result};
use crate::walk;

impl Bench<'_> {
    /// The scenario.
    pub(super) fn delta(&mut self) -> Result<()> {
        let pair = self.pair()?;
        let theirs = self.static_deltas(&pair)?;
        let own = self.own_delta(&pair)?;
        if let Some(theirs) = theirs {
            let ratio = own as f64 / theirs as f64;
            self.goal_below("own delta against ostree's static delta", ratio, 0.4);
        }
        self.patch_from()
    }

    /// Static deltas by grove and OSTree, both applied by OSTree. Gives the bytes of OSTree's.
    fn static_deltas(&mut self, pair: &Pair) -> Result<Option<u64>> {
        let step = "static delta";
        let revs = [format!("--from={}", pair.from), format!("--to={}", pair.to)];
        let call = self.grove(&pair.grove).args(["static-delta", "generate"]);
        let (ours, _) = self.step(step, "grove", &call.args(&revs))?;
        let our_bytes = self.weigh_delta(ours, &pair.grove)?;
        let Some(repo) = &pair.ostree else {
            return Ok(None);
        };
        let call = self.ostree(repo).args(["static-delta", "generate"]);
        let (theirs, _) = self.step(step, "ostree", &call.args(&revs))?;
        let their_bytes = self.weigh_delta(theirs, repo)?;
        let ratio = our_bytes as f64 / their_bytes as f64;
        self.goal_below("bytes of a static delta against ostree's", ratio, 0.5);
        let ratio = self.cpu(ours) / self.cpu(theirs);
        self.goal_below("CPU of a static delta against ostree's", ratio, 0.1);
        self.apply_static(
            pair,
            &pair.grove,
            "ostree applies the static delta of grove",
        )?;
        self.apply_static(pair, repo, "ostree applies the static delta of ostree")?;
        Ok(Some(their_bytes))
    }

    fn weigh_delta(&mut self, row: usize, repo: &Path) -> Result<u64> {
        let bytes = walk::occupied(&repo.join("deltas"))?.apparent_bytes;
        self.row(row).stored_bytes = Some(bytes);
        Ok(bytes)
    }

    /// A stock client that has the first commit applies what lies in `repo`.
    fn apply_static(&mut self, pair: &Pair, repo: &Path, step: &str) -> Result<()> {
        let Some(archive) = &pair.ostree else {
            return Ok(());
        };
        let client = self.work.join("client");
        let init = self.ostree(&client);
        init.args(["init", "--mode=bare-user"]).output()?;
        let pull = self.ostree(&client).arg("pull-local").arg(archive);
        pull.arg(&pair.from).output()?;
        let call = self.ostree(&client).args(["static-delta", "apply-offline"]);
        self.step(step, "ostree", &call.arg(static_delta(repo)?))?;
        let found = self.ostree(&client).args(["rev-parse", &pair.to]).output();
        let clean = self.ostree(&client).arg("fsck").output();
        let holds = found.is_ok() && clean.is_ok();
        self.check(
            holds,
            &format!("{step}: the commit is there, fsck is clean"),
        );
        self.put_away(&[client])
    }

    /// Grove's own delta, there and back. Gives its bytes.
    fn own_delta(&mut self, pair: &Pair) -> Result<u64> {
        let file = self.work.join("own.delta");
        let call = self.grove(&pair.grove).args(["delta", "create"]);
        let call = call.option("--from", &pair.from).arg(&pair.to).arg(&file);
        let (row, _) = self.step("own delta", "grove", &call)?;
        let bytes = fs::metadata(&file).at(&file)?.len();
        self.row(row).stored_bytes = Some(bytes);
        let client = self.work.join("offline");
        self.grove(&client).arg("init").output()?;
        let id = self.commit_first_to(&client)?;
        if id != pair.from {
            self.check_same_checksum("the first tree, committed again", &id, &pair.from);
        }
        let call = self.grove(&client).args(["delta", "apply", "--ref=new"]);
        self.step("apply the own delta", "grove", &call.arg(&file))?;
        let found = self.grove(&client).args(["rev-parse", "new"]).output()?;
        self.check_same_checksum("what the own delta makes", &found, &pair.to);
        let call = self.grove(&client).args(["fsck", "--deep"]);
        self.step("every object of that against its checksum", "grove", &call)?;
        fs::remove_file(&file).at(&file)?;
        self.put_away(&[client])?;
        Ok(bytes)
    }
}

/// The only static delta of a repository.
fn static_delta(repo: &Path) -> Result<PathBuf> {
    let (deltas, mut found) = (repo.join("deltas"), None);
    walk::walk(&deltas, &mut |path, _| {
        if path.ends_with("superblock") {
            found = path.parent().map(Path::to_owned);
        }
        Ok(())
    })?;
    found.ok_or(Error::Client {
        what: "no static delta in the repository that was to have one",
    })
}

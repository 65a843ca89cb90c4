//! Commits that OSTree made, taken over and given back; commits made here, given to OSTree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::pair::Pair;
use super::{Bench, is_root};
use crate::compare::compare;
use crate::error::{At, Result};
use crate::record::{DIFFERS, FAILS};
use crate::walk;

/// What OSTree calls files of an archive; everything else is metadata.
const FILE: &str = "filez";

impl Bench<'_> {
    /// The scenario.
    pub(super) fn exchange(&mut self) -> Result<()> {
        let pair = self.pair()?;
        let Some(archive) = pair.ostree.clone() else {
            return Ok(());
        };
        self.first_alone(&archive, &pair)?;
        self.through_grove(&archive)?;
        self.given_to_ostree(&pair)
    }

    /// One commit is imported without what came after it.
    fn first_alone(&mut self, archive: &Path, pair: &Pair) -> Result<()> {
        let step = "import of the first alone";
        let [ours, theirs] = ["first", "first-pulled"].map(|name| self.work.join(name));
        self.grove(&ours).arg("init").output()?;
        let call = self.grove(&ours).args(["import", "--depth=0"]);
        let (row, _) = self.step(step, "grove", &call.arg(archive).arg(&pair.from))?;
        self.weigh(row, &ours)?;
        let peer = self.ostree(&theirs);
        peer.args(["init", "--mode=bare-user"]).output()?;
        let call = self.ostree(&theirs).args(["pull-local", "--untrusted"]);
        let (row, _) = self.step(step, "ostree", &call.arg(archive).arg(&pair.from))?;
        self.weigh(row, &theirs)?;
        self.put_away(&[ours, theirs])
    }

    /// An archive is imported, exported, and compared with what it was.
    fn through_grove(&mut self, archive: &Path) -> Result<()> {
        let [imported, pulled, exported] =
            ["imported", "pulled", "exported"].map(|name| self.work.join(name));
        self.grove(&imported).arg("init").output()?;
        let call = self.grove(&imported).arg("import").arg(archive);
        let (row, _) = self.step("import", "grove", &call)?;
        self.weigh(row, &imported)?;
        let peer = self.ostree(&pulled);
        peer.args(["init", "--mode=bare-user"]).output()?;
        // Without this it would believe what it copies.
        let call = self.ostree(&pulled).args(["pull-local", "--untrusted"]);
        let (row, _) = self.step("import", "ostree", &call.arg(archive))?;
        self.weigh(row, &pulled)?;
        let call = self.grove(&imported).arg("import").arg(archive);
        self.step("import again", "grove", &call)?;
        let call = self.grove(&imported).arg("export").arg(&exported);
        let (row, _) = self.step("export", "grove", &call)?;
        self.weigh(row, &exported)?;
        self.same_objects(archive, &exported)?;
        let call = self.ostree(&exported).arg("fsck");
        self.step("fsck of the export", "ostree", &call)?;
        self.put_away(&[imported, pulled, exported])
    }

    /// What was committed here is exported and checked out by OSTree.
    fn given_to_ostree(&mut self, pair: &Pair) -> Result<()> {
        let [repo, target] = ["bare", "checkout-of-export"].map(|name| self.work.join(name));
        let (mode, option) = if is_root() {
            ("--mode=bare", None)
        } else {
            ("--mode=bare-user", Some("-U"))
        };
        let call = self.grove(&pair.grove).args(["export", mode]).arg(&repo);
        let (row, _) = self.step("export of bare files", "grove", &call)?;
        self.weigh(row, &repo)?;
        let call = self.ostree(&repo).args(["checkout", "--fsync=no"]);
        let call = call.args(option).arg(&pair.to).arg(&target);
        self.step("checkout of the export", "ostree", &call)?;
        if let Some(tree) = &self.inputs.second {
            let found = compare(tree, &target)?;
            let otherwise = if is_root() { FAILS } else { DIFFERS };
            let what = "a tree, and what ostree checks out of its commit by grove, are equal";
            self.compared(&found, what, otherwise);
        }
        self.put_away(&[repo, target])
    }

    /// Compares the objects of two archives, byte by byte where OSTree fixes the bytes.
    fn same_objects(&mut self, one: &Path, other: &Path) -> Result<()> {
        let (ours, theirs) = (objects(other)?, objects(one)?);
        let (mut metadata, mut files, mut alike, mut wrong) = (0_u64, 0_u64, 0_u64, 0_u64);
        for (name, path) in &theirs {
            let Some(also) = ours.get(name) else {
                wrong += 1;
                continue;
            };
            let same = fs::read(path).at(path)? == fs::read(also).at(also)?;
            if path.extension().is_some_and(|kind| kind == FILE) {
                files += 1;
                alike += u64::from(same);
            } else {
                metadata += 1;
                wrong += u64::from(!same);
            }
        }
        wrong += ours
            .keys()
            .filter(|name| !theirs.contains_key(*name))
            .count() as u64;
        self.check(
            wrong == 0,
            &format!(
                "import and export give the same objects: {metadata} of metadata, equal to the byte; \
                 {files} files, {alike} of them compressed to the same bytes; {wrong} different"
            ),
        );
        Ok(())
    }
}

/// Objects of an archive by name.
fn objects(repo: &Path) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let root = repo.join("objects");
    let mut found = BTreeMap::new();
    walk::walk(&root, &mut |path, meta| {
        if meta.is_file() {
            let name = path.strip_prefix(&root).unwrap_or(&path).to_owned();
            found.insert(name, path);
        }
        Ok(())
    })?;
    Ok(found)
}

//! Packs: mended from parity, or their sound part written anew and the damaged file put aside.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::files::{put_aside, quarantine};
use super::salvage::{Known, Salvage, salvage};
use super::{RepairReport, check_cancelled};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::Storage;
use crate::fs::lock::OwnedDir;
use crate::id::{ObjectId, PackId};
use crate::index::ObjectIndex;
use crate::monitor::{Monitor, Phase};
use crate::ops::describe;
use crate::pack::parity;
use crate::pack::reader::PackReader;
use crate::pack::writer::StagedPack;
use crate::pack::{EntryKind, Key};
use crate::repo::Repository;
use crate::repo::transaction::{PackSeries, publish_packs};

/// The repair of packs, with what it must remember for later.
#[derive(Debug)]
pub(super) struct PackRepair<'a> {
    path: &'a Path,
    storage: &'a dyn Storage,
    dry_run: bool,
    monitor: &'a dyn Monitor,
    /// Entries that damaged packs would lose; only on a dry run.
    lost: HashSet<Key>,
    /// Damaged packs in quarantine: where, what was lost with them, whether that is all.
    put_aside: Vec<(PathBuf, Vec<Key>, bool)>,
}

/// A damaged pack, and what can be taken out of it.
struct Damaged {
    id: PackId,
    path: PathBuf,
    salvage: Salvage,
}

impl<'a> PackRepair<'a> {
    pub(super) fn new(
        path: &'a Path,
        storage: &'a dyn Storage,
        dry_run: bool,
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        Ok(Self {
            path,
            storage,
            dry_run,
            monitor,
            lost: HashSet::new(),
            put_aside: Vec::new(),
        })
    }

    /// Entries to be regarded as lost although the index has them.
    pub(super) fn lost_on_dry_run(&self) -> &HashSet<Key> {
        &self.lost
    }

    /// Commits that were in damaged packs and could not be taken out of them.
    pub(super) fn lost_commits(&self) -> impl Iterator<Item = ObjectId> {
        let put_aside = self.put_aside.iter().flat_map(|(_, lost, _)| lost);
        let keys = put_aside.chain(&self.lost);
        let commits = keys.filter(|key| key.kind == EntryKind::Commit);
        commits.map(|key| ObjectId::from_bytes(key.id))
    }

    fn pack(&self, id: &PackId) -> PathBuf {
        self.path.join("packs").join(format!("{id}.pack"))
    }

    /// Mends damaged packs, and writes packs that hold `bad` entries anew without them.
    pub(super) fn run(
        &mut self,
        repo: &Repository,
        bad: &HashSet<Key>,
        report: &mut RepairReport,
    ) -> Result<()> {
        let known = places(repo, bad)?;
        let mut damaged = Vec::new();
        let mut ids = repo.store().paths().present()?;
        ids.extend(parity::orphans(&self.path.join("packs"))?);
        let size = |id| std::fs::metadata(self.pack(id)).map_or(0, |pack| pack.len());
        let total = ids.iter().map(size).sum();
        self.monitor.begin(Phase::Verify, Some(total));
        for id in ids {
            check_cancelled(self.monitor)?;
            let path = self.pack(&id);
            let error = check(&path, id, self.monitor).err();
            let has_bad = known.bad.contains(&id);
            let Some(error) = error.map(|error| describe(&error)).or(has_bad.then(|| {
                format!(
                    "{}: entries that are not what they should be",
                    path.display()
                )
            })) else {
                continue;
            };
            let mut known = known.by_pack.get(&id).cloned().unwrap_or_default();
            let (mut id, mut path) = (id, path);
            if let Some(mended) = self.mend(&path, id, has_bad)? {
                report.packs_mended += 1;
                report.notes.push(format!("{error}: mended from parity"));
                let Some(foreign) = mended else { continue };
                (id, path) = (foreign, self.pack(&foreign));
                known = Known::new();
            }
            if !path.exists() {
                continue;
            }
            let salvage = salvage(repo, &path, id, &known, bad)?;
            report.entries_salvaged += salvage.entries;
            report.packs_rewritten += u64::from(!salvage.blocks.is_empty());
            let note = match salvage.lost.len() {
                0 if !salvage.unknown => format!("{error}: written anew"),
                0 => format!("{error}: what could be read is written anew"),
                1 => format!("{error}: written anew without 1 damaged entry"),
                n => format!("{error}: written anew without {n} damaged entries"),
            };
            report.notes.push(note);
            damaged.push(Damaged { id, path, salvage });
        }
        self.monitor.end(Phase::Verify);
        if self.dry_run {
            let lost = damaged.iter().flat_map(|d| d.salvage.lost.iter().copied());
            self.lost.extend(lost);
            return Ok(());
        }
        self.replace(repo, damaged)
    }

    /// Restores a pack from its parity file, if that can be done. Where the damaged file holds
    /// blocks that are not the pack's, as when two files were swapped, it is kept under another
    /// name, which is given.
    fn mend(&self, path: &Path, id: PackId, has_bad: bool) -> Result<Option<Option<PackId>>> {
        let Some(parity) = parity::load(path, id).ok().flatten().filter(|_| !has_bad) else {
            return Ok(None);
        };
        // An interrupted repair may have left the damaged file under its other name.
        let aside = self.pack(&alias(&id));
        let damaged = [path, aside.as_path()]
            .into_iter()
            .find(|path| path.exists());
        let bytes = damaged.map_or(Ok(Vec::new()), std::fs::read).at(path)?;
        let Some(bytes) = parity.mend(bytes) else {
            return Ok(None);
        };
        if self.dry_run {
            return Ok(Some(None));
        }
        let staging = OwnedDir::create(&self.path.join("staging"))?;
        let mended = staging.path().join("mended");
        let mut file = self.storage.create(&mended).at(&mended)?;
        file.write_all(&bytes).at(&mended)?;
        file.sync().at(&mended)?;
        if check(&mended, id, self.monitor).is_err() {
            return Ok(None);
        }
        let packs = self.path.join("packs");
        let foreign = path.exists() && has_foreign(path, &mended, id)?;
        let foreign = foreign.then(|| alias(&id));
        if let Some(alias) = &foreign {
            let target = self.pack(alias);
            self.storage.rename(path, &target).at(&target)?;
            self.storage.sync_dir(&packs).at(&packs)?;
        }
        self.storage.rename(&mended, path).at(path)?;
        self.storage.sync_dir(&packs).at(&packs)?;
        Ok(Some(foreign))
    }

    /// Publishes what was salvaged, then puts the damaged packs aside.
    fn replace(&mut self, repo: &Repository, mut damaged: Vec<Damaged>) -> Result<()> {
        if damaged.is_empty() {
            return Ok(());
        }
        let staging = OwnedDir::create(&self.path.join("staging"))?;
        let (mut data, mut meta) = (Vec::new(), Vec::new());
        for pack in &mut damaged {
            check_cancelled(self.monitor)?;
            let is_meta = pack.salvage.meta;
            let staged = write(repo, pack, &staging)?;
            // The same name says that every block is there, whatever a scan passed over.
            pack.salvage.unknown &= !staged.iter().any(|made| made.id == pack.id);
            if is_meta {
                meta.extend(staged);
            } else {
                data.extend(staged);
            }
        }
        let new: BTreeSet<PackId> = data.iter().chain(&meta).map(|pack| pack.id).collect();
        self.make_room(&mut damaged, &new)?;
        publish_packs(repo, &data)?;
        for pack in &meta {
            publish_packs(repo, std::slice::from_ref(pack))?;
        }
        for pack in damaged {
            let name = format!("{}.pack", pack.id);
            let kept = put_aside(self.path, self.storage, &pack.path, &name)?;
            let Salvage { lost, unknown, .. } = pack.salvage;
            self.put_aside.push((kept, lost, !unknown));
        }
        Ok(())
    }

    /// A salvaged pack may have the name of a damaged one, as when only the footer was damaged or
    /// two files were swapped. The damaged one gets another name first: it may hold what another
    /// salvaged pack is still to bring.
    fn make_room(&self, damaged: &mut [Damaged], new: &BTreeSet<PackId>) -> Result<()> {
        let packs = self.path.join("packs");
        let mut moved = false;
        for pack in damaged.iter_mut().filter(|pack| new.contains(&pack.id)) {
            let target = self.pack(&alias(&pack.id));
            self.storage.rename(&pack.path, &target).at(&target)?;
            pack.path = target;
            moved = true;
        }
        if moved {
            self.storage.sync_dir(&packs).at(&packs)?;
        }
        Ok(())
    }

    /// Deletes damaged packs that nothing is lost with any more.
    pub(super) fn clear_quarantine(
        &self,
        repo: &Repository,
        report: &mut RepairReport,
    ) -> Result<()> {
        if self.put_aside.is_empty() {
            return Ok(());
        }
        for (path, lost, complete) in &self.put_aside {
            let mut restored = *complete;
            for key in lost {
                restored &= is_back(repo, key)?;
            }
            if restored {
                self.storage.remove_file(path).at(path)?;
            } else {
                report.packs_quarantined += 1;
                report.notes.push(format!("{}: kept", path.display()));
            }
        }
        let dir = quarantine(self.path);
        // Fails while anything is in it, which is what is wanted.
        if std::fs::remove_dir(&dir).is_err() {
            self.storage.sync_dir(&dir).at(&dir)?;
        }
        self.storage.sync_dir(self.path).at(self.path)
    }

    /// Brings parity files into the state that is asked for.
    pub(super) fn parity(
        &self,
        repo: &mut Repository,
        switch: Option<bool>,
        report: &mut RepairReport,
    ) -> Result<()> {
        let wanted = switch.unwrap_or_else(|| repo.has_parity());
        if !self.dry_run && wanted != repo.has_parity() {
            repo.set_parity(wanted)?;
        }
        let ids = repo.store().paths().present()?;
        if wanted || switch.is_some() {
            self.monitor.begin(Phase::Parity, Some(ids.len() as u64));
        }
        for id in ids {
            check_cancelled(self.monitor)?;
            self.monitor.advance(Phase::Parity, 1);
            let pack = self.pack(&id);
            let state = parity::check(&pack, id);
            match (wanted, state) {
                (true, Ok(false)) | (_, Err(Error::Corrupt { .. })) if switch != Some(false) => {
                    report.parity_made += 1;
                    if !self.dry_run {
                        parity::make(self.storage, &pack, id)?;
                    }
                }
                (false, Ok(true) | Err(Error::Corrupt { .. })) if switch == Some(false) => {
                    report.parity_deleted += 1;
                    if !self.dry_run {
                        let file = parity::path_of(&pack);
                        self.storage.remove_file(&file).at(&file)?;
                    }
                }
                (_, Err(error)) => return Err(error),
                _ => {}
            }
        }
        self.monitor.end(Phase::Parity);
        if !self.dry_run {
            let packs = self.path.join("packs");
            report.parity_deleted += parity::remove_orphans(self.storage, &packs)?;
        }
        Ok(())
    }
}

/// Whether an entry that was lost is there again, or what serves in its place.
fn is_back(repo: &Repository, key: &Key) -> Result<bool> {
    let key = match key.kind {
        // A cache, and a representation: the payload may be stored in another way.
        EntryKind::Import => return Ok(true),
        EntryKind::Recipe if repo.store().locate(key)?.is_none() => {
            Key::new(EntryKind::Payload, key.id)
        }
        _ => *key,
    };
    Ok(repo.store().locate(&key)?.is_some())
}

/// Another name for a damaged pack, so that its own is free.
fn alias(id: &PackId) -> PackId {
    let digest = Sha256::digest([b"moved".as_slice(), id.as_bytes()].concat());
    PackId::from_slice(&digest[..PackId::LEN]).expect("because a digest is long enough")
}

/// Whether a damaged file has sound blocks that its mended form has not.
fn has_foreign(damaged: &Path, mended: &Path, id: PackId) -> Result<bool> {
    let rows = PackReader::open(mended, id)?.footer()?;
    let own: HashSet<(u64, u64)> = rows
        .iter()
        .map(|row| (row.head_sum, row.data_sum))
        .collect();
    let (heads, _) = PackReader::open_damaged(damaged, id)?.scan()?;
    let sums = heads.iter().map(|h| (h.header.head_sum, h.header.data_sum));
    Ok(sums.into_iter().any(|sums| !own.contains(&sums)))
}

/// What the index knows of packs.
#[derive(Default)]
struct Places {
    by_pack: HashMap<PackId, Known>,
    /// Packs that hold bad entries.
    bad: HashSet<PackId>,
}

/// Gathers from the index where entries lie in packs that are damaged or hold bad entries.
fn places(repo: &Repository, bad: &HashSet<Key>) -> Result<Places> {
    let mut places = Places::default();
    let index = repo.store().index();
    let quick = |id: &PackId| {
        let pack = repo.store().pack(id);
        pack.and_then(|pack| pack.index_rows()).map(drop)
    };
    // Of packs whose tables are all in order nothing need be known.
    let unsure: HashSet<PackId> = index
        .present()
        .iter()
        .filter(|id| quick(id).is_err())
        .copied()
        .collect();
    if unsure.is_empty() && bad.is_empty() {
        return Ok(places);
    }
    index.for_each(&mut |key, at| {
        if bad.contains(key) {
            places.bad.insert(at.pack);
        }
        if unsure.contains(&at.pack) {
            let known = places.by_pack.entry(at.pack).or_default();
            let block = known.entry(u64::from(at.offset)).or_default();
            block.0 = at.block_len;
            block.1.insert(at.entry, *key);
        }
        Ok(())
    })?;
    Ok(places)
}

/// Checks a pack whole: footer and all blocks.
fn check(path: &Path, id: PackId, monitor: &dyn Monitor) -> Result<()> {
    use rayon::prelude::*;
    let pack = PackReader::open(path, id)?;
    let rows = pack.footer()?;
    rows.par_iter().try_for_each(|row| {
        monitor.advance(Phase::Verify, u64::from(row.block_len));
        pack.check_stored(row)
    })
}

/// Writes the sound part of a damaged pack to packs in the staging directory.
fn write(repo: &Repository, pack: &mut Damaged, staging: &OwnedDir) -> Result<Vec<StagedPack>> {
    let reader = PackReader::open_damaged(&pack.path, pack.id)?;
    let dir = staging.path().join(pack.id.to_string());
    std::fs::create_dir(&dir).at(&dir)?;
    let mut series = PackSeries::new("salvaged");
    for kept in std::mem::take(&mut pack.salvage.blocks) {
        series.append(repo, &dir, &kept.block(&reader, &pack.path)?)?;
    }
    series.finish()
}

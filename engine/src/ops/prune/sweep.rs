//! Copying what stays out of packs that go.

use std::collections::BTreeMap;
use std::path::Path;

use roaring::RoaringBitmap;

use super::judge::Judged;
use crate::compress::LEVEL;
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::OwnedDir;
use crate::id::PackId;
use crate::monitor::{Monitor, Phase};
use crate::ops::reach::{EntrySet, PackMap, Span};
use crate::pack::BlockClass;
use crate::pack::writer::{BlockBuilder, StagedPack};
use crate::repo::Repository;
use crate::repo::transaction::PackSeries;

/// Names of the packs of each round in the staging directory: payloads, metadata.
const ROUNDS: [(&str, &str); 4] = [
    ("data", "meta"),
    ("data-2", "meta-2"),
    ("data-3", "meta-3"),
    ("data-4", "meta-4"),
];

/// Copies in the staging directory.
#[derive(Debug)]
pub(super) struct Copies {
    staging: OwnedDir,
    rounds: usize,
    /// Copied so far, by the places of the originals.
    pub(super) done: EntrySet,
    pub(super) packs: Vec<StagedPack>,
}

impl Copies {
    pub(super) fn new(repo: &Repository) -> Result<Self> {
        let staging = OwnedDir::create(&repo.path().join("staging"))?;
        Ok(Self {
            staging,
            rounds: 0,
            done: EntrySet::default(),
            packs: Vec::new(),
        })
    }

    /// Copies those of these entries that lie in packs that go and were not copied yet. Gives
    /// how many there were.
    pub(super) fn copy(
        &mut self,
        repo: &Repository,
        going: &BTreeMap<PackId, Judged>,
        live: &EntrySet,
        monitor: &dyn Monitor,
    ) -> Result<u64> {
        let mut missing = EntrySet::default();
        for id in going.keys() {
            if let Some(entries) = live.of_pack(id) {
                missing.add(*id, entries);
            }
        }
        let missing = missing.without(&self.done);
        if missing.is_empty() {
            return Ok(0);
        }
        let names = ROUNDS
            .get(self.rounds)
            .expect("because there are as many rounds as names");
        self.rounds += 1;
        let mut round = Round {
            repo,
            staging: self.staging.path(),
            data: PackSeries::new(names.0),
            meta: PackSeries::new(names.1),
        };
        for (id, entries) in missing.packs() {
            if let Some(pack) = going.get(id) {
                round.pack(&pack.map, entries, monitor)?;
            }
            monitor.advance(Phase::Prune, 1);
        }
        self.packs.extend(round.data.finish()?);
        self.packs.extend(round.meta.finish()?);
        self.done.union(&missing);
        Ok(missing.len())
    }
}

struct Round<'r> {
    repo: &'r Repository,
    staging: &'r Path,
    data: PackSeries,
    meta: PackSeries,
}

impl Round<'_> {
    fn pack(
        &mut self,
        map: &PackMap,
        entries: &RoaringBitmap,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        for (span, count) in map.touched(entries) {
            if monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.block(map, span, entries, count == u64::from(span.entries))?;
        }
        Ok(())
    }

    fn block(
        &mut self,
        map: &PackMap,
        span: &Span,
        entries: &RoaringBitmap,
        whole: bool,
    ) -> Result<()> {
        // Metadata apart, as writers do it: payloads are not rewritten whenever a record dies.
        let series = match span.class {
            BlockClass::Meta => &mut self.meta,
            _ => &mut self.data,
        };
        let offset = u64::from(span.offset);
        let block = if whole {
            map.reader().verbatim(offset, span.block_len)?
        } else {
            let block = map.reader().block(offset, span.block_len)?;
            let mut builder = BlockBuilder::new(block.class);
            for (ordinal, entry) in span.ordinals().zip(&block.entries) {
                if entries.contains(ordinal) {
                    builder.push(entry.key, block.bytes(entry));
                }
            }
            match span.class {
                // Compressed already, entry by entry.
                BlockClass::Delta => builder.finish_raw(),
                _ => builder.finish(LEVEL).at(self.repo.path())?,
            }
        };
        series.append(self.repo, self.staging, &block)
    }
}

//! Writing the entries of packs anew.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::plan::Plan;
use crate::compress::{compress_with_prefix, decompress_with_prefix};
use crate::error::{Error, IoResultExt, Result};
use crate::fs::lock::OwnedDir;
use crate::id::{PackId, PayloadId};
use crate::index::ObjectIndex;
use crate::monitor::{Monitor, Phase};
use crate::pack::delta::{DELTA_TARGET, DeltaHead};
use crate::pack::recipe::Piece;
use crate::pack::writer::{BlockBuilder, StagedPack};
use crate::pack::{BlockClass, EntryKind, GROUPED_MAX, Key, META_TARGET};
use crate::repo::Repository;
use crate::repo::delta::Older;
use crate::repo::layout::LayoutKey;
use crate::repo::parts;
use crate::repo::parts::{InMemory, Part, Small, extents, small_parts};
use crate::repo::transaction::PackSeries;

/// Bytes of small payloads that are laid down together.
const WINDOW: usize = 24 << 20;
/// Extents that are recompressed at a time.
const EXTENTS_AT_ONCE: usize = 32;
/// Payloads above this size keep their form: they are not held in memory.
const TURNED_MAX: u64 = 64 << 20;

/// Copies entries into new packs in the staging directory.
pub(super) struct Rewriter<'r> {
    repo: &'r Repository,
    plan: &'r Plan,
    level: i32,
    /// Compress what keeps its form, too; else its blocks are copied.
    recompress: bool,
    monitor: &'r dyn Monitor,
    staging: OwnedDir,
    data: PackSeries,
    meta: PackSeries,
    records: BlockBuilder,
    objects: BlockBuilder,
}

/// The entries to be rewritten, by how.
#[derive(Default)]
struct Sorted {
    objects: Vec<Key>,
    /// Recipes, and deltas that stay.
    records: Vec<Key>,
    small: Vec<Key>,
    extents: Vec<Key>,
    /// Payloads that change their form.
    turned: BTreeMap<PayloadId, (u64, Option<Piece>)>,
}

impl<'r> Rewriter<'r> {
    pub(super) fn new(
        repo: &'r Repository,
        plan: &'r Plan,
        level: i32,
        recompress: bool,
        monitor: &'r dyn Monitor,
    ) -> Result<Self> {
        Ok(Self {
            repo,
            plan,
            level,
            recompress,
            monitor,
            staging: OwnedDir::create(&repo.path().join("staging"))?,
            data: PackSeries::new("data"),
            meta: PackSeries::new("meta"),
            records: BlockBuilder::new(BlockClass::Delta),
            objects: BlockBuilder::new(BlockClass::Meta),
        })
    }

    /// Writes all entries of these packs that the index finds there.
    pub(super) fn rewrite(&mut self, packs: &BTreeSet<PackId>) -> Result<()> {
        let sorted = self.sort(packs)?;
        self.turned(&sorted.turned)?;
        self.extents(&sorted.extents)?;
        self.small(sorted.small)?;
        self.records(&sorted.records)?;
        self.objects(&sorted.objects)
    }

    /// Makes the new packs durable.
    pub(super) fn finish(mut self) -> Result<(OwnedDir, Vec<StagedPack>)> {
        self.flush_records()?;
        self.flush_objects()?;
        let mut packs = self.data.finish()?;
        packs.extend(self.meta.finish()?);
        Ok((self.staging, packs))
    }

    fn sort(&self, packs: &BTreeSet<PackId>) -> Result<Sorted> {
        let index = self.repo.store().index();
        let mut sorted = Sorted::default();
        for id in packs {
            let reader = self.repo.store().pack(id)?;
            for row in reader.index_rows()? {
                let here = index.get(&row.key)?;
                if here
                    .is_none_or(|at| (at.pack, at.offset, at.entry) != (*id, row.offset, row.entry))
                {
                    continue;
                }
                let class = reader.class_at(row.offset)?;
                self.sort_one(&mut sorted, row.key, class);
            }
        }
        Ok(sorted)
    }

    fn sort_one(&self, sorted: &mut Sorted, key: Key, class: BlockClass) {
        let payload = key.payload();
        match key.kind {
            EntryKind::Recipe => sorted.records.push(key),
            EntryKind::Payload => {
                let turned = self.plan.plain.get(&payload).map(|size| (*size, None));
                let turned = turned.or_else(|| {
                    let (size, base) = self.plan.deltas.get(&payload)?;
                    Some((*size, Some(*base)))
                });
                // Extents keep their order and their neighbours.
                match (turned, class) {
                    (Some(form), _) if form.0 <= TURNED_MAX => {
                        sorted.turned.insert(payload, form);
                    }
                    (_, BlockClass::Delta) => sorted.records.push(key),
                    (_, BlockClass::Group) => sorted.small.push(key),
                    _ => sorted.extents.push(key),
                }
            }
            _ => sorted.objects.push(key),
        }
    }

    fn check_cancelled(&self) -> Result<()> {
        if self.monitor.is_cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    fn how(&self) -> How<'r> {
        How {
            repo: self.repo,
            level: self.level,
            recompress: self.recompress,
        }
    }

    /// Payloads that become plain, or deltas to another base.
    fn turned(&mut self, turned: &BTreeMap<PayloadId, (u64, Option<Piece>)>) -> Result<()> {
        let mut small = Vec::new();
        let mut held = 0;
        for (id, (size, base)) in turned {
            self.check_cancelled()?;
            let mut bytes = vec![0; *size as usize];
            self.repo.store().read_payload(id, *size, 0, &mut bytes)?;
            if PayloadId::of(&bytes) != *id {
                return Err(Error::Corrupt {
                    path: self.repo.path().to_owned(),
                    detail: format!("payload {id} does not match its checksum"),
                });
            }
            held += bytes.len();
            let payload = InMemory {
                id: *id,
                bytes,
                base: base.map(Older::from),
            };
            if *size <= GROUPED_MAX {
                small.push(self.as_small(payload));
            } else {
                held -= payload.bytes.len();
                let parts = extents(self.repo.store(), &[payload], self.level);
                self.append(parts.at(self.repo.path())?)?;
            }
            if held >= WINDOW {
                held = 0;
                self.group(std::mem::take(&mut small))?;
            }
        }
        self.group(small)
    }

    fn as_small(&self, payload: InMemory) -> Small {
        let path = self
            .plan
            .known
            .get(&payload.id)
            .map_or("", |known| &known.path);
        Small {
            order: LayoutKey::new(path.as_bytes(), 0),
            payload,
        }
    }

    fn group(&mut self, small: Vec<Small>) -> Result<()> {
        let parts = small_parts(self.repo.store(), small, self.level);
        self.append(parts.at(self.repo.path())?)
    }

    /// Extents that stay plain.
    fn extents(&mut self, keys: &[Key]) -> Result<()> {
        let how = self.how();
        for keys in keys.chunks(EXTENTS_AT_ONCE) {
            self.check_cancelled()?;
            let parts: Vec<Part> = keys
                .par_iter()
                .map(|key| how.extent(key))
                .collect::<Result<_>>()?;
            self.append(parts)?;
        }
        Ok(())
    }

    /// Small payloads that stay plain, like next to like.
    fn small(&mut self, keys: Vec<Key>) -> Result<()> {
        let mut ordered: Vec<(LayoutKey, usize, Key)> = Vec::with_capacity(keys.len());
        for (n, key) in keys.into_iter().enumerate() {
            let known = self.plan.known.get(&key.payload());
            let path = known.map_or(&b""[..], |known| known.path.as_bytes());
            ordered.push((LayoutKey::new(path, n as u32), n, key));
        }
        if !self.plan.known.is_empty() {
            ordered.sort_unstable();
        }
        let mut window = Vec::new();
        let mut held = 0;
        for (order, _, key) in ordered {
            let bytes = self.how().bytes(&key)?;
            held += bytes.len();
            let payload = InMemory {
                id: key.payload(),
                bytes,
                base: None,
            };
            window.push(Small { order, payload });
            if held >= WINDOW {
                held = 0;
                self.check_cancelled()?;
                self.group(std::mem::take(&mut window))?;
            }
        }
        self.group(window)
    }

    /// Recipes and deltas that stay.
    fn records(&mut self, keys: &[Key]) -> Result<()> {
        let how = self.how();
        for keys in keys.chunks(64) {
            self.check_cancelled()?;
            let records: Vec<Vec<u8>> = keys
                .par_iter()
                .map(|key| how.record(key))
                .collect::<Result<_>>()?;
            for (key, record) in keys.iter().zip(records) {
                self.push_record(*key, &record)?;
            }
        }
        Ok(())
    }

    /// Objects, records of files and imports.
    fn objects(&mut self, keys: &[Key]) -> Result<()> {
        for key in keys {
            let found = self.repo.store().get(key)?;
            let found = found.ok_or_else(|| Error::Corrupt {
                path: self.repo.path().to_owned(),
                detail: "an entry vanished while packs were rewritten".to_owned(),
            })?;
            if self.objects.is_full(META_TARGET, found.bytes().len()) {
                self.check_cancelled()?;
                self.flush_objects()?;
            }
            self.objects.push(*key, found.bytes());
        }
        Ok(())
    }

    fn append(&mut self, parts: Vec<Part>) -> Result<()> {
        for part in parts {
            match part {
                Part::Plain(block) => {
                    self.advance(block.stored_len());
                    self.data.append(self.repo, self.staging.path(), &block)?;
                }
                Part::Delta(key, record) => self.push_record(key, &record)?,
            }
        }
        Ok(())
    }

    fn advance(&self, bytes: usize) {
        self.monitor.advance(Phase::Repack, bytes as u64);
    }

    fn push_record(&mut self, key: Key, record: &[u8]) -> Result<()> {
        if self.records.is_full(DELTA_TARGET, record.len()) {
            self.flush_records()?;
        }
        self.advance(record.len());
        self.records.push(key, record);
        Ok(())
    }

    fn flush_records(&mut self) -> Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let empty = BlockBuilder::new(BlockClass::Delta);
        let block = std::mem::replace(&mut self.records, empty).finish_raw();
        self.data.append(self.repo, self.staging.path(), &block)
    }

    fn flush_objects(&mut self) -> Result<()> {
        if self.objects.is_empty() {
            return Ok(());
        }
        let empty = BlockBuilder::new(BlockClass::Meta);
        let builder = std::mem::replace(&mut self.objects, empty);
        let block = builder.finish(self.level).at(self.repo.path())?;
        self.advance(block.stored_len());
        self.meta.append(self.repo, self.staging.path(), &block)
    }
}

/// How entries that keep their form are written anew.
#[derive(Clone, Copy)]
struct How<'r> {
    repo: &'r Repository,
    level: i32,
    recompress: bool,
}

impl How<'_> {
    fn bytes(&self, key: &Key) -> Result<Vec<u8>> {
        let found = self.repo.store().get(key)?;
        let found = found.ok_or(Error::MissingPayload { id: key.payload() })?;
        Ok(found.bytes().to_vec())
    }

    fn extent(&self, key: &Key) -> Result<Part> {
        if !self.recompress
            && let Some(at) = self.repo.store().locate(key)?
        {
            let pack = self.repo.store().pack(&at.pack)?;
            let block = pack.verbatim(u64::from(at.offset), at.block_len)?;
            return Ok(Part::Plain(block));
        }
        let bytes = self.bytes(key)?;
        let block = parts::extent(&key.payload(), key.part, &bytes, self.level);
        block.map(Part::Plain).at(self.repo.path())
    }

    fn record(&self, key: &Key) -> Result<Vec<u8>> {
        let store = self.repo.store();
        let found = store.get_stored(key)?;
        let (_, found) = found.ok_or(Error::MissingPayload { id: key.payload() })?;
        let record = found.bytes().to_vec();
        if key.kind == EntryKind::Recipe || !self.recompress {
            return Ok(record);
        }
        let Ok((head, frame)) = DeltaHead::decode(&record) else {
            return Ok(record);
        };
        let mut window = vec![0; head.window as usize];
        store.read_payload(&head.base, head.base_size, head.offset, &mut window)?;
        let anew = || -> std::io::Result<Option<Vec<u8>>> {
            let mut raw = vec![0; head.raw_len as usize];
            decompress_with_prefix(frame, &window, &mut raw)?;
            let new = compress_with_prefix(&raw, &window, self.level)?;
            Ok((new.len() < frame.len()).then_some(new))
        };
        let smaller = anew().at(self.repo.path())?;
        Ok(smaller.map_or(record, |new| head.encode(&new)))
    }
}

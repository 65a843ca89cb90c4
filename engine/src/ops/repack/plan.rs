//! Which payloads change their form: the newest of each family becomes plain.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind, PackId, PayloadId};
use crate::monitor::{Monitor, Phase};
use crate::pack::delta::DeltaHead;
use crate::pack::recipe::{Piece, Recipe};
use crate::pack::{BlockClass, EntryKind};
use crate::repo::Repository;
use crate::store::payload::{part_key, recipe_key};
use crate::tree::MAX_DEPTH;

/// What a payload is known by: its size, how new it is, and where it was found.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) size: u64,
    /// 0 in the newest commit, 1 in the one before it, and so on.
    age: u32,
    pub(super) path: Box<str>,
}

/// What becomes of payloads; those not named keep their form.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// To be stored plain.
    pub(super) plain: BTreeMap<PayloadId, u64>,
    /// To be stored as deltas to these.
    pub(super) deltas: HashMap<PayloadId, (u64, Piece)>,
    /// Where payloads were found, for the order in which they are laid down.
    pub(super) known: HashMap<PayloadId, Known>,
}

impl Plan {
    /// Makes the newest version of each file the plain one.
    pub(super) fn newest_plain(repo: &Repository, monitor: &dyn Monitor) -> Result<Self> {
        monitor.begin(Phase::Scan, None);
        let mut plan = Self {
            known: survey(repo, monitor)?,
            ..Self::default()
        };
        for (base, members) in families(repo)? {
            plan.turn_round(repo, base, &members)?;
        }
        monitor.end(Phase::Scan);
        Ok(plan)
    }

    /// Decides about a base and the deltas that are made against it.
    fn turn_round(
        &mut self,
        repo: &Repository,
        base: Piece,
        members: &BTreeSet<PayloadId>,
    ) -> Result<()> {
        let age = |id: &PayloadId| self.known.get(id).map_or(u32::MAX, |known| known.age);
        let newest = members.iter().min_by_key(|id| (age(id), **id)).copied();
        let Some(newest) = newest.filter(|id| age(id) < age(&base.id)) else {
            return Ok(());
        };
        // A base that is put together of pieces stays: its pieces would not become deltas.
        if repo.store().locate(&part_key(&base.id, 0))?.is_none() {
            return Ok(());
        }
        let size = |id: &PayloadId| self.known.get(id).map(|known| known.size);
        let Some(new_size) = size(&newest) else {
            return Ok(());
        };
        let new_base = Piece {
            id: newest,
            size: new_size,
        };
        let others = members.iter().filter(|id| **id != newest);
        let sizes = others.map(|id| size(id).map(|size| (*id, size)));
        let Some(mut turned) = sizes.collect::<Option<Vec<_>>>() else {
            // A member that no commit holds any more: a prune takes it away first.
            return Ok(());
        };
        turned.push((base.id, base.size));
        self.plain.insert(newest, new_size);
        let rows = turned.into_iter().map(|(id, size)| (id, (size, new_base)));
        self.deltas.extend(rows);
        Ok(())
    }

    /// The packs that hold deltas which are to become plain.
    pub(super) fn packs_of_deltas(&self, repo: &Repository) -> Result<BTreeSet<PackId>> {
        let mut packs = BTreeSet::new();
        for (id, size) in &self.plain {
            for key in crate::store::payload::part_keys(id, *size) {
                packs.extend(repo.store().locate(&key)?.map(|at| at.pack));
            }
        }
        Ok(packs)
    }

    /// Whether packs that came after the plan was made hold deltas to what becomes one itself.
    pub(super) fn is_overtaken(&self, repo: &Repository, packs: &[PackId]) -> Result<bool> {
        for id in packs {
            let mut found = false;
            for_each_delta(repo, id, |_, head| {
                found |= self.deltas.contains_key(&head.base);
            })?;
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The payloads that are deltas, by their bases.
fn families(repo: &Repository) -> Result<HashMap<Piece, BTreeSet<PayloadId>>> {
    let mut families: HashMap<Piece, BTreeSet<PayloadId>> = HashMap::new();
    for id in repo.store().index().present() {
        for_each_delta(repo, id, |payload, head| {
            let base = Piece {
                id: head.base,
                size: head.base_size,
            };
            families.entry(base).or_default().insert(payload);
        })?;
    }
    // Payloads whose extents have different bases, or that are bases as well, stay as they are, and
    // with them their families.
    let mut seen: HashMap<PayloadId, u32> = HashMap::new();
    for (base, members) in &families {
        *seen.entry(base.id).or_default() += 1;
        for id in members {
            *seen.entry(*id).or_default() += 1;
        }
    }
    families.retain(|base, members| seen[&base.id] == 1 && members.iter().all(|id| seen[id] == 1));
    Ok(families)
}

fn for_each_delta(
    repo: &Repository,
    pack: &PackId,
    mut found: impl FnMut(PayloadId, &DeltaHead),
) -> Result<()> {
    let reader = repo.store().pack(pack)?;
    for row in reader.footer()? {
        if row.class != BlockClass::Delta {
            continue;
        }
        let block = reader.block(row.offset, row.block_len)?;
        for entry in &block.entries {
            if entry.key.kind != EntryKind::Payload {
                continue;
            }
            if let Ok((head, _)) = DeltaHead::decode(block.bytes(entry)) {
                found(entry.key.payload(), &head);
            }
        }
    }
    Ok(())
}

/// Walks all commits, the newest first; shared directories once.
fn survey(repo: &Repository, monitor: &dyn Monitor) -> Result<HashMap<PayloadId, Known>> {
    let mut commits = Vec::new();
    for id in repo.commits()? {
        let commit = repo.commit(&id)?;
        commits.push((commit.timestamp, id, commit.tree));
    }
    // A child is newer than its parent even when their timestamps are equal.
    let depth = |id: &ObjectId| generation(repo, id);
    commits.sort_by_cached_key(|(time, id, _)| (*time, depth(id), *id));
    let mut known = HashMap::new();
    let mut seen = HashSet::new();
    for (age, (.., tree)) in commits.iter().rev().enumerate() {
        let mut todo = vec![(*tree, String::new(), 0)];
        while let Some((id, path, depth)) = todo.pop() {
            if !seen.insert(id) || depth > MAX_DEPTH {
                continue;
            }
            if monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let listing = repo.dirtree(&id)?;
            for (name, file) in &listing.files {
                let file = repo.file(file)?;
                monitor.advance(Phase::Scan, 1);
                if let Some(payload) = file.payload {
                    let piece = Piece {
                        id: payload,
                        size: file.size,
                    };
                    add(
                        repo,
                        &mut known,
                        piece,
                        age as u32,
                        &format!("{path}{name}"),
                    )?;
                }
            }
            let below = |name: &str| format!("{path}{name}/");
            todo.extend(
                listing
                    .dirs
                    .iter()
                    .map(|d| (d.tree, below(&d.name), depth + 1)),
            );
        }
    }
    Ok(known)
}

/// How many commits lead to one.
fn generation(repo: &Repository, id: &ObjectId) -> u32 {
    let mut count = 0;
    let mut next = Some(*id);
    while let Some(id) = next
        && repo.contains(ObjectKind::Commit, &id).unwrap_or(false)
    {
        count += 1;
        next = repo.commit(&id).ok().and_then(|commit| commit.parent);
    }
    count
}

/// Notes a payload, and those that it is made of.
fn add(
    repo: &Repository,
    known: &mut HashMap<PayloadId, Known>,
    first: Piece,
    age: u32,
    path: &str,
) -> Result<()> {
    let mut todo = vec![first];
    while let Some(piece) = todo.pop() {
        if known.contains_key(&piece.id) {
            continue;
        }
        let entry = Known {
            size: piece.size,
            age,
            path: path.into(),
        };
        known.insert(piece.id, entry);
        if repo.store().locate(&part_key(&piece.id, 0))?.is_none()
            && let Some((_, found)) = repo.store().get_stored(&recipe_key(&piece.id))?
            && let Ok(recipe) = Recipe::decode(found.bytes())
        {
            todo.extend(recipe.pieces());
        }
    }
    Ok(())
}

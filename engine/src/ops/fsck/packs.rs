//! Packs: their footers, the checksums of their blocks, and what damage to them takes away.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::problem::{Problem, ProblemKind};
use crate::error::{Error, Result};
use crate::id::PackId;
use crate::index::ObjectIndex;
use crate::monitor::{Monitor, Phase};
use crate::pack::Key;
use crate::pack::parity;
use crate::pack::reader::PackReader;
use crate::repo::Repository;

/// A block as a footer or a scan tells of it.
struct Place {
    offset: u64,
    len: u32,
}

/// Opens a pack and reads its footer.
pub(super) fn check_footer(repo: &Repository, id: &PackId) -> Option<Problem> {
    let read = repo.store().pack(id).and_then(|pack| pack.footer());
    let error = read.err()?;
    Some(Problem::of(ProblemKind::Pack, &error).in_pack(*id, None))
}

/// Reads every block of a pack, and its parity file. Problems have no keys yet where only the
/// index can know them.
pub(super) fn check_blocks(
    repo: &Repository,
    id: &PackId,
    monitor: &dyn Monitor,
) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let pack_problem = |error: &Error| Problem::of(ProblemKind::Pack, error).in_pack(*id, None);
    let pack = match repo.store().pack(id) {
        Ok(pack) => pack,
        Err(error) => return Ok(vec![pack_problem(&error)]),
    };
    let found = match pack.footer() {
        Ok(rows) => check_rows(&pack, id, &rows, monitor)?,
        Err(error) => {
            problems.push(pack_problem(&error));
            check_scanned(&pack, id, monitor)?
        }
    };
    problems.extend(found);
    if let Err(error) = parity::check(&repo.store().paths().pack(id), *id) {
        problems.push(Problem::of(ProblemKind::Parity, &error).in_pack(*id, None));
    }
    Ok(problems)
}

fn check_rows(
    pack: &PackReader,
    id: &PackId,
    rows: &[crate::pack::FooterRow],
    monitor: &dyn Monitor,
) -> Result<Vec<Problem>> {
    let check = |row: &crate::pack::FooterRow| {
        if monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let checked = pack.check_stored(row);
        monitor.advance(Phase::Verify, u64::from(row.block_len));
        let place = Place {
            offset: row.offset,
            len: row.block_len,
        };
        Ok(checked
            .err()
            .map(|error| block_problem(pack, id, &place, &error)))
    };
    let found: Result<Vec<Option<Problem>>> = rows.par_iter().map(check).collect();
    Ok(found?.into_iter().flatten().collect())
}

fn check_scanned(pack: &PackReader, id: &PackId, monitor: &dyn Monitor) -> Result<Vec<Problem>> {
    let heads = match pack.scan() {
        Ok((heads, _)) => heads,
        Err(error) => {
            return Ok(vec![
                Problem::of(ProblemKind::Pack, &error).in_pack(*id, None),
            ]);
        }
    };
    let mut problems = Vec::new();
    for head in heads {
        if monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let place = Place {
            offset: head.offset,
            len: head.header.block_len() as u32,
        };
        if let Err(error) = pack.verbatim(place.offset, place.len) {
            problems.push(block_problem(pack, id, &place, &error));
        }
        monitor.advance(Phase::Verify, u64::from(place.len));
    }
    Ok(problems)
}

fn block_problem(pack: &PackReader, id: &PackId, place: &Place, error: &Error) -> Problem {
    let problem = Problem::of(ProblemKind::Block, error).in_pack(*id, Some(place.offset));
    match pack.head(place.offset) {
        Ok(head) => problem.about(head.entries.iter().map(|entry| entry.key).collect()),
        Err(_) => problem,
    }
}

/// Gives problems of packs and blocks whose entries could not be read the keys that the index
/// knows to lie there.
pub(super) fn keys_from_index(repo: &Repository, problems: &mut [Problem]) -> Result<()> {
    let mut wanted: HashMap<PackId, BTreeMap<u64, Vec<Key>>> = HashMap::new();
    let lacks_keys = |problem: &Problem| {
        matches!(problem.kind, ProblemKind::Block | ProblemKind::Pack) && problem.keys.is_empty()
    };
    for problem in problems.iter().filter(|problem| lacks_keys(problem)) {
        wanted.extend(problem.pack.map(|pack| (pack, BTreeMap::new())));
    }
    if wanted.is_empty() {
        return Ok(());
    }
    repo.store().index().for_each(&mut |key, at| {
        if let Some(blocks) = wanted.get_mut(&at.pack) {
            blocks.entry(u64::from(at.offset)).or_default().push(*key);
        }
        Ok(())
    })?;
    for problem in problems.iter_mut().filter(|problem| lacks_keys(problem)) {
        let Some(id) = problem.pack else { continue };
        let Some(blocks) = wanted.get(&id) else {
            continue;
        };
        problem.keys = match problem.offset {
            Some(offset) => blocks.get(&offset).cloned().unwrap_or_default(),
            // With only its footer damaged, nothing of a pack is lost.
            None if repo.store().pack(&id).is_ok() => Vec::new(),
            None => blocks.values().flatten().copied().collect(),
        };
    }
    Ok(())
}

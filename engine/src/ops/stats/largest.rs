//! The contents that take the most space.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::survey::{PayloadRow, Survey};
use crate::error::Result;
use crate::id::{ObjectId, PayloadId};
use crate::ops::reach::Reached;
use crate::repo::Repository;

/// How many are told.
const COUNT: usize = 10;

/// A payload that takes much space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargePayload {
    /// Its name.
    pub payload: PayloadId,
    /// Its bytes.
    pub size: u64,
    /// What it takes, with the pieces that it is made of.
    pub stored_bytes: u64,
    /// In how many commits it is.
    pub commits: u64,
    /// Where it is in the latest of them; several paths can have it.
    pub path: String,
}

/// Finds them; `commits` come with the latest first.
pub(super) fn largest(
    repo: &Repository,
    survey: &Survey,
    payloads: &HashMap<PayloadId, u64>,
    commits: &[(ObjectId, Arc<Reached>)],
) -> Result<Vec<LargePayload>> {
    let mut rows: Vec<_> = payloads
        .iter()
        .filter_map(|(id, size)| {
            let row = survey.payloads.get(id)?;
            Some((row, *id, *size, with_pieces(survey, row)))
        })
        .collect();
    rows.sort_unstable_by_key(|(_, id, size, stored)| (std::cmp::Reverse((*stored, *size)), *id));
    rows.truncate(COUNT);
    let mut found: Vec<LargePayload> = rows
        .iter()
        .map(|(row, payload, size, stored)| {
            let holds = |reached: &Reached| {
                let at = row.first;
                at.is_some_and(|(pack, ordinal)| reached.entries.contains(&pack, ordinal))
            };
            let holders = commits.iter().filter(|(_, reached)| holds(reached));
            LargePayload {
                payload: *payload,
                size: *size,
                stored_bytes: *stored,
                commits: holders.count() as u64,
                path: String::new(),
            }
        })
        .collect();
    name(repo, survey, commits, &mut found)?;
    Ok(found)
}

/// What a payload takes with all that it is made of, who else is made of that, too.
fn with_pieces(survey: &Survey, row: &PayloadRow) -> u64 {
    let mut sum = 0;
    let mut todo = vec![row];
    let mut seen = HashSet::new();
    while let Some(row) = todo.pop() {
        sum += row.stored();
        let pieces = row.recipe.iter().flat_map(|recipe| &recipe.pieces);
        let new = pieces.filter(|piece| seen.insert(piece.id));
        todo.extend(new.filter_map(|piece| survey.payloads.get(&piece.id)));
    }
    sum
}

/// Looks for a path of each, tree by tree, until all have one.
fn name(
    repo: &Repository,
    survey: &Survey,
    commits: &[(ObjectId, Arc<Reached>)],
    found: &mut [LargePayload],
) -> Result<()> {
    let places = found.iter().enumerate().map(|(n, row)| (row.payload, n));
    let places: HashMap<PayloadId, usize> = places.collect();
    let files = survey.files.iter();
    let wanted = files.filter_map(|file| Some((file.id, *places.get(&file.payload?)?)));
    let wanted: HashMap<ObjectId, usize> = wanted.collect();
    let mut left = found.len();
    let mut seen = HashSet::new();
    for (id, _) in commits {
        let mut todo = vec![(repo.commit(id)?.tree, String::new())];
        while let Some((tree, path)) = todo.pop() {
            if left == 0 {
                return Ok(());
            }
            if !seen.insert(tree) {
                continue;
            }
            let listing = repo.dirtree(&tree)?;
            for (name, file) in &listing.files {
                let row = wanted.get(file).and_then(|n| found.get_mut(*n));
                if let Some(row) = row.filter(|row| row.path.is_empty()) {
                    row.path = format!("{path}/{name}");
                    left -= 1;
                }
            }
            let dirs = listing.dirs.iter().rev();
            todo.extend(dirs.map(|dir| (dir.tree, format!("{path}/{}", dir.name))));
        }
    }
    Ok(())
}

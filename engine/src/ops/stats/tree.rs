//! Where in the tree of a commit the stored bytes are.

use std::collections::HashSet;

use super::survey::Survey;
use crate::error::Result;
use crate::id::{ObjectId, PayloadId};
use crate::repo::Repository;

/// A row stands for at least this part of all stored bytes; what is smaller is counted with its
/// directory.
const SMALLEST: u64 = 4000;

/// A directory of a commit's tree, or a file that takes much space.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeRow {
    /// The row of the directory that it is in, which comes before it; the root's is its own.
    pub parent: usize,
    /// Its name; the root's is empty.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Files in it, at whatever depth; of a file, 1.
    pub files: u64,
    /// Their bytes, each path counted.
    pub logical_bytes: u64,
    /// What their contents take; contents that several files have are counted at the first one.
    pub stored_bytes: u64,
}

/// Measures the tree of a commit. Directories and files of little weight have no rows, so there
/// are at most some thousands.
pub(super) fn tree(repo: &Repository, survey: &Survey, commit: &ObjectId) -> Result<Vec<TreeRow>> {
    let mut rows = vec![TreeRow {
        is_dir: true,
        ..TreeRow::default()
    }];
    let mut todo = vec![(0, repo.commit(commit)?.tree)];
    let mut seen = HashSet::new();
    while let Some((row, tree)) = todo.pop() {
        let listing = repo.dirtree(&tree)?;
        for (name, id) in &listing.files {
            let Some((payload, size)) = survey.file(id) else {
                continue;
            };
            rows.push(TreeRow {
                parent: row,
                name: name.clone(),
                is_dir: false,
                files: 1,
                logical_bytes: size,
                stored_bytes: payload.map_or(0, |id| weigh(survey, id, &mut seen)),
            });
        }
        for dir in &listing.dirs {
            todo.push((rows.len(), dir.tree));
            rows.push(TreeRow {
                parent: row,
                name: dir.name.clone(),
                is_dir: true,
                ..TreeRow::default()
            });
        }
    }
    add_up(&mut rows);
    Ok(without_small(rows))
}

/// What a payload takes with the pieces that it is made of, but for those that were weighed before.
fn weigh(survey: &Survey, payload: PayloadId, seen: &mut HashSet<PayloadId>) -> u64 {
    let mut sum = 0;
    let mut todo = vec![payload];
    while let Some(id) = todo.pop() {
        let Some(row) = survey.payloads.get(&id).filter(|_| seen.insert(id)) else {
            continue;
        };
        sum += row.stored();
        let pieces = row.recipe.iter().flat_map(|recipe| &recipe.pieces);
        todo.extend(pieces.map(|piece| piece.id));
    }
    sum
}

/// Adds each row to those that it is in. What is in a directory comes after it.
fn add_up(rows: &mut [TreeRow]) {
    for at in (1..rows.len()).rev() {
        let (above, below) = rows.split_at_mut(at);
        let (Some(row), true) = (below.first(), at > 0) else {
            continue;
        };
        if let Some(parent) = above.get_mut(row.parent) {
            parent.files += row.files;
            parent.logical_bytes = parent.logical_bytes.saturating_add(row.logical_bytes);
            parent.stored_bytes += row.stored_bytes;
        }
    }
}

fn without_small(rows: Vec<TreeRow>) -> Vec<TreeRow> {
    let least = rows.first().map_or(0, |root| root.stored_bytes) / SMALLEST;
    let mut places = Vec::with_capacity(rows.len());
    let mut kept: Vec<TreeRow> = Vec::new();
    for (at, mut row) in rows.into_iter().enumerate() {
        let parent = places.get(row.parent).copied().flatten();
        let is_root = at == 0;
        let keep = is_root || parent.is_some() && row.stored_bytes > least;
        places.push(keep.then_some(kept.len()));
        if keep {
            row.parent = parent.unwrap_or_default();
            kept.push(row);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(parent: usize, name: &str, stored_bytes: u64) -> TreeRow {
        TreeRow {
            parent,
            name: name.to_owned(),
            is_dir: name.ends_with('/'),
            files: u64::from(!name.ends_with('/')),
            logical_bytes: 2 * stored_bytes,
            stored_bytes,
        }
    }

    #[test]
    fn directories_have_the_sum_of_what_is_in_them() {
        let mut rows = vec![
            row(0, "/", 0),
            row(0, "file", 5),
            row(0, "usr/", 0),
            row(2, "lib/", 0),
            row(3, "libc", 100),
        ];
        add_up(&mut rows);
        let sums: Vec<_> = rows
            .iter()
            .map(|row| (row.files, row.stored_bytes))
            .collect();
        assert_eq!(sums, [(2, 105), (1, 5), (1, 100), (1, 100), (1, 100)]);
    }

    #[test]
    fn small_rows_are_left_out_with_all_that_is_in_them() {
        let mut rows = vec![
            row(0, "/", 0),
            row(0, "small/", 0),
            row(1, "a", 1),
            row(0, "large/", 0),
            row(3, "b", 1_000_000),
            row(3, "c", 2),
        ];
        add_up(&mut rows);
        let kept = without_small(rows);
        let names: Vec<_> = kept
            .iter()
            .map(|row| (row.parent, row.name.as_str()))
            .collect();
        assert_eq!(names, [(0, "/"), (0, "large/"), (1, "b")]);
        assert_eq!(kept[0].stored_bytes, 1_000_003, "they are still counted");
    }
}

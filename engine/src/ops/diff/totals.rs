//! Sums of a comparison: of all of it, and of what is below each directory.

use std::collections::BTreeMap;

use super::report::{DiffReport, Event};

/// Sums of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries that are in both trees at the same path.
    pub modified: u64,
    /// Those of them with another type or content.
    pub modified_content: u64,
    /// Entries that are gone.
    pub removed: u64,
    /// New entries.
    pub added: u64,
    /// Entries that are at another path.
    pub moved: u64,
    /// Those of them with another content.
    pub moved_content: u64,
    /// Bytes of entries with another type or content, in the first tree.
    pub modified_before_bytes: u64,
    /// The same in the second tree.
    pub modified_after_bytes: u64,
    /// Bytes of removed files.
    pub removed_bytes: u64,
    /// Bytes of new files.
    pub added_bytes: u64,
    /// Bytes of moved files in the first tree.
    pub moved_before_bytes: u64,
    /// The same in the second tree.
    pub moved_after_bytes: u64,
}

impl Totals {
    /// Counts an event.
    pub fn add(&mut self, event: &Event<'_>) {
        let size = |info: Option<&super::Info>| info.map_or(0, |info| info.size);
        let (before, after) = (size(event.before()), size(event.after()));
        let content = event.aspects().is_some_and(|a| a.content || a.kind);
        match (event.from, event.to, event.moved) {
            (_, _, Some(_)) => {
                self.moved += 1;
                self.moved_content += u64::from(content);
                self.moved_before_bytes += before;
                self.moved_after_bytes += after;
            }
            (None, _, None) => {
                self.added += 1;
                self.added_bytes += after;
            }
            (_, None, None) => {
                self.removed += 1;
                self.removed_bytes += before;
            }
            (Some(_), Some(_), None) => {
                self.modified += 1;
                if content {
                    self.modified_content += 1;
                    self.modified_before_bytes += before;
                    self.modified_after_bytes += after;
                }
            }
        }
    }

    /// Bytes in the first tree of everything that is not the same in both.
    pub fn before_bytes(&self) -> u64 {
        self.modified_before_bytes + self.removed_bytes + self.moved_before_bytes
    }

    /// The same in the second tree.
    pub fn after_bytes(&self) -> u64 {
        self.modified_after_bytes + self.added_bytes + self.moved_after_bytes
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.modified + self.removed + self.added + self.moved
    }
}

impl DiffReport {
    /// Sums of everything.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.events().iter().for_each(|event| totals.add(event));
        totals
    }

    /// Sums for directories `depth` levels below the root; an event above that level belongs to the
    /// directory that it is in. What moved counts where it is now.
    pub fn by_directory(&self, depth: usize) -> BTreeMap<String, Totals> {
        let mut sums: BTreeMap<String, Totals> = BTreeMap::new();
        for event in self.events() {
            let dir = directory(event.path(), depth);
            match sums.get_mut(dir) {
                Some(totals) => totals.add(&event),
                None => sums.entry(dir.to_owned()).or_default().add(&event),
            }
        }
        sums
    }
}

/// The directory that a path is in, cut to a depth.
fn directory(path: &str, depth: usize) -> &str {
    let parent = path.rfind('/').unwrap_or(0);
    let starts = path.match_indices('/').map(|(at, _)| at);
    let end = starts
        .skip(1)
        .nth(depth.saturating_sub(1))
        .unwrap_or(parent);
    match path.get(..if depth == 0 { 0 } else { end.min(parent) }) {
        None | Some("") => "/",
        Some(dir) => dir,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_directory_it_is_in() {
        for (path, depth, dir) in [
            ("/", 2, "/"),
            ("/a", 2, "/"),
            ("/a/b", 2, "/a"),
            ("/a/b/c", 2, "/a/b"),
            ("/a/b/c/d", 2, "/a/b"),
            ("/a/b/c/d", 1, "/a"),
            ("/a/b/c/d", 9, "/a/b/c"),
            ("/a/b/c/d", 0, "/"),
        ] {
            assert_eq!(directory(path, depth), dir, "{path} {depth}");
        }
    }
}

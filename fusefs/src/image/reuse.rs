//! Copying directories that have not changed out of the image of another commit.

use std::collections::HashMap;
use std::sync::Arc;

use grove_engine::ObjectId;

use super::rows::Rows;
use super::{BadImage, Image, Result, Set};

/// The image of another commit, as a source of directories.
#[derive(Debug)]
pub(super) struct Base {
    image: Arc<Image>,
    by_tree: HashMap<ObjectId, u32>,
    /// The beginnings of the names of the files' payloads.
    payloads: Vec<Option<u64>>,
    /// The sets that its sets have become in the new image.
    sets: HashMap<u32, u32>,
}

impl Base {
    pub(super) fn new(image: Arc<Image>) -> Result<Self> {
        let mut by_tree = HashMap::with_capacity(image.dirs() as usize);
        for dir in 0..image.dirs() {
            by_tree.entry(image.tree(dir)?).or_insert(dir);
        }
        let mut payloads = vec![None; image.files() as usize];
        image.for_each_payload(|beginning, file| {
            if let Some(payload) = payloads.get_mut(file as usize) {
                *payload = Some(beginning);
            }
        })?;
        Ok(Self {
            image,
            by_tree,
            payloads,
            sets: HashMap::new(),
        })
    }

    /// A directory with this listing.
    pub(super) fn find(&self, tree: &ObjectId) -> Option<u32> {
        self.by_tree.get(tree).copied()
    }

    /// Number of directories, and of files.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.image.dirs() as usize, self.image.files() as usize)
    }

    /// Adds a directory, under another name and with other attributes, and all that is below it.
    pub(super) fn copy(
        &mut self,
        from: u32,
        row: [u32; 2],
        name: &str,
        rows: &mut Rows,
    ) -> Result<()> {
        let to = rows.dirs();
        let image = Arc::clone(&self.image);
        let end = from.checked_add(image.dir(from)?.below);
        let end = end.filter(|end| *end <= image.dirs() && from < *end);
        let end = end.ok_or(BadImage("malformed directory"))?;
        let moved = |old: u32| match (from..end).contains(&old) {
            true => Ok(old - from + to),
            false => Err(BadImage("leads outside its directory")),
        };
        for old in from..end {
            let dir = image.dir(old)?;
            let (row, name) = match old == from {
                true => (row, name),
                false => (
                    [moved(dir.parent)?, self.adopt(dir.set, rows)?],
                    image.dir_name(&dir)?,
                ),
            };
            let new = rows.add_dir(row, name, &image.tree(old)?);
            rows.set_below(new, dir.below);
            for nth in 0..dir.child_count() {
                rows.add_child(moved(image.child(&dir, nth)?)?);
            }
            for index in dir.files {
                let file = image.file(index)?;
                let set = file.set.ok_or(BadImage("a file without attributes"))?;
                let set = self.adopt(set, rows)?;
                let payload = self.payloads.get(index as usize).copied().flatten();
                let new = rows.add_file(file.number, image.file_name(&file)?);
                rows.complete(new, file.size, set, payload);
            }
        }
        Ok(())
    }

    /// The set that one of the base's is in the new image.
    fn adopt(&mut self, old: u32, rows: &mut Rows) -> Result<u32> {
        if let Some(set) = self.sets.get(&old) {
            return Ok(*set);
        }
        let Set {
            mode,
            uid,
            gid,
            meta,
            xattrs,
        } = self.image.set(old)?;
        let set = rows.set([mode, uid, gid], xattrs, &meta);
        self.sets.insert(old, set);
        Ok(set)
    }
}

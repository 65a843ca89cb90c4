//! File objects by their numbers, and finding files by what they hold.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use grove_engine::object::FileObject;
use grove_engine::{Error as EngineError, ObjectId, ObjectKind, PayloadId};

use super::{
    Node, Numbering, Result, Source, View, ViewError, join, object_error, repository_error,
};
use crate::image::Image;
use crate::inode::{Place, file_ids, of_path_file};

/// A place of a file object in an open image.
#[derive(Debug)]
pub(super) struct FoundFile {
    /// Below the mount's root.
    pub(super) path: String,
    dir_path: String,
    tree: ObjectId,
    /// Its place among the files of the directory.
    nth: usize,
}

impl<S: Source> View<S> {
    /// The numbers, among those that are `wanted`, of files with this payload, in all commits whose
    /// images are open.
    pub fn files_of_payload(&self, payload: &PayloadId, wanted: &dyn Fn(u64) -> bool) -> Vec<u64> {
        let mut numbers = Vec::new();
        for (commit, image) in self.images.open() {
            // A damaged image is noticed, and made anew, when something in it is asked for.
            let _ = image.files_of(payload, |index| {
                let Ok(row) = image.file(index) else { return };
                let given = self.numbers_at(&commit, &image, index, row.number);
                let given = given.into_iter().flatten();
                let before = numbers.len();
                numbers.extend(given.filter(|number| wanted(*number)));
                // The image has only the beginning of the payload's name.
                let is_it = |file: &FileObject| file.payload.as_ref() == Some(payload);
                if numbers.len() > before && !self.file(row.number).is_ok_and(|file| is_it(&file)) {
                    numbers.truncate(before);
                }
            });
        }
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The numbers that were given to a file of an image.
    fn numbers_at(
        &self,
        commit: &ObjectId,
        image: &Image,
        index: u32,
        object: u64,
    ) -> [Option<u64>; 2] {
        let shared = self.numbering == Numbering::Shared;
        let unique = !shared || self.both_numberings.load(Ordering::Relaxed);
        let path = || of_path_file(Place::new(commit, index));
        [
            shared.then_some(object),
            (unique && image.is_complete()).then(path),
        ]
    }

    /// The object of a node that is a file.
    pub(super) fn file_of(&self, node: &Node) -> Result<Arc<FileObject>> {
        match node {
            Node::File(number) => self.file(*number),
            Node::PathFile(file) => self.file(self.path_file_number(file)?),
            _ => Err(ViewError::WrongType),
        }
    }

    /// A file object by its number.
    pub(super) fn file(&self, number: u64) -> Result<Arc<FileObject>> {
        self.files.get_or_load(&number, || {
            let (first, last) = file_ids(number);
            let ids = self
                .source
                .objects_between(ObjectKind::File, &first, &last)
                .map_err(|source| repository_error("index", source))?;
            match ids[..] {
                [] => Err(self.lost_file(number)),
                [id] => {
                    let file = self.source.file(&id).map(Arc::new);
                    file.map_err(|source| object_error(self.path(number), "file", id, source))
                }
                [id, other, ..] => Err(ViewError::Collision {
                    path: self.path(number),
                    what: "file",
                    id,
                    other,
                }),
            }
        })
    }

    /// Why there is no file object of a number: images remember those that have gone.
    fn lost_file(&self, number: u64) -> ViewError {
        let Some(found) = self.find(number) else {
            return ViewError::Stale { number };
        };
        match self.source.dirtree(&found.tree) {
            Err(source) => object_error(found.dir_path, "dirtree", found.tree, source),
            Ok(listing) => match listing.files.get(found.nth) {
                None => ViewError::Stale { number },
                Some((_, id)) => {
                    let (kind, id) = (ObjectKind::File, *id);
                    let missing = EngineError::MissingObject { kind, id };
                    object_error(found.path, "file", id, missing)
                }
            },
        }
    }

    /// A place of a file object. Looks through all open images, unless the object was loaded just
    /// now and holds something.
    pub(super) fn find(&self, number: u64) -> Option<FoundFile> {
        let payload = self.files.get(&number).and_then(|file| file.payload);
        let images = self.images.open();
        images.iter().find_map(|(commit, image)| {
            let index = match &payload {
                Some(payload) => find_by_payload(image, number, payload)?,
                None => image.find(number).ok()??,
            };
            let dir_index = image.dir_of_file(index).ok()?;
            let dir = image.dir(dir_index).ok()?;
            let dir_path = self.below(commit, self.numbering, &image.dir_path(dir_index).ok()?);
            let row = image.file(index).ok()?;
            Some(FoundFile {
                path: join(&dir_path, image.file_name(&row).ok()?),
                dir_path,
                tree: image.tree(dir_index).ok()?,
                nth: (index - dir.files.start) as usize,
            })
        })
    }
}

fn find_by_payload(image: &Image, number: u64, payload: &PayloadId) -> Option<u32> {
    let mut found = None;
    let is_it = |index: &u32| image.file(*index).is_ok_and(|row| row.number == number);
    image
        .files_of(payload, |index| found = found.or(Some(index).filter(is_it)))
        .ok()?;
    found
}

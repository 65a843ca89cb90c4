//! Whether a delta is sound: each object that its parts make is what its name says, and with what the
//! delta begins at and what it leaves out they are the whole commit.

use std::collections::HashSet;
use std::sync::Mutex;

use rayon::prelude::*;

use super::Fault;
use super::files::DeltaAt;
use super::machine::{Sink, Sources, run};
use super::name::DeltaName;
use super::part::{Body, open};
use super::superblock::{Fallback, PartHead};
use crate::error::{Error, Result};
use crate::id::{ObjectId, ObjectKind};
use crate::monitor::{Monitor, Phase};
use crate::object::{FileHeader, FormHasher};
use crate::ops::changes::{Contents, NewTree, Object};
use crate::repo::Repository;
use crate::store::lock;

/// Bytes of metadata that are held until the tree is seen to be whole.
const MAX_METADATA_BYTES: u64 = 4 << 30;

/// The commit of a delta, and the metadata that its parts make.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) tree: NewTree,
    bytes: u64,
}

impl Made {
    pub(super) fn new(tree: NewTree) -> Self {
        Self { tree, bytes: 0 }
    }

    /// Takes a metadata object that is what its name says.
    pub(super) fn add(&mut self, object: &Object, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_METADATA_BYTES {
            return Err(Fault::invalid("it has more metadata than any tree"));
        }
        match self.tree.add(object, bytes) {
            true => Ok(()),
            false => Err(Fault::other_object(object.0, &object.1)),
        }
    }
}

/// Applies a part file as a client would, and compares what it makes. Metadata is kept in `made`, if that
/// is given.
pub(super) fn check_part(
    repo: &Repository,
    head: &PartHead,
    file: &[u8],
    made: Option<&Mutex<Made>>,
    monitor: &dyn Monitor,
) -> Result<(), Fault> {
    let body = open(file)?;
    let mut checker = Checker { file: None, made };
    let mut sources = Sources::new(repo);
    let body = Body::parse(&body)?;
    run(body, head, &mut sources, &mut checker, monitor)
}

/// Sees that a commit has nothing but what is known, what is left out, and what parts make. Nothing else
/// that this repository has counts: where the delta is applied it may be missing.
pub(super) fn check_whole(
    tree: &NewTree,
    known: &HashSet<Object>,
    parts: &[PartHead],
    fallbacks: &[Fallback],
) -> Result<(), Fault> {
    let made: HashSet<&Object> = parts.iter().flat_map(|part| &part.objects).collect();
    let left_out: HashSet<Object> = fallbacks.iter().map(|f| f.object).collect();
    tree.check_whole(
        |id| made.contains(&(ObjectKind::File, *id)),
        |object| known.contains(object) || left_out.contains(object),
    )
}

/// What [`verify`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyReport {
    /// Which delta it is.
    pub name: DeltaName,
    /// Parts that make what they shall.
    pub parts: u64,
    /// Objects that they make.
    pub objects: u64,
    /// Objects that it leaves out: who applies it has to fetch them.
    pub fallbacks: u64,
    /// What is to be fetched of them.
    pub fallback_bytes: u64,
}

/// Applies a delta without keeping anything, compares each object with its name, and sees that nothing
/// of the commit is missing.
///
/// # Errors
/// [`Error::WrongBase`] if the repository lacks the commit that it begins at, and
/// [`Error::InvalidDelta`] if it is not sound.
pub fn verify(
    repo: &Repository,
    delta: &DeltaAt<'_>,
    monitor: &dyn Monitor,
) -> Result<VerifyReport> {
    let opened = delta.open(repo)?;
    let superblock = &opened.superblock;
    opened.check_base(repo)?;
    let leased: Vec<ObjectId> = superblock.name.from.into_iter().collect();
    let _lease = repo.lease(&leased)?;
    let of_delta = |fault: Fault| fault.of(&opened.path);
    let made = Mutex::new(Made::new(opened.tree().map_err(of_delta)?));
    let (parts, fallbacks) = (&superblock.parts, &superblock.fallbacks);
    let total = parts.iter().map(|part| part.made_size).sum();
    monitor.begin(Phase::Verify, Some(total));
    parts
        .par_iter()
        .enumerate()
        .try_for_each(|(number, head)| {
            if monitor.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let file = opened.part(number, head)?;
            check_part(repo, head, &file, Some(&made), monitor)
                .map_err(|fault| opened.fault(number, fault))?;
            monitor.advance(Phase::Verify, head.made_size);
            Ok(())
        })?;
    let known = match &superblock.name.from {
        Some(from) => Contents::of(repo, from, |_| false)?.objects().collect(),
        None => HashSet::new(),
    };
    check_whole(&lock(&made).tree, &known, parts, fallbacks).map_err(of_delta)?;
    monitor.end(Phase::Verify);
    Ok(VerifyReport {
        name: superblock.name,
        parts: parts.len() as u64,
        objects: parts.iter().map(|part| part.objects.len() as u64).sum(),
        fallbacks: fallbacks.len() as u64,
        fallback_bytes: fallbacks.iter().map(|fallback| fallback.size).sum(),
    })
}

/// A sink that compares what is made with the names it shall have, and keeps metadata at most.
#[derive(Debug)]
struct Checker<'a> {
    file: Option<(ObjectId, FormHasher)>,
    made: Option<&'a Mutex<Made>>,
}

impl Sink for Checker<'_> {
    fn metadata(&mut self, object: &Object, bytes: &[u8]) -> Result<(), Fault> {
        match self.made {
            Some(made) => lock(made).add(object, bytes),
            None if ObjectId::of(bytes) == object.1 => Ok(()),
            None => Err(Fault::other_object(object.0, &object.1)),
        }
    }

    fn begin(&mut self, id: &ObjectId, header: FileHeader, _size: u64) -> Result<(), Fault> {
        header
            .check()
            .map_err(|error| Fault::invalid(format!("file object {id}: {error}")))?;
        self.file = Some((*id, header.form_hasher()));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if let Some((_, hasher)) = &mut self.file {
            hasher.update(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some((id, hasher)) = self.file.take() else {
            return Ok(());
        };
        match hasher.finish(&id) {
            Some(_) => Ok(()),
            None => Err(Fault::other_object(ObjectKind::File, &id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::files::Opened;
    use super::super::generate::{GenerateOptions, generate};
    use super::super::superblock::Superblock;
    use super::*;
    use crate::Body as Content;
    use crate::NewFile;
    use crate::monitor::Silent;
    use crate::object::{Commit, DirMeta, Metadata, Xattrs};
    use crate::tree::MutableTree;

    /// Commits a directory of this mode with these files.
    fn commit(repo: &Repository, mode: u32, files: &[(&str, &[u8])]) -> ObjectId {
        let meta = |mode| {
            Some(DirMeta {
                uid: 0,
                gid: 0,
                mode,
                xattrs: Xattrs::default(),
            })
        };
        let mut txn = repo.begin(&Silent).unwrap();
        let mut tree = MutableTree::default();
        let dir = tree.ensure_child(repo, "dir").unwrap();
        dir.meta = meta(mode);
        for (name, bytes) in files {
            let header = FileHeader {
                uid: 0,
                gid: 0,
                mode: 0o100_644,
                symlink_target: Vec::new(),
                xattrs: Xattrs::default(),
            };
            let file = NewFile {
                header,
                hint: Vec::new(),
                body: Content::Bytes(bytes.to_vec()),
            };
            let entry = txn.put_files(vec![file]).unwrap().remove(0);
            dir.put_file(name, entry).unwrap();
        }
        tree.meta = meta(0o040_755);
        let (tree, meta) = txn.put_tree(&tree).unwrap();
        let commit = Commit {
            metadata: Metadata::default(),
            parent: None,
            subject: String::new(),
            body: String::new(),
            timestamp: 1,
            tree,
            meta,
        };
        let id = txn.put_commit(&commit).unwrap();
        txn.publish(&[]).unwrap();
        id
    }

    #[test]
    fn a_delta_that_lacks_an_object_is_told_from_one_that_leaves_it_out() {
        let dir = tempfile::tempdir().unwrap();
        // It has all objects: that must not hide what the delta lacks.
        let repo = Repository::init(&dir.path().join("repo")).unwrap();
        let from = commit(&repo, 0o040_755, &[("same", b"same"), ("old", b"old")]);
        let files: [(&str, &[u8]); 3] = [("same", b"same"), ("one", b"1"), ("two", b"22")];
        let to = commit(&repo, 0o040_700, &files);
        let whole = dir.path().join("whole");
        fs::create_dir(&whole).unwrap();
        let options = GenerateOptions {
            output: Some(whole.join("superblock")),
            max_chunk_bytes: 0,
            ..GenerateOptions::default()
        };
        let from = Some(from);
        let made = generate(&repo, DeltaName { from, to }, &options, &Silent).unwrap();
        // Two listings, the metadata of a directory, two files.
        assert_eq!((made.parts, made.objects), (5, 5));
        let good = Opened::at(&whole).unwrap().superblock;
        for lost in 0..5 {
            let mut superblock = good.clone();
            let object = superblock.parts.remove(lost).objects[0];
            let less = dir.path().join(lost.to_string());
            fs::create_dir(&less).unwrap();
            for (n, old) in (0..5).filter(|n| *n != lost).enumerate() {
                let part = whole.join(old.to_string());
                fs::copy(part, less.join(n.to_string())).unwrap();
            }
            let path = less.join("superblock");
            let verify = |superblock: &Superblock| {
                fs::write(&path, superblock.to_bytes()).unwrap();
                verify(&repo, &DeltaAt::Path(&less), &Silent)
            };
            match verify(&superblock) {
                Err(Error::InvalidDelta { path: of, detail }) => {
                    let wanted = format!("lacks {} object {}", object.0, object.1);
                    assert!(of == path && detail.contains(&wanted), "{detail}");
                }
                other => panic!("{other:?}"),
            }
            superblock.fallbacks.push(Fallback {
                object,
                size: 3,
                made_size: 9,
            });
            let seen = verify(&superblock).unwrap();
            let left_out = (seen.fallbacks, seen.fallback_bytes);
            assert_eq!((seen.objects, left_out), (4, (1, 3)));
        }
    }
}

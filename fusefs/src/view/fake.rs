//! A repository in memory, for tests.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use grove_engine::Result as EngineResult;
use grove_engine::object::{
    Commit, DirEntry, DirMeta, Dirtree, FileHeader, FileObject, Metadata, Xattrs,
};
use grove_engine::{Error as EngineError, ObjectId, ObjectKind, PayloadId, Refs};

use super::Source;

/// A repository in memory, with objects that can be taken away.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) commits: Mutex<BTreeMap<ObjectId, Commit>>,
    pub(crate) dirtrees: Mutex<HashMap<ObjectId, Arc<Dirtree>>>,
    pub(crate) metas: Mutex<HashMap<ObjectId, Arc<DirMeta>>>,
    pub(crate) files: Mutex<HashMap<ObjectId, FileObject>>,
    pub(crate) payloads: Mutex<HashMap<PayloadId, Vec<u8>>>,
    refs: Mutex<BTreeMap<String, ObjectId>>,
    /// Objects asked for.
    pub(crate) loads: Mutex<Vec<ObjectId>>,
    /// How often all commits were listed.
    listed: AtomicUsize,
    /// Where images go.
    pub(crate) images: Option<PathBuf>,
    /// The one image that there is, in place of others.
    pub(crate) image: Option<PathBuf>,
}

impl Fake {
    pub(crate) fn file(&self, mode: u32, content: &[u8], xattrs: &[(&str, &str)]) -> ObjectId {
        let payload = PayloadId::of(content);
        self.payloads
            .lock()
            .unwrap()
            .insert(payload, content.to_vec());
        let mut object = self.object(0o100_000 | mode, xattrs);
        object.size = content.len() as u64;
        object.payload = Some(payload);
        object.id = ObjectId::of(format!("{:?}{payload}", object.header).as_bytes());
        self.files.lock().unwrap().insert(object.id, object.clone());
        object.id
    }

    /// A file object of another name, which begins in the same way.
    pub(crate) fn alike(&self, id: &ObjectId) -> ObjectId {
        let mut object = self.file_now(id);
        let mut bytes = *id.as_bytes();
        bytes[31] ^= 1;
        object.id = ObjectId::from_bytes(bytes);
        self.files.lock().unwrap().insert(object.id, object.clone());
        object.id
    }

    pub(crate) fn listed(&self) -> usize {
        self.listed.load(Ordering::Relaxed)
    }

    /// A file object, without being noticed.
    pub(crate) fn file_now(&self, id: &ObjectId) -> FileObject {
        self.files.lock().unwrap()[id].clone()
    }

    pub(crate) fn symlink(&self, target: &str) -> ObjectId {
        let mut object = self.object(0o120_777, &[]);
        object.header.symlink_target = target.into();
        object.id = ObjectId::of(format!("{:?}", object.header).as_bytes());
        self.files.lock().unwrap().insert(object.id, object.clone());
        object.id
    }

    pub(crate) fn object(&self, mode: u32, xattrs: &[(&str, &str)]) -> FileObject {
        let header = FileHeader {
            uid: 7,
            gid: 8,
            mode,
            symlink_target: vec![],
            xattrs: pairs(xattrs),
        };
        FileObject {
            id: ObjectId::of(b""),
            header,
            size: 0,
            payload: None,
        }
    }

    pub(crate) fn meta(&self, mode: u32, xattrs: &[(&str, &str)]) -> ObjectId {
        let meta = DirMeta {
            uid: 1,
            gid: 2,
            mode: 0o040_000 | mode,
            xattrs: pairs(xattrs),
        };
        let id = ObjectId::of(format!("{meta:?}").as_bytes());
        self.metas.lock().unwrap().insert(id, Arc::new(meta));
        id
    }

    pub(crate) fn dir(&self, files: &[(&str, ObjectId)], dirs: &[(&str, ObjectId)]) -> ObjectId {
        let meta = self.meta(0o755, &[]);
        let entry = |(name, tree): &(&str, ObjectId)| DirEntry {
            name: (*name).to_owned(),
            tree: *tree,
            meta,
        };
        let tree = Dirtree {
            files: files
                .iter()
                .map(|(name, id)| ((*name).to_owned(), *id))
                .collect(),
            dirs: dirs.iter().map(entry).collect(),
        };
        let id = ObjectId::of(format!("{tree:?}").as_bytes());
        self.dirtrees.lock().unwrap().insert(id, Arc::new(tree));
        id
    }

    pub(crate) fn commit(&self, tree: ObjectId, subject: &str) -> ObjectId {
        self.commit_with(tree, subject, self.meta(0o755, &[("user.root", "yes")]))
    }

    /// A commit whose root has no extended attributes.
    pub(crate) fn bare_commit(&self, tree: ObjectId) -> ObjectId {
        self.commit_with(tree, "bare", self.meta(0o755, &[]))
    }

    fn commit_with(&self, tree: ObjectId, subject: &str, meta: ObjectId) -> ObjectId {
        let commit = Commit {
            metadata: Metadata::default(),
            parent: None,
            subject: subject.to_owned(),
            body: String::new(),
            timestamp: 0,
            tree,
            meta,
        };
        let id = ObjectId::of(format!("{commit:?}").as_bytes());
        self.commits.lock().unwrap().insert(id, commit);
        id
    }

    pub(crate) fn set_ref(&self, name: &str, id: Option<ObjectId>) {
        let mut refs = self.refs.lock().unwrap();
        match id {
            Some(id) => refs.insert(name.to_owned(), id),
            None => refs.remove(name),
        };
    }

    pub(crate) fn missing<T>(
        &self,
        kind: ObjectKind,
        id: &ObjectId,
        found: Option<T>,
    ) -> EngineResult<T> {
        self.loads.lock().unwrap().push(*id);
        found.ok_or(EngineError::MissingObject { kind, id: *id })
    }
}

fn pairs(xattrs: &[(&str, &str)]) -> Xattrs {
    let pairs = xattrs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    Xattrs::from_unsorted(pairs.collect())
}

impl Source for Fake {
    fn commit(&self, id: &ObjectId) -> EngineResult<Commit> {
        self.missing(
            ObjectKind::Commit,
            id,
            self.commits.lock().unwrap().get(id).cloned(),
        )
    }
    fn dirtree(&self, id: &ObjectId) -> EngineResult<Arc<Dirtree>> {
        self.missing(
            ObjectKind::Dirtree,
            id,
            self.dirtrees.lock().unwrap().get(id).cloned(),
        )
    }
    fn dirmeta(&self, id: &ObjectId) -> EngineResult<Arc<DirMeta>> {
        self.missing(
            ObjectKind::Dirmeta,
            id,
            self.metas.lock().unwrap().get(id).cloned(),
        )
    }
    fn file(&self, id: &ObjectId) -> EngineResult<FileObject> {
        self.missing(
            ObjectKind::File,
            id,
            self.files.lock().unwrap().get(id).cloned(),
        )
    }
    fn objects_between(
        &self,
        kind: ObjectKind,
        first: &ObjectId,
        last: &ObjectId,
    ) -> EngineResult<Vec<ObjectId>> {
        let mut ids: Vec<ObjectId> = match kind {
            ObjectKind::File => self.files.lock().unwrap().keys().copied().collect(),
            ObjectKind::Commit => self.commits.lock().unwrap().keys().copied().collect(),
            _ => panic!("nobody asks for {kind}s"),
        };
        ids.retain(|id| first <= id && id <= last);
        ids.sort_unstable();
        Ok(ids)
    }
    fn read_at(&self, file: &FileObject, offset: u64, buf: &mut [u8]) -> EngineResult<usize> {
        let id = file.payload.unwrap();
        let payloads = self.payloads.lock().unwrap();
        let bytes = payloads
            .get(&id)
            .ok_or(EngineError::MissingPayload { id })?;
        let bytes = bytes.get(offset as usize..).unwrap_or_default();
        let len = bytes.len().min(buf.len());
        buf[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }
    fn refs(&self) -> EngineResult<Refs> {
        let map = self.refs.lock().unwrap().clone();
        Ok(Refs {
            map,
            ..Refs::default()
        })
    }
    fn generation(&self) -> EngineResult<u64> {
        Ok(self.commits.lock().unwrap().len() as u64)
    }
    fn commits(&self) -> EngineResult<Vec<ObjectId>> {
        self.listed.fetch_add(1, Ordering::Relaxed);
        Ok(self.commits.lock().unwrap().keys().copied().collect())
    }
    fn image_path(&self, commit: &ObjectId) -> Option<PathBuf> {
        let named = |dir: &PathBuf| dir.join(format!("{commit}.img"));
        self.image.clone().or(self.images.as_ref().map(named))
    }
    fn stored(&self) -> EngineResult<(u64, u64)> {
        Ok((10_000, 12))
    }
}

//! Plain copies of payloads in the repository's cache: for a kernel that reads them itself, and for
//! payloads that take long to make.
//!
//! A copy is named by its payload and is compared with that name before this process uses it for the
//! first time; one that is wrong is removed and made anew. The copies used last stay, up to a share
//! of the space that there is.

use std::collections::HashMap;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::SystemTime;

use lru::LruCache;
use sha2::{Digest, Sha256};

use super::payload::{Way, part_key};
use super::{Store, lock};
use crate::error::{Error, IoResultExt, Result};
use crate::id::PayloadId;
use crate::pack::recipe::Piece;

/// Copies that are kept open.
const OPEN: usize = 128;
/// Bytes moved at once.
const BUFFER: usize = 1 << 20;
/// Copies never take more than this.
const MAX_BYTES: u64 = 8 << 30;
/// Nor more than this share of what they and the free space are together.
const SPACE_SHARE: u64 = 4;

/// What names of files end in that are being written.
const TEMPORARY: &str = ".tmp";

/// Numbers the temporary files of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Payloads that take long to make are copied from this size on.
const SLOW_MIN: u64 = 1 << 20;

/// A plain copy, open for reading.
#[derive(Debug, Clone)]
pub struct PlainCopy {
    path: Arc<Path>,
    file: Arc<File>,
}

impl PlainCopy {
    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fills the buffer from an offset on, where there are as many bytes.
    pub(super) fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_exact_at(buf, offset).at(&*self.path)?;
        Ok(buf.len())
    }

    /// Gives all of its `size` bytes in order, each time with where they begin.
    pub(super) fn read_all(
        &self,
        size: u64,
        take: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; size.min(BUFFER as u64) as usize];
        let mut at = 0;
        while at < size {
            let len = buffer.len().min((size - at) as usize);
            self.read_at(&mut buffer[..len], at)?;
            take(at, &buffer[..len])?;
            at += len as u64;
        }
        Ok(())
    }
}

impl Store {
    /// A plain copy of a payload, made if there is none.
    pub(crate) fn plain_copy(&self, of: Piece) -> Result<PlainCopy> {
        self.copies
            .get_or_make(of, |give| match self.recompressed(of)? {
                Some(bytes) => give(&bytes),
                None => self.read_parts(of, Way::OUTERMOST, &mut |_, bytes| give(bytes)),
            })
    }

    /// A plain copy of a payload that is made by recompression: that takes seconds, and every read
    /// of a part needs all of it. `None` for others, and where there is no place for a copy.
    pub(super) fn copy_of_slow(&self, of: Piece) -> Result<Option<PlainCopy>> {
        if of.size < SLOW_MIN {
            return Ok(None);
        }
        if let Some(copy) = self.copies.opened(&of.id) {
            return Ok(Some(copy));
        }
        if self.locate(&part_key(&of.id, 0))?.is_some() || self.plain_form(of)?.is_none() {
            return Ok(None);
        }
        match self.plain_copy(of) {
            Ok(copy) => Ok(Some(copy)),
            // If it is the payload that cannot be read, the next attempt tells.
            Err(Error::Io { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Copies {
    dir: PathBuf,
    open: Mutex<LruCache<PayloadId, PlainCopy>>,
    /// What is being made, and its sizes: who wants the same waits, and finds it.
    making: Mutex<HashMap<PayloadId, u64>>,
    made: Condvar,
}

/// Takes the bytes of a payload, in order.
type Give<'g> = &'g mut dyn FnMut(&[u8]) -> Result<()>;

impl Copies {
    pub(crate) fn new(repo: &Path) -> Self {
        let open = NonZeroUsize::new(OPEN).expect("because it is not zero");
        Self {
            dir: repo.join("cache").join("plain"),
            open: Mutex::new(LruCache::new(open)),
            making: Mutex::default(),
            made: Condvar::new(),
        }
    }

    /// The copy, if this process has it open.
    fn opened(&self, id: &PayloadId) -> Option<PlainCopy> {
        lock(&self.open).get(id).cloned()
    }

    /// The copy, if there is one.
    fn get(&self, of: Piece) -> Option<PlainCopy> {
        if let Some(copy) = self.opened(&of.id) {
            return Some(copy);
        }
        let path = self.path(&of.id);
        let file = File::open(&path).ok()?;
        if !is_copy(&file, of) {
            // A cache: what cannot be removed now is in the way of the copy made next, and replaced.
            let _ = fs::remove_file(&path);
            return None;
        }
        // Used just now; if this cannot be noted, it only goes earlier.
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        Some(self.keep(of.id, path, file))
    }

    /// The copy, made of what `bytes` gives if there is none.
    fn get_or_make(
        &self,
        of: Piece,
        bytes: impl FnOnce(Give<'_>) -> Result<()>,
    ) -> Result<PlainCopy> {
        if let Some(copy) = self.get(of) {
            return Ok(copy);
        }
        let mut making = lock(&self.making);
        while making.contains_key(&of.id) {
            let woken = self.made.wait(making);
            making = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(copy) = self.opened(&of.id) {
            return Ok(copy);
        }
        making.insert(of.id, of.size);
        let more = making.values().sum();
        drop(making);
        // Those who wait are released even if this fails or panics; the next of them tries itself.
        let _release = Release {
            copies: self,
            id: of.id,
        };
        fs::create_dir_all(&self.dir).at(&self.dir)?;
        self.make_room(more)?;
        let number = NEXT.fetch_add(1, Relaxed);
        let temporary = self
            .dir
            .join(format!("{}-{number}{TEMPORARY}", std::process::id()));
        let made = self.make(of, bytes, &temporary);
        let file = made.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        Ok(self.keep(of.id, self.path(&of.id), file))
    }

    fn make(
        &self,
        of: Piece,
        bytes: impl FnOnce(Give<'_>) -> Result<()>,
        temporary: &Path,
    ) -> Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut out = options.open(temporary).at(temporary)?;
        let mut hasher = Sha256::new();
        bytes(&mut |bytes| {
            hasher.update(bytes);
            out.write_all(bytes).at(temporary)
        })?;
        let digest: [u8; 32] = hasher.finalize().into();
        if digest != *of.id.as_bytes() {
            return Err(Error::Corrupt {
                path: self.dir.clone(),
                detail: format!("payload {} has other content than its name says", of.id),
            });
        }
        drop(out);
        let path = self.path(&of.id);
        fs::rename(temporary, &path).at(&path)?;
        // For reading only: it goes to the kernel.
        File::open(&path).at(&path)
    }

    fn keep(&self, id: PayloadId, path: PathBuf, file: File) -> PlainCopy {
        let copy = PlainCopy {
            path: path.into(),
            file: Arc::new(file),
        };
        lock(&self.open).put(id, copy.clone());
        copy
    }

    fn path(&self, id: &PayloadId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// Removes the copies that were used longest ago until there is room for `more` bytes.
    fn make_room(&self, more: u64) -> Result<()> {
        let mut copies = Vec::new();
        for entry in fs::read_dir(&self.dir).at(&self.dir)? {
            let entry = entry.at(&self.dir)?;
            // Another process may have removed it.
            if let Ok(meta) = entry.metadata() {
                copies.push((meta.modified().at(&self.dir)?, meta.len(), entry.path()));
            }
        }
        let used: u64 = copies.iter().map(|(_, len, _)| len).sum();
        let space = rustix::fs::statvfs(&self.dir).at(&self.dir)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let limit = (used.saturating_add(free) / SPACE_SHARE).min(MAX_BYTES);
        let mut over = used.saturating_add(more).saturating_sub(limit);
        if over > used {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(full).at(&self.dir);
        }
        copies.sort();
        for (_, len, path) in copies {
            if over == 0 {
                break;
            }
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).at(&path),
                _ => over = over.saturating_sub(len),
            }
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(id) = name.and_then(|name| name.parse().ok()) {
                lock(&self.open).pop(&id);
            }
        }
        Ok(())
    }
}

/// Every file in the cache of copies, with the payload that it is; `None` for what is being written.
pub(crate) fn cached_copies(repo: &Path) -> Vec<(Option<PayloadId>, PathBuf)> {
    let entries = fs::read_dir(Copies::new(repo).dir);
    let named = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let id = name.parse().ok();
        (id.is_some() || name.ends_with(TEMPORARY)).then(|| (id, entry.path()))
    };
    let entries = entries.into_iter().flatten().flatten();
    entries.filter_map(named).collect()
}

/// Ends the making of a copy.
struct Release<'a> {
    copies: &'a Copies,
    id: PayloadId,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        lock(&self.copies.making).remove(&self.id);
        self.copies.made.notify_all();
    }
}

/// Whether a file holds a payload and nothing else.
pub(crate) fn is_copy(file: &File, of: Piece) -> bool {
    if !file
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() == of.size)
    {
        return false;
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut input = file;
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    let digest: [u8; 32] = hasher.finalize().into();
    digest == *of.id.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &[u8]) -> Piece {
        Piece {
            id: PayloadId::of(bytes),
            size: bytes.len() as u64,
        }
    }

    fn giver(bytes: &[u8]) -> impl FnOnce(Give<'_>) -> Result<()> + '_ {
        |give| bytes.chunks(BUFFER).try_for_each(give)
    }

    fn content(copy: &PlainCopy) -> Vec<u8> {
        let mut bytes = vec![0; copy.file().metadata().unwrap().len() as usize];
        copy.read_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_copy_is_made_once_and_found_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = vec![7; 3 * BUFFER + 5];
        let of = piece(&bytes);
        let copies = Copies::new(dir.path());
        assert!(copies.get(of).is_none());
        assert_eq!(
            content(&copies.get_or_make(of, giver(&bytes)).unwrap()),
            bytes
        );
        let others = Copies::new(dir.path());
        for copies in [&copies, &others] {
            let found = copies.get_or_make(of, |_| panic!("read again")).unwrap();
            assert_eq!(content(&found), bytes);
        }
    }

    #[test]
    fn a_wrong_copy_is_made_anew_and_wrong_content_is_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = vec![7; 1000];
        let of = piece(&bytes);
        let make = || Copies::new(dir.path()).get_or_make(of, giver(&bytes));
        drop(make().unwrap());
        let path = Copies::new(dir.path()).path(&of.id);
        for wrong in [&bytes[..999], &[6; 1000]] {
            fs::write(&path, wrong).unwrap();
            assert_eq!(content(&make().unwrap()), bytes);
        }
        let copies = Copies::new(dir.path());
        let other = Piece {
            id: PayloadId::of(b"other"),
            ..of
        };
        assert!(copies.get_or_make(other, giver(&bytes)).is_err());
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(names.count(), 1, "no temporary file is left");
    }

    #[test]
    fn copies_are_made_side_by_side_but_each_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let copies = Copies::new(dir.path());
        let [one, other] = [vec![1; 100], vec![2; 100]];
        let both = std::sync::Barrier::new(2);
        let made = AtomicU64::new(0);
        let make = |bytes: &Vec<u8>| {
            let copy = copies.get_or_make(piece(bytes), |give| {
                made.fetch_add(1, Relaxed);
                // Neither goes on before the other one is being made.
                both.wait();
                give(bytes)
            });
            assert_eq!(content(&copy.unwrap()), *bytes);
        };
        std::thread::scope(|scope| {
            for bytes in [&one, &other, &one, &other] {
                scope.spawn(|| make(bytes));
            }
        });
        assert_eq!(made.into_inner(), 2);
        let names = fs::read_dir(dir.path().join("cache/plain")).unwrap();
        assert_eq!(names.count(), 2);
    }
}

//! Plain copies of payloads in the repository's cache: for a kernel that reads them itself, and for
//! payloads that take long to make.
//!
//! A copy is named by its payload and is compared with that name before this process uses it for the
//! first time; one that is wrong is removed and made anew. The copies used last stay, up to a share
//! of the space that there is.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use lru::LruCache;
use sha2::{Digest, Sha256};

use super::lock;
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

/// Numbers the temporary files of this process.
static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(crate) struct Copies {
    dir: PathBuf,
    open: Mutex<LruCache<PayloadId, Arc<File>>>,
    /// Held by the one who makes a copy: who wants the same finds it afterwards.
    making: Mutex<()>,
}

impl Copies {
    pub(crate) fn new(repo: &Path) -> Self {
        let open = NonZeroUsize::new(OPEN).expect("because it is not zero");
        Self {
            dir: repo.join("cache").join("plain"),
            open: Mutex::new(LruCache::new(open)),
            making: Mutex::new(()),
        }
    }

    /// The copy, if there is one.
    pub(crate) fn get(&self, of: Piece) -> Option<Arc<File>> {
        if let Some(file) = lock(&self.open).get(&of.id) {
            return Some(Arc::clone(file));
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
        Some(self.keep(of.id, file))
    }

    /// The copy, made by reading the payload if there is none. `read` reads like `pread`.
    pub(crate) fn get_or_make(
        &self,
        of: Piece,
        read: impl FnMut(u64, &mut [u8]) -> Result<usize>,
    ) -> Result<Arc<File>> {
        if let Some(file) = self.get(of) {
            return Ok(file);
        }
        let _making = lock(&self.making);
        if let Some(file) = self.get(of) {
            return Ok(file);
        }
        fs::create_dir_all(&self.dir).at(&self.dir)?;
        self.make_room(of.size)?;
        let number = NEXT.fetch_add(1, Relaxed);
        let temporary = self
            .dir
            .join(format!("{}-{number}.tmp", std::process::id()));
        let made = self.make(of, read, &temporary);
        let file = made.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
        Ok(self.keep(of.id, file))
    }

    fn make(
        &self,
        of: Piece,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<usize>,
        temporary: &Path,
    ) -> Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut out = options.open(temporary).at(temporary)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        while at < of.size {
            let n = read(at, &mut buffer)?;
            let bytes = buffer.get(..n).filter(|bytes| !bytes.is_empty());
            let bytes = bytes.ok_or(Error::MissingPayload { id: of.id })?;
            hasher.update(bytes);
            out.write_all(bytes).at(temporary)?;
            at += n as u64;
        }
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

    fn keep(&self, id: PayloadId, file: File) -> Arc<File> {
        let file = Arc::new(file);
        lock(&self.open).put(id, Arc::clone(&file));
        file
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

/// Whether a file is what its name says.
fn is_copy(file: &File, of: Piece) -> bool {
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

    fn reader(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<usize> + '_ {
        |at, buf| {
            let rest = &bytes[at as usize..];
            let n = rest.len().min(buf.len());
            buf[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }
    }

    fn content(mut file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        io::Seek::seek(&mut file, io::SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
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
            content(&copies.get_or_make(of, reader(&bytes)).unwrap()),
            bytes
        );
        let others = Copies::new(dir.path());
        for copies in [&copies, &others] {
            let found = copies.get_or_make(of, |_, _| panic!("read again")).unwrap();
            assert_eq!(content(&found), bytes);
        }
    }

    #[test]
    fn a_wrong_copy_is_made_anew_and_wrong_content_is_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = vec![7; 1000];
        let of = piece(&bytes);
        let make = || Copies::new(dir.path()).get_or_make(of, reader(&bytes));
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
        assert!(copies.get_or_make(other, reader(&bytes)).is_err());
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        assert_eq!(names.count(), 1, "no temporary file is left");
    }
}

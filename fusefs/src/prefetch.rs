//! Replays a trace: what a mount was asked for last time is in the page cache before it is asked for.
//!
//! The kernel takes pages only of files it knows, so each file is looked up through the mount first,
//! as any program would. It is then decoded and given to the kernel, with no READ.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grove_engine::CacheCounts;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

use crate::push::{Pages, Stored, available_memory};
use crate::stats::Counters;
use crate::trace::{Range, Trace};

/// Bytes decoded and given at once.
const CHUNK: usize = 1 << 20;
/// Unit of the kernel's cache.
const PAGE: u64 = 4096;
/// No more than this share of the memory that is available at the start is filled.
const SHARE: u64 = 2;

/// Reads files by inode number.
pub(crate) trait Contents: Send + Sync + 'static {
    /// Reads like `pread`; an error stands for a file that cannot be read now.
    fn read(&self, number: u64, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// What the cache of decoded blocks was asked for so far.
    fn cache_counts(&self) -> CacheCounts;
}

/// What a replay needs.
pub(crate) struct Replay {
    pub(crate) contents: Arc<dyn Contents>,
    pub(crate) pages: Arc<dyn Pages>,
    pub(crate) counters: Arc<Counters>,
    /// Where the mount is, without symbolic links.
    pub(crate) root: PathBuf,
    /// Device number of its files.
    pub(crate) device: u64,
}

impl Replay {
    /// Goes through a trace, as far as memory allows and the mount exists. What is missing in the
    /// mount is passed over: the trace may be of another commit.
    pub(crate) fn run(&self, trace: Trace<impl BufRead>) -> io::Result<()> {
        let mut left = available_memory().map_or(0, |bytes| bytes / SHARE);
        let mut buffer = vec![0; CHUNK];
        for range in trace {
            let range = range?;
            left = match left.checked_sub(range.len) {
                Some(left) => left,
                None => return Ok(()),
            };
            if let Some(number) = self.look_up(&range.path)? {
                self.fill(number, &range, &mut buffer)?;
            }
        }
        Ok(())
    }

    /// Makes the kernel know a regular file of the mount.
    fn look_up(&self, path: &str) -> io::Result<Option<u64>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = self.root.join(Path::new(path));
        let Ok(file) = openat2(CWD, &path, flags, Mode::empty(), resolve) else {
            return Ok(None);
        };
        let stat = fstat(&file)?;
        if stat.st_dev != self.device {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        Ok(regular.then_some(stat.st_ino))
    }

    fn fill(&self, number: u64, range: &Range, buffer: &mut [u8]) -> io::Result<()> {
        // A page counts only when it is given whole, or to the end of the file.
        let end = range.offset.saturating_add(range.len);
        let end = end.checked_next_multiple_of(PAGE).unwrap_or(end);
        let mut at = range.offset;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let Some(into) = buffer.get_mut(..len) else {
                return Ok(());
            };
            // Damage is told to whoever reads the file.
            let Ok(n) = self.contents.read(number, at, into) else {
                return Ok(());
            };
            let bytes = into.get(..n).unwrap_or_default();
            if bytes.is_empty() || self.pages.store(number, at, bytes)? == Stored::Unknown {
                return Ok(());
            }
            self.counters.data.prefetched_bytes.add(n as u64);
            at += n as u64;
        }
        Ok(())
    }
}

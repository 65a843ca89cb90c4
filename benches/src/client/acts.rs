//! The acts.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::{Act, map};
use crate::error::{At, Error, Result};

/// Size of buffers that files are read into: that of `cat` and `cp`.
const BUFFER: usize = 1 << 17;
/// Size of buffers for names: that of the C library.
const NAMES: usize = 1 << 15;
const PAGE: usize = 4096;
const READERS: usize = 8;
/// What no name of a tree ends with.
const ABSENT: &[u8] = b".not-there";
/// With these, the loader maps a program and its libraries, binds every symbol, and ends.
const BIND_AND_STOP: [(&str, &str); 3] = [
    ("LD_TRACE_LOADED_OBJECTS", "1"),
    ("LD_BIND_NOW", "1"),
    ("LD_WARN", "1"),
];

/// A name beside this one that is not there, and no longer than a name may be.
fn absent(name: &[u8]) -> Vec<u8> {
    const LONGEST: usize = 255;
    let base = name
        .rsplit(|byte| *byte == b'/')
        .next()
        .map_or(0, <[u8]>::len);
    let over = (base + ABSENT.len()).saturating_sub(LONGEST);
    let kept = name.get(..name.len() - over).unwrap_or_default();
    [kept, ABSENT].concat()
}

/// What an act did.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) items: u64,
    pub(super) bytes: u64,
    pub(super) times: Vec<f64>,
    pub(super) stopped: bool,
}

/// An act's surroundings.
#[derive(Debug)]
pub(super) struct Job {
    path: PathBuf,
    root: OwnedFd,
    list: Vec<Vec<u8>>,
    end: Option<Instant>,
    stopped: AtomicBool,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

impl Job {
    pub(super) fn new(root: &Path, list: Vec<Vec<u8>>, limit: Option<Duration>) -> Result<Self> {
        Ok(Self {
            path: root.to_owned(),
            root: rustix::fs::open(root, FILE | OFlags::DIRECTORY, Mode::empty()).at(root)?,
            list,
            end: limit.map(|limit| Instant::now() + limit),
            stopped: AtomicBool::new(false),
        })
    }

    pub(super) fn run(&self, act: Act) -> Result<Done> {
        let mut done = match act {
            Act::Walk => self.walk(false),
            Act::Everything => self.walk(true),
            Act::Missing => self.missing(),
            Act::Read => self.read(),
            Act::Readers => self.readers(),
            Act::Random => self.random(),
            Act::Map => self.map(),
            Act::Exec => self.exec(),
        }?;
        done.stopped = self.stopped.load(Relaxed);
        Ok(done)
    }

    /// Whether the time is over; remembers that something was left undone because of it.
    fn is_over(&self) -> bool {
        let over = self.end.is_some_and(|end| Instant::now() >= end);
        if over {
            self.stopped.store(true, Relaxed);
        }
        over
    }

    fn named(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }

    fn open(&self, name: &[u8]) -> Result<File> {
        let opened = rustix::fs::openat(&self.root, name, FILE, Mode::empty());
        Ok(opened.at(self.named(name))?.into())
    }

    fn walk(&self, read: bool) -> Result<Done> {
        let mut done = Done::default();
        let mut buffer = vec![0; BUFFER];
        self.directory(
            self.root.as_fd(),
            read.then_some(&mut buffer[..]),
            &mut done,
        )?;
        Ok(done)
    }

    /// Descends when a directory has been listed: no two buffers of names are held at a time.
    fn directory(
        &self,
        dir: BorrowedFd<'_>,
        mut read: Option<&mut [u8]>,
        done: &mut Done,
    ) -> Result<()> {
        let mut below: Vec<CString> = Vec::new();
        let mut names = [MaybeUninit::uninit(); NAMES];
        let mut listing = RawDir::new(dir, &mut names);
        while let Some(entry) = listing.next() {
            if self.is_over() {
                return Ok(());
            }
            let entry = entry.at(&self.path)?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
            let found = found.at(self.named(name.to_bytes()))?;
            done.items += 1;
            match (FileType::from_raw_mode(found.st_mode), &mut read) {
                (FileType::Directory, _) => below.push(name.to_owned()),
                (FileType::RegularFile, Some(buffer)) => {
                    done.bytes += read_at(dir, name, buffer).at(self.named(name.to_bytes()))?;
                }
                _ => {}
            }
        }
        for name in below {
            let opened = rustix::fs::openat(dir, &name, DIRECTORY, Mode::empty());
            let opened = opened.at(self.named(name.to_bytes()))?;
            self.directory(opened.as_fd(), read.as_deref_mut(), done)?;
        }
        Ok(())
    }

    fn missing(&self) -> Result<Done> {
        let mut done = Done::default();
        for name in &self.list {
            if self.is_over() {
                break;
            }
            let absent = absent(name);
            match rustix::fs::statat(&self.root, &*absent, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => done.items += 1,
                Err(errno) => return Err(errno).at(self.named(&absent)),
                Ok(_) => return Err(Errno::EXIST).at(self.named(&absent)),
            }
        }
        Ok(done)
    }

    fn read(&self) -> Result<Done> {
        let (mut done, mut buffer) = (Done::default(), vec![0; BUFFER]);
        for name in &self.list {
            if self.is_over() {
                break;
            }
            let name_at = || self.named(name);
            let text = CString::new(&**name)
                .map_err(|_| Errno::INVAL)
                .at(name_at())?;
            done.bytes += read_at(self.root.as_fd(), &text, &mut buffer).at(name_at())?;
            done.items += 1;
        }
        Ok(done)
    }

    fn readers(&self) -> Result<Done> {
        let (items, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let one = |number: usize| -> Result<()> {
            let mut buffer = vec![0; BUFFER];
            let (before, after) = self.list.split_at(self.list.len() * number / READERS);
            for name in after.iter().chain(before) {
                if self.is_over() {
                    break;
                }
                let text = CString::new(&**name).map_err(|_| Errno::INVAL);
                let text = text.at(self.named(name))?;
                let read = read_at(self.root.as_fd(), &text, &mut buffer);
                bytes.fetch_add(read.at(self.named(name))?, Relaxed);
                items.fetch_add(1, Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let one = &one;
            let threads: Vec<_> = (0..READERS)
                .map(|number| scope.spawn(move || one(number)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or(Err(Error::Client {
                    what: "a reader panicked",
                }))
            })
        })?;
        Ok(Done {
            items: items.into_inner(),
            bytes: bytes.into_inner(),
            ..Done::default()
        })
    }

    fn random(&self) -> Result<Done> {
        let (mut done, mut page) = (Done::default(), [0; PAGE]);
        for line in &self.list {
            if self.is_over() {
                break;
            }
            let (name, offset) = place(line).ok_or(Errno::INVAL).at(self.named(line))?;
            let file = self.open(name)?;
            rustix::fs::fadvise(&file, 0, None, Advice::Random).at(self.named(name))?;
            let start = Instant::now();
            let read = rustix::io::pread(&file, &mut page, offset).at(self.named(name))?;
            done.times.push(start.elapsed().as_secs_f64());
            done.bytes += read as u64;
            done.items += 1;
        }
        Ok(done)
    }

    fn map(&self) -> Result<Done> {
        let mut done = Done::default();
        for name in &self.list {
            if self.is_over() {
                break;
            }
            let file = self.open(name)?;
            done.bytes += map::touch(&file, PAGE).at(self.named(name))? * PAGE as u64;
            done.items += 1;
        }
        Ok(done)
    }

    /// Once inside, nothing outside can be opened any more: this is the last that the process does.
    fn exec(&self) -> Result<Done> {
        let mut both = File::options();
        both.read(true).write(true);
        let null = both.open("/dev/null").at("/dev/null")?;
        rustix::process::chroot(&self.path).at(&self.path)?;
        rustix::process::chdir("/").at(&self.path)?;
        let mut done = Done::default();
        for name in &self.list {
            if self.is_over() {
                break;
            }
            let program = Path::new("/").join(OsStr::from_bytes(name));
            let stream = || null.try_clone().map(Stdio::from).at("/dev/null");
            let mut command = Command::new(&program);
            command.env_clear().envs(BIND_AND_STOP);
            command.stdin(stream()?).stdout(stream()?).stderr(stream()?);
            let status = command.status().at(&program)?;
            // The loader's code says whether all symbols were found, which is the tree's own matter.
            if status.code().is_none() {
                return Err(Error::Client {
                    what: "a program was ended by a signal",
                });
            }
            done.items += 1;
        }
        Ok(done)
    }
}

fn read_at(dir: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<u64> {
    let file = rustix::fs::openat(dir, name, FILE | OFlags::NOFOLLOW, Mode::empty())?;
    let mut bytes = 0;
    loop {
        match rustix::io::read(&file, &mut *buffer)? {
            0 => return Ok(bytes),
            read => bytes += read as u64,
        }
    }
}

/// A line of a list of places.
fn place(line: &[u8]) -> Option<(&[u8], u64)> {
    let tab = line.iter().rposition(|byte| *byte == b'\t')?;
    let (name, offset) = (line.get(..tab)?, line.get(tab + 1..)?);
    Some((name, std::str::from_utf8(offset).ok()?.parse().ok()?))
}

//! The FUSE protocol on top of a [`View`]: the only module that names `fuser`.
//!
//! The mode is "nothing is opened, everything is cached": OPEN, OPENDIR and FLUSH are answered
//! ENOSYS, after which the kernel never sends them again and keeps pages and listings; names,
//! attributes, missing names and link targets hold for ever. What was touched once costs no
//! request any more. With no OPEN there is nowhere to check permissions but in the kernel.
//!
//! A panic of a handler is caught, reported, and answered EIO; the thread goes on.

mod backing;
mod convert;
mod session;
mod store;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents,
    PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use backing::Backings;
use convert::{absent, errno, file_attr, file_type, is_regular, reply_xattr, ttl};

use grove_engine::Read;

use crate::ahead::Told;
use crate::caught::caught;
use crate::push::Pusher;
use crate::stats::Counters;
use crate::trace::Recorder;
use crate::view::{BLOCK_SIZE, Entry, Item, Lifetime, Lookup, NAME_MAX, Source, View, ViewError};
pub(crate) use session::{Ended, Running, ServeOptions, serve};

/// Receives what should be told to someone: damage found while serving, as one line of text.
/// Called from the threads that serve; must not touch the mount.
pub type ErrorSink = Arc<dyn Fn(&str) + Send + Sync>;

/// Requests the kernel may have under way ahead of need (read-ahead).
const MAX_BACKGROUND: u16 = 64;

/// Largest READ that the kernel may send, in bytes; the protocol states it as that of WRITE.
const MAX_READ: u32 = 1 << 20;

/// File systems that copies may lie on top of: none, so that an overlay can lie on the mount.
const STACK_DEPTH: u32 = 1;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Adapter<S> {
    view: Arc<View<S>>,
    counters: Arc<Counters>,
    pusher: Option<Pusher>,
    recorder: Option<Recorder>,
    /// Where the kernel reads large files by itself.
    backings: Option<Backings>,
    ended: Ended,
    on_end: Box<dyn Fn() + Send + Sync>,
    on_error: ErrorSink,
    xattrs: bool,
    /// The kernel takes ENOSYS for OPEN as "never ask again".
    no_open: bool,
    /// The same of OPENDIR.
    no_opendir: bool,
}

impl<S: Source> Adapter<S> {
    /// Runs a handler: damage and panics are reported, everything that fails has an errno.
    fn run<T>(
        &self,
        doing: &str,
        number: INodeNo,
        handler: impl FnOnce() -> Result<T, ViewError>,
    ) -> Result<T, Errno> {
        match self.guard(doing, number, handler) {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => {
                if error.is_damage() {
                    self.report(&error);
                }
                Err(errno(&error))
            }
            None => Err(Errno::EIO),
        }
    }

    /// Runs what must not end the thread that serves: `None` after a panic, which is reported.
    fn guard<T>(&self, doing: &str, number: INodeNo, run: impl FnOnce() -> T) -> Option<T> {
        match caught(run) {
            Ok(value) => Some(value),
            Err(what) => {
                self.tell(&format!(
                    "internal error: {doing} of inode {number}: {what}"
                ));
                None
            }
        }
    }

    fn report(&self, error: &ViewError) {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.tell(&text);
    }

    fn tell(&self, text: &str) {
        // The sink is someone else's code; a panic in it must not end the thread either.
        let _ = caught(|| (self.on_error)(text));
    }

    /// What follows from an answered read; whoever asked does not wait for it.
    fn note_read(&self, number: INodeNo, offset: u64, read: Read) {
        self.guard("noting a read", number, || {
            let len = read.len as u64;
            self.counters.data.served_bytes.add(len);
            if let (Some(pusher), Some(group)) = (&self.pusher, read.group) {
                pusher.note_read(group);
            }
            if let Some(recorder) = &self.recorder {
                recorder.note(number.0, offset, len, || self.view.path(number.0));
            }
        });
    }

    /// Lists a directory into a reply.
    fn list(
        &self,
        number: INodeNo,
        offset: u64,
        add: &mut dyn FnMut(&Item<'_>) -> bool,
    ) -> Result<(), Errno> {
        self.run("listing", number, || {
            self.view.readdir(number.0, offset, &mut |item| {
                if let Some(damage) = &item.damage {
                    self.report(damage);
                }
                add(item)
            })
        })
    }
}

impl<S> fmt::Debug for Adapter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// Methods that always answer with the same error: the trait's own would log each call.
macro_rules! refuse {
    ($counter:ident, $errno:ident: $($name:ident($($arg:ty),*) $reply:ty;)*) => { $(
        fn $name(&self, _: &Request, $(_: $arg,)* reply: $reply) {
            let _timed = self.counters.$counter.begin();
            reply.error(Errno::$errno);
        }
    )* };
}

impl<S: Source> Filesystem for Adapter<S> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut refused = false;
        let mut ask = |flag| config.add_capabilities(flag).is_ok();
        if self.backings.is_some() && !ask(InitFlags::FUSE_PASSTHROUGH) {
            self.backings = None;
            refused = true;
        }
        self.no_open = self.backings.is_none() && ask(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.no_opendir = ask(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        for flag in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_EXPORT_SUPPORT,
        ] {
            // An old kernel without it is slower, not wrong.
            ask(flag);
        }
        if refused {
            self.tell("the kernel has no passthrough: contents are not materialised");
        }
        if self.backings.is_some() && config.set_max_stack_depth(STACK_DEPTH).is_err() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Both only refuse zero and what is out of the protocol's range.
        let accepted = config.set_max_write(MAX_READ).is_ok()
            && config.set_max_background(MAX_BACKGROUND).is_ok();
        if accepted {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    fn destroy(&mut self) {
        // Waits for its thread, which has the view.
        self.pusher = None;
        self.ended.set();
        (self.on_end)();
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _timed = self.counters.lookup.begin();
        let found = self.run("lookup", parent, || {
            self.view.lookup(parent.0, name.as_bytes())
        });
        match found {
            Ok(Lookup::Found(Entry { attr, lifetime })) => {
                if let Some(pusher) = &self.pusher
                    && is_regular(&attr)
                {
                    self.guard("noting a lookup", parent, || {
                        pusher.note_found(attr.number);
                    });
                }
                reply.entry(&ttl(lifetime), &file_attr(&attr), Generation(0));
            }
            Ok(Lookup::Absent(Lifetime::None)) => reply.error(Errno::ENOENT),
            Ok(Lookup::Absent(lifetime)) => {
                reply.entry(&ttl(lifetime), &absent(), Generation(0));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, _: INodeNo, _: u64) {}

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _timed = self.counters.getattr.begin();
        match self.run("attributes", number, || self.view.getattr(number.0)) {
            Ok(entry) => reply.attr(&ttl(entry.lifetime), &file_attr(&entry.attr)),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let _timed = self.counters.readlink.begin();
        match self.run("link target", number, || self.view.readlink(number.0)) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _timed = self.counters.open.begin();
        if let Some(backings) = &self.backings {
            // What cannot be copied is read through the mount, where errors are told.
            let copy = self.run("opening", number, || self.view.plain_copy(number.0));
            return backings.open(number, copy.ok().flatten().as_ref(), reply);
        }
        match self.no_open {
            true => reply.error(Errno::ENOSYS),
            false => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _timed = self.counters.read.begin();
        if let Some(pusher) = &self.pusher
            && offset == 0
        {
            self.guard("noting a read", number, || pusher.note_asked(number.0));
        }
        BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let (into, _) = buffer.split_at_mut(size);
            let read = self.run("reading", number, || {
                self.view.read_grouped(number.0, offset, into)
            });
            match read {
                Ok(read) => {
                    reply.data(into.get(..read.len).unwrap_or_default());
                    self.note_read(number, offset, read);
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let _timed = self.counters.flush.begin();
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _timed = self.counters.other.begin();
        if let Some(backings) = &self.backings {
            backings.release(number);
        }
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _timed = self.counters.opendir.begin();
        let keep = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR;
        match self.no_opendir {
            true => reply.error(Errno::ENOSYS),
            false => reply.opened(FileHandle(0), keep),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _timed = self.counters.readdir.begin();
        let listed = self.list(number, offset, &mut |item| {
            let attr = &item.entry.attr;
            reply.add(
                INodeNo(attr.number),
                item.next,
                file_type(attr.mode),
                item.name,
            )
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _timed = self.counters.readdirplus.begin();
        let mut told = Vec::new();
        let listed = self.list(number, offset, &mut |item| {
            let attr = file_attr(&item.entry.attr);
            let ttl = ttl(item.entry.lifetime);
            let full = reply.add(attr.ino, item.next, item.name, &ttl, &attr, Generation(0));
            if !full && self.pusher.is_some() && is_regular(&item.entry.attr) {
                told.push(Told {
                    number: attr.ino.0,
                    size: attr.size,
                });
            }
            full
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
        if let Some(pusher) = &self.pusher {
            self.guard("noting a listing", number, || pusher.note_listed(told));
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        let _timed = self.counters.other.begin();
        reply.ok();
    }

    fn statfs(&self, _: &Request, number: INodeNo, reply: ReplyStatfs) {
        let _timed = self.counters.statfs.begin();
        match self.run("figures", number, || self.view.usage()) {
            Ok(usage) => {
                let name_max = NAME_MAX as u32;
                reply.statfs(
                    usage.blocks,
                    0,
                    0,
                    usage.files,
                    0,
                    BLOCK_SIZE,
                    name_max,
                    BLOCK_SIZE,
                );
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _timed = self.counters.getxattr.begin();
        if !self.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let value = self.run("attribute", number, || {
            self.view.xattr(number.0, name.as_bytes())
        });
        reply_xattr(size, value, reply);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let _timed = self.counters.listxattr.begin();
        if !self.xattrs {
            return reply.error(Errno::ENOSYS);
        }
        let names = self.run("attribute names", number, || {
            self.view.xattr_names(number.0)
        });
        reply_xattr(size, names, reply);
    }

    refuse! { other, ENOSYS:
        access(INodeNo, AccessFlags) ReplyEmpty;
        fsync(INodeNo, FileHandle, bool) ReplyEmpty;
        fsyncdir(INodeNo, FileHandle, bool) ReplyEmpty;
        lseek(INodeNo, FileHandle, i64, i32) ReplyLseek;
        poll(INodeNo, FileHandle, PollNotifier, PollEvents, PollFlags) ReplyPoll;
        bmap(INodeNo, u32, u64) ReplyBmap;
        getlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32) ReplyLock;
        setlk(INodeNo, FileHandle, LockOwner, u64, u64, i32, u32, bool) ReplyEmpty;
    }

    refuse! { other, ENOTTY:
        ioctl(INodeNo, FileHandle, IoctlFlags, u32, &[u8], u32) ReplyIoctl;
    }

    // The kernel refuses most of these itself, as the mount is read-only.
    refuse! { write, EROFS:
        setattr(
            INodeNo, Option<u32>, Option<u32>, Option<u32>, Option<u64>, Option<TimeOrNow>,
            Option<TimeOrNow>, Option<SystemTime>, Option<FileHandle>, Option<SystemTime>,
            Option<SystemTime>, Option<SystemTime>, Option<BsdFileFlags>
        ) ReplyAttr;
        mknod(INodeNo, &OsStr, u32, u32, u32) ReplyEntry;
        mkdir(INodeNo, &OsStr, u32, u32) ReplyEntry;
        unlink(INodeNo, &OsStr) ReplyEmpty;
        rmdir(INodeNo, &OsStr) ReplyEmpty;
        symlink(INodeNo, &OsStr, &Path) ReplyEntry;
        rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags) ReplyEmpty;
        link(INodeNo, INodeNo, &OsStr) ReplyEntry;
        write(
            INodeNo, FileHandle, u64, &[u8], WriteFlags, OpenFlags, Option<LockOwner>
        ) ReplyWrite;
        create(INodeNo, &OsStr, u32, u32, i32) ReplyCreate;
        setxattr(INodeNo, &OsStr, &[u8], i32, u32) ReplyEmpty;
        removexattr(INodeNo, &OsStr) ReplyEmpty;
        fallocate(INodeNo, FileHandle, u64, u64, i32) ReplyEmpty;
        copy_file_range(
            INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64, CopyFileRangeFlags
        ) ReplyWrite;
    }
}

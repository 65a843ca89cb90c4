//! Mounting and unmounting.
//!
//! With the right to mount, this calls mount(2) itself; without it, `fusermount3` does. [`mount`]
//! returns when the mount is served: it starts threads, so a program that wants to go into the
//! background must fork, or start itself again, before it calls it.

mod error;
mod helper;
mod table;

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::adapter::{Ended, ErrorSink, Running, ServeOptions, serve};
use crate::stats::Stats;
use crate::trace::{Recorder, Trace};
use crate::view::{Source, View, What};
pub use error::{MountError, Result};

const DEVICE: &str = "/dev/fuse";
const SUBTYPE: &str = "grove";
const KIND: &str = "fuse.grove";

/// How a mount shall be.
#[derive(Clone)]
#[non_exhaustive]
pub struct MountOptions {
    /// Let every user in, not only the one who mounts. Users other than root need
    /// `user_allow_other` in `/etc/fuse.conf` for it.
    pub allow_other: bool,
    /// Have the kernel enforce owners and modes; always so with `allow_other`. Off by default for
    /// users' own mounts: they see what is theirs to read anyway in the repository.
    pub enforce_modes: bool,
    /// Honour set-user-id, set-group-id and file capabilities.
    pub suid: bool,
    /// Allow device files.
    pub dev: bool,
    /// Read-ahead of the kernel in KiB; raised only where permitted.
    pub read_ahead_kb: u32,
    /// Threads that serve; `None` for as many as processors, from 2 to 8.
    pub threads: Option<NonZeroUsize>,
    /// Give the kernel small files that were decoded together with what it asked for. Only
    /// measurements have a reason not to.
    pub push: bool,
    /// Write the order in which parts of files are read for the first time to this file. Nothing is
    /// pushed meanwhile: what is pushed is not seen to be read.
    pub record: Option<PathBuf>,
    /// Read what such a file tells into the kernel's cache, in the background.
    pub prefetch: Option<PathBuf>,
    /// Let the kernel read large files by itself, from plain copies that are made in the repository's
    /// cache when a file is first opened. Needs root; each open and close then costs a request.
    pub materialise: bool,
    /// Name of what is mounted, for the table of mounts.
    pub name: String,
    /// Receives damage found while serving.
    pub on_error: ErrorSink,
}

impl Default for MountOptions {
    fn default() -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            allow_other: root,
            enforce_modes: root,
            suid: false,
            dev: false,
            read_ahead_kb: 1024,
            threads: None,
            push: true,
            record: None,
            prefetch: None,
            materialise: false,
            name: SUBTYPE.to_owned(),
            on_error: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountOptions")
            .field("allow_other", &self.allow_other)
            .field("enforce_modes", &self.enforce_modes)
            .field("suid", &self.suid)
            .field("dev", &self.dev)
            .field("read_ahead_kb", &self.read_ahead_kb)
            .field("threads", &self.threads)
            .field("push", &self.push)
            .field("record", &self.record)
            .field("prefetch", &self.prefetch)
            .field("materialise", &self.materialise)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Whether a mount that is in use may be detached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Umount {
    /// Refuse with [`MountError::Busy`].
    Unused,
    /// Take it out of the tree now; it ends when the last user is gone.
    Lazy,
}

/// Mounts what the source has; on return the mount is being served.
pub fn mount<S: Source>(
    source: Arc<S>,
    what: What,
    at: &Path,
    options: &MountOptions,
) -> Result<Mounted> {
    let view = View::new(source, what)?;
    let at = mount_point(at)?;
    let traces = Traces::open(options)?;
    let device = attach(&at, options)?;
    start(view, device, &at, options, traces)
}

/// Unmounts a Grove mount of whichever process.
pub fn umount(at: &Path, how: Umount) -> Result<()> {
    let point = resolve(at)?;
    match table::at(&point)? {
        Some(row) if row.kind == KIND => detach(&point, how),
        _ => Err(MountError::NotMounted {
            path: at.to_owned(),
        }),
    }
}

/// Whether a path is a mount whose server has died. Asks the server, so it waits for one that
/// lives but does not answer.
pub fn is_stale(at: &Path) -> bool {
    // Attributes may be in the kernel's cache; these figures never are.
    matches!(
        rustix::fs::statfs(at),
        Err(Errno::NOTCONN | Errno::CONNABORTED)
    )
}

/// Unmounts a Grove mount whose server has died; whether there was one.
pub fn clear_stale(at: &Path) -> Result<bool> {
    if !is_stale(at) {
        return Ok(false);
    }
    umount(at, Umount::Lazy).map(|()| true)
}

/// A running mount. Dropped, it is detached.
#[derive(Debug)]
pub struct Mounted {
    running: Option<Running>,
    unmounter: Unmounter,
}

/// Ends a mount from elsewhere, from the thread that receives signals, say.
#[derive(Debug, Clone)]
pub struct Unmounter {
    point: PathBuf,
    /// Tells our mount from others on the same point. Used again once we have ended.
    device: (u32, u32),
    ended: Ended,
}

impl Mounted {
    /// The mount point, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        &self.unmounter.point
    }

    /// Requests served so far.
    pub fn stats(&self) -> Stats {
        self.running
            .as_ref()
            .map(Running::stats)
            .unwrap_or_default()
    }

    /// What can end this mount while [`Mounted::wait`] waits.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Serves until someone unmounts.
    pub fn wait(mut self) -> Result<()> {
        let point = self.unmounter.point.clone();
        match self.running.take() {
            Some(running) => running.join().map_err(MountError::io("serve", point)),
            None => Ok(()),
        }
    }

    /// Unmounts. Serving ends when nobody uses the mount any more: [`Mounted::wait`] for it.
    pub fn unmount(&self, how: Umount) -> Result<()> {
        self.unmounter.unmount(how)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.running.is_some() {
            // Best effort: nobody is left to be told.
            let _ = self.unmounter.unmount(Umount::Lazy);
        }
    }
}

impl Unmounter {
    /// Unmounts; a mount that is gone already is no error.
    pub fn unmount(&self, how: Umount) -> Result<()> {
        if self.ended.is_set() {
            return Ok(());
        }
        match table::at(&self.point)? {
            Some(row) if row.device == self.device => detach(&self.point, how),
            _ if table::read()?.iter().any(|row| row.device == self.device) => {
                // Covered by another mount, or moved elsewhere: not ours to undo.
                Err(MountError::Busy {
                    path: self.point.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// The directory to mount at, checked.
fn mount_point(at: &Path) -> Result<PathBuf> {
    let point = resolve(at)?;
    if let Some(row) = table::at(&point)?
        && row.kind == KIND
    {
        return Err(match is_stale(&point) {
            true => MountError::Stale { path: point },
            false => MountError::AlreadyMounted { path: point },
        });
    }
    let meta = fs::metadata(&point).map_err(MountError::io("look at", &point))?;
    match meta.is_dir() {
        true => Ok(point),
        false => Err(MountError::NotADirectory { path: point }),
    }
}

/// The absolute path without symbolic links, also of a mount whose server has died.
fn resolve(at: &Path) -> Result<PathBuf> {
    let error = match at.canonicalize() {
        Ok(point) => return Ok(point),
        Err(error) => error,
    };
    let dead = error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error());
    let (Some(parent), Some(name), true) = (at.parent(), at.file_name(), dead) else {
        return Err(MountError::io("find", at)(error));
    };
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    parent
        .canonicalize()
        .map(|dir| dir.join(name))
        .map_err(MountError::io("find", at))
}

/// Mounts, by ourselves or through the helper; what is returned is the device to serve.
fn attach(at: &Path, options: &MountOptions) -> Result<OwnedFd> {
    let device = open_device().map_err(|source| MountError::NoDevice { source })?;
    let mut flags = MountFlags::RDONLY | MountFlags::NOATIME;
    flags.set(MountFlags::NOSUID, !options.suid);
    flags.set(MountFlags::NODEV, !options.dev);
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    for option in access_options(options) {
        data.push(',');
        data.push_str(option);
    }
    let data = CString::new(data).map_err(|_| invalid("options", at))?;
    match rustix::mount::mount(options.name.as_str(), at, KIND, flags, data.as_c_str()) {
        Ok(()) => Ok(device.into()),
        Err(Errno::PERM) => helper::mount(at, &helper_options(options)),
        Err(error) => Err(MountError::io("mount at", at)(error)),
    }
}

/// Opens the device at a number that no standard stream has.
fn open_device() -> io::Result<File> {
    let device = OpenOptions::new().read(true).write(true).open(DEVICE)?;
    if device.as_raw_fd() > 2 {
        return Ok(device);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&device, 3)?.into())
}

fn access_options(options: &MountOptions) -> impl Iterator<Item = &'static str> {
    let enforce = options.enforce_modes || options.allow_other;
    let enforce = enforce.then_some("default_permissions");
    enforce
        .into_iter()
        .chain(options.allow_other.then_some("allow_other"))
}

fn helper_options(options: &MountOptions) -> String {
    // It takes a comma or backslash in a name when a backslash stands before.
    let name = options.name.replace('\\', "\\\\").replace(',', "\\,");
    let mut text = format!("ro,noatime,fsname={name},subtype={SUBTYPE}");
    let flags = [("suid", options.suid), ("dev", options.dev)];
    let flags = flags
        .into_iter()
        .filter(|(_, on)| *on)
        .map(|(flag, _)| flag);
    for option in flags.chain(access_options(options)) {
        text.push(',');
        text.push_str(option);
    }
    text
}

/// Files of traces, opened before there is a mount to be taken away again.
struct Traces {
    recorder: Option<Recorder>,
    prefetch: Option<Trace<BufReader<File>>>,
}

impl Traces {
    fn open(options: &MountOptions) -> Result<Self> {
        let read = |path: &PathBuf| {
            let file = File::open(path).and_then(|file| Trace::open(BufReader::new(file)));
            file.map_err(MountError::io("read the trace", path))
        };
        let create = |path: &PathBuf| {
            Recorder::create(path).map_err(MountError::io("write the trace", path))
        };
        // Read first: both may be the same file.
        let prefetch = options.prefetch.as_ref().map(read).transpose()?;
        let recorder = options.record.as_ref().map(create).transpose()?;
        Ok(Self { recorder, prefetch })
    }
}

/// Serves a fresh mount and makes sure that it answers.
fn start<S: Source>(
    view: View<S>,
    device: OwnedFd,
    at: &Path,
    options: &MountOptions,
    traces: Traces,
) -> Result<Mounted> {
    let Traces { recorder, prefetch } = traces;
    let serving = || {
        let row = table::at(at)?.filter(|row| row.kind == KIND);
        let row = row.ok_or_else(|| MountError::NotMounted {
            path: at.to_owned(),
        })?;
        let how = ServeOptions {
            threads: threads(options),
            push: options.push,
            recorder,
            materialise: options.materialise,
            on_error: Arc::clone(&options.on_error),
        };
        let running = serve(view, device, how);
        Ok((running.map_err(MountError::io("serve", at))?, row))
    };
    let (running, row) = match serving() {
        Ok(serving) => serving,
        Err(error) => {
            // Best effort: the first error is the one to tell.
            let _ = detach(at, Umount::Lazy);
            return Err(error);
        }
    };
    let ended = running.ended();
    let unmounter = Unmounter {
        point: at.to_owned(),
        device: row.device,
        ended,
    };
    let mut mounted = Mounted {
        running: Some(running),
        unmounter,
    };
    rustix::fs::stat(at).map_err(MountError::io("look at", at))?;
    raise_read_ahead(row.device, options.read_ahead_kb);
    if let (Some(trace), Some(running)) = (prefetch, &mut mounted.running) {
        let device = rustix::fs::makedev(row.device.0, row.device.1);
        let told = Arc::clone(&options.on_error);
        let started = running.prefetch(trace, at.to_owned(), device, told);
        started.map_err(MountError::io("prefetch", at))?;
    }
    Ok(mounted)
}

fn threads(options: &MountOptions) -> usize {
    let processors = || {
        thread::available_parallelism()
            .map_or(2, NonZeroUsize::get)
            .clamp(2, 8)
    };
    options.threads.map_or_else(processors, NonZeroUsize::get)
}

/// Only root may; a smaller read-ahead is slower, not wrong.
fn raise_read_ahead((major, minor): (u32, u32), kib: u32) {
    let _ = fs::write(
        format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"),
        kib.to_string(),
    );
}

fn detach(at: &Path, how: Umount) -> Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, how == Umount::Lazy);
    match rustix::mount::unmount(at, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => helper::umount(at, how == Umount::Lazy),
        Err(Errno::BUSY) => Err(MountError::Busy {
            path: at.to_owned(),
        }),
        Err(Errno::INVAL) => Err(MountError::NotMounted {
            path: at.to_owned(),
        }),
        Err(error) => Err(MountError::io("unmount", at)(error)),
    }
}

fn invalid(what: &'static str, at: &Path) -> MountError {
    MountError::io(what, at)(io::Error::from(io::ErrorKind::InvalidInput))
}

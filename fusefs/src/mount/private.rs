//! A session of its own for one mount.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{MountError, Result};
use super::traces::Traces;
use super::umount::{Umount, detach, is_stale, take_from};
use super::{KIND, MountOptions, device, point, table};
use crate::adapter::{Ended, Running, ServeOptions, serve};
use crate::daemon::Reporter;
use crate::stats::Stats;
use crate::view::{Source, View, What};

/// Mounts what the source has; on return the mount is being served.
pub fn mount<S: Source>(
    source: Arc<S>,
    what: What,
    at: &Path,
    options: &MountOptions,
) -> Result<Mounted> {
    let view = Arc::new(View::with_numbering(source, what, options.numbering)?);
    let has_xattrs = match what {
        What::Commit(id) => view.has_xattrs(&id).unwrap_or(true),
        What::All => true,
    };
    let xattrs = options.xattrs && has_xattrs;
    let at = point::check(at)?;
    let Traces { recorder, prefetch } = Traces::open(options)?;
    let device = device::attach(&at, options)?;
    let serving = || {
        let row = table::at(&at)?.filter(|row| row.kind == KIND);
        let row = row.ok_or_else(|| MountError::NotMounted { path: at.clone() })?;
        let how = ServeOptions {
            threads: device::threads(options.threads),
            push: options.push,
            recorder,
            materialise: options.materialise,
            on_error: Arc::clone(&options.on_error),
            xattrs,
            on_end: Box::new(|| {}),
        };
        let running = serve(view, device, how).map_err(MountError::io("serve", &at))?;
        Ok((running, row.device))
    };
    let (running, device) = match serving() {
        Ok(serving) => serving,
        Err(error) => {
            // Best effort: the first error is the one to tell.
            let _ = detach(&at, Umount::Lazy);
            return Err(error);
        }
    };
    let unmounter = Unmounter {
        point: at.clone(),
        device,
        ended: running.ended(),
    };
    let mut mounted = Mounted {
        running: Some(running),
        unmounter,
        xattrs,
    };
    rustix::fs::stat(&at).map_err(MountError::io("look at", &at))?;
    device::raise_read_ahead(device, options.read_ahead_kb);
    if let (Some(trace), Some(running)) = (prefetch, &mut mounted.running) {
        let number = rustix::fs::makedev(device.0, device.1);
        let started = running.prefetch(trace, at.clone(), number, Arc::clone(&options.on_error));
        started.map_err(MountError::io("prefetch", &at))?;
    }
    Ok(mounted)
}

/// A running mount. Dropped, it is detached.
#[derive(Debug)]
pub struct Mounted {
    running: Option<Running>,
    unmounter: Unmounter,
    xattrs: bool,
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

    /// Answers, from a thread of its own, whoever of this user or root asks for the figures of
    /// this session, until the value is dropped.
    pub fn report(&self) -> Result<Reporter> {
        let running = self.running.as_ref();
        let running = running.ok_or_else(|| MountError::NotMounted {
            path: self.path().to_owned(),
        })?;
        Reporter::start(self.unmounter.device, self.xattrs, running.stats_source())
    }

    /// What can end this mount while [`Mounted::wait`] waits.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Serves until someone unmounts.
    pub fn wait(mut self) -> Result<()> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let result = running.join();
        // Best effort: the first error is the one to tell.
        let _ = self.unmounter.clear();
        result.map_err(MountError::io("serve", self.path()))
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
        // Covered by another mount, or moved elsewhere, it is not ours to undo.
        match table::read()?.iter().any(|row| row.device == self.device) {
            true => take_from(&self.point, self.device, how),
            false => Ok(()),
        }
    }

    /// Takes away what is left when serving is over: a connection that was aborted leaves its mount
    /// behind, and so do threads that failed.
    fn clear(&self) -> Result<()> {
        if !self.ended.is_set() {
            return self.unmount(Umount::Lazy);
        }
        let is_ours = |row: table::Row| row.device == self.device && row.point == self.point;
        match table::read()?.into_iter().any(is_ours) && is_stale(&self.point) {
            true => take_from(&self.point, self.device, Umount::Lazy),
            false => Ok(()),
        }
    }
}

//! A session: the threads that serve a view, from its start to its end.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use fuser::{BackgroundSession, Config, Session, SessionACL};

use super::backing::Backings;
use super::store::Device;
use super::{Adapter, ErrorSink};
use crate::prefetch::{Contents, Replay};
use crate::push::{Files, Pages, Pusher};
use crate::stats::{Counters, Stats};
use crate::trace::{Recorder, Trace};
use crate::view::{Source, View};

/// How a view shall be served.
pub(crate) struct ServeOptions {
    /// Threads that answer requests.
    pub(crate) threads: usize,
    /// Give the kernel files that it did not ask for.
    pub(crate) push: bool,
    /// Where to note what is read first.
    pub(crate) recorder: Option<Recorder>,
    /// Let the kernel read large files from plain copies.
    pub(crate) materialise: bool,
    /// Receives what should be told to someone.
    pub(crate) on_error: ErrorSink,
    /// Whether extended attributes are served. If not, the kernel is told so at its first
    /// question, and asks no more: it cannot keep the answers.
    pub(crate) xattrs: bool,
    /// Called when the session is over; must not wait for anything.
    pub(crate) on_end: Box<dyn Fn() + Send + Sync>,
}

/// Serves a view over an open and mounted `/dev/fuse`, on threads of its own.
pub(crate) fn serve<S: Source>(
    view: Arc<View<S>>,
    device: OwnedFd,
    options: ServeOptions,
) -> io::Result<Running> {
    let counters = Arc::new(Counters::default());
    let ended = Ended::default();
    let pages: Arc<dyn Pages> = Arc::new(Device::new(device.try_clone()?));
    let start_pusher = || {
        let files = Arc::clone(&view) as Arc<dyn Files>;
        let on_error = Arc::clone(&options.on_error);
        Pusher::start(files, Arc::clone(&pages), Arc::clone(&counters), on_error)
    };
    let parts = Parts {
        contents: Arc::clone(&view) as Arc<dyn Contents>,
        pages: Arc::clone(&pages),
        counters: Arc::clone(&counters),
    };
    // A file that is pushed is not seen to be read.
    let push = options.push && options.recorder.is_none();
    let adapter = Adapter {
        pusher: push.then(start_pusher).transpose()?,
        view,
        counters,
        recorder: options.recorder,
        backings: options.materialise.then(Backings::new),
        ended: ended.clone(),
        on_error: options.on_error,
        xattrs: options.xattrs,
        on_end: options.on_end,
        no_open: false,
        no_opendir: false,
    };
    let mut config = Config::default();
    config.n_threads = Some(options.threads);
    // Who may come in is decided by the kernel (`allow_other`), so no second check here.
    config.acl = SessionACL::All;
    let session = Session::from_fd(adapter, device, SessionACL::All, config)?;
    Ok(Running {
        session: session.spawn()?,
        parts,
        prefetch: None,
        ended,
    })
}

/// Whether a session is over: nothing of it is mounted then.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended(Arc<AtomicBool>);

impl Ended {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A session that is being served.
pub(crate) struct Running {
    session: BackgroundSession,
    parts: Parts,
    prefetch: Option<JoinHandle<()>>,
    ended: Ended,
}

/// What is shared with the threads that serve.
struct Parts {
    contents: Arc<dyn Contents>,
    pages: Arc<dyn Pages>,
    counters: Arc<Counters>,
}

impl Running {
    /// What was served so far, and what it took.
    pub(crate) fn stats(&self) -> Stats {
        let cache = self.parts.contents.cache_counts();
        self.parts.counters.snapshot(cache)
    }

    /// The same for other threads, and beyond the end of the session.
    pub(crate) fn stats_source(&self) -> impl Fn() -> Stats + Send + use<> {
        let counters = Arc::clone(&self.parts.counters);
        let contents = Arc::clone(&self.parts.contents);
        move || counters.snapshot(contents.cache_counts())
    }

    /// Tells the end of the session.
    pub(crate) fn ended(&self) -> Ended {
        self.ended.clone()
    }

    /// Replays a trace beside serving; `root` is where the mount is, `device` its number.
    pub(crate) fn prefetch(
        &mut self,
        trace: Trace<BufReader<File>>,
        root: PathBuf,
        device: u64,
        on_error: ErrorSink,
    ) -> io::Result<()> {
        let replay = Replay {
            contents: Arc::clone(&self.parts.contents),
            pages: Arc::clone(&self.parts.pages),
            counters: Arc::clone(&self.parts.counters),
            root,
            device,
        };
        let ended = self.ended();
        let run = move || {
            let result = replay.run(trace);
            if let Err(error) = result
                && !ended.is_set()
                && error.kind() != io::ErrorKind::NotConnected
            {
                on_error(&format!("prefetch: {error}"));
            }
        };
        let thread = thread::Builder::new().name("grove-prefetch".into());
        self.prefetch = Some(thread.spawn(run)?);
        Ok(())
    }

    /// Waits until the file system is unmounted.
    pub(crate) fn join(self) -> io::Result<()> {
        const ECONNABORTED: i32 = 103;
        let result = self.session.join();
        if let Some(prefetch) = self.prefetch {
            // A panic there was told on its own; nothing depends on the thread.
            let _ = prefetch.join();
        }
        match result {
            // The end of a connection by `umount --force`.
            Err(error) if error.raw_os_error() == Some(ECONNABORTED) => Ok(()),
            result => result,
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("counters", &self.parts.counters)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

//! The daemon: takes clients, watches what is mounted, and leaves when nothing is.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use grove_engine::{ObjectId, Repository};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::bell::{self, Bell, Wakes};
use super::place::{Place, PlaceLock, is_trusted, namespace};
use super::protocol::{Reply, Request, Wanted, receive, send, send_with};
use super::sessions::{Kept, Sessions};
use super::{DaemonOptions, Stay};
use crate::adapter::{ErrorSink, Running};
use crate::mount::umount::{clear_dead, clear_device, take_away};
use crate::mount::{MountError, Result, Umount, source_name, table};
use crate::view::Numbering;

/// How long a client may take to say what it wants, and to attach what it got.
const PATIENCE: Duration = Duration::from_secs(60);
/// A daemon to which nobody has come in this time has been started in vain.
const LONELY: Duration = Duration::from_secs(60);
/// After something has failed.
const RETRY: Duration = Duration::from_secs(1);
/// The first thread's table of mounts, which tells its changes to `poll`.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Serves the mounts of a repository that share a session.
#[derive(Debug)]
pub struct Daemon {
    house: Arc<House>,
    listener: UnixListener,
    stay: Stay,
    wakes: Wakes,
}

/// What the threads of a daemon share.
struct House {
    repository: Arc<Repository>,
    place: Place,
    namespace: (u64, u64),
    sessions: Mutex<Sessions>,
    kept: Mutex<Kept>,
    on_error: ErrorSink,
    /// Wakes the main thread.
    bell: Bell,
}

/// What woke the main thread.
#[derive(Debug, Clone, Copy)]
struct Woken {
    client: bool,
    signal: bool,
    timeout: bool,
}

impl Daemon {
    /// Begins to listen. Clears away what a daemon left that was killed.
    ///
    /// The caller is alone in doing so, as it was started by
    /// [`mount_shared`](super::mount_shared).
    pub fn start(
        repository: Arc<Repository>,
        place: Place,
        options: DaemonOptions,
        stay: Stay,
    ) -> Result<Self> {
        clear_dead(&source_name(repository.path(), None))?;
        let on_error = Arc::clone(&options.on_error);
        let listener = place.listen()?;
        let pair = bell::pair().map_err(MountError::io("make a socket in", place.dir()))?;
        let (bell, wakes) = pair;
        let sessions = Sessions::new(Arc::clone(&repository), options, bell.clone())?;
        let house = House {
            namespace: namespace()?,
            sessions: Mutex::new(sessions),
            kept: Mutex::default(),
            repository,
            place,
            on_error,
            bell,
        };
        Ok(Self {
            house: Arc::new(house),
            listener,
            stay,
            wakes,
        })
    }

    /// The same, for a program that was started by itself.
    ///
    /// # Errors
    /// [`MountError::Served`] if there is a daemon already.
    pub fn start_alone(
        repository: Arc<Repository>,
        place: Place,
        options: DaemonOptions,
        stay: Stay,
    ) -> Result<Self> {
        let _lock = place.lock()?;
        if place.connect()?.is_some() {
            let repository = place.repository().to_owned();
            return Err(MountError::Served { repository });
        }
        Self::start(repository, place, options, stay)
    }

    /// Serves until nothing is mounted any more, or until something can be read from `signals`:
    /// then everything is unmounted, and what is in use is detached. Returns when the last user of
    /// the sessions is gone; once nothing is mounted that can be seen from here, also on a signal.
    pub fn run(self, signals: BorrowedFd<'_>) -> Result<()> {
        let table = File::open(MOUNTINFO).map_err(MountError::io("open", MOUNTINFO))?;
        let mut met = self.stay == Stay::UntilSignal;
        let mut told = String::new();
        let lock = loop {
            match self.turn(signals, &table, &mut met) {
                Ok(None) => {}
                Ok(Some(lock)) => break lock,
                // Whatever fails here (descriptors may have run out), the mounts are served on.
                Err(error) => {
                    let words = with_causes(&error);
                    if words != told {
                        (self.house.on_error)(&words);
                        told = words;
                    }
                    thread::sleep(RETRY);
                    // Nothing else may ever happen that wakes this thread to try again.
                    self.house.bell.ring();
                }
            }
        };
        self.house.place.remove(&lock);
        drop((lock, self.listener));
        let sessions = lock_of(&self.house.sessions).leave();
        linger(sessions, signals)
    }

    /// Waits for something to happen, and sees to it. The result is the lock under which to leave.
    fn turn(
        &self,
        signals: BorrowedFd<'_>,
        table: &File,
        met: &mut bool,
    ) -> Result<Option<PlaceLock>> {
        let house = &self.house;
        let woken = self.wait(signals, table, (!*met).then_some(LONELY))?;
        if woken.signal {
            let lock = house.place.lock()?;
            rustix::io::read(signals, &mut [0])
                .map_err(MountError::io("read", "the socket of signals"))?;
            house.take_all_away();
            return Ok(Some(lock));
        }
        if woken.client {
            *met = true;
            self.take_clients()?;
        }
        house.count()?;
        let may_leave = self.stay == Stay::WhileMounted && (*met || woken.timeout);
        if !may_leave || !lock_of(&house.kept).is_idle() {
            return Ok(None);
        }
        let lock = house.place.lock()?;
        // Nobody starts another daemon before the lock is given back.
        Ok((!self.take_clients()?).then_some(lock))
    }

    fn wait(
        &self,
        signals: BorrowedFd<'_>,
        table: &File,
        patience: Option<Duration>,
    ) -> Result<Woken> {
        let timeout = patience.map(|patience| Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: 0,
        });
        let mut fds = [
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            PollFd::new(&self.wakes, PollFlags::IN),
            PollFd::new(table, PollFlags::PRI),
        ];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))
            .map_err(MountError::io("wait for", self.house.place.dir()))?;
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let woken = Woken {
            client: is_ready(&fds[0]),
            signal: is_ready(&fds[1]),
            timeout: ready == 0,
        };
        self.wakes.clear();
        Ok(woken)
    }

    /// Lets in everyone who waits at the door; whether there was someone.
    fn take_clients(&self) -> Result<bool> {
        let door = || MountError::io::<io::Error>("listen at", self.house.place.dir());
        self.listener.set_nonblocking(true).map_err(door())?;
        let mut any = false;
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(door()(error)),
            };
            any = true;
            // Counted before anyone can find the house empty.
            let guest = Guest::come(&self.house, None)?;
            let name = thread::Builder::new().name("client".to_owned());
            name.spawn(move || guest.serve(&stream)).map_err(door())?;
        }
    }
}

/// Waits until the sessions end, or for a signal.
fn linger(sessions: Vec<Running>, signals: BorrowedFd<'_>) -> Result<()> {
    let nowhere = |doing| MountError::io::<io::Error>(doing, "sessions");
    let (ended, end) = UnixStream::pair().map_err(nowhere("wait for"))?;
    let waiter = thread::spawn(move || {
        let mut result = Ok(());
        for session in sessions {
            result = result.and(session.join());
        }
        drop(end);
        result
    });
    let mut fds = [
        PollFd::new(&ended, PollFlags::IN),
        PollFd::from_borrowed_fd(signals, PollFlags::IN),
    ];
    rustix::io::retry_on_intr(|| poll(&mut fds, None))
        .map_err(MountError::io("wait for", "sessions"))?;
    if fds[0].revents().is_empty() {
        return Ok(());
    }
    let result = waiter
        .join()
        .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
    result.map_err(nowhere("serve"))
}

impl fmt::Debug for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("House")
            .field("place", &self.place)
            .field("sessions", &self.sessions)
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}

impl House {
    fn count(&self) -> Result<()> {
        let mut sessions = lock_of(&self.sessions);
        for device in sessions.dead() {
            // Whoever aborted the session left dead mounts behind. What fails is tried again.
            clear_device(device)?;
            sessions.bury(device);
        }
        let devices = sessions.devices();
        drop(sessions);
        lock_of(&self.kept).count(&table::read()?, &devices);
        Ok(())
    }

    /// Unmounts everything that is mounted of us where we can see it.
    fn take_all_away(&self) {
        for device in lock_of(&self.sessions).devices() {
            if let Err(busy) = take_away(device, Umount::Unused) {
                (self.on_error)(&format!("{busy}; detached until the last user is gone"));
                if let Err(error) = take_away(device, Umount::Lazy) {
                    (self.on_error)(&with_causes(&error));
                }
            }
        }
    }
}

/// A client that is being served. As long as there is one the daemon stays.
#[derive(Debug)]
struct Guest {
    house: Arc<House>,
    commit: Option<ObjectId>,
}

impl Guest {
    fn come(house: &Arc<House>, commit: Option<ObjectId>) -> Result<Self> {
        let lease = |id: &ObjectId| house.repository.lease(&[*id]);
        lock_of(&house.kept).come(commit.as_ref(), lease)?;
        let house = Arc::clone(house);
        Ok(Self { house, commit })
    }

    /// Answers one request, and stays until the client is done with the answer.
    fn serve(self, stream: &UnixStream) {
        // Whatever goes wrong here is the client's to notice: its connection ends.
        let _ = self.answer(stream);
    }

    fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        // An accepted socket does not inherit it, but for the sake of certainty.
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        if !is_trusted(stream) {
            return Ok(());
        }
        let request = match receive::<Request>(stream)? {
            Some((request, _)) => request,
            None => return Ok(()),
        };
        match request {
            Request::Stats => {
                let reports = lock_of(&self.house.sessions).reports();
                send(stream, &Reply::Stats(reports))
            }
            Request::Mount(wanted) => match self.prepare(&wanted) {
                Ok((commit, tree, _guest)) => {
                    let commit = commit.map(|id| id.to_string());
                    send_with(stream, &Reply::Mounted { commit }, tree)?;
                    // Its end says that the client has attached the tree, or has given up.
                    let mut stream = stream;
                    stream.read(&mut [0]).map(drop)
                }
                Err(error) => {
                    let message = with_causes(&error);
                    send(stream, &Reply::Refused { message })
                }
            },
        }
    }

    /// The mount that a client wants, detached, and what keeps its commit.
    fn prepare(&self, wanted: &Wanted) -> Result<(Option<ObjectId>, std::os::fd::OwnedFd, Self)> {
        let house = &self.house;
        if wanted.namespace != house.namespace {
            return Err(MountError::OtherNamespace);
        }
        let rev = wanted.rev.as_deref();
        let commit = rev
            .map(|rev| house.repository.resolve_rev(rev))
            .transpose()?;
        let guest = Self::come(house, commit)?;
        let source = {
            let mut sessions = lock_of(&house.sessions);
            if let Some(id) = &commit {
                sessions.prepare(id);
            }
            let kind = sessions.kind_for(commit.as_ref(), wanted.xattrs);
            sessions.of(kind, house.place.dir())?
        };
        let numbering = match wanted.unique_inodes {
            true => Numbering::Unique,
            false => Numbering::Shared,
        };
        let tree = source.cut(commit.as_ref(), numbering, wanted.attrs)?;
        Ok((commit, tree, guest))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        lock_of(&self.house.kept).go(self.commit.as_ref());
        self.house.bell.ring();
    }
}

fn with_causes(error: &MountError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Serving: the daemon of a repository, and the process of one mount.

use std::env;
use std::ffi::{OsStr, c_int};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use grove_engine::Repository;
use grove_engine::error::IoResultExt;
use grove_fusefs::daemon::{Daemon, DaemonOptions, Place, Stay};
use grove_fusefs::{MountOptions, Umount, Unmounter, What, clear_stale, mount, overlay};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::background::READY;
use super::log::{self, Log};
use super::{Job, explain, warn_of_less};
use crate::cli::Globals;
use crate::exit::Result;

/// Names the socket of a service manager that waits until a service is ready.
const NOTIFY: &str = "NOTIFY_SOCKET";

/// Serves all mounts of the repository.
pub fn daemon(in_background: bool, globals: &Globals) -> Result<ExitCode> {
    detach_from_terminal(in_background);
    let place = Place::of(&globals.repo_path());
    let repo = match &place {
        Ok(place) => Repository::open(place.repository())?,
        // Its error says more.
        Err(_) => globals.repository()?,
    };
    let place = place?;
    let mut options = DaemonOptions::default();
    let log = log_of(&repo, in_background);
    options.on_error = Arc::new(move |text| log.tell(text));
    let signals = listen().at("/")?;
    let repo = Arc::new(repo);
    let daemon = match in_background {
        true => Daemon::start(repo, place, options, Stay::WhileMounted)?,
        false => Daemon::start_alone(repo, place, options, Stay::UntilSignal)?,
    };
    settle(true, in_background)?;
    daemon.run(signals.as_fd())?;
    Ok(ExitCode::SUCCESS)
}

/// Serves one mount.
pub fn private(job: &Job, in_background: bool, globals: &Globals) -> Result<ExitCode> {
    // Serving goes on in another working directory.
    let path = globals.repo_path();
    let path = fs::canonicalize(&path).at(&path)?;
    let repo = Repository::open(&path)?;
    let mut options = MountOptions::default();
    options.name = format!("grove:{}", path.display());
    let what = match &job.rev {
        None => What::All,
        Some(rev) => {
            let id = repo.resolve_rev(rev)?;
            options.name.push_str(&format!("#{id}"));
            What::Commit(id)
        }
    };
    options.allow_other |= job.options.allow_other;
    options.attrs = job.options.attrs;
    options.xattrs = job.options.xattrs;
    options.numbering = job.options.numbering();
    options.record.clone_from(&job.options.record);
    options.prefetch.clone_from(&job.options.prefetch);
    options.materialise = job.options.materialise;
    let log = log_of(&repo, in_background);
    options.on_error = Arc::new(move |text| log.tell(text));
    clear_stale(&job.dir)?;
    // Before the mount: who sees it may send a signal at once.
    let signals = listen().at("/")?;
    let mounted = mount(Arc::new(repo), what, &job.dir, &options).map_err(explain)?;
    if let Some(upper) = &job.options.overlay {
        overlay(&job.dir, upper)?;
    }
    // Its name is anyone's to take; then only the figures cannot be asked for.
    let reporter = mounted.report();
    if let Err(error) = &reporter {
        (options.on_error)(&error.to_string());
    }
    let unmounter = mounted.unmounter();
    thread::spawn(move || unmount_on_signal(signals, &unmounter));
    // Not before: of a directory that systemd mounts when it is looked at (autofs), those who look
    // wait for the mount, all but the process group of the one who mounts.
    if !in_background {
        // In the background that is for whoever has started it.
        warn_of_less(job, globals);
    }
    detach_from_terminal(in_background);
    settle(in_background, in_background)?;
    mounted.wait()?;
    Ok(ExitCode::SUCCESS)
}

fn log_of(repo: &Repository, in_background: bool) -> Log {
    // In the background nobody reads standard error once the mount is there.
    Log::new(in_background.then(|| repo.cache_dir().join(log::NAME)))
}

fn detach_from_terminal(in_background: bool) {
    if in_background {
        // Out of the reach of the terminal's signals; fails only for a group leader, which a
        // process that was just started is not.
        let _ = rustix::process::setsid();
    }
}

/// Keeps no directory busy, and says that all is ready: also to systemd, if it waits for that. What
/// runs in the background is not what it waits for.
fn settle(tell: bool, in_background: bool) -> Result<()> {
    env::set_current_dir("/").at("/")?;
    if !in_background
        && let Some(socket) = env::var_os(NOTIFY)
        && let Err(error) = notify(&socket)
    {
        let _ = writeln!(io::stderr(), "warning: cannot tell systemd: {error}");
    }
    if tell {
        let mut out = io::stdout();
        out.write_all(READY)?;
        out.flush()?;
    }
    Ok(())
}

/// As sd_notify(3) does it.
fn notify(socket: &OsStr) -> io::Result<()> {
    let at = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.send_to_addr(b"READY=1", &at).map(drop)
}

/// Gets a byte with each signal that asks to end; the second one kills. A terminal that is closed
/// asks, too, unless the one who started this said otherwise: nohup(1) does.
fn listen() -> io::Result<UnixStream> {
    let (receiver, sender) = UnixStream::pair()?;
    let flag = Arc::new(AtomicBool::new(false));
    let of_terminal = [SIGHUP, SIGQUIT]
        .into_iter()
        .filter(|signal| !is_ignored(*signal));
    for signal in [SIGINT, SIGTERM].into_iter().chain(of_terminal) {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
        signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
    }
    Ok(receiver)
}

/// Whether the process was started without a signal.
fn is_ignored(signal: c_int) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn unmount_on_signal(mut signals: UnixStream, unmounter: &Unmounter) {
    if signals.read_exact(&mut [0]).is_err() {
        return;
    }
    if let Err(error) = unmounter.unmount(Umount::Unused) {
        // Someone has files open: take the mount out of their way and serve them to the end.
        let _ = writeln!(
            io::stderr(),
            "warning: {error}; detached until the last user is gone"
        );
        let _ = unmounter.unmount(Umount::Lazy);
    }
}

//! Figures of sessions, and asking for them.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use rustix::net::Shutdown;
use serde::{Deserialize, Serialize};

use super::place::is_trusted;
use super::protocol::{Reply, receive, send};
use crate::mount::{MountError, Result, table};
use crate::stats::Stats;

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a session tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionReport {
    /// Device number of its file system.
    pub device: (u32, u32),
    /// The process that serves it.
    pub pid: u32,
    /// Version of its program.
    pub version: String,
    /// Whether mounts of several commits share it.
    pub shared: bool,
    /// Whether it serves extended attributes.
    pub xattrs: bool,
    /// Figures by name.
    pub figures: Vec<(String, u64)>,
}

impl SessionReport {
    pub(super) fn new(device: (u32, u32), shared: bool, xattrs: bool, stats: &Stats) -> Self {
        Self {
            device,
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shared,
            xattrs,
            figures: stats.values(),
        }
    }
}

/// Answers whoever asks a private session for its figures. Dropped, it ends.
#[derive(Debug)]
pub struct Reporter {
    listener: UnixListener,
}

impl Reporter {
    pub(crate) fn start(
        device: (u32, u32),
        xattrs: bool,
        stats: impl Fn() -> Stats + Send + 'static,
    ) -> Result<Self> {
        let refuse = |doing| MountError::io::<io::Error>(doing, "the reporter");
        let listener = address(device).and_then(|at| UnixListener::bind_addr(&at));
        let listener = listener.map_err(refuse("start"))?;
        let ours = listener.try_clone().map_err(refuse("start"))?;
        let answer = move || {
            let report = || SessionReport::new(device, false, xattrs, &stats());
            // Ends when the socket is shut down.
            while let Ok((stream, _)) = ours.accept() {
                let patient = stream.set_write_timeout(Some(PATIENCE));
                if patient.is_ok() && is_trusted(&stream) {
                    // Whoever goes away before the answer needs none.
                    let _ = send(&stream, &Reply::Stats(vec![report()]));
                }
            }
        };
        let thread = thread::Builder::new().name("reporter".to_owned());
        thread.spawn(answer).map_err(refuse("start"))?;
        Ok(Self { listener })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
    }
}

/// Figures of a private session; `None` if it does not answer.
pub fn private_stats(device: (u32, u32)) -> Result<Option<SessionReport>> {
    let refuse = || MountError::io::<io::Error>("ask", "the session's reporter");
    let stream = match address(device).and_then(|at| UnixStream::connect_addr(&at)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        other => other.map_err(refuse())?,
    };
    // Its name is anyone's to take.
    if !is_of_owner(&stream, device)? {
        return Ok(None);
    }
    stream.set_read_timeout(Some(PATIENCE)).map_err(refuse())?;
    match receive(&stream).map_err(refuse())? {
        Some((Reply::Stats(mut reports), _)) => Ok(reports.pop()),
        _ => Ok(None),
    }
}

/// Whether the other side is root or the user who mounted a file system.
fn is_of_owner(stream: &UnixStream, device: (u32, u32)) -> Result<bool> {
    let rows = table::read()?;
    let row = rows.iter().find(|row| row.device == device);
    let owner = row.and_then(table::Row::owner);
    let peer = rustix::net::sockopt::socket_peercred(stream);
    Ok(peer.is_ok_and(|peer| peer.uid.is_root() || Some(peer.uid.as_raw()) == owner))
}

/// Device numbers are those of the kernel, so the name is taken by no other session.
fn address((major, minor): (u32, u32)) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("grove/{major}:{minor}"))
}

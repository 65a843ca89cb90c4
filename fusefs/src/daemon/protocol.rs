//! What clients and the daemon say to each other: one line of JSON each way; with the answer to a
//! request for a mount comes a descriptor of the detached mount.
//!
//! Both sides are of the same user and, by the socket's name, of the same protocol version. Lines
//! are bounded all the same.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::report::SessionReport;
use crate::descriptor;
use crate::mount::MountAttrs;

const LINE_MAX: usize = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    Mount(Wanted),
    Stats,
}

/// What shall be mounted, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// Mount namespace of the client: the daemon sees the mounts of one only.
    pub(super) namespace: (u64, u64),
    /// `None` for all commits.
    pub(super) rev: Option<String>,
    pub(super) attrs: MountAttrs,
    /// Whether extended attributes shall be seen.
    pub(super) xattrs: bool,
    /// Whether each path shall have an inode number of its own.
    pub(super) unique_inodes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// A descriptor of the mount comes with it. It is kept for the client until the connection
    /// ends.
    Mounted { commit: Option<String> },
    /// It cannot be done, for the reason stated.
    Refused { message: String },
    /// Figures of the daemon's sessions.
    Stats(Vec<SessionReport>),
}

pub(super) fn send<T: Serialize>(stream: &UnixStream, message: &T) -> io::Result<()> {
    let mut stream = stream;
    stream.write_all(&line(message)?)
}

/// Sends a descriptor along with the message. Once all of the message is there, the descriptor of
/// the other side is the only one: what it attaches can be unmounted again at once.
pub(super) fn send_with<T: Serialize>(
    mut stream: &UnixStream,
    message: &T,
    descriptor: OwnedFd,
) -> io::Result<()> {
    let line = line(message)?;
    let first = line.get(..1).unwrap_or_default();
    let sent = descriptor::send(stream, first, &descriptor)?;
    drop(descriptor);
    stream.write_all(line.get(sent..).unwrap_or_default())
}

fn line<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Receives a message and the descriptor that came with it; `None` when the other side went away
/// without a word.
pub(super) fn receive<T: DeserializeOwned>(
    mut stream: &UnixStream,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut line = vec![0; 4096];
    let (mut len, descriptor) = match descriptor::receive(stream, &mut line) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        other => other?,
    };
    if len == 0 {
        return Ok(None);
    }
    loop {
        let got = line.get(..len).unwrap_or_default();
        if let Some(end) = got.iter().position(|byte| *byte == b'\n') {
            let message = serde_json::from_slice(got.get(..end).unwrap_or_default())?;
            return Ok(Some((message, descriptor)));
        }
        if len == line.len() {
            if len >= LINE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            line.resize(2 * len, 0);
        }
        match stream.read(line.get_mut(len..).unwrap_or_default())? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => len += more,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received_with_its_descriptor() {
        let (a, b) = UnixStream::pair().unwrap();
        let request = Request::Mount(Wanted {
            namespace: (4, 5),
            rev: Some("x".repeat(10_000)),
            attrs: MountAttrs::default(),
            xattrs: true,
            unique_inodes: false,
        });
        send(&a, &request).unwrap();
        let (got, descriptor) = receive::<Request>(&b).unwrap().unwrap();
        assert_eq!((got, descriptor.is_some()), (request, false));
        let reply = Reply::Mounted { commit: None };
        send_with(&a, &reply, b.try_clone().unwrap().into()).unwrap();
        let (got, descriptor) = receive::<Reply>(&b).unwrap().unwrap();
        assert_eq!((got, descriptor.is_some()), (reply, true));
    }

    #[test]
    fn silence_is_told_from_nonsense() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert!(receive::<Reply>(&b).unwrap().is_none());
        for text in [&b"{\"Mounted\""[..], b"nonsense\n"] {
            let (mut a, b) = UnixStream::pair().unwrap();
            a.write_all(text).unwrap();
            drop(a);
            assert!(receive::<Reply>(&b).is_err());
        }
    }
}

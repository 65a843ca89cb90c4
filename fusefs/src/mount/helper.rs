//! `fusermount3`, the set-user-id program through which users mount and unmount.
//!
//! It opens `/dev/fuse`, mounts, and sends the descriptor back over a socket whose number it finds
//! in `_FUSE_COMMFD`. The socket is its standard input: nothing has to be inherited by number.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::error::{MountError, Result};
use crate::descriptor;

const HELPER: &str = "fusermount3";

/// Mounts at a directory; `options` are separated by commas.
pub(crate) fn mount(at: &Path, options: &str) -> Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair().map_err(MountError::io("make a socket for", HELPER))?;
    let child = Command::new(HELPER)
        .args(["-o", options, "--"])
        .arg(at)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| MountError::NoHelper { source })?;
    let received = descriptor::receive(&ours, &mut [0]).map(|(_, device)| device);
    // It waits for us only with `auto_unmount`; closed all the same before waiting for it.
    drop(ours);
    let output = child
        .wait_with_output()
        .map_err(MountError::io("run", HELPER))?;
    match received {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(refusal(at, &output)),
        Err(error) => Err(MountError::io("hear from", HELPER)(error)),
    }
}

/// Unmounts; `lazy` detaches it also when it is in use.
pub(crate) fn umount(at: &Path, lazy: bool) -> Result<()> {
    let mut command = Command::new(HELPER);
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(at)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| MountError::NoHelper { source })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(refusal(at, &output)),
    }
}

fn refusal(at: &Path, output: &Output) -> MountError {
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("busy") {
        return MountError::Busy {
            path: at.to_owned(),
            users: Vec::new(),
        };
    }
    let line = text.lines().next().unwrap_or_default().trim();
    let message = match line.is_empty() {
        true => format!("{HELPER} failed ({})", output.status),
        false => line.to_owned(),
    };
    MountError::Helper {
        path: at.to_owned(),
        message,
    }
}

//! How the threads of a daemon wake the one that watches.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Wakes the thread that waits.
#[derive(Debug, Clone)]
pub(super) struct Bell(Arc<UnixStream>);

/// What that thread waits for.
#[derive(Debug)]
pub(super) struct Wakes(UnixStream);

/// A bell, and what hears it.
pub(super) fn pair() -> io::Result<(Bell, Wakes)> {
    let (bell, wakes) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    wakes.set_nonblocking(true)?;
    Ok((Bell(Arc::new(bell)), Wakes(wakes)))
}

impl Bell {
    pub(super) fn ring(&self) {
        // A bell that is full has been rung.
        let _ = (&*self.0).write(&[0]);
    }
}

impl Wakes {
    /// Forgets all that was rung so far: it is looked at once.
    pub(super) fn clear(&self) {
        while matches!((&self.0).read(&mut [0; 64]), Ok(len) if len > 0) {}
    }
}

impl AsFd for Wakes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

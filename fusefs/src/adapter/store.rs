//! Giving the kernel pages of files that it did not ask for: FUSE_NOTIFY_STORE.
//!
//! `fuser` has a call for it that hides whether the kernel knew the file; this writes the message
//! itself. Such a write can wait for a page that a READ is to fill, so it must never happen on a
//! thread that answers requests.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::push::{Pages, Stored};

/// The message's code in the protocol.
const NOTIFY_STORE: u32 = 4;
/// Size of the header of every message to the kernel.
const HEADER: usize = 16;
/// Size of what follows in this one: inode number, offset, length, padding.
const BODY: usize = 24;

/// The kernel's pages of one session's files.
#[derive(Debug)]
pub(super) struct Device(OwnedFd);

impl Device {
    pub(super) fn new(device: OwnedFd) -> Self {
        Self(device)
    }
}

impl Pages for Device {
    fn store(&self, number: u64, offset: u64, bytes: &[u8]) -> io::Result<Stored> {
        let head = head(number, offset, bytes.len())?;
        let message = [IoSlice::new(&head), IoSlice::new(bytes)];
        match rustix::io::writev(&self.0, &message) {
            Ok(_) => Ok(Stored::Taken),
            Err(Errno::NOENT) => Ok(Stored::Unknown),
            Err(error) => Err(error.into()),
        }
    }
}

/// Everything before the bytes, in the machine's byte order as the protocol wants it.
#[expect(
    clippy::host_endian_bytes,
    reason = "the kernel of this machine reads it"
)]
fn head(number: u64, offset: u64, len: usize) -> io::Result<[u8; HEADER + BODY]> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let size = u32::try_from(len).map_err(too_long)?;
    let whole = u32::try_from(len + HEADER + BODY).map_err(too_long)?;
    let fields = [
        &whole.to_ne_bytes()[..],
        &NOTIFY_STORE.to_ne_bytes(),
        // No request is answered.
        &0u64.to_ne_bytes(),
        &number.to_ne_bytes(),
        &offset.to_ne_bytes(),
        &size.to_ne_bytes(),
        &0u32.to_ne_bytes(),
    ];
    let mut head = [0; HEADER + BODY];
    let mut rest = &mut head[..];
    for field in fields {
        let (here, behind) = rest.split_at_mut(field.len());
        here.copy_from_slice(field);
        rest = behind;
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_the_message_is_what_the_protocol_says() {
        let head = head(0x1122, 4096, 5).unwrap();
        let at = |range: std::ops::Range<usize>| {
            head[range]
                .iter()
                .rev()
                .fold(0u64, |n, b| n << 8 | u64::from(*b))
        };
        assert_eq!((at(0..4), at(4..8), at(8..16)), (45, 4, 0));
        assert_eq!(
            (at(16..24), at(24..32), at(32..36), at(36..40)),
            (0x1122, 4096, 5, 0)
        );
    }
}

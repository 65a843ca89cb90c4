//! Extended attributes of input files.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use crate::object::Xattrs;

/// The kernel's limits: 64 KiB for the list of names and for each value.
const LIMIT: usize = 64 * 1024;

/// Attributes of an open file or directory.
pub(crate) fn of_file(file: impl AsFd) -> io::Result<Xattrs> {
    let fd = file.as_fd();
    read(
        |buf| rustix::fs::flistxattr(fd, buf),
        |name, buf| rustix::fs::fgetxattr(fd, name, buf),
    )
}

/// Attributes of a path itself, never of what a symbolic link points to.
pub(crate) fn of_path(path: &Path) -> io::Result<Xattrs> {
    read(
        |buf| rustix::fs::llistxattr(path, buf),
        |name, buf| rustix::fs::lgetxattr(path, name, buf),
    )
}

fn read(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Xattrs> {
    let mut short = [0u8; 256];
    let names = match list(&mut short) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Xattrs::default()),
        Ok(n) => short[..n].to_vec(),
        Err(Errno::RANGE) => {
            let mut long = vec![0u8; LIMIT];
            let n = list(&mut long)?;
            long.truncate(n);
            long
        }
        Err(e) => return Err(e.into()),
    };
    let mut entries = Vec::new();
    let mut value = vec![0u8; LIMIT];
    for name in names.split_inclusive(|b| *b == 0) {
        let name = CStr::from_bytes_with_nul(name).map_err(io::Error::other)?;
        match get(name, &mut value) {
            Ok(n) => entries.push((name.to_bytes().to_vec(), value[..n].to_vec())),
            // Removed between the two calls.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Xattrs::from_unsorted(entries))
}

//! `/dev/fuse`, and mounting it with mount(2).

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::error::{MountError, Result};
use super::{KIND, helper};

const DEVICE: &str = "/dev/fuse";

/// Opens the device at a number that no standard stream has.
pub(crate) fn open() -> Result<OwnedFd> {
    let no_device = |source| MountError::NoDevice { source };
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(no_device)?;
    if device.as_raw_fd() > 2 {
        return Ok(device.into());
    }
    rustix::io::fcntl_dupfd_cloexec(&device, 3).map_err(|error| no_device(error.into()))
}

/// Mounts an open device. `access` has the options that say who may come in.
pub(crate) fn mount(
    device: &OwnedFd,
    name: &str,
    at: &Path,
    flags: MountFlags,
    access: &[&str],
) -> rustix::io::Result<()> {
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    for option in access {
        data.push(',');
        data.push_str(option);
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(name, at, KIND, flags, data.as_c_str())
}

/// Options for letting every user in, and for having the kernel check modes. Without the check,
/// nothing would keep others out of anything: the first never comes without the second.
pub(crate) fn access(allow_other: bool, enforce_modes: bool) -> Vec<&'static str> {
    let mut names = Vec::new();
    if enforce_modes || allow_other {
        names.push("default_permissions");
    }
    if allow_other {
        names.push("allow_other");
    }
    names
}

/// As many threads as processors, from 2 to 8, if not told otherwise.
pub(crate) fn threads(wanted: Option<NonZeroUsize>) -> usize {
    let processors = || {
        thread::available_parallelism()
            .map_or(2, NonZeroUsize::get)
            .clamp(2, 8)
    };
    wanted.map_or_else(processors, NonZeroUsize::get)
}

/// Only root may; a smaller read-ahead is slower, not wrong.
pub(crate) fn raise_read_ahead((major, minor): (u32, u32), kib: u32) {
    let _ = fs::write(
        format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"),
        kib.to_string(),
    );
}

/// Mounts, by ourselves or through the helper; what is returned is the device to serve.
pub(crate) fn attach(at: &Path, options: &super::MountOptions) -> Result<OwnedFd> {
    let device = open()?;
    let access = access(options.allow_other, options.enforce_modes);
    match mount(&device, &options.name, at, options.attrs.flags(), &access) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => helper::mount(at, &helper_options(options, &access)),
        Err(error) => Err(MountError::io("mount at", at)(error)),
    }
}

fn helper_options(options: &super::MountOptions, access: &[&'static str]) -> String {
    // It takes a comma or backslash in a name when a backslash stands before.
    let name = options.name.replace('\\', "\\\\").replace(',', "\\,");
    let mut text = format!("ro,noatime,fsname={name},subtype={}", super::SUBTYPE);
    let attrs = options.attrs;
    // The helper's own defaults are without both.
    let asked = [(attrs.suid, "suid"), (attrs.dev, "dev")];
    let asked = asked
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name));
    for option in attrs.names().chain(asked).chain(access.iter().copied()) {
        text.push(',');
        text.push_str(option);
    }
    text
}

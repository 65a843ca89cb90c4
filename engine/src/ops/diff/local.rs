//! The file-system side of a comparison.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{DiffOptions, Dir, File as Entry, FileKind, Info, Listing, Source};
use crate::error::{Error, IoResultExt, Result};
use crate::id::PayloadId;
use crate::monitor::Monitor;
use crate::object::Xattrs;

const BUFFER: usize = 256 * 1024;

/// Contents of a directory, sorted. Counts what is left out of it, where the options want that.
pub(super) fn list(path: &Path, options: &DiffOptions, skipped: &mut u64) -> Result<Listing> {
    let mut listing = Listing::default();
    let mut refuse = |path: &Path, reason: &str| {
        if options.skip_special {
            *skipped += 1;
            return Ok(());
        }
        Err(Error::UnsupportedInput {
            path: path.to_string_lossy().into_owned(),
            reason: reason.into(),
        })
    };
    for entry in fs::read_dir(path).at(path)? {
        let entry = entry.at(path)?;
        let Ok(name) = entry.file_name().into_string() else {
            refuse(&entry.path(), "the name is not UTF-8")?;
            continue;
        };
        let kind = entry.file_type().at(entry.path())?;
        if kind.is_dir() {
            listing.dirs.push((name, Dir::Local(entry.path())));
        } else if kind.is_file() || kind.is_symlink() {
            listing.files.push((name, Entry::Local(entry.path())));
        } else {
            let reason = "neither a regular file, a symbolic link nor a directory";
            refuse(&entry.path(), reason)?;
        }
    }
    listing.files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    listing.dirs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(listing)
}

/// Metadata of a path itself.
pub(super) fn info(path: &Path, options: &DiffOptions) -> Result<Info> {
    let stat = fs::symlink_metadata(path).at(path)?;
    let kind = match stat.file_type() {
        t if t.is_dir() => FileKind::Directory,
        t if t.is_symlink() => FileKind::Symlink,
        _ => FileKind::File,
    };
    let symlink_target = match kind {
        FileKind::Symlink => fs::read_link(path).at(path)?.into_os_string().into_vec(),
        _ => Vec::new(),
    };
    let xattrs = if options.no_xattrs {
        Xattrs::default()
    } else {
        crate::fs::xattr::of_path(path).at(path)?
    };
    Ok(Info {
        kind,
        mode: stat.mode(),
        uid: options.owner_uid.unwrap_or(stat.uid()),
        gid: options.owner_gid.unwrap_or(stat.gid()),
        size: if kind == FileKind::File {
            stat.size()
        } else {
            0
        },
        xattrs,
        symlink_target,
        payload: None,
        source: Source::Local(path.to_owned()),
    })
}

/// Name of a regular file's payload.
pub(super) fn payload(path: &Path, monitor: &dyn Monitor) -> Result<PayloadId> {
    let mut file = File::open(path).at(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        if monitor.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let n = file.read(&mut buffer).at(path)?;
        let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        hash.update(bytes);
    }
    Ok(PayloadId::from_bytes(hash.finalize().into()))
}
